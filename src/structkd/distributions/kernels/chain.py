"""Forward-backward for linear chains."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..transition_counts import TransitionCounts, expected_score
from .arithmetic import NEG_INF, Gradient, finite, logsumexp, working_precision
from .engines import compiled_for, log_space, triton_for

# Messages are weights of at most 1, or of at most C^_STRIDE if they are divided by their sum every _STRIDE words.
# Numbers that underflow are below 1e-307. They enter log Z times a message of the other direction, over the sum of all
# such products, the mass of a word. If masses are above this, less than 1e-30 is lost for a thousand labels, and a
# message of 0 means that a label is impossible.
_LEAST_MASS = 1e-220

# Kernels without messages of the other direction bound the loss by growth. A number that underflows in a step is below
# 1e-300 times the largest growth of any label's weight in it. It may matter more at a later word (a garden path), by
# the largest growth of any label's weight over the growth of the sum, in every step. If the product of the inverse
# ratios is above this, less than 1e-15 of the result is lost.
_LOST = 1e-300
_SAFE = math.log(_LOST / 1e-15)


#: emissions [B, N, C], transitions [C, C] as [next, previous], start [C] or None, end [C] or None
Scores = tuple[Tensor, Tensor, Tensor | None, Tensor | None]

# Messages are renormalised after so many words: they grow by a factor of C a word at most.
_STRIDE = 8
# The number of cells in the messages of a teacher and a student, in both directions, to hold at once on a CPU (64 MiB).
_CELLS = 1 << 23
# The number of cells that fit into a processor's cache together with intermediate results.
_CACHED_CELLS = 1 << 17


def factored_kd(
    teacher: Scores, student: Scores, lengths: Tensor, temperature: float, precision: torch.dtype
) -> tuple[Tensor, Gradient] | None:
    """Compute the structural loss of chains that share their transitions, teacher and student side by side.

    Args:
        teacher, student: emissions [B, N, C], transitions [C, C] (next, previous), start [C] and end [C] or None.
        lengths: LongTensor [B], 1..N.
        temperature: T; the scores of both sides are divided by it.
        precision: the dtype of the results; kernels may work in float32 if it is no more than that.

    Returns:
        T^2 (log Z_s - <P_t, s_s / T>), [B], and its gradient by the student's scores; None if a side has no structure.

    Costs O(N C^2) time a sentence and O(B N C + C^2) memory.
    """

    def by_sentence() -> tuple[Tensor, Gradient] | None:
        return _factored_kd_by_expectations(teacher, student, lengths, temperature, precision)

    compiled = compiled_for("chain", *teacher, *student)
    kernels: list[Any] = [] if compiled is None else [compiled.factored_kd]
    if not log_space() and triton_for(student[0], precision) is None:
        kernels.append(_factored_kd_in_probability_space)
    for kernel in kernels:
        loss, gradients, ok = kernel(teacher, student, lengths, temperature)
        if ok:
            return loss, _scaled_gradient(gradients, by_sentence)
    return by_sentence()


def _scaled_gradient(
    total: tuple[Tensor | None, ...], by_sentence: Callable[[], tuple[Tensor, Gradient] | None]
) -> Gradient:
    """Return the gradient of a summed loss, for kernels that sum over the batch as they go.

    If the sentences have weights of their own, which differ, `by_sentence` computes them separately.
    """

    def gradient(weights: Tensor) -> tuple[Tensor | None, ...]:
        weight = weights[:1] if weights.dim() and len(weights) else weights.sum()
        if weights.dim() == 0 or bool((weights == weight).all()):
            return tuple(None if t is None else t.mul_(weight) for t in total)
        with torch.no_grad():
            separate = by_sentence()
        if separate is None:
            raise RuntimeError(
                "One engine certified this loss as finite and another found no possible structure. This is a defect of "
                "structkd; please report it with the scores."
            )
        return separate[1](weights)

    return gradient


def _factored_kd_by_expectations(
    teacher: Scores, student: Scores, lengths: Tensor, temperature: float, precision: torch.dtype
) -> tuple[Tensor, Gradient] | None:
    """Compute `factored_kd` from the expectations of both sides."""
    unary = torch.stack([unary_scores(side, lengths) for side in (teacher, student)])
    pairwise = torch.stack([side[1].to(unary.dtype) for side in (teacher, student)])
    if temperature != 1:
        unary, pairwise = unary / temperature, pairwise / temperature
    log_partition, labels, (wanted, got) = factored_expectations(unary, pairwise, lengths, precision)
    if not (log_partition > NEG_INF).all():
        return None
    loss = log_partition[1] - expected_score(labels[0], unary[1]) - expected_score(wanted, pairwise[1])
    by_factor = _by_factor(student, lengths, labels[1] - labels[0], (got - wanted).weighted_sum)
    return loss * temperature**2, lambda weights: by_factor(weights * temperature)


def _by_factor(scores: Scores, lengths: Tensor, by_word: Tensor, moves: Callable[[Tensor], Tensor]) -> Gradient:
    """Return the gradient by a chain's scores.

    Args:
        by_word: [B, N, C], the gradient by `unary_scores`.
        moves: function from weights, [B] or [], to the weighted sum of the gradients by transitions, [C, C].
    """
    emissions, transitions, start, end = scores

    def gradient(weights: Tensor) -> tuple[Tensor | None, ...]:
        weighted = by_word * weights.view(-1, 1, 1)
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, weighted.shape[-1])
        return (
            weighted.to(emissions.dtype),
            moves(weights).to(transitions.dtype),
            None if start is None else weighted[:, 0].sum(0).to(start.dtype),
            None if end is None else weighted.gather(1, last).sum((0, 1)).to(end.dtype),
        )

    return gradient


def unary_scores(scores: Scores, lengths: Tensor) -> Tensor:
    """Return the scores of every word's labels, those of start and end included.

    Args:
        scores: as in `factored_kd`. lengths: LongTensor [B].

    Returns:
        [B, N, C] in working precision, differentiable; 0 in the padding, which may hold anything.
    """
    emissions, _, start, end = scores
    dtype, (batch, words, size) = working_precision(emissions), emissions.shape
    inside = torch.arange(words, device=lengths.device) < lengths.unsqueeze(1)
    unary = torch.where(inside.unsqueeze(-1), emissions.to(dtype), 0.0)
    if start is not None:
        unary[:, 0] += start.to(dtype)
    if end is not None:
        last = (lengths - 1).view(-1, 1, 1).expand(-1, 1, size)
        unary.scatter_add_(1, last, end.to(dtype).expand(batch, 1, -1))
    return unary


def factored_likelihood(
    scores: Scores, labels: Tensor, lengths: Tensor, precision: torch.dtype
) -> tuple[Tensor, Gradient] | None:
    """Compute -log P of label sequences under chains that share their transitions.

    Args:
        scores, lengths, precision: as in `factored_kd`.
        labels: LongTensor [B, N] of labels in 0..C-1; anything may be in the padding.

    Returns:
        -log P, [B], and its gradient by the scores; None if there is no structure or this one is impossible.

    Costs O(N C^2) time a sentence.
    """
    unary, transitions = unary_scores(scores, lengths), scores[1].to(working_precision(scores[1]))
    (value,), (marginals,), (counts,) = factored_expectations(unary[None], transitions[None], lengths, precision)
    size = len(transitions)
    inside = torch.arange(labels.shape[1], device=lengths.device) < lengths.unsqueeze(1)
    labels = labels.clamp(0, size - 1)
    move = labels[:, 1:] * size + labels[:, :-1]
    chosen = unary.gather(-1, labels.unsqueeze(-1)).squeeze(-1).sum(1)
    loss = value - chosen - transitions.flatten()[move].masked_fill(~inside[:, 1:], 0.0).sum(1)
    if not loss.isfinite().all():
        return None
    marginals.scatter_add_(-1, labels.unsqueeze(-1), -inside.unsqueeze(-1).to(marginals.dtype))

    def moves(weights: Tensor) -> Tensor:
        taken = (inside[:, 1:] * weights.view(-1, 1)).flatten()
        return counts.weighted_sum(weights).flatten().index_add_(0, move.flatten(), -taken).view(size, size)

    return loss, _by_factor(scores, lengths, marginals, moves)


def _factored_kd_in_probability_space(
    teacher: Scores, student: Scores, lengths: Tensor, temperature: float
) -> tuple[Tensor, tuple[Tensor | None, ...], bool]:
    """Compute in torch what `compiled.chain.factored_kd` returns, with `ok` False for the same reasons.

    Sentences take turns: as many at once as keep memory beyond the gradients at a few times `_CELLS`.
    """
    emissions, transitions, start, end = student
    batch, words, size = emissions.shape
    dtype = working_precision(emissions)
    shared = torch.stack([teacher[1].to(dtype), transitions.to(dtype)])
    if temperature != 1:
        shared /= temperature
    largest = shared.amax((1, 2))
    moved = (shared - largest.view(-1, 1, 1)).exp_()
    # A transition that is impossible for the teacher has no weight, whatever the student's score is.
    weights = moved[0] * shared[1].where(moved[0] > 0, 0.0)
    ragged = bool((lengths < words).any())
    by_label = [scores for scores in (emissions, start, end) if scores is not None and scores.numel()]
    impossible = not all(bool(scores.amin() > NEG_INF) for scores in by_label)

    loss, gradient = torch.empty(batch, dtype=dtype, device=emissions.device), torch.empty_like(emissions)
    moves = torch.zeros_like(weights)
    at_start, at_end = shared.new_zeros(size), shared.new_zeros(size)
    at_once = max(1, _CELLS // (4 * words * size)) if emissions.device.type == "cpu" else batch
    for first in range(0, batch, at_once):
        some = slice(first, first + at_once)
        count = lengths[some]
        position = torch.arange(words, device=count.device).unsqueeze(1)
        last = (count - 1, torch.arange(len(count), device=count.device)) if ragged else (words - 1,)
        # [4, N, B, C]: teacher and student, forward and over the reversed sentences
        message = shared.new_empty(4, words, len(count), size)
        scores = message[:2]
        for side, (by_word, _, at_first, at_last) in zip(scores, (teacher, student), strict=True):
            side.copy_(by_word[some].transpose(0, 1))
            if ragged:
                side.masked_fill_((position >= count).unsqueeze(-1), 0.0)
            if at_first is not None:
                side[0] += at_first
            if at_last is not None:
                side[last] += at_last
        if temperature != 1:
            scores /= temperature
        judged = scores[1].clone()
        shift = scores.amax(-1, keepdim=True)
        scores.sub_(shift).exp_()
        mirror = (count - 1 - position).where(position < count, position) if ragged else None
        message[2:] = _mirrored(scores, mirror)

        reached, norms = _messages(message, torch.cat([moved.transpose(1, 2), moved]))
        labels = _mirrored(reached[2:], mirror).mul_(message[:2])
        mass = labels.sum(-1, keepdim=True)
        if ragged:
            mass.masked_fill_((position >= count).unsqueeze(-1), math.inf)
            shift.masked_fill_((position >= count).unsqueeze(-1), 0.0)
        if not mass.amin() > _LEAST_MASS:
            return loss, (), False
        value = mass[1, 0].log()
        following = _mirrored(message[2:], mirror)[:, 1:]
        labels /= mass
        divisor = mass[:, 1:]
        for word, norm in norms:
            # The messages after this word were divided by this sum.
            divisor[:, word] *= norm[:2]
            logarithm = norm[3].log()
            value += logarithm.where((word < count - 1).unsqueeze(1), 0.0) if ragged else logarithm
        following.div_(divisor)

        value = value.squeeze(1) + shift[1].sum((0, 2)) + (count - 1).to(dtype) * largest[1]
        wanted, got = (side.reshape(-1, size) for side in following)
        before_wanted, before_got = (side.reshape(-1, size) for side in message[:2, :-1])
        moves.addcmul_(moved[1], got.T @ before_got).addcmul_(moved[0], wanted.T @ before_wanted, value=-1.0)
        if impossible:
            judged.masked_fill_(labels[0] == 0, 0.0)
        expected = (labels[0] * judged).sum((0, 2))
        expected += ((wanted @ weights) * before_wanted).view(words - 1, len(count), size).sum((0, 2))
        loss[some] = value - expected
        gap = labels[1].sub_(labels[0])
        if temperature != 1:
            gap *= temperature
        gradient[some] = gap.transpose(0, 1)
        if start is not None:
            at_start += gap[0].sum(0)
        if end is not None:
            at_end += gap[last].sum(0)
    gradients = (
        gradient,
        (moves * temperature).to(transitions.dtype),
        None if start is None else at_start.to(start.dtype),
        None if end is None else at_end.to(end.dtype),
    )
    return loss * temperature**2, gradients, bool(loss.isfinite().all())


def _messages(emitted: Tensor, step: Tensor) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """Replace weights of labels by messages, which include the weights of all words before.

    Args:
        emitted: [K, N, B, C], weights of every word's labels; overwritten.
        step: [K, C, C] (previous, next), weights of transitions.

    Returns:
        Messages [K, N, B, C] without the word's own weight; and the words whose messages were divided by their sum
        before the next step, with the sums [K, B, 1].
    """
    kinds, words, batch, size = emitted.shape
    reached = emitted.new_empty(words, kinds, batch, size)  # by word, because bmm writes contiguous memory fastest
    reached[0] = 1.0
    norms = []
    messages, arrivals = emitted.unbind(1), reached.unbind()
    before, scaled = messages[0], torch.empty_like(messages[0])
    for word in range(1, len(messages)):
        if word % _STRIDE == 0:
            norms.append((word - 1, before.sum(-1, keepdim=True)))
            before = torch.div(before, norms[-1][1], out=scaled)
        torch.bmm(before, step, out=arrivals[word])
        before = messages[word].mul_(arrivals[word])
    return reached.transpose(0, 1), norms


def _mirrored(rows: Tensor, mirror: Tensor | None) -> Tensor:
    """Return [K, N, B, C] with the words of every sentence in reverse order.

    Args:
        mirror: LongTensor [N, B], the position of every word in reverse order; None if all sentences have N words.
    """
    if mirror is None:
        return rows.flip(1)
    return rows.gather(1, mirror.unsqueeze(-1).expand_as(rows))


def factored_expectations(
    unary: Tensor, transitions: Tensor, lengths: Tensor, precision: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, list[TransitionCounts]]:
    """Compute log Z [G, B], label marginals [G, B, N, C] and G transition counts of chains with shared transitions.

    Args:
        unary: [G, B, N, C] float64 scores of labels: G groups, such as a teacher and a student, of the same sentences.
        transitions: [G, C, C] float64 (next, previous), one matrix for each group.
        lengths: LongTensor [B].
        precision: the dtype of the final results; kernels may work in float32 if it is no more than that.

    The messages of all groups, forward and backward, are computed together. The cost is O(N C^2) time in N matrix
    products and O(B N C + C^2) memory. If there is no structure, log Z is -inf and the marginals have no meaning.
    """
    compiled, triton = compiled_for("chain", unary, transitions), triton_for(unary, precision)
    if compiled is not None:
        sides = [compiled.factored_expectations(*side, lengths) for side in zip(unary, transitions, strict=True)]
        log_partition, labels, _, safe = map(_stacked, zip(*sides, strict=True))
        counts = [TransitionCounts.from_dense(side[2]) for side in sides]
    elif triton is not None:
        log_partition, labels, counts, safe = triton.factored(unary, transitions, lengths, precision)
    elif log_space() or unary.dtype != torch.float64:
        by_sentence = transitions.unsqueeze(1).expand(-1, len(lengths), -1, -1)
        found = [log_space_expectations(*side, lengths, False) for side in zip(unary, by_sentence, strict=True)]
        log_partition, labels = _stacked([side[0] for side in found]), _stacked([side[1] for side in found])
        return log_partition, labels, [TransitionCounts.from_dense(side[2]) for side in found]
    else:
        log_partition, labels, counts, safe = _factored_in_probability_space(unary, transitions, lengths)
    if not safe.all():
        # Compute the sentences that are not certified again in log space.
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

    shift = finite(unary.amax(-1, keepdim=True))
    emitted = (unary - shift).exp_()
    largest = finite(transitions.amax((1, 2)))
    moved = (transitions - largest.view(-1, 1, 1)).exp_()
    # [N, 2 G, B, C]: all groups forward, then all groups over the reversed sentences
    emitted = torch.cat([emitted, emitted.gather(2, mirrored)]).permute(2, 0, 1, 3).contiguous()
    step = torch.cat([moved.transpose(1, 2), moved])

    reached = torch.empty_like(emitted)  # messages without the word's own weight
    message = torch.empty_like(emitted)  # messages with it, which sum to 1
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

    norm = norm.squeeze(-1)  # [N, 2 G, B]
    scale = (norm[:, :groups].permute(1, 2, 0).log() + shift.squeeze(-1)).masked_fill_(~inside, 0.0).sum(2)
    least = torch.cat([mass.masked_fill(~inside.unsqueeze(-1), 1.0), joint.masked_fill(outer, 1.0)], 2).amin((2, 3))
    # A number that underflows is divided by the sum of its message.
    least *= norm.masked_fill(~inside.T.unsqueeze(1), 1.0).amin(0).unflatten(0, (2, groups)).amin(0)
    safe = least > _LEAST_MASS
    return scale + (lengths - 1) * largest.unsqueeze(1), labels, counts, safe


def dense_kd(
    teacher: Tensor, student: Tensor, lengths: Tensor, temperature: float, precision: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """Compute the structural loss of chains scored per bigram, teacher and student side by side.

    Args:
        teacher, student: [B, N-1, C, C]; cell [b, n, j, i] scores label i at word n followed by label j at n + 1;
            anything may be in the padding.
        lengths, temperature, precision: as in `factored_kd`. A sentence of one word is uniform.

    Returns:
        T^2 (log Z_s - <P_t, s_s / T>), [B], and T (P_s - P_t) in the student's shape and dtype; None if a side has no
        structure.

    Costs O(N C^2) time a sentence.
    """
    compiled = compiled_for("chain", teacher, student)
    kernels: list[Any] = [] if compiled is None else [compiled.dense_kd]
    if len(student) and not log_space() and triton_for(student, precision) is None:
        kernels.append(_dense_kd_in_probability_space)
    for kernel in kernels:
        loss, gradient, ok = kernel(teacher, student, lengths, temperature)
        if ok:
            return loss, gradient
    log_partition, _, (wanted, got) = dense_expectations((teacher, student), lengths, temperature, precision)
    if not (log_partition > NEG_INF).all():
        return None
    expected = (wanted * student).sum((1, 2, 3), dtype=log_partition.dtype) / temperature
    if not expected.isfinite().all():  # 0 * -inf, or 0 * NaN in the padding
        inner = torch.arange(student.shape[1], device=lengths.device) < (lengths - 1).unsqueeze(1)
        scores = torch.where(inner[:, :, None, None], student.to(log_partition.dtype), 0.0)
        expected = expected_score(wanted, scores / temperature)
    loss = log_partition[1] - expected
    gap = got.sub_(wanted).to(student.dtype)
    return loss * temperature**2, gap if temperature == 1 else gap.mul_(temperature)


def dense_likelihood(
    scores: Tensor, labels: Tensor, lengths: Tensor, precision: torch.dtype
) -> tuple[Tensor, Tensor] | None:
    """Compute -log P of label sequences under chains scored per bigram, and its gradient by the scores.

    Args:
        scores, lengths, precision: as in `dense_kd`. labels: as in `factored_likelihood`.

    Returns:
        -log P, [B], and its gradient in the scores' shape; None if there is no structure or this one is impossible.

    Costs O(N C^2) time a sentence.
    """
    (value,), _, (gap,) = dense_expectations([scores], lengths, precision=precision)
    batch, bigrams, size, _ = scores.shape
    inner = torch.arange(bigrams, device=lengths.device) < (lengths - 1).unsqueeze(1)
    labels = labels.clamp(0, size - 1)
    item = torch.arange(batch, device=lengths.device).unsqueeze(1)
    chosen = (item, torch.arange(bigrams, device=lengths.device), labels[:, 1:], labels[:, :-1])
    loss = value - scores[chosen].to(value.dtype).masked_fill(~inner, 0.0).sum(1)
    if not loss.isfinite().all():
        return None
    gap[chosen] -= inner.to(gap.dtype)
    return loss, gap


def _dense_kd_in_probability_space(
    teacher: Tensor, student: Tensor, lengths: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, bool]:
    """Compute in torch what `compiled.chain.dense_kd` returns, with `ok` False for the same reasons."""
    batch, bigrams, size, _ = student.shape
    if bigrams == 0:
        return student.new_empty(batch), student, False
    dtype, device = working_precision(student), student.device
    # Teachers and students are 2 B sentences. In the padding, scores of 0 multiply messages by a constant. Only the
    # exponentials are stored for every bigram; everything else is computed for as many words at a time as fit into a
    # cache, because the allocation of memory costs more than the arithmetic.
    steps = torch.empty(bigrams, 2, batch, size, size, dtype=dtype, device=device)
    moved = steps.view(bigrams, 2 * batch, size, size)
    at_once = max(1, _CACHED_CELLS // moved[0].numel()) if device.type == "cpu" else bigrams
    blocks = [slice(first, min(first + at_once, bigrams)) for first in range(0, bigrams, at_once)]
    ragged = bool((lengths <= bigrams).any())
    beyond = torch.arange(bigrams, device=device).unsqueeze(1) >= lengths - 1
    shift = torch.empty(bigrams, 2, batch, 1, 1, dtype=dtype, device=device)
    # Messages are rows, because batched products of a row and a matrix are faster than those of a matrix and a column.
    past = moved.new_empty(bigrams + 1, 2 * batch, 1, size)
    future = torch.empty_like(past)
    past[0], future[-1] = 1.0, 1.0
    norm = moved.new_ones(bigrams, 2 * batch, 1, 1)
    each, rows, scaled = moved.unbind(), past.unbind(), torch.empty_like(past[0])
    row = rows[0]
    for block in blocks:
        scores = steps[block]
        scores[:, 0], scores[:, 1] = teacher[:, block].transpose(0, 1), student[:, block].transpose(0, 1)
        if ragged:
            scores.masked_fill_(beyond[block, None, :, None, None], 0.0)
        torch.amax(scores, (3, 4), keepdim=True, out=shift[block])
        scores.sub_(shift[block])
        if temperature != 1:
            scores /= temperature
        scores.exp_()
        for n in range(block.start, block.stop):
            if n % _STRIDE == _STRIDE - 1:
                torch.sum(row, -1, keepdim=True, out=norm[n])
                row = torch.div(row, norm[n], out=scaled)
            row = torch.bmm(row, each[n].transpose(1, 2), out=rows[n + 1])

    rows = future.unbind()
    row = rows[-1]
    impossible = not bool(student.amin() > NEG_INF)
    value, smallest = moved.new_zeros(2 * batch, 1, 1), moved.new_ones(())
    expected, gradient = moved.new_zeros(batch), torch.empty_like(student)
    for block in reversed(blocks):
        for n in range(block.stop - 1, block.start - 1, -1):
            if n % _STRIDE == _STRIDE - 1:
                total = row.sum(-1, keepdim=True)
                value += total.log()
                row = torch.div(row, total, out=scaled)
            row = torch.bmm(row, each[n], out=rows[n])
        ahead = future[block.start + 1 : block.stop + 1]
        mass = (past[block.start + 1 : block.stop + 1] * ahead).sum(-1, keepdim=True)
        smallest = smallest.minimum(mass.amin())
        mass *= norm[block]
        if ragged:
            mass.view(-1, 2, batch).masked_fill_(beyond[block].unsqueeze(1), math.inf)
        moved[block].mul_((ahead / mass).transpose(2, 3)).mul_(past[block])
        wanted, got = steps[block].unbind(1)
        gap = got.sub_(wanted)
        if temperature != 1:
            gap *= temperature
        gradient[:, block] = gap.transpose(0, 1)
        wanted.mul_(student[:, block].transpose(0, 1))
        if impossible:
            wanted.nan_to_num_(nan=0.0, posinf=math.inf, neginf=NEG_INF)  # 0 * -inf is 0
        if ragged:
            wanted.masked_fill_(beyond[block, :, None, None], 0.0)
        expected += wanted.flatten(2).sum(2).sum(0)
    ok = bool(smallest > _LEAST_MASS)
    value = (value + row.sum(-1, keepdim=True).log()).view(2, batch)[1]
    value += shift[:, 1].view(bigrams, batch).sum(0) / temperature
    value -= (bigrams + 1 - lengths).to(dtype) * math.log(size)
    loss = value * temperature**2 - expected * temperature
    return loss, gradient, ok and bool(loss.isfinite().all())


def dense_expectations(
    sides: Sequence[Tensor], lengths: Tensor, temperature: float = 1.0, precision: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute log Z [G, B], label marginals [G, B, N, C] and bigram marginals [G, B, N-1, C, C], scored per bigram.

    Args:
        sides: G tensors [B, N-1, C, C] of any floating dtype (next, previous); anything may be in the padding.
        lengths: LongTensor [B]. temperature: scores are divided by it.
        precision: the dtype of the final results; kernels may return float32 marginals if it is no more than that.

    The backward pass needs no scores: P(i | j) follows from the forward messages. Costs O(N C^2) time a sentence.
    """
    compiled, triton = compiled_for("chain", *sides), triton_for(sides[0], precision)
    if compiled is not None:
        results = [compiled.dense_expectations(_tempered(side, temperature), lengths) for side in sides]
        log_partition, labels, bigram_marginals, safe = map(_stacked, zip(*results, strict=True))
    elif triton is not None:
        log_partition, labels, bigram_marginals, safe = triton.dense(sides, lengths, temperature, precision)
    elif log_space() or working_precision(sides[0]) != torch.float64:
        results = [_dense_in_log_space(side, lengths, temperature) for side in sides]
        log_partition, labels, bigram_marginals = map(_stacked, zip(*results, strict=True))
        return log_partition, labels, bigram_marginals
    else:
        log_partition, labels, bigram_marginals, safe = _dense_in_probability_space(sides, lengths, temperature)
    if not safe.all():
        for group, rest in enumerate((~kept).nonzero().flatten() for kept in safe):
            exact = _dense_in_log_space(sides[group][rest], lengths[rest], temperature)
            for into, values in zip((log_partition, labels, bigram_marginals), exact, strict=True):
                into[group, rest] = values.to(into.dtype)
    return log_partition, labels, bigram_marginals


def _dense_in_log_space(scores: Tensor, lengths: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Compute `dense_expectations` of one side by `log_space_expectations`."""
    inner = torch.arange(scores.shape[1], device=lengths.device) < (lengths - 1).unsqueeze(1)
    scores = torch.where(inner[:, :, None, None], _tempered(scores, temperature), 0.0)
    unary = scores.new_zeros(len(scores), scores.shape[1] + 1, scores.shape[-1])
    return log_space_expectations(unary, scores, lengths, per_bigram=True)


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors on a new first axis, without a copy if there is only one."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tuple(tensors))


def _tempered(scores: Tensor, temperature: float) -> Tensor:
    scores = scores.to(working_precision(scores))
    return scores if temperature == 1 else scores / temperature


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
    shift = finite(steps.flatten(3).amax(3))
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

    # P(label at n) = forward[n] * sum_j step[j] P(label j at n+1) / reached[j], from the last word to the first
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
    return log_partition, labels, bigram_marginals, safe


def log_space_expectations(
    unary: Tensor, pairwise: Tensor, lengths: Tensor, per_bigram: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute log Z [B], label marginals [B, N, C] and bigram marginals or transition counts, all in log space.

    Args:
        unary: [B, N, C]. pairwise: [B, N-1, C, C], or [B, C, C] for every step. lengths: LongTensor [B].
        per_bigram: return bigram marginals [B, N-1, C, C] rather than their sums [B, C, C].

    Sentences are processed in groups if tensors [B, C, C] would be large.
    """
    at_once = max(1, _CACHED_CELLS * 8 // unary.shape[-1] ** 2) if unary.device.type == "cpu" else len(unary)
    if at_once < len(unary):
        groups = zip(unary.split(at_once), pairwise.split(at_once), lengths.split(at_once), strict=True)
        parts = [log_space_expectations(*group, per_bigram) for group in groups]
        log_partition, labels, counts = (torch.cat(part) for part in zip(*parts, strict=True))
        return log_partition, labels, counts
    words, size = unary.shape[1:]
    steps = pairwise.unbind(1) if pairwise.dim() == 4 else [pairwise] * (words - 1)
    # Allocate the results before the loop: small tensors between the large ones of a step would scatter memory.
    forward, labels = torch.empty_like(unary), torch.empty_like(unary)
    shifts = torch.empty_like(unary[..., 0])
    room = unary.new_empty(len(unary), size, size)
    scratch = torch.empty_like(room)
    # `exp` takes up to a hundred times as long if its result underflows, as that of -inf does. So exponents are cut off
    # at a number whose exponential adds nothing to a sum.
    cut, lowest = math.log(1e8 * torch.finfo(unary.dtype).tiny), torch.finfo(unary.dtype).min

    def log_sum(scores: Tensor) -> Tensor:
        top = scores.amax(-1)
        weights = torch.sub(scores, top.clamp(min=lowest).unsqueeze(-1), out=scratch)
        return weights.clamp_(min=cut).exp_().sum(-1).log_().add_(top)

    # Messages are shifted to a maximum of 0, because large scores would cost digits.
    for n in range(words):
        message = unary[:, n]
        if n > 0:
            message = message + log_sum(torch.add(forward[:, n - 1].unsqueeze(-2), steps[n - 1], out=room))
        shift = finite(message.amax(-1, keepdim=True))
        forward[:, n], shifts[:, n] = message - shift, shift.squeeze(-1)
    last = (lengths - 1).view(-1, 1, 1)
    ending = forward.gather(1, last.expand(-1, 1, size)).squeeze(1)
    log_partition = logsumexp(ending) + shifts.cumsum(1).gather(1, last.squeeze(-1)).squeeze(1)

    # backward[i]: log sum over all words that follow, given label i of this word, up to a shift
    backward = torch.zeros_like(unary[:, 0])
    counts = unary.new_zeros(len(unary), words - 1, size, size) if per_bigram else torch.zeros_like(room)
    normaliser = torch.zeros_like(backward[:, :1])
    for n in range(words - 1, -1, -1):
        if n < words - 1:
            inner = (n + 1 < lengths).view(-1, 1, 1)
            ahead = torch.add((unary[:, n + 1] + backward).unsqueeze(-1), steps[n], out=room)
            backward = log_sum(ahead.transpose(1, 2))
            backward = backward - finite(backward.amax(-1, keepdim=True))
            backward = torch.where(inner.squeeze(-1), backward, 0.0)
            # The sum over bigrams equals the sum over labels of the second word.
            total = (normaliser + shifts[:, n + 1 : n + 2]).unsqueeze(-1)
            bigram = ahead.add_(forward[:, n].unsqueeze(-2)).sub_(total)
            bigram.clamp_(min=cut).exp_().masked_fill_(~inner, 0.0)
            if per_bigram:
                counts[:, n] = bigram
            else:
                counts += bigram
        both = forward[:, n] + backward
        normaliser = finite(logsumexp(both)).unsqueeze(-1)
        labels[:, n] = (both - normaliser).exp().masked_fill_((n >= lengths).view(-1, 1), 0.0)
    torch.threshold_(counts, words * math.exp(cut) * 1.1, 0.0)  # set the exponentials that were cut off to 0
    return log_partition, labels, counts
