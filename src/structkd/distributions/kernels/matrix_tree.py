"""The matrix-tree theorem: sums over all dependency trees."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import trees
from .arithmetic import NEG_INF, logaddexp, logsumexp, working_precision

# The largest error of a marginal. Sentences that may have a larger one are computed again without subtractions.
_LARGEST_ERROR = 1e-10

# Number of arc scores to process at a time, so that temporary tensors are small.
_CELLS = 1 << 16


def kd(
    teacher: Tensor, student: Tensor, lengths: Tensor, multiroot: bool, temperature: float
) -> tuple[Tensor, Tensor] | None:
    """Compute the structural loss of all trees, crossing arcs included.

    Args:
        teacher, student: arc scores [B, N, N]; cell [b, h, d] for head h and dependent d, root arcs on the diagonal;
            anything may be in the padding.
        lengths: LongTensor [B], 1..N.
        multiroot: whether several words may be attached to the root, rather than exactly one.
        temperature: T; the scores of both sides are divided by it.

    Returns:
        T^2 (log Z_s - <P_t, s_s / T>), [B], and T (P_s - P_t), [B, N, N] in the student's dtype; None if a side has no
        tree.

    Costs O(N^3) time a sentence.
    """
    return trees.kd("matrix_tree", _kd_by_determinant, expectations, teacher, student, lengths, multiroot, temperature)


def expectations(arcs: Tensor, lengths: Tensor, multiroot: bool) -> tuple[Tensor, Tensor]:
    """Compute log Z [B] and arc marginals [B, N, N], without a graph; log Z = -inf if there is no tree.

    Arguments as in `kd`, scores in working precision. Without the compiled kernel, marginals come from one LU
    factorization if that is accurate, else from elimination in log space. Costs O(N^3) time a sentence.
    """
    if not len(arcs):
        return arcs.new_zeros(0), torch.zeros_like(arcs)
    log_partition, marginals = trees.expectations(
        "matrix_tree", _expectations_by_determinant, log_matrix_tree, arcs, lengths, multiroot
    )
    if arcs.amin() == NEG_INF:
        # Rounding may leave a small number, but an arc that is in no tree must have probability exactly 0.
        marginals = marginals.masked_fill(~arcs_in_some_tree(arcs, lengths, multiroot), 0.0)
    return log_partition, marginals


def _expectations_by_determinant(arcs: Tensor, lengths: Tensor, multiroot: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Compute log Z [B], marginals [B, N, N] and whether they are certified, BoolTensor [B], from one LU factorization.

    Arguments as in `expectations`.
    """
    outside = trees.outside(lengths, arcs.shape[1])
    scores = arcs if outside is None else arcs.masked_fill(outside, NEG_INF)
    heads, best = _heads(scores, outside), scores.amax(1)
    likeliest = heads.amax(1)
    pivots, marginals, columns = _by_determinant(heads, multiroot)
    safe = _certified(columns, likeliest)
    if outside is not None:
        padding = outside.diagonal(0, 1, 2)
        best, likeliest = best.masked_fill_(padding, 0.0), likeliest.masked_fill_(padding, 1.0)
    return _log_product(pivots, likeliest) + best.sum(1), marginals.clamp_(0.0, 1.0), safe


def _kd_by_determinant(
    teacher: Tensor, student: Tensor, lengths: Tensor, multiroot: bool, temperature: float
) -> tuple[Tensor, Tensor] | None:
    """Compute `kd` from one LU factorization of both sides; None if that is not certified or a loss is infinite."""
    batch, words, _ = student.shape
    at_once = max(1, _CELLS // words**2)
    if batch <= at_once or not student.is_cpu:
        return _piece_by_determinant(teacher, student, lengths, multiroot, temperature)
    pieces = []
    for first in range(0, batch, at_once):
        block = slice(first, first + at_once)
        piece = _piece_by_determinant(teacher[block], student[block], lengths[block], multiroot, temperature)
        if piece is None:
            return None
        pieces.append(piece)
    losses, gradients = zip(*pieces, strict=True)
    return torch.cat(losses), torch.cat(gradients)


def _piece_by_determinant(
    teacher: Tensor, student: Tensor, lengths: Tensor, multiroot: bool, temperature: float
) -> tuple[Tensor, Tensor] | None:
    """Compute `_kd_by_determinant` for all sentences together."""
    batch, words, _ = student.shape
    both = torch.cat((teacher, student)).to(working_precision(student))
    if temperature != 1:
        both.div_(temperature)
    outside = trees.outside(lengths, words)
    padding = None if outside is None else outside.repeat(2, 1, 1)
    if padding is not None:
        both.masked_fill_(padding, NEG_INF)
    heads = _heads(both, padding)
    likeliest = heads.amax(1)
    pivots, marginals, columns = _by_determinant(heads, multiroot)
    if columns is not None and not _certified(columns, likeliest).all():
        return None
    target, gap = marginals.chunk(2)
    # Every word has one head, so a constant added to all its scores shifts log Z_s and the expected score equally.
    scores, likeliest = both[batch:], likeliest[batch:]
    scores.sub_(scores.amax(1, keepdim=True))
    if outside is not None:
        scores.masked_fill_(outside, 0.0)
        likeliest.masked_fill_(outside.diagonal(0, 1, 2), 1.0)
    loss = _log_product(pivots[batch:], likeliest).sub_(scores.mul_(target).sum((1, 2)))
    if not math.isfinite(loss.sum()):  # an impossible arc may give inf - inf
        return None
    gradient = gap.sub_(target).to(student.dtype)
    if temperature != 1:
        loss.mul_(temperature**2)
        gradient.mul_(temperature)
    return loss, gradient


def _heads(scores: Tensor, outside: Tensor | None) -> Tensor:
    """Compute the softmax of every word's scores over heads, [B, N, N] in working precision.

    The result is 0 in the padding, where scores are -inf, and NaN for a word without a possible head.
    """
    heads = scores.softmax(1, dtype=working_precision(scores))
    return heads if outside is None else heads.masked_fill_(outside, 0.0)


def _by_determinant(heads: Tensor, multiroot: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Compute the determinant of the Laplacian and marginals from its inverse (Koo et al., 2007).

    Roots are on the diagonal (multi-root) or in the first row (single root). Z is then the determinant, and marginals
    are differences of entries of the inverse.

    Args:
        heads: [B, N, N], weights of the arcs from `_heads`; overwritten. Their normalization changes no marginal,
            because every word has one head. `_log_product` undoes its effect on Z.

    Returns:
        Pivots [B, N], whose product is the determinant up to its sign; marginals [B, N, N], whose errors may put them
        outside 0..1; and column sums that bound the error (see `_certified`), None if it is small for all sentences.
    """
    # Use the negative Laplacian, in which arcs keep their sign. The signs of rows do not affect the results below.
    laplacian = heads
    diagonal = laplacian.diagonal(0, 1, 2)
    roots = diagonal.clone()
    if multiroot:
        diagonal.fill_(-1.0)
    else:
        diagonal.sub_(1.0)
        row = laplacian.select(1, 0)
        of_first = row.clone()
        row.copy_(roots)
    factors, pivots, _ = torch.linalg.lu_factor_ex(laplacian)
    # LAPACK stores matrices by column, and an identity in this layout is the fastest to copy.
    identity = torch.eye(laplacian.shape[1], dtype=laplacian.dtype, device=laplacian.device).mT
    inverse = torch.linalg.lu_solve(factors, pivots, identity)
    columns = _columns(inverse)

    diagonal_inverse = inverse.diagonal(0, 1, 2)
    if multiroot:
        at_root = roots.mul_(diagonal_inverse).neg_()
    else:
        # The first row holds root scores in place of the arcs from the first word, which are restored here.
        column = inverse.select(2, 0)
        at_root = roots.mul_(column)
        column.zero_()
        row.copy_(of_first)
    marginals = torch.sub(inverse.mT, diagonal_inverse.unsqueeze(1)).mul_(laplacian)
    marginals.diagonal(0, 1, 2).copy_(at_root)
    return factors.diagonal(0, 1, 2), marginals, columns


def _log_product(pivots: Tensor, likeliest: Tensor) -> Tensor:
    """Compute log |prod_n pivots[b, n] / likeliest[b, n]|, [B].

    Here `likeliest` [B, N] is the probability of every word's likeliest head. The result is log Z for scores whose
    maximum is 0 for every word: the weight of such a head is 1, and the softmax scaled it to that probability.
    """
    return pivots.div(likeliest).abs_().log_().sum(1)


def _largest_column(dtype: torch.dtype) -> float:
    """Return the largest absolute column sum of an inverse that is accurate if the likeliest head has probability 1.

    Norms are largest absolute column sums. Rounding changes the Laplacian L by E with |E| < eps * |L|, and its inverse
    X by X E X, whose norm is below eps * |L| * |X|^2. |L| is 3 at most, and a marginal is the product of a head's
    probability and a difference of entries of the inverse.
    """
    return math.sqrt(_LARGEST_ERROR / (3 * torch.finfo(dtype).eps))


def _columns(inverse: Tensor) -> Tensor | None:
    """Compute the largest absolute column sums [B] of inverses [B, N, N]; None if all are below `_largest_column`.

    One cheap pass is tried first. An entry of X E X is at most the largest entry of X, times |E|, times the largest
    column sum of X, which is at most sqrt(N) times the Frobenius norm F of X. So sqrt(N) F^2 can replace |X|^2. The F
    of all sentences together bounds that of each, and is small enough for most batches.
    """
    frobenius = float(torch.linalg.vector_norm(inverse))
    if frobenius * inverse.shape[1] ** 0.25 < _largest_column(inverse.dtype):
        return None
    return inverse.abs().sum(1).amax(1)


def _certified(columns: Tensor | None, likeliest: Tensor) -> Tensor:
    """Return whether marginals are accurate to `_LARGEST_ERROR`, BoolTensor [B]; False for NaN.

    Args:
        columns: from `_columns`.
        likeliest: probabilities [B, N] of every word's likeliest head.
    """
    if columns is None:
        return torch.ones_like(likeliest[:, 0], dtype=torch.bool)
    return columns * likeliest.amax(1).sqrt() < _largest_column(columns.dtype)


def log_matrix_tree(arcs: Tensor, lengths: Tensor, multiroot: bool) -> Tensor:
    """Compute the log of the summed weight of all arborescences, [B]; exactly -inf if there is none.

    Args:
        arcs: [B, N, N] log weights, cell [b, h, d], root arcs on the diagonal, -inf for impossible.
        lengths: LongTensor [B], 1..N.
        multiroot: whether several words may be attached to the root, rather than exactly one.

    By the matrix-tree theorem, the sum is a determinant. Its floating-point value cancels if words prefer each other to
    the root. But the Laplacian is an M-matrix, so Gaussian elimination needs no subtraction if the diagonal is
    computed as a sum (Grassmann, Taksar and Heyman, 1985). Let p(n) = sum_h w(h, n) over the words left (and the root).
    To eliminate word n is to turn every path h -> n -> d into an arc of weight w(h, n) w(n, d) / p(n), and the
    determinant is the product of the p(n). Log space avoids underflow and overflow.

    With exactly one root arc, Z is the coefficient of e in the determinant for root weights e * r. The leading terms
    omit the root from every p(n) but the last, provided that the last word can reach all others.

    Costs O(N^3) time a sentence.
    """
    words = arcs.shape[1]
    inside = torch.arange(words, device=arcs.device) < lengths.unsqueeze(1)
    outside = ~(inside.unsqueeze(1) & inside.unsqueeze(2))
    itself = torch.eye(words, dtype=torch.bool, device=arcs.device)
    roots = arcs.diagonal(0, 1, 2).masked_fill(~inside, NEG_INF)
    weights = arcs.masked_fill(outside | itself, NEG_INF)
    if not multiroot:
        # A word that can be the root and reach all others must come last.
        order = _root_last(weights.detach(), roots.detach(), inside)
        roots, inside = roots.gather(1, order), inside.gather(1, order)
        weights = weights.gather(1, order.unsqueeze(2).expand_as(weights))
        weights = weights.gather(2, order.unsqueeze(1).expand_as(weights))

    total = torch.zeros_like(roots[:, 0])
    for n in range(words - 1):
        into, out_of = weights[:, 1:, 0], weights[:, 0, 1:]
        pivot = logsumexp(torch.cat([roots[:, :1], into], 1) if multiroot else into)
        total = total + torch.where(inside[:, n], pivot, 0.0)
        # An isolated word (in the padding, or a dead end that makes Z zero) has no path to pass on.
        share = out_of - pivot.masked_fill(pivot == NEG_INF, 0.0).unsqueeze(1)
        roots = logaddexp(roots[:, 1:], roots[:, :1] + share)
        through = into.unsqueeze(2) + share.unsqueeze(1)
        weights = logaddexp(weights[:, 1:, 1:], through).masked_fill(itself[n + 1 :, n + 1 :], NEG_INF)
    return total + torch.where(inside[:, -1], roots[:, 0], 0.0)


def arcs_in_some_tree(arcs: Tensor, lengths: Tensor, multiroot: bool) -> Tensor:
    """Find the arcs h -> d (roots on the diagonal) that are part of at least one tree, BoolTensor [B, N, N].

    If a tree exists, these are the possible arcs whose head can be reached from a root word without passing d: the path
    to h and the arc to d extend to a tree over all reachable words. Costs O(N^3) time a step, and as many steps as the
    longest such path has arcs.
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
    """Find the words [B, N] from which arcs, BoolTensor [B, N, N], lead to every word of the sentence."""
    words = between.shape[1]
    reach = between.to(torch.float32) + torch.eye(words, device=between.device)
    for _ in range(max(words - 1, 1).bit_length()):
        reach = (reach @ reach).clamp_max_(1.0)
    return ((reach > 0) | ~inside.unsqueeze(1)).all(2) & inside


def _root_last(weights: Tensor, roots: Tensor, inside: Tensor) -> Tensor:
    """Return a permutation [B, N] of the words whose last word can be the single root, if there is such a word."""
    batch, words = roots.shape
    root = (_reaches_all(weights > NEG_INF, inside) & (roots > NEG_INF)).to(torch.int8).argmax(1)
    order = torch.arange(words, device=weights.device).repeat(batch, 1)
    order[:, -1] = root
    order.scatter_(1, root.unsqueeze(1), words - 1)
    return order
