"""Parsing by labels that name heads: the loss of such students, and decoding from labels to arcs.

In all functions, heads are integers [B, N, K]: label k of word d names the head heads[b, d, k]. The word d itself means
the root, and a number outside the sentence means that the label names no head. Lengths are LongTensor [B], 1..N. Costs
are O(N K + N^2) time a sentence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ...numbering import NOWHERE
from ..transition_counts import expected_score
from .arborescence import maximum_arborescence
from .arithmetic import NEG_INF, padding, sentences_at_once, working_precision
from .engines import compiled_for
from .relations import Relations

# A word has no loss if its labels name heads with less than this probability by the teacher.
_LEAST_COVERED = 1e-6


def kd(
    arcs: Tensor,
    relations: Relations | None,
    logits: Tensor,
    heads: Tensor,
    label_relations: Tensor | None,
    lengths: Tensor,
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Compute the structural loss to a teacher over arcs, and its gradient.

    Args:
        arcs: the teacher's arc marginals at T, [B, N, N], in working precision.
        relations: the teacher's relations given the arc, at T; None to compare heads only.
        logits: the student's scores [B, N, K], without a graph.
        heads: integers [B, N, K], the head that every label names.
        label_relations: LongTensor [K] or [B, N, K], the relation that every label names; used with `relations`.
        lengths: LongTensor [B], 1..N.
        temperature: T, which divides the logits.

    Returns:
        T^2 times the loss, [B], and P_s - P_t, [B, N, K], in the logits' dtype or better. If all labels of a word are
        impossible, the sentence's loss is not finite.
    """
    compiled = compiled_for("head_labels", logits)
    if compiled is not None and relations is not None:
        compiled = compiled_for("head_labels", logits, relations.scores)
    if compiled is not None:
        scores = None if relations is None else relations.scores
        named = heads, None if relations is None else label_relations
        loss, gap, ok = compiled.kd(arcs, scores, logits, *named, lengths, _LEAST_COVERED, temperature)
        if ok:
            return loss, gap
    loss = logits.new_empty(len(logits), dtype=working_precision(logits))
    gap = torch.empty_like(logits, dtype=torch.promote_types(logits.dtype, torch.float32))
    beyond = padding(lengths, logits.shape[1])
    for block, target in masses(arcs, relations, heads, label_relations, lengths):
        imitated = renormalised(target)
        tempered = logits[block].to(loss.dtype)  # This may be the caller's tensor, so it is not changed in place.
        if temperature != 1:
            tempered = tempered / temperature
        if beyond is not None:
            tempered = tempered.masked_fill(beyond[block].unsqueeze(-1), 0.0)
        probabilities = tempered.softmax(-1)
        # A word's normalizer is its best score less the logarithm of that label's probability.
        normalisers = tempered.amax(-1) - probabilities.amax(-1).log()
        loss[block] = (normalisers * imitated).sum(-1) - expected_score(target, tempered)
        gap[block] = probabilities.mul_(imitated.unsqueeze(-1)).sub_(target)
    return loss * temperature**2, gap


def masses(
    arcs: Tensor, relations: Relations | None, heads: Tensor, label_relations: Tensor | None, lengths: Tensor
) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of sentences with the teacher's probability of the arc (and relation) that each label names.

    Args: as in `kd`.

    Yields:
        A slice of the batch and masses [B', N, K], in the precision of the arcs, or of the relations' scores if
        relations are given. Labels of a word that name the same arc share its probability equally. Labels that name no
        head and labels in the padding get exactly 0.

    Raises:
        ValueError: if a label names a head and a relation that the teacher does not have.
    """
    words = arcs.shape[1]
    if not len(arcs):
        return
    if relations is not None and label_relations is not None:
        _check_relations(label_relations, relations.count, heads, lengths)
    # The position of the arc that a label names, by head, dependent and relation.
    count = 1 if relations is None else relations.count
    place = torch.arange(words, device=arcs.device).unsqueeze(1) * count
    by_word = None
    if relations is not None and label_relations is not None:
        chosen = label_relations.clamp(0, count - 1)
        if chosen.dim() == 1:
            place = place + chosen
        else:
            by_word = chosen
    ragged = padding(lengths, words) is not None
    at_once = sentences_at_once(heads)
    for first in range(0, len(arcs), at_once):
        block = slice(first, first + at_once)
        within = _clamped(heads[block], 0, words - 1)
        # Without padding, one comparison is enough.
        counted = named(heads[block], lengths[block]) if ragged else within == heads[block]
        cells = within.long().mul_(words * count).add_(place)
        if by_word is not None:
            cells += by_word[block]
        found_arcs = arcs[block] if relations is None else relations.times(arcs[block], block)
        cells, found_arcs = cells.flatten(1), found_arcs.flatten(1)
        found = found_arcs.gather(1, cells).view(counted.shape).masked_fill_(~counted, 0.0)
        # The number of labels of a word that name the arc; at most one in most encodings.
        sharing = torch.zeros(found_arcs.shape, dtype=torch.int32, device=cells.device)
        sharing.scatter_add_(1, cells, counted.flatten(1).int())
        if sharing.max() > 1:
            found /= sharing.gather(1, cells).view(found.shape).clamp_min(1)
        yield block, found


def _check_relations(relations: Tensor, count: int, heads: Tensor, lengths: Tensor) -> None:
    """Raise ValueError if a label names a head and a relation outside 0..count - 1."""
    if relations.min() >= 0 and relations.max() < count:
        return
    relations = relations.expand(heads.shape)
    wrong = named(heads, lengths) & ((relations < 0) | (relations >= count))
    if wrong.any():
        raise ValueError(
            f"The student's relations must lie in 0..{count - 1}, the range of the teacher's, got "
            f"{int(relations[wrong][0])}. Number the student's relations as in the teacher's inventory."
        )


def named(heads: Tensor, lengths: Tensor) -> Tensor:
    """Return BoolTensor [B, N, K]: True if a label of a word inside the sentence names a head inside it."""
    inside = torch.arange(heads.shape[1], device=heads.device) < lengths.unsqueeze(1)
    ends = lengths.unsqueeze(1) * inside  # 0 in the padding, so that no label there names a head
    return (heads >= 0) & (heads < ends.unsqueeze(-1))


def _clamped(heads: Tensor, least: int, most: int) -> Tensor:
    """Return a new tensor of heads clamped to least..most."""
    if heads.dtype not in (torch.int16, torch.int32):  # Smaller integers are faster, but bytes may not hold N.
        heads = heads.long()
    return heads.clamp(least, most)


def renormalised(mass: Tensor) -> Tensor:
    """Divide the masses of labels by their sum for each word, in place; set them to 0 if the sum is too small.

    Returns:
        The sums of the words' new masses, 1 or 0, [B, N].
    """
    covered = mass.sum(-1)
    enough = covered >= _LEAST_COVERED
    mass.mul_(torch.where(enough, 1 / covered.clamp_min(_LEAST_COVERED), 0.0).unsqueeze(-1))
    return enough.to(mass.dtype)


def log_arcs(logits: Tensor, heads: Tensor, lengths: Tensor) -> Tensor:
    """Compute log P(arc), [B, N, N] in working precision, by head and dependent.

    The probability of an arc is the sum over the labels that name it. The result is -inf if no label does, NaN for a
    word whose labels are all impossible, and arbitrary but not NaN in the padding.
    """
    compiled = compiled_for("head_labels", logits)
    if compiled is not None:
        found: Tensor | None = compiled.log_arcs(logits, heads, lengths)
        if found is not None:
            return found
    words = heads.shape[1]
    beyond, count = padding(lengths, words), words + 2
    arcs = logits.new_empty(len(logits), words, count, dtype=working_precision(logits))
    represented = -0.9 * math.log(torch.finfo(arcs.dtype).tiny)
    at_once = sentences_at_once(logits)
    for first in range(0, len(logits), at_once):
        block = slice(first, first + at_once)
        # Two more places collect heads before and behind the sentence.
        places = _clamped(heads[block], -1, words).add_(1).long()
        labels = logits[block].to(arcs.dtype, copy=True)
        if beyond is not None:
            labels.masked_fill_(beyond[block].unsqueeze(-1), 0.0)
        best = labels.amax(-1, keepdim=True)
        if (labels.amin(-1, keepdim=True) > best - represented).all():
            arcs[block] = torch.zeros_like(arcs[block]).scatter_add_(-1, places, labels.sub_(best).exp_()).log_()
        else:
            arcs[block] = _log_sums(labels, places, count)
    return (arcs - arcs.logsumexp(-1, keepdim=True))[..., 1:-1].mT


#: Labels less probable than this, beside the likeliest of their word, are left to the logarithms of `log_arcs`.
_REPRESENTED_SHARE = 1e-30


def trees_of_symbols(
    logits: Tensor,
    candidates: Tensor,
    symbols: Tensor,
    membership: Tensor,
    labels_of: Tensor,
    lengths: Tensor,
    multiroot: bool,
) -> tuple[Tensor, Tensor] | None:
    """Find the best trees, and the best label of every arc, if labels are pairs of a symbol and a relation.

    All labels of a symbol name one head, and no two symbols of a word do. Probabilities are therefore summed by symbol,
    by one matrix product, and heads are looked up for H symbols rather than K labels.

    Args:
        logits: [B, N, K]. lengths: LongTensor [B].
        candidates: integers [B, N, H], the head that every symbol names, as `heads` above.
        symbols: LongTensor [K], the symbol of every label.
        membership: the same as [K, H] in the logits' dtype; 1 if the label has the symbol, else 0.
        labels_of: LongTensor [H, R], the labels of every symbol, some of them repeated.
        multiroot: whether a tree may have several roots.

    Returns:
        Heads, LongTensor [B, N], -1 in the padding, and labels, LongTensor [B, N]. None if that needs the logarithms of
        `log_arcs`: if probabilities are too small, or a tree needs an arc that no label names.
    """
    compiled = compiled_for("head_labels", logits)
    if compiled is not None:
        found: tuple[Tensor, Tensor] | None = compiled.trees_of_symbols(
            logits, symbols, candidates, labels_of, lengths, multiroot, _REPRESENTED_SHARE
        )
        return found
    batch, words, _ = candidates.shape
    if not batch:
        return None
    beyond = padding(lengths, words)
    inside = None if beyond is None else (~beyond).flatten().nonzero()[:, 0]
    rows = logits.detach().flatten(0, 1)
    rows = rows if inside is None else rows.index_select(0, inside)
    powers = (rows - rows.amax(-1, keepdim=True)).exp_()
    if not bool(powers.amin() > _REPRESENTED_SHARE):
        return None
    sums = powers @ membership
    sums /= sums.sum(-1, keepdim=True)
    trees = np.full((batch, words), NOWHERE)
    labels = np.zeros((batch, words), np.int64)
    of_words, named, of_symbols = sums.double().numpy(), candidates.numpy(), labels_of.numpy()
    scores = rows.float().numpy() if rows.dtype.itemsize < 4 else rows.numpy()
    begin = 0
    for sentence, length in enumerate(lengths.tolist()):
        own = slice(begin, begin + length)
        begin = own.stop
        places = named[sentence, :length]
        arcs = np.zeros((length, length + 1))  # by dependent and head; the last head stands for none
        np.put_along_axis(arcs, np.where((places < 0) | (places >= length), length, places), of_words[own], 1)
        arcs = arcs[:, :length]
        with np.errstate(divide="ignore"):
            heads = maximum_arborescence(np.log(arcs.T), single_root=not multiroot)
        place = np.arange(length)
        if heads is None or not arcs[place, heads].all():
            return None
        several = of_symbols[(places == heads[:, None]).argmax(1)]
        best = np.take_along_axis(scores[own], several, 1).argmax(1)
        trees[sentence, :length], labels[sentence, :length] = heads, several[place, best]
    return torch.from_numpy(trees), torch.from_numpy(labels)


def relations_of_arcs(logits: Tensor, heads: Tensor, relations: Tensor, trees: Tensor, lengths: Tensor) -> Tensor:
    """Find the likeliest relation of every word's arc, LongTensor [B, N]; -1 in the padding and if there is none.

    Args:
        logits, heads, lengths: as in `kd`.
        relations: LongTensor [K] or [B, N, K], the relation that every label names; -1 names none.
        trees: LongTensor [B, N], the head of every word.

    The choice is the relation with the most probability among the labels that name the arc, or among all labels of the
    word if no possible label names the arc.
    """
    if not len(trees):
        return trees
    size = int(relations.max().clamp_min(0)) + 1
    compiled = compiled_for("head_labels", logits)
    if compiled is not None:
        found: Tensor | None = compiled.relations_of_arcs(logits, heads, relations, trees, lengths, size)
        if found is not None:
            return found
    words = heads.shape[1]
    dtype = heads.dtype if heads.dtype in (torch.int16, torch.int32) else torch.long
    wanted = trees.unsqueeze(-1).to(dtype)
    inside = torch.arange(words, device=logits.device) < lengths.unsqueeze(1)
    best, at_once = torch.empty_like(trees), sentences_at_once(logits)
    for first in range(0, len(logits), at_once):
        block = slice(first, first + at_once)
        usable = ((relations if relations.dim() == 1 else relations[block]) >= 0) & (logits[block] > NEG_INF)
        naming = (heads[block].to(dtype) == wanted[block]).logical_and_(usable)
        unnamed = inside[block] & ~naming.any(-1)
        if unnamed.any():
            naming |= unnamed.unsqueeze(-1) & usable
        # Few labels name one arc, so sums over these are cheap.
        item, word, label = naming.nonzero(as_tuple=True)
        chosen = item + first, word, label
        scores = logits[chosen].to(working_precision(logits))
        cell = (item * words + word) * size + relations.expand(logits.shape)[chosen]
        total = _log_sums(scores, cell, naming[..., 0].numel() * size).view(*naming.shape[:2], size)
        best[block] = total.argmax(-1).masked_fill_(~(naming.any(-1) & inside[block]), NOWHERE)
    return best


def _log_sums(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """Compute log sum exp by groups, from values and groups [..., K] to [..., count]; -inf for an empty group."""
    shape = (*values.shape[:-1], count)
    top = values.new_full(shape, NEG_INF).scatter_reduce(-1, groups, values, "amax")
    shift = top.masked_fill(top == NEG_INF, 0.0)
    return values.new_zeros(shape).scatter_add(-1, groups, (values - shift.gather(-1, groups)).exp()).log() + shift
