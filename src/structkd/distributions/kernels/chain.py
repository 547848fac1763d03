"""Forward-backward for linear chains."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..semirings import NEG_INF, logsumexp, working_precision
from .counts import TransitionCounts
from .dispatch import chain_kernels, log_space

# Probability space is float64, every step renormalised to sum to 1, so what is lost in a step is below 1e-300 over
# the most that any label's score can grow in it. It may matter more at a later word (a garden path): by the most that
# any label's score can grow in a step, over what the kept total grew. The product of those ratios over all steps bounds
# what a loss amounts to in the end; where it is above this, less than 1e-15 of the result was lost.
_LOST = 1e-300
_SAFE = math.log(_LOST / 1e-15)
_SMALLEST = 1e-280


def factored_expectations(
    unary: Tensor, transitions: Tensor, lengths: Tensor, precision: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, list[TransitionCounts]]:
    """log Z [G, B], label marginals [G, B, N, C] and transition counts (G times) of chains that share transitions.

    Args:
        unary: [G, B, N, C] float64 scores of labels: G groups (a teacher and a student, say) of the same sentences.
        transitions: [G, C, C] float64, [next, previous], one for each group.
        lengths: LongTensor [B].
        precision: what the results are for; kernels may work in float32 where it is no more than that.

    Forward and backward messages of all groups run side by side, the latter over the reversed sentences: O(N C^2) time
    in N matrix products, O(B N C + C^2) memory. An empty space gives log Z = -inf and meaningless marginals.
    """
    kernels = chain_kernels(unary, precision)
    if kernels is None:
        log_partition, labels, counts, safe = _factored_in_probability_space(unary, transitions, lengths)
    else:
        log_partition, labels, counts, safe = kernels.factored(unary, transitions, lengths, precision)
    if not safe.all():
        # the sentences that probability space cannot vouch for, once more in log space
        log_partition, labels = log_partition.clone(), labels.clone()
        for group, rest in enumerate((~kept).nonzero().flatten() for kept in safe):
            shared = transitions[group].expand(len(rest), -1, -1)
            exact = log_space_expectations(unary[group, rest], shared, lengths[rest], per_bigram=False)
            log_partition[group, rest], labels[group, rest] = exact[0], exact[1]
            counts[group] = counts[group].replaced(rest, exact[2])
    return log_partition, labels, counts


def _factored_in_probability_space(
    unary: Tensor, transitions: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, list[TransitionCounts], Tensor]:
    groups, batch, words, _ = unary.shape
    position = torch.arange(words, device=unary.device)
    inside = position < lengths.unsqueeze(1)
    mirrored = torch.where(inside, lengths.unsqueeze(1) - 1 - position, position)  # [B, N], its own inverse
    mirrored = mirrored.view(1, batch, words, 1).expand(unary.shape)

    shift = _finite(unary.amax(-1, keepdim=True))
    emitted = (unary - shift).exp_()
    largest = _finite(transitions.amax((1, 2)))
    moved = (transitions - largest.view(-1, 1, 1)).exp_()
    # rows of groups: first those that run forward, then those over the reversed sentences
    emitted = torch.cat([emitted, emitted.gather(2, mirrored)]).permute(2, 0, 1, 3).contiguous()  # [N, 2G, B, C]
    step = torch.cat([moved.transpose(1, 2), moved])

    reached = torch.empty_like(emitted)  # before the word's own score
    message = torch.empty_like(emitted)  # after it, summing to 1
    norm = emitted.new_empty(words, 2 * groups, batch, 1)
    reached[0] = 1.0
    torch.sum(emitted[0], -1, keepdim=True, out=norm[0])
    before = torch.div(emitted[0], norm[0], out=message[0])
    for word, after, scores, total in zip(
        reached.unbind()[1:], message.unbind()[1:], emitted.unbind()[1:], norm.unbind()[1:], strict=True
    ):
        torch.bmm(before, step, out=word)
        torch.mul(word, scores, out=after)
        torch.sum(after, -1, keepdim=True, out=total)
        before = after.div_(total)

    by_sentence = message[:, :groups].permute(1, 2, 0, 3)  # [G, B, N, C]
    backward = reached[:, groups:].permute(1, 2, 0, 3).gather(2, mirrored)
    labels = by_sentence * backward
    mass = labels.sum(-1, keepdim=True)
    labels.div_(mass).masked_fill_(~inside.unsqueeze(-1), 0.0)

    following = message[:, groups:].permute(1, 2, 0, 3).gather(2, mirrored)[:, :, 1:]
    joint = (following * reached[1:, :groups].permute(1, 2, 0, 3)).sum(-1, keepdim=True)
    outer = ~inside[:, 1:].unsqueeze(-1)
    following = (following / joint).masked_fill_(outer, 0.0)
    preceding = by_sentence[:, :, :-1].masked_fill(outer, 0.0)
    counts = [TransitionCounts((following[g], preceding[g], moved[g])) for g in range(groups)]

    norm = norm.squeeze(-1)  # [N, 2G, B]
    beyond = outer.squeeze(-1).T.unsqueeze(1)
    # a bound on growth that costs little; where that does not do, the growth itself, which costs another product
    safe = _certified(norm[1:], (emitted[1:] @ step.amax(1).unsqueeze(-1)).squeeze(-1), beyond)
    if not safe.all():
        safe |= _certified(norm[1:], (emitted[1:] @ step.transpose(1, 2)).amax(-1), beyond)
    if not safe.all():
        # nothing was lost if nothing came near to it
        smallest = message.amin(-1).masked_fill_(_past(inside), 1.0).amin(0)
        safe |= smallest.minimum(step.amin((1, 2)).unsqueeze(-1)) > _SMALLEST
    safe = safe.unflatten(0, (2, groups)).all(0)
    least = torch.cat([mass.masked_fill(~inside.unsqueeze(-1), 1.0), joint.masked_fill(outer, 1.0)], 2)
    safe &= least.amin((2, 3)) > _SMALLEST
    if log_space() or unary.dtype != torch.float64:
        safe = torch.zeros_like(safe)
    scale = (norm[:, :groups].permute(1, 2, 0).log() + shift.squeeze(-1)).masked_fill_(~inside, 0.0).sum(2)
    return scale + (lengths - 1) * largest.unsqueeze(1), labels, counts, safe


def _certified(norm: Tensor, growth: Tensor, beyond: Tensor) -> Tensor:
    """Whether losses amount to nothing in the end, [2G, B], of what was kept and may have grown, [N-1, 2G, B]."""
    if norm.shape[0] == 0:
        return torch.ones_like(norm.sum(0), dtype=torch.bool)
    kept = (norm / growth).log_().masked_fill_(beyond, 0.0).sum(0)
    least = growth.masked_fill(beyond, 1.0).amin(0).clamp_max_(1.0)
    return kept + least.log() > _SAFE


def _past(inside: Tensor) -> Tensor:
    """BoolTensor [N, 1, B]: beyond the sentence."""
    return ~inside.T.unsqueeze(1)


def dense_expectations(
    sides: Sequence[Tensor], lengths: Tensor, temperature: float = 1.0, precision: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """log Z [G, B], label marginals [G, B, N, C] and bigram marginals [G, B, N-1, C, C] of chains scored per bigram.

    Args:
        sides: G tensors [B, N-1, C, C] of any floating dtype, [next, previous]; anything may be in the padding.
        lengths: LongTensor [B]. temperature: scores are divided by it.
        precision: what the results are for; where it is no more than float32, kernels may return marginals in that.

    The backward pass needs no second recursion over scores: P(i | j) follows from the forward messages. O(N C^2) in a
    handful of passes over the scores, which are read once.
    """
    kernels = chain_kernels(sides[0], precision)
    if kernels is None:
        log_partition, labels, bigram_marginals, safe = _dense_in_probability_space(sides, lengths, temperature)
    else:
        log_partition, labels, bigram_marginals, safe = kernels.dense(sides, lengths, temperature, precision)
    if not safe.all():
        words, dtype = labels.shape[2], working_precision(sides[0])
        inner = torch.arange(words - 1, device=lengths.device) < (lengths - 1).unsqueeze(1)
        for group, rest in enumerate((~kept).nonzero().flatten() for kept in safe):
            scores = sides[group][rest].to(dtype) / temperature
            scores = torch.where(inner[rest][:, :, None, None], scores, 0.0)
            unary = scores.new_zeros(len(rest), words, scores.shape[-1])
            exact = log_space_expectations(unary, scores, lengths[rest], per_bigram=True)
            for into, values in zip((log_partition, labels, bigram_marginals), exact, strict=True):
                into[group, rest] = values.to(into.dtype)
    return log_partition, labels, bigram_marginals


def _dense_in_probability_space(
    sides: Sequence[Tensor], lengths: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    groups, (batch, bigrams, size, _) = len(sides), sides[0].shape
    words = bigrams + 1
    device = sides[0].device
    position = torch.arange(words, device=device)
    inner = (position[:-1] < (lengths - 1).unsqueeze(1)).T  # [N-1, B]
    last = (position == (lengths - 1).unsqueeze(1)).T.unsqueeze(1)  # [N, 1, B]
    dtype = working_precision(sides[0])
    steps = torch.empty(bigrams, groups, batch, size, size, dtype=dtype, device=device)
    for group, side in enumerate(sides):
        steps[:, group].copy_(side.transpose(0, 1))
    ragged = not bool(inner.all())
    if ragged:
        beyond = ~inner[:, None, :, None, None]
        steps.masked_fill_(beyond, 0.0)
    shift = _finite(steps.flatten(3).amax(3))
    steps.sub_(shift.unsqueeze(-1).unsqueeze(-1))
    if temperature != 1:
        steps.div_(temperature)
        shift /= temperature
    steps.exp_()
    growth = steps.sum(3).amax(3)

    steps = steps.view(bigrams, groups * batch, size, size)
    forward = steps.new_full((words, groups * batch, size, 1), 1.0 / size)
    reached = steps.new_empty(bigrams, groups * batch, size, 1)
    norm = steps.new_empty(bigrams, groups * batch, 1, 1)
    each_step = steps.unbind()
    message = forward[0]
    for step, here, there, total in zip(each_step, reached.unbind(), forward.unbind()[1:], norm.unbind(), strict=True):
        torch.bmm(step, message, out=here)
        torch.sum(here, 1, keepdim=True, out=total)
        message = torch.div(here, total, out=there)

    # P(label at n) = forward[n] * sum_j step[j] P(label j at n+1) / reached[j], from every sentence's last word back
    inverse = torch.where(reached > _LOST, reached.reciprocal(), 0.0)
    ratio = torch.empty_like(reached)
    labels = forward.clone()
    ends = last.expand(-1, groups, -1).reshape(words, groups * batch, 1, 1).unbind() if ragged else None
    for n in range(bigrams - 1, -1, -1):
        torch.mul(labels[n + 1], inverse[n], out=ratio[n])
        before = torch.bmm(each_step[n].transpose(1, 2), ratio[n]).mul_(forward[n])
        labels[n] = before if ends is None else torch.where(ends[n], forward[n], before)
    marginals = steps.mul_(ratio).mul_(forward[:-1].transpose(2, 3)).view(bigrams, groups, batch, size, size)
    if ragged:
        marginals.masked_fill_(beyond, 0.0)
    norm = norm.view(bigrams, groups, batch)
    log_partition = (norm.log() + shift).where(inner.unsqueeze(1), 0.0).sum(0) + math.log(size)
    labels = labels.view(words, groups, batch, size).permute(1, 2, 0, 3)
    labels = labels.masked_fill((position >= lengths.unsqueeze(1)).unsqueeze(-1), 0.0)
    bigram_marginals = marginals.permute(1, 2, 0, 3, 4)

    safe = (norm / growth).log_().where(inner.unsqueeze(1), 0.0).sum(0) > _SAFE
    if log_space() or dtype != torch.float64:
        safe = torch.zeros_like(safe)
    return log_partition, labels, bigram_marginals, safe


def log_space_expectations(
    unary: Tensor, pairwise: Tensor, lengths: Tensor, per_bigram: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """log Z [B], label marginals [B, N, C] and bigram marginals or transition counts, in log space throughout.

    Args:
        unary: [B, N, C]. pairwise: [B, N-1, C, C], or [B, C, C] for every step. lengths: LongTensor [B].
        per_bigram: return bigram marginals [B, N-1, C, C] rather than their sums [B, C, C].
    """
    words = unary.shape[1]
    dense = pairwise.dim() == 4
    # messages are shifted to a largest entry of 0, lest scores of great size cost digits
    forward: list[Tensor] = []
    shifts: list[Tensor] = []
    for n in range(words):
        message = unary[:, n]
        if n > 0:
            step = pairwise[:, n - 1] if dense else pairwise
            message = message + logsumexp(forward[-1].unsqueeze(-2) + step)
        shifts.append(_finite(message.amax(-1, keepdim=True)))
        forward.append(message - shifts[-1])
    last = (lengths - 1).view(-1, 1, 1)
    alpha, moved = torch.stack(forward, 1), torch.stack(shifts, 1).squeeze(-1).cumsum(1)
    ending = alpha.gather(1, last.expand(-1, 1, alpha.shape[-1])).squeeze(1)
    log_partition = logsumexp(ending) + moved.gather(1, last.squeeze(-1)).squeeze(1)

    # backward[i]: log sum over what follows the word, given its label i, up to a shift
    backward = torch.zeros_like(unary[:, 0])
    labels, bigrams = [], []
    counts = torch.zeros_like(unary[:, 0]).unsqueeze(-1).repeat(1, 1, unary.shape[-1])
    for n in range(words - 1, -1, -1):
        if n < words - 1:
            inner = (n + 1 < lengths).view(-1, 1, 1)
            ahead = (pairwise[:, n] if dense else pairwise) + (unary[:, n + 1] + backward).unsqueeze(-1)
            bigram = _normalised((ahead + forward[n].unsqueeze(-2)).flatten(1)).view_as(ahead)
            bigram = bigram.masked_fill(~inner, 0.0)
            if per_bigram:
                bigrams.append(bigram)
            else:
                counts += bigram
            backward = logsumexp(ahead.transpose(1, 2))
            backward = backward - _finite(backward.amax(-1, keepdim=True))
            backward = torch.where(inner.squeeze(-1), backward, 0.0)
        here = (n < lengths).view(-1, 1)
        labels.append(_normalised(forward[n] + backward).masked_fill(~here, 0.0))
    if per_bigram:
        empty = unary.new_zeros(len(unary), 0, *counts.shape[1:])
        counts = torch.stack(bigrams[::-1], 1) if bigrams else empty
    return log_partition, torch.stack(labels[::-1], 1), counts


def _normalised(scores: Tensor) -> Tensor:
    """softmax over the last axis; 0 where everything is impossible."""
    return (scores - _finite(logsumexp(scores)).unsqueeze(-1)).exp()


def _finite(shift: Tensor) -> Tensor:
    """A shift to subtract: 0 where everything is impossible."""
    return shift.masked_fill(shift == NEG_INF, 0.0)
