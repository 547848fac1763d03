"""``structkd list``: the parts that a run can be composed of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import structkd
import structkd.conf

from .arguments import parser_of

__all__ = ["command"]

#: Sections by name: the group of the configuration, and a title.
_SECTIONS = {
    "scenarios": ("scenario", "Scenarios: scenario=NAME"),
    "data": ("data", "Data: data=NAME"),
    "teachers": ("teacher", "Teachers: teacher=NAME"),
    "students": ("student", "Students: student=NAME"),
    "methods": ("kd", "Methods: kd=NAME"),
    "models": ("model", "Models: model@teacher.model=NAME, model@student.model=NAME"),
    "encoders": ("encoder", "Encoders: encoder@teacher.model.encoder=NAME, encoder@student.model.encoder=NAME"),
    "texts": ("text", "Texts without labels: +text@student.text=NAME"),
    "sweeps": ("sweep", "Sweeps: +sweep=NAME"),
}
_PROJECTIONS = "projections"
_DESCRIPTION = """\
List the parts that a run can be composed of: scenarios, data, teachers, students, methods and encoders. The last
section shows for which pairs of distributions the teacher's marginals over the student's parts are exact, and for which
they are estimated from samples.
"""
_EPILOG = """\
examples:
  structkd list
  structkd list teachers students
  structkd list --config-dir my_conf data      # with files of your own
"""


def command(arguments: list[str]) -> None:
    """Print the sections that are asked for."""
    parser = parser_of("list", _DESCRIPTION, _EPILOG)
    known = (*_SECTIONS, _PROJECTIONS)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(known)} (default: all)")
    parser.add_argument("--config-dir", metavar="DIR", type=Path, help="a folder with groups of your own")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    for section in options.sections:
        if section not in known:
            raise ValueError(f"There is no section {section!r}. It has: {', '.join(known)}.")
    roots = [Path(structkd.conf.__file__).parent]
    if options.config_dir is not None:
        if not options.config_dir.is_dir():
            raise FileNotFoundError(f"There is no folder {options.config_dir} (--config-dir).")
        roots.append(options.config_dir)
    found: dict[str, Any] = {}
    for section in options.sections or known:
        found[section] = _projections() if section == _PROJECTIONS else _choices(roots, _SECTIONS[section][0])
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=1))
        return
    for section, content in found.items():
        if section == _PROJECTIONS:
            print("Projections, teacher -> student:")
            _print_matrix(content)
            continue
        print(_SECTIONS[section][1])
        width = max(map(len, content), default=0)
        for name, text in content.items():
            print(f"  {name:<{width}}  {text}".rstrip())
        print()


def _choices(roots: list[Path], group: str) -> dict[str, str]:
    """Return the choices of a group with the sentence that their files begin with."""
    files = {path.stem: path for root in roots for path in sorted((root / group).glob("*.yaml"))}
    return {name: _summary(path.read_text(encoding="utf-8")) for name, path in sorted(files.items())}


def _summary(content: str) -> str:
    comment = []
    for line in content.splitlines():
        if line.startswith("# @package"):
            continue
        if not line.startswith("#") or re.match(r"#\s+structkd ", line):
            break
        comment.append(line[1:].strip())
    text = " ".join(comment).partition(": structkd ")[0]
    return re.split(r"(?<=[a-z0-9)])\.\s", text)[0].rstrip(".:")


def _projections() -> dict[str, dict[str, str]]:
    """Return "exact" or "sampled" for every teacher and student."""
    table: dict[str, dict[str, str]] = {}
    for (teacher, student), kind in structkd.projections.matrix().items():  # loads torch
        table.setdefault(teacher, {})[student] = kind
    return table


def _print_matrix(table: dict[str, dict[str, str]]) -> None:
    students = list(dict.fromkeys(student for row in table.values() for student in row))
    width = max(map(len, table))
    marks = {"exact": "E", "sampled": "s"}
    for number, student in enumerate(students):
        print(f"  {'':<{width}}  {'| ' * number}{student}")
    for teacher, row in table.items():
        cells = " ".join(marks.get(row.get(student, ""), ".") for student in students)
        print(f"  {teacher:<{width}}  {cells}")
    print("\n  E: exact   s: estimated from samples (structkd.project(..., samples=K))   .: none")
