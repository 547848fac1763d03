"""Enumeration oracles: every structure is listed and every number is a Python float.

Nothing here knows a dynamic programme, a determinant or a gradient. A distribution is a dictionary from structures to
scores; partition, entropy, marginals and the distillation loss are sums over that dictionary, by their definitions.

Structures:
    tags     tuple of label indices, one per word
    heads    tuple of head indices, one per word; a root's head is its own index
    labelled tuple of (head, relation) pairs, one per word
    spans    tuple of (start, end inclusive, type index), by start
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from structkd.testing import Enumeration, Structure, cross_entropy, log_sum_exp, mixture

__all__ = ["Enumeration", "Structure", "cross_entropy", "log_sum_exp", "mixture"]


def tag_sequences(n: int, labels: int) -> list[Structure]:
    return list(itertools.product(range(labels), repeat=n))


def head_choices(n: int) -> list[Structure]:
    """Every word picks any head, itself meaning root: n^n."""
    return list(itertools.product(range(n), repeat=n))


def is_tree(heads: Structure) -> bool:
    """Whether every word reaches a root."""
    for word in range(len(heads)):
        seen = set()
        while heads[word] != word:
            if word in seen:
                return False
            seen.add(word)
            word = heads[word]
    return True


def is_single_root(heads: Structure) -> bool:
    return sum(head == word for word, head in enumerate(heads)) == 1


def ancestors(heads: Structure, word: int) -> set[int]:
    """`word` and everything above it, for a tree."""
    found = {word}
    while heads[word] != word:
        word = heads[word]
        found.add(word)
    return found


def is_projective(heads: Structure) -> bool:
    """Whether every word between the two ends of an arc descends from the arc's head."""
    for dependent, head in enumerate(heads):
        low, high = min(head, dependent), max(head, dependent)
        if any(head not in ancestors(heads, between) for between in range(low + 1, high)):
            return False
    return True


@functools.cache
def trees(n: int, projective: bool, multiroot: bool) -> tuple[Structure, ...]:
    return tuple(
        heads
        for heads in head_choices(n)
        if is_tree(heads) and (multiroot or is_single_root(heads)) and (not projective or is_projective(heads))
    )


def with_relations(structures: Iterable[Structure], relations: int) -> list[Structure]:
    """Every structure of heads with every assignment of relations."""
    return [
        tuple(zip(heads, assigned, strict=True))
        for heads in structures
        for assigned in itertools.product(range(relations), repeat=len(heads))
    ]


def segmentations(n: int, types: int, start: int = 0) -> list[Structure]:
    """Flat typed segmentations: no two spans overlap, words may be outside."""
    if start >= n:
        return [()]
    found = list(segmentations(n, types, start + 1))
    for end in range(start, n):
        for rest in segmentations(n, types, end + 1):
            found += [((start, end, kind), *rest) for kind in range(types)]
    return found


def span_tags(spans: Structure, n: int, types: Sequence[str], scheme: str) -> tuple[str, ...]:
    """The IO, BIO or BIOES tags of a segmentation."""
    tags = ["O"] * n
    for start, end, kind in spans:
        for word in range(start, end + 1):
            prefix = "B" if word == start and scheme != "IO" else "I"
            if scheme == "BIOES":
                if start == end:
                    prefix = "S"
                elif word == end:
                    prefix = "E"
            tags[word] = f"{prefix}-{types[kind]}"
    return tuple(tags)


def read_spans(tags: Sequence[str], types: Sequence[str]) -> Structure:
    """The spans of tags of any scheme, legal or not: what continues nothing of its type begins a span."""
    spans: list[list[int]] = []
    before = "O"
    for word, tag in enumerate(tags):
        if tag != "O":
            kind = types.index(tag[2:])
            if tag[0] in "BS" or before == "O" or before[0] in "ES" or before[2:] != tag[2:]:
                spans.append([word, word, kind])
            spans[-1][1] = word
        before = tag
    return tuple((start, end, kind) for start, end, kind in spans)


def segment_starts(n: int, labels: int, longest: int) -> list[Structure]:
    """Segmentations by the label of a segment at its first word and -1 elsewhere; the last word is one of its own."""
    if n == 1:
        return [(label,) for label in range(labels)]
    return [
        (label, *[-1] * (size - 1), *rest)
        for size in range(1, min(longest, n))
        for label in range(labels)
        for rest in segment_starts(n - size, labels, longest)
    ]


def softmax(values: Sequence[float]) -> list[float]:
    normaliser = log_sum_exp(values)
    return [math.exp(value - normaliser) for value in values]


def mean_field(
    arcs: Sequence[Sequence[float]],
    siblings: Sequence[Sequence[Sequence[float]]] | None,
    grandparents: Sequence[Sequence[Sequence[float]]] | None,
    n: int,
    iterations: int,
    temperature: float = 1.0,
) -> list[list[float]]:
    """The posterior log Q(h|d), as a table [h][d], by the plain loops of the definition."""
    first = [[arcs[h][d] / temperature for d in range(n)] for h in range(n)]
    field = [row[:] for row in first]

    def normalised(scores: list[list[float]]) -> list[list[float]]:
        columns = [log_sum_exp(scores[h][d] for h in range(n)) for d in range(n)]
        return [[scores[h][d] - columns[d] for d in range(n)] for h in range(n)]

    for _ in range(iterations):
        q = [[math.exp(value) for value in row] for row in normalised(field)]
        updated = [row[:] for row in first]
        for h, d in itertools.permutations(range(n), 2):
            for c in range(n):
                if c in (h, d):
                    continue
                if siblings is not None:
                    updated[h][d] += q[h][c] * siblings[h][d][c] / temperature
                if grandparents is not None:
                    updated[h][d] += q[d][c] * grandparents[h][d][c] / temperature
                    updated[h][d] += q[c][h] * grandparents[c][h][d] / temperature
        field = updated
    return normalised(field)


def label_targets(
    arcs: Mapping[tuple[int, ...], float],
    heads: Sequence[Sequence[int]],
    relations: Sequence[Sequence[int]] | None,
    n: int,
) -> list[list[float]]:
    """Mass of every label of every word, before renormalisation: [d][k].

    `arcs` gives the teacher's probability of (head, dependent) or (head, dependent, relation). Labels that name the
    same thing share it equally; labels that name no word of the sentence get nothing.
    """
    labelled = any(len(arc) == 3 for arc in arcs)
    if labelled and relations is None:
        summed: dict[tuple[int, ...], float] = {}
        for (head, dependent, _), p in arcs.items():
            summed[head, dependent] = summed.get((head, dependent), 0.0) + p
        arcs, labelled = summed, False
    targets = []
    for d in range(n):
        names: list[tuple[int, ...] | None] = []
        for k, head in enumerate(heads[d]):
            if not 0 <= head < n:
                names.append(None)
            elif labelled:
                assert relations is not None
                names.append((head, d, relations[d][k]))
            else:
                names.append((head, d))
        targets.append([0.0 if name is None else arcs.get(name, 0.0) / names.count(name) for name in names])
    return targets
