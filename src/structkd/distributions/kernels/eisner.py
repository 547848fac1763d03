"""Eisner's algorithm (1996, 2000): sums and maxima over projective dependency trees.

Arcs are [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, root arcs on the diagonal, -inf for
impossible. With `multiroot`, a tree may have several root words, else exactly one.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from ...numbering import NOWHERE
from ..semirings import Log
from . import trees
from .arithmetic import NEG_INF
from .engines import compiled_for


def kd(
    teacher: Tensor, student: Tensor, lengths: Tensor, multiroot: bool, temperature: float
) -> tuple[Tensor, Tensor] | None:
    """Compute the structural loss of projective trees.

    Args:
        teacher, student: arc scores [B, N, N]; anything may be in the padding.
        lengths: LongTensor [B], 1..N.
        multiroot: whether several words may be attached to the root, rather than exactly one.
        temperature: T; the scores of both sides are divided by it.

    Returns:
        T^2 (log Z_s - <P_t, s_s / T>), [B], and T (P_s - P_t), [B, N, N] in the student's dtype; None if a side has no
        tree.

    Costs O(N^3) time a sentence.
    """
    return trees.kd("eisner", None, expectations, teacher, student, lengths, multiroot, temperature)


def expectations(arcs: Tensor, lengths: Tensor, multiroot: bool) -> tuple[Tensor, Tensor]:
    """Compute log Z [B] and arc marginals [B, N, N], without a graph; log Z = -inf if there is no tree.

    Arguments as in `kd`, scores in working precision and finite in the padding. Costs O(N^3) time a sentence.
    """
    return trees.expectations("eisner", None, partial(inside, Log()), arcs, lengths, multiroot)


def inside(semiring: Log, arcs: Tensor, lengths: Tensor, multiroot: bool) -> Tensor:
    """Compute the semiring sum over projective trees, [B], of arc elements [..., B, N, N], roots on the diagonal.

    Spans (i, j) are stored twice, by their start and by their end, with the width j - i on the last axis. So every sum
    over split points is one dot product of two slices. The root is attached last: the complete spans of its children
    tile the sentence, and each tiling is one derivation. Costs O(N^3) time and O(N^2) memory a sentence.
    """
    words = arcs.shape[-1]
    one = semiring.lift(arcs.new_zeros(arcs.shape[-3], words))
    zero = torch.full_like(one, NEG_INF)
    unit = one.unsqueeze(-1)
    # complete spans headed by their left word, and by their right word; last axis: width 0, 1, ...
    right_by_start, right_by_end, left_by_start, left_by_end = unit, unit, unit, unit
    # incomplete spans (an arc between the two ends); last axis: width 1, 2, ...
    arc_right_by_start = arc_left_by_end = one.unsqueeze(-1)[..., :0]

    for width in range(1, words):
        count = words - width
        pad = zero[..., :width]
        inner = semiring.dot(right_by_start[..., :count, :], left_by_end[..., width:, :].flip(-1))
        arc_right = semiring.times(inner, arcs.diagonal(width, -2, -1))
        arc_left = semiring.times(inner, arcs.diagonal(-width, -2, -1))
        arc_right_by_start = _widen(arc_right_by_start, torch.cat([arc_right, pad], -1))
        arc_left_by_end = _widen(arc_left_by_end, torch.cat([pad, arc_left], -1))
        right = semiring.dot(arc_right_by_start[..., :count, :], right_by_end[..., width:, :].flip(-1))
        left = semiring.dot(left_by_start[..., :count, :], arc_left_by_end[..., width:, :].flip(-1))
        right_by_start = _widen(right_by_start, torch.cat([right, pad], -1))
        right_by_end = _widen(right_by_end, torch.cat([pad, right], -1))
        left_by_start = _widen(left_by_start, torch.cat([left, pad], -1))
        left_by_end = _widen(left_by_end, torch.cat([pad, left], -1))

    roots = arcs.diagonal(0, -2, -1)
    if multiroot:
        # prefix[e]: sum over trees of the first e words. rooted[r]: the same, including r's left span and root arc.
        prefix = unit[..., 0, :]
        rooted = prefix[..., :0]
        for end in range(words):
            child = semiring.dot(prefix, left_by_end[..., end, : end + 1].flip(-1))
            rooted = _widen(rooted, semiring.times(child, roots[..., end]))
            prefix = _widen(prefix, semiring.dot(rooted, right_by_end[..., end, : end + 1].flip(-1)))
        return _pick(prefix, lengths)
    last = lengths - 1
    left_of_root = left_by_end.diagonal(0, -2, -1)
    position = torch.arange(words, device=arcs.device)
    reach = last.unsqueeze(-1) - position
    ending_last = last.view(-1, 1, 1).expand(*right_by_end.shape[:-2], 1, words)
    right_of_root = torch.take_along_dim(right_by_end, ending_last, -2).squeeze(-2)
    right_of_root = torch.take_along_dim(right_of_root, reach.clamp_min(0).expand(right_of_root.shape), -1)
    right_of_root = right_of_root.masked_fill(reach < 0, NEG_INF)
    return semiring.dot(semiring.times(left_of_root, roots), right_of_root)


def _widen(chart: Tensor, column: Tensor) -> Tensor:
    return torch.cat([chart, column.unsqueeze(-1)], -1)


def _pick(chart: Tensor, index: Tensor) -> Tensor:
    """Return chart [..., B, M] at index [B] of its last axis."""
    return torch.take_along_dim(chart, index.unsqueeze(-1).expand(*chart.shape[:-1], 1), -1).squeeze(-1)


def best_trees(arcs: Tensor, lengths: Tensor, multiroot: bool) -> Tensor:
    """Find the best projective tree of every sentence.

    Args:
        arcs: [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, root arcs on the diagonal, -inf for
            impossible. Cells beyond a sentence's length are ignored.
        lengths: LongTensor [B], 1..N.
        multiroot: whether several words may be attached to the root, rather than exactly one.

    Returns:
        Heads, LongTensor [B, N], root = own index; -1 in the padding, and throughout a sentence that has no tree.

    Eisner's algorithm (1996) costs O(N^3) time a sentence. torch takes N steps up, each over all spans of one width,
    which store their best split, and as many steps down as the tree of the best spans is deep.
    """
    compiled = compiled_for("eisner", arcs)
    if compiled is not None:
        found = compiled.best_trees(arcs, lengths, multiroot)
        if found is not None:
            return found
    batch, words, _ = arcs.shape
    position = torch.arange(words, device=arcs.device)
    # Cell [h, e] is the span headed by h that ends before e > h or begins with e <= h. `whole` holds complete spans,
    # `half` the incomplete ones, whose other end is a dependent of h.
    whole, half = arcs.new_full((batch, words, words + 1), NEG_INF), torch.full_like(arcs, NEG_INF)
    # The outermost dependent in a complete span, and the split between the two ends of an incomplete one.
    dependent, meeting = torch.zeros_like(whole, dtype=torch.long), torch.zeros_like(half, dtype=torch.long)
    for width in (0, 1):
        whole.diagonal(width, 1, 2).zero_()
    for width in range(1, words):
        first = position[: words - width]
        inner, split = (_band(whole, 0, 1, width) + _band(whole, width, 1, width)).max(2)
        meeting.diagonal(width, 1, 2).copy_(split + first + 1)
        for side in (width, -width):
            half.diagonal(side, 1, 2).copy_(inner + arcs.diagonal(side, 1, 2))
        right, split = (_band(half, 0, 1, width) + _band(whole.mT, width + 1, 1, width)).max(2)
        whole.diagonal(width + 1, 1, 2).copy_(right)
        dependent.diagonal(width + 1, 1, 2).copy_(split + first + 1)
        left, split = (_band(half, width, 0, width) + _band(whole.mT, 0, 0, width)).max(2)
        whole.diagonal(-width, 1, 2).copy_(left)
        dependent.diagonal(-width, 1, 2).copy_(split + first)

    heads = torch.full_like(dependent[..., 0], NOWHERE)
    item, head, edge = _hung_from_root(whole, arcs.diagonal(0, 1, 2), lengths, multiroot)
    heads[item, head] = head
    while len(item):
        composite = (edge != head) & (edge != head + 1)
        item, head, edge = item[composite], head[composite], edge[composite]
        word = dependent[item, head, edge]
        heads[item, word] = head
        middle = meeting[item, torch.minimum(head, word), torch.maximum(head, word)]
        item, head, edge = item.repeat(3), torch.cat([head, word, word]), torch.cat([middle, middle, edge])
    return heads


def _band(chart: Tensor, row: int, column: int, width: int) -> Tensor:
    """Return a view of the chart whose cell [b, i, k] is chart[b, row + i, column + i + k], for k < width."""
    sentence, down, right = chart.stride()
    shape = (len(chart), min(chart.shape[1:]) - width, width)
    return chart.as_strided(shape, (sentence, down + right, right), row * down + column * right)


def _hung_from_root(whole: Tensor, roots: Tensor, lengths: Tensor, multiroot: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Find the complete spans of the root words of the best trees.

    Args:
        whole: [B, N, N + 1] as in `best_trees`.
        roots: [B, N], scores of root arcs.
        lengths: LongTensor [B].

    Returns:
        Sentence, head and edge of the spans, two for every root word; none for a sentence without a tree.
    """
    words = roots.shape[1]
    position = torch.arange(words, device=roots.device)
    if not multiroot:
        right = whole.gather(2, lengths.view(-1, 1, 1).expand(-1, words, 1)).squeeze(2)
        total = (whole[:, :, 0] + roots + right).masked_fill_(position >= lengths.unsqueeze(1), NEG_INF)
        value, root = total.max(1)
        (item,) = (value > NEG_INF).nonzero(as_tuple=True)
        edges = torch.stack([torch.zeros_like(lengths), lengths])
        return item.repeat(2), root[item].repeat(2), edges[:, item].flatten()
    # done[e]: the best score of the first e words. rooted[r]: the same, plus that of r's left span and root arc.
    done, rooted = torch.zeros_like(whole[:, 0]), torch.zeros_like(roots)
    begin, last = torch.zeros_like(rooted, dtype=torch.long), torch.zeros_like(done, dtype=torch.long)
    for word in range(words):
        best, begin[:, word] = (done[:, : word + 1] + whole[:, word, : word + 1]).max(1)
        rooted[:, word] = best + roots[:, word]
        done[:, word + 1], last[:, word + 1] = (rooted[:, : word + 1] + whole[:, : word + 1, word + 1]).max(1)
    (item,) = (done.gather(1, lengths.unsqueeze(1)).squeeze(1) > NEG_INF).nonzero(as_tuple=True)
    end = lengths[item]
    spans = [(item[:0], item[:0], item[:0])]
    while len(item):
        root = last[item, end]
        start = begin[item, root]
        spans += [(item, root, start), (item, root, end)]
        item, end = item[start > 0], start[start > 0]
    item, head, edge = (torch.cat(column) for column in zip(*spans, strict=True))
    return item, head, edge
