"""Compiled decoding of dependency trees: from labels to arcs, from arcs to trees. Entered through `compiled`."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np

from . import edmonds as plain
from .compiled_lanes import WIDTH, aligned, compiled, exp, largest, load_first, maximum, splat, store, total

edmonds = compiled(plain.edmonds)

# So far below a word's best score a label's probability is still an ordinary number.
_REPRESENTED = 600.0


@compiled
def log_arcs_of_labels(logits, heads, lengths, first, last, arcs):
    """Sentences first..last - 1 of `compiled.log_arcs_of_labels`, arcs [B, N, N] by dependent and head; False where a
    word's scores are all -inf, or one is NaN or +inf.
    """
    words, size = logits.shape[1:]
    flat = logits.reshape(-1)
    probabilities = aligned(size)
    sums, tops = np.empty(words), np.empty(words)
    arcs[first:last] = 0.0
    for b in range(first, last):
        n = lengths[b]
        for d in range(n):
            scores, named = logits[b, d], heads[b, d]
            at = (b * words + d) * size
            high, low = splat(-math.inf), splat(-math.inf)
            for k in range(0, size, WIDTH):
                high = maximum(load_first(flat, at + k, size - k, -math.inf), high)
                low = maximum(splat(0.0) - load_first(flat, at + k, size - k, math.inf), low)
            best, least = largest(high), -largest(low)
            if not abs(best) < math.inf:
                return False
            mass = splat(0.0)
            for k in range(0, size, WIDTH):
                p = exp(load_first(flat, at + k, size - k, -math.inf) - splat(best))
                store(probabilities, k, p)
                mass = mass + p
            normaliser = math.log(total(mass))
            if not abs(normaliser) < math.inf:
                return False
            sums[:n] = 0.0
            if least > best - _REPRESENTED:
                for k in range(size):
                    if 0 <= named[k] < n:
                        sums[named[k]] += probabilities[k]
                for h in range(n):
                    arcs[b, d, h] = math.log(sums[h]) - normaliser if sums[h] > 0.0 else -math.inf
                continue
            # every arc beside the best of its own labels, which may be far below the word's
            tops[:n] = -math.inf
            for k in range(size):
                if 0 <= named[k] < n:
                    tops[named[k]] = max(tops[named[k]], scores[k])
            for k in range(size):
                if 0 <= named[k] < n and scores[k] > -math.inf:
                    sums[named[k]] += math.exp(scores[k] - tops[named[k]])
            for h in range(n):
                arcs[b, d, h] = math.log(sums[h]) + (tops[h] - best) - normaliser if sums[h] > 0.0 else -math.inf
    return True


@compiled
def relations_of_arcs(logits, heads, relations, trees, lengths, count, first, last, best):
    """Sentences first..last - 1 of `compiled.relations_of_arcs`."""
    size = logits.shape[2]
    masses, naming = np.empty(count), np.empty(size, np.int64)
    for b in range(first, last):
        for d in range(lengths[b]):
            scores, named = logits[b, d], heads[b, d]
            relation = relations[min(b, len(relations) - 1), min(d, relations.shape[1] - 1)]
            head, found = trees[b, d], 0
            for k in range(size):
                if named[k] == head and relation[k] >= 0 and scores[k] > -math.inf:
                    naming[found] = k
                    found += 1
            if found == 0:
                for k in range(size):
                    if relation[k] >= 0 and scores[k] > -math.inf:
                        naming[found] = k
                        found += 1
            if found == 0:
                continue
            top = -math.inf
            for k in naming[:found]:
                top = max(top, scores[k])
            masses[:] = 0.0
            for k in naming[:found]:
                masses[relation[k]] += math.exp(scores[k] - top)
            best[b, d] = masses.argmax()
    return True
