"""The rule for base phrases: example by example, and on arbitrary trees."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structkd.data import BASE_PHRASE_TYPES, UPOS, base_phrases, spans, tag_spans

RELATIONS = [
    *("amod", "det", "nummod", "clf", "nmod", "nmod:poss", "fixed", "flat:name", "compound", "goeswith", "advmod"),
    *("aux", "aux:pass", "cop", "case", "mark", "cc", "punct", "conj", "nsubj", "obj", "xcomp", "advcl", "dep"),
]

EXAMPLES = {
    # word/UPOS/head/relation ...
    "[NP the very old houses] [PP of] [NP Rome]": (
        "the/DET/4/det very/ADV/3/advmod old/ADJ/4/amod houses/NOUN/0/root of/ADP/6/case Rome/PROPN/4/nmod"
    ),
    "[NP águas rasas e profundas] .": (
        "águas/NOUN/0/root rasas/ADJ/1/amod e/CCONJ/4/cc profundas/ADJ/2/conj ./PUNCT/1/punct"
    ),
    "[NP águas] e [NP areias] ,": "águas/NOUN/0/root e/CCONJ/3/cc areias/NOUN/1/conj ,/PUNCT/1/punct",
    "[NP it] [VP has not been widely used]": (
        "it/PRON/6/nsubj has/AUX/6/aux not/PART/6/advmod been/AUX/6/aux:pass widely/ADV/6/advmod used/VERB/0/root"
    ),
    "[ADVP now] [NP it] [VP runs] [ADVP fast]": ("now/ADV/3/advmod it/PRON/3/nsubj runs/VERB/0/root fast/ADV/3/advmod"),
    "[VP has] [NP it] [VP run]": "has/AUX/3/aux it/PRON/3/nsubj run/VERB/0/root",
    "[NP isto] [VP tem sido] [ADJP muito grande]": (
        "isto/PRON/5/nsubj tem/AUX/5/aux sido/AUX/5/cop muito/ADV/5/advmod grande/ADJ/0/root"
    ),
    "[VP é] [NP a mais meridional]": "é/AUX/4/cop a/DET/4/det mais/ADV/4/advmod meridional/ADJ/0/root",
    "[SBAR para que] [NP ele] [VP venha] [PP a partir de] [NP hoje]": (
        "para/ADP/4/mark que/SCONJ/1/fixed ele/PRON/4/nsubj venha/VERB/0/root a/ADP/8/case partir/VERB/5/fixed "
        "de/ADP/5/fixed hoje/NOUN/4/obl"
    ),
    "[NP Ana 's] [NP own dog]": "Ana/PROPN/4/nmod:poss 's/PART/1/case own/ADJ/4/amod dog/NOUN/0/root",
    "[NP her dog] [VP to feed]": "her/PRON/2/nmod:poss dog/NOUN/0/root to/PART/4/mark feed/VERB/2/acl",
    "[NP Cabo Frio] ( [NP RJ] )": (
        "Cabo/PROPN/0/root Frio/PROPN/1/flat:name (/PUNCT/4/punct RJ/PROPN/1/appos )/PUNCT/4/punct"
    ),
    "[NP a ABNT 6570 ( 2000] )": (
        "a/DET/2/det ABNT/PROPN/0/root 6570/NUM/2/flat:name (/PUNCT/2/flat:name 2000/NUM/2/flat:name "
        ")/PUNCT/2/flat:name"
    ),
    "oh": "oh/INTJ/0/root",
    "?": "?/PUNCT/0/root",
}


@pytest.mark.parametrize("expected", EXAMPLES)
def test_examples(expected: str) -> None:
    words = [word.rsplit("/", 3) for word in EXAMPLES[expected].split()]
    tokens, upos, heads, relations = zip(*words, strict=True)
    text = list(tokens)
    for start, end, phrase_type in base_phrases(upos, [int(head) for head in heads], relations):
        text[start] = f"[{phrase_type} {text[start]}"
        text[end] += "]"
    assert " ".join(text) == expected


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[str], list[int], list[str]]:
    length = draw(st.integers(1, 12))
    order = draw(st.permutations(range(length)))
    heads = [0] * length
    for rank in range(1, length):  # every word hangs on one that came before it in a random order
        heads[order[rank]] = order[draw(st.integers(0, rank - 1))] + 1
    upos = draw(st.lists(st.sampled_from(UPOS), min_size=length, max_size=length))
    relations = draw(st.lists(st.sampled_from(RELATIONS), min_size=length, max_size=length))
    return upos, heads, relations


@given(trees())
def test_phrases_of_any_tree_are_flat_typed_and_in_order(tree: tuple[list[str], list[int], list[str]]) -> None:
    upos, heads, relations = tree
    phrases = base_phrases(upos, heads, relations)
    assert all(phrase.type in BASE_PHRASE_TYPES for phrase in phrases)
    assert spans(tag_spans(phrases, len(upos), "BIOES"), "BIOES") == phrases
    for phrase in phrases:
        assert upos[phrase.start] not in ("PUNCT", "CCONJ")
        assert upos[phrase.end] not in ("PUNCT", "CCONJ")


def test_a_very_deep_tree_needs_no_deep_stack() -> None:
    length = 5000
    assert len(base_phrases(["ADJ"] * length, range(length), ["root"] + ["conj"] * (length - 1))) == length
    (phrase,) = base_phrases(["NOUN"] * length, range(length), ["root"] + ["compound"] * (length - 1))
    assert phrase == (0, length - 1, "NP")


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="they have 1, 2 and 1"):
        base_phrases(["X"], [0, 1], ["root"])
