"""Base phrases: flat, typed, non-overlapping phrases derived from a dependency tree.

CoNLL-2000 (Tjong Kim Sang and Buchholz 2000) derived its chunks from the constituents of the Penn Treebank: a chunk
is a head with its modifiers, without arguments, attached prepositional phrases, clauses and coordinated phrases. The
rule below is its counterpart on Universal Dependencies. As in CoNLL-2000, a preposition does not belong to its noun
phrase (PP is the preposition alone), nor a complementizer to its clause (SBAR). English base noun phrases end at their
head; here, adjectives and numerals *after* a noun belong to its phrase, because Romance languages put them there.

**The rule.** Let every word but the root hang on its head by a dependency arc.

1. *Copulas.* An auxiliary of a predicate that has a copula is made to hang on that copula (the last one, if several):
   "tem sido" is one phrase beside the predicate "grande".
2. *Inner arcs.* An arc from a head h to a dependent d is inner if its relation r (without subtype) is

   - ``fixed``, ``flat``, ``compound`` or ``goeswith`` (one expression of several words),
   - ``det``, ``amod``, ``nummod`` or ``clf``, or ``nmod:poss`` of a pronoun (modifiers of a noun),
   - ``aux`` (a verb group),
   - ``advmod`` of an adverb d that stands before an ADJ, ADV, NUM or DET h (degree: "muito grande"), or that stands
     between h and an auxiliary of h ("foi amplamente usado"),
   - ``conj``, if h is an inner ``amod``, ``nummod`` or ``det``, or an inner ``conj`` of one, and d has the part of
     speech of h ("águas [rasas e profundas]"),
   - ``punct`` or ``cc``,

   or if d is a particle (PART: "not", "to", "'s"). If h itself is a ``case``, ``mark`` or ``cc``, only the first and
   the last of these relations are inner.
3. *Groups.* Cut every arc that is not inner; the connected parts that remain are the groups.
4. *Phrases.* Every maximal contiguous stretch of a group is a phrase, less the punctuation marks and coordinators
   (by relation, ``punct`` and ``cc``, or by part of speech, PUNCT and CCONJ) at its two edges. The phrase's head is its
   word nearest to the group's top, the leftmost of several, such marks aside. Its type is

   - **PP** if the head's relation is ``case``, **SBAR** if it is ``mark``;
   - otherwise **NP** if the head is NOUN, PROPN, PRON, NUM, SYM, X or DET, or has a determiner in its phrase;
   - otherwise by part of speech: VERB and AUX **VP**, ADJ **ADJP**, ADV **ADVP**, ADP **PP**, SCONJ **SBAR**.

   A stretch whose head has none of these types (INTJ, PART) is outside all phrases.

Groups share no word and stretches of a group do not touch, so the phrases of any tree are flat. The rule reads nothing
but part of speech, head and relation, and every word it looks at is fixed by the tree: it is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence

from structkd.tags import Span

BASE_PHRASE_TYPES: tuple[str, ...] = ("NP", "VP", "PP", "ADJP", "ADVP", "SBAR")
"""The phrase types, in the order of the tag inventory."""

_EXPRESSION = frozenset({"fixed", "flat", "compound", "goeswith"})
_MODIFIER = frozenset({"det", "amod", "nummod", "clf"})
_EDGE = frozenset({"punct", "cc"})
_EDGE_UPOS = frozenset({"PUNCT", "CCONJ"})
_MARKER = frozenset({"case", "mark", "cc"})
_GRADED = frozenset({"ADJ", "ADV", "NUM", "DET"})
_NOMINAL = frozenset({"NOUN", "PROPN", "PRON", "NUM", "SYM", "X", "DET"})
_TYPE_OF_RELATION = {"case": "PP", "mark": "SBAR"}
_TYPE_OF_UPOS = {"VERB": "VP", "AUX": "VP", "ADJ": "ADJP", "ADV": "ADVP", "ADP": "PP", "SCONJ": "SBAR"}


def base_phrases(upos: Sequence[str], heads: Sequence[int], relations: Sequence[str]) -> list[Span]:
    """Return the base phrases of one sentence, left to right, by the rule at the top of this module.

    Args:
        upos: universal part of speech of every word.
        heads: 1-based head of every word, 0 for the root; a tree.
        relations: dependency relation of every word to its head; subtypes are dropped, except in ``nmod:poss``.

    Returns:
        Spans with 0-based words, both ends inclusive, and a type of `BASE_PHRASE_TYPES`. O(N) time but for the depth
        of the groups.

    Raises:
        ValueError: the three sequences differ in length.
    """
    if not len(upos) == len(heads) == len(relations):
        raise ValueError(
            f"Columns upos, heads and relations must have one entry per word; they have {len(upos)}, {len(heads)} "
            f"and {len(relations)}."
        )
    plain = [relation.partition(":")[0] for relation in relations]
    head = _with_auxiliaries_on_copulas([h - 1 for h in heads], plain)
    inner = _inner_arcs(upos, head, relations, plain)
    top, depth = _groups(head, inner)

    phrases: list[Span] = []
    start = 0
    for end in range(len(upos)):
        if end + 1 < len(upos) and top[end + 1] == top[start]:
            continue
        stretch = range(start, end + 1)
        start = end + 1
        inside = [word for word in stretch if plain[word] not in _EDGE and upos[word] not in _EDGE_UPOS]
        if not inside:
            continue
        words = range(inside[0], inside[-1] + 1)
        phrase_type = _phrase_type(min(inside, key=lambda word: depth[word]), words, upos, head, plain)
        if phrase_type:
            phrases.append(Span(words[0], words[-1], phrase_type))
    return phrases


def _with_auxiliaries_on_copulas(head: list[int], plain: list[str]) -> list[int]:
    """Attach auxiliaries to copulas (step 1); heads are 0-based, -1 for the root."""
    copula = {head[word]: word for word, relation in enumerate(plain) if relation == "cop"}
    return [copula.get(head[word], head[word]) if plain[word] == "aux" else head[word] for word in range(len(head))]


def _inner_arcs(upos: Sequence[str], head: list[int], relations: Sequence[str], plain: list[str]) -> list[bool]:
    """Return for every word whether the arc to its head is inner (step 2)."""
    auxiliaries: dict[int, list[int]] = {}
    for word, relation in enumerate(plain):
        if relation == "aux":
            auxiliaries.setdefault(head[word], []).append(word)

    def is_inner(word: int) -> bool:
        relation, above = plain[word], head[word]
        if above < 0:
            return False
        if relation in _EXPRESSION or relation in _EDGE:
            return True
        if plain[above] in _MARKER:
            return False
        if relation in _MODIFIER or relation == "aux" or upos[word] == "PART":
            return True
        if relations[word] == "nmod:poss":
            return upos[word] == "PRON"
        if relation == "advmod" and upos[word] == "ADV":
            if upos[above] in _GRADED:
                return word < above
            return any(min(aux, above) < word < max(aux, above) for aux in auxiliaries.get(above, ()))
        if relation == "conj":
            first = word
            while plain[first] == "conj" and head[first] >= 0 and upos[first] == upos[head[first]]:
                first = head[first]
            return plain[first] in ("amod", "nummod", "det") and is_inner(first)
        return False

    return [is_inner(word) for word in range(len(head))]


def _groups(head: list[int], inner: list[bool]) -> tuple[list[int], list[int]]:
    """Return for every word the top of its group and the number of arcs up to it (step 3)."""
    top: list[int] = [-1] * len(head)
    depth = [0] * len(head)
    for word in range(len(head)):
        path = []
        above = word
        while top[above] < 0 and inner[above]:
            path.append(above)
            above = head[above]
        if top[above] < 0:
            top[above] = above
        for below in reversed(path):
            top[below], depth[below] = top[above], depth[head[below]] + 1
    return top, depth


def _phrase_type(phrase_head: int, words: range, upos: Sequence[str], head: list[int], plain: list[str]) -> str | None:
    """Return the type of the phrase over `words` (step 4)."""
    if plain[phrase_head] in _TYPE_OF_RELATION:
        return _TYPE_OF_RELATION[plain[phrase_head]]
    if upos[phrase_head] in _NOMINAL or any(plain[word] == "det" and head[word] == phrase_head for word in words):
        return "NP"
    return _TYPE_OF_UPOS.get(upos[phrase_head])
