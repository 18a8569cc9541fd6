"""Charts as inline SVG: small, sharp, without scripts, and readable on a light and on a dark page.

Colours are CSS variables with a fallback, so the page decides how they look and a saved file still has colours.
"""

import io
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Line = tuple[Sequence[float], Sequence[float | None]]
"""x and y values; a y of None is a gap."""

SERIES = ("#2563eb", "#d97706", "#059669", "#9333ea", "#dc2626", "#0891b2", "#65a30d", "#db2777")
_INK, _GRID = "#1b1f27", "#d9dde5"
_VARIABLES = {color: f"var(--series-{index + 1}, {color})" for index, color in enumerate(SERIES)} | {
    _INK: f"var(--ink, {_INK})",
    _GRID: f"var(--grid, {_GRID})",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
}
MAX_POINTS = 300


def line_chart(title: str, lines: Mapping[str, Line], *, marks: bool = False, first_color: int = 0) -> str:
    """Lines over training steps, from 0 up. `marks` puts a dot on each value; `first_color` leaves colours to other charts."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes(5.2, 2.7)
        for color, (name, (xs, ys)) in zip(_colors(len(lines), first_color), lines.items(), strict=True):
            thin_xs, thin_ys = thinned(xs, ys)
            drawn = [float("nan") if y is None else y for y in thin_ys]
            axes.plot(thin_xs, drawn, color=color, label=name, marker="o" if marks or len(drawn) < 2 else None, markersize=3)
        axes.set_xlabel("step")
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_ylim(bottom=0)
        if len(lines) > 1:
            _legend(axes, len(lines))
        return _svg(figure, title)


def bar_chart(title: str, groups: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
    """Horizontal bars, for each group one of each series, with their values written beside them."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes(5.2, 0.9 + (0.24 * len(series) + 0.14) * max(1, len(groups)))
        thickness = 0.8 / max(1, len(series))
        widest = max((value for values in series.values() for value in values if value is not None), default=1.0) or 1.0
        for position, (color, (name, values)) in enumerate(zip(_colors(len(series)), series.items(), strict=True)):
            ys = [row + (position - (len(series) - 1) / 2) * thickness for row in range(len(groups))]
            axes.barh(ys, [value or 0.0 for value in values], height=thickness * 0.86, color=color, label=name)
            for y, value in zip(ys, values, strict=True):
                text = "-" if value is None else f"{value:.1f}"
                axes.text((value or 0.0) + 0.012 * widest, y, text, va="center", fontsize=8)
        axes.set_yticks(range(len(groups)), groups)
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(0, widest * 1.1)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        if len(series) > 1:
            _legend(axes, len(series))
        return _svg(figure, title)


def curves_chart(title: str, ylabel: str, curves: Mapping[str, Line], named: int) -> str:
    """Many lines over training steps, the first `named` of them with a colour and a name, the others grey."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes(5.2, 3.0)
        for number, (name, (xs, ys)) in reversed(list(enumerate(curves.items()))):
            drawn = [float("nan") if y is None else y for y in ys]
            color = SERIES[number % len(SERIES)] if number < named else _GRID
            axes.plot(xs, drawn, color=color, marker="o", markersize=3, label=name if number < named else None)
        axes.set_xlabel("step")
        axes.set_ylabel(ylabel)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_ylim(bottom=0)
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
        return _svg(figure, title)


def scatter_chart(title: str, xlabel: str, ylabel: str, points: Mapping[str, tuple[float, float]]) -> str:
    """A named dot for each pair of numbers; x by its logarithm where it spans more than a factor of 10."""
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes(5.2, 3.0)
        for name, (x, y) in points.items():
            axes.plot([x], [y], marker="o", markersize=5, color=SERIES[0])
            axes.annotate(name, (x, y), textcoords="offset points", xytext=(5, 4), fontsize=7)
        xs = [x for x, _ in points.values()]
        if min(xs) > 0 and max(xs) / min(xs) >= 10:
            axes.set_xscale("log")
        axes.set_xlabel(xlabel)
        axes.set_ylabel(ylabel)
        axes.grid()
        axes.margins(0.15)
        return _svg(figure, title)


def parallel_chart(title: str, axes_of: Sequence[str], rows: Sequence[Sequence[Any]], strong: int) -> str:
    """Parallel coordinates: an upright axis for each name and a line for each row; None where a row has no value.

    Numbers have their place between the smallest and the largest, by their logarithm where they span more than a factor of 10;
    other values stand in their order. The first `strong` rows are drawn in front, in colour.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": title}):
        figure, axes = _axes(max(5.2, 1.5 * len(axes_of)), 3.6)
        columns = [_placed([row[number] for row in rows]) for number in range(len(axes_of))]
        for number in reversed(range(len(rows))):
            heights = [column[0][number] for column in columns]
            color, width = (SERIES[number % len(SERIES)], 1.8) if number < strong else (_GRID, 1.0)
            axes.plot(range(len(axes_of)), heights, color=color, linewidth=width)
        for x, (_, marks) in enumerate(columns):
            axes.axvline(x, color=_GRID, linewidth=0.8, zorder=0)
            for height, text in marks:
                axes.annotate(text, (x, height), textcoords="offset points", xytext=(4, -2), fontsize=7)
        axes.set_xticks(range(len(axes_of)), axes_of, fontsize=8)
        axes.set_yticks([])
        axes.set_xlim(-0.15, len(axes_of) - 0.55)
        axes.set_ylim(-0.06, 1.06)
        axes.spines["bottom"].set_visible(False)
        return _svg(figure, title)


def _placed(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights from 0 to 1, not a number where there is no value, and (height, text) of the marks."""
    present = [value for value in values if value is not None]
    missing = float("nan")
    if present and all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        low, high = min(present), max(present)
        scale = math.log if low > 0 and high / low >= 10 else float
        span = scale(high) - scale(low) or 1.0
        heights = [missing if value is None else (scale(value) - scale(low)) / span for value in values]
        return heights, [(0.0, f"{low:.4g}"), *([(1.0, f"{high:.4g}")] if high > low else [])]
    texts = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
    order = list(dict.fromkeys(text for text in texts if text is not None))
    place = {text: number / max(1, len(order) - 1) for number, text in enumerate(order)}
    return [missing if text is None else place[text] for text in texts], [
        (height, text if len(text) <= 24 else text[:23] + "…") for text, height in place.items()
    ]


def thinned(xs: Sequence[float], ys: Sequence[float | None]) -> tuple[list[float], list[float | None]]:
    """At most `MAX_POINTS` points: means over equal runs of values."""
    if len(xs) <= MAX_POINTS:
        return list(xs), list(ys)
    bounds = [len(xs) * cut // MAX_POINTS for cut in range(MAX_POINTS + 1)]
    runs = list(itertools.pairwise(bounds))
    return [_mean(xs[start:end]) or 0.0 for start, end in runs], [_mean(ys[start:end]) for start, end in runs]


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _colors(count: int, first: int = 0) -> list[str]:
    return [SERIES[index % len(SERIES)] for index in range(first, first + count)]


def _legend(axes: Axes, count: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=min(count, 4), borderaxespad=0.2, handlelength=1.2)


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Title": title})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt" ', "", svg, count=1)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    return svg
