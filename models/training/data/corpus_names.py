"""What the file names of the speech corpora say: speaker, category and intensity of each recording."""

from pathlib import Path

from ..labels import NORMAL, UNSTATED, describe

JAVANESE = {"01": "neutral", "02": "sadness", "03": "happiness", "04": "surprise", "05": "fear", "06": "anger"}
ASED = {"n": "neutral", "f": "fear", "h": "happiness", "s": "sadness", "a": "anger"}
EMOTION_TTS = ["neutral", "happiness", "anger", "sadness"]  # by the hundreds of the number
BAVED = ["low arousal", "medium arousal", "high arousal"]
EMOGATOR = {
    "02": "amusement", "03": "anger", "06": "contempt", "07": "contentment", "10": "disgust", "11": "distress", "13": "elation",
    "15": "fear", "18": "neutral", "19": "pain", "24": "sadness", "25": "serenity", "27": "bad surprise", "28": "good surprise",
}  # fmt: skip


def describe_javanese(stem):
    """`speaker-sentence-emotion_repetition`."""
    speaker, _, rest = stem.split("-")
    return speaker, JAVANESE[rest.split("_")[0]], UNSTATED


def describe_ased(stem):
    """`code-sentence-repetition-sex-speaker`; the first letter of the code is the emotion."""
    code, _, _, _, speaker = stem.split("-")
    return speaker, ASED[code[0].lower()], UNSTATED


def describe_emotion_tts(stem):
    """Three letters of the speaker, then a number."""
    return stem[:3], EMOTION_TTS[int(stem[3:]) // 100], UNSTATED


def describe_baved(stem):
    """`speaker-sex-age-word-level-id`."""
    parts = stem.split("-")
    return parts[0], BAVED[int(parts[4])], 1.0


def describe_emogator(stem):
    """`contributor-category-take`."""
    contributor, category, _ = stem.split("-")
    return contributor, EMOGATOR[category], NORMAL if category == "18" else UNSTATED


def describe_acted(stem):
    """RAVDESS and nEMO."""
    return describe(stem)[1:]


# corpus: (archive, names of its recordings -> (speaker, category, intensity))
ARCHIVES = {
    "ravdess": ("ravdess.tar", describe_acted),
    "nemo": ("nemo.tar", describe_acted),
    "javanese": ("javanese.tar", describe_javanese),
    "ased": ("ased.tar", describe_ased),
    "emotiontts": ("emotiontts.tar", describe_emotion_tts),
    "baved": ("baved.tar", describe_baved),
    "emogator": ("emogator.tar", describe_emogator),
}


def describe_recording(corpus, name):
    """(speaker, category, intensity) of a recording of this corpus. Raises ValueError for a name of another form."""
    stem = Path(name).stem
    try:
        return ARCHIVES[corpus][1](stem)
    except (KeyError, IndexError, TypeError, ValueError):
        raise ValueError(f"{name}: not a name of the corpus {corpus}") from None
