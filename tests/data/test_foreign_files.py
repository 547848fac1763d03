"""Files as other tools and corpora write them: they are read, or refused with the option that reads them."""

from __future__ import annotations

import bz2
import lzma
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import structkd.conf
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from structkd.data import (
    Corpus,
    FileScheme,
    TreeAnnotation,
    load_columns,
    load_conllu,
    load_text,
    read_columns,
    read_conllu,
    without_test_sentences,
)
from structkd.data.formats.slips import configured_at, option

WORDS: dict[str, Any] = {"token_column": 0, "tag_column": -1, "delimiter": None, "comment": None}
SPLITS = ("train", "dev", "test")
CONF = Path(structkd.conf.__file__).parent / "data"


def write(folder: Path, text: str, name: str = "file") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def typed(message: str) -> dict[str, Any]:
    """The options that a message offers, as the command line understands them."""
    found = re.findall(r"\('(data\..*?)'\)|\((data\.[^()\s]+)\)", message)
    overrides = [OverridesParser.create().parse_override(shlex.split(f"'{a}'" if a else b)[0]) for a, b in found]
    return {override.key_or_group.removeprefix("data."): override.value() for override in overrides}


def columns(folder: Path, text: str, **options: Any) -> Corpus:
    """A corpus whose splits are one text, with a word that tells them apart."""
    return load_columns(*(write(folder, text.replace("@", split), split) for split in SPLITS), **options)


# Tag schemes and their spellings

SPELLED = {
    "BIO": "B-PER I-PER O B-PER B-LOC",
    "IOB2": "B-PER I-PER O B-PER B-LOC",
    "IOB1": "I-PER I-PER O I-PER I-LOC",
    "BIOES": "B-PER E-PER O S-PER S-LOC",
    "IOBES": "B-PER E-PER O S-PER S-LOC",
    "SBIEO": "B-PER E-PER O S-PER S-LOC",
    "BILOU": "B-PER L-PER O U-PER U-LOC",
    "BILUO": "B-PER L-PER O U-PER U-LOC",
    "BIOLU": "B-PER L-PER O U-PER U-LOC",
    "BMEWO": "B-PER E-PER O W-PER W-LOC",
    "BMEOW": "B-PER E-PER O W-PER W-LOC",
    "BMES": "B-PER E-PER O S-PER S-LOC",
    "BMESO": "B-PER E-PER O S-PER S-LOC",
    "IOE1": "I-PER I-PER O I-PER I-LOC",
    "IOE2": "I-PER E-PER O E-PER E-LOC",
    "IO": "PER PER O PER LOC",
}


@pytest.mark.parametrize("separator", ["-", "_", ":"])
@pytest.mark.parametrize("scheme", SPELLED)
def test_one_sentence_in_the_spelling_of_every_tool(tmp_path: Path, scheme: str, separator: str) -> None:
    tags = SPELLED[scheme].replace("-", separator).split()
    path = write(tmp_path, "".join(f"w{number}\t{tag}\n" for number, tag in enumerate(tags)))
    for name in (scheme, scheme.lower()):
        (sentence,) = read_columns(
            path, ["PER", "LOC"], **WORDS, scheme=name, separator=separator, target_scheme="BIOES"
        )
        assert sentence.tags == ("B-PER", "E-PER", "O", "S-PER", "S-LOC")


def test_a_wrong_encoding_names_the_option(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes("José B-PER\n".encode("latin-1"))
    offered = r"line 1: Not UTF-8 .*to UTF-8, or read it with another encoding, say encoding='latin-1' \("
    with pytest.raises(ValueError, match=offered + r"data\.encoding=latin-1\)\.$"):
        load_columns(path, path, path)
    with pytest.raises(ValueError, match=offered + r"student\.text\.encoding=latin-1\)\.$"):
        load_text(path)
    for read in (read_conllu, lambda file: read_columns(file, None, offers=())):
        with pytest.raises(ValueError, match=r"Convert the file to UTF-8\.$"):
            read(path)


def test_words_outside_told_apart_by_their_neighbors() -> None:
    tags = ["BOS_O", "O_PER", "B_PER", "M_PER", "E_PER", "PER_O", "MM_O", "BB_O_PER", "W_LOC", "O_EOS", "O"]
    read, changed = FileScheme("BMEWO+", "_").read(tags)
    assert (read, changed) == (["O", "O", "B-PER", "I-PER", "E-PER", "O", "O", "O", "S-LOC", "O", "O"], 0)


def test_touching_spans_are_told_apart_at_their_ends() -> None:
    assert FileScheme("IOE1").read(["I-X", "E-X", "I-X", "O", "I-X"])[0] == ["B-X", "I-X", "B-X", "O", "B-X"]
    assert FileScheme("IOE2").read(["I-X", "E-X", "E-X", "O", "E-X"])[0] == ["B-X", "I-X", "B-X", "O", "B-X"]
    assert FileScheme("IOE2").violation(["O", "I-X"]) == (1, "'I-X' cannot stand at the end of the sentence in IOE2")
    assert FileScheme("IOE2").violation(["I-X", "O"]) == (0, "'I-X' cannot stand before 'O' in IOE2")
    assert FileScheme("BILOU").violation(["B-X"]) == (1, "the sentence ends after 'B-X', inside a span of BILOU")


@pytest.mark.parametrize(
    ("tags", "read"),
    [
        ("PER PER O", "B-PER I-PER O"),
        ("I-PER I-LOC O", "B-PER B-LOC O"),
        ("creative-work creative-work PER", "B-creative-work I-creative-work B-PER"),
    ],
)
def test_types_without_prefix(tmp_path: Path, tags: str, read: str) -> None:
    path = write(tmp_path, "".join(f"w {tag}\n" for tag in tags.split()))
    assert read_columns(path, None, **WORDS, scheme="IO", target_scheme="BIO")[0].tags == tuple(read.split())


@pytest.mark.parametrize(
    ("name", "separator", "message"),
    [
        ("IOB", "-", "IOB is either IOB1 or IOB2"),
        ("BILO", "-", "Unknown tag scheme 'BILO'; known: BIO, BIOES, IOB1, IO, IOB2"),
        ("BIO", "", "separator between a tag's prefix and its type is empty"),
    ],
)
def test_unknown_spellings_are_refused(name: str, separator: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FileScheme(name, separator)


def test_a_tag_of_another_scheme_is_not_a_type() -> None:
    assert FileScheme("IO").violation(["B-PER"]) is not None
    assert FileScheme("BIO").violation(["PER-B"]) is not None


# What a message offers can be typed, and it helps

BLANK_BY_TABS = "@\tO\nAna\tB-X\n\tO\n"
HELPED = {
    "underscore separator": ("Ana B_PER\nMaria I_PER\n@ O\n", {}, {"separator": "_"}),
    "BILOU": ("Ana B-PER\nMaria L-PER\nRome U-LOC\n@ O\n", {}, {"file_scheme": "BILOU"}),
    "BILOU with underscores": ("Ana B_PER\nMaria L_PER\n@ O\n", {}, {"file_scheme": "BILOU", "separator": "_"}),
    "IOB1": ("@ O\nAna I-PER\nRui B-PER\n", {}, {"file_scheme": "IOB1", "repair": True}),
    "types alone": ("Ana PESSOA\nMaria PESSOA\n@ O\n", {}, {"file_scheme": "IO"}),
    "an I out of place": ("@ B-PER\nRui O\nAna I-PER\n", {}, {"repair": True}),
    "an E out of place": ("@ O\nAna E-X\nRui S-X\n", {"file_scheme": "BIOES"}, {"repair": True}),
    "a comment": ("# a text here\n@ B-X\n", {}, {"comment": "#"}),
    "a trailing tab": (
        "0\t@\tB-X\n1\tb\tO\t\n",
        {"delimiter": "\t", "token_column": 1, "tag_column": 2},
        {"widths": [3, 4], "delimiter": None},
    ),
    "tabs": ("@\tB-X\na b\tO\n", {}, {"delimiter": "tab"}),
    "blanks": ("@ B-X\nb O\n", {"delimiter": "tab"}, {"delimiter": None}),
    "an empty word": (BLANK_BY_TABS, {"delimiter": "tab"}, {"blank_words": "underscore"}),
    "a repeated id": (
        "# sent_id = 1\n@ B-X\n\n# sent_id = 1\nb O\n",
        {"comment": "#"},
        {"repeated_ids": "number"},
    ),
    "the delimiter's first letter": ("@\tB-X\n", {"delimiter": "t"}, {"delimiter": None}),
    "no delimiter": ("@\tB-X\n", {"delimiter": ""}, {"delimiter": None}),
    "numbers for words": ("1\t@\tB-X\n2\tb\tO\n3\tc\tO\n", {}, {"token_column": 1}),
    "no column of tags": ("@ B-X O\n", {}, {"tag_column": 1}),
    "a column of parts of speech": ("@ NNP I-NP B-X\nsings VBZ B-VP O\n", {"tag_column": 1}, {"tag_column": 3}),
    "commas": ("@,B-X\nb,O\n", {}, {"delimiter": ","}),
    "semicolons": ("@;x;B-X\nb;y;O\n", {}, {"delimiter": ";"}),
    "tabs in lines of two lengths": (
        "1\t@\tB-X\t-\t-\n2\tb\tO\n",
        {"token_column": 1, "tag_column": 2},
        {"widths": [3, 5]},
    ),
    "a tag of its own": ("@ B-X\nb ORG-B\n", {}, {"replace": {"ORG-B": "O"}}),
}


@pytest.mark.parametrize("name", HELPED)
def test_an_option_that_a_message_offers_helps(tmp_path: Path, name: str) -> None:
    text, options, offered = HELPED[name]
    keys = yaml.safe_load((CONF / "columns.yaml").read_text())
    with pytest.raises(ValueError, match=r"data\.") as refused:
        columns(tmp_path, text, **options)
    found = typed(str(refused.value))
    assert offered.items() <= found.items()
    assert found.keys() <= keys.keys(), "every key is in the configuration, so that none needs a plus"
    together = {"file_scheme", "separator"}
    for chosen in [together & found.keys(), *({key} for key in found.keys() - together)]:
        if chosen:
            assert columns(tmp_path, text, **options | {key: found[key] for key in chosen}).splits["dev"]


@pytest.mark.parametrize(
    ("text", "options", "said", "unsaid"),
    [
        ("1\tAna\tAna\tPROPN\t_\t_\t0\troot\t_\t_\n", {}, "looks like CoNLL-U .*data=conllu", "replace|comment"),
        ("# text = Ana\n1-2\tAo\t_\t_\t_\t_\t_\t_\t_\t_\n", {"comment": "#"}, "data=conllu", "replace"),
        ('{"tokens": ["Ana"], "tags": ["O"]}\n', {}, "looks like JSON.*teacher=annotations", "replace|widths"),
        ('["Ana"]\n', {}, "looks like JSON", "widths"),
        ("Ana\nLee\n", {}, "same one of 1", "widths"),
        ("Ana NNP\nsings VBZ\n", {}, r"No tag of the sentence.*\(tag_column\)", "scheme=|replace"),
    ],
)
def test_files_of_other_formats_are_named(
    tmp_path: Path, text: str, options: dict[str, Any], said: str, unsaid: str
) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        columns(tmp_path, text, **options)
    assert not re.search(unsaid, str(refused.value))


def test_two_columns_of_conllu_can_be_read_as_columns(tmp_path: Path) -> None:
    path = write(tmp_path, "1\tAna\tAna\tPROPN\t_\t_\t0\troot\t_\t_\n")
    (sentence,) = read_columns(path, None, token_column=1, tag_column=3, scheme=None)
    assert (sentence.tokens, sentence.tags) == (("Ana",), ("PROPN",))


def test_a_type_that_train_lacks_is_named_with_all_types(tmp_path: Path) -> None:
    paths = [write(tmp_path, f"{split} B-{kind}\n", split) for split, kind in zip(SPLITS, "BAC", strict=True)]
    for known in ("B", "B,A"):
        with pytest.raises(ValueError, match="Unknown label") as refused:
            load_columns(*paths, types=known.split(","))
    assert typed(str(refused.value)) == {"types": ["B", "A", "C"]}
    assert load_columns(*paths, **typed(str(refused.value))).splits["test"]


@pytest.mark.parametrize("delimiter", ["tab", "\t", r"\t", r"\\t"])
def test_a_tab_by_any_name(tmp_path: Path, delimiter: str) -> None:
    assert columns(tmp_path, "@ b\tB-X\n", delimiter=delimiter).splits["dev"]["tokens"][0] == ["dev b"]


def test_options_are_those_of_the_node_that_is_loaded() -> None:
    assert option("repair", True) == "repair=True (data.repair=true)"
    with configured_at("data.source"):
        assert option("repair", True) == "repair=True (data.source.repair=true)"
        assert option("blank_words", "skip", node="student.text").endswith("(data.source.blank_words=skip)")


def test_loaders_with_a_fixed_inventory_offer_only_what_they_have(tmp_path: Path) -> None:
    path = write(tmp_path, "1\ta\tB-GPE\n")
    with pytest.raises(ValueError, match=r"Unknown label 'B-GPE'; the inventory is O B-PER I-PER\.$"):
        read_columns(path, ["PER"], offers=("repair",))


# Words and comments


def test_words_are_split_by_one_rule(tmp_path: Path) -> None:
    words = ["il", "10\u00a0000", "a\u0085b", "c\u2028d", "e\u3000f", "test"]
    table = "".join(f"{word} O\n" for word in words)
    corpus = columns(tmp_path, f"@ B-X\n\n{table}@ O\n")
    tree = [f"{n}\t{w}\t_\tX\t_\t_\t{n - 1}\tdep\t_\t_\n" for n, w in enumerate(words, 1)]
    text = load_text(write(tmp_path, f"{' '.join(words)} test\nnews of today\n", "news"))
    assert text["tokens"][0] == [*words, "test"] == list(corpus.splits["test"]["tokens"])[1]
    assert read_conllu(write(tmp_path, "".join(tree), "trees"))[0].tokens == tuple(words)
    kept, dropped = without_test_sentences(text, corpus.splits["test"])
    assert (list(kept["tokens"]), dropped) == ([["news", "of", "today"]], 1)


HASHTAGS = [
    ("#nowplaying\tO\nAdele\tB-X\n\n#fb\tO\n\nhi\tO\n", {"delimiter": "\t"}),
    ("# text = a hashtag\n#nowplaying\tO\nAdele\tB-X\n\n# note\n#fb\tO\n\nhi\tO\n", {"delimiter": "\t"}),
    ("#nowplaying O\nAdele B-X\n\n#fb O\n\nhi O\n", {"delimiter": None}),
    ("#nowplaying O\nAdele B-X\n\n# a text\n# sent_id = a\n#fb O\n\nhi O\n", {"delimiter": None}),
    ("#nowplaying NN\nAdele NP\n\n#fb NN\n\nhi UH\n", {"delimiter": None, "scheme": None}),
]


@pytest.mark.parametrize(("text", "options"), HASHTAGS)
def test_a_row_of_a_word_is_not_a_comment(tmp_path: Path, text: str, options: dict[str, Any]) -> None:
    sentences = read_columns(write(tmp_path, text), None, token_column=0, tag_column=1, **options)
    assert [sentence.tokens for sentence in sentences] == [("#nowplaying", "Adele"), ("#fb",), ("hi",)]


@pytest.mark.parametrize("delimiter", ["\t", " ", None])
def test_the_word_that_is_the_mark_of_comments_is_kept(tmp_path: Path, delimiter: str | None) -> None:
    text = "a\tB-X\n\n# sent_id = s\n#\tO\n1\tO\n".replace("\t", delimiter or " ")
    sentences = read_columns(write(tmp_path, text), None, token_column=0, tag_column=-1, delimiter=delimiter)
    assert [(sentence.id, sentence.tokens) for sentence in sentences] == [("1", ("a",)), ("s", ("#", "1"))]


def test_a_hashtag_with_a_bad_tag_is_refused_not_dropped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="line 3: 'X-PER' is not a tag of BIO"):
        read_columns(write(tmp_path, "a\tB-X\n\n#fb\tX-PER\n"), None, token_column=0, tag_column=1)


@pytest.mark.parametrize("blank", ["", " ", "\u00a0", "\u3000"])
def test_blank_words_are_skipped_or_replaced_and_counted(tmp_path: Path, blank: str) -> None:
    table = f"@\tO\nAna\tB-X\n{blank}\tO\n\n@\tB-X\n"
    tree = f"1\t@\t_\tX\t_\t_\t0\troot\t_\t_\n2\t{blank}\t_\tX\t_\t_\t1\tdep\t_\t_\n\n1\t@\t_\tX\t_\t_\t0\troot\t_\t_\n"
    trees = [write(tmp_path, tree.replace("@", split), f"{split}.conllu") for split in SPLITS]
    for load in (
        lambda **options: columns(tmp_path, table, delimiter="tab", **options),
        lambda **options: load_conllu(*trees, **options),
    ):
        with pytest.raises(ValueError, match=r"line \d: The word is empty or blank .*blank_words='skip'"):
            load()
        skipped = load(blank_words="skip")
        assert list(skipped.splits["dev"]["tokens"]) == [["dev"]]
        assert "blank word were left out: 1 of train, 1 of dev, 1 of test." in skipped.notes
        replaced = load(blank_words="underscore")
        assert replaced.splits["dev"]["tokens"][0][-1] == "_"
        assert "read as an underscore: 1 of train, 1 of dev, 1 of test." in replaced.notes
        with pytest.raises(ValueError, match="blank_words='drop': expected one of refuse, skip, underscore"):
            load(blank_words="drop")


def test_blank_words_of_plain_text(tmp_path: Path) -> None:
    path = write(tmp_path, "a \u00a0 b\n\u00a0\nc d\n")
    with pytest.raises(ValueError, match=r"line 1: The word is empty or blank .*\(student\.text\.blank_words=skip\)"):
        load_text(path)
    assert list(load_text(path, blank_words="skip")["tokens"]) == [["c", "d"]]
    assert load_text(path, blank_words="underscore")["tokens"][0] == ["a", "_", "b"]


# Sentence ids


def test_ids_that_restart_in_every_document(tmp_path: Path) -> None:
    def block(document: str, sentence: str = "1") -> str:
        return f"# newdoc id = {document}\n# sent_id = {sentence}\n1\t{document}\t_\tX\t_\t_\t0\troot\t_\t_\n\n"

    changes: Counter[str] = Counter()
    path = write(tmp_path, block("A") + block("B") + block("C", "2"))
    assert [sentence.id for sentence in read_conllu(path, changes=changes)] == ["1", "B/1", "2"]
    assert changes["renamed"] == 1
    path = write(tmp_path, block("A") * 3)
    with pytest.raises(ValueError, match=r"line 11: Sentence id '1' occurs before, at line 3.*repeated_ids='number'"):
        read_conllu(path)
    numbered = read_conllu(path, repeated_ids="number")
    assert len({sentence.id for sentence in numbered}) == 3
    tagged = "# newdoc id = A\n# sent_id = 1\na O\n\n# newdoc id = B\n# sent_id = 1\nb O\n"
    assert [s.id for s in read_columns(write(tmp_path, tagged), None, **WORDS | {"comment": "#"})] == ["1", "B/1"]


# Documents and packed files


def test_a_document_mark_without_a_blank_line(tmp_path: Path) -> None:
    text = "-DOCSTART- (1 EU) O\nEU B-X\n\n-DOCSTART- O\n\nhe O\n"
    assert [s.tokens for s in read_columns(write(tmp_path, text), None, **WORDS)] == [("EU",), ("he",)]


@pytest.mark.parametrize(("pack", "name"), [(bz2.compress, "bzip2"), (lzma.compress, "xz")])
def test_packed_files_are_read(tmp_path: Path, pack: Any, name: str) -> None:
    path = tmp_path / "file"
    content = pack("".join(f"w{number} O\n" for number in range(20000)).encode())
    path.write_bytes(content)
    assert len(read_columns(path, None, **WORDS)[0].tokens) == 20000
    for damaged in (content[: len(content) // 2], content[:-30] + bytes(30)):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"file, line \d+: The {name} data are damaged or cut off"):
            read_columns(path, None, **WORDS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04rest", "file: The file is a zip archive; unpack it first .`unzip`"),
        (b"\x28\xb5\x2f\xfdrest", "file: The file is compressed by zstd; decompress it first .`zstd -d`"),
        ("a O\n".encode("utf-16"), "file: The file is UTF-16; convert it first .`iconv -f UTF-16 -t UTF-8`"),
        (b"a O\rb O\r", "line 1: A carriage return stands inside the line.*old Macs"),
    ],
)
def test_what_is_no_text_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_columns(path, None, **WORDS)


# Treebanks


def arc(number: int, form: str, head: int, relation: str, upos: str = "_") -> str:
    return f"{number}\t{form}\t_\t{upos}\t_\t_\t{head}\t{relation}\t_\t_\n"


def treebank(folder: Path, text: str, **changes: str) -> list[Path]:
    return [write(folder, changes.get(split, text).replace("@", split), f"{split}.conllu") for split in SPLITS]


def test_conll_x_with_tags_of_the_penn_treebank(tmp_path: Path) -> None:
    paths = treebank(tmp_path, arc(1, "In", 2, "prep", "IN") + arc(2, "@", 0, "root", "NNP"))
    corpus = load_conllu(*paths, relations=None)
    assert corpus.annotation == TreeAnnotation(("prep", "root"))
    assert corpus.splits["dev"]["upos"][0] == ["IN", "NNP"]
    with pytest.raises(
        ValueError, match=r"train\.conllu, line 1: Unknown relation 'prep'.*\(data\.relations=null\)"
    ) as e:
        load_conllu(*paths)
    assert typed(str(e.value)) == {"relations": None, "replace": {"prep": "dep"}}
    assert load_conllu(*paths, replace={"prep": "case"}).splits["dev"]
    for task in ("upos", "spans"):
        with pytest.raises(ValueError, match=r"line 1: Unknown part of speech 'IN'.*task=dependencies"):
            load_conllu(*paths, task=task)


def test_conllu_without_parts_of_speech(tmp_path: Path) -> None:
    corpus = load_conllu(*treebank(tmp_path, arc(1, "@", 0, "root")))
    assert "upos" not in corpus.splits["train"].column_names
    assert "Not every word has a part of speech, so there is no column upos." in corpus.notes


def test_subtypes_work_alone(tmp_path: Path) -> None:
    text = arc(1, "@", 2, "nsubj:pass", "NOUN") + arc(2, "ran", 0, "root", "VERB")
    rare = arc(1, "@", 2, "nummod:det", "NOUN") + arc(2, "ran", 0, "root", "VERB")
    corpus = load_conllu(*treebank(tmp_path, text, dev=rare), subtypes=True)
    assert corpus.annotation == TreeAnnotation(("nsubj:pass", "nummod:det", "root"))
    assert "Relations of dev that train lacks: nummod:det (1)." in corpus.notes
    paths = treebank(tmp_path, text, test=arc(1, "@", 0, "odd"))
    with pytest.raises(ValueError, match=r"test\.conllu, line 1: Unknown relation 'odd'"):
        load_conllu(*paths, subtypes=True)
    corpus = load_conllu(*paths, relations=None)
    assert corpus.annotation == TreeAnnotation(("nsubj", "odd", "root"))
    assert "Relations of test that train lacks: odd (1)." in corpus.notes
    with pytest.raises(ValueError, match="relations='all': Expected universal, a list of relations, or null"):
        load_conllu(*paths, relations="all")


def test_several_roots_name_the_option(tmp_path: Path) -> None:
    paths = treebank(tmp_path, arc(1, "@", 0, "root") + arc(2, "b", 0, "root"))
    with pytest.raises(ValueError, match=r"it has 2 roots, words 1, 2, where one is allowed\. .*multiroot=True") as e:
        load_conllu(*paths)
    corpus = load_conllu(*paths, **typed(str(e.value)))
    assert corpus.annotation == TreeAnnotation(corpus.annotation.relations, multiroot=True)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "# global.columns = ID FORM HEAD\n1\ta\t0\n",
            "line 1: The file is CoNLL-U Plus, with the columns ID FORM HEAD",
        ),
        (
            "# global.columns = ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC SRL\n",
            "CoNLL-U Plus.*keep them with `cut -f1-10`",
        ),
        (arc(1, "a", 0, "root")[:-1] + "\t\n", "line 1: 11 tab-separated .*The line ends with a tab: remove it"),
        (arc(1, "a", 0, "root").replace("\t", " "), "line 1: 1 tab-separated.*Blanks separate the columns"),
        (arc(1, "a", 0, "root") + "# c\n", "line 2: 1 tab-separated .*A comment may stand only before"),
        (arc(1, "a", 0, "root") * 2, "line 2: Word number '1' where 2 was expected. A blank line may be missing"),
        (arc(1, "a", 0, "root").replace("\t0\t", f"\t{'9' * 5000}\t"), "line 1: Head '9{20}' where 0 "),
        ("".join(arc(n, "a", 0, "root") for n in range(1, 99)), "98 roots, words 1, 2, 3, 4, 5, 6, 7, 8 and 90 more"),
    ],
)
def test_what_is_no_conllu_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_conllu(write(tmp_path, text))


def test_conllu_plus_with_the_columns_of_conllu_is_conllu(tmp_path: Path) -> None:
    text = "# global.columns = ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC\n" + arc(1, "a", 0, "root")
    assert len(read_conllu(write(tmp_path, text))) == 1
