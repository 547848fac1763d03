"""Imports go one way between the rooms, and each foreign library stays in its room."""

import ast
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from structkd.rooms import MAY_IMPORT

SOURCE = Path(__file__).resolve().parents[2] / "src" / "structkd"
FILES = [path for path in SOURCE.rglob("*.py") if path.parent != SOURCE]


def imported(path: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports."""
    package = ("structkd", *path.relative_to(SOURCE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_rooms_import_one_way(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0]
    rooms = {name.split(".")[1] for name in imported(path) if name.startswith("structkd.")} & set(MAY_IMPORT)
    assert rooms - {room} <= set(MAY_IMPORT[room])


GROUND = [path for path in SOURCE.glob("*.py") if path.stem not in ("__init__", "__main__")]


@pytest.mark.parametrize("path", GROUND, ids=lambda path: path.name)
def test_the_ground_floor_stands_on_nothing(path: Path) -> None:
    assert not {name.split(".")[1] for name in imported(path) if name.startswith("structkd.")} & set(MAY_IMPORT)


def test_tags_need_the_standard_library_only() -> None:
    tree = ast.parse((SOURCE / "tags.py").read_text(encoding="utf-8"))
    modules = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "collections.abc", "typing"}


@pytest.mark.parametrize("name", ["files", "records", "spelling"])
def test_modules_that_need_the_standard_library_only(name: str) -> None:
    modules = {module.partition(".")[0] for module in imported(SOURCE / f"{name}.py")}
    assert modules <= sys.stdlib_module_names | {"structkd"}


def reachable(arrows: Mapping[str, Iterable[str]], room: str) -> set[str]:
    """The rooms that a room may know of, through others or not."""
    return {below for each in arrows.get(room, ()) for below in (each, *reachable(arrows, each))}


def test_the_picture_in_contributing() -> None:
    text = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    drawn: dict[str, set[str]] = {}
    for line in re.findall(r"^    (\w+(?: -> \w+)+)$", text, re.MULTILINE):
        for lower, upper in itertools.pairwise(line.split(" -> ")):
            drawn.setdefault(upper, set()).add(lower)
    assert set(MAY_IMPORT) == {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE) == list(MAY_IMPORT)
    for room in MAY_IMPORT:
        assert reachable(drawn, room) == reachable(MAY_IMPORT, room), room


@pytest.mark.parametrize(
    ("library", "room"),
    [
        ("torch_struct", "distributions"),
        ("hydra", "commands"),
        ("omegaconf", "commands"),
        ("matplotlib", "reporting"),
        ("jinja2", "reporting"),
        ("onnx", "export"),
        ("onnxruntime", "export"),
    ],
)
def test_a_foreign_library_stays_in_its_room(library: str, room: str) -> None:
    users = {
        path.relative_to(SOURCE).parts[0] for path in FILES for name in imported(path) if name.split(".")[0] == library
    }
    assert users <= {room}


def test_spacy_is_for_pipelines_as_teachers_and_components_of_exports() -> None:
    users = {path.parent.name for path in FILES for name in imported(path) if name.split(".")[0] == "spacy"}
    assert users <= {"export", "teachers"}


def test_the_mathematics_needs_torch_only() -> None:
    outside = {"transformers", "datasets", "hydra", "omegaconf", "matplotlib"}
    for room in ("distributions", "projections", "losses"):
        for path in (SOURCE / room).rglob("*.py"):
            assert not {name.split(".")[0] for name in imported(path)} & outside


def test_the_module_of_exported_folders_stands_alone() -> None:
    outside = {name.partition(".")[0] for name in imported(SOURCE / "export" / "annotate.py")} - sys.stdlib_module_names
    assert outside == {"numpy", "onnxruntime", "tokenizers"}


def test_no_two_test_files_have_one_name() -> None:
    """The folders of tests are no packages, so pytest imports every test file as a module of its bare name."""
    names = Counter(path.name for path in Path(__file__).resolve().parents[1].rglob("*.py"))
    assert [name for name, count in names.items() if count > 1 and name != "conftest.py"] == []


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_room_reads_a_private_name_of_another() -> None:
    """Names with one leading underscore belong to the room that defines them."""
    defined: dict[str, set[str]] = {}
    read: list[tuple[Path, str]] = []
    for path in FILES:
        names = defined.setdefault(path.relative_to(SOURCE).parts[0], set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
                names.add(node.id if isinstance(node, ast.Name) else node.attr)
            elif isinstance(node, ast.Attribute) and private(node.attr):
                read.append((path, node.attr))
            elif isinstance(node, ast.ImportFrom):
                read += [(path, alias.name) for alias in node.names if private(alias.name)]
    for path, name in read:
        room = path.relative_to(SOURCE).parts[0]
        others = {other for other, names in defined.items() if name in names} - {room}
        assert name in defined[room] or not others, f"{path.relative_to(SOURCE)} reads {name} of {sorted(others)}"
