"""The folders of spaCy pipelines, before spaCy sees them: names import nothing, and folders have no code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from structkd.teachers.spacy_folders import pipeline_folder

CONFIG = """
[nlp]
lang = "en"
pipeline = ["tok2vec","ner"]
before_creation = null

[components.ner]
factory = "ner"

[components.ner.model]
@architectures = "spacy.TransitionBasedParser.v2"

[training]
# spaCy obeys this when it trains, and no sooner
before_to_disk = {"@callbacks": "x"}

[initialize]
vectors = "en_core_web_lg"
"""


def pipeline(folder: Path, config: str = CONFIG) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.cfg").write_text(config)
    return folder


def test_an_installed_pipeline_is_read_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("xx_made_sm", "xx_other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
        (tmp_path / name / "meta.json").write_text('{"lang": "xx", "name": "made_sm", "version": "1.0"}')
        (tmp_path / f"{name}-1.0.dist-info").mkdir()
        (tmp_path / f"{name}-1.0.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n"
        )
    data = pipeline(tmp_path / "xx_made_sm" / "xx_made_sm-1.0")
    points = tmp_path / "xx_made_sm-1.0.dist-info" / "entry_points.txt"
    points.write_text("[spacy_models]\nxx_made_sm = xx_made_sm\njson = json\nxx_other = json\n")
    assert pipeline_folder("xx_made_sm") == data
    for name in ("json", "xx_other", "this", "pip", "xx_made_sm.x", "blank:en", "-x", "../xx_made_sm/y", "http://x/y"):
        with pytest.raises(FileNotFoundError, match="spaCy pipeline"):
            pipeline_folder(name)
    (tmp_path / "xx_made_sm" / "meta.json").write_text('{"lang": "../..", "name": "x", "version": "1"}')
    with pytest.raises(ValueError, match=r"meta\.json does not name the folder"):
        pipeline_folder("xx_made_sm")
    assert not (tmp_path / "marker").exists()
    assert "xx_made_sm" not in sys.modules


@pytest.mark.parametrize(
    "change",
    [
        ("before_creation = null", 'before_creation = {"@callbacks": "spacy.copy_from_base_model.v1"}'),
        ("[components.ner]", '[nlp.after_creation]\n@callbacks = "x"\n\n[components.ner]'),
        ('factory = "ner"', 'source = "antigravity"'),
        ("[components.ner]", '[components.x]\nfactory = "ner"\nsource = "antigravity"\n\n[components.ner]'),
        ("[components.ner]", '[components]\nx = {"source": "antigravity"}\n\n[components.ner]'),
        ("[nlp]", "[nlp"),
        ('factory = "ner"', f'factory = "{"n" * 2**20}"'),
    ],
)
def test_configurations_that_import_are_refused(change: tuple[str, str], tmp_path: Path) -> None:
    assert pipeline_folder(str(pipeline(tmp_path / "good"))) == tmp_path / "good"
    pipeline(tmp_path / "evil", CONFIG.replace(*change, 1))
    with pytest.raises(ValueError, match=r"evil.config\.cfg"):
        pipeline_folder(str(tmp_path / "evil"))


@pytest.mark.parametrize("name", ["x.py", "inner/y.so", "z.pkl"])
def test_folders_with_code_are_refused(name: str, tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "x")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    with pytest.raises(ValueError, match=f"{Path(name).name}: A folder with code"):
        pipeline_folder(str(folder))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no config\.cfg"):
        pipeline_folder(str(tmp_path / "empty"))
