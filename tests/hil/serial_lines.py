#!/usr/bin/env python3
"""Judges what the bench's serial ports carried:

    tests/hil/serial_lines.py ESTIMATES UART USB

ESTIMATES is how many affectd gave, UART the bytes that came as lines, USB those that came as frames, the cable of which was
pulled once. All must be on the UART, whole and in order. On USB there is one gap, and at most the frame that was under way at
that moment is torn.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "cross" / "readers"))
from affectd_wire import Reader  # noqa: E402 (it is not installed)


def main():
    given = int(sys.argv[1])
    uart, usb = (Path(name).read_bytes() for name in sys.argv[2:])

    wrong = []
    # The line begins with a delimiter, so that half a line of whoever wrote before ends there. Later scenarios write after it.
    whole = uart.decode().split("\n")[1:-1]
    lines = [json.loads(line) for line in whole[:given]]
    if [line["seq"] for line in lines] != list(range(1, given + 1)):
        wrong.append("lines on the UART are missing or out of order")

    reader = Reader()
    frames = [message for message in reader.feed(usb) if isinstance(message, dict)]
    steps = [after["seq"] - before["seq"] for before, after in zip(frames, frames[1:], strict=False)]
    gaps = [step - 1 for step in steps if step != 1]
    if len(gaps) != 1 or not 20 <= gaps[0] <= 40:
        wrong.append("frames over USB are missing or out of order")
    if frames[0]["seq"] != 1 or frames[-1]["seq"] != given:
        wrong.append("the first or the last frame is missing")
    if reader.broken > 1:
        wrong.append("more than one frame was torn")
    by_seq = {line["seq"]: line for line in lines}
    if any(abs(by_seq[frame["seq"]]["t"] - frame["t"]) > 0.0011 for frame in frames):
        wrong.append("lines and frames of one number are not of one time")

    print(f"UART: {len(lines)} of {given} estimates")
    print(f"USB: {len(frames)} frames, {gaps} missing while the cable was out, {reader.broken} torn")
    for reason in wrong:
        print(reason)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
