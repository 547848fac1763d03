"""A made-up language with known phrases: small, deterministic, and there without any download.

It exists to try out the machinery (tests, ``+debug=tiny``, a first look at a configuration of one's own) and for
``structkd demo``. Figures on it say nothing about real text.
"""

from __future__ import annotations

import itertools
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
    stems: int | None = None,
) -> Corpus:
    """Generate the corpus.

    Args:
        task: "spans" (noun and verb phrases), "upos" or "dependencies" (trees, some of them non-projective, with a
            column ``upos``). The sentences are the same for all three.
        scheme: tag scheme of the spans, "BIO" or "BIOES"; not used by the other tasks.
        train, dev, test: sentences of every split. No sentence occurs twice.
        seed: of the generator.
        stems: size of the vocabulary. None gives the small one of 20 stems, in which endings mark nouns, verbs and
            adjectives. A number gives that many words without endings, and makes the language as hard as real text in
            several ways: the n-th word is n times as rare as the first, some words are both nouns and verbs, and there
            are compound nouns and second objects.

    Raises:
        ValueError: for an unknown task or scheme, or a number of stems outside 8..2000.
    """
    if task not in _TASKS:
        raise ValueError(f"Unknown task {task!r} for the toy corpus; known: {', '.join(_TASKS)}.")
    annotation: TagAnnotation | TreeAnnotation
    if task == "dependencies":
        annotation = TreeAnnotation(_RELATIONS)
    else:
        annotation = TagAnnotation.of_spans(_PHRASES, scheme or "BIOES") if task == "spans" else TagAnnotation(_UPOS)
    if stems is not None and not 8 <= stems <= 2000:
        raise ValueError(f"stems={stems} is outside 8..2000. Leave it out for the small vocabulary.")
    lexicon = _Lexicon() if stems is None else _LargeLexicon(stems)
    generator = random.Random(seed)
    seen: set[tuple[str, ...]] = set()
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "dev": [], "test": []}
    for split, count in (("train", train), ("dev", dev), ("test", test)):
        while len(splits[split]) < count:
            words = _sentence(generator, lexicon)
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
        source=f"structkd.data.load_toy, seed {seed}" + ("" if stems is None else f", {stems} stems"),
        notes="A made-up language, to see whether everything works: figures say nothing of text or methods.",
    )


@dataclass
class Word:
    form: str
    upos: str
    phrase: tuple[int, str] | None = None  # number and type
    head: int = 0  # 1-based; 0 for the root
    relation: str = "root"


class _Lexicon:
    """Few stems. Adjectives share theirs with nouns and verbs; only the ending distinguishes them."""

    #: Shares of noun phrases with a noun as modifier, and of sentences with a second object.
    compounds = 0.0
    second_objects = 0.0

    def noun(self, generator: random.Random) -> str:
        return generator.choice(_NOUN_STEMS) + generator.choice(("o", "os"))

    def verb(self, generator: random.Random) -> str:
        return generator.choice(_VERB_STEMS) + generator.choice(("ar", "et"))

    def adjective(self, generator: random.Random) -> str:
        return generator.choice(_NOUN_STEMS + _VERB_STEMS) + "ish"


class _LargeLexicon(_Lexicon):
    """Many words whose spelling does not tell the part of speech; frequencies fall as 1/rank."""

    compounds = 0.25
    second_objects = 0.4

    def __init__(self, stems: int) -> None:
        spelled = [
            "".join(each) for each in itertools.product("bdfgklmnprstv", "aeiou", "bdfgklmnprstv", ("a", "i", "o"))
        ]
        drawn = random.Random(0).sample(spelled, stems)
        half, quarter = stems // 2, stems // 4
        # Half of the verbs and adjectives are nouns, too.
        self._nouns = self._ranked(drawn[: half + quarter])
        self._verbs = self._ranked(drawn[half - quarter // 2 : half + quarter])
        self._adjectives = self._ranked(drawn[half + quarter :])

    @staticmethod
    def _ranked(words: list[str]) -> tuple[list[str], list[float]]:
        return words, list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))

    def noun(self, generator: random.Random) -> str:
        return self._draw(generator, self._nouns)

    def verb(self, generator: random.Random) -> str:
        return self._draw(generator, self._verbs)

    def adjective(self, generator: random.Random) -> str:
        return self._draw(generator, self._adjectives)

    @staticmethod
    def _draw(generator: random.Random, ranked: tuple[list[str], list[float]]) -> str:
        words, weights = ranked
        return generator.choices(words, cum_weights=weights)[0]


def _sentence(generator: random.Random, lexicon: _Lexicon) -> list[Word]:
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
        for _ in range(generator.choice((0, 0, 1, 2))):
            modifiers.append(Word(lexicon.adjective(generator), "ADJ", inside, relation="amod"))
        if lexicon.compounds and generator.random() < lexicon.compounds:
            modifiers.append(Word(lexicon.noun(generator), "NOUN", inside, relation="nmod"))
        words.extend(modifiers)
        words.append(Word(lexicon.noun(generator), "NOUN", inside))
        for word in modifiers:
            word.head = len(words)
        return len(words)

    def attach(word: int, head: int, relation: str) -> None:
        words[word - 1].head, words[word - 1].relation = head, relation

    subject = noun_phrase()
    phrase += 1
    root = len(words) + 1
    for _ in range(generator.choice((1, 1, 2))):
        words.append(Word(lexicon.verb(generator), "VERB", (phrase, "VP")))
    verb = len(words)
    if verb != root:
        attach(verb, root, "xcomp")
    attach(subject, root, "nsubj")
    thing = noun_phrase()
    attach(thing, verb, "obj")
    if lexicon.second_objects and generator.random() < lexicon.second_objects:
        attach(noun_phrase(), verb, "obl")
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
