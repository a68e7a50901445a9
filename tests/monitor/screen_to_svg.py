"""Draws a screen of a terminal as an SVG image: screen_to_svg.py < SCREEN > IMAGE.

The screen is what `tmux capture-pane -e -p` prints. Lines, bars and Braille dots are drawn, so that they do not depend on fonts.
"""

import re
import sys
from html import escape
from itertools import groupby
from typing import NamedTuple

# A cell in pixels.
WIDTH, HEIGHT = 8, 17
MARGIN = 12
PAGE, INK = "#15181d", "#d8dde3"
# The sixteen colours of a terminal.
COLORS = ["#3b4048", "#d9534f", "#5cb85c", "#e0b040", "#5b8dd9", "#b877d9", "#43b5c9", "#d8dde3"]
COLORS += ["#7d8590", "#ff7b72", "#7ee787", "#ffd866", "#79b8ff", "#d2a8ff", "#76e3ea", "#ffffff"]
SEQUENCE = re.compile(r"\x1b\[([\d;]*)m|\x1b[()].|\x0e|\x0f")
# The pixels from the middle of a cell: right, down, left, up.
BOX = {
    "─": "rl",
    "│": "du",
    "┌": "rd",
    "┐": "ld",
    "└": "ru",
    "┘": "lu",
    "├": "rdu",
    "┤": "ldu",
    "┬": "rld",
    "┴": "rlu",
    "┼": "rldu",
}
# The places of a Braille dot, by its bit: column and row.
DOTS = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]


class Cell(NamedTuple):
    x: int
    y: int
    sign: str
    color: str


def color_after(codes: list[int], color: str) -> str:
    """The colour of the text after a sequence of codes."""
    rest = iter(codes or [0])
    for code in rest:
        if code in (0, 39):
            color = INK
        elif 30 <= code <= 37:
            color = COLORS[code - 30]
        elif 90 <= code <= 97:
            color = COLORS[code - 82]
        elif code == 38 and next(rest, 0) == 5:
            number = next(rest, 7)
            color = COLORS[number] if number < len(COLORS) else INK
    return color


def cells(screen: str) -> list[Cell]:
    found = []
    color = INK
    for y, line in enumerate(screen.rstrip("\n").split("\n")):
        x, at = 0, 0
        while at < len(line):
            if sequence := SEQUENCE.match(line, at):
                if sequence[1] is not None:
                    color = color_after([int(code or 0) for code in sequence[1].split(";")], color)
                at = sequence.end()
                continue
            found.append(Cell(x, y, line[at], color))
            x, at = x + 1, at + 1
    return found


def shape(cell: Cell) -> str:
    """The path of a sign that is not a letter; empty for letters."""
    left, top = MARGIN + cell.x * WIDTH, MARGIN + cell.y * HEIGHT
    middle_x, middle_y = left + WIDTH // 2, top + HEIGHT // 2
    if "\u2800" <= cell.sign <= "\u28ff":
        bits = ord(cell.sign) - 0x2800
        places = [DOTS[k] for k in range(8) if bits >> k & 1]
        return "".join(f"M{left + 1 + 4 * x} {top + 1 + 4 * y}h2v2h-2z" for x, y in places)
    if cell.sign == "█":
        return f"M{left} {top + 2}h{WIDTH}v{HEIGHT - 4}h-{WIDTH}z"
    if cell.sign == "·":
        return f"M{middle_x - 1} {middle_y - 1}h2v2h-2z"
    arms = {
        "r": f"M{middle_x} {middle_y}h{WIDTH // 2}v1h-{WIDTH // 2}z",
        "l": f"M{left} {middle_y}h{WIDTH // 2 + 1}v1h-{WIDTH // 2 + 1}z",
        "d": f"M{middle_x} {middle_y}v{HEIGHT - HEIGHT // 2}h1v-{HEIGHT - HEIGHT // 2}z",
        "u": f"M{middle_x} {top}v{HEIGHT // 2}h1v-{HEIGHT // 2}z",
    }
    return "".join(arms[arm] for arm in BOX.get(cell.sign, ""))


def draw(screen: str) -> str:
    drawn = cells(screen)
    width = 2 * MARGIN + WIDTH * (max(cell.x for cell in drawn) + 1)
    height = 2 * MARGIN + HEIGHT * (max(cell.y for cell in drawn) + 1)
    paths: dict[str, str] = {}
    texts = []
    letters = []
    for cell in drawn:
        path = shape(cell)
        if path:
            paths[cell.color] = paths.get(cell.color, "") + path
        elif not cell.sign.isspace():
            letters.append(cell)
    # Letters beside each other with one colour are one text.
    for _, run in groupby(enumerate(letters), lambda one: (one[1].y, one[1].color, one[1].x - one[0])):
        word = [cell for _, cell in run]
        x, y = MARGIN + word[0].x * WIDTH, MARGIN + word[0].y * HEIGHT + 13
        text = escape("".join(cell.sign for cell in word))
        texts.append(f'<text x="{x}" y="{y}" textLength="{len(word) * WIDTH}" fill="{word[0].color}">{text}</text>')
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="ui-monospace, Menlo, DejaVu Sans Mono, monospace" font-size="13">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{PAGE}"/>',
        *(f'<path fill="{color}" d="{path}"/>' for color, path in paths.items()),
        *texts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(draw(sys.stdin.read()))
