"""Teachers: small networks that others trained on AffectNet, where people rated valence and arousal.

Two classifiers of eight expressions and two regressors of valence and arousal. They take faces of 224 x 224 pixels with values in
0..255, BGR; grey faces work. Nothing of them ships: the face encoder learns to imitate their mean on faces that they have not
seen.
"""

from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from PIL import Image

from ..labels import EXPRESSIONS

SIZE = 224
CLASSIFIERS = ("affectnet_expr_mobilenetv3_large_075", "affectnet_expr_squeezenet")
REGRESSORS = ("affectnet_va_shufflenet_128", "affectnet_va_shufflenet_200")
# Their order of the expressions; the regressors give arousal first.
AFFECTNET = ["neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt"]
BLOCK = 512  # faces of one task of a worker


def open_teacher(folder, name):
    """A function of one input [1, 224, 224, 3] -> its output [k]."""
    from ai_edge_litert.interpreter import Interpreter

    network = Interpreter(str(folder / f"{name}.tflite"), num_threads=1)
    network.allocate_tensors()
    (source,), (sink,) = network.get_input_details(), network.get_output_details()

    def run(image):
        network.set_tensor(source["index"], image)
        network.invoke()
        return network.get_tensor(sink["index"])[0].copy()

    return run


def label(faces, folder):
    """Posteriors [n, 2, 8] in the order of EXPRESSIONS and (valence, arousal) [n, 2, 2] of each teacher, means of two views."""
    classifiers, regressors = ([open_teacher(folder, name) for name in names] for names in (CLASSIFIERS, REGRESSORS))
    order = [AFFECTNET.index(name) for name in EXPRESSIONS]
    posteriors = np.zeros((len(faces), len(CLASSIFIERS), len(EXPRESSIONS)), np.float32)
    affect = np.zeros((len(faces), len(REGRESSORS), 2), np.float32)
    for row, face in enumerate(faces):
        large = np.asarray(Image.fromarray(face).resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
        for view in (large, large[:, ::-1]):
            image = np.repeat(view[None, :, :, None], 3, -1)
            posteriors[row] += [run(image)[order] / 2 for run in classifiers]
            affect[row] += [run(image)[::-1] / 2 for run in regressors]
    return posteriors, affect


def label_all(faces, folder, workers=2):
    """`label` of many faces u8 [n, side, side], in several processes."""
    blocks = [faces[start : start + BLOCK] for start in range(0, len(faces), BLOCK)]
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(partial(label, folder=folder), blocks))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))
