"""Reads what affectd sends, from a serial port, an MQTT broker, a file or standard input.

from affectd_reader import Reader

reader = Reader("mqtt://broker.lan?device=kitchen")
for estimate in reader.estimates():
    print(estimate.valence, estimate.arousal, reader.counters.missing)
"""

from .errors import SourceError
from .records import (
    Answer,
    Box,
    Connection,
    Estimate,
    Face,
    Health,
    InvalidMessage,
    Message,
    Status,
    Voice,
    parse,
    to_json,
)
from .sources import Counters, Reader

__all__ = [
    "Answer",
    "Box",
    "Connection",
    "Counters",
    "Estimate",
    "Face",
    "Health",
    "InvalidMessage",
    "Message",
    "Reader",
    "SourceError",
    "Status",
    "Voice",
    "parse",
    "to_json",
]
