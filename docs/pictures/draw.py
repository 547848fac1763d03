"""Draw the pictures that follow from the source: python docs/pictures/draw.py"""

from __future__ import annotations

import math
import re
from pathlib import Path
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
OUTPUT = HERE

#: Light and dark in one file: the picture follows the reader's system.
STYLE = """<style>
text { fill: #1c2333; font-family: system-ui, sans-serif } .small { fill: #4b556b; font-size: 11.5px }
.box { fill: #eef2fb; stroke: #4a63b0; stroke-width: 1.3 } .ground { fill: #f2f4f7; stroke: #8b95a8; stroke-width: 1.3 }
.line { stroke: #6b7690; stroke-width: 1.2; fill: none } .tip { fill: #6b7690 } .grid { stroke: #d5dae4 }
.torch { fill: #8fa3dc } .compiled { fill: #d98b1d }
@media (prefers-color-scheme: dark) {
text { fill: #eef1f8 } .small { fill: #b9c1d4 } .box { fill: #232c47; stroke: #8ea4e8 }
.ground { fill: #2a2e38; stroke: #8b95a8 }
.line { stroke: #9aa5bd } .tip { fill: #9aa5bd } .grid { stroke: #3a4256 }
.torch { fill: #7f95d8 } .compiled { fill: #f0a63a }
}
</style>"""


def svg(name: str, width: int, height: int, title: str, body: list[str]) -> None:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-size="13.5">'
    text = "\n".join([head, f"<title>{escape(title)}</title>", STYLE, *body, "</svg>"])
    (OUTPUT / name).write_text(text + "\n", encoding="utf-8")


def box(
    x: float, y: float, width: float, height: float, title: str, lines: tuple[str, ...] = (), kind: str = "box"
) -> str:
    middle = x + width / 2
    parts = [f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>']
    top = y + height / 2 + 5 - 8 * len(lines)
    parts.append(f'<text x="{middle}" y="{top}" text-anchor="middle" font-weight="600">{escape(title)}</text>')
    parts += [
        f'<text class="small" x="{middle}" y="{top + 17 * number}" text-anchor="middle">{escape(line)}</text>'
        for number, line in enumerate(lines, 1)
    ]
    return "".join(parts)


def arrow(*points: tuple[float, float]) -> str:
    (x0, y0), (x1, y1) = points[-2:]
    length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
    dx, dy = (x1 - x0) / length, (y1 - y0) / length
    path = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    left = f"{x1 - 9 * dx - 4 * dy:.1f} {y1 - 9 * dy + 4 * dx:.1f}"
    right = f"{x1 - 9 * dx + 4 * dy:.1f} {y1 - 9 * dy - 4 * dx:.1f}"
    return f'<path class="line" d="M{path}"/><path class="tip" d="M{x1:.1f} {y1:.1f} L{left} L{right} Z"/>'


def house() -> None:
    """The rooms as layers. Every arrow of structkd/rooms.py goes downwards here; a room may import those above it."""
    from structkd import rooms

    above: dict[str, set[str]] = {room: set(needed) for room, needed in rooms.MAY_IMPORT.items()}
    level: dict[str, int] = {}

    def depth(room: str) -> int:
        if room not in level:
            level[room] = 1 + max((depth(each) for each in above.get(room, ()) if each in above), default=-1)
        return level[room]

    rows: dict[int, list[str]] = {}
    for room in above:
        rows.setdefault(depth(room), []).append(room)
    width, height, places, body = 760, 0, {}, []
    for number in sorted(rows):
        step = width / len(rows[number])
        for place, room in enumerate(sorted(rows[number])):
            places[room] = (step * (place + 0.5), 24 + 62 * number)
        height = 24 + 62 * number + 60
    for room, (x, y) in places.items():
        # Arrows that follow from others are left out.
        direct = {each for each in above[room] if not any(each in above[other] for other in above[room])}
        body += [arrow((places[each][0], places[each][1] + 34), (x, y)) for each in sorted(direct) if each in places]
    body += [box(x - 58, y, 116, 34, room) for room, (x, y) in places.items()]
    svg("house.svg", width, height, "The rooms of the source; a room may import those that point at it", body)


def run() -> None:
    """The flow of one run."""
    body = [
        box(10, 80, 130, 62, "configuration", ("groups, overrides",)),
        box(180, 80, 120, 62, "plan", ("checked before", "any training")),
        box(345, 10, 150, 54, "teacher", ("gold labels",)),
        box(345, 84, 150, 54, "scores", ("a store on disk",), "ground"),
        box(345, 158, 150, 54, "students", ("method, baselines",)),
        box(560, 30, 190, 62, "results.md, metrics.json", ("predictions, model cards",)),
        box(560, 140, 190, 62, "student, models/", ("links; structkd predict",)),
        arrow((140, 111), (180, 111)),
        arrow((300, 100), (345, 45)),
        arrow((420, 64), (420, 84)),
        arrow((420, 138), (420, 158)),
        arrow((300, 122), (345, 178)),
        arrow((495, 40), (560, 55)),
        arrow((495, 178), (530, 120), (560, 76)),
        arrow((495, 190), (560, 175)),
    ]
    svg("run.svg", 760, 225, "A run: configuration, plan, teacher, scores, students, results", body)


def speed() -> None:
    """Bars of the table in docs/performance.md, on a logarithmic axis."""
    page = (HERE.parent / "performance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z][^|]*), ([\d /]+) (labels|words) \| ([\d. /]+) \| ([\d. /]+) \|$", page, flags=re.M)
    body, y, left, scale = [], 34, 215, 170
    height = 44 + sum(24 * len(row[1].split("/")) + 22 for row in rows)

    def x(value: float) -> float:
        return left + scale * math.log10(max(value, 0.8) / 0.8)

    for tick in (1, 10, 100, 1000):
        body.append(f'<path class="grid" d="M{x(tick):.1f} 26 V{height - 8}"/>')
        body.append(f'<text class="small" x="{x(tick):.1f}" y="18" text-anchor="middle">{tick:,} x</text>')
    for title, sizes, unit, *figures in rows:
        body.append(f'<text x="8" y="{y + 10}" font-weight="600" font-size="12.5">{escape(title)}</text>')
        y += 18
        for number, size in enumerate(sizes.split("/")):
            body.append(
                f'<text class="small" x="{left - 8}" y="{y + 13}" text-anchor="end">{size.strip()} {unit}</text>'
            )
            for place, (kind, column) in enumerate(zip(("torch", "compiled"), figures, strict=True)):
                value = float(column.split("/")[number])
                width = x(value) - left
                body.append(f'<rect class="{kind}" x="{left}" y="{y + 9 * place}" width="{width:.1f}" height="8"/>')
                end, base = left + width + 5, y + 9 * place + 8
                body.append(f'<text class="small" x="{end:.1f}" y="{base}" style="font-size:9.5px">{value:g}</text>')
            y += 24
        y += 4
    for top, kind, name in ((34, "torch", "pure torch"), (52, "compiled", "compiled")):
        body.append(f'<rect class="{kind}" x="600" y="{top}" width="12" height="8"/>')
        body.append(f'<text class="small" x="618" y="{top + 8}">{name}</text>')
    svg("speed.svg", 760, height, "Times faster than torch-struct", body)


if __name__ == "__main__":
    house()
    run()
    speed()
