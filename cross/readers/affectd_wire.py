"""Reads the frames that affectd writes with serial:...?wire=frame. Pure Python; the format is in cross/wire.md.

    for message in Reader().feed(port.read(256)):
        print(message)

On the command line it prints frames as JSON lines, from a serial port, a file or standard input:

    python3 affectd_wire.py /dev/ttyUSB0 115200

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

# seq, t_ms, valence, arousal, confidence, flags, score, box, id, level, expression, its percentage, latency
RECORD = struct.Struct("<IIhhhBB4HHhBBH")
LONGEST_CODE = 1024
NO_I16, NO_U16, NO_U8 = -0x8000, 0xFFFF, 0xFF


class Broken(Exception):
    """A frame was damaged on the way."""


@dataclass
class Reader:
    """Finds the frames in a stream of bytes, wherever it begins and whatever happened to it."""

    broken: int = 0
    _code: bytearray = field(default_factory=bytearray)
    _in_step: bool = False

    def feed(self, stream):
        """Takes in bytes; yields a dict for each estimate, and for each answer a str of one JSON object."""
        for byte in stream:
            if byte:
                # One byte too many is enough to know that there were too many.
                if len(self._code) <= LONGEST_CODE:
                    self._code.append(byte)
                continue
            code, self._code = bytes(self._code), bytearray()
            was_in_step, self._in_step = self._in_step, True
            if not code:
                continue
            try:
                yield decode(code)
            except Broken:
                # What comes before the first delimiter may be half a frame, and is nobody's fault.
                self.broken += was_in_step


def decode(code):
    """What stood between two delimiters."""
    content = unstuff(code)
    if len(code) > LONGEST_CODE or len(content) < 4:
        raise Broken
    content, crc = content[:-2], int.from_bytes(content[-2:], "little")
    # CRC-16/IBM-3740.
    if binascii.crc_hqx(content, 0xFFFF) != crc or content[0] != VERSION:
        raise Broken
    kind, body = content[1], content[2:]
    if kind == ESTIMATE and len(body) == RECORD.size:
        return estimate(body)
    if kind == TEXT:
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise Broken from None
    raise Broken


def unstuff(code):
    """Undoes COBS."""
    content, at = bytearray(), 0
    while at < len(code):
        run = code[at]
        if run == 0 or at + run > len(code):
            raise Broken
        content += code[at + 1 : at + run]
        at += run
        if run < 0xFF and at < len(code):
            content.append(0)
    return bytes(content)


def estimate(body):
    """A record, under the names of the JSON line."""
    seq, t_ms, valence, arousal, confidence, flags, score, *box, who, level, expression, likelihood, latency = (
        RECORD.unpack(body)
    )
    from_face, from_voice, face, voice, active = (bool(flags >> bit & 1) for bit in range(5))
    sound = (
        not flags >> 5
        and within(valence, -10000)
        and within(arousal, -10000)
        and within(confidence, 0)
        and within(level, -10000)
        and (voice or (not active and level == NO_I16))
        and (likelihood == NO_U8 if expression == NO_U8 else expression < len(EXPRESSIONS) and likelihood <= 100)
    )
    if face:
        sound = sound and score <= 100 and max(box) <= 10000
    else:
        sound = sound and (score, *box, who, expression) == (NO_U8, *[NO_U16] * 5, NO_U8)
    if not sound:
        raise Broken
    return {
        "seq": seq,
        "t": t_ms / 1000,
        "valence": known(valence, 10000),
        "arousal": known(arousal, 10000),
        "confidence": known(confidence, 10000),
        "modalities": ["face"] * from_face + ["voice"] * from_voice,
        "face": {"id": who, "box": [side / 10000 for side in box], "score": score / 100} if face else None,
        "voice": {"active": active, "level_db": known(level, 10)} if voice else None,
        "expression": None if expression == NO_U8 else {EXPRESSIONS[expression]: likelihood / 100},
        "latency_ms": None if latency == NO_U16 else latency,
    }


def within(value, low):
    return value == NO_I16 or low <= value <= 10000


def known(value, scale):
    return None if value == NO_I16 else value / scale


def open_source(path, baud):
    """A file, or a serial port made ready."""
    if path == "-":
        return sys.stdin.fileno()
    source = os.open(path, os.O_RDWR | os.O_NOCTTY if os.path.realpath(path).startswith("/dev/") else os.O_RDONLY)
    if os.isatty(source):
        import termios
        import tty

        tty.setraw(source)
        settings = termios.tcgetattr(source)
        settings[4] = settings[5] = getattr(termios, f"B{baud}")
        termios.tcsetattr(source, termios.TCSANOW, settings)
    return source


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else "-"
    source = open_source(path, sys.argv[2] if len(sys.argv) > 2 else "115200")
    reader = Reader()
    while stream := os.read(source, 4096):
        for message in reader.feed(stream):
            print(message if isinstance(message, str) else json.dumps(message, separators=(",", ":")), flush=True)
    print(f"{reader.broken} broken", file=sys.stderr)


if __name__ == "__main__":
    main()
