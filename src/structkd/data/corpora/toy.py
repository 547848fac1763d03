"""A made-up language with known phrases: small, deterministic, and there without any download.

It exists to try out the machinery (tests, ``+debug=tiny``, a first look at a configuration of one's own). Figures on
it say nothing about real text.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from structkd.configurable import configurable
from structkd.data.annotation import TagAnnotation, TreeAnnotation
from structkd.data.corpus import Corpus, sentence_splits
from structkd.tags import tag_spans

__all__ = ["load_toy"]

_NOUN_STEMS = ("vel", "tam", "gor", "pil", "sur", "ned", "kal", "rim", "fos", "bet", "dul", "hap")
_VERB_STEMS = ("mir", "tol", "ges", "lav", "pon", "ruk", "sab", "wen")
_DETERMINERS = ("ta", "su", "ni")
_PRONOUNS = ("ke", "li", "mo")
_PREPOSITIONS = ("en", "ob")
_UPOS = ("ADJ", "ADP", "DET", "NOUN", "PRON", "PUNCT", "VERB")
_PHRASES = ("NP", "VP")
_RELATIONS = ("amod", "case", "det", "nmod", "nsubj", "obj", "obl", "punct", "root", "xcomp")
_TASKS = {"spans": "base_phrases", "upos": "upos", "dependencies": "dependencies"}


@configurable
def load_toy(
    task: str = "spans",
    scheme: str | None = "BIOES",
    train: int = 120,
    dev: int = 30,
    test: int = 30,
    seed: int = 0,
) -> Corpus:
    """Generate the corpus.

    Args:
        task: "spans" (noun and verb phrases), "upos" or "dependencies" (trees, some of them non-projective, with a
            column ``upos``). The sentences are the same for all three.
        scheme: tag scheme of the spans, "BIO" or "BIOES"; not used by the other tasks.
        train, dev, test: sentences of every split. No sentence occurs twice.
        seed: of the generator.

    Raises:
        ValueError: for an unknown task or scheme.
    """
    if task not in _TASKS:
        raise ValueError(f"Unknown task {task!r} for the toy corpus; known: {', '.join(_TASKS)}.")
    annotation: TagAnnotation | TreeAnnotation
    if task == "dependencies":
        annotation = TreeAnnotation(_RELATIONS)
    else:
        annotation = TagAnnotation.of_spans(_PHRASES, scheme or "BIOES") if task == "spans" else TagAnnotation(_UPOS)
    generator = random.Random(seed)
    seen: set[tuple[str, ...]] = set()
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "dev": [], "test": []}
    for split, count in (("train", train), ("dev", dev), ("test", test)):
        while len(splits[split]) < count:
            words = _sentence(generator)
            tokens = [word.form for word in words]
            if tuple(tokens) not in seen:
                seen.add(tuple(tokens))
                row = {"id": f"toy-{split}-{len(splits[split])}", "tokens": tokens}
                splits[split].append(row | _values(words, annotation))
    return Corpus(
        name="toy",
        task=_TASKS[task],
        splits=sentence_splits(splits, [*annotation.columns, *(["upos"] if task == "dependencies" else [])]),
        annotation=annotation,
        licence="none needed: generated",
        source=f"structkd.data.load_toy, seed {seed}",
        notes="A made-up language, to see whether everything works: figures say nothing of text or methods.",
    )


@dataclass
class Word:
    form: str
    upos: str
    phrase: tuple[int, str] | None = None  # number and type
    head: int = 0  # 1-based; 0 for the root
    relation: str = "root"


def _sentence(generator: random.Random) -> list[Word]:
    """Draw a subject, a verb group, an object, sometimes a prepositional phrase, and a full stop."""
    words: list[Word] = []
    phrase = 0

    def noun_phrase() -> int:
        """Append a phrase and return the number of its head."""
        nonlocal phrase
        phrase += 1
        inside = (phrase, "NP")
        if generator.random() < 0.2:
            words.append(Word(generator.choice(_PRONOUNS), "PRON", inside))
            return len(words)
        modifiers = []
        if generator.random() < 0.7:
            modifiers.append(Word(generator.choice(_DETERMINERS), "DET", inside, relation="det"))
        # Adjectives share their stems with nouns and verbs; only the ending distinguishes them.
        for _ in range(generator.choice((0, 0, 1, 2))):
            form = generator.choice(_NOUN_STEMS + _VERB_STEMS) + "ish"
            modifiers.append(Word(form, "ADJ", inside, relation="amod"))
        words.extend(modifiers)
        words.append(Word(generator.choice(_NOUN_STEMS) + generator.choice(("o", "os")), "NOUN", inside))
        for word in modifiers:
            word.head = len(words)
        return len(words)

    def attach(word: int, head: int, relation: str) -> None:
        words[word - 1].head, words[word - 1].relation = head, relation

    subject = noun_phrase()
    phrase += 1
    root = len(words) + 1
    for _ in range(generator.choice((1, 1, 2))):
        words.append(Word(generator.choice(_VERB_STEMS) + generator.choice(("ar", "et")), "VERB", (phrase, "VP")))
    verb = len(words)
    if verb != root:
        attach(verb, root, "xcomp")
    attach(subject, root, "nsubj")
    thing = noun_phrase()
    attach(thing, verb, "obj")
    if generator.random() < 0.5:
        words.append(Word(generator.choice(_PREPOSITIONS), "ADP"))
        preposition = len(words)
        noun = noun_phrase()
        attach(preposition, noun, "case")
        # "en" belongs to the verb, "ob" to the object, but to the subject if the object is a pronoun: its arc
        # then crosses the root's.
        if words[preposition - 1].form == "en":
            attach(noun, verb, "obl")
        else:
            attach(noun, subject if words[thing - 1].upos == "PRON" else thing, "nmod")
    words.append(Word(".", "PUNCT", None, root, "punct"))
    return words


def _values(words: list[Word], annotation: TagAnnotation | TreeAnnotation) -> dict[str, Any]:
    upos = [word.upos for word in words]
    if isinstance(annotation, TreeAnnotation):
        relations = [annotation.index[word.relation] for word in words]
        return {"heads": [word.head for word in words], "relations": relations, "upos": upos}
    tags = upos if annotation.scheme is None else _phrase_tags(words, annotation.scheme)
    return {"labels": [annotation.index[tag] for tag in tags]}


def _phrase_tags(words: list[Word], scheme: str) -> list[str]:
    begin: dict[tuple[int, str], int] = {}
    end: dict[tuple[int, str], int] = {}
    for position, word in enumerate(words):
        if word.phrase is not None:
            begin.setdefault(word.phrase, position)
            end[word.phrase] = position
    return tag_spans([(begin[phrase], end[phrase], phrase[1]) for phrase in begin], len(words), scheme)
