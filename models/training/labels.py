"""Emotion categories, their points of valence and arousal, and what the file names of recordings say.

All targets are category-derived: a category is a point on the circumplex. A face gets the mean of its votes' points. An
acted recording gets the point of its category, scaled by its intensity.
"""

import csv
from pathlib import Path

import numpy as np

from .arguments import BadInput

EXPRESSIONS = ["neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt"]

# After Russell & Mehrabian 1977. Calm and contempt are this project's choice.
CIRCUMPLEX = {
    "neutral": (0.00, 0.00), "calm": (0.30, -0.35), "happiness": (0.81, 0.51), "surprise": (0.40, 0.67),
    "sadness": (-0.63, -0.27), "anger": (-0.51, 0.59), "disgust": (-0.60, 0.35), "fear": (-0.64, 0.60),
    "contempt": (-0.35, 0.15),
}  # fmt: skip
# Categories of vocal bursts and degrees of arousal without valence (nan). Their points are this project's choice.
FURTHER_POINTS = {
    "amusement": (0.75, 0.50), "contentment": (0.65, -0.15), "distress": (-0.65, 0.55), "elation": (0.85, 0.75),
    "pain": (-0.70, 0.50), "serenity": (0.50, -0.40), "bad surprise": (-0.20, 0.70), "good surprise": (0.55, 0.65),
    "low arousal": (float("nan"), -0.40), "medium arousal": (float("nan"), 0.05), "high arousal": (float("nan"), 0.60),
}  # fmt: skip
# The category that the voice encoder's classifier learns for them; the others teach it nothing.
NEAREST_EMOTION = {
    "amusement": "happiness", "contentment": "calm", "elation": "happiness", "serenity": "calm", "bad surprise": "surprise",
    "good surprise": "surprise",
}  # fmt: skip
SYNONYMS = {
    "happy": "happiness", "surprised": "surprise", "sad": "sadness", "angry": "anger", "fearful": "fear",
    "disgusted": "disgust",
}  # fmt: skip
RAVDESS_EMOTIONS = ["neutral", "calm", "happiness", "sadness", "anger", "fear", "disgust", "surprise"]  # 01 to 08
SPEECH_EMOTIONS = ["neutral", "calm", "happiness", "surprise", "sadness", "anger", "disgust", "fear"]  # of both corpora
NORMAL, STRONG, UNSTATED = 0.7, 1.0, 0.85  # intensities; nEMO states none


def canonical(emotion):
    """The category's name as this project spells it."""
    emotion = emotion.strip().lower()
    return SYNONYMS.get(emotion, emotion)


def read_table(path):
    """Rows of a table with a header, {column in lower case: text}. The header decides between comma, semicolon and tab."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as a table ({getattr(error, 'strerror', None) or error})") from None
    if len(lines) < 2:
        raise BadInput(f"{path}: no rows: expected a header line and one line for each row")
    delimiter = max(",\t;", key=lines[0].count)
    header = [name.strip().lower() for name in next(csv.reader(lines[:1], delimiter=delimiter))]
    rows = csv.reader(lines[1:], delimiter=delimiter)
    return [dict(zip(header, map(str.strip, row), strict=False)) for row in rows if any(map(str.strip, row))]


def number(row, column, path, line):
    """A cell of `read_table` as a number; an absent or empty cell is 0."""
    text = row.get(column) or "0"
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise BadInput(f"{path}: line {line}: {column} is {text!r}, not a number")
    return value


def read_targets(path):
    """{emotion: (valence, arousal)} of a table with these three columns; the project's own points if `path` is None."""
    if path is None:
        return CIRCUMPLEX
    rows = read_table(path)
    missing = {"emotion", "valence", "arousal"} - set(rows[0])
    if missing:
        raise BadInput(f"{path}: no column {', '.join(sorted(missing))}: expected emotion, valence, arousal")
    return {
        canonical(row["emotion"]): (number(row, "valence", path, i), number(row, "arousal", path, i))
        for i, row in enumerate(rows, 2)
    }


def target(targets, emotion):
    """The point of a category in what `read_targets` returned."""
    if emotion not in targets:
        raise BadInput(f"--targets: no row for {emotion}: it has {', '.join(targets)}")
    return targets[emotion]


def expression_points(data):
    """Valence and arousal of EXPRESSIONS, f64 [8, 2], from `circumplex.csv` in the data folder."""
    targets = read_targets(Path(data) / "circumplex.csv")
    return np.array([target(targets, name) for name in EXPRESSIONS])


def describe(name, table=None):
    """(corpus, speaker, emotion, intensity) of a recording by its file name; None if the name has another form.

    RAVDESS names are seven numbers: modality-channel-emotion-intensity-statement-repetition-actor. nEMO names are
    speaker_emotion_sentence. `table` {stem: (speaker, emotion)}, if given, replaces the nEMO rule.
    """
    stem = Path(name).stem
    parts = stem.split("-")
    if len(parts) == 7 and all(part.isdigit() for part in parts):
        emotion = int(parts[2])
        if not 1 <= emotion <= len(RAVDESS_EMOTIONS):
            return None
        return "ravdess", parts[6], RAVDESS_EMOTIONS[emotion - 1], STRONG if parts[3] == "02" else NORMAL
    if table is not None:
        return ("nemo", *table[stem], UNSTATED) if stem in table else None
    parts = stem.split("_")
    if len(parts) == 3 and canonical(parts[1]) in CIRCUMPLEX:
        return "nemo", parts[0], canonical(parts[1]), UNSTATED
    return None
