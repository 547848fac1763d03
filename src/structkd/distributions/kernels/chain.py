"""Forward-backward for linear chains."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..semirings import NEG_INF, logsumexp
from .counts import TransitionCounts

# Probability space is float64 with every step renormalised. What underflows, in one step, is below 1e-307 of a total of
# 1; where every normaliser stays above this, all that was lost is below 1e-100 of what was kept.
_SAFE = 1e-200


def factored_expectations(
    unary: Tensor, transitions: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, TransitionCounts]:
    """log Z [B], label marginals [B, N, C] and transition counts of chains with shared transitions.

    Arguments:
        unary: [B, N, C] float64 scores of labels. transitions: [C, C] float64, [next, previous]. lengths: LongTensor [B].

    Forward and backward messages run side by side, the latter over the reversed sentences. O(N C^2) time in N matrix
    products, O(B N C + C^2) memory. An empty structure space gives log Z = -inf and marginals of no meaning.
    """
    log_partition, labels, counts, safe = _factored_in_probability_space(unary, transitions, lengths)
    if safe.all():
        return log_partition, labels, counts
    # the items that probability space cannot vouch for, once more in log space
    rest = (~safe).nonzero().flatten()
    exact = log_space_expectations(unary[rest], transitions.expand(len(rest), -1, -1), lengths[rest], per_bigram=False)
    dense = torch.zeros(len(unary), *transitions.shape, dtype=unary.dtype, device=unary.device)
    dense[rest] = exact[2]
    ((after, before, scale),) = counts.terms
    keep = safe.view(-1, 1, 1)
    counts = TransitionCounts((after.where(keep, 0.0), before.where(keep, 0.0), scale)) + TransitionCounts.from_dense(
        dense
    )
    log_partition, labels = log_partition.clone(), labels.clone()
    log_partition[rest], labels[rest] = exact[0], exact[1]
    return log_partition, labels, counts


def _factored_in_probability_space(
    unary: Tensor, transitions: Tensor, lengths: Tensor
) -> tuple[Tensor, Tensor, TransitionCounts, Tensor]:
    batch, words, size = unary.shape
    position = torch.arange(words, device=unary.device)
    inside = position < lengths.unsqueeze(1)
    mirrored = torch.where(inside, lengths.unsqueeze(1) - 1 - position, position)  # [B, N], its own inverse

    shift = _finite(unary.amax(-1, keepdim=True))
    emitted = (unary - shift).exp_()
    backwards = mirrored.unsqueeze(-1).expand(-1, -1, size)
    largest = _finite(transitions.max())
    moved = (transitions - largest).exp_()
    # direction 0 runs forward, direction 1 over the reversed sentence
    emitted = torch.stack([emitted, emitted.gather(1, backwards)]).transpose(0, 2).transpose(1, 2).contiguous()
    step = torch.stack([moved.T, moved])

    reached = torch.empty_like(emitted)  # [N, 2, B, C]: before the word's own score
    message = torch.empty_like(emitted)  # after it, summing to 1
    norm = emitted.new_empty(words, 2, batch, 1)
    reached[0] = 1.0
    torch.mul(reached[0], emitted[0], out=message[0])
    torch.sum(message[0], -1, keepdim=True, out=norm[0])
    message[0] /= norm[0]
    before = message[0]
    for word, after, scores, total in zip(
        reached.unbind()[1:], message.unbind()[1:], emitted.unbind()[1:], norm.unbind()[1:], strict=True
    ):
        torch.bmm(before, step, out=word)
        torch.mul(word, scores, out=after)
        torch.sum(after, -1, keepdim=True, out=total)
        before = after.div_(total)

    forward = message[:, 0].transpose(0, 1)
    backward = reached[:, 1].transpose(0, 1).gather(1, backwards)
    labels = forward * backward
    mass = labels.sum(-1, keepdim=True)
    labels = (labels / mass).masked_fill_(~inside.unsqueeze(-1), 0.0)

    following = message[:, 1].transpose(0, 1).gather(1, backwards)[:, 1:]
    joint = (following * reached[1:, 0].transpose(0, 1)).sum(-1, keepdim=True)
    inner = inside[:, 1:].unsqueeze(-1)
    counts = TransitionCounts(((following / joint).masked_fill_(~inner, 0.0), forward[:, :-1].where(inner, 0.0), moved))

    norm = norm.squeeze(-1).permute(1, 2, 0)
    least = norm.amin(0).where(inside, 1.0).amin(1)
    least = torch.minimum(least, mass.squeeze(-1).where(inside, 1.0).amin(1))
    if words > 1:
        least = torch.minimum(least, joint.squeeze(-1).where(inside[:, 1:], 1.0).amin(1))
    scale = (norm[0].log() + shift.squeeze(-1)).where(inside, 0.0).sum(1)
    return scale + (lengths - 1) * largest, labels, counts, least > _SAFE


def dense_expectations(potentials: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log Z [B], label marginals [B, N, C] and bigram marginals [B, N-1, C, C] of chains with scores per bigram.

    Arguments:
        potentials: [B, N-1, C, C] float64, [next, previous], finite (0) in the padding. lengths: LongTensor [B].

    The backward pass needs no second recursion over scores: P(i | j) follows from the forward messages. O(N C^2).
    """
    batch, bigrams, size, _ = potentials.shape
    words = bigrams + 1
    if bigrams == 0:
        return log_space_expectations(potentials.new_zeros(batch, 1, size), potentials, lengths, per_bigram=True)
    position = torch.arange(words, device=potentials.device)
    shift = _finite(potentials.flatten(2).amax(2))
    moved = (potentials - shift.unsqueeze(-1).unsqueeze(-1)).exp_()
    steps = moved.transpose(0, 1).contiguous()  # [N-1, B, C, C]
    forward = potentials.new_full((words, batch, size, 1), 1.0 / size)
    reached = potentials.new_empty(bigrams, batch, size, 1)
    norm = potentials.new_empty(bigrams, batch, 1, 1)
    for n, (step, here, there, total) in enumerate(
        zip(steps.unbind(), reached.unbind(), forward.unbind()[1:], norm.unbind(), strict=True)
    ):
        torch.bmm(step, forward[n], out=here)
        torch.sum(here, 1, keepdim=True, out=total)
        torch.div(here, total, out=there)

    inner = (position[:-1] < (lengths - 1).unsqueeze(1)).T  # [N-1, B]
    last = (position == (lengths - 1).unsqueeze(1)).T
    ratio = torch.empty_like(reached)
    labels = torch.empty_like(forward)
    labels[-1] = forward[-1]
    zero = reached == 0
    for n in range(bigrams - 1, -1, -1):
        torch.div(labels[n + 1], reached[n], out=ratio[n]).masked_fill_(zero[n], 0.0)
        torch.bmm(steps[n].transpose(1, 2), ratio[n], out=labels[n])
        torch.where(last[n].view(-1, 1, 1), forward[n], labels[n] * forward[n], out=labels[n])
    marginals = steps.mul_(ratio).mul_(forward[:-1].transpose(2, 3)).masked_fill_(~inner[:, :, None, None], 0.0)
    norm = norm.view(bigrams, batch)
    log_partition = (norm.log() + shift.T).where(inner, 0.0).sum(0) + math.log(size)
    inside = (position < lengths.unsqueeze(1)).unsqueeze(-1)
    labels = labels.squeeze(-1).transpose(0, 1).where(inside, 0.0)
    bigram_marginals = marginals.transpose(0, 1)

    safe = norm.where(inner, 1.0).amin(0) > _SAFE
    if safe.all():
        return log_partition, labels, bigram_marginals
    rest = (~safe).nonzero().flatten()
    unary = potentials.new_zeros(len(rest), words, size)
    exact = log_space_expectations(unary, potentials[rest], lengths[rest], per_bigram=True)
    log_partition[rest], labels[rest], bigram_marginals[rest] = exact
    return log_partition, labels, bigram_marginals


def log_space_expectations(
    unary: Tensor, pairwise: Tensor, lengths: Tensor, per_bigram: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """log Z [B], label marginals [B, N, C] and bigram marginals or transition counts, in log space throughout.

    Arguments:
        unary: [B, N, C]. pairwise: [B, N-1, C, C], or [B, C, C] for every step. lengths: LongTensor [B].
        per_bigram: return bigram marginals [B, N-1, C, C] rather than their sums [B, C, C].
    """
    words = unary.shape[1]
    dense = pairwise.dim() == 4
    forward = [unary[:, 0]]
    for n in range(1, words):
        step = pairwise[:, n - 1] if dense else pairwise
        forward.append(logsumexp(forward[-1].unsqueeze(-2) + step) + unary[:, n])
    last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, unary.shape[-1])
    log_partition = logsumexp(torch.stack(forward, 1).gather(1, last).squeeze(1))

    # backward[i]: log sum over what follows the word, given its label i
    backward = torch.zeros_like(unary[:, 0])
    total = log_partition.masked_fill(log_partition == NEG_INF, 0.0).view(-1, 1)
    labels, bigrams = [], []
    counts = torch.zeros_like(unary[:, 0]).unsqueeze(-1).repeat(1, 1, unary.shape[-1])
    for n in range(words - 1, -1, -1):
        if n < words - 1:
            inner = (n + 1 < lengths).view(-1, 1, 1)
            ahead = (pairwise[:, n] if dense else pairwise) + (unary[:, n + 1] + backward).unsqueeze(-1)
            bigram = (ahead + (forward[n] - total).unsqueeze(-2)).exp().masked_fill(~inner, 0.0)
            if per_bigram:
                bigrams.append(bigram)
            else:
                counts += bigram
            backward = torch.where(inner.squeeze(-1), logsumexp(ahead.transpose(1, 2)), 0.0)
        here = (n < lengths).view(-1, 1)
        labels.append((forward[n] + backward - total).exp().masked_fill(~here, 0.0))
    if per_bigram:
        empty = unary.new_zeros(len(unary), 0, *counts.shape[1:])
        counts = torch.stack(bigrams[::-1], 1) if bigrams else empty
    return log_partition, torch.stack(labels[::-1], 1), counts


def _finite(shift: Tensor) -> Tensor:
    """A shift to subtract: 0 where everything is impossible."""
    return shift.masked_fill(shift == NEG_INF, 0.0)
