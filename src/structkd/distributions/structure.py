"""What every structured distribution of structkd shares.

`StructuredDistribution` is the one place that absorbs what torch-struct 0.5 gets wrong. A concrete class says three
things: its clean part scores (`_parts`), the dynamic programme over them (`_inside`), and how a structure is written
down (`_encode`, `_decode`). Everything else, from `partition` to `topk`, is derived here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property, wraps
from typing import Any, TypeVar

import torch
import torch_struct
from torch import Tensor
from torch.distributions import Distribution, register_kl

from .kernels.counts import TransitionCounts
from .semirings import NEG_INF, KBest, Log, Max, Sample, working_precision

#: One entry per kind of part: a tensor that starts with the batch, or expected transition counts kept as factors.
Parts = tuple[Any, ...]
#: From weights, [B] or [], to the weighted sum over sentences of the gradients by `_scores`, in their order. Called
#: once: what it holds may be changed and given away.
Gradient = Callable[[Tensor], tuple[Tensor | None, ...]]
F = TypeVar("F", bound=Callable[..., Any])

#: In place of a word's label or head: not known (PyTorch's ignore index).
OPEN = -100

# Cells whose arithmetic a processor's cache can hold (512 KiB in float32).
_CACHED_CELLS = 1 << 17

# Samples are drawn for several copies of the batch at once; this bounds the copies' potentials (128 MiB in float64).
_MAX_SAMPLED_CELLS = 1 << 24


def ordinary_tensors(method: F) -> F:
    """Run a method so that what it makes can be differentiated through, whatever mode the caller is in.

    Marginals are derivatives, which torch.inference_mode forbids, and a value cached there would poison later
    training. The caller's grad mode is kept: leaving inference mode alone would switch gradients on.
    """

    @wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_inference_mode_enabled():
            return method(*args, **kwargs)
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            return method(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


def class_name(distribution: Any) -> str:
    """The public name of an object's class."""
    return next(kind.__name__ for kind in type(distribution).__mro__ if not kind.__name__.startswith("_"))


def check_scores(name: str, scores: Any, shape: Sequence[str]) -> Tensor:
    """Refuse what is not a floating-point tensor with as many axes as `shape` names."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape [{', '.join(shape)}], got {type(scores).__name__}")
    if not scores.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {scores.dtype}; convert it with .float()")
    if scores.dim() != len(shape):
        raise ValueError(f"{name} must have shape [{', '.join(shape)}], got {list(scores.shape)}")
    return scores


def _check_lengths(lengths: Any, batch: int, words: int, device: torch.device) -> tuple[Tensor, bool]:
    """`lengths` as a LongTensor [B] on `device`, and whether any is less than `words`."""
    if not isinstance(lengths, Tensor):
        try:
            lengths = torch.as_tensor(lengths)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"lengths must be a LongTensor [B], got {type(lengths).__name__}") from error
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths must be a LongTensor [B], got {lengths.dtype}")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths must have shape [{batch}], one per sentence, got {list(lengths.shape)}")
    ragged = False
    for item, length in enumerate(lengths.tolist()):
        if not 1 <= length <= words:
            raise ValueError(
                f"lengths must lie in 1..{words} (the scores' number of words); batch item {item} has {length}"
            )
        ragged |= length < words
    return lengths.to(device=device, dtype=torch.long), ragged


def check_inventory(name: str, inventory: Any, size: int) -> list[str] | None:
    """A tag, type or relation inventory as a list, checked against the number of scores."""
    if inventory is None:
        return None
    if isinstance(inventory, str) or not isinstance(inventory, Sequence):
        raise TypeError(f"{name} must be a list of strings in score order, got {type(inventory).__name__}")
    wrong = [label for label in inventory if not isinstance(label, str)]
    if wrong:
        raise TypeError(f"{name} must be strings, got {wrong[0]!r}")
    if len(inventory) != size:
        raise ValueError(f"{name} lists {len(inventory)} entries but the scores have {size}: {list(inventory)}")
    repeated = [label for n, label in enumerate(inventory) if label in inventory[:n]]
    if repeated:
        raise ValueError(f"{name} lists {repeated[0]!r} more than once: {list(inventory)}")
    return list(inventory)


def scaled_gradient(
    total: tuple[Tensor | None, ...], by_sentence: Callable[[], tuple[Tensor, Gradient] | None]
) -> Gradient:
    """The gradient of a summed loss, for kernels that sum over the batch as they go.

    Where the sentences have weights of their own, which differ, they are taken apart by `by_sentence`.
    """

    def gradient(weights: Tensor) -> tuple[Tensor | None, ...]:
        weight = weights if weights.dim() == 0 else weights[:1]
        if weights.dim() == 0 or bool((weights == weight).all()):
            return tuple(None if t is None else t.mul_(weight) for t in total)
        with torch.no_grad():
            apart = by_sentence()
        if apart is None:
            raise RuntimeError("a loss that one implementation certified was refused by another")
        return apart[1](weights)

    return gradient


def check_labels(labels: Any, mask: Tensor, size: int, name: str = "labels", partial: bool = False) -> Tensor:
    """Refuse label sequences that are not integers [B, N] in 0..size-1 inside the sentences; or OPEN if `partial`."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"{name} must be a LongTensor [B, N], got {getattr(labels, 'dtype', type(labels).__name__)}")
    if labels.shape != mask.shape:
        raise ValueError(f"{name} must have shape {list(mask.shape)}, got {list(labels.shape)}")
    strange = ((labels < 0) | (labels >= size)) & mask
    if partial:
        strange &= labels != OPEN
    wrong = strange.nonzero().tolist()
    if wrong:
        item, word = wrong[0]
        value = int(labels[item, word])
        hint = ""
        if value == OPEN:
            hint = f" (only distributions in which every word chooses alone take {OPEN} for a word without gold)"
        raise ValueError(f"{name} must lie in 0..{size - 1}; word {word} of batch item {item} has {value}{hint}")
    return labels


def sentences_at_once(cells: Tensor) -> int:
    """How many sentences to take at a time, so that what is computed of their cells [B, ...] stays in the cache."""
    if cells.device.type != "cpu":
        return max(1, len(cells))
    return max(1, _CACHED_CELLS // max(1, cells[:1].numel()))


def expected_score(marginals: Tensor | TransitionCounts, scores: Tensor) -> Tensor:
    """sum_u P(u) s(u) for every batch item, [B]; 0 * -inf is 0, and mass on an impossible part gives -inf."""
    if isinstance(marginals, TransitionCounts):
        total = marginals.inner(scores)
    else:
        total = (marginals * scores).flatten(1).sum(1)
    if total.isfinite().all():
        return total
    impossible = scores == NEG_INF
    if isinstance(marginals, TransitionCounts):
        total = marginals.inner(scores.masked_fill(impossible, 0.0))
        if not impossible.any():
            return total
        return total.masked_fill(marginals.inner(impossible.to(scores.dtype)) > 0, NEG_INF)
    if marginals.shape == scores.shape and not impossible.any():
        return (marginals.flatten(1).unsqueeze(1) @ scores.flatten(1).unsqueeze(2)).view(-1)  # no tensor of products
    terms = torch.where(impossible, 0.0, marginals * scores.masked_fill(impossible, 0.0))
    total = terms.flatten(1).sum(1)
    return total.masked_fill((impossible & (marginals > 0)).flatten(1).any(1), NEG_INF)


class StructuredDistribution(torch_struct.StructDistribution):
    """Base of every distribution over the structures of a batch of sentences.

    Dynamic programmes run in float64 (float32 on devices without it); results come back in the dtype of the scores.
    Nothing is stored on classes, the caller's tensors are never changed, and only values that carry no graph are
    cached: a cached graph could be walked back once only.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type torch.distributions reads
    #: Whether a structure in the form `decode` returns may leave words open (`OPEN`).
    partial = False
    log_potentials: Tensor
    #: Whether a sentence is shorter than the batch.
    ragged: bool

    def __init__(
        self, scores: Tensor, words: int, event_shape: Sequence[int], lengths: Any, validate_args: bool | None
    ) -> None:
        """What does not depend on the kind: the batch, dtype and device of some scores [B, ...], checked lengths."""
        batch = scores.shape[0]
        if words < 1:
            raise ValueError("a sentence needs at least one word, got scores for none")
        self.ragged = False
        if lengths is not None:
            self.lengths, self.ragged = _check_lengths(lengths, batch, words, scores.device)
        Distribution.__init__(self, torch.Size([batch]), torch.Size(event_shape), validate_args=validate_args)
        self.dtype, self._device = scores.dtype, scores.device
        self._cache: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{class_name(self)}(batch_shape={list(self.batch_shape)}, event_shape={list(self.event_shape)})"

    # -- what a concrete class says -------------------------------------------------------------------------------

    @property
    def _scores(self) -> tuple[Tensor | None, ...]:
        """The score tensors as the user gave them, in the order `_with_scores` takes them."""
        return (self.log_potentials,)

    def _with_scores(self, *scores: Tensor | None) -> StructuredDistribution:
        """The same kind of distribution (root mode, labels, lengths) over other scores."""
        raise NotImplementedError

    def _parts(self) -> Parts:
        """Scores of the substructures in working precision, padding replaced; every tensor starts with the batch."""
        raise NotImplementedError

    def _inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        """The semiring sum over all structures, [B]."""
        raise NotImplementedError

    def _event(self, parts: Any) -> Tensor:
        """Indicators (or expectations) of the parts as an event tensor [B, *event_shape]."""
        return parts[0]

    def _decode(self, parts: Parts) -> Any:
        """The structure whose part indicators these are, in the form `decode` returns."""
        raise NotImplementedError

    def _encode(self, structure: Any) -> Parts:
        """Part indicators of structures in the form `decode` returns; padding is ignored."""
        raise NotImplementedError

    # -- shared arithmetic ----------------------------------------------------------------------------------------

    @property
    def words(self) -> int:
        """N, the number of words the score tensors have room for."""
        return self.event_shape[0]

    @cached_property
    def lengths(self) -> Tensor:
        """Words per sentence, LongTensor [B]."""
        return torch.full(self.batch_shape, self.words, dtype=torch.long, device=self._device)

    @property
    def word_mask(self) -> Tensor:
        """BoolTensor [B, N]: True at the words of a sentence, False in the padding."""
        return torch.arange(self.words, device=self.lengths.device) < self.lengths.unsqueeze(1)

    def tempered(self, temperature: float) -> StructuredDistribution:
        """The distribution with every score divided by `temperature`, differentiably; half precision is divided in
        working precision.
        """
        if temperature == 1:
            return self
        divided = (None if s is None else s.to(working_precision(s)) / temperature for s in self._scores)
        tempered = self._with_scores(*divided)
        tempered.dtype = self.dtype
        return tempered

    def _check_values(self, name: str, scores: Tensor, mask: Callable[[], Tensor]) -> None:
        """Refuse NaN and +inf where the mask, asked for only if there are any, is True."""
        # a maximum keeps a NaN; in the padding, which may hold anything, neither matters
        if not self._validate_args or scores.numel() == 0 or bool(scores.detach().amax() < float("inf")):
            return
        bad = ~(scores < float("inf")) & mask()
        if bad.any():
            cell = bad.nonzero()[0].tolist()
            raise ValueError(
                f"{name} must be finite or -inf inside a sentence; cell {cell} (batch item first) is "
                f"{scores[tuple(cell)].item()}"
            )

    def _needs_graph(self) -> bool:
        return torch.is_grad_enabled() and any(s is not None and s.requires_grad for s in self._scores)

    def _memo(self, name: str, compute: Callable[[], Any]) -> Any:
        """Cache what carries no graph."""
        if self._needs_graph():
            return compute()
        if name not in self._cache:
            with torch.no_grad():
                self._cache[name] = compute()
        return self._cache[name]

    def _require_structures(self, log_partition: Tensor, parts: Parts) -> None:
        """Refuse an empty structure space, decided on the support: a sum of huge scores may reach -inf on its own."""
        suspects = log_partition == NEG_INF
        if not suspects.any():
            return
        with torch.no_grad():
            empty = suspects & (self._inside(Log(), _support(parts), self.lengths) == NEG_INF)
        items = empty.nonzero().flatten().tolist()
        if items:
            raise ValueError(
                f"{class_name(self)} has no possible structure for batch item(s) {items}: scores of -inf exclude "
                "them all. Use a finite score where something must remain possible"
            )

    def _log_partition(self, parts: Parts) -> Tensor:
        value = self._inside(Log(), parts, self.lengths)
        self._require_structures(value.detach(), parts)
        return value

    def _expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        """log Z [B] and the expected part indicators; differentiable where `parts` are and gradients are enabled."""
        graph = torch.is_grad_enabled() and any(p.requires_grad for p in parts)
        # parts that are constants (scores that are always 0) have expectations, too
        parts = tuple(p if graph and p.requires_grad else p.detach().requires_grad_() for p in parts)
        with torch.enable_grad():
            value = self._inside(Log(), parts, self.lengths)
            self._require_structures(value.detach(), parts)
            grads = torch.autograd.grad(value.sum(), parts, create_graph=graph, materialize_grads=True)
        return (value, grads) if graph else (value.detach(), grads)

    def _cross_entropy(self, parts: Parts, targets: Parts) -> tuple[Tensor, Parts]:
        """log Z - sum_u P_t(u) s(u), [B], and its closed-form gradient P_s - P_t. Never differentiated itself."""
        log_partition, marginals = self._expectations(parts)
        loss = log_partition
        for target, scores in zip(targets, parts, strict=True):
            loss = loss - expected_score(target, scores)
        return loss, tuple(p - t for p, t in zip(marginals, targets, strict=True))

    def _distil(self, teacher: Any, temperature: float) -> tuple[Tensor, Gradient] | None:
        """The whole structural loss [B] to a teacher, T^2 included, and its gradient by this distribution's `_scores`.

        For classes that can run the teacher's programme together with their own; None where that cannot be, or where it
        cannot be certified, and the general way (project, then `_cross_entropy`) is to be taken.
        """
        return None

    def _sources(self) -> tuple[Tensor, ...]:
        """Tensors through which all scores can be differentiated, small ones where there is a choice."""
        return tuple(scores for scores in self._scores if scores is not None)

    def _is_event(self, structure: Any) -> bool:
        """Whether this has the shape of events."""
        return isinstance(structure, Tensor) and structure.shape == self.batch_shape + self.event_shape

    def _chain_rule(self, gold: Any) -> list[tuple[Distribution, Tensor]] | None:
        """Distributions, and gold structures of them, whose likelihoods multiply to that of these gold structures.

        For classes whose likelihood is cheapest that way; None where there is none.
        """
        return None

    def _likelihood(self, gold: Any) -> tuple[Tensor, Gradient] | None:
        """-log P [B] of structures, in the form `decode` returns or as events [B, *event_shape], and its gradient by
        this distribution's `_scores`.

        For classes that have a cheaper way to it than `_cross_entropy`; None where that cannot be certified.
        """
        return None

    @ordinary_tensors
    def expected_parts(self) -> Any:
        """Expected part indicators in working precision: what projections work with."""
        return self._memo("expectations", lambda: self._expectations(self._parts()))[1]

    def expected_event(self) -> Tensor:
        """Marginals [B, *event_shape] in working precision."""
        return self._event(self.expected_parts())

    def marginals_to_targets(self, marginals: Tensor) -> Parts:
        """A tensor shaped like `marginals` as the targets of a loss; padding is ignored."""
        raise NotImplementedError

    # -- the interface of torch-struct ----------------------------------------------------------------------------

    @property
    @ordinary_tensors
    def partition(self) -> Tensor:
        """log Z, [B]. Raises ValueError where a structure space is empty."""
        return self._memo("partition", lambda: self._log_partition(self._parts())).to(self.dtype)

    @property
    @ordinary_tensors
    def marginals(self) -> Tensor:
        """P(u), [B, *event_shape]: probabilities, exactly 0 in the padding."""
        return self._memo("marginals", self.expected_event).to(self.dtype)

    @ordinary_tensors
    def log_prob(self, value: Tensor) -> Tensor:
        """log P of one-hot events [*, B, *event_shape], or of integer labels or heads [*, B, N] as `decode` gives them.

        Returns [*, B]. Cells in the padding are ignored.
        """
        shape = self.batch_shape + self.event_shape
        parts = self._parts()
        log_partition = self.partition.to(parts[0].dtype)
        if value.shape[-len(shape) :] == shape:
            lead, flat = value.shape[: -len(shape)], value.reshape(-1, *shape)
            score: Callable[[Tensor, Parts], Tensor] = self._score_of_events
        elif not value.is_floating_point() and value.shape[-2:] == (*self.batch_shape, self.words):
            lead, flat = value.shape[:-2], value.reshape(-1, *self.batch_shape, self.words)
            score = self._score_of_structures
        else:
            raise ValueError(
                f"log_prob takes one-hot events [*, {', '.join(map(str, shape))}] or integer structures "
                f"[*, {', '.join(map(str, [*self.batch_shape, self.words]))}], got {list(value.shape)} of {value.dtype}"
            )
        scores = torch.stack([score(one, parts) for one in flat]) if len(flat) else flat.new_zeros(0, *self.batch_shape)
        return (scores - log_partition).reshape(*lead, *self.batch_shape).to(self.dtype)

    def _score_of_events(self, event: Tensor, parts: Parts) -> Tensor:
        return expected_score(self._in_sentence(event).to(parts[0].dtype), parts[0])

    def _score_of_structures(self, structure: Tensor, parts: Parts) -> Tensor:
        indicators = self._encode(structure)
        return torch.stack([expected_score(i.to(s.dtype), s) for i, s in zip(indicators, parts, strict=True)]).sum(0)

    def _in_sentence(self, event: Tensor) -> Tensor:
        """An event tensor with the padding set to 0."""
        return torch.where(self._event_mask(), event, torch.zeros((), dtype=event.dtype, device=event.device))

    def _event_mask(self) -> Tensor:
        """BoolTensor broadcastable to [B, *event_shape]: True where a cell belongs to the sentence."""
        raise NotImplementedError

    @property
    @ordinary_tensors
    def entropy(self) -> Tensor:
        """H(P), [B], in nats."""

        def compute() -> Tensor:
            parts = self._parts()
            value, expectations = self._expectations(parts)
            return value - sum(expected_score(e, p) for e, p in zip(expectations, parts, strict=True))

        return self._memo("entropy", compute).to(self.dtype)

    @ordinary_tensors
    def cross_entropy(self, other: Any) -> Tensor:
        """H(P, Q) = log Z_q - sum_u P(u) s_q(u), [B], to a distribution over the same parts.

        +inf where Q excludes a structure that P allows. For another family use `structkd.structural_kd_loss`.
        """
        other = adopt(other)
        self._check_comparable(other)
        other_parts = other._parts()
        value = other._log_partition(other_parts)
        mine = self.expected_parts()
        if self._form() != other._form():
            mine = other.marginals_to_targets(self.expected_event())
        for expected, scores in zip(mine, other_parts, strict=True):
            value = value - expected_score(expected, scores)
        return value.to(torch.promote_types(self.dtype, other.dtype))

    def kl(self, other: Distribution) -> Tensor:
        """KL(P || Q) = H(P, Q) - H(P), [B], to a distribution over the same parts."""
        return self.cross_entropy(other) - self.entropy

    def _form(self) -> Any:
        """Two distributions of one family whose `_form` is equal have the same kind of parts."""
        return None

    def _check_comparable(self, other: StructuredDistribution) -> None:
        if not (isinstance(other, type(self)) or isinstance(self, type(other))):
            raise NotImplementedError(
                f"no cross-entropy from {class_name(self)} to {class_name(other)}: their parts differ. "
                "structkd.structural_kd_loss projects one onto the other"
            )
        if self.event_shape != other.event_shape or self.batch_shape != other.batch_shape:
            raise ValueError(
                f"cross-entropy needs equal shapes, got {list(self.batch_shape + self.event_shape)} and "
                f"{list(other.batch_shape + other.event_shape)}"
            )
        if not torch.equal(self.lengths, other.lengths):
            raise ValueError(f"lengths differ: {self.lengths.tolist()} and {other.lengths.tolist()}")

    @property
    @ordinary_tensors
    def max(self) -> Tensor:
        """Score of the best structure, [B]."""
        return self._best()[0].to(self.dtype)

    @property
    @ordinary_tensors
    def argmax(self) -> Tensor:
        """The best structure as a one-hot event [B, *event_shape]; a tie goes to one of the best."""
        return self._event(self._best()[1]).to(self.dtype)

    @property
    def mode(self) -> Tensor:
        """The best structure, as `argmax`."""
        return self.argmax

    @ordinary_tensors
    def decode(self) -> Any:
        """The best structure in compact form: LongTensor [B, N] of labels or heads, -1 in the padding."""
        return self._decode(self._best()[1])

    @ordinary_tensors
    def kmax(self, k: int) -> Tensor:
        """Scores of the k best structures, [k, B], falling; -inf where there are fewer."""
        return self._k_best(k)[0].to(self.dtype)

    @ordinary_tensors
    def topk(self, k: int) -> Tensor:
        """The k best structures as one-hot events [k, B, *event_shape], best first; all zero where there are fewer."""
        return torch.stack([self._event(parts) for parts in self._k_best(k)[1]]).to(self.dtype)

    @ordinary_tensors
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - torch.distributions' default
        """Independent exact samples as one-hot events [*sample_shape, B, *event_shape]; never differentiable."""
        shape = torch.Size([sample_shape]) if isinstance(sample_shape, int) else torch.Size(sample_shape)
        draws = self._draw(shape.numel())
        event = torch.cat([self._event_of_draws(parts, count) for parts, count in draws])
        return event.to(self.dtype).reshape(*shape, *self.batch_shape, *self.event_shape)

    @property
    @ordinary_tensors
    def count(self) -> Tensor:
        """Number of possible structures, [B], as a float (it grows exponentially with the sentence)."""
        with torch.no_grad():
            return self._inside(Log(), _support(self._parts()), self.lengths).exp().to(self.dtype)

    def gumbel_crf(self, temperature: float = 1.0) -> Tensor:
        raise NotImplementedError("relaxed samples (gumbel_crf) are torch-struct's own; build its class to use them")

    def to_event(self, sequence: Any, extra: Any = None, lengths: Any = None) -> Tensor:
        """Compact structures, in torch-struct's convention, as one-hot events."""
        raise NotImplementedError(f"{class_name(self)} has no compact form in torch-struct")

    def from_event(self, event: Tensor) -> Any:
        """One-hot events as compact structures, in torch-struct's convention."""
        raise NotImplementedError(f"{class_name(self)} has no compact form in torch-struct")

    # -- structures by differentiation ----------------------------------------------------------------------------

    def _best(self) -> tuple[Tensor, Parts]:
        values, structures = self._memo_detached("best", lambda parts: self._solve(Max(), parts, self.lengths))
        return values[0], structures[0]

    def _k_best(self, k: int) -> tuple[Tensor, list[Parts]]:
        if not isinstance(k, int) or isinstance(k, bool):
            raise TypeError(f"k must be an int, got {type(k).__name__}")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        return self._memo_detached(f"best {k}", lambda parts: self._solve(KBest(k), parts, self.lengths))

    def _memo_detached(self, name: str, solve: Callable[[Parts], Any]) -> Any:
        if name not in self._cache:
            with torch.no_grad():
                parts = tuple(p.detach() for p in self._parts())
                self._log_partition(parts)
            self._cache[name] = solve(parts)
        return self._cache[name]

    def _solve(self, semiring: Log, parts: Parts, lengths: Tensor) -> tuple[Tensor, list[Parts]]:
        """Values [k, B] (k = 1 but for KBest) and, for each, the part indicators that gave it."""
        with torch.enable_grad():
            leaves = tuple(p.detach().requires_grad_() for p in parts)
            values = self._inside(semiring, leaves, lengths)
            values = values if isinstance(semiring, KBest) else values.unsqueeze(0)
            structures = []
            for value in values:
                grads = torch.autograd.grad(value.sum(), leaves, retain_graph=True, materialize_grads=True)
                found = (value.detach() > NEG_INF).to(value.dtype)
                structures.append(tuple(g * found.view(-1, *[1] * (g.dim() - 1)) for g in grads))
        return values.detach(), structures

    def _draw(self, samples: int) -> list[tuple[Parts, int]]:
        """Part indicators of `samples` exact samples, as (parts of shape [count * B, ...], count) chunks."""
        with torch.no_grad():
            parts = tuple(p.detach() for p in self._parts())
            self._log_partition(parts)
        largest = max(p.numel() for p in parts)
        chunk = max(1, _MAX_SAMPLED_CELLS // max(largest, 1))
        draws = []
        for start in range(0, samples, chunk):
            count = min(chunk, samples - start)
            draws.append((self._sampled_parts(self._copies(parts, count), self.lengths.repeat(count)), count))
        return draws or [(tuple(p[:0] for p in parts), 0)]

    def _copies(self, parts: Parts, count: int) -> Parts:
        """The parts of `count` copies of the batch."""
        return tuple(p.repeat(count, *[1] * (p.dim() - 1)) for p in parts)

    def _sampled_parts(self, parts: Parts, lengths: Tensor) -> Parts:
        return self._solve(Sample(), parts, lengths)[1][0]

    def _event_of_draws(self, parts: Parts, count: int) -> Tensor:
        return self._event(parts).reshape(count, *self.batch_shape, *self.event_shape)


def _support(parts: Parts) -> Parts:
    """Part scores with every possible part at 0."""
    return tuple(torch.zeros_like(p).masked_fill(p == NEG_INF, NEG_INF) for p in parts)


# -- torch-struct's own objects ---------------------------------------------------------------------------------------

_ADOPTERS: dict[type, tuple[type, Callable[[Any], StructuredDistribution]]] = {}


def adopts(foreign: type, ours: type) -> Callable[[F], F]:
    """Register the function that turns an object of a foreign class into ours."""

    def register(function: F) -> F:
        _ADOPTERS[foreign] = (ours, function)
        return function

    return register


def adopted_class(kind: type) -> tuple[type, ...]:
    """The lineage of a class for dispatch: its own, with our class in front of the torch-struct class it extends."""
    if issubclass(kind, StructuredDistribution):
        return kind.__mro__
    lineage = list(kind.__mro__)
    for position, base in enumerate(lineage):
        if base in _ADOPTERS:
            return tuple(lineage[:position]) + _ADOPTERS[base][0].__mro__
    return kind.__mro__


def adopt(distribution: Any) -> Any:
    """A torch-struct distribution as ours; anything else unchanged."""
    if not isinstance(distribution, StructuredDistribution):
        for base in type(distribution).__mro__:
            if base in _ADOPTERS:
                return _ADOPTERS[base][1](distribution)
    return distribution


@register_kl(StructuredDistribution, StructuredDistribution)
def _kl_divergence(p: StructuredDistribution, q: StructuredDistribution) -> Tensor:
    return p.kl(q)
