"""Forward-backward for linear chains in one Triton kernel: one program per sequence, with the loop over words inside.

The sequences of a teacher and a student are rows of one launch. The matrix of transitions and the expected counts stay
in registers. A factored chain reads and writes O(N C) numbers; a dense one reads each score once per direction.

The state is float32 if the scores are float32 or less, else float64. Every step is divided by its sum, and the
exponents are added in float64. In float32, with 4 sentences of 64 words, 17 labels and scores of standard deviation 3,
four draws in the interpreter gave gradients per word and per bigram within 5e-7 of float64 in log space. The gradients
of shared transitions, which are sums over all words, were within 6e-6.

**Underflow is bounded from both sides.** The forward pass rounds weights below the smallest number down to 0, so its
total is at most Z. The backward pass rounds the weights of possible paths up to the smallest number, so its total is at
least Z, and its zeros mark impossible labels exactly. If both agree, one step can have lost or added at most the
smallest number over that step's share of the total. Summed over all steps, this must stay far below rounding. If it
does not, float32 rows are run again in float64; `safe` is False for those that fail again.

The kernels need triton, which torch's CUDA builds for Linux include. They run on the CPU, slowly, if TRITON_INTERPRET=1
is in the environment before triton is imported.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..transition_counts import TransitionCounts

#: The largest numbers of labels that fit a program's registers.
LARGEST = {torch.float32: 128, torch.float64: 64}

# The largest sum of losses and additions, relative to the total.
_TOLERANCE = {torch.float32: 1e-9, torch.float64: 1e-17}
_STATE = {torch.float32: tl.float32, torch.float64: tl.float64}


@triton.jit
def _exp(x, STATE: tl.constexpr):
    """Compute exp of x <= 0, in the state's type.

    float32 uses a polynomial (Cephes), whose error is a unit in the last place on all hardware. Results below the
    smallest normal number are 0.
    """
    if STATE == tl.float32:  # noqa: SIM300
        x = tl.maximum(x, -120.0)
        power = tl.floor(x * 1.44269504 + 0.5)
        x = x - power * 0.693359375 + power * 2.12194440e-4
        y = ((1.9875691500e-4 * x + 1.3981999507e-3) * x + 8.3334519073e-3) * x + 4.1665795894e-2
        y = ((y * x + 1.6666665459e-1) * x + 5.0000001201e-1) * x * x + x + 1.0
        # Compute 2^power as the product of two halves, because the exponent itself might not fit.
        exponent = power.to(tl.int32)
        half = exponent >> 1
        first = ((half + 127) << 23).to(tl.float32, bitcast=True)
        second = ((exponent - half + 127) << 23).to(tl.float32, bitcast=True)
        return y * first * second
    return tl.exp(x)


@triton.jit(do_not_specialize=["batch", "words", "size"])
def _factored(
    unary,
    transitions,
    lengths,
    forward,
    labels,
    counts,
    log_partition,
    safe,
    batch,
    words,
    size,
    tolerance,
    LOWEST: tl.constexpr,
    TINY: tl.constexpr,
    STATE: tl.constexpr,
    C: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    group = row // batch
    length = tl.load(lengths + row % batch).to(tl.int32)
    label = tl.arange(0, C)
    real = label < size
    cells = label[:, None] * size + label[None, :]
    square = real[:, None] & real[None, :]

    scores = tl.load(transitions + group * size * size + cells, mask=square, other=float("-inf"))
    largest = tl.maximum(tl.max(tl.max(scores, 1), 0), LOWEST)
    possible = scores > float("-inf")
    moved = _exp((scores - largest).to(STATE), STATE)
    moved = tl.where(moved >= TINY, moved, 0.0)  # hardware may treat smaller numbers as 0

    # Forward messages are at most the weight of all words before.
    unary += row * words * size
    forward += row * words * size
    labels += row * words * size
    emitted = tl.load(unary + label, mask=real, other=float("-inf"))
    shift = tl.maximum(tl.max(emitted, 0), LOWEST)
    weight = _exp((emitted - shift).to(STATE), STATE)
    norm = tl.sum(weight, 0)
    message = weight / tl.maximum(norm, TINY)
    tl.store(forward + label, message, mask=real)
    total = tl.log(norm.to(tl.float64))
    shifts = shift + (length - 1) * largest
    for n in range(1, length):
        emitted = tl.load(unary + n * size + label, mask=real, other=float("-inf"))
        shift = tl.maximum(tl.max(emitted, 0), LOWEST)
        weight = _exp((emitted - shift).to(STATE), STATE) * tl.sum(moved * message[None, :], 1)
        norm = tl.sum(weight, 0)
        message = weight / tl.maximum(norm, TINY)
        tl.store(forward + n * size + label, message, mask=real)
        total += tl.log(norm.to(tl.float64))
        shifts += shift
    tl.store(log_partition + row, total + shifts)
    tl.store(labels + (length - 1) * size + label, message, mask=real)

    # Backward messages are at least the weight of all words after. Threads read numbers that other threads wrote.
    tl.debug_barrier()
    moved = tl.where(possible, tl.maximum(moved, TINY), 0.0)
    after = tl.where(real, 1.0, 0.0).to(STATE)
    expected = tl.zeros((C, C), STATE)
    bound = tl.zeros((), tl.float64)
    least = tl.full((), 1.0, STATE)
    for back in range(1, length):
        n = length - back
        emitted = tl.load(unary + n * size + label, mask=real, other=float("-inf"))
        shift = tl.maximum(tl.max(emitted, 0), LOWEST)
        here = (emitted > float("-inf")) & (after > 0)
        weight = tl.maximum(_exp((emitted - shift).to(STATE), STATE), TINY)
        weight = tl.where(here, tl.maximum(weight * after, TINY), 0.0)
        norm = tl.sum(weight, 0)
        following = tl.where(here, tl.maximum(weight / tl.maximum(norm, TINY), TINY), 0.0)
        bound += tl.log(norm.to(tl.float64))
        onward = (moved > 0) & (following > 0)[:, None]
        after = tl.sum(tl.where(onward, tl.maximum(moved * following[:, None], TINY), 0.0), 0)
        before = tl.load(forward + (n - 1) * size + label, mask=real, other=0.0)
        product = before * after
        joint = tl.sum(product, 0)
        least = tl.minimum(least, joint * tl.minimum(norm, 1.0))
        share = 1.0 / tl.maximum(joint, TINY)
        tl.store(labels + (n - 1) * size + label, product * share, mask=real)
        expected += (following * share)[:, None] * before[None, :]
    tl.store(counts + row * size * size + cells, expected * moved, mask=square)

    emitted = tl.load(unary + label, mask=real, other=float("-inf"))
    shift = tl.maximum(tl.max(emitted, 0), LOWEST)
    here = (emitted > float("-inf")) & (after > 0)
    weight = tl.maximum(_exp((emitted - shift).to(STATE), STATE), TINY)
    bound += tl.log(tl.sum(tl.where(here, tl.maximum(weight * after, TINY), 0.0), 0).to(tl.float64))
    agreed = tl.abs(bound - total) < 0.1  # False for NaN, and if there is no structure
    tl.store(safe + row, agreed & (least.to(tl.float64) * tolerance >= TINY * 8.0 * size * length))


@triton.jit(do_not_specialize=["batch", "bigrams", "size"])
def _dense(
    teacher,
    student,
    lengths,
    forward,
    labels,
    marginals,
    log_partition,
    safe,
    batch,
    bigrams,
    size,
    high_temperature,
    low_temperature,
    tolerance,
    LOWEST: tl.constexpr,
    TINY: tl.constexpr,
    STATE: tl.constexpr,
    READ: tl.constexpr,
    C: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + row % batch).to(tl.int32)
    label = tl.arange(0, C)
    real = label < size
    area = size * size
    cells = label[:, None] * size + label[None, :]
    square = real[:, None] & real[None, :]
    # Only a branch can choose between two pointers.
    if row < batch:  # noqa: SIM108
        scores = teacher + row * bigrams * area
    else:
        scores = student + (row - batch) * bigrams * area
    forward += row * (bigrams + 1) * size
    labels += row * (bigrams + 1) * size
    marginals += row * bigrams * area

    scale = 1.0 / (tl.zeros((), tl.float64) + high_temperature + low_temperature)
    message = tl.where(real, 1.0, 0.0).to(STATE) / size
    tl.store(forward + label, message, mask=real)
    total = tl.zeros((), tl.float64)
    shifts = tl.log(tl.zeros((), tl.float64) + size)
    for n in range(0, length - 1):
        step = tl.load(scores + n * area + cells, mask=square, other=float("-inf")).to(READ)
        shift = tl.maximum(tl.max(tl.max(step, 1), 0), LOWEST)
        moved = _exp(((step - shift) * scale.to(READ)).to(STATE), STATE)
        moved = tl.where(moved >= TINY, moved, 0.0)
        weight = tl.sum(moved * message[None, :], 1)
        norm = tl.sum(weight, 0)
        message = weight / tl.maximum(norm, TINY)
        tl.store(forward + (n + 1) * size + label, message, mask=real)
        total += tl.log(norm.to(tl.float64))
        shifts += shift.to(tl.float64) * scale
    tl.store(log_partition + row, total + shifts)
    tl.store(labels + (length - 1) * size + label, message, mask=real)

    tl.debug_barrier()
    after = tl.where(real, 1.0, 0.0).to(STATE)
    bound = tl.zeros((), tl.float64)
    least = tl.full((), 1.0, STATE)
    for back in range(1, length):
        n = length - 1 - back
        step = tl.load(scores + n * area + cells, mask=square, other=float("-inf")).to(READ)
        shift = tl.maximum(tl.max(tl.max(step, 1), 0), LOWEST)
        moved = tl.maximum(_exp(((step - shift) * scale.to(READ)).to(STATE), STATE), TINY)
        norm = tl.sum(after, 0)
        following = tl.where(after > 0, tl.maximum(after / tl.maximum(norm, TINY), TINY), 0.0)
        bound += tl.log(norm.to(tl.float64))
        onward = (step > float("-inf")) & (following > 0)[:, None]
        weight = tl.where(onward, tl.maximum(moved * following[:, None], TINY), 0.0)
        after = tl.sum(weight, 0)
        before = tl.load(forward + n * size + label, mask=real, other=0.0)
        product = before * after
        joint = tl.sum(product, 0)
        least = tl.minimum(least, joint * tl.minimum(norm, 1.0))
        share = 1.0 / tl.maximum(joint, TINY)
        tl.store(labels + n * size + label, product * share, mask=real)
        tl.store(marginals + n * area + cells, weight * (before * share)[None, :], mask=square)

    bound += tl.log((tl.sum(after, 0) / size).to(tl.float64))
    agreed = tl.abs(bound - total) < 0.1
    tl.store(safe + row, agreed & (least.to(tl.float64) * tolerance >= TINY * 8.0 * size * length))


def _constants(read: torch.dtype, state: torch.dtype, labels: int) -> dict[str, Any]:
    padded = triton.next_power_of_2(labels)
    # Registers hold the matrices: 128 bytes of each in every thread, with 32 threads a warp, fit.
    warps = min(16, max(1, padded * padded * state.itemsize // (128 * 32)))
    # Use twice the smallest normal number, so that no compiler treats it as 0.
    tiny = 2 * torch.finfo(state).tiny
    # The number to subtract if all labels are impossible.
    lowest = torch.finfo(read).min
    return {"LOWEST": lowest, "TINY": tiny, "STATE": _STATE[state], "C": padded, "num_warps": warps}


def fits(labels: int, precision: torch.dtype | None) -> bool:
    """Return whether a program can hold chains of so many labels."""
    return labels <= LARGEST[_state(precision)]


def runs_on(scores: Tensor) -> bool:
    """Return whether the kernels can read these tensors: on a GPU, or anywhere in Triton's interpreter."""
    return scores.is_cuda or not isinstance(_factored, triton.JITFunction)


def _state(precision: torch.dtype | None) -> torch.dtype:
    return torch.float64 if precision in (None, torch.float64) else torch.float32


def factored(
    unary: Tensor, transitions: Tensor, lengths: Tensor, precision: torch.dtype | None = None
) -> tuple[Tensor, Tensor, list[TransitionCounts], Tensor]:
    """Compute log Z [G, B], label marginals [G, B, N, C], G transition counts and safe [G, B], in float64.

    Args:
        unary: [G, B, N, C] float64. transitions: [G, C, C] float64. lengths: LongTensor [B].
        precision: the dtype of the final results; the state is float32 if it is no more than that.
    """
    state = _state(precision)
    groups, batch, words, size = unary.shape
    log_partition = unary.new_empty(groups, batch)
    labels = torch.zeros_like(unary, memory_format=torch.contiguous_format)
    counts = unary.new_empty(groups, batch, size, size)
    safe = torch.empty_like(log_partition, dtype=torch.bool)
    forward = torch.empty_like(labels, dtype=state)
    with _ready(unary):
        _factored[(groups * batch,)](
            unary.contiguous(),
            transitions.contiguous(),
            lengths.contiguous(),
            forward,
            labels,
            counts,
            log_partition,
            safe,
            batch,
            words,
            size,
            _TOLERANCE[state],
            **_constants(unary.dtype, state, size),
        )
    if state == torch.float32 and fits(size, torch.float64) and not safe.all():
        again = (~safe.all(0)).nonzero().flatten()
        log_partition[:, again], labels[:, again], repeated, safe[:, again] = factored(
            unary[:, again], transitions, lengths[again]
        )
        for group in range(groups):
            counts[group, again] = repeated[group].dense()
    return log_partition, labels, [TransitionCounts.from_dense(counts[group]) for group in range(groups)], safe


def dense(
    sides: Sequence[Tensor], lengths: Tensor, temperature: float = 1.0, precision: torch.dtype | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute log Z [G, B], label marginals [G, B, N, C], bigram marginals [G, B, N-1, C, C] and safe [G, B].

    log Z is float64; marginals are float32 if `precision` is float32 or less. Arguments are as in
    `chain.dense_expectations`, with one or two sides.
    """
    state = _state(precision)
    groups, (batch, bigrams, size, _) = len(sides), sides[0].shape
    common = sides[0].dtype if groups == 1 else torch.promote_types(sides[0].dtype, sides[1].dtype)
    teacher, student = (sides[n % groups].to(common).contiguous() for n in range(2))
    log_partition = teacher.new_empty(groups, batch, dtype=torch.float64)
    labels = teacher.new_zeros(groups, batch, bigrams + 1, size, dtype=state)
    marginals = teacher.new_zeros(groups, batch, bigrams, size, size, dtype=state)
    safe = torch.empty_like(log_partition, dtype=torch.bool)
    forward = torch.empty_like(labels)
    read = torch.promote_types(common, state)
    # A kernel receives numbers as float32, so the temperature is given as two of them.
    high = float(torch.tensor(temperature, dtype=torch.float32))
    with _ready(teacher):
        _dense[(groups * batch,)](
            teacher,
            student,
            lengths.contiguous(),
            forward,
            labels,
            marginals,
            log_partition,
            safe,
            batch,
            bigrams,
            size,
            high,
            temperature - high,
            _TOLERANCE[state],
            READ=_STATE[read],
            **_constants(read, state, size),
        )
    if state == torch.float32 and fits(size, torch.float64) and not safe.all():
        again = (~safe.all(0)).nonzero().flatten()
        exact = dense([side[again] for side in sides], lengths[again], temperature)
        for into, values in zip((log_partition, labels, marginals, safe), exact, strict=True):
            into[:, again] = values.to(into.dtype)
    return log_partition, labels, marginals, safe


# The interpreter replaces the language's functions for all threads.
_one_at_a_time = threading.Lock()


def _ready(scores: Tensor) -> AbstractContextManager[Any]:
    """Return a context that makes the tensors' device the current one, on which kernels start."""
    return torch.cuda.device(scores.device) if isinstance(_factored, triton.JITFunction) else _one_at_a_time
