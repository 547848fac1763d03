"""The tutorial, from its first block to its last in one folder; its notebook has the same cells."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from called import caller
from pages import BLOCKS, ROOT
from shell import commands, execute
from test_blocks import same

pytestmark = pytest.mark.docs


@pytest.mark.corpus
def test_the_tutorial_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    pytest.importorskip("onnx")
    from structkd.data import load_petrogold

    try:
        load_petrogold(task="spans", scheme="BIO")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    call = caller(monkeypatch, tmp_path, capfd)
    (tmp_path / "some.txt").write_text("O poço foi perfurado em 1974.\n", encoding="utf-8")
    blocks = [each for each in BLOCKS if each.page == "tutorial.md"]
    assert len(blocks) == 7
    for each in blocks:
        capfd.readouterr()
        if each.language == "python":
            exec(compile(each.text, each.name, "exec"), {"__name__": "__main__"})
            printed = capfd.readouterr().out
        else:
            printed = "".join(execute(words, call, train=True) for words in commands(each.text))
            printed += capfd.readouterr().out
        assert each.output is not None, f"{each.name} shows no output"
        assert same(printed, each.output)


def test_the_notebook_is_that_of_the_page() -> None:
    spec = importlib.util.spec_from_file_location("notebook", ROOT / "docs" / "hooks" / "notebook.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    expected = module.notebook((ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8"))
    assert (ROOT / "docs" / "tutorial.ipynb").read_text(encoding="utf-8") == expected, "python docs/hooks/notebook.py"
