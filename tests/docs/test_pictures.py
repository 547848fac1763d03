"""The pictures that follow from the source are those of the source."""

import importlib.util
from pathlib import Path

import pytest
from pages import ROOT

PICTURES = ROOT / "docs" / "pictures"


@pytest.mark.parametrize("name", ["house", "run", "speed"])
def test_a_picture_is_up_to_date(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("draw", PICTURES / "draw.py")
    assert spec is not None
    assert spec.loader is not None
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    monkeypatch.setattr(draw, "OUTPUT", tmp_path)
    getattr(draw, name)()
    assert (tmp_path / f"{name}.svg").read_text() == (PICTURES / f"{name}.svg").read_text(), (
        "run python docs/pictures/draw.py"
    )
