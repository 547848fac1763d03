"""One colour, marker and dash per method, the same in every plot of a report.

The colors differ in lightness as well as in hue, so that readers with the common kinds of color blindness can tell them
from each other. Their contrast is at least 3:1 (WCAG 2.2, 1.4.11): the first of a pair on white, the second on the dark
background of the page. Markers and dashes repeat the distinction for print without color.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["GRID", "INK", "Style", "styles", "teacher_style", "variables"]

#: Text and axes; grid lines.
INK, GRID = ("#1f2329", "#e6e8eb"), ("#d9dce1", "#3a3f47")
_TEACHER = ("#50565e", "#c8cdd4")
_COLOURS = (
    ("#0b62a9", "#58a8ea"),  # blue
    ("#c64f00", "#f0883e"),  # vermilion
    ("#007f5f", "#2cc295"),  # green
    ("#b03a83", "#ea8fc6"),  # purple
    ("#561010", "#ea3a68"),  # maroon, crimson
    ("#9426f0", "#a35cff"),  # violet
    ("#2f0f52", "#dc35ba"),  # indigo, magenta
    ("#a273f5", "#b8f7c6"),  # lavender, mint
)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_DASHES = ("-", (0, (5, 1.5)), (0, (2, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (1, 1)), (0, (8, 2, 1, 2, 1, 2)))
_FIRST = ("structural", "none", "token")


@dataclass(frozen=True)
class Style:
    """How a method is drawn: its color on a light background, its marker and its dash."""

    colour: str
    marker: str
    dash: str | tuple[float, tuple[float, ...]]


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Return a style for each method of students; with more than eight methods colors recur with another dash."""
    others = sorted(set(methods) - set(_FIRST))
    return {
        name: Style(_COLOURS[index % len(_COLOURS)][0], _MARKERS[index % len(_MARKERS)], _DASHES[index % len(_DASHES)])
        for index, name in enumerate([*_FIRST, *others])
    }


def teacher_style() -> Style:
    """Return the style of teachers."""
    return Style(_TEACHER[0], "*", (0, (3, 2)))


def variables() -> list[tuple[str, str, str]]:
    """Return the names and the light and dark values of the page's colors; plots are drawn in the light ones."""
    named = [("ink", INK), ("grid", GRID), ("teacher", _TEACHER)]
    named += [(f"method-{index}", pair) for index, pair in enumerate(_COLOURS)]
    return [(name, light, dark) for name, (light, dark) in named]
