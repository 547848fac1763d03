"""The Python of the README and of the guides in docs/ runs as it stands."""

import re
from pathlib import Path

import pytest

from structkd.testing import ConformanceTests

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    for number, block in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.S | re.M), 1
    )
]


#: A page about one exported model; its blocks run one after the other, beside a folder of that model.
EXPORTED = "export.md"


def block(name: str) -> str:
    """Return a block by its page and number."""
    return next(str(parameter.values[0]) for parameter in BLOCKS if parameter.id == name)


def test_the_pages_have_examples() -> None:
    assert {"README.md-2", "extending.md-6"} <= {parameter.id for parameter in BLOCKS}


@pytest.mark.parametrize("block", [each for each in BLOCKS if not str(each.id).startswith(EXPORTED)])
def test_example_runs(block: str) -> None:
    exec(compile(block, "example", "exec"), {})


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a run with a trained model, and that model exported, as the page names them."""
    pytest.importorskip("onnx")
    from datasets import Dataset

    from structkd.data import TagAnnotation
    from structkd.export import export
    from structkd.models import BiLSTMRecipe, TaggerRecipe

    folder = tmp_path_factory.mktemp("exported")
    encoder = BiLSTMRecipe(word_size=4, character_size=3, character_filters=3, hidden_size=3, layers=1)
    text = Dataset.from_dict({"tokens": [["Ana", "Lee", "sings"]]})
    model = TaggerRecipe(encoder=encoder).create(TagAnnotation.of_spans(["PER", "LOC"], "BIO"), text, text)
    model.save_pretrained(folder / "structkd-runs" / "student-0123456789abcdef" / "model")
    export(model, folder / "exported", single_file=True)
    return folder


@pytest.mark.parametrize("block", [each for each in BLOCKS if str(each.id).startswith(EXPORTED)])
def test_example_runs_beside_an_exported_model(block: str, exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "import spacy" in block:
        pytest.importorskip("spacy")
    monkeypatch.chdir(exported)
    monkeypatch.syspath_prepend(exported / "exported")
    exec(compile(block, "example", "exec"), {})


def test_the_distribution_of_the_guide_is_the_tested_one() -> None:
    assert block("extending.md-1") == (ROOT / "tests" / "segment_crf.py").read_text(encoding="utf-8")


def test_the_distribution_of_the_guide_passes_the_conformance_tests() -> None:
    names: dict[str, type[ConformanceTests]] = {}
    exec(block("extending.md-3"), names)
    tests = names["TestSegmentCRF"]()
    for name in dir(tests):
        if name.startswith("test_"):
            getattr(tests, name)()
