"""Reads the frames that affectd writes with serial:...?wire=frame. Pure Python; cross/wire.md documents the format.

    for message in Reader().feed(port.read(256)):
        print(message)

This file needs no other. As a program, it prints the frames on standard input as JSON lines:

    stty -F /dev/ttyUSB0 raw -echo 115200 && python3 wire.py </dev/ttyUSB0

Licence: MIT or Apache-2.0, as affectd.
"""

import binascii
import json
import os
import struct
import sys
from dataclasses import dataclass, field

VERSION = 1
ESTIMATE, TEXT = 1, 2
EXPRESSIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

# seq, t_ms, valence, arousal, confidence, flags, face score, box, face id, level, expression, its percentage, latency
RECORD = struct.Struct("<IIhhhBB4HHhBBH")
MAX_CODE_BYTES = 1024
UNKNOWN_I16, UNKNOWN_U16, UNKNOWN_U8 = -0x8000, 0xFFFF, 0xFF


class InvalidFrame(Exception):
    """The bytes between two delimiters are not a valid frame."""


@dataclass
class Reader:
    """Finds the frames in a stream of bytes. The stream may begin anywhere and may be damaged."""

    invalid: int = 0
    _code: bytearray = field(default_factory=bytearray)
    _synchronized: bool = False

    def feed(self, stream):
        """Reads bytes. Yields a dict for each estimate, and a str with a JSON object for each answer."""
        for byte in stream:
            if byte:
                # One byte more than the limit is kept, to see that the frame is too long.
                if len(self._code) <= MAX_CODE_BYTES:
                    self._code.append(byte)
                continue
            code, self._code = bytes(self._code), bytearray()
            was_synchronized, self._synchronized = self._synchronized, True
            if not code:
                continue
            try:
                yield decode(code)
            except InvalidFrame:
                # The bytes before the first delimiter may be half a frame, which is not an error.
                self.invalid += was_synchronized


def decode(code):
    """Decodes the bytes between two delimiters."""
    content = decode_cobs(code)
    if len(code) > MAX_CODE_BYTES or len(content) < 4:
        raise InvalidFrame
    content, crc = content[:-2], int.from_bytes(content[-2:], "little")
    # CRC-16/IBM-3740.
    if binascii.crc_hqx(content, 0xFFFF) != crc or content[0] != VERSION:
        raise InvalidFrame
    kind, body = content[1], content[2:]
    if kind == ESTIMATE and len(body) == RECORD.size:
        return estimate(body)
    if kind == TEXT:
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise InvalidFrame from None
    raise InvalidFrame


def decode_cobs(code):
    """Decodes COBS."""
    content, at = bytearray(), 0
    while at < len(code):
        run = code[at]
        if run == 0 or at + run > len(code):
            raise InvalidFrame
        content += code[at + 1 : at + run]
        at += run
        if run < 0xFF and at < len(code):
            content.append(0)
    return bytes(content)


def estimate(body):
    """Decodes a record into a dict with the names of the JSON line."""
    seq, t_ms, valence, arousal, confidence, flags, score, *box, face_id, level, expression, percent, latency = (
        RECORD.unpack(body)
    )
    from_face, from_voice, face, voice, active, paused = (bool(flags >> bit & 1) for bit in range(6))
    valid = (
        not flags >> 6
        and in_range(valence, -10000)
        and in_range(arousal, -10000)
        and in_range(confidence, 0)
        and in_range(level, -10000)
        and (voice or (not active and level == UNKNOWN_I16))
        and (percent == UNKNOWN_U8 if expression == UNKNOWN_U8 else expression < len(EXPRESSIONS) and percent <= 100)
    )
    if face:
        valid = valid and score <= 100 and max(box) <= 10000
    else:
        valid = valid and (score, *box, face_id, expression) == (UNKNOWN_U8, *[UNKNOWN_U16] * 5, UNKNOWN_U8)
    if not valid:
        raise InvalidFrame
    return {
        "seq": seq,
        "t": t_ms / 1000,
        "paused": paused,
        "valence": known(valence, 10000),
        "arousal": known(arousal, 10000),
        "confidence": known(confidence, 10000),
        "modalities": ["face"] * from_face + ["voice"] * from_voice,
        "face": {"id": face_id, "box": [side / 10000 for side in box], "score": score / 100} if face else None,
        "voice": {"active": active, "level_db": known(level, 10)} if voice else None,
        "expression": None if expression == UNKNOWN_U8 else {EXPRESSIONS[expression]: percent / 100},
        "latency_ms": None if latency == UNKNOWN_U16 else latency,
    }


def in_range(value, low):
    return value == UNKNOWN_I16 or low <= value <= 10000


def known(value, scale):
    return None if value == UNKNOWN_I16 else value / scale


def main():
    arguments = sys.argv[1:]
    if arguments in (["-h"], ["--help"]):
        print(__doc__.strip())
        return
    if arguments:
        sys.exit("wire.py: takes no arguments, and reads standard input")
    reader = Reader()
    while stream := os.read(sys.stdin.fileno(), 4096):
        for message in reader.feed(stream):
            print(message if isinstance(message, str) else json.dumps(message, separators=(",", ":")), flush=True)
    print(f"{reader.invalid} invalid frames", file=sys.stderr)


if __name__ == "__main__":
    main()
