"""Every block of code and every command of the README and of docs/ runs, and prints what the page shows."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from called import caller
from pages import BLOCKS, ROOT, Block, block
from shell import commands, execute

from structkd.data import read_columns
from structkd.testing import ConformanceTests

pytestmark = pytest.mark.docs

#: The folder of a training, as pages write it.
TRAINING = "student-0123456789abcdef"
_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")


def of(*languages: str) -> list[Any]:
    """The blocks in these languages; those of the tutorial build on each other, and run in test_tutorial.py."""
    found = [each for each in BLOCKS if each.language in languages and each.page != "tutorial.md"]
    return [pytest.param(each, id=each.name) for each in found]


@pytest.fixture(scope="session")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which somebody has typed `structkd demo`, with the names that the pages use."""
    folder = tmp_path_factory.mktemp("walk")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        captured = type("", (), {"readouterr": lambda self: type("", (), {"out": "", "err": ""})})()
        status, _, _ = caller(patch, folder, captured)("demo")
    assert status == 0
    (folder / "demo.txt").write_text(printed.getvalue(), encoding="utf-8")
    student = folder / "structkd-demo" / "student"
    (folder / "structkd-runs").symlink_to("structkd-demo", target_is_directory=True)
    (folder / "structkd-runs" / TRAINING).symlink_to(student.resolve().parent, target_is_directory=True)
    for split in ("train", "dev", "test"):
        text = (folder / "structkd-demo" / f"{split}.conll").read_text(encoding="utf-8")
        bio = re.sub(r" E-", " I-", re.sub(r" S-", " B-", text))  # as most files are, and as the command expects
        (folder / f"{split}.conll").write_text(bio, encoding="utf-8")
    for name, content in configurations():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "news.txt").write_text("li rovi duso ke .\npalo bora ta deso soba su rini sebi .\n", encoding="utf-8")
    with contextlib.suppress(ImportError):  # without the extra, the pages that need it are left out with the reason
        import structkd
        from structkd.export import export

        export(structkd.load(student), folder / "exported", single_file=True)
    return folder


def configurations() -> Iterator[tuple[str, str]]:
    """The files of yaml of the guide that extends structkd, by the names that stand before them."""
    text = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    for match in re.finditer(r"^```yaml\n(.*?)^```", text, flags=re.S | re.M):
        yield re.findall(r"`(my_conf/\S+\.yaml)`", text[: match.start()])[-1], match[1]


def test_the_pages_have_blocks() -> None:
    assert {"README.md-2", "extending.md-6"} <= {each.name for each in BLOCKS}
    assert {each.language for each in BLOCKS} <= {"python", "py", "bash", "yaml", "json", "conllu"}
    # The one block that runs elsewhere: tests/packaging/test_lightning.py
    assert [each.page for each in BLOCKS if each.language == "py"] == ["model.md"]


@pytest.mark.parametrize("each", of("python"))
def test_python_runs(each: Block, walk: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for package in ("spacy", "onnx"):
        if f"import {package}" in each.text or (package == "onnx" and "exported" in each.text):
            pytest.importorskip(package)
    monkeypatch.chdir(walk)
    monkeypatch.syspath_prepend(walk)
    exec(compile(each.text, each.name, "exec"), {"__name__": "__main__"})
    if each.output is not None:
        assert same(capsys.readouterr().out, each.output)


@pytest.mark.parametrize("each", of("bash"))
def test_commands_run(each: Block, walk: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    done = subprocess.run(["bash", "-n"], input=each.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    printed = ""
    call = caller(monkeypatch, walk, capfd)
    for words in commands(each.text):
        if words == ["structkd", "demo"]:  # once for all pages
            printed += (walk / "demo.txt").read_text(encoding="utf-8")
        else:
            output = execute(words, call)
            printed += capfd.readouterr().out if output == "captured" else output
    if each.output is not None:
        assert same(printed, each.output)


@pytest.mark.parametrize("each", of("yaml", "json", "conllu"))
def test_data_is_well_formed(each: Block, tmp_path: Path) -> None:
    if each.language == "yaml":
        assert yaml.safe_load(each.text) is not None
    elif each.language == "json":
        assert [json.loads(line) for line in each.text.splitlines()]
    else:
        (tmp_path / "file.conll").write_text(each.text, encoding="utf-8")
        assert read_columns(tmp_path / "file.conll", None, token_column=0, tag_column=1, delimiter=None)


def same(printed: str, shown: str) -> bool:
    """Compare outputs: "..." stands for anything, blanks count once, and numbers may differ by 5 %.

    Figures of a training depend on the processor and on torch's version in their last digits.
    """
    parts = [" ".join(part.split()) for part in shown.split("...")]
    found = re.search(".*?".join(map(_pattern, parts)), " ".join(printed.split()))
    assert found, f"The page shows\n{shown}\nThis was printed:\n{printed}"
    for number, wanted in zip(found.groups(), [each for part in parts for each in _NUMBER.findall(part)], strict=True):
        value, expected = (float(each.replace(",", "")) for each in (number, wanted))
        assert math.isclose(value, expected, rel_tol=0.05, abs_tol=0.02), f"{value} is not {expected} in\n{printed}"
    return True


def _pattern(part: str) -> str:
    pieces = _NUMBER.split(part)
    return f"({_NUMBER.pattern})".join(map(re.escape, pieces))


def test_outputs_that_differ_are_seen() -> None:
    assert same("a 93.5\nb  2 c\n", "a 93.4\n...\nc")
    for other in ("a 73.5\n", "b 93.5\n", "a\n"):
        with pytest.raises(AssertionError):
            same(other, "a 93.5\n")


def test_the_distribution_of_the_guide_is_the_tested_one() -> None:
    assert block("extending.md-2").text == (ROOT / "tests" / "segment_crf.py").read_text(encoding="utf-8")


def test_the_distribution_of_the_guide_passes_the_conformance_tests() -> None:
    names: dict[str, type[ConformanceTests]] = {}
    exec(block("extending.md-4").text, names)
    tests = names["TestSegmentCRF"]()
    for name in dir(tests):
        if name.startswith("test_"):
            getattr(tests, name)()
