"""Draws models/demo.svg: what affectd makes of the demo clip.

affectd run --input models/demo.mkv | python models/training/demo_picture.py
"""

import json
import sys
from pathlib import Path

OUT = Path(__file__).resolve().parent.parent / "demo.svg"
LEFT, TOP, WIDTH, HEIGHT, SECONDS = 46, 16, 640, 150, 10.0
STRIP = 13
COLOURS = {"valence": "#0072b2", "arousal": "#d55e00", "face": "#8a8a8a", "voice": "#555555"}


def x(t):
    return LEFT + WIDTH * t / SECONDS


def y(value):
    return TOP + HEIGHT * (1 - value) / 2


def runs(lines, present):
    """Stretches of consecutive lines for which `present` holds."""
    run = []
    for line in lines:
        if present(line):
            run.append(line)
        elif run:
            yield run
            run = []
    if run:
        yield run


def text(at_x, at_y, words, colour="#444", anchor="start"):
    return f'<text x="{at_x:.0f}" y="{at_y:.0f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


def draw(lines):
    bottom = TOP + HEIGHT
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 76} {bottom + 76}" '
        'font-family="sans-serif" font-size="12">'
    )
    yield '<rect width="100%" height="100%" fill="#fff"/>'
    for value, words in [(1, "+1"), (0, "0"), (-1, "−1")]:
        yield f'<path d="M{LEFT} {y(value):.0f}h{WIDTH}" stroke="#ddd"/>'
        yield text(LEFT - 8, y(value) + 4, words, anchor="end")
    for t in range(0, int(SECONDS) + 1, 2):
        yield text(x(t), bottom + 16, f"{t} s", anchor="middle")
    for name in ("valence", "arousal"):
        known = list(runs(lines, lambda line, name=name: line[name] is not None))
        for run in known:
            points = " ".join(f"{x(line['t']):.1f},{y(line[name]):.1f}" for line in run)
            yield f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>'
        if known:
            end = known[-1][-1]
            yield text(x(end["t"]) + 6, y(end[name]) + 4, name, COLOURS[name])
    for row, name in enumerate(("face", "voice")):
        at = bottom + 30 + row * (STRIP + 6)
        for run in runs(lines, lambda line, name=name: name in line["modalities"]):
            start, end = run[0]["t"] - 0.2, run[-1]["t"]
            yield f'<rect x="{x(start):.1f}" y="{at}" width="{x(end) - x(start):.1f}" height="{STRIP}" fill="{COLOURS[name]}"/>'
        yield text(LEFT + WIDTH + 6, at + STRIP - 2, name, COLOURS[name])
    yield "</svg>"


def main():
    lines = [json.loads(line) for line in sys.stdin]
    if not lines:
        sys.exit("nothing on standard input: pipe the estimates of the demo clip in")
    OUT.write_text("\n".join(draw(lines)) + "\n")


if __name__ == "__main__":
    main()
