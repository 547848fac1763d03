"""Files of the user's own: columns, CoNLL-U, the NLTK copy of CoNLL-2002, plain text."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from structkd.data import (
    UNIVERSAL_RELATIONS,
    Corpus,
    TagAnnotation,
    TreeAnnotation,
    load_columns,
    load_conll2002,
    load_conllu,
    load_text,
    read_columns,
)


def tags(corpus: Corpus, split: str) -> list[list[str]]:
    return [corpus.annotation.names({"labels": labels})["labels"] for labels in corpus.splits[split]["labels"]]


def write(folder: Path, **texts: str) -> list[Path]:
    paths = []
    for name, text in texts.items():
        paths.append(folder / name)
        paths[-1].write_text(text, encoding="utf-8")
    return paths


# Columns

IOB1 = (
    "-DOCSTART- -X- O O\n\n"
    "EU NNP I-NP I-ORG\nAG NNP I-NP B-ORG\n{0} VBZ I-VP O\n\n"
    "Ana NNP I-NP I-PER\nwon VBD I-VP O\n{0} . O O\n"
)


def conll2003(folder: Path) -> list[Path]:
    return write(folder, train=IOB1.format("rejects"), dev=IOB1.format("takes"), test=IOB1.format("has"))


def test_columns_as_conll2003_has_them(tmp_path: Path) -> None:
    corpus = load_columns(*conll2003(tmp_path), file_scheme="IOB1", name="news")
    assert (corpus.name, corpus.task) == ("news", "spans")
    assert corpus.annotation == TagAnnotation.of_spans(["ORG", "PER"], "BIOES"), "in the order of the alphabet"
    assert tags(corpus, "test") == [["S-ORG", "S-ORG", "O"], ["S-PER", "O", "O"]]
    assert list(corpus.splits["test"]["tokens"]) == [["EU", "AG", "has"], ["Ana", "won", "has"]]
    chunks = load_columns(*conll2003(tmp_path), file_scheme="IOB1", tag_column=2, scheme="BIO", types=["VP", "NP"])
    assert chunks.annotation == TagAnnotation.of_spans(["VP", "NP"], "BIO")
    assert tags(chunks, "dev")[0] == ["B-NP", "I-NP", "B-VP"]


def test_tags_that_are_no_spans(tmp_path: Path) -> None:
    corpus = load_columns(*conll2003(tmp_path), task="upos", tag_column=1)
    assert corpus.annotation == TagAnnotation((".", "NNP", "VBD", "VBZ"))
    assert tags(corpus, "dev")[1] == ["NNP", "VBD", "."]


def test_columns_in_another_order_in_bioes(tmp_path: Path) -> None:
    paths = write(tmp_path, **{s: f"# sent_id = a\nB-X\t0\t{s}\nE-X\t1\tb c\n" for s in ("train", "dev", "test")})
    options: dict[str, Any] = {"token_column": 2, "tag_column": 0, "delimiter": "\t", "comment": "#"}
    corpus = load_columns(*paths, **options, file_scheme="BIOES", scheme="BIO")
    assert corpus.splits["dev"][0] == {"id": "a", "tokens": ["dev", "b c"], "labels": [1, 2]}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"dev": ("I-PER", "I-LOC")}, {}, "dev, line 7: Unknown label 'I-LOC'; the inventory is O B-ORG I-ORG B-PER"),
        ({"test": ("VBD", "XX")}, {"task": "upos", "tag_column": 1}, r"test, line 8: Unknown label 'XX'; the inv"),
        ({"train": ("I-PER", "I-LOC")}, {"types": ["PER", "ORG"]}, "train, line 7: Unknown label 'I-LOC'"),
        ({"train": ("I-PER", "B-PER")}, {}, "train, line 7: 'B-PER' cannot stand at the start.*really IOB1"),
        ({"train": ("AG ", "")}, {}, "train, line 4: 3 columns where 4 were expected"),
        ({}, {"file_scheme": "BIO"}, "train, line 3: 'I-ORG' cannot stand at the start .*repair=True"),
        ({}, {"file_scheme": "BILO"}, "Unknown tag scheme 'BILO'"),
        ({}, {"scheme": "IOB1"}, "IOB1 is a scheme of files only"),
        ({}, {"task": "dependencies"}, "Unknown task 'dependencies' for columns; known: spans, upos"),
        ({}, {"tag_column": 9}, r"No column 9 \(from 0\) among 4 columns"),
    ],
)
def test_bad_columns_are_refused(
    tmp_path: Path, changes: dict[str, tuple[str, str]], options: dict[str, Any], message: str
) -> None:
    paths = conll2003(tmp_path)
    for name, (old, new) in changes.items():
        (tmp_path / name).write_text((tmp_path / name).read_text().replace(old, new))
    with pytest.raises(ValueError, match=message):
        load_columns(*paths, **({"file_scheme": "IOB1"} | options))


def test_a_train_file_without_spans_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train: No span in any sentence; is -1 the column of the tags"):
        load_columns(*write(tmp_path, train="a O\n", dev="b O\n", test="c O\n"))


def test_a_split_of_which_nothing_is_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"columns: Split 'train' is empty.*: 1 from train that occur in dev or"):
        load_columns(*write(tmp_path, train="a B-X\n" * 3, dev="b B-X\n", test="a B-X\n" * 3))
    with pytest.raises(ValueError, match="dev: The file is empty"):
        load_columns(*write(tmp_path, train="a B-X\n", dev="", test="b B-X\n"))


def test_slips_of_bio_are_repaired_when_told_to(tmp_path: Path) -> None:
    paths = write(tmp_path, train="a I-X\nb I-X\nc B-X\n", dev="d O\ne I-X\n", test="f B-X\n")
    corpus = load_columns(*paths, repair=True, scheme="BIO")
    assert tags(corpus, "train") == [["B-X", "I-X", "B-X"]]
    assert "an I that continues no span as B: 1 of train, 1 of dev, 0 of test" in corpus.notes


def test_blanks_inside_words_are_no_columns(tmp_path: Path) -> None:
    (path,) = write(tmp_path, file="10\u00a0000 \t CD B-X\n")
    assert read_columns(path, ["X"], token_column=0, tag_column=-1, delimiter=None)[0].tokens == ("10\u00a0000",)


# CoNLL-U


def tree(split: str, relation: str = "nsubj:pass", head: int = 2) -> str:
    rows = [(1, f"{split}s", "NOUN", head, relation), (2, "run", "VERB", 0, "root")]
    return "".join(f"{n}\t{form}\t_\t{upos}\t_\t_\t{h}\t{r}\t_\t_\n" for n, form, upos, h, r in rows)


def test_trees_of_ones_own(tmp_path: Path) -> None:
    paths = write(tmp_path, **{split: tree(split) for split in ("train", "dev", "test")})
    plain = load_conllu(*paths)
    assert plain.annotation == TreeAnnotation(UNIVERSAL_RELATIONS)
    names = plain.annotation.names(plain.splits["dev"][0])
    assert names == {"heads": [2, 0], "relations": ["nsubj", "root"]}
    full = load_conllu(*paths, relations=None, subtypes=True)
    assert full.annotation == TreeAnnotation(("nsubj:pass", "root"))
    assert plain.fingerprint != full.fingerprint
    assert tags(load_conllu(*paths, task="spans"), "dev") == [["S-NP", "S-VP"]]
    assert tags(load_conllu(*paths, task="upos"), "dev") == [["NOUN", "VERB"]]


@pytest.mark.parametrize(
    ("dev", "options", "message"),
    [
        ({"relation": "subj"}, {}, "dev, line 1: Unknown relation 'subj'; known: acl advcl"),
        ({"relation": "subj:x"}, {"subtypes": True}, "dev, line 1: Unknown relation 'subj:x'; known: acl"),
        ({}, {"subtypes": True, "relations": ["nsubj", "root"]}, "train, line 1: Unknown relation 'nsubj:pass'"),
        ({"head": 3}, {}, r"dev, line 1: Head '3' where 0 \(root\) to 2"),
        ({"head": 0}, {}, "dev, line 1: Sentence '1' is not a tree: it has 2 roots, words 1, 2"),
        ({"head": 1}, {}, "dev, line 1: Word 1 is its own head"),
    ],
)
def test_bad_trees_are_refused_by_file_and_line(
    tmp_path: Path, dev: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    paths = write(tmp_path, train=tree("train"), dev=tree("dev", **dev), test=tree("test"))
    with pytest.raises(ValueError, match=f"{tmp_path}/{message}"):
        load_conllu(*paths, **options)


def test_several_roots_and_slips_where_they_are_allowed(tmp_path: Path) -> None:
    texts = {split: tree(split, relation="rooot", head=0) for split in ("train", "dev", "test")}
    corpus = load_conllu(*write(tmp_path, **texts), multiroot=True, replace={"rooot": "root"})
    assert corpus.annotation.names(corpus.splits["test"][0]) == {"heads": [0, 0], "relations": ["root", "root"]}


# CoNLL-2002

SPANISH = "Señora NC B-PER\nGil\u00a0Sáez VMI I-PER\n{0} Fp O\n\n{0} Fp O\n"


def conll2002(folder: Path, encoding: str = "utf-8", language: str = "esp") -> Path:
    corpora = folder / "corpora" / "conll2002"
    corpora.mkdir(parents=True)
    for suffix in ("train", "testa", "testb"):
        text = SPANISH.format(suffix)
        text = f"-DOCSTART- O\n\n{text}".replace(" NC ", " ").replace(" VMI ", " ").replace(" Fp ", " ")
        (corpora / f"{language}.{suffix}").write_bytes(
            (text if language == "ned" else SPANISH.format(suffix)).encode(encoding)
        )
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
@pytest.mark.parametrize("language", ["esp", "ned"])
def test_conll2002_from_nltks_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, language: str
) -> None:
    monkeypatch.setenv("NLTK_DATA", f"/nowhere:{conll2002(tmp_path, encoding, language)}")
    corpus = load_conll2002(language)
    assert (corpus.name, corpus.task) == (f"conll2002_{language}", "entities")
    assert list(corpus.splits["dev"]["tokens"]) == [["Señora", "Gil\u00a0Sáez", "testa"], ["testa"]]
    assert tags(corpus, "test") == [["B-PER", "E-PER", "O"], ["O"]]
    assert corpus.annotation == TagAnnotation.of_spans(["PER", "ORG", "LOC", "MISC"], "BIOES")
    assert load_conll2002(language, folder=str(tmp_path / "corpora" / "conll2002")).fingerprint == corpus.fingerprint


def test_the_slip_of_the_spanish_train_file_is_read_and_noted(tmp_path: Path) -> None:
    folder = conll2002(tmp_path) / "corpora" / "conll2002"
    train = folder / "esp.train"
    train.write_text(train.read_text(encoding="utf-8") + "\nSan AQ I-LOC\nSebastián NC I-LOC\n", encoding="utf-8")
    corpus = load_conll2002(folder=str(folder))
    assert tags(corpus, "train")[-1] == ["B-LOC", "E-LOC"]
    assert "an I that continues no span as B: 1 of train, 0 of dev, 0 of test." in corpus.notes
    with pytest.raises(ValueError, match=r"esp\.train, line 7: 'I-LOC' cannot .*repair=True \(data\.repair=true\)"):
        load_conll2002(repair=False, folder=str(folder))


def test_conll2002_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"esp\.testb\) was not found in {tmp_path}/nltk_data/.*downloader"):
        load_conll2002()
    conll2002(tmp_path / "nltk_data")
    assert len(load_conll2002().splits["train"]) == 2
    with pytest.raises(FileNotFoundError, match=r"ned\.train"):
        load_conll2002("ned")
    (tmp_path / "nltk_data" / "corpora" / "conll2002.zip").touch()
    with pytest.raises(FileNotFoundError, match=r"conll2002\.zip is there: unpack it"):
        load_conll2002("ned")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"language": "de"}, "Unknown language 'de' for CoNLL-2002; known: esp, ned"),
        ({"task": "upos"}, "Unknown task 'upos' for CoNLL-2002; known: spans"),
        ({"scheme": "IOB1"}, "IOB1 is a scheme of files only"),
    ],
)
def test_conll2002_refuses_before_any_work(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_conll2002(**arguments)


# Plain text


@pytest.mark.parametrize("packed", [False, True])
def test_plain_text(tmp_path: Path, packed: bool) -> None:
    (path,) = write(tmp_path, news="\ufeffO rio  corre .\n\nÉ raso\r\n um dois três quatro cinco\n")
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    text = load_text(path)
    assert list(text["id"]) == ["news:1", "news:3", "news:4"]
    assert list(text["tokens"])[:2] == [["O", "rio", "corre", "."], ["É", "raso"]]
    assert list(load_text(path, longest=4)["id"]) == ["news:1", "news:3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "news: The file is empty"),
        (b"\n \n", "news: The file holds no sentence: its lines are blank"),
        (b"a b\n\xe9\n", "news, line 2: Not UTF-8"),
        (b"a b c\na b c\n", "of its sentences 2 have more than 2 words"),
    ],
)
def test_bad_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "news"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_text(path, longest=2)


def test_text_in_another_encoding_and_no_text(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes("é raso".encode("latin-1"))
    assert load_text(path, encoding="latin-1")[0]["tokens"] == ["é", "raso"]
    with pytest.raises(FileNotFoundError, match=r"absent: No such file.*given by path='FILE' \(student.text.path=FILE"):
        load_text(tmp_path / "absent")


@pytest.mark.parametrize("load", [load_columns, load_conllu])
def test_files_that_do_not_exist(load: Callable[..., Corpus], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.conll").touch()
    with pytest.raises(FileNotFoundError) as caught:
        load("train.txt", dev="dev.txt")
    assert str(caught.value) == (
        f"train.txt: No such file (looked for in {tmp_path}). Did you mean 'train.conll'? The file is given by "
        "train='FILE' (data.train=FILE)."
    )
    with pytest.raises(FileNotFoundError, match=r"The folder 'my' does not exist. The file is given by test='FILE'"):
        load("train.conll", test="my/test.txt")


@pytest.mark.parametrize("given", [{}, {"dev": "dev"}])
def test_splits_without_files_are_drawn_from_train(tmp_path: Path, given: dict[str, str]) -> None:
    lines = [f"word{number} X\nends O\nhere O\n" for number in [*range(38), 3, 3]]
    train, dev = write(tmp_path, train="\n".join(lines), dev="only X\none O\nhere O\n")
    files = {"dev": dev} if given else {}
    corpus = load_columns(train, **files, task="upos")
    tokens = {split: [tuple(words) for words in corpus.splits[split]["tokens"]] for split in corpus.splits}
    sizes = {split: len(found) for split, found in tokens.items()}
    assert sizes["dev"] == (1 if given else sizes["dev"])
    assert sum(sizes.values()) == 40 + bool(given)
    assert len(set(tokens["test"])) == 4
    assert not set(tokens["train"]) & ({*tokens["dev"], *tokens["test"]})
    missing = "test" if given else "dev and test"
    assert f"No file was named for {missing}: " in corpus.notes
    again = load_columns(train, **files, task="upos")
    assert again.fingerprint == corpus.fingerprint
    write(tmp_path, train=lines[0] + "\n" + lines[1])
    with pytest.raises(ValueError, match="too few"):
        load_columns(train, task="upos")


def test_conllu_without_dev_and_test(tmp_path: Path) -> None:
    columns = [("w{0}", "NOUN", 2, "nsubj"), ("go", "VERB", 0, "root"), ("on", "ADV", 2, "advmod")]
    rows = "".join(
        f"{number}\t{word}\t_\t{upos}\t_\t_\t{head}\t{relation}\t_\t_\n"
        for number, (word, upos, head, relation) in enumerate(columns, 1)
    )
    (train,) = write(tmp_path, train="\n".join(rows.format(number) for number in range(20)))
    corpus = load_conllu(train)
    assert [len(corpus.splits[split]) for split in ("train", "dev", "test")] == [16, 2, 2]
    assert "2 sentences for dev and 2 sentences for test were drawn from the 20 of train" in corpus.notes
