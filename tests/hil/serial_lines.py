#!/usr/bin/env python3
"""Checks the bytes that the bench's serial ports received:

    tests/hil/serial_lines.py ESTIMATES UART USB

ESTIMATES is the number of estimates that affectd sent. UART is a file of lines, USB a file of frames, whose cable was pulled
once. UART must have every estimate, whole and in order. USB must have one gap, and at most one torn frame.
"""

import json
import sys
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "cross" / "python"))
from affectd_reader.wire import Reader


def main():
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return 0
    if len(sys.argv) != 4 or not sys.argv[1].isdecimal():
        print(f"{sys.argv[0]}: expected a number and two files\n{__doc__.strip()}", file=sys.stderr)
        return 2
    sent = int(sys.argv[1])
    uart, usb = (Path(name).read_bytes() for name in sys.argv[2:])

    wrong = []
    # affectd first sends a line end, which ends a partial line of an earlier program. Later scenarios write to the same port.
    whole = uart.decode().split("\n")[1:-1]
    lines = [json.loads(line) for line in whole[:sent]]
    if [line["seq"] for line in lines] != list(range(1, sent + 1)):
        wrong.append("lines on the UART are missing or out of order")

    reader = Reader()
    frames = [message for message in reader.feed(usb) if isinstance(message, dict)]
    steps = [after["seq"] - before["seq"] for before, after in pairwise(frames)]
    gaps = [step - 1 for step in steps if step != 1]
    if len(gaps) != 1 or not 20 <= gaps[0] <= 40:
        wrong.append("frames over USB are missing or out of order")
    if frames[0]["seq"] != 1 or frames[-1]["seq"] != sent:
        wrong.append("the first or the last frame is missing")
    if reader.invalid > 1:
        wrong.append("more than one frame was torn")
    by_seq = {line["seq"]: line for line in lines}
    if any(abs(by_seq[frame["seq"]]["t"] - frame["t"]) > 0.0011 for frame in frames):
        wrong.append("a line and a frame with the same seq have different times")

    print(f"UART: {len(lines)} of {sent} estimates")
    print(f"USB: {len(frames)} frames, {gaps} missing while the cable was pulled, {reader.invalid} torn")
    for reason in wrong:
        print(reason)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
