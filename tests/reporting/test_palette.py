"""Colours that can be told from the ground and from each other."""

import itertools
import re
from pathlib import Path

import pytest

import structkd.reporting
from structkd.reporting.palette import styles, variables

CSS = (Path(structkd.reporting.__file__).parent / "page.css").read_text()
LIGHT, DARK = re.findall(r"--ground: (#\w+);", CSS)
# How colours look without one kind of cone (Machado, Oliveira and Fernandes, 2009), in linear RGB.
SEEN = {
    "all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "deuteranopia": ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969)),
    "protanopia": ((0.152, 1.053, -0.205), (0.115, 0.786, 0.099), (-0.004, -0.048, 1.052)),
    "tritanopia": ((1.256, -0.077, -0.179), (-0.078, 0.931, 0.148), (0.005, 0.691, 0.304)),
}


def linear(colour: str) -> list[float]:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def times(matrix: tuple[tuple[float, ...], ...], vector: list[float]) -> list[float]:
    return [sum(factor * value for factor, value in zip(row, vector, strict=True)) for row in matrix]


def contrast(one: str, other: str) -> float:
    low, high = sorted(0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in map(linear, (one, other)))
    return (high + 0.05) / (low + 0.05)


def difference(one: str, other: str, eye: str) -> float:
    """Delta E (CIE 1976)."""

    def lab(colour: str) -> tuple[float, float, float]:
        shown = [min(max(value, 0.0), 1.0) for value in times(SEEN[eye], linear(colour))]
        to_xyz = ((0.4339, 0.3762, 0.1899), (0.2126, 0.7152, 0.0722), (0.0177, 0.1094, 0.8729))
        x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in times(to_xyz, shown))
        return 116 * y - 16, 500 * (x - y), 200 * (y - z)

    return sum((a - b) ** 2 for a, b in zip(lab(one), lab(other), strict=True)) ** 0.5


@pytest.mark.parametrize(("column", "ground"), [(1, LIGHT), (2, DARK)])
def test_lines_stand_out_from_the_ground(column: int, ground: str) -> None:
    for names in variables():
        if names[0] != "grid":
            assert contrast(names[column], ground) >= (7 if names[0] == "ink" else 3), names


@pytest.mark.parametrize("eye", SEEN)
@pytest.mark.parametrize("column", [1, 2])
def test_no_two_methods_look_alike(column: int, eye: str) -> None:
    colours = [names[column] for names in variables() if names[0] not in ("ink", "grid")]
    for one, other in itertools.combinations(colours, 2):
        assert difference(one, other, eye) >= 9, (one, other)


def test_text_can_be_read() -> None:
    for block in re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)[:2]:
        colours = dict(re.findall(r"--(\w+): (#\w+)", block))
        for name in ("quiet", "link", "yes", "open"):
            for ground in ("ground", "raised"):
                assert contrast(colours[name], colours[ground]) >= 4.5, (ground, name)


def test_a_method_has_its_style_in_every_report() -> None:
    assert styles(["token"])["token"] == styles(["none", "structural", "topk", "token"])["token"]
    many = styles([f"m{number}" for number in range(20)])
    assert len({(style.colour, style.marker, style.dash) for style in many.values()}) == len(many)
