"""CoNLL-U and column files: what is read, and that every malformed file is refused by file and line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from structkd.data import read_columns, read_conllu
from structkd.data.annotation import tree_fault

TREEBANK = """\
# newdoc id = first
# sent_id = s1
# text = Vou à praia
1\tVou\tir\tVERB\t_\t_\t0\troot\t_\t_
2-3\tà\t_\t_\t_\t_\t_\t_\t_\t_
2\ta\ta\tADP\t_\t_\t4\tcase\t_\t_
3\ta\to\tDET\t_\t_\t4\tdet\t_\t_
3.1\tgone\t_\t_\t_\t_\t_\t_\t_\t_
4\tpraia\tpraia\tNOUN\t_\t_\t1\tobl:arg\t_\t_

# sent_id = s2
1\t#\t#\tSYM\t_\t_\t0\troot\t_\t_
"""

TAGGED = """\
# sent_id = s1
1\tAna\tB-PER\t-\tx
2\tLima\tI-PER\t-\tx
3\tspoke\tO\t-\t-

# sent_id = s2
1\tParis\tB-LOC\t-\tx
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "file"
    path.write_text(text, encoding="utf-8")
    return path


def row(number: int, head: str, *, form: str = "w", upos: str = "X", relation: str = "dep") -> str:
    return f"{number}\t{form}\t_\t{upos}\t_\t_\t{head}\t{relation}\t_\t_\n"


@pytest.mark.parametrize("packed", [False, True])
def test_conllu_reads_syntactic_words(tmp_path: Path, packed: bool) -> None:
    path = write(tmp_path, TREEBANK)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    first, second = read_conllu(path)
    assert (first.id, first.document, first.line) == ("s1", "first", 4)
    assert first.tokens == ("Vou", "a", "a", "praia")
    assert first.upos == ("VERB", "ADP", "DET", "NOUN")
    assert first.heads == (0, 4, 4, 1)
    assert first.relations == ("root", "case", "det", "obl:arg")
    assert (second.id, second.document, second.tokens) == ("s2", "first", ("#",))


def test_conllu_takes_windows_lines_a_byte_order_mark_and_no_ids(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbf" + (row(1, "0") + "\n\n" + row(1, "0")).replace("\n", "\r\n").encode())
    assert [sentence.id for sentence in read_conllu(path)] == ["1", "2"]


def test_conllu_without_heads(tmp_path: Path) -> None:
    path = write(tmp_path, row(1, "_", relation="_"))
    with pytest.raises(ValueError, match=r"file, line 1: The word has no head.*heads=False"):
        read_conllu(path)
    (sentence,) = read_conllu(path, heads=False)
    assert sentence.heads is None
    assert sentence.relations is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 w _ X _ _ 0 root _ _\n", "line 1: 1 tab-separated columns where CoNLL-U has 10"),
        (row(1, "0") + row(2, "1")[:-5] + "\n", "line 2: 8 tab-separated columns"),
        (row(2, "0"), "line 1: Word number '2' where 1 was expected"),
        (row(1, "0") + row(3, "1"), "line 2: Word number '3' where 2 was expected"),
        (row(1, "0", form=" "), "line 1: The word is empty or blank"),
        (row(1, "2"), r"line 1: Head '2' where 0 \(root\) to 1 was expected"),
        (row(1, "-1"), "line 1: Head '-1'"),
        (row(1, "²"), "line 1: Head '²'"),
        (row(1, "x"), "line 1: Head 'x'"),
        (row(1, "0") + row(2, "2"), "line 2: Word 2 is its own head"),
        (
            "# sent_id = a\n" + row(1, "0") + row(2, "3") + row(3, "4") + row(4, "2"),
            "line 2: Sentence 'a' is not a tree: words 2 -> 3 -> 4 -> 2 are a cycle",
        ),
        (row(1, "2") + row(2, "1"), "line 1: Sentence '1' is not a tree: it has no root"),
        (row(1, "0") + row(2, "0"), "line 1: Sentence '1' is not a tree: it has 2 roots, words 1, 2"),
        (f"# sent_id = a\n{row(1, '0')}\n# sent_id = a\n{row(1, '0')}", "line 5: Sentence id 'a' .* at line 2"),
        ("", "The file is empty"),
        ("# only a comment\n", "The file holds no sentence"),
    ],
)
def test_malformed_conllu_is_refused_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path / 'file'}.*{message}"):
        read_conllu(write(tmp_path, text))


def test_universal_parts_of_speech_are_checked_where_they_are_needed(tmp_path: Path) -> None:
    path = write(tmp_path, row(1, "0", upos="NN"))
    assert read_conllu(path)[0].upos == ("NN",)
    with pytest.raises(
        ValueError, match=r"file, line 1: Unknown part of speech 'NN'; known: ADJ ADP.*data=columns task=upos"
    ):
        read_conllu(path, upos=True)


def test_several_roots_where_they_are_allowed(tmp_path: Path) -> None:
    (sentence,) = read_conllu(write(tmp_path, row(1, "0") + row(2, "0")), multiroot=True)
    assert sentence.heads == (0, 0)
    assert tree_fault([0, 3, 2], multiroot=True) == "words 2 -> 3 -> 2 are a cycle"


def test_columns_are_read_and_converted(tmp_path: Path) -> None:
    first, second = read_columns(write(tmp_path, TAGGED), ["PER", "LOC"], target_scheme="BIOES")
    assert (first.id, first.tokens, first.tags) == ("s1", ("Ana", "Lima", "spoke"), ("B-PER", "E-PER", "O"))
    assert (second.id, second.tags, second.line) == ("s2", ("S-LOC",), 7)


def test_columns_separated_by_blanks_in_another_order(tmp_path: Path) -> None:
    path = write(tmp_path, "# NN I-NP\nx  NN B-NP\n\n\ny VB O\n")
    first, second = read_columns(
        path, ["NP"], token_column=0, tag_column=-1, delimiter=None, comment=None, scheme="IOB1", target_scheme="BIO"
    )
    assert (first.tokens, first.tags) == (("#", "x"), ("B-NP", "B-NP"))
    assert (second.id, second.tokens) == ("2", ("y",))


def test_columns_replace_tags_and_count_them(tmp_path: Path) -> None:
    path = write(tmp_path, "1\ta\tB-OTH\n2\tb\tI-OTH\n3\tc\tB-PER\n")
    (sentence,) = read_columns(path, ["PER"], replace={"B-OTH": "O", "I-OTH": "O"})
    assert (sentence.tags, sentence.replaced) == (("O", "O", "B-PER"), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TAGGED.replace("B-LOC", "B-GPE"), "line 7: Unknown label 'B-GPE'; the inventory is O B-PER I-PER B-LOC I-LOC"),
        (TAGGED.replace("B-PER", "O"), "line 3: 'I-PER' cannot stand after 'O'.*really BIO"),
        (TAGGED.replace("\t-\tx", "\t-", 1), "line 3: 5 columns where 4 were expected"),
        (TAGGED.replace("\t", " "), "line 2: No column 1"),
        (TAGGED.replace("Ana", " "), "line 2: The word is empty"),
        (TAGGED.replace("s2", "s1"), "line 7: Sentence id 's1' occurs before, at line 2"),
        ("", "The file is empty"),
        ("\n\n", "The file holds no sentence"),
    ],
)
def test_malformed_columns_are_refused_by_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path / 'file'}.*{message}"):
        read_columns(write(tmp_path, text), ["PER", "LOC"])


def test_a_span_that_the_sentence_cuts_off_is_refused_at_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 1: the sentence ends after 'B-X'"):
        read_columns(write(tmp_path, "1\ta\tB-X\n\n1\tb\tO\n"), ["X"], scheme="BIOES")


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_cut_off_gzip_is_refused(tmp_path: Path, keep: float) -> None:
    content = gzip.compress("".join(f"# sent_id = {i}\n{row(1, '0')}\n" for i in range(2000)).encode())
    path = tmp_path / "file"
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match=r"file, line \d+: The gzip data are damaged or cut off"):
        read_conllu(path)


def test_damaged_gzip_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(TREEBANK.encode()))
    content[-8] ^= 255  # in the checksum: the text itself is well formed
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file, line \d+: The gzip data are damaged"):
        read_conllu(path)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent: No such file"):
        read_conllu(tmp_path / "absent")
    with pytest.raises(ValueError, match="cannot be read"):
        read_conllu(tmp_path)
    path = tmp_path / "file"
    path.write_bytes(row(1, "0").encode() + b"\xe9\n")
    with pytest.raises(ValueError, match="line 2: Not UTF-8"):
        read_conllu(path)
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match="The file is empty"):
        read_conllu(path)
