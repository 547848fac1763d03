"""A made-up language with known phrases: small, deterministic, and there without any download.

It exists to try out the machinery (tests, ``+debug=tiny``, a first look at a configuration of one's own). Figures on
it say nothing about real text.
"""

from __future__ import annotations

import random

from structkd.data.corpus import Corpus, label_splits
from structkd.data.tagging import tag_inventory, tag_spans

__all__ = ["load_toy"]

_NOUN_STEMS = ("vel", "tam", "gor", "pil", "sur", "ned", "kal", "rim", "fos", "bet", "dul", "hap")
_VERB_STEMS = ("mir", "tol", "ges", "lav", "pon", "ruk", "sab", "wen")
_DETERMINERS = ("ta", "su", "ni")
_PRONOUNS = ("ke", "li", "mo")
_PREPOSITIONS = ("en", "ob")
_UPOS = ("ADJ", "ADP", "DET", "NOUN", "PRON", "PUNCT", "VERB")
_PHRASES = ("NP", "VP")


def load_toy(
    task: str = "base_phrases",
    scheme: str | None = "BIOES",
    train: int = 120,
    dev: int = 30,
    test: int = 30,
    seed: int = 0,
) -> Corpus:
    """Generate the corpus.

    Args:
        task: "base_phrases" (noun and verb phrases as spans) or "upos".
        scheme: tag scheme of the spans, "BIO" or "BIOES"; not used by "upos".
        train, dev, test: sentences of every split. No sentence occurs twice.
        seed: of the generator.

    Raises:
        ValueError: for an unknown task or scheme.
    """
    if task not in ("base_phrases", "upos"):
        raise ValueError(f"The toy corpus has no task {task!r}: expected base_phrases or upos.")
    spans = task == "base_phrases"
    labels = tag_inventory(_PHRASES, scheme or "BIOES") if spans else list(_UPOS)
    number = {label: position for position, label in enumerate(labels)}
    generator = random.Random(seed)
    seen: set[tuple[str, ...]] = set()
    splits: dict[str, list[tuple[str, list[str], list[int]]]] = {"train": [], "dev": [], "test": []}
    for split, count in (("train", train), ("dev", dev), ("test", test)):
        while len(splits[split]) < count:
            words = _sentence(generator)
            tokens = [form for form, _, _ in words]
            if tuple(tokens) not in seen:
                seen.add(tuple(tokens))
                tags = _phrase_tags(words, scheme or "BIOES") if spans else [upos for _, upos, _ in words]
                name = f"toy-{split}-{len(splits[split])}"
                splits[split].append((name, tokens, [number[tag] for tag in tags]))
    return Corpus(
        name="toy",
        task=task,
        splits=label_splits(splits),
        labels=labels,
        types=list(_PHRASES) if spans else None,
        scheme=(scheme or "BIOES") if spans else None,
        licence="none needed: generated",
        source=f"structkd.data.toy, seed {seed}",
        notes="A made-up language; figures on it say nothing about real text.",
    )


Word = tuple[str, str, tuple[int, str] | None]  # form, UPOS, (phrase number, phrase type)


def _sentence(generator: random.Random) -> list[Word]:
    """Subject, verb group, object, sometimes a prepositional phrase, full stop."""
    words: list[Word] = []
    phrase = 0

    def noun_phrase() -> None:
        nonlocal phrase
        phrase += 1
        inside = (phrase, "NP")
        if generator.random() < 0.2:
            words.append((generator.choice(_PRONOUNS), "PRON", inside))
            return
        if generator.random() < 0.7:
            words.append((generator.choice(_DETERMINERS), "DET", inside))
        # Adjectives share their stems with nouns and verbs; only the ending tells them apart.
        for _ in range(generator.choice((0, 0, 1, 2))):
            words.append((generator.choice(_NOUN_STEMS + _VERB_STEMS) + "ish", "ADJ", inside))
        words.append((generator.choice(_NOUN_STEMS) + generator.choice(("o", "os")), "NOUN", inside))

    noun_phrase()
    phrase += 1
    for _ in range(generator.choice((1, 1, 2))):
        words.append((generator.choice(_VERB_STEMS) + generator.choice(("ar", "et")), "VERB", (phrase, "VP")))
    noun_phrase()
    if generator.random() < 0.5:
        words.append((generator.choice(_PREPOSITIONS), "ADP", None))
        noun_phrase()
    words.append((".", "PUNCT", None))
    return words


def _phrase_tags(words: list[Word], scheme: str) -> list[str]:
    begin: dict[tuple[int, str], int] = {}
    end: dict[tuple[int, str], int] = {}
    for position, (_, _, phrase) in enumerate(words):
        if phrase is not None:
            begin.setdefault(phrase, position)
            end[phrase] = position
    return tag_spans([(begin[phrase], end[phrase], phrase[1]) for phrase in begin], len(words), scheme)
