"""Maximum spanning arborescences, the best and the k best (Chu and Liu, 1965; Edmonds, 1967; Tarjan, 1977).

Most sentences need no search, because the best heads of all words already form a tree. This is checked for the whole
batch at once. The other sentences are solved one by one, on dense matrices, by numpy or compiled code.
"""

from __future__ import annotations

import heapq
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...numbering import NOWHERE
from .arithmetic import NEG_INF
from .compiled.edmonds import edmonds
from .engines import compiled_for

Scores = NDArray[np.float64]
Solution = tuple[float, NDArray[np.int64], NDArray[np.int64]]


def maximum_arborescences(scores: Tensor, lengths: Tensor, single_root: bool = True) -> Tensor:
    """Find the best tree of every sentence.

    Args:
        scores: [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, root arcs on the diagonal, -inf for
            impossible. Cells beyond a sentence's length are ignored.
        lengths: LongTensor [B], 1..N.
        single_root: whether a tree has exactly one root arc, as in `maximum_arborescence`.

    Returns:
        Heads, LongTensor [B, N], root = own index; -1 in the padding, and throughout a sentence that has no tree.

    Costs O(N^2) time a sentence: O(log N) tensor operations for the batch, and a search for each sentence whose best
    heads do not form a tree.
    """
    scores = scores.detach()
    words = scores.shape[1]
    position = torch.arange(words, device=scores.device)
    inside = position < lengths.unsqueeze(1)
    best, heads = scores.masked_fill(~inside.unsqueeze(2), NEG_INF).max(1)
    heads = torch.where(inside, heads, position)
    # Follow heads 2^k steps at a time. In a tree, every word arrives at a root; in a cycle, none does.
    reached = heads
    for _ in range(max(words - 1, 1).bit_length()):
        reached = reached.gather(1, reached)
    roots = heads == position
    solved = roots.gather(1, reached).all(1) & ((best > NEG_INF) | ~inside).all(1)
    if single_root:
        solved &= (roots & inside).sum(1) == 1
    heads = heads.masked_fill(~inside, NOWHERE)
    unsolved = (~solved).nonzero().flatten()
    if len(unsolved):
        tables = scores[unsolved].cpu().numpy().astype(np.float64)
        found = np.full((len(unsolved), words), -1, dtype=np.int64)
        for row, (table, length) in enumerate(zip(tables, lengths[unsolved].tolist(), strict=True)):
            tree = maximum_arborescence(table[:length, :length], single_root)
            if tree is not None:
                found[row, :length] = tree
        heads[unsolved] = torch.from_numpy(found).to(heads.device)
    return heads


def k_best_arborescences(scores: Scores, k: int, single_root: bool) -> list[Solution]:
    """Find the k best trees over labeled arcs, best first; fewer if fewer exist.

    Args:
        scores: [N, N, L]; cell [h, d, l] scores relation l from head h to dependent d, root arcs on the diagonal,
            -inf for impossible.
        k: number of trees.
        single_root: whether a tree has exactly one root arc.

    Returns:
        A list of (score, heads [N], relations [N]). A root word is its own head.

    Lawler's (1972) partition splits the trees other than the best one by the first word at which they differ from it.
    The best tree of each part is a constrained arborescence problem. Costs O(k N) problems of O(N^2) time.
    """
    words = scores.shape[0]
    order = count()  # Breaks ties, since arrays cannot be compared.
    best = _best_labelled(scores, single_root)
    queue = [] if best is None else [(-best[0], next(order), best, scores, 0)]
    found: list[Solution] = []
    while queue and len(found) < k:
        _, _, solution, allowed, free = heapq.heappop(queue)
        found.append(solution)
        if len(found) == k:
            break
        _, heads, relations = solution
        for word in range(free, words):
            rest = allowed.copy()
            rest[heads[word], word, relations[word]] = -np.inf
            candidate = _best_labelled(rest, single_root)
            if candidate is not None:
                heapq.heappush(queue, (-candidate[0], next(order), candidate, rest, word))
            # The following parts keep the arc of this word.
            only = np.full_like(allowed[:, word], -np.inf)
            only[heads[word], relations[word]] = allowed[heads[word], word, relations[word]]
            allowed = allowed.copy()
            allowed[:, word] = only
    return found


def _best_labelled(scores: Scores, single_root: bool) -> Solution | None:
    relations = scores.argmax(-1)
    arcs = np.take_along_axis(scores, relations[..., None], -1)[..., 0]
    heads = maximum_arborescence(arcs, single_root)
    if heads is None:
        return None
    words = np.arange(len(heads))
    return float(arcs[heads, words].sum()), heads, relations[heads, words]


def maximum_arborescence(scores: Scores, single_root: bool = True) -> NDArray[np.int64] | None:
    """Find the heads [N] of the best tree (root = own index) in O(N^2) time; None if there is no tree.

    Args:
        scores: [N, N]; cell [h, d] scores the arc from head h to dependent d, root arcs on the diagonal, -inf for
            impossible.
        single_root: whether a tree has exactly one root arc. If the best tree has several, the number of root arcs is
            minimized before the score is maximized. This is exact, unlike a large penalty on root arcs.
    """
    best = scores.argmax(0)
    if _is_tree(best, single_root) and (scores[best, np.arange(len(best))] > -np.inf).all():
        return best
    compiled = compiled_for("arborescence")
    search = edmonds if compiled is None else compiled.edmonds
    # A word whose best head is the root keeps it in the best tree. If there are several, skip the ordinary search.
    # Otherwise it comes first, because the search for one root takes longer: it contracts nearly all words.
    several = single_root and _root_arcs(best) > 1
    heads = search(scores, reluctant_root=several)
    if single_root and not several and _root_arcs(heads) > 1:
        heads = search(scores, reluctant_root=True)
    return None if heads[0] < 0 or (single_root and _root_arcs(heads) > 1) else heads


def _is_tree(heads: NDArray[np.int64], single_root: bool) -> bool:
    roots = heads == np.arange(len(heads))
    if single_root and np.count_nonzero(roots) != 1:
        return False
    reached = heads
    for _ in range(len(heads).bit_length()):  # twice as many steps as before
        reached = reached[reached]
    return bool(roots[reached].all())


def _root_arcs(heads: NDArray[np.int64]) -> int:
    return int((heads == np.arange(len(heads))).sum())
