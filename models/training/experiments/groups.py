"""How the face encoder reads people of different groups: held-out web faces that the corpora call happy or neutral.

    python -m models.training.experiments.groups --data DIR --work DIR [--models DIR]

No corpus states age, sex or skin tone. Two proxies stand in for them, and both are weak:

- first names of muxspace (people in the news): names that are given to women or to men nearly always;
- the brightness of the cheeks relative to the rest of the face, in thirds: with the light of a photograph in it.

Prints, for each group: the number of faces, mean rated valence and arousal, the share whose reported expression is the label, and
the same of the teachers' valence.
"""

import numpy as np

from .. import arguments
from ..data.taught_faces import read_taught_faces
from ..inference import FaceEncoder
from ..labels import EXPRESSIONS
from ..preprocessing.face_scores import RATED, expression

WOMEN = """
angela angelina ana anna barbara carol catherine christina christine claire condoleezza debra diana elizabeth emma
gloria halle heather hillary jacqueline jane janet jennifer jessica julia julianne julie kate katherine laura lindsay
lisa maria martha mary megawati meryl michelle monica naomi natalie nancy nicole nicola pamela patricia rachel salma
sandra sarah serena sharon sophia susan tina venus victoria winona yoko
"""
MEN = """
abdullah alan alejandro alvaro andre andy anthony antonio ariel arnold ben bill bob brad brian bruce carlos charles
colin daniel david dick donald edward eduardo fernando frank george gerhard guillermo hans harrison harry howard hugo
igor jack jacques james jason javier jeremy jim john jose joseph juan junichiro kofi lance larry luis luiz mahmoud mark
martin michael mike mohammed nestor norm paul pedro pete peter recep ricardo richard robert roger rudolph saddam silvio
steve steven thomas tiger tim tom tommy tony vicente vladimir walter william
"""


def cheek_brightness(faces):
    """Mean luma of both cheeks relative to the deviation of the whole face, [n], of u8 faces [n, 48, 48]."""
    cheeks = np.concatenate([faces[:, 26:34, 8:16], faces[:, 26:34, 32:40]], 2).reshape(len(faces), -1).mean(1)
    flat = faces.reshape(len(faces), -1)
    return (cheeks - flat.min(1)) / np.maximum(flat.max(1).astype(float) - flat.min(1), 1)


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    arguments.add_models(parser)
    options = parser.parse_args()
    holdout = read_taught_faces(options.data, options.work, options.models)["holdout"]
    web = holdout.select(holdout.corpus != "ferplus")
    scores = FaceEncoder(options.models).scores(web.faces)
    shown = expression(scores).argmax(1)
    names = np.array([name.split("_")[0].lower() for name in web.name])
    brightness = cheek_brightness(web.faces)
    lower, upper = np.quantile(brightness, (1 / 3, 2 / 3))
    groups = {
        "all": np.ones(len(web), bool),
        "muxspace": web.corpus == "muxspace",
        "FFHQ": web.corpus == "ffhq",
        "women's first names": np.isin(names, WOMEN.split()),
        "men's first names": np.isin(names, MEN.split()),
        "darkest third of cheeks": brightness < lower,
        "middle third": (brightness >= lower) & (brightness < upper),
        "brightest third of cheeks": brightness >= upper,
    }
    print("| label | group | faces | valence | arousal | expression = label | teachers' valence |\n|" + " --- |" * 7)
    for label in ("neutral", "happiness"):
        for group, rows in groups.items():
            rows = rows & (web.label == label)
            valence, arousal = scores[rows, RATED].mean(0)
            right = (shown[rows] == EXPRESSIONS.index(label)).mean()
            teachers = web.affect[rows, 0].mean()
            print(
                f"| {label} | {group} | {rows.sum()} | {valence:.2f} | {arousal:.2f} | {right:.2f} | {teachers:.2f} |"
            )


if __name__ == "__main__":
    arguments.run(main)
