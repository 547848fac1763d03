"""Head encodings: symbols of known sentences, exact inverses on made and on real trees, what symbols name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structkd.data import DependencySentence, cached_package_file, read_conllu
from structkd.data.corpora.petrogold import PETROGOLD
from structkd.models.head_encodings import (
    ROOT,
    AbsolutePosition,
    HeadEncoding,
    RelativeOffset,
    RelativePoS,
    head_encoding,
    register_head_encoding,
)
from structkd.numbering import NOWHERE

ENCODINGS: list[HeadEncoding] = [RelativeOffset(), RelativePoS(), AbsolutePosition()]
every_encoding = pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda encoding: encoding.name)
TAGS = ("NOUN", "VERB", "DET")


@st.composite
def sentences(draw: st.DrawFn) -> tuple[list[int], list[str]]:
    """A tree, crossing arcs as likely as not, and parts of speech."""
    length = draw(st.integers(1, 12))
    order = draw(st.permutations(range(1, length + 1)))
    heads = [0] * length
    for place, word in enumerate(order[1:], 1):
        heads[word - 1] = order[draw(st.integers(0, place - 1))]
    return heads, draw(st.lists(st.sampled_from(TAGS), min_size=length, max_size=length))


def test_known_symbols() -> None:
    """ "A hearing is scheduled on the issue today", where "on the issue" belongs to "hearing" and crosses the root."""
    heads = [2, 4, 4, 0, 7, 7, 2, 4]
    upos = ["DET", "NOUN", "AUX", "VERB", "ADP", "DET", "NOUN", "NOUN"]
    assert RelativeOffset().encode(heads) == ["+1", "+2", "+1", "root", "+2", "+1", "-5", "-4"]
    assert RelativePoS().encode(heads, upos) == [
        *("+1@NOUN", "+1@VERB", "+1@VERB", "root", "+1@NOUN", "+1@NOUN", "-1@NOUN", "-1@VERB")
    ]
    assert AbsolutePosition().encode(heads) == ["2", "4", "4", "root", "7", "7", "2", "4"]


@every_encoding
@given(sentence=sentences())
@settings(max_examples=100)
def test_decoding_inverts_encoding(encoding: HeadEncoding, sentence: tuple[list[int], list[str]]) -> None:
    heads, upos = sentence
    assert encoding.decode(encoding.encode(heads, upos), upos) == heads


@every_encoding
@given(sentence=sentences(), other=sentences())
@settings(max_examples=50)
def test_candidates_are_the_inverse_of_symbols(
    encoding: HeadEncoding, sentence: tuple[list[int], list[str]], other: tuple[list[int], list[str]]
) -> None:
    """A symbol names the one head whose symbol it is, at every word; -1 where it is no head's."""
    (heads, upos), length = sentence, len(sentence[0])
    tags = upos if encoding.reads_upos else ()
    inventory = sorted({*encoding.encode(heads, upos), *encoding.encode(*other), ROOT})
    candidates = encoding.candidates(inventory, length, upos)
    for word in range(length):
        of_head = {encoding.symbol(word, head, tags): head for head in range(length) if head != word}
        assert len(of_head) == length - 1
        of_head[ROOT] = word
        assert candidates[word].tolist() == [of_head.get(symbol, NOWHERE) for symbol in inventory]


@every_encoding
def test_an_empty_inventory_and_an_empty_sentence(encoding: HeadEncoding) -> None:
    assert encoding.candidates([], 2, ["NOUN", "VERB"]).shape == (2, 0)
    assert encoding.encode([], []) == []
    assert encoding.decode([], []) == []


def test_symbols_that_name_no_word() -> None:
    assert RelativeOffset().decode(["-1", "+1", "+1"]) == [NOWHERE, 3, NOWHERE]
    assert RelativePoS().decode(["+2@NOUN", "+1@VERB", "-1@NOUN"], ["DET", "NOUN", "NOUN"]) == [3, NOWHERE, 2]
    assert AbsolutePosition().decode(["1", "9", "1"]) == [NOWHERE, NOWHERE, 1]


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"head of word 2 is 3: expected another word of 1\.\.2, or 0"):
        RelativeOffset().encode([0, 3])
    with pytest.raises(ValueError, match="head of word 2 is 2"):
        RelativeOffset().encode([0, 2])
    with pytest.raises(ValueError, match="reads parts of speech"):
        RelativePoS().encode([0, 1])
    with pytest.raises(ValueError, match="one part of speech for each of 2 words, got 1"):
        RelativePoS().encode([0, 1], ["NOUN"])
    for encoding, symbol in ((RelativeOffset(), "0"), (RelativePoS(), "+1"), (RelativePoS(), "x@NOUN")):
        with pytest.raises(ValueError, match="is not a symbol of the head encoding"):
            encoding.decode([symbol], ["NOUN"])
    with pytest.raises(ValueError, match="Unknown head encoding 'bracketing': expected one of relative_offset, "):
        head_encoding("bracketing")


def test_an_encoding_of_ones_own_is_known_by_its_name() -> None:
    class FromTheEnd(AbsolutePosition):
        name = "test_from_the_end"

    assert register_head_encoding(FromTheEnd) is FromTheEnd
    assert isinstance(head_encoding("test_from_the_end"), FromTheEnd)


def read_ewt() -> list[DependencySentence]:
    root = os.environ.get("STRUCTKD_DATA")
    if root is None:
        pytest.skip("STRUCTKD_DATA names no folder")
    files = sorted((Path(root) / "ud_ewt").glob("*.conllu*"))
    if not files:
        pytest.skip(f"{root} has no ud_ewt")
    return [sentence for file in files for sentence in read_conllu(file)]


def read_petrogold() -> list[DependencySentence]:
    try:
        return read_conllu(cached_package_file(PETROGOLD))
    except FileNotFoundError as error:
        pytest.skip(str(error))


def crossing(heads: Sequence[int]) -> bool:
    arcs = [tuple(sorted(arc)) for arc in enumerate(heads, 1)]
    return any(a < c < b < d for a, b in arcs for c, d in arcs)


@pytest.mark.corpus
@pytest.mark.parametrize(("read", "count"), [(read_petrogold, 9127), (read_ewt, 16622)], ids=["petrogold", "ewt"])
def test_every_tree_of_a_treebank_comes_back(read: object, count: int) -> None:
    treebank = read()  # type: ignore[operator]
    assert len(treebank) == count
    assert any(crossing(sentence.heads) for sentence in treebank[:500])
    # All that cross, and every fourth of the others.
    treebank = [sentence for row, sentence in enumerate(treebank) if row % 4 == 0 or crossing(sentence.heads)]
    for encoding in ENCODINGS:
        lost = sum(
            encoding.decode(encoding.encode(sentence.heads, sentence.upos), sentence.upos) != list(sentence.heads)
            for sentence in treebank
        )
        assert lost == 0, f"{encoding.name}: {lost} of {count}"
