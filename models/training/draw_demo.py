"""Draws demo.svg: the estimates of affectd for the demo clip over time, and where a face and a voice are present.

affectd run --input models/demo.mkv | python -m models.training.draw_demo --out DIR
"""

import json
import sys
from pathlib import Path

from . import arguments

LEFT, TOP, WIDTH, HEIGHT, SECONDS = 46, 16, 640, 150, 10.0
STRIP = 13  # height of a bar
COLOURS = {"valence": "#0072b2", "arousal": "#d55e00", "face": "#8a8a8a", "voice": "#555555"}


def x(t):
    """Horizontal position of a time in seconds."""
    return LEFT + WIDTH * t / SECONDS


def y(value):
    """Vertical position of a value in -1..1."""
    return TOP + HEIGHT * (1 - value) / 2


def runs(lines, present):
    """Yields runs of consecutive lines for which `present` is true."""
    run = []
    for line in lines:
        if present(line):
            run.append(line)
        elif run:
            yield run
            run = []
    if run:
        yield run


def label(at_x, at_y, words, colour="#444", anchor="start"):
    """A text element."""
    return f'<text x="{at_x:.0f}" y="{at_y:.0f}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


def draw(lines):
    """Yields the lines of the SVG file."""
    bottom = TOP + HEIGHT
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 76} {bottom + 76}" '
        'font-family="sans-serif" font-size="12">'
    )
    yield '<rect width="100%" height="100%" fill="#fff"/>'
    for value, words in [(1, "+1"), (0, "0"), (-1, "−1")]:
        yield f'<path d="M{LEFT} {y(value):.0f}h{WIDTH}" stroke="#ddd"/>'
        yield label(LEFT - 8, y(value) + 4, words, anchor="end")
    for t in range(0, int(SECONDS) + 1, 2):
        yield label(x(t), bottom + 16, f"{t} s", anchor="middle")
    for name in ("valence", "arousal"):
        known = list(runs(lines, lambda line, name=name: line[name] is not None))
        for run in known:
            points = " ".join(f"{x(line['t']):.1f},{y(line[name]):.1f}" for line in run)
            yield f'<polyline points="{points}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>'
        if known:
            end = known[-1][-1]
            yield label(x(end["t"]) + 6, y(end[name]) + 4, name, COLOURS[name])
    for row, name in enumerate(("face", "voice")):
        at = bottom + 30 + row * (STRIP + 6)
        for run in runs(lines, lambda line, name=name: name in line["modalities"]):
            start, end = run[0]["t"] - 0.2, run[-1]["t"]
            yield f'<rect x="{x(start):.1f}" y="{at}" width="{x(end) - x(start):.1f}" height="{STRIP}" fill="{COLOURS[name]}"/>'
        yield label(LEFT + WIDTH + 6, at + STRIP - 2, name, COLOURS[name])
    yield "</svg>"


def main():
    parser = arguments.parser(__doc__)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder that receives demo.svg")
    options = parser.parse_args()
    lines = [json.loads(line) for line in sys.stdin]
    if not lines:
        sys.exit("standard input: no estimates: pipe the output of affectd run in")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "demo.svg").write_text("\n".join(draw(lines)) + "\n")


if __name__ == "__main__":
    arguments.run(main)
