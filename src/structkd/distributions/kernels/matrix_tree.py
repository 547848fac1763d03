"""The matrix-tree theorem: sums over all dependency trees."""

from __future__ import annotations

import torch
from torch import Tensor

from ..semirings import NEG_INF, logaddexp, logsumexp
from .dispatch import compiled_for, log_space

# A marginal is off by less than eps * |L| * |L^-1|^2 (norms of the largest column sums) for the Laplacian L with its
# columns scaled to 1. Sentences above this are done again without a subtraction.
_LARGEST_ERROR = 1e-10


def matrix_tree_expectations(arcs: Tensor, lengths: Tensor, multiroot: bool) -> tuple[Tensor, Tensor]:
    """log Z [B] and arc marginals [B, N, N], by the compiled kernel or from one LU factorisation where it is accurate.

    Arguments as in `log_matrix_tree`, in float64. An empty space gives log Z = -inf
    and marginals of no meaning.
    """
    compiled = compiled_for(arcs)
    if compiled is not None:
        log_partition, marginals, safe = compiled.matrix_tree_expectations(arcs, lengths, multiroot)
    else:
        log_partition, marginals, safe = _by_determinant(arcs, lengths, multiroot)
    if log_space():
        safe = torch.zeros_like(safe)
    if not safe.all():
        rest = (~safe).nonzero().flatten()
        with torch.enable_grad():
            leaf = arcs[rest].detach().requires_grad_()
            exact = log_matrix_tree(leaf, lengths[rest], multiroot)
            (expected,) = torch.autograd.grad(exact.sum(), leaf)
        log_partition[rest], marginals[rest] = exact.detach(), expected.clamp_min(0.0)
    if arcs.amin() == NEG_INF:
        # what should vanish does so up to rounding, but an arc in no tree must have probability 0
        marginals = marginals.masked_fill(~arcs_in_some_tree(arcs, lengths, multiroot), 0.0)
    return log_partition, marginals


def _by_determinant(arcs: Tensor, lengths: Tensor, multiroot: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Koo et al. (2007): with roots on the diagonal (multi-root) or in the first row (single root), log Z is the log
    determinant of the Laplacian, and marginals are entries of its inverse.
    """
    batch, words, _ = arcs.shape
    ragged = bool((lengths < words).any())
    scores = arcs
    if ragged:
        inside = torch.arange(words, device=arcs.device) < lengths.unsqueeze(1)
        scores = arcs.masked_fill(~(inside.unsqueeze(1) & inside.unsqueeze(2)), NEG_INF)
    # every word has one head, so a word's column may be scaled
    shift = scores.amax(1)
    shift.masked_fill_(shift == NEG_INF, 0.0)
    weights = (scores - shift.unsqueeze(1)).exp_()
    roots = weights.diagonal(0, 1, 2).clone()
    weights.diagonal(0, 1, 2).zero_()
    degree = weights.sum(1)
    if multiroot:
        degree += roots
    if ragged:
        degree.masked_fill_(~inside, 1.0)
    laplacian = -weights
    laplacian.diagonal(0, 1, 2).copy_(degree)
    if not multiroot:
        laplacian[:, 0] = roots
    factors, pivots, _ = torch.linalg.lu_factor_ex(laplacian)
    identity = torch.eye(words, dtype=arcs.dtype, device=arcs.device).expand(batch, -1, -1)
    inverse = torch.linalg.lu_solve(factors, pivots, identity)
    log_partition = factors.diagonal(0, 1, 2).abs().log_().add_(shift).sum(1)

    # columns of the Laplacian add up to no more than this
    size = degree.amax(1).mul_(2.0).add_(1.0)
    error = inverse.abs().sum(1).amax(1).square_().mul_(size)
    own = inverse.diagonal(0, 1, 2)
    if multiroot:
        at_root = roots * own
    else:
        # the first row holds the roots: it stands for no head, and its word's column for no other dependent
        first = inverse[:, :, 0]
        at_root = roots * first
        first.zero_()
    marginals = torch.sub(own.unsqueeze(1), inverse.transpose(1, 2), out=laplacian).mul_(weights).clamp_(0.0, 1.0)
    marginals.diagonal(0, 1, 2).copy_(at_root.clamp_(0.0, 1.0))
    return log_partition, marginals, error < _LARGEST_ERROR / torch.finfo(arcs.dtype).eps


def log_matrix_tree(arcs: Tensor, lengths: Tensor, multiroot: bool) -> Tensor:
    """log of the summed weight of all arborescences, [B]; -inf exactly where there is none.

    Args:
        arcs: [B, N, N] log weights, cell [b, h, d], root arcs on the diagonal, -inf for impossible.
        lengths: LongTensor [B]. multiroot: several root arcs, or exactly one.

    The matrix-tree theorem gives a determinant, whose floating-point value cancels as soon as words prefer each other
    to the root. The Laplacian is an M-matrix, so Gaussian elimination needs no subtraction if the diagonal is kept as
    the sum it is (Grassmann, Taksar and Heyman, 1985): eliminating word n, with weight p(n) = sum_h w(h, n) over the
    words left (and the root), turns every path h -> n -> d into an arc of weight w(h, n) w(n, d) / p(n); the
    determinant is the product of the p(n). In log space nothing under- or overflows either.

    With exactly one root arc, Z is the coefficient of e in the determinant for root weights e * r: leading terms
    leave the root out of every p(n) but the last, provided the last word can reach all others.
    """
    words = arcs.shape[1]
    inside = torch.arange(words, device=arcs.device) < lengths.unsqueeze(1)
    outside = ~(inside.unsqueeze(1) & inside.unsqueeze(2))
    itself = torch.eye(words, dtype=torch.bool, device=arcs.device)
    roots = arcs.diagonal(0, 1, 2).masked_fill(~inside, NEG_INF)
    weights = arcs.masked_fill(outside | itself, NEG_INF)
    if not multiroot:
        # the word that can be the root and reach all others goes last
        order = _root_last(weights.detach(), roots.detach(), inside)
        roots, inside = roots.gather(1, order), inside.gather(1, order)
        weights = weights.gather(1, order.unsqueeze(2).expand_as(weights))
        weights = weights.gather(2, order.unsqueeze(1).expand_as(weights))

    total = torch.zeros_like(roots[:, 0])
    for n in range(words - 1):
        into, out_of = weights[:, 1:, 0], weights[:, 0, 1:]
        pivot = logsumexp(torch.cat([roots[:, :1], into], 1) if multiroot else into)
        total = total + torch.where(inside[:, n], pivot, 0.0)
        # an isolated word (padding, or a dead end that makes Z zero) passes nothing on
        share = out_of - pivot.masked_fill(pivot == NEG_INF, 0.0).unsqueeze(1)
        roots = logaddexp(roots[:, 1:], roots[:, :1] + share)
        through = into.unsqueeze(2) + share.unsqueeze(1)
        weights = logaddexp(weights[:, 1:, 1:], through).masked_fill(itself[n + 1 :, n + 1 :], NEG_INF)
    return total + torch.where(inside[:, -1], roots[:, 0], 0.0)


def arcs_in_some_tree(arcs: Tensor, lengths: Tensor, multiroot: bool) -> Tensor:
    """BoolTensor [B, N, N]: the arcs h -> d (roots on the diagonal) that are part of at least one tree.

    Where a tree exists, those are the possible arcs whose head a root word reaches without passing d: the path to h and
    the arc to d extend to a tree over all that is reachable. O(N^3) a step, as many steps as the longest such path.
    """
    words = arcs.shape[1]
    inside = torch.arange(words, device=arcs.device) < lengths.unsqueeze(1)
    itself = torch.eye(words, dtype=torch.bool, device=arcs.device)
    possible = (arcs > NEG_INF) & inside.unsqueeze(1) & inside.unsqueeze(2)
    between = possible & ~itself
    roots = possible.diagonal(0, 1, 2)
    if not multiroot:
        roots = roots & _reaches_all(between, inside)
    step = between.to(torch.float32)
    reached = roots.unsqueeze(1) & ~itself  # [b, d, h]: from a root word to h, avoiding d
    while True:
        wider = (reached | (reached.to(torch.float32) @ step > 0)) & ~itself
        if torch.equal(wider, reached):
            break
        reached = wider
    return (between & reached.transpose(1, 2)) | torch.diag_embed(roots)


def _reaches_all(between: Tensor, inside: Tensor) -> Tensor:
    """BoolTensor [B, N]: the words from which arcs, BoolTensor [B, N, N], lead to every word of the sentence."""
    words = between.shape[1]
    reach = between.to(torch.float32) + torch.eye(words, device=between.device)
    for _ in range(max(words - 1, 1).bit_length()):
        reach = (reach @ reach).clamp_max_(1.0)
    return ((reach > 0) | ~inside.unsqueeze(1)).all(2) & inside


def _root_last(weights: Tensor, roots: Tensor, inside: Tensor) -> Tensor:
    """A permutation [B, N] of the words that puts one that can be the single root last, where there is one."""
    batch, words = roots.shape
    root = (_reaches_all(weights > NEG_INF, inside) & (roots > NEG_INF)).to(torch.int8).argmax(1)
    order = torch.arange(words, device=weights.device).repeat(batch, 1)
    order[:, -1] = root
    order.scatter_(1, root.unsqueeze(1), words - 1)
    return order
