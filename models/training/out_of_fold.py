"""Voice embeddings as honest on training speakers as they are on new ones.

An encoder fits the speakers it was trained on better than anyone else, so a fusion trained on its embeddings of them
would trust the voice too much. Cross-fitting mends that, but encoders trained on different folds have unrelated
embedding spaces. So each fold gets a *student*: a fresh encoder that learns to imitate the finished encoder's
embedding, from all training speakers but those of its fold. On its fold it speaks the finished encoder's language, with
the errors of one who never heard these people.
"""

import math
import time

import numpy as np
import torch

import mel_augment
from joint_cross_attention import VOICE
from voice_encoder import VoiceEncoder, WindowSampler, batch_input

FOLDS = 3


def fold_of(utterance):
    """0 .. FOLDS - 1, by speaker."""
    if utterance.corpus == "ravdess":
        return int(utterance.speaker) % FOLDS
    return sum(utterance.speaker.encode()) % FOLDS


def student(teacher, corpora, utterances, fold, path, epochs, batch=32, rate=2e-3):
    """The encoder that imitates `teacher` without the speakers of `fold`; read from `path` if it is there."""
    torch.manual_seed(100 + fold)
    encoder = VoiceEncoder().to(memory_format=torch.channels_last)
    if path.exists():
        encoder.load_state_dict(torch.load(path))
        return encoder.eval()
    generator = torch.Generator().manual_seed(100 + fold)
    sampler = WindowSampler(corpora, [u for u in utterances if fold_of(u) != fold], generator)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=rate, weight_decay=0.02)
    teacher.eval()
    for epoch in range(epochs):
        start, total, unit, steps = time.time(), 0.0, 0.0, sampler.steps(batch)
        encoder.train()
        for step, (powers, _, _) in enumerate(sampler.epoch(batch)):
            done = (epoch + step / steps) / epochs
            for group in optimizer.param_groups:
                group["lr"] = rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
            window = batch_input(mel_augment.augment(powers, generator))
            with torch.no_grad():
                goal = teacher(window)
            error = (encoder(window) - goal).square().mean()
            spread = goal.var(0, unbiased=False).mean()
            loss = error / spread
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, unit = total + error.item(), unit + spread.item()
        print(f"student {fold} epoch {epoch} unexplained {total / unit:.3f} {time.time() - start:.0f} s", flush=True)
    torch.save(encoder.state_dict(), path)
    return encoder.eval()


def students(teacher, corpora, utterances, folder, epochs):
    """One student a fold."""
    return [student(teacher, corpora, utterances, fold, folder / f"student_{fold}.pt", epochs) for fold in range(FOLDS)]


def translated(by_students, by_teacher):
    """The performances that an earlier encoder's students heard, changed in place, in the language of a later encoder.

    For an encoder that only went on from an earlier one: a linear map, fitted by ridge regression over all windows, in which
    64 x 64 numbers cannot remember speakers.
    """
    theirs = np.concatenate([item.voice[0, item.voiced] for item in by_students])
    ours = np.concatenate([item.voice[0, item.voiced] for item in by_teacher])
    mean, goal = theirs.mean(0), ours.mean(0)
    centred = theirs - mean
    gram = centred.T @ centred + 1e-3 * len(centred) * np.eye(VOICE)
    weight = np.linalg.solve(gram, centred.T @ (ours - goal))
    for item in by_students:
        voice = np.maximum((item.voice - mean) @ weight + goal, 0)
        item.voice = np.where(item.voiced[:, None], voice, 0).astype(np.float32)
    return by_students


def matched(by_students, by_teacher):
    """The students' performances, changed in place, with each channel brought to the teacher's mean and deviation.

    A student that explains only a part of an embedding shrinks it towards the mean, which would teach the fusion a scale
    that the finished encoder does not have. Mixing in some of the teacher's own embeddings, tried at up to 0.3 and 0.6,
    made validation worse: they all but contain the labels, and the fusion finds that out.
    """

    def moments(items):
        voiced = np.concatenate([item.voice[:, item.voiced].reshape(-1, VOICE) for item in items])
        return voiced.mean(0), voiced.std(0)

    (mean, deviation), (own_mean, own_deviation) = moments(by_teacher), moments(by_students)
    for item in by_students:
        voice = (item.voice - own_mean) / (own_deviation + 1e-6) * deviation + mean
        item.voice = np.where(item.voiced[:, None], voice, 0).astype(np.float32)
    return by_students
