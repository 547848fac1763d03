"""Data sets of the hub, which is stood in for: columns as the real ones have them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from structkd.data import (
    ENTITY_TYPES,
    UPOS,
    Corpus,
    TagAnnotation,
    TreeAnnotation,
    load_hub,
    load_hub_treebank,
    load_ud_ewt,
    load_uner,
    load_uner_ewt,
)

NAMES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]
WORDS = List(Value("string"))
SPLITS = ("train", "validation", "test")


def tags(corpus: Corpus, split: str) -> list[list[str]]:
    return [corpus.annotation.names({"labels": labels})["labels"] for labels in corpus.splits[split]["labels"]]


def entities(names: list[str] | None = None, splits: tuple[str, ...] = SPLITS) -> DatasetDict:
    """One sentence a split, with the columns of Universal NER, which hold those of the other sets of entities."""
    labels = List(ClassLabel(names=names or NAMES))
    features = Features({"idx": Value("string"), "tokens": WORDS, "ner_tags": labels, "annotator": WORDS})

    def split(name: str) -> Dataset:
        row = {"idx": f"{name}-1", "tokens": [name, "Lima"], "ner_tags": [1, 2], "annotator": ["x", "x"]}
        marker = {"idx": f"{name}-0", "tokens": ["-DOCSTART-"], "ner_tags": [0], "annotator": ["x"]}
        return Dataset.from_list([marker, row], features=features)

    return DatasetDict({name: split(name) for name in splits})


def trees(upos: list[str] | None = None, head: list[str] | None = None, deprel: list[str] | None = None) -> DatasetDict:
    """``Vou à praia``, with the multiword token à = a + a and an empty node, as ``universal_dependencies`` has them."""
    names = [*UPOS, "_"]
    columns = ("lemmas", "xpos", "feats", "head", "deprel", "deps", "misc")
    features = Features(
        {"idx": Value("string"), "text": Value("string"), "tokens": WORDS, "upos": List(ClassLabel(names=names))}
        | dict.fromkeys(columns, WORDS)
    )

    def split(name: str) -> Dataset:
        words = [name, "à", "a", "a", "gone", "praia"]
        row: dict[str, Any] = {"idx": f"{name}-1", "text": " ".join(words), "tokens": words}
        row |= {column: ["_"] * 6 for column in columns}
        row["upos"] = [names.index(tag) for tag in upos or ["VERB", "_", "ADP", "DET", "_", "NOUN"]]
        row["head"] = head or ["0", "None", "4", "4", "None", "1"]
        row["deprel"] = deprel or ["root", "_", "case", "det", "None", "obl:arg"]
        return Dataset.from_list([row], features=features)

    return DatasetDict({name: split(name) for name in SPLITS})


Hub = Callable[[DatasetDict], list[tuple[Any, ...]]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Place a data set on the hub; what is asked for is noted in the list returned."""

    def place(data: DatasetDict) -> list[tuple[Any, ...]]:
        asked: list[tuple[Any, ...]] = []

        def load(*arguments: Any, **options: Any) -> DatasetDict:
            asked.append((*arguments, *(f"{key}={value}" for key, value in options.items())))
            return data

        monkeypatch.setattr(datasets, "load_dataset", load)
        return asked

    monkeypatch.delenv("STRUCTKD_DATA", raising=False)
    return place


# Universal NER


@pytest.mark.parametrize("script", [False, True])
def test_uner_from_the_hub(monkeypatch: pytest.MonkeyPatch, script: bool) -> None:
    asked: list[tuple[Any, ...]] = []

    def load(*arguments: Any, **options: Any) -> DatasetDict:
        asked.append((*arguments, *options.get("data_files", {}).items()))
        if script and arguments[0] != "parquet":
            raise RuntimeError("Dataset scripts are no longer supported, but found universal_ner.py")
        return entities()

    monkeypatch.delenv("STRUCTKD_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    corpus = load_uner_ewt()
    assert list(corpus.splits["dev"]["id"]) == ["validation-1"]
    assert tags(corpus, "test") == [["B-PER", "E-PER"]]
    assert corpus.source == "https://huggingface.co/datasets/universalner/universal_ner, config en_ewt"
    parquet = "hf://datasets/universalner/universal_ner@~parquet/en_ewt/{0}/*.parquet"
    expected: list[tuple[Any, ...]] = [("universalner/universal_ner", "en_ewt")]
    assert asked == expected + [("parquet", *((split, parquet.format(split)) for split in SPLITS))] * script


def test_a_revision_is_never_replaced_by_the_hubs_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, *arguments: Any, **options: Any) -> DatasetDict:
        if name == "parquet":
            return entities()
        raise RuntimeError("Dataset scripts are no longer supported, but found wikiann.py")

    monkeypatch.setattr(datasets, "load_dataset", load)
    load_hub("unimelb-nlp/wikiann", "pt")
    with pytest.raises(ValueError, match=r"revision='abc': unimelb-nlp/wikiann is read by a script at that revision"):
        load_hub("unimelb-nlp/wikiann", "pt", revision="abc")


def test_uner_asks_the_hub_for_another_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    data = {"pt_bosque": entities(), "pt_pud": entities(splits=("test",))}
    monkeypatch.delenv("STRUCTKD_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", lambda _, config: data[config])
    corpus = load_uner("pt_bosque", test="pt_pud")
    assert list(corpus.splits["test"]["id"]) == ["test-1"]
    with pytest.raises(ValueError, match="universal_ner has no split 'train'; it has test"):
        load_uner("pt_pud")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*NAMES, "B-GPE"], "Unknown labels B-GPE; the inventory is O B-PER"),
        (["O", "I-PER", "B-PER"], r"train, sentence 'train-1', word 0 \(0-based\): 'I-PER' cannot stand"),
    ],
)
def test_uner_from_the_hub_is_checked(hub: Hub, names: list[str], message: str) -> None:
    hub(entities(names))
    with pytest.raises(ValueError, match=message):
        load_uner_ewt()


# Any data set of class labels


def test_entities_of_any_data_set(hub: Hub) -> None:
    asked = hub(entities())
    corpus = load_hub("unimelb-nlp/wikiann", "pt", revision="abc")
    assert asked == [("unimelb-nlp/wikiann", "pt", "revision=abc")]
    assert (corpus.name, corpus.task) == ("wikiann_pt", "spans")
    assert corpus.annotation == TagAnnotation.of_spans(ENTITY_TYPES, "BIOES")
    assert list(corpus.splits["train"]["id"]) == ["2"], "the sentence -DOCSTART- is no text"
    assert tags(corpus, "train") == [["B-PER", "E-PER"]]
    assert list(load_hub("conll2003", id_column="idx").splits["train"]["id"]) == ["train-1"]


def test_other_columns_splits_and_labels(hub: Hub) -> None:
    data = entities(["O", "B-per", "I-per"]).rename_columns({"tokens": "words", "ner_tags": "ner"})
    hub(DatasetDict({"train": data["train"], "dev": data["validation"], "test": data["test"]}))
    corpus = load_hub(
        "any",
        token_column="words",
        tag_column="ner",
        scheme="BIO",
        splits={"train": "train", "dev": "dev", "test": "test"},
        replace={"B-per": "B-PER", "I-per": "I-PER"},
    )
    assert tags(corpus, "dev") == [["B-PER", "I-PER"]]


def test_splits_of_other_names_are_offered_as_they_are_typed(hub: Hub) -> None:
    data = entities()
    hub(DatasetDict({"train": data["train"], "dev": data["validation"], "test": data["test"]}))
    with pytest.raises(
        ValueError, match=r"no split 'validation'; it has train, dev, test\. Name them, say splits=.*data\."
    ):
        load_hub("any")
    with pytest.raises(ValueError, match=r"universal_ner has no split 'validation'; it has train, dev, test\.$"):
        load_uner("en_ewt")


def test_labels_without_prefix_and_with_another_separator(hub: Hub) -> None:
    hub(entities(["O", "PER", "LOC"]))
    with pytest.raises(ValueError, match=r"train: Label 'PER' is not a tag of BIO.*\(data\.hub_scheme=IO\)"):
        load_hub("any")
    assert tags(load_hub("any", hub_scheme="IO", scheme="BIO"), "test") == [["B-PER", "B-LOC"]]
    hub(entities(["O", "U_PER", "B_PER", "L_PER"]))
    corpus = load_hub("any", hub_scheme="BILOU", separator="_", repair=True)
    assert corpus.annotation == TagAnnotation.of_spans(["PER"], "BIOES")
    assert tags(corpus, "test") == [["S-PER", "S-PER"]]


def test_rows_without_words_labels_or_text(hub: Hub) -> None:
    def changed(**row: Any) -> DatasetDict:
        data = entities()
        rows = [*data["train"], {"idx": "new", "tokens": ["a", "b"], "ner_tags": [0, 0], "annotator": []} | row]
        return DatasetDict(data | {"train": Dataset.from_list(rows, features=data["train"].features)})

    hub(changed(tokens=[], ner_tags=[]))
    corpus = load_hub("any")
    assert list(corpus.splits["train"]["id"]) == ["2"]
    assert "Rows without words were left out: 1 of train, 0 of validation" not in corpus.notes
    assert "Rows without words were left out: 1 of train, 0 of dev, 0 of test." in corpus.notes
    hub(changed(ner_tags=[0, -1]))
    with pytest.raises(ValueError, match=r"sentence '3', word 1 \(0-based\): The label is -1, so the split"):
        load_hub("any")
    hub(changed(ner_tags=[0]))
    with pytest.raises(ValueError, match="sentence '3': 2 tokens and 1 ner_tags"):
        load_hub("any")
    hub(changed(tokens=["a", " "]))
    with pytest.raises(ValueError, match=r"sentence '3', word 1 \(0-based\): The word is empty or blank"):
        load_hub("any")
    assert list(load_hub("any", blank_words="skip").splits["train"]["id"]) == ["2"]
    assert load_hub("any", blank_words="underscore").splits["train"]["tokens"][1] == ["a", "_"]


def test_labels_that_are_no_spans(hub: Hub) -> None:
    hub(entities(["NN", "NNP", "VB"]))
    corpus = load_hub("any", task="upos")
    assert corpus.annotation == TagAnnotation(("NN", "NNP", "VB"))
    assert tags(corpus, "test") == [["NNP", "VB"]]


def test_tag_schemes_of_the_hub_are_converted_and_repaired(hub: Hub) -> None:
    hub(entities(["O", "I-PER", "B-PER"]))
    assert tags(load_hub("any", hub_scheme="IOB1", scheme="BIO"), "test") == [["B-PER", "B-PER"]]
    with pytest.raises(ValueError, match=r"any, default, train, sentence '2', word 0 .*repair=True"):
        load_hub("any")
    corpus = load_hub("any", repair=True)
    assert tags(corpus, "test") == [["S-PER", "S-PER"]]
    assert "continues no span as B: 1 of train, 1 of dev, 1 of test" in corpus.notes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "dependencies"}, "Unknown task 'dependencies' for any; known: spans, upos"),
        ({"tag_column": "tags"}, "any, default, train: A column tags with named labels was expected; it has"),
        ({"tag_column": "annotator"}, "A column annotator with named labels"),
        ({"token_column": "words"}, "The columns words were expected; it lacks words and has idx, tokens"),
        ({"splits": {"train": "train", "dev": "dev", "test": "test"}}, "no split 'dev'; it has train, validation"),
    ],
)
def test_data_sets_of_another_form_are_refused(hub: Hub, arguments: dict[str, Any], message: str) -> None:
    hub(entities())
    with pytest.raises(ValueError, match=message):
        load_hub("any", **arguments)


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(FileNotFoundError, match=r"hub \(unimelb-nlp/wikiann, pt: no route\)"):
        load_hub("unimelb-nlp/wikiann", "pt")


# Treebanks


def test_a_treebank_of_the_hub(hub: Hub) -> None:
    asked = hub(trees())
    corpus = load_ud_ewt()
    assert asked == [("universal-dependencies/universal_dependencies", "en_ewt")]
    row = corpus.splits["test"][0]
    assert row["tokens"] == ["test", "a", "a", "praia"], "neither the multiword token nor the empty node is a word"
    assert row["upos"] == ["VERB", "ADP", "DET", "NOUN"]
    names = {"heads": [0, 4, 4, 1], "relations": ["root", "case", "det", "obl"]}
    assert corpus.annotation.names(row) == names
    assert tags(load_hub_treebank("any", task="spans"), "dev") == [["S-VP", "S-PP", "B-NP", "E-NP"]]
    assert tags(load_hub_treebank("any", task="upos"), "dev") == [["VERB", "ADP", "DET", "NOUN"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": ["0", "None", "4", "5", "None", "1"]}, r"Head '5' where 0 \(root\) to 4 was expected"),
        ({"head": ["0", "None", "4", "x", "None", "1"]}, "Head 'x'"),
        ({"head": ["4", "None", "4", "4", "None", "1"]}, "It is not a tree: it has no root"),
        ({"deprel": ["root", "_", "case", "det", "_", "what"]}, "Unknown relation 'what'; known: acl"),
        ({"head": ["0", "None", "0", "4", "None", "1"]}, "It is not a tree: it has 2 roots, .*multiroot=True"),
    ],
)
def test_a_treebank_of_the_hub_is_checked(hub: Hub, changes: dict[str, list[str]], message: str) -> None:
    hub(trees(**changes))
    with pytest.raises(ValueError, match=rf"train, sentence 'train-1': {message}"):
        load_hub_treebank("any", "xx_made", name="any")


def test_a_treebank_of_the_hub_needs_parts_of_speech_for_some_tasks(hub: Hub) -> None:
    hub(trees(upos=["VERB", "_", "ADP", "_", "_", "NOUN"]))
    corpus = load_hub_treebank("any")
    assert "upos" not in corpus.splits["train"].column_names
    assert "Not every word has a part of speech" in corpus.notes
    for task in ("upos", "spans"):
        with pytest.raises(ValueError, match="train, sentence 'train-1': Unknown part of speech '_'; known: ADJ"):
            load_hub_treebank("any", task=task)


def test_a_treebank_of_the_hub_keeps_subtypes_when_told_to(hub: Hub) -> None:
    hub(trees())
    annotation = load_hub_treebank("any", subtypes=True).annotation
    assert isinstance(annotation, TreeAnnotation)
    assert annotation.relations == ("case", "det", "obl:arg", "root")


def test_a_treebank_needs_its_columns(hub: Hub) -> None:
    hub(trees().remove_columns(["deprel"]))
    with pytest.raises(ValueError, match=r"any, default, train: The columns idx, .* were expected; it lacks deprel"):
        load_hub_treebank("any")
