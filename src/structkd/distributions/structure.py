"""What every structured distribution of structkd shares.

`StructuredDistribution` is the one place that absorbs what torch-struct 0.5 gets wrong. A concrete class says three
things: its clean part scores (`_parts`), the dynamic programme over them (`_inside`), and how a structure is written
down (`_encode`, `_decode`). Everything else, from `partition` to `topk`, is derived here.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property, wraps
from numbers import Real
from typing import Any, TypeVar

import torch
import torch_struct
from torch import Tensor
from torch.distributions import Distribution, register_kl

from ..numbering import UNLABELLED
from .faults import NO_COMPLETION, Faults
from .kernels.arithmetic import NEG_INF, Gradient, working_precision
from .semirings import KBest, Log, Max, Sample
from .transition_counts import expected_score

#: One entry per kind of part: a tensor that starts with the batch, or expected transition counts kept as factors.
Parts = tuple[Any, ...]
F = TypeVar("F", bound=Callable[..., Any])


# Up to this sum of scores the digits of working precision that are left show differences between structures.
_LARGEST_SUM = 1e5

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
    if lengths.shape == (batch, words):
        raise ValueError(
            f"lengths must have shape [{batch}], one number of words per sentence, got {list(lengths.shape)}. For a "
            "mask over words, whose padding comes last, give mask.sum(1)"
        )
    if lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"lengths must be a LongTensor [B], got {lengths.dtype}")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths must have shape [{batch}], one per sentence, got {list(lengths.shape)}")
    ragged = False
    for item, length in enumerate(lengths.tolist()):
        if isinstance(length, float) and not length.is_integer():
            raise ValueError(f"lengths must be whole numbers; batch item {item} has {length}")
        if not 1 <= length <= words:
            raise ValueError(
                f"lengths must lie in 1..{words} (the scores' number of words); batch item {item} has {length}"
            )
        ragged |= length < words
    return lengths.detach().to(device=device, dtype=torch.long), ragged


def check_number(name: str, value: Any) -> float:
    """A real number of Python's or numpy's, or a tensor with one that carries no gradient, as a float."""
    if isinstance(value, Tensor) and value.requires_grad:
        raise TypeError(f"{name} is not differentiated; give a number, such as float({name})")
    number = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    return float(number)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number of Python's or numpy's, or a tensor with one, as an int; refuse one below `least`."""
    try:
        if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {type(value).__name__}") from None
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}")
    return count


def check_temperature(temperature: Any) -> float:
    """Refuse a temperature that is not a positive, finite number."""
    temperature = check_number("temperature", temperature)
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be positive and finite, got {temperature}")
    return temperature


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


def check_labels(labels: Any, mask: Tensor, size: int, name: str = "labels") -> Tensor:
    """Labels as a LongTensor [B, N]; refuse those that are neither in 0..size-1 nor UNLABELLED inside the sentences."""
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        raise TypeError(f"{name} must be a LongTensor [B, N], got {getattr(labels, 'dtype', type(labels).__name__)}")
    if labels.shape != mask.shape:
        raise ValueError(f"{name} must have shape {list(mask.shape)}, got {list(labels.shape)}")
    labels = labels.long()
    strange = ((labels < 0) | (labels >= size)) & mask
    if strange.any():
        wrong = (strange & (labels != UNLABELLED)).nonzero().tolist()
        if wrong:
            item, word = wrong[0]
            raise ValueError(
                f"{name} must lie in 0..{size - 1}, or be {UNLABELLED} where they are not known; word {word} of batch "
                f"item {item} has {int(labels[item, word])}"
            )
    return labels


class StructuredDistribution(torch_struct.StructDistribution):
    """Base of every distribution over the structures of a batch of sentences.

    Dynamic programmes run in float64 (float32 on devices without it); results come back in the dtype of the scores.
    Nothing is stored on classes, the caller's tensors are never changed, and only values that carry no graph are
    cached: a cached graph could be walked back once only.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type torch.distributions reads
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
        if scores.is_meta:
            raise ValueError("the scores are on the meta device and have no values; move the model to a device first")
        if not (validate_args is None or isinstance(validate_args, bool)):
            raise TypeError(
                f"validate_args must be True, False or None, got {type(validate_args).__name__}; torch-struct's order "
                "of arguments is another: name them"
            )
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

    def _read(self, structure: Any) -> tuple[Any, Faults]:
        """A structure in the form `decode` returns as `_encode` takes it, and what keeps it from being one."""
        raise NotImplementedError

    def _faults_of_event(self, event: Tensor, as_gold: bool = False) -> Faults:
        """What keeps an event [B, *event_shape], of any dtype, from being a structure, or gold; padding is ignored."""
        raise NotImplementedError

    def _lacks(self, missing: Tensor, as_gold: bool) -> Tensor:
        """Whether sentences lack the part of some word, given the words that have none, BoolTensor [B, N]."""
        return missing.any(1)

    def _any_event(self) -> Tensor:
        """The event of some structure, [*event_shape], whatever the length of the sentence."""
        raise NotImplementedError

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
        temperature = check_temperature(temperature)
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

    def _exact_expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        """`_expectations` in working precision throughout, of parts that may be others than this distribution's own:
        constrained, or measured from a structure.
        """
        return self._expectations(parts)

    def _measured_from(self, structure: Parts, parts: Parts) -> Parts:
        """Part scores under which this structure scores 0, every other one its difference to it."""
        raise NotImplementedError

    def _from_best(self) -> tuple[Parts, Tensor]:
        """Part scores and log Z to take differences of, such as log P.

        Their own; or, where they are so large that working precision would lose the differences between structures,
        measured from the best structure.
        """
        parts = self._parts()
        if not _is_huge(parts, self.words):
            return parts, self._memo("partition", lambda: self._log_partition(parts))
        parts = self._measured_from(self._best()[1], parts)
        return parts, self._memo("partition from best", lambda: self._log_partition(parts))

    def _leaves_open(self, structure: Any) -> bool:
        """Whether something of a structure, as `_read` gives it, is not known."""
        return isinstance(structure, Tensor) and bool(((structure == UNLABELLED) & self.word_mask).any())

    def _constrained(self, parts: Parts, structure: Any) -> Parts:
        """The parts with -inf in the first for all that contradicts a structure of which something is open."""
        raise NotImplementedError

    def _open_likelihood(self, parts: Parts, structure: Any) -> tuple[Tensor, Parts]:
        """-log P [B] of what is known of structures, and its gradient by the parts: log Z less the log Z of all
        structures that agree with it. +inf where scores of -inf exclude them all.
        """
        log_partition, expected = self._expectations(parts)
        constrained = self._constrained(parts, structure)
        possible = self._inside(Log(), constrained, self.lengths) > NEG_INF
        if not possible.all():
            nothing = self._constrained(tuple(torch.zeros_like(p) for p in parts), structure)
            self._refuse({NO_COMPLETION: self._inside(Log(), nothing, self.lengths) == NEG_INF})
            first = torch.where(possible.view(-1, *[1] * (parts[0].dim() - 1)), constrained[0], parts[0])
            constrained = (first, *constrained[1:])
        agreeing, wanted = self._exact_expectations(constrained)
        loss = (log_partition - agreeing).masked_fill(~possible, float("inf"))
        return loss, tuple(p - t for p, t in zip(expected, wanted, strict=True))

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

    def _is_compact(self, value: Any) -> bool:
        """Whether this is structures [*, B, N] in the form `decode` returns."""
        return (
            isinstance(value, Tensor)
            and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
            and value.shape[-2:] == (*self.batch_shape, self.words)
        )

    def _checked(self, gold: Any) -> Any:
        """Gold structures as `_encode` takes them, or events as they are; refuse what is no structure."""
        if self._is_event(gold):
            faults = self._faults_of_event(gold, as_gold=True)
        else:
            gold, faults = self._read(gold)
        self._refuse(faults)
        return gold

    def _refuse(self, faults: Faults) -> None:
        if faults and torch.stack(list(faults.values())).any():
            reason, wrong = next((reason, wrong) for reason, wrong in faults.items() if wrong.any())
            item = int(wrong.nonzero()[0])
            raise ValueError(f"gold of batch item {item} is not a structure of {class_name(self)}: it {reason}")

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
    def log_prob(self, value: Any) -> Tensor:
        """log P of one-hot events [*, B, *event_shape], or of integer labels or heads [*, B, N] as `decode` gives them.

        -inf for what is no structure of this class, a tree with crossing arcs under `DependencyCRF`, say. -100 in place
        of a label or head means that it is not known: the probability is that of all structures that agree. Heads say
        nothing of relations, which are not known then. Returns [*, B]. Padding is ignored; of shapes that are both,
        events are read.
        """
        shape = self.batch_shape + self.event_shape
        if isinstance(value, Tensor) and value.shape[-len(shape) :] == shape:
            lead = value.shape[: -len(shape)]
            score: Callable[[Any, Parts], Tensor] = self._score_of_event
        elif self._is_compact(value):
            shape, score = torch.Size((*self.batch_shape, self.words)), self._score_of_structure
            lead = value.shape[:-2] if isinstance(value, Tensor) else torch.Size()
        else:
            kind = f"{list(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise (ValueError if isinstance(value, Tensor) else TypeError)(
                f"log_prob takes one-hot events [*, {', '.join(map(str, shape))}] or {self._compact_form()}, got {kind}"
            )
        parts, log_partition = self._from_best()
        each = value.reshape(lead.numel(), *shape) if isinstance(value, Tensor) else [value]
        found = [score(one, parts) - log_partition for one in each]
        log_probs = torch.stack(found) if found else log_partition.new_zeros(0, *self.batch_shape)
        return (log_probs - log_probs.detach().clamp_min(0.0)).reshape(*lead, *self.batch_shape).to(self.dtype)

    def _compact_form(self) -> str:
        """Of `log_prob`'s message."""
        return f"integer structures [*, {', '.join(map(str, [*self.batch_shape, self.words]))}]"

    def _score_of_event(self, event: Tensor, parts: Parts) -> Tensor:
        inside = self._parts_of_event(self._in_sentence(event).to(parts[0].dtype))
        return excluding(_total_score(inside, parts), self._faults_of_event(event))

    def _parts_of_event(self, event: Tensor) -> Parts:
        """Indicators of all parts that an event [B, *event_shape], 0 in the padding, stands for."""
        return (event,)

    def _score_of_structure(self, structure: Any, parts: Parts) -> Tensor:
        structure, faults = self._read(structure)
        if self._leaves_open(structure):
            score = self._inside(Log(), self._constrained(parts, structure), self.lengths)
        else:
            score = _total_score(self._encode(structure), parts)
        return excluding(score, faults)

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

        return self._memo("entropy", self._entropy).to(self.dtype)

    def _entropy(self) -> Tensor:
        """The entropy in working precision."""
        parts, _ = self._from_best()
        value, expectations = self._expected_exactly()
        return _at_least_zero(value - _total_score(expectations, parts))

    def _expected_exactly(self) -> tuple[Tensor, Parts]:
        return self._memo("exact expectations", lambda: self._exact_expectations(self._from_best()[0]))

    @ordinary_tensors
    def cross_entropy(self, other: Any) -> Tensor:
        """H(P, Q) = log Z_q - sum_u P(u) s_q(u), [B], to a distribution over the same parts.

        +inf where Q excludes a structure that P allows. For another family use `structkd.structural_kd_loss`.
        """
        other = adopt(other)
        return self._cross_entropy_to(other).to(torch.promote_types(self.dtype, other.dtype))

    def _cross_entropy_to(self, other: Any) -> Tensor:
        """The cross-entropy in working precision."""
        self._check_comparable(other)
        other_parts, value = other._from_best()
        if self._form() == other._form():
            mine = self._expected_exactly()[1]
        else:
            mine = other.marginals_to_targets(self.expected_event())
        return value - _total_score(mine, other_parts)

    @ordinary_tensors
    def kl(self, other: Any) -> Tensor:
        """KL(P || Q) = H(P, Q) - H(P), [B], to a distribution over the same parts."""
        other = adopt(other)
        divergence = self._cross_entropy_to(other) - self._memo("entropy", self._entropy)
        return _at_least_zero(divergence).to(torch.promote_types(self.dtype, other.dtype))

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
        """Score of the best structure, [B]; its gradient is `argmax`."""
        value, best = self._best()
        return (self._live_score(best) if self._needs_graph() else value).to(self.dtype)

    def _live_score(self, structure: Parts) -> Tensor:
        """The score of a structure that is taken as a constant, differentiable by the scores."""
        return _total_score(self._all_parts(structure), self._parts())

    def _all_parts(self, structure: Parts) -> Parts:
        """Indicators of all parts of a structure, given those that are kept of it."""
        return structure

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
        """Scores of the k best structures, [k, B], falling; -inf where there are fewer. Their gradients are `topk`."""
        values, structures = self._k_best(k)
        if self._needs_graph():
            scores = torch.stack([self._live_score(structure) for structure in structures])
            values = torch.where(values > NEG_INF, scores, NEG_INF)
        return values.to(self.dtype)

    @ordinary_tensors
    def topk(self, k: int) -> Tensor:
        """The k best structures as one-hot events [k, B, *event_shape], best first; all zero where there are fewer."""
        return torch.stack([self._event(parts) for parts in self._k_best(k)[1]]).to(self.dtype)

    @ordinary_tensors
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - torch.distributions' default
        """Independent exact samples as one-hot events [*sample_shape, B, *event_shape]; never differentiable."""
        single = not isinstance(sample_shape, Sequence)
        shape = torch.Size([check_count("sample_shape", sample_shape, 0)] if single else sample_shape)
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
        k = check_count("k", k)
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


def _total_score(indicators: Parts, parts: Parts) -> Tensor:
    """`expected_score` of parts of every kind, [B]."""
    return torch.stack([expected_score(i, s) for i, s in zip(indicators, parts, strict=True)]).sum(0)


def _is_huge(parts: Parts, words: int) -> bool:
    """Whether sums of this many finite scores may be too large for their differences to be seen."""
    largest = [p.detach().masked_fill(p.detach() == NEG_INF, 0.0).abs().amax() for p in parts if p.numel()]
    return bool(largest) and bool(torch.stack(largest).amax() * words > _LARGEST_SUM)


def _at_least_zero(values: Tensor) -> Tensor:
    """What is at least 0 but for rounding, without that; derivatives stay as they are."""
    return values - values.detach().clamp_max(0.0)


def excluding(score: Tensor, faults: Faults) -> Tensor:
    """-inf in place of the scores [B] of sentences that have a fault."""
    for wrong in faults.values():
        score = score.masked_fill(wrong, NEG_INF)
    return score


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
@register_kl(StructuredDistribution, torch_struct.StructDistribution)
@register_kl(torch_struct.StructDistribution, StructuredDistribution)
def _kl_divergence(p: Any, q: Any) -> Tensor:
    return adopt(p).kl(q)
