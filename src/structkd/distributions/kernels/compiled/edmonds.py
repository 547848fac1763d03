"""Edmonds' algorithm for the best tree of one sentence, in code that runs with numpy alone and that numba compiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def edmonds(scores: NDArray[np.float64], reluctant_root: bool) -> NDArray[np.int64]:
    """Find the heads of the best tree.

    Args:
        scores: [N, N]; cell [h, d] scores the arc from head h to dependent d, root arcs on the diagonal, -inf for
            impossible.
        reluctant_root: whether to find the best among the trees with the fewest root arcs, rather than the best tree.

    Returns:
        Heads [N], root = own index; all -1 if there is no tree.

    A component is a word or a contracted cycle. Every component takes its best arc from outside, and cycles are
    contracted until there are none. Then each cycle is opened again at the word that the arc from outside attaches. A
    component is one row of the table: for every head, the score of its best arc into the component, less the score
    already taken, and the word that this arc attaches. Contraction merges rows only, as a maximum over rows, so that
    all contractions together cost O(N^2) time.

    A root arc that enters a cycle replaces an arc between words, never another root arc. Taking root arcs last
    therefore minimizes their number before the score is maximized.
    """
    words = len(scores)
    offers = np.empty((words, words))  # row: component; column: head
    offers[:] = scores.T
    root = np.diag(offers).copy()
    np.fill_diagonal(offers, -np.inf)
    entry = np.empty((words, words), np.int64)  # the word that an offer would attach
    entry[:] = np.arange(words).reshape(-1, 1)
    root_entry = list(range(words))
    component = np.arange(words)  # of every word: the row of the component it lies in
    live = list(range(words))  # of every row: its component, numbered as they are found, words first
    # of every component: the one it became part of, the head it takes (-1: root), and the word attached
    parent, head_of, word_of = [-1] * words, [-1] * words, [-1] * words
    unseen, on_path, done = 0, 1, 2
    state = [unseen] * words  # of every row

    for start in range(words):
        current = int(component[start])
        if state[current] != unseen:
            continue
        path = [current]  # of rows, each taking its arc from the next
        while True:
            state[current] = on_path
            row = offers[current]
            head = int(row.argmax())
            offer = row[head]
            if not offer > -np.inf or (not reluctant_root and root[current] > offer):
                if not root[current] > -np.inf:
                    return np.full(words, -1)
                word_of[live[current]] = root_entry[current]
                break
            head_of[live[current]], word_of[live[current]] = head, int(entry[current, head])
            row -= offer
            root[current] -= offer
            target = int(component[head])
            if state[target] == unseen:
                current = target
                path.append(current)
                continue
            if state[target] == done:
                break
            # A cycle: its rows merge into the target's.
            merged, attached = offers[target], entry[target]
            parent[live[target]] = len(parent)
            while path[-1] != target:
                current = path.pop()
                row = offers[current]
                attached[:] = np.where(row > merged, entry[current], attached)
                merged[:] = np.maximum(row, merged)
                if root[current] > root[target]:
                    root[target], root_entry[target] = root[current], root_entry[current]
                component[component == current] = target
                parent[live[current]] = len(parent)
            merged[component == target] = -np.inf
            live[target] = len(parent)
            parent.append(-1)
            head_of.append(-1)
            word_of.append(-1)
            current = target
        for passed in path:
            state[passed] = done

    # An arc into a component enters the member that contains the attached word. Other members keep their arcs.
    for outer in range(len(parent) - 1, words - 1, -1):
        inner = word_of[outer]
        while parent[inner] != outer:
            inner = parent[inner]
        head_of[inner], word_of[inner] = head_of[outer], word_of[outer]
    heads = np.array(head_of[:words])
    return np.where(heads < 0, np.arange(words), heads)
