"""Sentences are short, and nouns come first: counts of the words that compress too much."""

from __future__ import annotations

import re

import pytest
from pages import PAGES, ROOT, prose, sentences

LONGEST = 30
#: In 1,000 words of all pages. diffrax's documentation has 0.6 of the first and 1.1 of "is no" and "where" together.
LIMITS = {"what as a noun": 0.6, "where for if, is no": 1.1}
_NOUN = re.compile(r"(?<!\w)(?:what|what's)(?!\w)(?! (?:if|about)\b)", re.I)
_ALLOWED = re.compile(
    r"\b(?:see|say|says|said|shows?|prints?|know|which|explains?|ask|asks) what\b|\bwhat (?:is|are|does|do) .*\?", re.I
)
_WHERE = re.compile(r"\bwhere\b|\b(?:is|are) no\b", re.I)
#: A place, and a question, may be called so.
_PLACES = re.compile(
    r"\b(?:know|says?|choose|folder|places?|from|shows?|see|file|system|page|cell|positions?) where\b|\bwhere to\b",
    re.I,
)


def words(text: str) -> int:
    return len(re.findall(r"[\w'-]*\w[\w'-]*", text))


def what_as_noun(sentence: str) -> int:
    return 0 if sentence.endswith("?") else len(_NOUN.findall(sentence)) - len(_ALLOWED.findall(sentence))


def riddles(sentence: str) -> int:
    return len(_WHERE.findall(sentence)) - len(_PLACES.findall(sentence))


def test_the_counts_see_what_they_count() -> None:
    assert what_as_noun("What training makes is kept.") == 1
    assert what_as_noun("What is a part?") == 0
    assert riddles("Where it fails, there is no result.") == 2
    assert riddles("The notes say where to go on.") == 0
    assert words("One word-wise model, 2 scores.") == 5
    assert sentences("One. Two is longer: three.\n\n- four\n- five") == [
        "One.",
        "Two is longer: three.",
        "four",
        "five",
    ]


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md"])
def test_sentences_are_short(name: str) -> None:
    long = [each for each in sentences(prose(ROOT / name)) if words(each) > LONGEST]
    assert not long


def test_nouns_come_first() -> None:
    text = [sentence for page in PAGES for sentence in sentences(prose(page))]
    total = sum(map(words, text))
    for name, count in (("what as a noun", what_as_noun), ("where for if, is no", riddles)):
        found = [each for each in text if count(each) > 0]
        assert 1000 * sum(map(count, text)) / total <= LIMITS[name], (name, total, found)
