"""Compiled kernels for students that parse by labelling words: the loss, and decoding from labels to arcs.

Words are processed one by one, in float64 probability space: the teacher's mass that the labels name, the softmax, the
loss and the gradient. Only the gradient is as large as the logits.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from . import edmonds as search
from .lanes import (
    WIDTH,
    aligned,
    aligned_zeros,
    exp,
    fma,
    inner,
    kernel,
    largest,
    load,
    load_first,
    maximum,
    splat,
    store,
    store_first,
    total,
    weighted,
)
from .runtime import array, common_dtype, launch, ranges


@inner
def _relations_of(scores, row, count, scale, mass, out, at):
    """Store mass * the softmax of a row of scores to out[at : at + count], rounded up to whole vectors."""
    start = row * count
    whole = count - count % WIDTH
    rest = load_first(scores, start + whole, count - whole, -math.inf)
    top = rest
    for v in range(0, whole, WIDTH):
        top = maximum(load(scores, start + v), top)
    down = splat(largest(top))
    rest = exp((rest - down) * scale)
    sums = rest
    for v in range(0, whole, WIDTH):
        x = exp((load(scores, start + v) - down) * scale)
        store(out, at + v, x)
        sums = sums + x
    share = splat(mass / total(sums))
    for v in range(0, whole, WIDTH):
        store(out, at + v, load(out, at + v) * share)
    if whole < count:
        store(out, at + whole, rest * share)


@kernel
def _kd(arcs, scores, logits, heads, relations, by_word, lengths, least, temperature, first, last, loss, gradient):
    """Compute sentences first..last - 1 of `kd`; return False if one cannot be certified."""
    words, size = logits.shape[1], logits.shape[2]
    count = scores.shape[1]
    kinds = max(count, 1)
    width = -(-kinds // WIDTH) * WIDTH
    scored, own, named, flat = scores.reshape(-1), logits.reshape(-1), heads.reshape(-1), gradient.reshape(-1)
    # cells: P(arc) P(relation | arc) by head and relation, and a last one of 0 for labels that name no word. known: the
    # dependent that a head's cells are of. seen, number: the last word with a label for the cell, and how many it has.
    nowhere = words * width
    cells, known = aligned_zeros(nowhere + 1), np.full(words, -1)
    seen, number = np.full(nowhere, -1), np.empty(nowhere + 1, np.int64)
    place = np.empty(size, np.uint64)  # a signed position would be looked at for whether it counts from the end
    target, power = aligned_zeros(size), aligned_zeros(size)
    factor, none, lowest = 1.0 / temperature, splat(0.0), -math.inf
    scale = splat(factor)
    for b in range(first, last):
        length = lengths[b]
        value = 0.0
        for d in range(length):
            word = b * words + d
            start = word * size
            of = start if by_word else 0
            shared = False
            for k in range(size):
                h = np.int64(named[np.uint64(start + k)])
                if h < 0 or h >= length:
                    place[k] = nowhere
                    target[k] = 0.0
                    continue
                if known[np.uint64(h)] != word:
                    known[h] = word
                    mass = arcs[b, h, d]
                    if count == 0:
                        cells[h * width] = mass
                    elif mass == 0.0:
                        cells[h * width : (h + 1) * width] = 0.0
                    else:
                        _relations_of(scored, (b * words + h) * words + d, count, scale, mass, cells, h * width)
                relation = 0
                if count > 0:
                    relation = relations[np.uint64(of + k)]
                    if relation < 0 or relation >= count:
                        return False
                cell = np.uint64(h * width + relation)
                shared |= seen[cell] == word
                seen[cell] = word
                place[k] = cell
                target[k] = cells[cell]
            if shared:
                for k in range(size):
                    number[place[k]] = 0
                for k in range(size):
                    number[place[k]] += 1
                for k in range(size):
                    target[k] /= number[place[k]]
            covered, top = none, splat(lowest)
            for v in range(0, size, WIDTH):
                covered = covered + load(target, v)
                top = maximum(load_first(own, start + v, size - v, lowest), top)
            mass, best = total(covered), largest(top)
            if not mass < 1.5 or best == lowest:
                return False
            if mass < least:
                flat[start : start + size] = 0.0
                continue
            down = splat(best)
            sums = none
            for v in range(0, size, WIDTH):
                x = exp((load_first(own, start + v, size - v, lowest) - down) * scale)
                store(power, v, x)
                sums = sums + x
            normal = total(sums)
            expected, renormalised, inverse = none, splat(1.0 / mass), splat(1.0 / normal)
            for v in range(0, size, WIDTH):
                p = load(target, v) * renormalised
                expected = expected + weighted(p, load_first(own, start + v, size - v, 0.0))
                store_first(flat, start + v, fma(load(power, v), inverse, none - p), size - v)
            value += best * factor + math.log(normal) - factor * total(expected)
        flat[(b * words + length) * size : (b + 1) * words * size] = 0.0
        loss[b] = temperature * temperature * value
        if not abs(loss[b]) < math.inf:
            return False
    return True


# The distance below a word's best score at which a label's probability is still a normal number.
_REPRESENTED = 600.0


@inner
def _powers(scores, at, size, out):
    """Store exp(score - best) of a word's labels to out; return its best and least score, and the log of the sum."""
    high, low = splat(-math.inf), splat(-math.inf)
    for k in range(0, size, WIDTH):
        high = maximum(load_first(scores, at + k, size - k, -math.inf), high)
        low = maximum(splat(0.0) - load_first(scores, at + k, size - k, math.inf), low)
    best, mass = largest(high), splat(0.0)
    for k in range(0, size, WIDTH):
        p = exp(load_first(scores, at + k, size - k, -math.inf) - splat(best))
        store(out, k, p)
        mass = mass + p
    return best, -largest(low), math.log(total(mass))


@kernel
def _log_arcs(logits, heads, lengths, first, last, arcs):
    """Compute sentences first..last - 1 of `log_arcs`, arcs [B, N, N] by dependent and head.

    Return False if a word's scores are all -inf, or if one is NaN or +inf.
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
            best, least, normaliser = _powers(flat, (b * words + d) * size, size, probabilities)
            if not (abs(best) < math.inf and abs(normaliser) < math.inf):
                return False
            sums[:n] = 0.0
            if least > best - _REPRESENTED:
                for k in range(size):
                    if 0 <= named[k] < n:
                        sums[named[k]] += probabilities[k]
                for h in range(n):
                    arcs[b, d, h] = math.log(sums[h]) - normaliser if sums[h] > 0.0 else -math.inf
                continue
            # Compare every arc with the best of its own labels, which may be far below the word's best.
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


@kernel
def _relations_of_arcs(logits, heads, relations, trees, lengths, count, first, last, best):
    """Compute sentences first..last - 1 of `relations_of_arcs`."""
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


_edmonds = inner(search.edmonds)


@inner
def _roots(heads):
    found = 0
    for word in range(len(heads)):
        if heads[word] == word:
            found += 1
    return found


@inner
def _is_tree(heads, single_root):
    """Return whether words that each choose a head (the root is their own) form a tree."""
    first = np.full(len(heads), -1)  # of every word: the word from which it was reached first
    for start in range(len(heads)):
        word = start
        while first[word] < 0:
            first[word] = start
            word = heads[word]
        if first[word] == start and heads[word] != word:
            return False
    return not single_root or _roots(heads) == 1


@kernel
def _trees_of_symbols(
    logits, symbols, candidates, labels_of, lengths, single_root, least_share, first, last, trees, labels
):
    """Compute sentences first..last - 1 of `trees_of_symbols`; return False if one needs `log_arcs`."""
    words, size = logits.shape[1:]
    count, most = labels_of.shape
    flat = logits.reshape(-1)
    powers, sums = aligned(size), np.empty(count)
    for b in range(first, last):
        n = lengths[b]
        arcs = np.full((n, n), -math.inf)  # by head and dependent
        naming = np.empty((n, n), np.int64)  # by dependent and head
        heads = np.zeros(n, np.int64)
        for d in range(n):
            best, least, normaliser = _powers(flat, (b * words + d) * size, size, powers)
            if not (abs(best) < math.inf and abs(normaliser) < math.inf and least - best > least_share):
                return False
            sums[:] = 0.0
            for k in range(size):
                sums[symbols[k]] += powers[k]
            top = -math.inf
            for s in range(count):
                h = np.int64(candidates[b, d, s])
                if 0 <= h < n:
                    score = math.log(sums[s]) - normaliser
                    arcs[h, d] = score
                    naming[d, h] = s
                    if score > top or (score == top and h < heads[d]):
                        top = score
                        heads[d] = h
            if top == -math.inf:
                return False
        if not _is_tree(heads, single_root):
            # As in `maximum_arborescence`: if several words prefer the root, skip the ordinary search.
            several = single_root and _roots(heads) > 1
            heads = _edmonds(arcs, several)
            if single_root and not several and _roots(heads) > 1:
                heads = _edmonds(arcs, True)
            if heads[0] < 0 or (single_root and _roots(heads) > 1):
                return False
        for d in range(n):
            h = heads[d]
            if not arcs[h, d] > -math.inf:
                return False
            own = labels_of[naming[d, h]]
            chosen = own[0]
            for k in range(1, most):
                if logits[b, d, own[k]] > logits[b, d, chosen]:
                    chosen = own[k]
            trees[b, d] = h
            labels[b, d] = chosen
    return True


def kd(
    arcs: Tensor,
    scores: Tensor | None,
    logits: Tensor,
    heads: Tensor,
    relations: Tensor | None,
    lengths: Tensor,
    least: float,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, bool]:
    """Compute the structural loss of words' labels that name heads, or heads and relations, and its gradient.

    Args:
        arcs: the teacher's arc marginals at T, [B, N, N] float64, cell [b, h, d].
        scores: [B, N, N, L], of relations given the arc; or None if they do not count.
        logits: the student's, [B, N, K].
        heads: integers [B, N, K] that labels name, as in `HeadLabeling`.
        relations: LongTensor [K] or [B, N, K], with `scores`; else None.
        lengths: LongTensor [B], 1..N.
        least: a word whose labels cover less than this of the teacher has neither loss nor gradient.
        temperature: T.

    Returns:
        T^2 times the loss, [B] float64; P_s - P_t, [B, N, K] in the student's dtype; and whether they can be relied on:
        they cannot, for one, if a label names a relation that the teacher lacks.

    Costs O(N K + N^2) time a sentence.
    """
    dtype = common_dtype(scores, logits)
    if heads.dtype not in (torch.int16, torch.int32):
        heads = heads.long()
    rows = scores.flatten(0, 2) if scores is not None else logits.new_empty(0, 0)
    loss, gradient = torch.empty(len(logits), dtype=torch.float64), torch.empty(logits.shape, dtype=dtype)
    arguments = (
        array(arcs),
        array(rows, dtype),
        array(logits, dtype),
        array(heads, heads.dtype),
        np.empty(0, np.int64) if relations is None else array(relations.flatten(), torch.long),
        relations is not None and relations.dim() == 3,
        array(lengths, torch.long),
        least,
        temperature,
    )
    ok = launch(_kd, ranges(len(logits), 8.0 * gradient.numel()), arguments, (loss, gradient))
    return loss, gradient.to(logits.dtype), ok


def log_arcs(logits: Tensor, heads: Tensor, lengths: Tensor) -> Tensor | None:
    """Compute log P(arc) [B, N, N], float64, by head and dependent, out of labels that name heads.

    Args:
        logits: [B, N, K] scores of labels. heads: integers [B, N, K], the head that label k names at word d.
        lengths: LongTensor [B].

    -inf if no label names the arc, 0 beyond the sentences. None if a word's scores are all -inf, or one is NaN or +inf.
    Costs O(N K) a sentence.
    """
    batch, words, size = logits.shape
    arcs = torch.empty(batch, words, words, dtype=torch.float64)
    arguments = array(logits, common_dtype(logits)), array(heads, heads.dtype), array(lengths, torch.long)
    return arcs.mT if launch(_log_arcs, ranges(batch, 3.0 * batch * words * size), arguments, (arcs,)) else None


def relations_of_arcs(
    logits: Tensor, heads: Tensor, relations: Tensor, trees: Tensor, lengths: Tensor, count: int
) -> Tensor | None:
    """Find the likeliest relation of every word's arc, LongTensor [B, N]; -1 in the padding and if there is none.

    Args:
        logits, heads, lengths: as in `log_arcs`.
        relations: LongTensor [K] or [B, N, K], the relation of label k, below `count`; those below 0 do not count.
        trees: LongTensor [B, N], the head of every word.

    The choice is among the labels that name the arc, or among all of the word's if none does. None if it does not
    compile. Costs O(N K) a sentence.
    """
    batch, words, size = logits.shape
    relations = relations.expand(logits.shape) if relations.dim() == 3 else relations.view(1, 1, size)
    given = array(logits, common_dtype(logits)), array(heads, heads.dtype), array(relations, torch.long)
    best = torch.full((batch, words), -1)
    arguments = *given, array(trees, torch.long), array(lengths, torch.long), count
    return best if launch(_relations_of_arcs, ranges(batch, 1.0 * batch * words * size), arguments, (best,)) else None


def trees_of_symbols(
    logits: Tensor,
    symbols: Tensor,
    candidates: Tensor,
    labels_of: Tensor,
    lengths: Tensor,
    multiroot: bool,
    least_share: float,
) -> tuple[Tensor, Tensor] | None:
    """Find the best trees out of labels that are pairs of a symbol and a relation, and the best label of every arc.

    Args:
        logits: [B, N, K] scores of labels.
        symbols: LongTensor [K], the symbol of every label.
        candidates: integers [B, N, H], the head that every symbol names.
        labels_of: LongTensor [H, R], the labels of every symbol, some of them repeated.
        lengths: LongTensor [B].
        multiroot: whether a tree may have several roots.
        least_share: the least probability of a label, beside the likeliest of its word.

    Returns:
        Heads, LongTensor [B, N], -1 in the padding, and labels, LongTensor [B, N]. None if a label is less probable, or
        a tree needs an arc that no label names. Costs O(N K + N^2) a sentence.
    """
    batch, words, size = logits.shape
    trees, labels = torch.full((batch, words), -1), torch.zeros(batch, words, dtype=torch.long)
    arguments = (
        array(logits, common_dtype(logits)),
        array(symbols, torch.long),
        array(candidates, candidates.dtype),
        array(labels_of, torch.long),
        array(lengths, torch.long),
        not multiroot,
        math.log(least_share),
    )
    over = ranges(batch, 3.0 * batch * words * size)
    return (trees, labels) if launch(_trees_of_symbols, over, arguments, (trees, labels)) else None
