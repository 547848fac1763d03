"""Reasons why labels, heads, spans or indicators are not a structure of a class, sentence by sentence.

Each reason is a sentence without its subject, followed by the remedy. It comes with a BoolTensor [B] of the sentences
it applies to.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

Faults = dict[str, Tensor]

_ONCE = "and 0 elsewhere (for expected indicators: structkd.structural_kd_loss(indicators, student))"
SEVERAL_PARTS = f"has a word with no part or several. Indicators are 1 once for every word {_ONCE}"
SEVERAL_BIGRAMS = f"has two neighbours with no bigram or several. Indicators are 1 once for every pair {_ONCE}"
HEAD_BEYOND = "has a head beyond the sentence. Heads are 0-based, and a root is its own head"
CYCLE = "has arcs that form a cycle. Every word must reach the root by way of its heads"
ROOTS = (
    "has several roots, or none. Give the distribution multiroot=True, or hang all words but one from other words "
    "of the sentence"
)
CROSSING = (
    "has arcs that cross. Make the tree projective first, as the parser models do (structkd.models.parser.lift, for "
    "heads in CoNLL-U's numbering), or use NonProjectiveDependencyCRF"
)
CONTRADICTION = "has bigrams that contradict each other: a word is one label in the first and another in the second"
STRANGE_SPANS = "has indicators of spans that are neither 0 nor 1"
OVERLAP = "has spans that overlap. Every word lies in one span at most"
NOT_ONE_STRUCTURE = f"has cells that no structure has together. Indicators are 1 for its parts {_ONCE}"
NO_COMPLETION = "has known parts that no structure of the class has together"


def set_cells(event: Tensor, mask: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the cells of an event [B, ...] that are not 0, LongTensor [M, D].

    Args:
        mask: BoolTensor [B, W], the words that count; axes: those whose indices are words. Other cells are left out.
    """
    cells = _nonzero(event)
    inside = torch.stack([mask[cells[:, 0], cells[:, axis]] for axis in axes]).all(0)
    return cells if inside.all() else cells[inside]


def _nonzero(event: Tensor) -> Tensor:
    """Return `event.nonzero()`, on a CPU by numpy: it skips zeros eight at a time, and an event consists of them."""
    if not event.is_cpu:
        return event.nonzero()
    flat = torch.from_numpy(np.flatnonzero((event if event.dtype == torch.bool else event != 0).numpy()))
    return torch.stack(torch.unravel_index(flat, event.shape), 1)


def strange_values(event: Tensor, cells: Tensor) -> Tensor:
    """Return whether some of these cells of an event is not 1, BoolTensor [B]."""
    strange = torch.zeros(len(event), dtype=torch.bool, device=event.device)
    if event.dtype != torch.bool:
        strange[cells[event[tuple(cells.T)] != 1, 0]] = True
    return strange


def choices_of_event(
    event: Tensor, mask: Tensor, axis: int, others: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the cells that words choose, the words without a cell, and the sentences with a word of several.

    Args:
        event: [B, ...], anything in the padding.
        mask: BoolTensor [B, W], the words that count.
        axis: whose indices are the words that choose; others: the axes of words that are chosen.

    Returns:
        LongTensor [B, W, D], 0 for a word without a cell; BoolTensor [B, W]; and BoolTensor [B], also True for a cell
        that is not 1.
    """
    cells = set_cells(event, mask, (axis, *others))
    place = cells[:, 0] * mask.shape[1] + cells[:, axis]
    chosen = torch.zeros(mask.numel(), event.dim(), dtype=torch.long, device=event.device)
    chosen[place] = cells
    count = torch.bincount(place, minlength=mask.numel()).view_as(mask)
    return chosen.view(*mask.shape, event.dim()), (count == 0) & mask, strange_values(event, cells) | (count > 1).any(1)


def tree_faults(heads: Tensor, mask: Tensor, projective: bool, multiroot: bool) -> Faults:
    """Return the faults of heads that should form trees.

    Args:
        heads: LongTensor [B, N], 0-based, root = own index, within the sentence; anything in the padding.
        mask: BoolTensor [B, N], the words of the sentences.
        projective: whether arcs may not cross; multiroot: whether several words may be roots.

    Costs O(N log N) a sentence.
    """
    words = heads.shape[1]
    position = torch.arange(words, device=heads.device)
    heads = torch.where(mask, heads, position)
    roots = heads == position
    # following heads 2^k steps at a time: in a tree everybody arrives at a root, in a cycle nobody does
    reached = heads
    for _ in range(max(words - 1, 1).bit_length()):
        reached = reached.gather(1, reached)
    faults = {CYCLE: ~roots.gather(1, reached).all(1)}
    if not multiroot:
        faults[ROOTS] = (roots & mask).sum(1) != 1
    if projective:
        faults[CROSSING] = _crossing(heads, roots, position) & ~faults[CYCLE]
    return faults


def _crossing(heads: Tensor, roots: Tensor, position: Tensor) -> Tensor:
    """Return whether arcs of a tree cross, BoolTensor [B]; heads LongTensor [B, N] within the sentence.

    In a tree, arcs cross if and only if, between the two ends of an arc, some word has its head beyond them; a root's
    head lies before the sentence. Minima and maxima over all words between two ends come from those over runs of 2^k
    words, so that nothing of size N^2 is built.
    """
    left, right = torch.minimum(heads, position), torch.maximum(heads, position)
    least, most = left.masked_fill(roots, -1), right
    words, between = heads.shape[1], right - left - 1
    crossing = torch.zeros_like(roots)
    run = 1
    while run < words - 1:
        # an arc over run..2*run-1 words is covered by two runs, one from each end
        here = (between >= run) & (between < 2 * run)
        first, last = (left + 1).clamp_max(words - run), (right - run).clamp_min(0)
        lowest = torch.minimum(least.gather(1, first), least.gather(1, last))
        highest = torch.maximum(most.gather(1, first), most.gather(1, last))
        crossing |= here & ((lowest < left) | (highest > right))
        # entries near the end are of shorter runs, and no arc asks for them
        later = (position + run).clamp_max(words - 1).expand_as(heads)
        least, most = torch.minimum(least, least.gather(1, later)), torch.maximum(most, most.gather(1, later))
        run *= 2
    return crossing.any(1)
