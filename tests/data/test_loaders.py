"""The loaders of corpora: on made files, and once on the real ones."""

from __future__ import annotations

import gzip
import itertools
import os
from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import cast

import datasets
import pytest
import structkd.conf
import yaml

from structkd.data import (
    ENTITY_TYPES,
    UNIVERSAL_RELATIONS,
    UPOS,
    Corpus,
    TagAnnotation,
    TreeAnnotation,
    hidden,
    load_petrogold,
    load_porttinari,
    load_porttinari_text,
    load_toy,
    load_transfer,
    load_ud_ewt,
    load_uner,
    load_uner_ewt,
    load_universal_dependencies,
    spans,
    tag_spans,
)
from structkd.data.corpora import petrogold, porttinari
from structkd.data.corpora.porttinari import document_split

Loader = Callable[..., Corpus]
PT = "{number}\t{form}\t_\t{upos}\t_\t_\t{head}\t{relation}\t_\t_"


def tags(corpus: Corpus, split: str) -> list[list[str]]:
    return [corpus.annotation.names({"labels": labels})["labels"] for labels in corpus.splits[split]["labels"]]


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
    assert upos.annotation == TagAnnotation(UPOS)
    assert tags(upos, "test")[0] == ["DET", "NOUN", "AUX", "ADJ"]
    trees = load_petrogold(task="dependencies")
    assert (corpus.task, upos.task, trees.task) == ("base_phrases", "upos", "dependencies")
    first = trees.splits["test"][0]
    assert trees.annotation.names(first) == {"heads": [2, 4, 4, 0], "relations": ["det", "nsubj", "cop", "root"]}
    assert first["upos"] == ["DET", "NOUN", "AUX", "ADJ"]


def test_petrogold_has_no_unknown_document(small_petrogold: Callable[[str], None]) -> None:
    small_petrogold(treebank(("other-1", "a")))
    with pytest.raises(ValueError, match="sentence 'other-1': Document 'other' belongs to no split"):
        load_petrogold()


def test_petrogold_documents_are_in_one_split_each() -> None:
    documents = [document for split in petrogold.PETROGOLD_DOCUMENTS.values() for document in split]
    assert len(documents) == len(set(documents)) == 19


@pytest.mark.parametrize("load", [load_petrogold, load_uner_ewt, load_ud_ewt, load_toy])
def test_unknown_tasks_and_schemes_are_refused_before_any_work(load: Loader) -> None:
    with pytest.raises(ValueError, match=r"Unknown task 'parsing' .* known:"):
        load(task="parsing")
    with pytest.raises(ValueError, match="Unknown tag scheme 'BILOU'"):
        load(task="spans", scheme="BILOU")


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
    assert corpus.annotation == TagAnnotation.of_spans(ENTITY_TYPES, "BIOES")
    assert "Train is not the released file: it has 1 PER, 0 ORG, 0 LOC mentions" in corpus.notes
    assert "B-O were read as O: 3 of train, 3 of dev, 3 of test." in corpus.notes
    assert tags(load_uner_ewt(scheme="BIO"), "dev")[0] == ["B-PER", "I-PER", "O"]


def test_uner_names_the_file_that_is_missing(tmp_path: Path, no_hub: None) -> None:
    write_uner(tmp_path)
    (tmp_path / "uner_ewt" / "en_ewt-ud-test.iob2").unlink()
    with pytest.raises(FileNotFoundError, match=r"but neither en_ewt-ud-test\.iob2 nor en_ewt-ud-test\.iob2\.gz is in"):
        load_uner_ewt(folder=str(tmp_path))


def test_uner_files_are_checked(tmp_path: Path, no_hub: None) -> None:
    write_uner(tmp_path)
    path = tmp_path / "uner_ewt" / "en_ewt-ud-dev.iob2"
    path.write_text("1\tEU\tB-GPE\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"dev\.iob2, line 1: Unknown label 'B-GPE'; the inventory is O B-PER"):
        load_uner_ewt(folder=str(tmp_path))


@pytest.mark.parametrize("named", [False, True])
def test_uner_found_nowhere_says_both_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None, named: bool
) -> None:
    monkeypatch.delenv("STRUCTKD_DATA", raising=False)
    with pytest.raises(FileNotFoundError) as caught:
        load_uner_ewt(folder=str(tmp_path) if named else None)
    message = str(caught.value)
    looked = f"Looked for en_ewt-ud-{{train,dev,test}}.iob2 (plain or .gz) in {tmp_path} and below"
    assert (looked if named else "STRUCTKD_DATA names no folder") in message
    for part in ("the hub cannot be reached", "set STRUCTKD_DATA to a folder", 'load_dataset("universalner/'):
        assert part in message


def test_uner_takes_its_test_sentences_from_another_treebank(tmp_path: Path, no_hub: None) -> None:
    write_uner(tmp_path)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    text = (
        "# sent_id = n01\n1\tLisboa\tB-LOC\t-\tx\n\n# sent_id = n02\n1\tdev\tO\t-\tx\n2\tLima\tO\t-\tx\n3\tspoke\tO\n"
    )
    (tmp_path / "deep" / "er" / "pt_pud-ud-test.iob2").write_text(text, encoding="utf-8")
    corpus = load_uner("en_ewt", test="pt_pud", folder=str(tmp_path))
    assert corpus.name == "uner_en_ewt_pt_pud"
    assert list(corpus.splits["test"]["id"]) == ["n01", "n02"]
    assert list(corpus.splits["dev"]["id"]) == ["dev-2"]
    assert corpus.notes.startswith("The test split is that of pt_pud.")
    assert "1 from dev that occur in test" in corpus.notes
    assert corpus.source == "en_ewt-ud-{train,dev}.iob2; pt_pud-ud-test.iob2"


def test_uner_repairs_slips_when_told_to(tmp_path: Path, no_hub: None) -> None:
    write_uner(tmp_path)
    path = tmp_path / "uner_ewt" / "en_ewt-ud-dev.iob2"
    path.write_text(path.read_text().replace("spoke\tO", "spoke\tI-ORG"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"dev\.iob2, line 4: 'I-ORG' cannot stand after 'I-PER'.*repair=True"):
        load_uner_ewt(folder=str(tmp_path))
    corpus = load_uner("en_ewt", repair=True, folder=str(tmp_path))
    assert tags(corpus, "dev")[0] == ["B-PER", "E-PER", "S-ORG"]
    assert "an I that continues no span as B: 0 of train, 1 of dev, 0 of test." in corpus.notes


def test_an_i_after_a_type_that_is_read_as_o(tmp_path: Path, no_hub: None) -> None:
    write_uner(tmp_path)
    path = tmp_path / "uner_ewt" / "en_ewt-ud-dev.iob2"
    path.write_text(path.read_text().replace("Wimbledon\tB-OTH\n3\tdev\tI-OTH", "Wimbledon\tB-OTH\n3\tdev\tI-PER"))
    with pytest.raises(ValueError, match=r"line 9: 'I-PER' cannot stand after 'O' in BIO \(the 'B-OTH' before it"):
        load_uner("en_ewt", folder=str(tmp_path))
    settings = yaml.safe_load((Path(structkd.conf.__file__).parent / "data" / "universal_ner.yaml").read_text())
    corpus = load_uner("en_ewt", repair=settings["repair"], folder=str(tmp_path))
    assert tags(corpus, "dev")[1] == ["O", "O", "S-PER"]


# Universal Dependencies


def write_treebank(folder: Path, name: str = "xx_made") -> None:
    for split in ("train", "dev", "test"):
        text = treebank((f"{split}-1", split), (f"{split}-2", f"{split}s")).replace("\tnsubj\t", "\tnsubj:pass\t")
        (folder / f"{name}-ud-{split}.conllu").write_text(text, encoding="utf-8")


def test_a_treebank_from_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_hub: None) -> None:
    write_treebank(tmp_path)
    monkeypatch.setenv("STRUCTKD_DATA", str(tmp_path))
    trees = load_universal_dependencies("xx_made")
    assert (trees.name, trees.task) == ("ud_xx_made", "dependencies")
    assert trees.annotation == TreeAnnotation(UNIVERSAL_RELATIONS)
    first = trees.splits["dev"][0]
    assert trees.annotation.names(first) == {"heads": [2, 4, 4, 0], "relations": ["det", "nsubj", "cop", "root"]}
    assert trees.source.startswith("xx_made-ud-{train,dev,test}.conllu; ")
    assert tags(load_universal_dependencies("xx_made", "upos"), "test")[0] == ["DET", "NOUN", "AUX", "ADJ"]
    phrases = load_universal_dependencies("xx_made", "spans", "BIO")
    assert tags(phrases, "test")[0] == ["B-NP", "I-NP", "B-VP", "B-ADJP"]


def test_a_treebank_found_nowhere_says_both_ways(tmp_path: Path, no_hub: None) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_ud_ewt(folder=str(tmp_path))
    for part in ("en_ewt-ud-{train,dev,test}.conllu", str(tmp_path), "set STRUCTKD_DATA", "cannot be reached"):
        assert part in str(caught.value)


# Porttinari


def test_porttinari_is_split_by_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents = [f"FOLHA_DOC{number:06}" for number in range(40)]
    assert {document_split(document) for document in documents} == {"train", "dev", "test"}
    blocks = [
        f"# sent_id = {document}_SENT00{sentence}\n1\t{document}{sentence}\t_\tNOUN\t_\t_\t_\t_\t_\t_\n"
        for document in documents
        for sentence in (1, 2)
    ]
    path = tmp_path / "porttinari.conllu"
    path.write_text("\n".join(blocks), encoding="utf-8")
    monkeypatch.setattr(porttinari, "cached_package_file", lambda _: path)
    corpus = load_porttinari()
    for split, rows in corpus.splits.items():
        assert {document_split(name.partition("_SENT")[0]) for name in rows["id"]} == {split}
    assert sum(map(len, corpus.splits.values())) == 80
    assert corpus.annotation == TagAnnotation(UPOS)
    text = load_porttinari_text()
    assert sorted(text["id"]) == sorted(name for rows in corpus.splits.values() for name in rows["id"])
    assert text.features == hidden(text, TagAnnotation(UPOS)).remove_columns("labels").features
    with pytest.raises(ValueError, match="Unknown task 'dependencies' for Porttinari; known: upos"):
        load_porttinari("dependencies")


# The toy language


def test_toy_trees_fit_their_words() -> None:
    corpus = load_toy("dependencies", train=300)
    seen: Counter[str] = Counter()
    crossing = 0
    for row in corpus.splits["train"]:
        heads = row["heads"]
        named = corpus.annotation.names(row)["relations"]
        seen.update(named)
        for relation, tag, head in zip(named, row["upos"], heads, strict=True):
            above = row["upos"][head - 1] if head else None
            assert (relation, tag, above) in EXPECTED_ARCS
        arcs = [(min(word, head), max(word, head)) for word, head in enumerate(heads, 1)]
        crossing += any(a < c < b < d for (a, b), (c, d) in itertools.permutations(arcs, 2))
    assert set(seen) == set(cast(TreeAnnotation, corpus.annotation).relations)
    assert 3 <= crossing <= 30
    assert list(corpus.splits["train"]["tokens"]) == list(load_toy("upos", train=300).splits["train"]["tokens"])


EXPECTED_ARCS = {
    *((relation, tag, "NOUN") for relation, tag in (("amod", "ADJ"), ("det", "DET"), ("case", "ADP"))),
    ("case", "ADP", "PRON"),
    *(("nmod", tag, head) for tag in ("NOUN", "PRON") for head in ("NOUN", "PRON")),
    *((relation, tag, "VERB") for relation in ("nsubj", "obj", "obl") for tag in ("NOUN", "PRON")),
    ("punct", "PUNCT", "VERB"),
    ("xcomp", "VERB", "VERB"),
    ("root", "VERB", None),
}


# The real corpora

REAL: dict[str, tuple[Callable[[], Corpus], tuple[int, int, int]]] = {
    "petrogold": (load_petrogold, (7296, 753, 1054)),
    "petrogold trees": (partial(load_petrogold, "dependencies"), (7296, 753, 1054)),
    "porttinari": (load_porttinari, (6601, 835, 967)),
    "uner_ewt": (load_uner_ewt, (12502, 1983, 2077)),
    "ud_ewt": (load_ud_ewt, (12503, 1983, 2077)),
    "uner_pt": (partial(load_uner, "pt_bosque"), (7016, 1172, 1167)),
    "uner_pt pud": (partial(load_uner, "pt_bosque", test="pt_pud"), (7016, 1172, 1000)),
    "uner_sv": (partial(load_uner, "sv_talbanken"), (4303, 504, 1219)),
    "uner_da": (partial(load_uner, "da_ddt", repair=True), (4383, 564, 565)),
}
PETROGOLD_FINGERPRINT = "3ef0a8c906bac15cf6568b3242adc2053cf614cae8a9f9c091c8b6f8522065e5"


@cache
def real_corpus(name: str) -> Corpus:
    if name.startswith("u") and "STRUCTKD_DATA" not in os.environ:
        pytest.skip("STRUCTKD_DATA names no folder")
    try:
        return REAL[name][0]()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.corpus
@pytest.mark.parametrize("name", REAL)
def test_the_real_corpus(name: str) -> None:
    corpus = real_corpus(name)
    assert tuple(len(corpus.splits[split]) for split in ("train", "dev", "test")) == REAL[name][1]
    if name == "petrogold":
        assert corpus.fingerprint == PETROGOLD_FINGERPRINT


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["petrogold", "uner_ewt"])
def test_every_tag_scheme_survives_on_every_real_sentence(name: str) -> None:
    corpus = real_corpus(name)
    types = set()
    for split in ("train", "dev", "test"):
        for sentence in tags(corpus, split):
            expected = spans(sentence, "BIOES")
            types |= {span.type for span in expected}
            assert tag_spans(expected, len(sentence), "BIOES") == sentence
            for scheme in ("BIO", "IOB1"):
                assert spans(tag_spans(expected, len(sentence), scheme), scheme) == expected
    assert types == set(cast(TagAnnotation, corpus.annotation).types or ())


@pytest.mark.corpus
def test_the_real_corpora_of_transfer_share_no_test_sentence() -> None:
    target = real_corpus("porttinari")  # which skips where there is no package index
    source = load_petrogold("upos")
    transfer = load_transfer(source, target)
    assert transfer.annotation == TagAnnotation(UPOS)
    assert transfer.source.fingerprint == source.fingerprint, "nothing was to be dropped"
