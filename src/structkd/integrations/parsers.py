"""Parsers of other libraries: the biaffine parser of supar."""

from __future__ import annotations

from torch import Tensor

from ..distributions import HeadSelection, check_scores
from .words import prefix_lengths


def from_supar(s_arc: Tensor, s_rel: Tensor | None = None, mask: Tensor | None = None) -> HeadSelection:
    """Return the distribution of a biaffine parser of supar over heads.

    Its scores are [dependent, head] and have the root as the first word; ours are [head, dependent] without it, and
    root arcs are on the diagonal. The score of a word as its own head has no place: P(head) is supar's softmax over the
    other words and the root.

    Args:
        s_arc: [B, N+1, N+1]; cell [b, d, h] scores head h for dependent d; 0 is the root.
        s_rel: [B, N+1, N+1, L]; cell [b, d, h, l] scores relation l of that arc. None means unlabelled.
        mask: [B, N] over words (without the root), true at words, which come first. None means all.

    Returns:
        A HeadSelection over words, differentiable by the scores, with relations if they are given.

    Raises:
        TypeError or ValueError: for a wrong kind, shape or mask.

    >>> import torch
    >>> s_arc = torch.zeros(1, 3, 3)
    >>> s_arc[0, 1, 2] = s_arc[0, 2, 0] = 5.0  # the second word is the head of the first, and the root
    >>> from_supar(s_arc).decode().tolist()
    [[1, 1]]
    """
    check_scores("s_arc", s_arc, ("B", "N+1", "N+1"))
    batch, size, other = s_arc.shape
    if size != other or size < 2:
        raise ValueError(
            f"s_arc must have shape [B, N+1, N+1], dependents by heads with the root first, got {list(s_arc.shape)}."
        )
    if isinstance(mask, Tensor) and mask.shape == (batch, size):
        raise ValueError(
            f"The mask must have shape {[batch, size - 1]}, one truth value per word, got {list(mask.shape)}. Leave "
            "the root out: mask[:, 1:]."
        )
    lengths = prefix_lengths("mask", mask, batch, size - 1, s_arc.device)
    arcs = HeadSelection(_without_root(s_arc), lengths)
    if s_rel is None:
        return arcs
    check_scores("s_rel", s_rel, ("B", "N+1", "N+1", "L"))
    if s_rel.shape[:3] != s_arc.shape:
        raise ValueError(f"s_rel must have shape {[*s_arc.shape, 'L']} to go with s_arc, got {list(s_rel.shape)}.")
    return arcs.with_relations(_without_root(s_rel))


def _without_root(scores: Tensor) -> Tensor:
    """Return scores [B, N+1, N+1, ...] of dependents by heads as [B, N, N, ...] of heads by dependents."""
    words = scores[:, 1:, 1:].transpose(1, 2)
    root = scores[:, 1:, 0]
    if scores.dim() == 3:
        return words.diagonal_scatter(root, 0, 1, 2)
    return words.diagonal_scatter(root.transpose(1, 2), 0, 1, 2)
