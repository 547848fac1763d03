"""Tag schemes: what a sequence means, what is illegal, and that writing and reading are inverse."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structkd.data import (
    Span,
    convert_tags,
    find_violation,
    legal_transitions,
    repair_tags,
    spans,
    tag_inventory,
    tag_spans,
    validate_tags,
)

TYPES = ["NP", "VP"]
SCHEMES = ["BIO", "BIOES", "IOB1"]


@st.composite
def segmentations(draw: st.DrawFn) -> tuple[list[Span], int]:
    """Flat typed spans and the length of their sentence."""
    pieces = draw(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([None, *TYPES])), max_size=8))
    found, position = [], 0
    for length, span_type in pieces:
        if span_type:
            found.append(Span(position, position + length - 1, span_type))
        position += length
    return found, position


@given(segmentations(), st.sampled_from(SCHEMES))
def test_spans_survive_writing_and_reading(segmentation: tuple[list[Span], int], scheme: str) -> None:
    expected, length = segmentation
    tags = tag_spans(reversed(expected), length, scheme)
    assert len(tags) == length
    assert spans(tags, scheme) == expected


@given(segmentations())
def test_conversion_goes_there_and_back(segmentation: tuple[list[Span], int]) -> None:
    for one, other in itertools.permutations(SCHEMES, 2):
        tags = tag_spans(*segmentation, one)
        assert convert_tags(convert_tags(tags, one, other), other, one) == tags


@pytest.mark.parametrize(
    ("scheme", "tags"),
    [
        ("BIO", "B-NP B-NP I-NP O B-VP"),
        ("BIOES", "S-NP B-NP E-NP O S-VP"),
        ("IOB1", "I-NP B-NP I-NP O I-VP"),
    ],
)
def test_one_segmentation_in_every_scheme(scheme: str, tags: str) -> None:
    expected = [Span(0, 0, "NP"), Span(1, 2, "NP"), Span(4, 4, "VP")]
    assert spans(tags.split(), scheme) == expected
    assert tag_spans(expected, 5, scheme) == tags.split()


def test_iob1_begins_a_span_where_the_type_changes() -> None:
    assert spans(["I-NP", "I-VP", "I-VP"], "IOB1") == [Span(0, 0, "NP"), Span(1, 2, "VP")]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sequence_is_legal_exactly_if_some_segmentation_is_written_so(scheme: str) -> None:
    labels = tag_inventory(TYPES, "BIO" if scheme == "IOB1" else scheme)
    for length in (1, 2, 3):
        pieces = [Span(i, j, t) for i in range(length) for j in range(i, length) for t in TYPES]
        written = set()
        for count in range(length + 1):
            for chosen in itertools.combinations(pieces, count):
                if all(a.end < b.start or b.end < a.start for a, b in itertools.combinations(chosen, 2)):
                    written.add(tuple(tag_spans(chosen, length, scheme)))
        legal = {tags for tags in itertools.product(labels, repeat=length) if find_violation(tags, scheme) is None}
        assert legal == written


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_transition_mask_agrees_with_validation(scheme: str) -> None:
    labels = tag_inventory(TYPES, scheme)
    start, transition, end = legal_transitions(labels)
    for tags in itertools.product(range(len(labels)), repeat=3):
        masked = bool(start[tags[0]] & end[tags[-1]]) and all(transition[j, i] for i, j in itertools.pairwise(tags))
        assert masked == (find_violation([labels[tag] for tag in tags], scheme) is None)


def test_transition_mask_is_next_by_previous() -> None:
    start, transition, end = legal_transitions(["O", "B-X", "I-X"])
    assert start.tolist() == [True, True, False]
    assert transition[2].tolist() == [False, True, True]
    assert end.all()


@pytest.mark.parametrize(
    ("scheme", "tags", "position", "reason"),
    [
        ("BIO", "O I-NP", 1, "'I-NP' cannot stand after 'O'"),
        ("BIO", "I-NP", 0, "at the start of the sentence"),
        ("BIO", "B-NP I-VP", 1, "'I-VP' cannot stand after 'B-NP'"),
        ("BIO", "O S-NP", 1, "not a tag of BIO"),
        ("BIO", "B-", 0, "not a tag of BIO"),
        ("BIO", "BI-NP", 0, "not a tag of BIO"),
        ("BIO", "-NP", 0, "not a tag of BIO"),
        ("BIOES", "B-NP O", 1, "'O' cannot stand after 'B-NP'"),
        ("BIOES", "O B-NP I-NP", 3, "the sentence ends after 'I-NP'"),
        ("IOB1", "O B-NP", 1, "'B-NP' cannot stand after 'O'"),
    ],
)
def test_illegal_sequences_name_the_word(scheme: str, tags: str, position: int, reason: str) -> None:
    found = find_violation(tags.split(), scheme)
    assert found is not None
    assert found[0] == position
    assert reason in found[1]
    with pytest.raises(ValueError, match=f"word {position}"):
        validate_tags(tags.split(), scheme)


def test_inventory_is_in_the_order_of_the_types() -> None:
    assert tag_inventory(["VP", "NP"], "BIO") == ["O", "B-VP", "I-VP", "B-NP", "I-NP"]
    assert tag_inventory(["NP"], "BIOES") == ["O", "B-NP", "I-NP", "E-NP", "S-NP"]


@pytest.mark.parametrize("types", [[], ["NP", "NP"], [""], ["N P"]])
def test_inventory_refuses_bad_types(types: list[str]) -> None:
    with pytest.raises(ValueError, match="Types must be distinct"):
        tag_inventory(types)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([(0, 1, "NP"), (1, 2, "VP")], "overlaps"),
        ([(0, 3, "NP")], "sentence of 3 words"),
        ([(-1, 0, "NP")], "sentence of 3 words"),
        ([(2, 1, "NP")], "sentence of 3 words"),
    ],
)
def test_spans_that_are_not_flat_are_refused(found: list[tuple[int, int, str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tag_spans(found, 3, "BIO")


@pytest.mark.parametrize(
    ("tags", "expected", "count"),
    [
        ("I-NP I-NP O I-VP", "B-NP I-NP O B-VP", 2),
        ("B-NP I-VP I-VP I-NP", "B-NP B-VP I-VP B-NP", 2),
        ("B-NP I-NP O", "B-NP I-NP O", 0),
    ],
)
def test_an_i_that_continues_nothing_becomes_b(tags: str, expected: str, count: int) -> None:
    assert repair_tags(tags.split()) == (expected.split(), count)


@given(st.lists(st.sampled_from(tag_inventory(TYPES, "BIO")), max_size=8))
def test_repaired_tags_are_legal_and_legal_ones_stay(tags: list[str]) -> None:
    repaired, count = repair_tags(tags)
    assert find_violation(repaired, "BIO") is None
    assert (count == 0) == (find_violation(tags, "BIO") is None)
    assert [tag[2:] for tag in repaired] == [tag[2:] for tag in tags]


def test_unknown_and_unwritable_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match="Unknown tag scheme 'BILOU'; known: BIO, BIOES, IOB1"):
        spans(["O"], "BILOU")
    with pytest.raises(ValueError, match="IOB1 is a scheme of files only"):
        tag_inventory(["NP"], "IOB1")


@pytest.mark.parametrize("labels", [["NOUN", "VERB"], [], ["O", "O"]])
def test_labels_without_transitions_are_refused(labels: list[str]) -> None:
    with pytest.raises(ValueError, match=r"[Ll]abel"):
        legal_transitions(labels)
