"""Edmonds' search for the best tree of one sentence, one source for numpy and numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def edmonds(scores: NDArray[np.float64], reluctant_root: bool) -> NDArray[np.int64]:
    """Heads of the best tree; with a reluctant root, of the best among those with the fewest root arcs. -1: no tree.

    Every component (a word, or words that a cycle made one) takes its best arc from outside; cycles become components
    until there are none, and are opened again where a better-placed arc enters them. A component is one row: what
    each head offers for it, less what the component already has, and the word the head would attach. Only rows merge,
    so that each merger is a maximum over rows, and all of them cost O(N^2).

    A root arc enters a cycle in place of an arc between words, never of another root arc, so counting root arcs before
    weighing scores is to ask the root last.

    Runs as it is, or compiled by numba (`arborescence.edmonds`).
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
        here = int(component[start])
        if state[here] != unseen:
            continue
        path = [here]  # of rows, each taking its arc from the next
        while True:
            state[here] = on_path
            row = offers[here]
            head = int(row.argmax())
            offer = row[head]
            if not offer > -np.inf or (not reluctant_root and root[here] > offer):
                if not root[here] > -np.inf:
                    return np.full(words, -1)
                word_of[live[here]] = root_entry[here]
                break
            head_of[live[here]], word_of[live[here]] = head, int(entry[here, head])
            row -= offer
            root[here] -= offer
            target = int(component[head])
            if state[target] == unseen:
                here = target
                path.append(here)
                continue
            if state[target] == done:
                break
            # A cycle: its rows merge into the target's.
            merged, attached = offers[target], entry[target]
            parent[live[target]] = len(parent)
            while path[-1] != target:
                here = path.pop()
                row = offers[here]
                attached[:] = np.where(row > merged, entry[here], attached)
                merged[:] = np.maximum(row, merged)
                if root[here] > root[target]:
                    root[target], root_entry[target] = root[here], root_entry[here]
                component[component == here] = target
                parent[live[here]] = len(parent)
            merged[component == target] = -np.inf
            live[target] = len(parent)
            parent.append(-1)
            head_of.append(-1)
            word_of.append(-1)
            here = target
        for passed in path:
            state[passed] = done

    # What enters a component enters the one of its members around the word attached; the others keep their arcs.
    for outer in range(len(parent) - 1, words - 1, -1):
        inner = word_of[outer]
        while parent[inner] != outer:
            inner = parent[inner]
        head_of[inner], word_of[inner] = head_of[outer], word_of[outer]
    heads = np.array(head_of[:words])
    return np.where(heads < 0, np.arange(words), heads)
