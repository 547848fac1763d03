"""Sentences that are given to a model as text or words, and their annotation as plain dictionaries.

**Raw text** is split into words, whose places in the text are kept, and into sentences, by two rules.

**Words.** White space separates words. Of the text between white space, these are words, the first that fits:

1. a web or e-mail address, and a mention or hashtag (``@name``, ``#topic``);
2. a title or another common abbreviation with its full stop (``Dr.``, ``etc.``), letters with full stops (``U.S.``),
   and an initial (``J.``; not ``I.``);
3. an English clitic (``n't``, ``'s``, ``'m``, ``'d``, ``'re``, ``'ve`` and ``'ll``), which is split off the word
   before it;
4. a run of characters that are neither punctuation nor symbols. Apostrophes between letters belong to it (``O'Brien``),
   and full stops, commas and colons between digits (``1,000.5``);
5. a run of emoji, and a run of one and the same other character (``...``, ``--``).

These are the tokens of most treebanks of English, and close to those of other languages that write blanks between
words. Text in other tokens, or without blanks, is given as lists of words.

**Sentences.** A sentence ends at the end of a line. It also ends after ``.``, ``!``, ``?`` or ``…`` (or a run of one of
them) with the quotes and brackets that close behind it, if white space follows and the next word does not begin with a
lower-case letter; and after ``。``, ``！`` and ``？``, whatever follows. The full stop of an abbreviation ends none.

The pattern has no class that depends on a version of Unicode, so that every engine of regular expressions finds the
same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache
from typing import Any

from structkd.tags import spans

__all__ = ["Sentence", "parsed", "read_sentences", "split_sentences", "split_words", "tagged", "word_pattern"]

Offsets = tuple[int, int]

#: Contents of character classes; control characters separate words, as blanks do.
SPACE = "\0-\x20\x7f-\xa0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u3000\ufeff"
_EMOJI = "\u2600-\u27bf\U0001f000-\U0001faff"
_PUNCTUATION = (
    r"!-/:-@\[-\^`\{-~"  # ASCII but for the underscore
    "\xa1-\xa9\xab\xac\xae-\xb1\xb4\xb6\xb8\xbb\xbf\xd7\xf7"
    "\u0589\u05be\u05c0\u05c3\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u104a\u104b\u1362-\u1368\u17d4-\u17d6"
    "\u2010-\u2027\u2030-\u205e\u20a0-\u20cf\u2190-\u25ff\u27c0-\u2bff\u2e00-\u2e7f\u3001-\u3003\u3008-\u3011\u3014-\u301f"
    f"\ufe30-\ufe6f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65{_EMOJI}"
)
_ABBREVIATIONS = (
    "Mr|Mrs|Ms|Dr|Prof|Sr|Sra|Dra|Jr|St|Gen|Gov|Sen|Rep|Lt|Col|Capt|Sgt|Rev|Hon|Inc|Ltd|Corp|Co|Bros|vs|etc|cf|approx|"
    "Jan|Feb|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec"
)
_LINE_ENDS = "\n\r\u2028\u2029"
_STOPS = frozenset(".!?\u2026")
_WIDE_STOPS = frozenset("\u3002\uff01\uff1f")
_CLOSING = frozenset("\"'\u2019\u201d\u00bb\u203a)]}\u300d\u300f\uff09")


def word_pattern() -> str:
    """Return the regular expression of a word, which finds the words of a text from left to right."""
    word, apostrophe = f"[^{SPACE}{_PUNCTUATION}]", "['\u2019]"
    clitic = f"{apostrophe}(?:[sSmMdD]|re|RE|ve|VE|ll|LL)(?!{word})"
    negation = f"[nN]{apostrophe}[tT](?!{word})"
    some = word + "{1,64}"  # bounded, so that no text takes quadratic time
    return "|".join(
        (
            rf"(?:https?://|www\.)[^{SPACE}\"<>]*(?:{word}|/)",
            rf"{some}(?:[.+\-]{some}){{0,8}}@{some}(?:[.\-]{some}){{1,8}}",
            f"[@#](?![0-9]){word}+",
            rf"(?:{_ABBREVIATIONS})\.",
            rf"(?:[^{SPACE}{_PUNCTUATION}0-9]\.){{2,}}",
            "[A-HJ-Z\xc0-\xd6\xd8-\xde]\\.(?!\\.)",
            f"{word}+?(?={negation})",
            negation,
            clitic,
            f"(?:{word}|(?<=[0-9])[.,:](?=[0-9])|(?<={word})(?!{clitic}){apostrophe}(?={word}))+",
            f"[{_EMOJI}][{_EMOJI}\ufe0e\ufe0f\u200d]*",
            rf"([{_PUNCTUATION}])\1*",
        )
    )


@cache
def _splitter() -> Any:
    """Return the pre-tokenizer; it is loaded when raw text is first read."""
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(f"[{SPACE}]+"), "removed"),
            pre_tokenizers.Split(Regex(word_pattern()), "isolated"),
        ]
    )


def split_words(text: str) -> list[tuple[str, Offsets]]:
    """Return the words of a text and their places: each is ``text[start:end]``.

    The rule is that of the module. The time is linear in the text.

    Raises:
        ValueError: if the text has a half of a surrogate pair, which is not a character.

    >>> split_words("Dr. O'Brien doesn't pay $1,000.50 (U.S.)...")[:6]
    [('Dr.', (0, 3)), ("O'Brien", (4, 11)), ('does', (12, 16)), ("n't", (16, 19)), ('pay', (20, 23)), ('$', (24, 25))]
    """
    if half := re.search("[\ud800-\udfff]", text):
        raise ValueError(
            f"The text has {half.group()!r} at position {half.start()}, a half of a surrogate pair, which is not a "
            "character. Read the file as UTF-8, or remove it."
        )
    words: list[tuple[str, Offsets]] = _splitter().pre_tokenize_str(text)
    return words


def split_sentences(text: str) -> list[list[tuple[str, Offsets]]]:
    """Return the sentences of a text, each as :func:`split_words` returns words; none is empty.

    The rule is that of the module.

    >>> [[word for word, _ in sentence] for sentence in split_sentences('Who? "J. Smith." He left\\nNews')]
    [['Who', '?'], ['"', 'J.', 'Smith', '.', '"'], ['He', 'left'], ['News']]
    """
    sentences: list[list[tuple[str, Offsets]]] = []
    current: list[tuple[str, Offsets]] = []
    stopped: str | None = None  # the stop before, if nothing but closing characters came after it
    for word, (start, end) in split_words(text):
        if current:
            before = current[-1][1][1]
            gap = text[before:start]
            closes = stopped is not None and not gap and word[0] in _CLOSING
            ended = any(each in gap for each in _LINE_ENDS)
            if stopped is not None and not closes:
                ended = ended or stopped in _WIDE_STOPS or bool(gap and not word[0].islower())
            if ended:
                sentences.append(current)
                current, stopped = [], None
            elif not closes:
                stopped = None
        current.append((word, (start, end)))
        if word[0] in _STOPS or word[0] in _WIDE_STOPS:
            stopped = word[0]
    return [*sentences, current] if current else sentences


@dataclass(frozen=True)
class Sentence:
    """A sentence to be annotated.

    Attributes:
        words: the words.
        offsets: (start, end) of every word in ``text``; None for words that were given as a list.
        text: that the offsets count in.
        upos: a part of speech for every word, for the models that read it.
    """

    words: Sequence[str]
    offsets: Sequence[Offsets] | None = None
    text: str | None = None
    upos: Sequence[str] | None = None


def read_sentences(given: Any) -> Iterator[Sentence]:
    """Yield the sentences of raw text, or of sentences that are given one by one.

    Args:
        given: a string, which is split into sentences; or an iterable of sentences, each a string (one sentence,
            whatever it holds), a list of words, or a :class:`Sentence`.

    Raises:
        TypeError: if something else is given; the message names the sentence.
        ValueError: see :func:`split_words`.

    >>> [sentence.words for sentence in read_sentences(["Ana runs.", ["Ben", "sits"]])]
    [['Ana', 'runs', '.'], ['Ben', 'sits']]
    """
    if isinstance(given, str):
        for words in split_sentences(given):
            yield _of_raw(words, given)
        return
    if isinstance(given, (bytes, bytearray, Mapping, Set)) or not isinstance(given, Iterable):
        raise TypeError(
            f"Sentences are a text, a list of texts, or a list of lists of words; got {type(given).__name__}."
        )
    for number, sentence in enumerate(given):
        if isinstance(sentence, Sentence):
            yield sentence
        elif isinstance(sentence, str):
            yield _of_raw(split_words(sentence), sentence)
        elif isinstance(sentence, (list, tuple)) and all(isinstance(word, str) for word in sentence):
            yield Sentence(list(sentence))
        else:
            wrong = (
                next((word for word in sentence if not isinstance(word, str)), None)
                if isinstance(sentence, (list, tuple))
                else sentence
            )
            raise TypeError(
                f"Sentence {number} (from 0) must be a text or a list of words, and holds {wrong!r:.60} of type "
                f"{type(wrong).__name__}."
            )


def _of_raw(words: Sequence[tuple[str, Offsets]], text: str) -> Sentence:
    return Sentence([word for word, _ in words], [place for _, place in words], text)


def tagged(
    sentence: Sentence,
    tags: Sequence[str],
    scheme: str | None = None,
    tag_scores: Sequence[float] | None = None,
    span_scores: Sequence[float] | None = None,
    log_prob: float | None = None,
) -> dict[str, Any]:
    """Return the annotation of a sentence with tags, as plain data.

    Args:
        sentence: the sentence.
        tags: one tag per word, a legal sequence of the scheme.
        scheme: "BIO" or "BIOES" if the tags stand for spans.
        tag_scores: the probability of every tag.
        span_scores: for the first word of every span the probability of the span; other values are ignored.
        log_prob: the logarithm of the probability of the tag sequence.

    Returns:
        ``words``; ``offsets`` if the sentence is raw text; ``tags``; ``spans`` with a scheme, a list of dictionaries
        ``start``, ``end`` (words from 0, the end exclusive), ``label``, ``text``, for raw text ``start_char`` and
        ``end_char``, and with scores ``score``; ``tag_scores`` and ``log_prob`` with scores.

    >>> tagged(Sentence(["Ana", "Lee", "runs"]), ["B-PER", "I-PER", "O"], "BIO")["spans"]
    [{'start': 0, 'end': 2, 'label': 'PER', 'text': 'Ana Lee'}]
    """
    result = _words(sentence)
    result["tags"] = list(tags)
    if scheme is not None:
        result["spans"] = []
        for first, last, label in spans(tags, scheme) if len(tags) else ():
            found: dict[str, Any] = {"start": first, "end": last + 1, "label": label}
            if sentence.offsets is not None and sentence.text is not None:
                start, end = sentence.offsets[first][0], sentence.offsets[last][1]
                found |= {"text": sentence.text[start:end], "start_char": start, "end_char": end}
            else:
                found["text"] = " ".join(sentence.words[first : last + 1])
            if span_scores is not None:
                found["score"] = span_scores[first]
            result["spans"].append(found)
    if tag_scores is not None:
        result["tag_scores"] = list(tag_scores)
    if log_prob is not None:
        result["log_prob"] = log_prob
    return result


def parsed(
    sentence: Sentence,
    heads: Sequence[int],
    relations: Sequence[str],
    head_scores: Sequence[float] | None = None,
    relation_scores: Sequence[float] | None = None,
    log_prob: float | None = None,
) -> dict[str, Any]:
    """Return the annotation of a sentence with a dependency tree, as plain data.

    Args:
        sentence: the sentence.
        heads: one head per word, from 1; 0 is the root.
        relations: one relation per word.
        head_scores: the probability of every word's arc.
        relation_scores: the probability of every word's arc with its relation.
        log_prob: the logarithm of the probability of the tree.

    Returns:
        ``words``; ``offsets`` if the sentence is raw text; ``heads`` and ``relations``; and the scores that are given.

    >>> parsed(Sentence(["Ana", "runs"]), [2, 0], ["nsubj", "root"])
    {'words': ['Ana', 'runs'], 'heads': [2, 0], 'relations': ['nsubj', 'root']}
    """
    result = _words(sentence)
    result |= {"heads": list(heads), "relations": list(relations)}
    if head_scores is not None:
        result["head_scores"] = list(head_scores)
    if relation_scores is not None:
        result["relation_scores"] = list(relation_scores)
    if log_prob is not None:
        result["log_prob"] = log_prob
    return result


def _words(sentence: Sentence) -> dict[str, Any]:
    result: dict[str, Any] = {"words": list(sentence.words)}
    if sentence.offsets is not None:
        result["offsets"] = list(sentence.offsets)
    return result
