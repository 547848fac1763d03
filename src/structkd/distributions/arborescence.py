"""Maximum spanning arborescences, the best and the k best (Chu and Liu, 1965; Edmonds, 1967; Lawler, 1972).

Combinatorial search on one small dense score matrix at a time, in numpy.
"""

from __future__ import annotations

import heapq
from itertools import count

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Solution = tuple[float, NDArray[np.int64], NDArray[np.int64]]


def k_best_arborescences(scores: Scores, k: int, single_root: bool) -> list[Solution]:
    """The k best trees over labelled arcs, best first; fewer where fewer exist.

    Args:
        scores: [N, N, L]; cell [h, d, l] scores relation l from head h to dependent d, root arcs on the diagonal,
            -inf for impossible.
        k: how many. single_root: exactly one root arc.

    Returns (score, heads [N], relations [N]) each; a root word is its own head.

    Lawler's partition: the trees other than the best are split by the first word at which they leave it, and the
    best of each part is a constrained arborescence problem. O(k N) problems of O(N^3).
    """
    words = scores.shape[0]
    order = count()  # breaks ties before arrays would be compared
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
            # the parts that follow keep this word as it is
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
    """Heads [N] of the best tree (root = own index), or None where there is none.

    Args:
        scores: [N, N]; cell [h, d] scores the arc from head h to dependent d, root arcs on the diagonal, -inf for
            impossible.
        single_root: exactly one root arc. The number of root arcs is then minimised before the score is maximised, as
            pairs in lexicographic order: exact, unlike a large penalty on root arcs.
    """
    words = scores.shape[0]
    weights = np.full((words + 1, words + 1), -np.inf)
    weights[1:, 1:] = scores
    weights[0, 1:] = np.diagonal(scores)
    np.fill_diagonal(weights, -np.inf)
    penalty = np.zeros_like(weights)
    if single_root:
        penalty[0] = 1.0
    heads = _contract(weights, penalty)
    if heads is None or (single_root and (heads[1:] == 0).sum() != 1):
        return None
    heads = heads[1:] - 1
    return np.where(heads < 0, np.arange(words), heads)


def _contract(weights: Scores, penalty: Scores) -> NDArray[np.int64] | None:
    """Heads of the arborescence from node 0 with the least penalty and, among those, the largest weight."""
    nodes = weights.shape[0]
    heads = np.zeros(nodes, dtype=np.int64)
    for node in range(1, nodes):
        head = _preferred(weights[:, node], penalty[:, node])
        if head is None:
            return None
        heads[node] = head
    cycle = _cycle(heads)
    if cycle is None:
        return heads

    inside = np.zeros(nodes, dtype=bool)
    inside[cycle] = True
    outside = np.flatnonzero(~inside)
    # entering the cycle at v costs what v's arc within the cycle was worth
    members = np.array(cycle)
    entry_weight = weights[np.ix_(outside, members)] - weights[heads[members], members]
    entry_penalty = penalty[np.ix_(outside, members)] - penalty[heads[members], members]
    size = len(outside)
    small = np.full((size + 1, size + 1), -np.inf)
    small_penalty = np.zeros_like(small)
    small[:size, :size] = weights[np.ix_(outside, outside)]
    small_penalty[:size, :size] = penalty[np.ix_(outside, outside)]
    entered = np.zeros(size, dtype=np.int64)
    left_from = np.zeros(size, dtype=np.int64)
    for n in range(size):
        way_in = _preferred(entry_weight[n], entry_penalty[n])
        if way_in is not None:
            entered[n] = members[way_in]
            small[n, size], small_penalty[n, size] = entry_weight[n, way_in], entry_penalty[n, way_in]
        way_out = _preferred(weights[members, outside[n]], penalty[members, outside[n]])
        if way_out is not None and n > 0:
            left_from[n] = members[way_out]
            small[size, n], small_penalty[size, n] = (
                weights[left_from[n], outside[n]],
                penalty[left_from[n], outside[n]],
            )
    solved = _contract(small, small_penalty)
    if solved is None:
        return None
    result = heads.copy()
    for n in range(1, size):
        result[outside[n]] = left_from[n] if solved[n] == size else outside[solved[n]]
    way_in = solved[size]
    result[entered[way_in]] = outside[way_in]
    return result


def _preferred(weight: Scores, penalty: Scores) -> int | None:
    """Index of the least penalty, then the largest weight, among the possible; None where nothing is possible."""
    possible = weight > -np.inf
    if not possible.any():
        return None
    least = penalty[possible].min()
    return int(np.where(possible & (penalty == least), weight, -np.inf).argmax())


def _cycle(heads: NDArray[np.int64]) -> list[int] | None:
    """The nodes of one cycle in the graph of heads (node 0 has none), or None."""
    state = np.zeros(len(heads), dtype=np.int64)
    state[0] = -1
    for start in range(1, len(heads)):
        node = start
        while state[node] == 0:
            state[node] = start
            node = int(heads[node])
        if state[node] == start:
            cycle = [node]
            while heads[cycle[-1]] != node:
                cycle.append(int(heads[cycle[-1]]))
            return cycle
        # a finished path leads to the root
        node = start
        while state[node] == start:
            state[node] = -1
            node = int(heads[node])
    return None
