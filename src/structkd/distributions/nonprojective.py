"""Non-projective dependency trees by the matrix-tree theorem (Koo et al., 2007; Smith and Smith, 2007)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch_struct
from torch import Tensor

from .arborescence import k_best_arborescences
from .arcs import ArcDistribution
from .semirings import NEG_INF, Log, logaddexp, logsumexp
from .structure import Parts, adopts


class NonProjectiveDependencyCRF(ArcDistribution, torch_struct.NonProjectiveDependencyCRF):
    """A distribution over all dependency trees, crossing arcs included, factored over arcs.

    Arguments:
        log_potentials: [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, root arcs on the diagonal.
            Labelled: [B, N, N, L].
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        multiroot: allow several words to depend on the root.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    log Z is the matrix-tree determinant, but computed without a subtraction (see `log_matrix_tree`), so it is exact
    where a floating-point determinant cancels. `decode()` gives the maximum spanning arborescence (Chu and Liu, 1965;
    Edmonds, 1967) as heads [B, N], root = own index. Costs O(N^3) time in N parallel steps; a sample, N times that.
    Raises TypeError or ValueError for a wrong kind, shape, length or value.
    """

    tree = True

    def __init__(
        self,
        log_potentials: Tensor,
        lengths: Tensor | None = None,
        multiroot: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        self.multiroot = bool(multiroot)
        self._initialise(log_potentials, lengths, validate_args)

    def _with_scores(self, *scores: Tensor | None) -> NonProjectiveDependencyCRF:
        return NonProjectiveDependencyCRF(scores[0], self.lengths, self.multiroot, validate_args=False)  # type: ignore[arg-type]

    def _inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        # Only log Z has a programme here: elimination divides, so other semirings have none.
        arcs = logsumexp(parts[0]) if self.labelled else parts[0]
        return log_matrix_tree(arcs, lengths, self.multiroot)

    def _expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        value, (marginals,) = super()._expectations(parts)
        scores = parts[0].detach()
        if not ((scores == NEG_INF) & self._event_mask()).any():
            return value, (marginals,)
        # a derivative that should vanish does so up to rounding, but an arc in no tree must have probability 0
        arcs = scores.amax(-1) if self.labelled else scores
        possible = arcs_in_some_tree(arcs, self.lengths, self.multiroot)
        possible = possible.unsqueeze(-1) if self.labelled else possible
        return value, (torch.where(possible & (scores > NEG_INF), marginals, 0.0),)

    def _best(self) -> tuple[Tensor, Parts]:
        values, structures = self._k_best(1)
        return values[0], structures[0]

    def _solve(self, semiring: Any, parts: Parts, lengths: Tensor) -> tuple[Tensor, list[Parts]]:
        scores = parts[0] if self.labelled else parts[0].unsqueeze(-1)
        values = scores.new_full((semiring.k, scores.shape[0]), NEG_INF)
        events = scores.new_zeros(semiring.k, *scores.shape)
        tables = scores.cpu().numpy().astype(np.float64)
        for item, length in enumerate(lengths.tolist()):
            best = k_best_arborescences(tables[item, :length, :length], semiring.k, single_root=not self.multiroot)
            for rank, (value, heads, relations) in enumerate(best):
                values[rank, item] = value
                events[rank, item, heads, range(length), relations] = 1.0
        return values, [(event if self.labelled else event.squeeze(-1),) for event in events]

    def _sampled_parts(self, parts: Parts, lengths: Tensor) -> Parts:
        """Word by word, from the marginals given the heads already drawn: exact, and never a random walk that could
        circle for as long as two words prefer each other (Wilson, 1996).
        """
        scores = parts[0] if self.labelled else parts[0].unsqueeze(-1)
        words = scores.shape[1]
        arcs = logsumexp(scores)
        chosen = torch.zeros_like(arcs)
        for word in range(words):
            with torch.enable_grad():
                leaf = arcs.detach().requires_grad_()
                (marginals,) = torch.autograd.grad(log_matrix_tree(leaf, lengths, self.multiroot).sum(), leaf)
            here = (word < lengths).unsqueeze(-1)
            column = torch.where(here, marginals[:, :, word].clamp_min(0.0), torch.ones_like(marginals[:, :, word]))
            head = torch.multinomial(column, 1)
            keep = torch.zeros_like(column).scatter_(1, head, 1.0)
            chosen[:, :, word] = keep * here
            arcs = arcs.clone()
            arcs[:, :, word] = torch.where((keep == 0) & here, NEG_INF, arcs[:, :, word])
        if not self.labelled:
            return (chosen,)
        noise = torch.empty_like(scores).exponential_().clamp_min_(torch.finfo(scores.dtype).tiny).log_().neg_()
        relation = (scores + noise).argmax(-1, keepdim=True)
        return (torch.zeros_like(scores).scatter_(-1, relation, 1.0) * chosen.unsqueeze(-1),)


def log_matrix_tree(arcs: Tensor, lengths: Tensor, multiroot: bool) -> Tensor:
    """log of the summed weight of all arborescences, [B]; -inf exactly where there is none.

    Arguments:
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


@adopts(torch_struct.NonProjectiveDependencyCRF, NonProjectiveDependencyCRF)
def _adopt(trees: torch_struct.NonProjectiveDependencyCRF) -> NonProjectiveDependencyCRF:
    return NonProjectiveDependencyCRF(trees.log_potentials, trees.lengths, trees.multiroot)
