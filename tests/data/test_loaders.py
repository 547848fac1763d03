"""The loaders of PetroGold and Universal NER: on made files, and once on the real ones."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from structkd.data import Corpus, load_petrogold, load_uner_ewt, petrogold, spans

Loader = Callable[..., Corpus]
PT = "{number}\t{form}\t_\t{upos}\t_\t_\t{head}\t{relation}\t_\t_"


def tags(corpus: Corpus, split: str) -> list[list[str]]:
    return [[corpus.labels[label] for label in labels] for labels in corpus.splits[split]["labels"]]


# PetroGold


def treebank(*sentences: tuple[str, str]) -> str:
    """A treebank of (sentence id, noun): determiner, noun and copula with an adjective."""
    blocks = []
    for sentence_id, noun in sentences:
        words = [
            (1, "o", "DET", 2, "det"),
            (2, noun, "NOUN", 4, "nsubj"),
            (3, "é", "AUX", 4, "cop"),
            (4, "raso", "ADJ", 0, "root"),
        ]
        lines = [
            PT.format(number=number, form=form, upos=upos, head=head, relation=relation)
            for number, form, upos, head, relation in words
        ]
        blocks.append("\n".join([f"# sent_id = {sentence_id}", *lines, ""]))
    return "\n".join(blocks) + "\n"


@pytest.fixture
def small_petrogold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def place(text: str) -> None:
        path = tmp_path / "petrogold.conllu"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(petrogold, "cached_package_file", lambda _: path)

    return place


IDS = {split: f"{documents[0]}-" for split, documents in petrogold.PETROGOLD_DOCUMENTS.items()}


def test_petrogold_is_split_by_document_and_kept_apart(small_petrogold: Callable[[str], None]) -> None:
    small_petrogold(
        treebank(
            *[(f"{IDS['train']}{number}", noun) for number, noun in enumerate(["a", "b", "c", "a"])],
            *[(f"{IDS['dev']}{number}", noun) for number, noun in enumerate(["b", "d", "e"])],
            *[(f"{IDS['test']}{number}", noun) for number, noun in enumerate(["c", "e", "f"])],
        )
    )
    corpus = load_petrogold()
    assert {split: list(rows["id"]) for split, rows in corpus.splits.items()} == {
        "train": [f"{IDS['train']}0", f"{IDS['train']}3"],
        "dev": [f"{IDS['dev']}0", f"{IDS['dev']}1"],
        "test": [f"{IDS['test']}{number}" for number in range(3)],
    }
    assert "2 from train that occur in dev or test, 1 from dev that occur in test" in corpus.notes
    assert tags(corpus, "test")[0] == ["B-NP", "E-NP", "S-VP", "S-ADJP"]
    assert tags(load_petrogold(scheme="BIO"), "test")[0] == ["B-NP", "I-NP", "B-VP", "B-ADJP"]
    upos = load_petrogold(task="upos")
    assert (upos.scheme, upos.types, len(upos.labels)) == (None, None, 17)
    assert tags(upos, "test")[0] == ["DET", "NOUN", "AUX", "ADJ"]


def test_petrogold_has_no_unknown_document(small_petrogold: Callable[[str], None]) -> None:
    small_petrogold(treebank(("other-1", "a")))
    with pytest.raises(ValueError, match="sentence 'other-1': document 'other' belongs to no split"):
        load_petrogold()


def test_petrogold_documents_are_in_one_split_each() -> None:
    documents = [document for split in petrogold.PETROGOLD_DOCUMENTS.values() for document in split]
    assert len(documents) == len(set(documents)) == 19


@pytest.mark.parametrize("load", [load_petrogold, load_uner_ewt])
def test_unknown_tasks_and_schemes_are_refused_before_any_work(load: Loader) -> None:
    with pytest.raises(ValueError, match=r"unknown task 'parsing' .* known:"):
        load(task="parsing")
    with pytest.raises(ValueError, match="unknown tag scheme 'BILOU'"):
        load(scheme="BILOU")


# Universal NER


def iob2(split: str) -> str:
    return (
        f"# sent_id = {split}-1\n1\t{split}\tB-PER\t-\tx\n2\tLima\tI-PER\t-\tx\n3\tspoke\tO\n\n"
        f"# sent_id = {split}-2\n1\tat\tB-O\n2\tWimbledon\tB-OTH\n3\t{split}\tI-OTH\n\n"
    )


def write_uner(folder: Path, packed: bool = False) -> None:
    (folder / "uner_ewt").mkdir()
    for split in ("train", "dev", "test"):
        path = folder / "uner_ewt" / f"en_ewt-ud-{split}.iob2"
        if packed:
            path.with_name(path.name + ".gz").write_bytes(gzip.compress(iob2(split).encode()))
        else:
            path.write_text(iob2(split), encoding="utf-8")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("the hub cannot be reached")

    monkeypatch.setattr(datasets, "load_dataset", refuse)


@pytest.mark.parametrize("packed", [False, True])
def test_uner_from_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None, packed: bool) -> None:
    write_uner(tmp_path, packed)
    monkeypatch.setenv("STRUCTKD_DATA", str(tmp_path))
    corpus = load_uner_ewt()
    assert tags(corpus, "train") == [["B-PER", "E-PER", "O"], ["O", "O", "O"]]
    assert corpus.labels[:5] == ["O", "B-PER", "I-PER", "E-PER", "S-PER"]
    assert "Train is not the released file: it has 1 PER, 0 ORG, 0 LOC mentions" in corpus.notes
    assert "3 tags of train were read as O" in corpus.notes
    assert tags(load_uner_ewt(scheme="BIO"), "dev")[0] == ["B-PER", "I-PER", "O"]


def test_uner_names_the_file_that_is_missing(tmp_path: Path, no_hub: None) -> None:
    write_uner(tmp_path)
    (tmp_path / "uner_ewt" / "en_ewt-ud-test.iob2").unlink()
    with pytest.raises(FileNotFoundError, match=r"Looked for .*en_ewt-ud-test\.iob2 and .*\.gz\."):
        load_uner_ewt(folder=str(tmp_path))


def test_uner_files_are_checked(tmp_path: Path, no_hub: None) -> None:
    write_uner(tmp_path)
    path = tmp_path / "uner_ewt" / "en_ewt-ud-dev.iob2"
    path.write_text("1\tEU\tB-GPE\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"dev\.iob2, line 1: unknown label 'B-GPE'; the inventory is O B-PER"):
        load_uner_ewt(folder=str(tmp_path))


@pytest.mark.parametrize("named", [False, True])
def test_uner_found_nowhere_says_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None, named: bool
) -> None:
    monkeypatch.delenv("STRUCTKD_DATA", raising=False)
    with pytest.raises(FileNotFoundError) as caught:
        load_uner_ewt(folder=str(tmp_path) if named else None)
    message = str(caught.value)
    assert (f"Looked for the folder {tmp_path / 'uner_ewt'}" if named else "STRUCTKD_DATA names no folder") in message
    for part in ("the hub cannot be reached", "set STRUCTKD_DATA to a folder", 'load_dataset("universalner/'):
        assert part in message


def hub_data(names: list[str]) -> DatasetDict:
    features = Features(
        {
            "idx": Value("string"),
            "text": Value("string"),
            "tokens": List(Value("string")),
            "ner_tags": List(ClassLabel(names=names)),
            "annotator": List(Value("string")),
        }
    )

    def split(name: str) -> Dataset:
        row = {"idx": f"{name}-1", "text": f"{name} Lima", "tokens": [name, "Lima"], "annotator": ["x", "x"]}
        return Dataset.from_list([row | {"ner_tags": [1, 2]}], features=features)

    return DatasetDict({name: split(name) for name in ("train", "validation", "test")})


HUB_NAMES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]


@pytest.mark.parametrize("script", [False, True])
def test_uner_from_the_hub(monkeypatch: pytest.MonkeyPatch, script: bool) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(*arguments: Any, **options: Any) -> DatasetDict:
        asked.append((*arguments, *options.get("data_files", ())))
        if script and arguments[0] != "parquet":
            raise RuntimeError("Dataset scripts are no longer supported, but found universal_ner.py")
        return hub_data(HUB_NAMES)

    monkeypatch.delenv("STRUCTKD_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = load_uner_ewt()
    assert list(corpus.splits["dev"]["id"]) == ["validation-1"]
    assert tags(corpus, "test") == [["B-PER", "E-PER"]]
    expected: list[tuple[Any, ...]] = [("universalner/universal_ner", "en_ewt")]
    assert asked == expected + [("parquet", "train", "validation", "test")] * script


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*HUB_NAMES, "B-GPE"], "unknown labels B-GPE; the inventory is O B-PER"),
        (["O", "I-PER", "B-PER"], r"train, sentence 'train-1', word 0 \(0-based\): 'I-PER' cannot stand"),
    ],
)
def test_uner_from_the_hub_is_checked(monkeypatch: pytest.MonkeyPatch, names: list[str], message: str) -> None:
    monkeypatch.delenv("STRUCTKD_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: hub_data(names))
    with pytest.raises(ValueError, match=message):
        load_uner_ewt()


# The real corpora


PETROGOLD_FINGERPRINT = "d48584a0b763a059807b10eab0c4616dbcce7b316ce4b5a6a2a6e238ae5ea32b"


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["petrogold", "uner_ewt"])
def test_the_real_corpus(name: str) -> None:
    if name == "petrogold":
        try:
            corpus = load_petrogold()
        except FileNotFoundError as error:
            pytest.skip(str(error))
        sizes = (7294, 753, 1054)
        assert corpus.fingerprint == PETROGOLD_FINGERPRINT
    else:
        if "STRUCTKD_DATA" not in os.environ:
            pytest.skip("STRUCTKD_DATA names no folder")
        corpus = load_uner_ewt()
        sizes = (12192, 1924, 2077)
    assert tuple(len(corpus.splits[split]) for split in ("train", "dev", "test")) == sizes
    for split in ("train", "dev", "test"):
        found = {span.type for sentence in tags(corpus, split) for span in spans(sentence, "BIOES")}
        assert found == set(corpus.types or ())
