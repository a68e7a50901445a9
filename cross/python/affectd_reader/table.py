"""CSV rows with the columns of affectd's `format=csv`, and the device after them."""

from __future__ import annotations

from .records import Estimate
from .wire import EXPRESSIONS

COLUMNS = (
    *("seq", "t", "time", "paused", "valence", "arousal", "confidence", "from_face", "from_voice"),
    *("face_id", "face_x", "face_y", "face_w", "face_h", "face_score", "voice_active", "voice_level_db"),
    *(f"expression_{name}" for name in EXPRESSIONS),
    *("latency_ms", "device"),
)


def row(estimate: Estimate) -> list[object]:
    """The cells of COLUMNS. An unknown value is an empty cell, as is an expression below 0.05."""
    face, voice, expression = estimate.face, estimate.voice, estimate.expression or {}
    cells = [
        *(estimate.seq, f"{estimate.t:.3f}".rstrip("0").rstrip("."), estimate.time_text, int(estimate.paused)),
        *(estimate.valence, estimate.arousal, estimate.confidence),
        *(int(name in estimate.modalities) for name in ("face", "voice")),
        *((face.id, *face.box, face.score) if face else [None] * 6),
        *((int(voice.active), voice.level_db) if voice else [None] * 2),
        *(expression.get(name) for name in EXPRESSIONS),
        *(estimate.latency_ms, estimate.device),
    ]
    return ["" if cell is None else cell for cell in cells]
