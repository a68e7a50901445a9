"""The risk-coverage curve: root mean squared error of the most certain share of all estimates, over the size of that share."""

import numpy as np

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 420, 240, 48, 16, 40, 12
COLOURS = {"valence": "#0969da", "arousal": "#bc4c00"}
POINTS = 40


def curve(squared, variance):
    """(coverage [POINTS], root mean squared error [POINTS] of that share with the least claimed variance)."""
    order = np.argsort(variance, kind="stable")
    running = np.cumsum(squared[order]) / np.arange(1, len(order) + 1)
    coverage = np.linspace(0.05, 1.0, POINTS)
    return coverage, np.sqrt(running[(coverage * len(order)).astype(int) - 1])


def of_errors(squared, variance, split, command):
    """({dimension: curve}, figures for the manifest: errors of both halves) of squared errors and claimed variances [n, 2]."""
    curves, figures = {}, []
    for k, dimension in enumerate(COLOURS):
        curves[dimension] = curve(squared[:, k], variance[:, k])
        order = np.argsort(variance[:, k], kind="stable")
        middle = (len(order) + 1) // 2
        for half, rows in (("more certain", order[:middle]), ("less certain", order[middle:])):
            value = round(float(np.sqrt(squared[rows, k].mean())), 3)
            name = f"root mean squared error, {dimension}, {half} half"
            figures.append({"name": name, "value": value, "split": split, "command": command})
    return curves, figures


def draw(curves):
    """An SVG drawing of {dimension: curve}, as text."""
    top = 0.1 * np.ceil(max(risk.max() for _, risk in curves.values()) * 10)

    def x(coverage):
        return LEFT + coverage * (WIDTH - LEFT - RIGHT)

    def y(risk):
        return HEIGHT - BOTTOM - risk / top * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for step in range(round(top * 10) + 1):
        risk = step / 10
        parts.append(f'<path d="M{LEFT} {y(risk):.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(risk) + 4:.1f}" text-anchor="end">{risk:.1f}</text>')
    for coverage in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(
            f'<text x="{x(coverage):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{coverage:.0%}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">most certain share of the estimates</text>')
    turned = f"translate(12 {(HEIGHT - BOTTOM + TOP) / 2}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">root mean squared error</text>')
    for place, (dimension, (coverage, risk)) in enumerate(curves.items()):
        line = " ".join(f"{x(c):.1f},{y(r):.1f}" for c, r in zip(coverage, risk, strict=True))
        colour = COLOURS[dimension]
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        at = HEIGHT - BOTTOM - 24 + 14 * place
        parts.append(f'<text x="{WIDTH - RIGHT - 60}" y="{at}" fill="{colour}">{dimension}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
