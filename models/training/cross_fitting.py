"""Voice embeddings of training speakers with the errors that new speakers would have.

An encoder fits the speakers it was trained on better than others, so a fusion trained on its embeddings of them would trust
the voice too much. Cross-fitting solves that: the embeddings of a fold come from an encoder trained without that fold. But
encoders trained on different folds have unrelated embedding spaces. So each fold gets a *student*: a new encoder that learns to
imitate the embedding of the finished encoder (the *teacher*), from all training speakers except those of its fold. On its fold
a student produces embeddings in the teacher's space, with the errors of an encoder that was not trained on these people.
"""

import math
import time

import numpy as np
import torch

from .augmentation import voices
from .data.voice_windows import WindowSampler
from .networks.joint_cross_attention import VOICE
from .networks.voice_encoder import VoiceEncoder, network_input
from .progress import time_left

FOLDS = 3


def fold_of(utterance):
    """The fold of an utterance, 0 to FOLDS - 1, by speaker. Of the Javanese speakers, two neighbours share a fold."""
    if utterance.corpus == "javanese":
        return (int(utterance.speaker) - 1) // 2
    if utterance.corpus in ("ravdess", "actor01"):
        return int(utterance.speaker) % FOLDS
    return sum(utterance.speaker.encode()) % FOLDS


def train_student(teacher, corpora, utterances, fold, path, epochs, batch=32, rate=2e-3):
    """The encoder that imitates `teacher` without the speakers of `fold`; read from `path` if it exists."""
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
            window = network_input(voices.augment(powers, generator))
            with torch.no_grad():
                goal = teacher(window)
            error = (encoder(window) - goal).square().mean()
            spread = goal.var(0, unbiased=False).mean()
            loss = error / spread
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, unit = total + error.item(), unit + spread.item()
        took = time.time() - start
        left = time_left(took, epochs - epoch - 1)
        print(f"student {fold} epoch {epoch} unexplained {total / unit:.3f} {took:.0f} s, {left}", flush=True)
    torch.save(encoder.state_dict(), path)
    return encoder.eval()


def train_students(teacher, corpora, utterances, folder, epochs):
    """One student for each fold; checkpoints are in `folder`."""
    return [
        train_student(teacher, corpora, utterances, fold, folder / f"student_{fold}.pt", epochs)
        for fold in range(FOLDS)
    ]


def match_moments(by_students, by_teacher):
    """Scale each channel of the students' embeddings to the mean and deviation of the teacher's, in place.

    A student that explains only a part of an embedding shrinks it towards the mean, and the fusion would learn a scale that the
    finished encoder does not have. Mixing in a share of the teacher's own embeddings (0.3 and 0.6 were tried) made validation
    worse: they nearly contain the labels, and the fusion exploits that.
    """

    def moments(performances):
        voiced = np.concatenate([p.voice[:, p.voiced].reshape(-1, VOICE) for p in performances])
        return voiced.mean(0), voiced.std(0)

    (mean, deviation), (own_mean, own_deviation) = moments(by_teacher), moments(by_students)
    for performance in by_students:
        voice = (performance.voice - own_mean) / (own_deviation + 1e-6) * deviation + mean
        performance.voice = np.where(performance.voiced[:, None], voice, 0).astype(np.float32)
    return by_students
