"""How well the voice encoder does on a language that it never heard: each corpus is left out once.

    python -m models.training.experiments.unseen_languages --data DIR --work DIR [--epochs N] [--corpora ased,javanese]

Trains a voice encoder on the training speakers of all corpora but one, by the recipe of `train_voice_encoder`, and measures
Pearson's r between the training heads and the category-derived targets, by utterance, on all utterances of the corpus that was
left out. Everything is cached in --work, and a second run continues. Prints a Markdown table.
"""

import torch

from .. import arguments, train_voice_encoder
from ..data.corpus_names import ARCHIVES
from ..data.speech_corpora import Corpora
from ..data.voice_windows import MeasuredWindows

LANGUAGES = {
    "ravdess": "English", "nemo": "Polish", "javanese": "Javanese", "ased": "Amharic", "emotiontts": "Korean", "baved": "Arabic",
    "emogator": "vocal bursts",
}  # fmt: skip


def main():
    parser = arguments.parser(__doc__)
    arguments.add_data(parser)
    arguments.add_work(parser)
    parser.add_argument("--epochs", type=int, default=30, help="default: %(default)s")
    parser.add_argument("--corpora", default=",".join(ARCHIVES), help="which to leave out; default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpora = Corpora(options.data, options.work)
    rows = []
    for corpus in options.corpora.split(","):
        utterances = [u for u in corpora.utterances if u.corpus == corpus]
        folder = options.work / f"without_{corpus}"
        train_voice_encoder.train(corpora, corpora.training(corpus), None, folder, options.epochs, 32, 1.5e-3, 1)
        encoder, heads = train_voice_encoder.load(folder)
        windows = MeasuredWindows(corpora, utterances)
        with torch.no_grad():
            prediction = torch.cat([heads(encoder(x))[0] for x in windows.inputs()])
        valence, arousal = windows.correlations(prediction)
        speakers = len({u.speaker for u in utterances})
        rows.append(
            f"| {corpus} ({LANGUAGES[corpus]}) | {len(utterances)}, {speakers} | {valence:.2f} / {arousal:.2f} |"
        )
        print(rows[-1], flush=True)
    print("\n| corpus left out | utterances, speakers | r valence / arousal |\n| --- | --- | --- |")
    print("\n".join(rows))


if __name__ == "__main__":
    arguments.run(main)
