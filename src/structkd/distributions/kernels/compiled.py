"""Compiled CPU kernels for chains and dependency trees: torch tensors in, torch tensors out (extra: structkd[fast]).

They need numba, which is imported, and compiles, at the first use; what it compiled stays on disk for later processes.
All sums over structures are in float64 probability space, and certified: where a number could have been lost to
underflow, where no structure is possible or a loss is infinite, `ok` (or a sentence's `safe`) is False, what comes with
it has no meaning, and the caller takes its general way. Cells in the padding change nothing and are 0 in what is
returned; in heads and labels, -1.

Sentences are spread over as many threads as torch may use, where there is enough to do. Neither torch's nor numba's
thread settings are touched.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

_logger = logging.getLogger(__name__)

#: emissions [B, N, C], transitions [C, C] as [next, previous], start [C] or None, end [C] or None
Scores = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
Gradients = tuple[Tensor, Tensor, Tensor | None, Tensor | None]
#: of h, d and c, [B, N, r] each
Factors = tuple[Tensor, Tensor, Tensor]

#: What a thread must have to do, in nanoseconds, to be worth waking.
_WORTHWHILE = 200_000

_lock = threading.RLock()
_usable: bool | None = None
_ready: set[tuple[str, Any]] = set()
_executor: ThreadPoolExecutor | None = None


def _forget_threads() -> None:
    """A forked process has none of its parent's threads, nor whoever held its locks."""
    global _executor, _lock
    _executor, _lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def available() -> bool:
    """Whether numba is there and compiles. The first call finds out; a failure is logged, once, and final."""
    global _usable
    if _usable is None:
        with _lock:
            if _usable is None:
                _usable = _works()
    return _usable


def _works() -> bool:
    try:
        from .compiled_lanes import probe

        numbers = np.linspace(-9.0, 0.0, 8)
        expected = np.exp(numbers)
        _first_call("probe", probe, (numbers,))
        if not np.allclose(numbers, expected, rtol=1e-13, atol=0.0):
            raise ArithmeticError(f"exp gives {numbers}, not {expected}")
    except ModuleNotFoundError as error:
        _logger.info("compiled kernels are off, pip install structkd[fast] has them: %s", error)
        return False
    except Exception as error:
        _logger.warning("compiled kernels are off: %s: %s", type(error).__name__, error)
        return False
    return True


def _first_call(name: str, kernel: Any, arguments: Sequence[Any]) -> Any:
    """The call that compiles or loads from disk, one process at a time: the others find the work done.

    It is more than thrift: numba numbers the files of its cache in the order in which signatures come up, and two
    processes that begin with different ones would overwrite each other's.
    """
    from filelock import FileLock, Timeout

    with ExitStack() as stack:
        folder = kernel.stats.cache_path
        # no folder, no permission to write there, a file system without locks: nothing is shared
        with suppress(OSError, Timeout, NotImplementedError):
            if folder is not None:
                stack.enter_context(FileLock(os.path.join(folder, f"structkd-{name}.lock"), timeout=300))
        try:
            return kernel(*arguments)
        except OSError:  # compiled, but not saved
            return kernel(*arguments)


def _call(name: str, kernel: Any, dtype: Any, arguments: Sequence[Any]) -> Any:
    """What the kernel returns; None where it does not compile, which ends the use of all."""
    global _usable
    if (name, dtype) in _ready:
        return kernel(*arguments)
    with _lock:
        if _usable is False:
            return None
        try:
            result = _first_call(name, kernel, arguments)
        except Exception as error:
            _usable = False
            _logger.warning("compiled kernels are off: %s: %s: %s", name, type(error).__name__, error)
            return None
        _ready.add((name, dtype))
    return result


def _ranges(count: int, cost: float, least: int = 1, pieces: int = 1) -> list[tuple[int, int]]:
    """Sentences 0..count - 1, which take `cost` nanoseconds, as `pieces` ranges of a multiple of `least` sentences for
    each thread worth using.
    """
    threads = min(torch.get_num_threads(), int(cost / _WORTHWHILE), -(-count // least))
    if threads <= 1:
        return [(0, count)]
    size = -(-count // (threads * pieces * least)) * least
    return [(first, min(first + size, count)) for first in range(0, count, size)]


def _over(ranges: list[tuple[int, int]], work: Callable[[int, int, int], Any]) -> list[Any]:
    """work(n, first, last) for the n-th range, the first in this thread and the others in the pool."""
    if len(ranges) == 1:
        return [work(0, *ranges[0])]
    global _executor
    with _lock:
        if _executor is None:
            _executor = ThreadPoolExecutor(max(1, torch.get_num_threads() - 1), thread_name_prefix="structkd")
        executor = _executor
    others = [executor.submit(work, n, *limits) for n, limits in enumerate(ranges[1:], 1)]
    results = [work(0, *ranges[0])]
    return results + [other.result() for other in others]


def _common(*tensors: Tensor | None) -> torch.dtype:
    """float64 if one of them is, else float32."""
    return torch.float64 if any(t is not None and t.dtype == torch.float64 for t in tensors) else torch.float32


def _array(tensor: Tensor | None, dtype: torch.dtype) -> np.ndarray:
    """The numbers of a tensor in a contiguous array, the tensor's own where possible; an empty one for None."""
    if tensor is None:
        return np.empty(0, np.float64 if dtype == torch.float64 else np.float32)
    return tensor.detach().to(dtype).contiguous().numpy()


def _factored_cost(words: int, size: int) -> float:
    return words * (100.0 + 0.5 * size * size)


def _trees_cost(sentences: int, words: int) -> float:
    return sentences * (500.0 + 0.8 * words**3)


def _matrix_tree_cost(sentences: int, words: int) -> float:
    return sentences * words * (100.0 + 0.1 * words**2)


def factored_kd(
    teacher: Scores, student: Scores, lengths: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Gradients, bool]:
    """The structural loss of chains that share their transitions, and its gradient, in one pass over both.

    Args:
        teacher, student: emissions [B, N, C], transitions [C, C] (next, previous), start [C] and end [C] or None;
            float32 or float64, on the CPU.
        lengths: LongTensor [B], 1..N.
        temperature: T; the scores of both sides are divided by it.

    Returns T^2 (log Z_s - <P_t, s_s / T>) for every sentence, [B] float64; T (P_s - P_t), the gradient of their sum by
    the student's emissions, transitions, start and end, in the dtype of each; and whether all of it can be relied on.
    Costs O(N C^2) time a sentence and O(N C + C^2) memory a thread.
    """
    from . import compiled_chain

    emissions, transitions, start, end = student
    batch, words, size = emissions.shape
    dtype = _common(*teacher, *student)
    arrays = [_array(scores, dtype) for scores in (*teacher, *student)]
    count = _array(lengths, torch.long)
    loss = torch.empty(batch, dtype=torch.float64)
    gradient = torch.empty(batch, words, size, dtype=dtype)
    ranges = _ranges(batch, _factored_cost(batch * words, size))
    shared = np.empty((len(ranges), size * (size + 2)))
    outputs = loss.numpy(), gradient.numpy()

    def work(n: int, first: int, last: int) -> bool:
        arguments = (*arrays, count, temperature, first, last, *outputs, shared[n])
        return _call("factored_kd", compiled_chain.factored_kd, dtype, arguments)

    ok = all(_over(ranges, work))
    total = torch.from_numpy(shared[0] if len(ranges) == 1 else shared.sum(0))
    by_label = total[size * size :]
    gradients = (
        gradient.to(emissions.dtype),
        total[: size * size].view(size, size).to(transitions.dtype),
        None if start is None else by_label[:size].to(start.dtype),
        None if end is None else by_label[size:].to(end.dtype),
    )
    return loss, gradients, ok


def dense_kd(
    teacher: Tensor, student: Tensor, lengths: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, bool]:
    """The structural loss of chains with scores per bigram, and its gradient.

    Args:
        teacher, student: [B, N-1, C, C]; cell [b, n, j, i] scores label i at word n followed by label j at n + 1.
        lengths: LongTensor [B], 1..N. A sentence of one word is uniform.
        temperature: T.

    Returns T^2 (log Z_s - <P_t, s_s / T>), [B] float64; T (P_s - P_t), [B, N-1, C, C] in the student's dtype; and
    whether they can be relied on. Costs O(N C^2) time a sentence and memory a thread.
    """
    from . import compiled_chain

    batch, bigrams, size, _ = student.shape
    dtype = _common(teacher, student)
    arrays = _array(teacher, dtype), _array(student, dtype), _array(lengths, torch.long)
    loss = torch.empty(batch, dtype=torch.float64)
    gradient = torch.empty(batch, bigrams, size, size, dtype=dtype)
    outputs = loss.numpy(), gradient.numpy()

    def work(n: int, first: int, last: int) -> bool:
        arguments = (*arrays, temperature, first, last, *outputs)
        return _call("dense_kd", compiled_chain.dense_kd, dtype, arguments)

    ok = all(_over(_ranges(batch, 4.0 * gradient.numel()), work))
    return loss, gradient.to(student.dtype), ok


def projective_kd(
    teacher: Tensor, student: Tensor, lengths: Tensor, multiroot: bool = False, temperature: float = 1.0
) -> tuple[Tensor, Tensor, bool]:
    """The structural loss of projective trees (Eisner, 1996), and its gradient.

    Args:
        teacher, student: arc scores [B, N, N]; cell [b, h, d] for head h and dependent d, root arcs on the diagonal.
        lengths: LongTensor [B], 1..N.
        multiroot: whether several words may hang from the root, rather than exactly one.
        temperature: T.

    Returns T^2 (log Z_s - <P_t, s_s / T>), [B] float64; T (P_s - P_t), [B, N, N] in the student's dtype; and whether
    they can be relied on. Costs O(N^3) time a sentence and O(N^2) memory a thread.
    """
    from . import compiled_trees

    batch, words, _ = student.shape
    dtype = _common(teacher, student)
    count = _array(lengths, torch.long)
    arrays = _array(teacher, dtype), _array(student, dtype), count, np.argsort(count)[::-1].copy()
    loss = torch.empty(batch, dtype=torch.float64)
    gradient = torch.empty(batch, words, words, dtype=dtype)
    outputs = loss.numpy(), gradient.numpy()

    def work(n: int, first: int, last: int) -> bool:
        arguments = (*arrays, bool(multiroot), temperature, first, last, *outputs)
        return _call("projective_kd", compiled_trees.projective_kd, dtype, arguments)

    ok = all(_over(_ranges(batch, _trees_cost(batch, words), least=4, pieces=4), work))
    return loss, gradient.to(student.dtype), ok


def factored_expectations(unary: Tensor, transitions: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log Z [B], label marginals [B, N, C], expected transition counts [B, C, C] (next, previous) and safe, bool [B].

    Args:
        unary: [B, N, C] float64 scores of labels. transitions: [C, C] float64. lengths: LongTensor [B].

    Costs O(N C^2) time a sentence.
    """
    from . import compiled_chain

    batch, words, size = unary.shape
    log_partition = torch.empty(batch, dtype=torch.float64)
    labels = torch.empty(batch, words, size, dtype=torch.float64)
    counts = torch.empty(batch, size, size, dtype=torch.float64)
    safe = torch.zeros(batch, dtype=torch.bool)
    count = _array(lengths, torch.long)
    arrays = _array(unary, torch.float64), _array(transitions, torch.float64), count, np.argsort(count)
    outputs = log_partition.numpy(), labels.numpy(), counts.numpy(), safe.numpy()

    def work(n: int, first: int, last: int) -> None:
        _call("factored_expectations", compiled_chain.factored_expectations, None, (*arrays, first, last, *outputs))

    _over(_ranges(batch, 0.5 * _factored_cost(batch * words, size), least=2, pieces=2), work)
    return log_partition, labels, counts, safe


def dense_expectations(potentials: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log Z [B], label marginals [B, N, C], bigram marginals [B, N-1, C, C] and safe, bool [B].

    Args:
        potentials: [B, N-1, C, C] float64, (next, previous). lengths: LongTensor [B].

    Costs O(N C^2) time a sentence.
    """
    from . import compiled_chain

    batch, bigrams, size, _ = potentials.shape
    log_partition = torch.empty(batch, dtype=torch.float64)
    labels = torch.empty(batch, bigrams + 1, size, dtype=torch.float64)
    marginals = torch.empty(batch, bigrams, size, size, dtype=torch.float64)
    safe = torch.zeros(batch, dtype=torch.bool)
    count = _array(lengths, torch.long)
    arrays = _array(potentials, torch.float64), count, np.argsort(count)
    outputs = log_partition.numpy(), labels.numpy(), marginals.numpy(), safe.numpy()

    def work(n: int, first: int, last: int) -> None:
        _call("dense_expectations", compiled_chain.dense_expectations, None, (*arrays, first, last, *outputs))

    _over(_ranges(batch, 2.0 * potentials.numel(), least=2, pieces=2), work)
    return log_partition, labels, marginals, safe


def projective_expectations(arcs: Tensor, lengths: Tensor, multiroot: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """log Z [B], arc marginals [B, N, N] and safe, bool [B], of projective trees.

    Args:
        arcs: [B, N, N] float64, cell [b, h, d] for head h and dependent d, root arcs on the diagonal.
        lengths: LongTensor [B]. multiroot: as in `projective_kd`.

    Costs O(N^3) time a sentence.
    """
    from . import compiled_trees

    batch, words, _ = arcs.shape
    log_partition = torch.empty(batch, dtype=torch.float64)
    marginals = torch.empty(batch, words, words, dtype=torch.float64)
    safe = torch.zeros(batch, dtype=torch.bool)
    count = _array(lengths, torch.long)
    arrays = _array(arcs, torch.float64), count, np.argsort(count)[::-1].copy(), bool(multiroot)
    outputs = log_partition.numpy(), marginals.numpy(), safe.numpy()

    def work(n: int, first: int, last: int) -> None:
        _call("projective_expectations", compiled_trees.projective_expectations, None, (*arrays, first, last, *outputs))

    _over(_ranges(batch, 0.5 * _trees_cost(batch, words), least=8, pieces=4), work)
    return log_partition, marginals, safe


def matrix_tree_kd(
    teacher: Tensor, student: Tensor, lengths: Tensor, multiroot: bool = False, temperature: float = 1.0
) -> tuple[Tensor, Tensor, bool]:
    """The structural loss of all trees, crossing arcs included, and its gradient: as `projective_kd`.

    Costs O(N^3) time a sentence and O(N^2) memory a thread.
    """
    from . import compiled_matrix_tree

    batch, words, _ = student.shape
    dtype = _common(teacher, student)
    arrays = _array(teacher, dtype), _array(student, dtype), _array(lengths, torch.long)
    loss = torch.empty(batch, dtype=torch.float64)
    gradient = torch.empty(batch, words, words, dtype=dtype)
    outputs = loss.numpy(), gradient.numpy()

    def work(n: int, first: int, last: int) -> bool:
        arguments = (*arrays, bool(multiroot), temperature, first, last, *outputs)
        return _call("matrix_tree_kd", compiled_matrix_tree.matrix_tree_kd, dtype, arguments)

    ok = all(_over(_ranges(batch, 2.0 * _matrix_tree_cost(batch, words)), work))
    return loss, gradient.to(student.dtype), ok


def matrix_tree_expectations(arcs: Tensor, lengths: Tensor, multiroot: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """log Z [B], arc marginals [B, N, N] and safe, bool [B], of all trees, crossing arcs included.

    Args:
        arcs: [B, N, N] float64, cell [b, h, d] for head h and dependent d, root arcs on the diagonal.
        lengths: LongTensor [B]. multiroot: as in `projective_kd`.

    Costs O(N^3) time a sentence.
    """
    from . import compiled_matrix_tree

    batch, words, _ = arcs.shape
    log_partition = torch.empty(batch, dtype=torch.float64)
    marginals = torch.empty(batch, words, words, dtype=torch.float64)
    safe = torch.zeros(batch, dtype=torch.bool)
    arrays = _array(arcs, torch.float64), _array(lengths, torch.long), bool(multiroot)
    outputs = log_partition.numpy(), marginals.numpy(), safe.numpy()

    def work(n: int, first: int, last: int) -> None:
        arguments = (*arrays, first, last, *outputs)
        _call("matrix_tree_expectations", compiled_matrix_tree.matrix_tree_expectations, None, arguments)

    _over(_ranges(batch, _matrix_tree_cost(batch, words)), work)
    return log_partition, marginals, safe


def edmonds(scores: np.ndarray, reluctant_root: bool) -> np.ndarray:
    """`edmonds.edmonds`, the same source compiled; as it is where that fails."""
    from . import edmonds as plain
    from .compiled_decoding import edmonds as kernel

    heads = _call("edmonds", kernel, None, (np.ascontiguousarray(scores, np.float64), reluctant_root))
    return plain.edmonds(scores, reluctant_root) if heads is None else heads


def log_arcs_of_labels(logits: Tensor, heads: Tensor, lengths: Tensor) -> Tensor | None:
    """log P(arc) [B, N, N], float64, by head and dependent, out of labels that name heads; -inf where none does.

    Args:
        logits: [B, N, K] scores of labels. heads: integers [B, N, K], the head that label k names at word d.
        lengths: LongTensor [B].

    0 beyond the sentences; None where a word's scores are all -inf, or one is NaN or +inf. Costs O(N K) a sentence.
    """
    from . import compiled_decoding

    batch, words, size = logits.shape
    dtype = _common(logits)
    arrays = _array(logits, dtype), heads.contiguous().numpy(), _array(lengths, torch.long)
    arcs = torch.empty(batch, words, words, dtype=torch.float64)

    def work(n: int, first: int, last: int) -> bool:
        arguments = (*arrays, first, last, arcs.numpy())
        return _call("log_arcs_of_labels", compiled_decoding.log_arcs_of_labels, (dtype, heads.dtype), arguments)

    ok = all(_over(_ranges(batch, 3.0 * batch * words * size), work))
    return arcs.mT if ok else None


def relations_of_arcs(
    logits: Tensor, heads: Tensor, relations: Tensor, trees: Tensor, lengths: Tensor, count: int
) -> Tensor | None:
    """The likeliest relation of every word's arc, LongTensor [B, N]; -1 in the padding and where there is none.

    Args:
        logits, heads, lengths: as in `log_arcs_of_labels`.
        relations: LongTensor [K] or [B, N, K], the relation of label k, below `count`; those below 0 do not count.
        trees: LongTensor [B, N], the head of every word.

    Among the labels that name the arc, or all of the word if none does. Costs O(N K) a sentence.
    """
    from . import compiled_decoding

    batch, words, size = logits.shape
    dtype = _common(logits)
    relations = relations.expand(logits.shape) if relations.dim() == 3 else relations.view(1, 1, size)
    arrays = _array(logits, dtype), heads.contiguous().numpy(), _array(relations, torch.long)
    trees, lengths = trees.contiguous(), lengths.contiguous()
    best = torch.full((batch, words), -1)

    def work(n: int, first: int, last: int) -> bool:
        arguments = (*arrays, trees.numpy(), lengths.numpy(), count, first, last, best.numpy())
        return _call("relations_of_arcs", compiled_decoding.relations_of_arcs, (dtype, heads.dtype), arguments)

    return best if all(_over(_ranges(batch, 1.0 * batch * words * size), work)) else None


def best_projective_trees(arcs: Tensor, lengths: Tensor, multiroot: bool = False) -> Tensor | None:
    """The best projective trees, LongTensor [B, N]; -1 in the padding, and throughout a sentence that has none.

    Args:
        arcs: [B, N, N], cell [b, h, d] for head h and dependent d, root arcs on the diagonal.
        lengths: LongTensor [B]. multiroot: as in `projective_kd`.

    None where it does not compile. Costs O(N^3) time a sentence and O(N^2) memory a thread.
    """
    from . import compiled_trees

    batch, words, _ = arcs.shape
    dtype = _common(arcs)
    heads = torch.full((batch, words), -1)
    count = _array(lengths, torch.long)
    arrays = _array(arcs, dtype), count, np.argsort(count)[::-1].copy(), bool(multiroot)

    def work(n: int, first: int, last: int) -> bool:
        arguments = (*arrays, first, last, heads.numpy())
        return _call("best_projective_trees", compiled_trees.best_projective_trees, dtype, arguments)

    return heads if all(_over(_ranges(batch, 0.2 * _trees_cost(batch, words), least=8, pieces=4), work)) else None


def spans_expectations(spans: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """log Z [B], span marginals [B, N, N, L], marginals [B, N] of words in no span, and safe, bool [B].

    Args:
        spans: [B, N, N, L] float64 log-odds of the span from word i to word j >= i bearing type l; cells with j < i are
            ignored. lengths: LongTensor [B].

    Costs O(N^2 L) time a sentence.
    """
    from . import compiled_chain

    batch, words, _, types = spans.shape
    log_partition = torch.empty(batch, dtype=torch.float64)
    marginals = torch.empty(batch, words, words, types, dtype=torch.float64)
    outside = torch.empty(batch, words, dtype=torch.float64)
    safe = torch.zeros(batch, dtype=torch.bool)
    arrays = _array(spans, torch.float64), _array(lengths, torch.long)
    outputs = log_partition.numpy(), marginals.numpy(), outside.numpy(), safe.numpy()

    def work(n: int, first: int, last: int) -> None:
        _call("spans_expectations", compiled_chain.spans_expectations, None, (*arrays, first, last, *outputs))

    _over(_ranges(batch, batch * words * words * (20.0 + types)), work)
    return log_partition, marginals, outside, safe


def relation_normalisers(scores: Tensor, temperature: float = 1.0) -> Tensor | None:
    """log sum over relations of exp(scores / temperature), [B, N, N] float64; -inf where all are impossible. None where
    the kernel does not compile.

    Args:
        scores: [B, N, N, L], float32 or float64, on the CPU. NaN and +inf stay in their cell.
    """
    from . import compiled_head_labels

    dtype = _common(scores)
    rows = _array(scores.flatten(0, 2), dtype)
    result = torch.empty(scores.shape[:3], dtype=torch.float64)
    output = result.numpy().reshape(-1)

    def work(n: int, first: int, last: int) -> bool:
        arguments = rows, temperature, first, last, output
        return _call("relation_normalisers", compiled_head_labels.relation_normalisers, dtype, arguments)

    done = _over(_ranges(len(rows), len(rows) * (30.0 + 0.5 * rows.shape[1])), work)
    return result if all(done) else None


def head_labels_kd(
    arcs: Tensor,
    scores: Tensor | None,
    logits: Tensor,
    heads: Tensor,
    relations: Tensor | None,
    lengths: Tensor,
    least: float,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, bool]:
    """The structural loss of words' labels that name heads, or heads and relations, and its gradient.

    Args:
        arcs: the teacher's arc marginals at T, [B, N, N] float64, cell [b, h, d].
        scores: [B, N, N, L], of relations given the arc; or None, where they do not count.
        logits: the student's, [B, N, K].
        heads: integers [B, N, K] that labels name, as in `HeadLabeling`.
        relations: LongTensor [K] or [B, N, K], with `scores`; else None.
        lengths: LongTensor [B], 1..N.
        least: a word whose labels cover less than this of the teacher has neither loss nor gradient.
        temperature: T.

    Returns T^2 times the loss, [B] float64; P_s - P_t, [B, N, K] in the student's dtype; and whether they can be relied
    on: a relation that the teacher lacks is among what makes them not. Costs O(N K + N^2).
    """
    from . import compiled_head_labels

    batch, words, size = logits.shape
    dtype = _common(scores, logits)
    if heads.dtype not in (torch.int16, torch.int32):
        heads = heads.long()
    rows = scores.flatten(0, 2) if scores is not None else logits.new_empty(0, 0)
    loss = torch.empty(batch, dtype=torch.float64)
    gradient = torch.empty(batch, words, size, dtype=dtype)
    arguments = (
        _array(arcs, torch.float64),
        _array(rows, dtype),
        _array(logits, dtype),
        _array(heads, heads.dtype),
        np.empty(0, np.int64) if relations is None else _array(relations.flatten(), torch.long),
        relations is not None and relations.dim() == 3,
        _array(lengths, torch.long),
        least,
        temperature,
    )
    outputs = loss.numpy(), gradient.numpy()

    def work(n: int, first: int, last: int) -> bool:
        key = (dtype, heads.dtype)
        return _call("head_labels_kd", compiled_head_labels.head_labels_kd, key, (*arguments, first, last, *outputs))

    ok = all(_over(_ranges(batch, 8.0 * gradient.numel()), work))
    return loss, gradient.to(logits.dtype), ok


def mean_field(
    arcs: Tensor, siblings: Factors | None, grandparents: Factors | None, lengths: Tensor, iterations: int
) -> Tensor | None:
    """F after the last iteration of `MeanFieldDependency.from_factors`, [B, N, N] float64, 0 in the padding; None where
    the kernel does not compile.

    Args:
        arcs: [B, N, N]; -inf for impossible arcs.
        siblings, grandparents: three tensors [B, N, r], or None.
        lengths: LongTensor [B], 1..N. iterations: T.

    Costs O(T N^2 r) time a sentence and O(N (N + r)) memory a thread.
    """
    from . import compiled_mean_field

    batch, words, _ = arcs.shape
    none = (arcs.new_empty(batch, words, 0),) * 3
    factors = [_array(torch.stack(triple or none), torch.float64) for triple in (siblings, grandparents)]
    field = torch.empty(batch, words, words, dtype=torch.float64)
    arguments = _array(arcs, torch.float64), *factors, iterations, _array(lengths, torch.long)
    output = field.numpy()

    def work(n: int, first: int, last: int) -> bool:
        return _call("mean_field", compiled_mean_field.mean_field, None, (*arguments, first, last, output))

    rank = sum(factor.shape[3] for factor in factors)
    done = _over(_ranges(batch, 0.2 * batch * (iterations + 1) * words * words * rank), work)
    return field if all(done) else None
