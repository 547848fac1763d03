"""The base of all structured distributions, and the interface through which projections and losses use them.

`StructuredDistribution` is the one place that works around the defects of torch-struct 0.5. A new class writes six
hooks: its clean part scores (`parts`), the recursion over them (`inside`), the cells of a sentence (`event_mask`), and
how structures are read and written (`parts_of_structure`, `structure_of_parts`, `parts_of_event`). Everything else,
from `partition` to `topk`, is derived here. The methods under "used by losses and projections" have defaults that are
right for every class; a class that knows a faster way overrides them.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property, reduce, wraps
from typing import Any, ClassVar, TypeVar

import torch
import torch_struct
from torch import Tensor
from torch.distributions import Distribution, register_kl

from ..numbering import UNLABELLED
from .checks import LARGE, LARGEST, TooLargeError, check_count, check_lengths, check_temperature
from .faults import NO_COMPLETION, NOT_ONE_STRUCTURE, Faults
from .kernels.arithmetic import NEG_INF, Gradient, working_precision
from .semirings import KBest, Log, Max, Sample
from .transition_counts import expected_score

#: One entry per kind of part: a tensor that starts with the batch, or expected transition counts kept as factors.
Parts = tuple[Any, ...]
F = TypeVar("F", bound=Callable[..., Any])
Self = TypeVar("Self", bound="StructuredDistribution")

# Up to this sum of scores the digits of working precision that are left show differences between structures.
_LARGEST_SUM = 1e5

# The score of a part that a structure must have: e to minus this is 0 at any temperature up to 1000.
_CERTAIN = 1e6

# Samples are drawn for several copies of the batch at once; this bounds the copies' potentials (128 MiB in float64).
_MAX_SAMPLED_CELLS = 1 << 24


def ordinary_tensors(method: F) -> F:
    """Run the method outside `torch.inference_mode`, so that autograd can use the tensors it creates.

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
    """Return the public name of an object's class."""
    return next(kind.__name__ for kind in type(distribution).__mro__ if not kind.__name__.startswith("_"))


class StructuredDistribution(torch_struct.StructDistribution, ABC):
    """A distribution over the structures of a batch of sentences, P(y) = exp(sum of the scores of y's parts) / Z.

    Recursions run in float64 (float32 on devices without it); results come back in the dtype of the scores. Nothing is
    stored on classes, the caller's tensors are never changed, and only values that carry no graph are cached: a cached
    graph could be walked back once only.

    A subclass checks its scores (`structkd.check_scores`), stores them under the names in `score_fields`, calls this
    constructor, and writes the six abstract methods. A structure is written in one of three forms:

    - a *structure*, in the form `decode` returns: labels or heads LongTensor [B, N], or a list for each sentence;
    - an *event*, indicators or expectations [B, *event_shape], shaped like `marginals`;
    - *parts*, a tuple of tensors [B, ...] shaped like the tensors of `parts()`, from which scores are summed.

    Args:
        scores: any of the score tensors, [B, ...], for its batch, dtype and device.
        words: N.
        event_shape: the shape of a sentence's event.
        lengths: LongTensor [B], 1..N, or None for N.
        validate_args: check values; None means torch.distributions' default.

    Example:
        >>> import structkd
        >>> distribution = structkd.MaxEnt(torch.zeros(2, 3, 4))
        >>> isinstance(distribution, StructuredDistribution), distribution
        (True, MaxEnt(batch_shape=[2], event_shape=[3, 4]))
        >>> distribution.entropy.exp().round().tolist()  # 4^3 structures of equal probability
        [64.0, 64.0]
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type torch.distributions reads
    #: The attributes that hold score tensors, or None. A temperature divides all of them.
    score_fields: ClassVar[tuple[str, ...]] = ("log_potentials",)
    #: The form of `decode`: "labels", "heads", "spans", or another name; "" is a form that is not named.
    structures_are: ClassVar[str] = ""
    log_potentials: Tensor
    #: Whether a sentence is shorter than the batch.
    ragged: bool
    #: Whether words choose independently of each other, if need be among the legal sequences of a tag scheme.
    over_words = False
    #: The largest score, if it is beyond `LARGE`; else 0.
    _largest: float = 0.0

    def __init__(
        self, scores: Tensor, words: int, event_shape: Sequence[int], lengths: Any, validate_args: bool | None
    ) -> None:
        batch = scores.shape[0]
        if words < 1:
            raise ValueError("A sentence needs at least one word, got scores for none. Drop empty sentences.")
        if scores.is_meta:
            raise ValueError("The scores are on the meta device and have no values. Move the model to a device first.")
        if not (validate_args is None or isinstance(validate_args, bool)):
            raise TypeError(
                f"The argument validate_args must be True, False or None, got {type(validate_args).__name__}. "
                "torch-struct orders its arguments differently, so give them by name."
            )
        self.ragged = False
        if lengths is not None:
            self.lengths, self.ragged = check_lengths(lengths, batch, words, scores.device)
        Distribution.__init__(self, torch.Size([batch]), torch.Size(event_shape), validate_args=validate_args)
        self.dtype, self._device = scores.dtype, scores.device
        self._cache: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"{class_name(self)}(batch_shape={list(self.batch_shape)}, event_shape={list(self.event_shape)})"

    # -- written by every class --------------------------------------------------------------------------------

    @abstractmethod
    def event_mask(self) -> Tensor:
        """Return the cells of each sentence, BoolTensor broadcastable to [B, *event_shape]."""

    @abstractmethod
    def parts(self) -> Parts:
        """Return the scores of the parts in working precision, every tensor with the batch first.

        Cells outside the sentences, which may hold anything, are replaced by 0 or -inf.
        """

    @abstractmethod
    def inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        """Sum over all structures in a semiring, [B].

        Args:
            semiring: see `structkd.distributions.semirings`; the recursion uses its `lift`, `times`, `sum` and `prod`
                alone and indexes from the right, since some semirings put an axis in front.
            parts: shaped as `parts()` gives them, of any number of sentences.
            lengths: LongTensor, the words of these sentences.
        """

    @abstractmethod
    def parts_of_structure(self, structure: Any) -> Parts:
        """Return indicators of the parts of structures in the form `decode` returns; padding is ignored."""

    @abstractmethod
    def structure_of_parts(self, parts: Parts) -> Any:
        """Return the structures whose part indicators these are, in the form `decode` returns."""

    @abstractmethod
    def parts_of_event(self, marginals: Tensor) -> Parts:
        """Return a tensor shaped like `marginals` as (expected) part indicators; padding is ignored."""

    def event_of_parts(self, parts: Any) -> Tensor:
        """Return (expected) part indicators as an event [B, *event_shape]; the first of the parts by default."""
        return parts[0]

    # -- used by losses and projections ---------------------------------------------------------------------------

    @property
    def scores(self) -> tuple[Tensor | None, ...]:
        """The score tensors as the user gave them, in the order of `score_fields`."""
        return tuple(getattr(self, name) for name in self.score_fields)

    def with_scores(self: Self, *scores: Tensor | None) -> Self:
        """Return the same kind of distribution (root mode, labels, lengths) over other scores, unchecked."""
        other = copy.copy(self)
        other._cache, other._validate_args = {}, False
        for name, tensor in zip(self.score_fields, scores, strict=True):
            setattr(other, name, tensor)
        dtypes = [tensor.dtype for tensor in scores if tensor is not None]
        other.dtype = reduce(torch.promote_types, dtypes)
        return other

    @property
    def checks_values(self) -> bool:
        """Whether values are checked (`validate_args`)."""
        return self._validate_args

    def read_structure(self, structure: Any) -> tuple[Any, Faults]:
        """Return structures as `parts_of_structure` takes them, and the faults that keep them from being structures.

        Raises:
            TypeError or ValueError: if they are not in the form `decode` returns.
        """
        return structure, self.faults_of_event(self.event_of_parts(self.parts_of_structure(structure)))

    def faults_of_event(self, event: Tensor, as_gold: bool = False) -> Faults:
        """Find the reasons that keep an event [B, *event_shape], of any dtype, from being a structure, or gold.

        Padding is ignored. By default an event is a structure if the best structure that its cells allow has all of
        them.
        """
        inside = self._in_sentence(event).to(working_precision(event))
        strange = ((inside != 0) & (inside != 1)).flatten(1).any(1)
        indicators = self._indicators_of_event(inside)
        allowed = tuple(torch.where(i == 0, NEG_INF, i) for i in indicators)
        most = self.inside(Max(), allowed, self.lengths)
        return {NOT_ONE_STRUCTURE: strange | (most != sum(i.flatten(1).sum(1) for i in indicators))}

    def placeholder_event(self) -> Tensor:
        """Return the event of an arbitrary structure of every sentence, which replaces missing gold."""
        return self.argmax

    def dense(self) -> StructuredDistribution:
        """Return the same distribution with parts that determine an event. Only factored chains differ from it."""
        return self

    def certain_of(self, parts: Parts) -> StructuredDistribution:
        """Return the distribution that is certain of one structure per sentence, given by its part indicators.

        For classes whose scores are shaped like events: all other cells are impossible, and those of the structure
        would be missed by more than working precision can tell.
        """
        event = self.event_of_parts(parts)
        if [score.shape for score in self.scores if score is not None] != [event.shape]:
            raise NotImplementedError(
                f"{class_name(self)} has scores that are not shaped like events. Write the method `certain_of` for it."
            )
        certain = self.with_scores(torch.where(self.event_mask() & (event == 0), NEG_INF, _CERTAIN).expand_as(event))
        certain.dtype = self.dtype
        certain.know(parts)
        return certain

    def know(self, expected: Parts) -> None:
        """Cache expected parts that have been computed already."""
        self._cache["expectations"] = expected[0].new_zeros(self.batch_shape), expected

    def alone(self) -> Distribution:
        """Return the distribution in which every word chooses by its own scores; itself if scores are not of words."""
        return self

    def words_alone(self, scores: Tensor | None = None) -> StructuredDistribution:
        """Return a distribution of the same words, each of which chooses alone; over scores of 0 if none are given.

        Raises NotImplementedError for classes whose structures do not choose something for every word.
        """
        raise NotImplementedError(
            f"{class_name(self)} has no distribution per word. Use structural_kd_loss or topk_kd_loss instead."
        )

    def posterior(self) -> StructuredDistribution:
        """Return the distribution in which every word chooses by its marginals, differentiable by the scores."""
        return self.words_alone()

    # -- shared arithmetic ----------------------------------------------------------------------------------------

    @property
    def words(self) -> int:
        """N, the number of words the score tensors have room for."""
        return self.event_shape[0]

    @cached_property
    @ordinary_tensors
    def lengths(self) -> Tensor:
        """Words per sentence, LongTensor [B]."""
        return torch.full(self.batch_shape, self.words, dtype=torch.long, device=self._device)

    @cached_property
    @ordinary_tensors
    def word_mask(self) -> Tensor:
        """BoolTensor [B, N]: True at the words of a sentence, False in the padding."""
        return torch.arange(self.words, device=self.lengths.device) < self.lengths.unsqueeze(1)

    def tempered(self: Self, temperature: float) -> Self:
        """Return the distribution with every score divided by `temperature`, differentiably.

        Scores in half precision are divided in working precision.
        """
        temperature = check_temperature(temperature)
        if temperature == 1:
            return self
        divided = (None if s is None else s.to(working_precision(s)) / temperature for s in self.scores)
        tempered = self.with_scores(*divided)
        tempered.dtype = self.dtype
        return tempered

    def check_values(self, name: str, scores: Tensor, mask: Callable[[], Tensor]) -> None:
        """Refuse NaN and +inf inside the mask, which is computed only if there are any."""
        # a maximum keeps a NaN; in the padding, which may hold anything, neither matters
        if not self._validate_args or scores.numel() == 0 or scores.detach().amax().item() < LARGE:
            return
        inside = mask()
        bad = ~(scores < float("inf")) & inside
        if bad.any():
            cell = bad.nonzero()[0].tolist()
            raise ValueError(
                f"{name} must be finite or -inf inside a sentence, and cell {cell} (batch item first) is "
                f"{scores[tuple(cell)].item()}."
            )
        self._largest = max(self._largest, float(scores.detach().masked_fill(~inside, NEG_INF).amax()))

    def check_size(self, sums: Tensor | None = None) -> None:
        """Refuse scores whose size hides the differences between structures, for a loss.

        Args:
            sums: log Z of the sentences, if it is known.

        Raises:
            ValueError: a score, or log Z, is beyond :data:`~structkd.distributions.checks.LARGEST`. Of words that are
                independent none is too large: they are compared with the largest score of their word.
        """
        size = self._largest if sums is None or not sums.numel() else float(sums.abs().amax())
        if not self.over_words and not size <= LARGEST:
            raise TooLargeError(class_name(self), size)

    @property
    def has_large_scores(self) -> bool:
        """Whether a score is so large that marginals times scores need care; never if words are independent."""
        return self._largest > LARGE and not self.over_words

    def _needs_graph(self) -> bool:
        return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self.sources())

    def _memo(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a computed value, cached unless it carries a graph."""
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
            empty = suspects & (self.inside(Log(), _support(parts), self.lengths) == NEG_INF)
        items = empty.nonzero().flatten().tolist()
        if items:
            raise ValueError(
                f"{class_name(self)} has no possible structure for batch item(s) {items}: scores of -inf exclude "
                "them all. Use finite scores for the parts that must remain possible."
            )

    def _log_partition(self, parts: Parts) -> Tensor:
        value = self.inside(Log(), parts, self.lengths)
        self._require_structures(value.detach(), parts)
        return value

    def expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        """Return log Z [B] and the expected part indicators; differentiable if `parts` are, in grad mode."""
        graph = torch.is_grad_enabled() and any(p.requires_grad for p in parts)
        # parts that are constants (scores that are always 0) have expectations, too
        parts = tuple(p if graph and p.requires_grad else p.detach().requires_grad_() for p in parts)
        with torch.enable_grad():
            value = self.inside(Log(), parts, self.lengths)
            self._require_structures(value.detach(), parts)
            grads = torch.autograd.grad(value.sum(), parts, create_graph=graph, materialize_grads=True)
        return (value, grads) if graph else (value.detach(), grads)

    def _exact_expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        """`expectations` in working precision throughout, of parts that may be others than this distribution's own:
        constrained, or measured from a structure.
        """
        return self.expectations(parts)

    def _consistent_expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        """`_exact_expectations` that add up to the last digit, because scores are so large that one would see it.

        The marginals of forward-backward do not: a word's may differ by 1e-16 from the sum over its neighbour's. Those
        of autograd are products of conditional probabilities.
        """
        return self._exact_expectations(parts)

    def completed(self, targets: Parts) -> Parts:
        """Return targets with the parts that always score 0, which an event does not show."""
        return targets

    def measured_from(self, structure: Parts, parts: Parts) -> Parts:
        """Return part scores under which this structure scores 0, every other one its difference to it.

        By default the scores as they are: differences then have the digits that working precision has left.
        """
        return parts

    def _from_best(self) -> tuple[Parts, Tensor]:
        """Part scores and log Z to take differences of, such as log P.

        Their own; or, where they are so large that working precision would lose the differences between structures,
        measured from the best structure.
        """
        parts = self.parts()
        if not self._has_huge_sums():
            return parts, self._memo("partition", lambda: self._log_partition(parts))
        parts = self.measured_from(self.best()[1], parts)
        return parts, self._memo("partition from best", lambda: self._log_partition(parts))

    def _has_huge_sums(self) -> bool:
        """Return whether sums of finite scores may be too large for the differences between them to be seen."""
        if "huge sums" not in self._cache:
            self._cache["huge sums"] = _is_huge(self.parts(), self.words)
        return self._cache["huge sums"]

    def leaves_open(self, structure: Any) -> bool:
        """Return whether a structure, as `read_structure` gives it, is known in part only."""
        return isinstance(structure, Tensor) and bool(((structure == UNLABELLED) & self.word_mask).any())

    def constrained(self, parts: Parts, structure: Any) -> Parts:
        """Return the parts with -inf in the first for all that contradicts a partly known structure."""
        raise NotImplementedError(
            f"{class_name(self)} takes structures that are known as a whole, got one that is known in part. Write the "
            "method `constrained` to support the others."
        )

    def partial_likelihood(self, parts: Parts, structure: Any) -> tuple[Tensor, Parts]:
        """Return -log P [B] of partly known structures, and its gradient by the parts.

        It is log Z less the log Z of all structures that agree with the known parts; +inf if scores of -inf exclude
        all of these.
        """
        log_partition, expected = self.expectations(parts)
        constrained = self.constrained(parts, structure)
        possible = self.inside(Log(), constrained, self.lengths) > NEG_INF
        if not possible.all():
            nothing = self.constrained(tuple(torch.zeros_like(p) for p in parts), structure)
            self._refuse({NO_COMPLETION: self.inside(Log(), nothing, self.lengths) == NEG_INF})
            first = torch.where(possible.view(-1, *[1] * (parts[0].dim() - 1)), constrained[0], parts[0])
            constrained = (first, *constrained[1:])
        agreeing, wanted = self._exact_expectations(constrained)
        loss = (log_partition - agreeing).masked_fill(~possible, float("inf"))
        return loss, tuple(p - t for p, t in zip(expected, wanted, strict=True))

    def cross_entropy_of_parts(self, parts: Parts, targets: Parts) -> tuple[Tensor, Parts]:
        """Return log Z - sum_u P_t(u) s(u), [B], and its closed-form gradient P_s - P_t; neither carries a graph."""
        log_partition, marginals = self.expectations(parts)
        if self.has_large_scores or (not self.over_words and bool((log_partition.abs() > _LARGEST_SUM).any())):
            # The difference of two large numbers would be lost. Every structure scores less by the same.
            self.check_size(log_partition)
            parts = self.measured_from(self.best()[1], parts)
            log_partition, marginals = self._consistent_expectations(parts)
            targets = self.completed(targets)
        loss = log_partition
        for target, scores in zip(targets, parts, strict=True):
            loss = loss - expected_score(target, scores)
        return loss, tuple(p - t for p, t in zip(marginals, targets, strict=True))

    def fused_loss(self, teacher: Any, temperature: float) -> tuple[Tensor, Gradient] | None:
        """Return the structural loss [B] to a teacher, T^2 included, and its gradient by this distribution's `scores`.

        For classes that can run the teacher's recursion together with theirs. None if they cannot, or if the result
        cannot be certified: the caller then projects the teacher and calls `cross_entropy_of_parts`.
        """
        return None

    def sources(self) -> tuple[Tensor, ...]:
        """Return tensors through which all scores can be differentiated, small ones where there is a choice."""
        return tuple(scores for scores in self.scores if scores is not None)

    def is_event(self, structure: Any) -> bool:
        """Return whether a structure has the shape of events."""
        return isinstance(structure, Tensor) and structure.shape == self.batch_shape + self.event_shape

    def _is_compact(self, value: Any) -> bool:
        """Return whether a value is structures [*, B, N] in the form `decode` returns."""
        if not isinstance(value, Tensor):
            return isinstance(value, Sequence) and not isinstance(value, str)
        whole = not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
        return whole and value.shape[-2:] == (*self.batch_shape, self.words)

    def checked_gold(self, gold: Any) -> Any:
        """Return gold structures as `parts_of_structure` takes them, or events as they are; refuse all others."""
        if self.is_event(gold):
            faults = self.faults_of_event(gold, as_gold=True)
        else:
            gold, faults = self.read_structure(gold)
        self._refuse(faults)
        return gold

    def _refuse(self, faults: Faults) -> None:
        if faults and torch.stack(list(faults.values())).any():
            reason, wrong = next((reason, wrong) for reason, wrong in faults.items() if wrong.any())
            item = int(wrong.nonzero()[0])
            raise ValueError(f"Gold of batch item {item} is not a structure of {class_name(self)}: it {reason}.")

    def factor_likelihood(self, gold: Any) -> list[tuple[Distribution, Tensor]] | None:
        """Return distributions, with gold structures of them, whose likelihoods multiply to that of this gold.

        For classes whose likelihood is cheapest in that form; None by default.
        """
        return None

    def fused_likelihood(self, gold: Any) -> tuple[Tensor, Gradient] | None:
        """Return -log P [B] of structures, and its gradient by this distribution's `scores`.

        Structures are in the form `decode` returns, or events [B, *event_shape]. For classes that compute it cheaper
        than `cross_entropy_of_parts`; None if the result cannot be certified.
        """
        return None

    @ordinary_tensors
    def expected_parts(self) -> Any:
        """Return the expected part indicators in working precision, from which projections start."""
        return self._memo("expectations", self._expectations)[1]

    def _expectations(self) -> tuple[Tensor, Parts]:
        value, parts = self.expectations(self.parts())
        if not self._needs_graph() and (self.has_large_scores or bool((value.detach().abs() > _LARGEST_SUM).any())):
            return self._consistent_expectations(self._from_best()[0])
        return value, parts

    def expected_event(self) -> Tensor:
        """Return the marginals [B, *event_shape] in working precision."""
        return self.event_of_parts(self.expected_parts())

    # -- the interface of torch-struct ----------------------------------------------------------------------------

    @property
    @ordinary_tensors
    def partition(self) -> Tensor:
        """log Z, [B]. Raises ValueError if a structure space is empty."""
        return self._memo("partition", lambda: self._log_partition(self.parts())).to(self.dtype)

    @property
    @ordinary_tensors
    def marginals(self) -> Tensor:
        """P(u), [B, *event_shape]: probabilities, exactly 0 in the padding."""
        return self._memo("marginals", self.expected_event).to(self.dtype)

    @ordinary_tensors
    def log_prob(self, value: Any) -> Tensor:
        """Return log P of structures, [*, B].

        Args:
            value: one-hot events [*, B, *event_shape], or integer labels or heads [*, B, N] as `decode` gives them. A
                tensor that has both shapes is read as events. Padding is ignored. -100 marks an unknown label or head:
                the probability is then that of all structures that agree. If heads alone are given, relations are
                unknown.

        Returns:
            log P; -inf for a value that is not a structure of this class, such as a tree with crossing arcs under
            `DependencyCRF`.
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
                f"log_prob takes one-hot events [*, {', '.join(map(str, shape))}] or {self._compact_form()}, got "
                f"{kind}."
            )
        parts, log_partition = self._from_best()
        each = value.reshape(lead.numel(), *shape) if isinstance(value, Tensor) else [value]
        found = [score(one, parts) - log_partition for one in each]
        log_probs = torch.stack(found) if found else log_partition.new_zeros(0, *self.batch_shape)
        return (log_probs - log_probs.detach().clamp_min(0.0)).reshape(*lead, *self.batch_shape).to(self.dtype)

    def _compact_form(self) -> str:
        """Return the form of compact structures, for error messages."""
        return f"integer structures [*, {', '.join(map(str, [*self.batch_shape, self.words]))}]"

    def _score_of_event(self, event: Tensor, parts: Parts) -> Tensor:
        inside = self._indicators_of_event(self._in_sentence(event).to(parts[0].dtype))
        return excluding(_total_score(inside, parts), self.faults_of_event(event))

    def _indicators_of_event(self, event: Tensor) -> Parts:
        """Return indicators of all parts that an event [B, *event_shape], 0 in the padding, stands for."""
        return (event,)

    def _score_of_structure(self, structure: Any, parts: Parts) -> Tensor:
        structure, faults = self.read_structure(structure)
        if self.leaves_open(structure):
            score = self.inside(Log(), self.constrained(parts, structure), self.lengths)
        else:
            score = _total_score(self.parts_of_structure(structure), parts)
        return excluding(score, faults)

    def _in_sentence(self, event: Tensor) -> Tensor:
        """Return an event tensor with the padding set to 0."""
        return torch.where(self.event_mask(), event, torch.zeros((), dtype=event.dtype, device=event.device))

    @property
    @ordinary_tensors
    def entropy(self) -> Tensor:
        """H(P), [B], in nats."""

        return self._memo("entropy", self._entropy).to(self.dtype)

    def _entropy(self) -> Tensor:
        """Return the entropy in working precision."""
        parts, _ = self._from_best()
        value, expectations = self._expected_exactly()
        entropy = _at_least_zero(value - _total_score(expectations, parts))
        certain = self._certain_sentences()
        return entropy if certain is None else entropy.masked_fill(certain, 0.0)

    def _certain_sentences(self) -> Tensor | None:
        """Return which sentences have one structure only that counts, BoolTensor [B], if scores are very large.

        None if they are not. Raises `TooLargeError` if rounding may have moved a structure to the best one, or away.
        """
        if self.over_words or not self._has_huge_sums():
            return None
        parts = tuple(p.detach() for p in self.parts())
        batch = self.batch_shape[0]
        highest = [p.amax(tuple(range(1, p.dim()))) if len(p) == batch else p.amax() for p in parts if p.numel()]
        size = reduce(torch.maximum, [*highest, self.best()[0].abs()])
        doubtful = size > LARGEST
        if not doubtful.any():
            return None
        best, second = self.k_best(2)[0].unbind()
        certain = doubtful & (best - second > 64 * torch.finfo(size.dtype).eps * self.words * size + 64)
        if bool((doubtful & ~certain).any()):
            raise TooLargeError(class_name(self), float(size[doubtful & ~certain].amax()))
        return certain

    def _expected_exactly(self) -> tuple[Tensor, Parts]:
        def compute() -> tuple[Tensor, Parts]:
            parts = self._from_best()[0]
            consistent = self._has_huge_sums()
            return self._consistent_expectations(parts) if consistent else self._exact_expectations(parts)

        return self._memo("exact expectations", compute)

    @ordinary_tensors
    def cross_entropy(self, other: Any) -> Tensor:
        """Return H(P, Q) = log Z_q - sum_u P(u) s_q(u), [B], to a distribution over the same parts.

        It is +inf if Q excludes a structure that P allows. For another family use `structkd.structural_kd_loss`.
        """
        other = adopt(other)
        return self._cross_entropy_to(other).to(torch.promote_types(self.dtype, other.dtype))

    def _cross_entropy_to(self, other: Any) -> Tensor:
        """Return the cross-entropy in working precision."""
        self._check_comparable(other)
        other_parts, value = other._from_best()
        if self._form() == other._form():
            mine = self._expected_exactly()[1]
        else:
            mine = other.parts_of_event(self.expected_event())
        return value - _total_score(mine, other_parts)

    @ordinary_tensors
    def kl(self, other: Any) -> Tensor:
        """Return KL(P || Q) = H(P, Q) - H(P), [B], to a distribution over the same parts."""
        other = adopt(other)
        divergence = self._cross_entropy_to(other) - self._memo("entropy", self._entropy)
        return _at_least_zero(divergence).to(torch.promote_types(self.dtype, other.dtype))

    def _form(self) -> Any:
        """Two distributions of one family whose `_form` is equal have the same kind of parts."""
        return None

    def _is_incomplete(self, missing: Tensor, as_gold: bool) -> Tensor:
        """Return whether sentences lack the part of some word, given the words that have none, BoolTensor [B, N]."""
        return missing.any(1)

    def _check_comparable(self, other: StructuredDistribution) -> None:
        if not (isinstance(other, type(self)) or isinstance(self, type(other))):
            raise NotImplementedError(
                f"There is no cross-entropy from {class_name(self)} to {class_name(other)}, because their parts "
                "differ. Use structkd.structural_kd_loss, which projects one onto the other."
            )
        if self.event_shape != other.event_shape or self.batch_shape != other.batch_shape:
            raise ValueError(
                f"A cross-entropy needs equal shapes, got {list(self.batch_shape + self.event_shape)} and "
                f"{list(other.batch_shape + other.event_shape)}."
            )
        if not torch.equal(self.lengths, other.lengths):
            raise ValueError(
                f"A cross-entropy needs equal lengths, got {self.lengths.tolist()} and {other.lengths.tolist()}."
            )

    @property
    @ordinary_tensors
    def max(self) -> Tensor:
        """Score of the best structure, [B]; its gradient is `argmax`."""
        value, best = self.best()
        return (self._live_score(best) if self._needs_graph() else value).to(self.dtype)

    def _live_score(self, structure: Parts) -> Tensor:
        """Return the score of a structure that is taken as a constant, differentiable by the scores."""
        return _total_score(self._all_parts(structure), self.parts())

    def _all_parts(self, structure: Parts) -> Parts:
        """Return indicators of all parts of a structure, given those that are stored."""
        return structure

    @property
    @ordinary_tensors
    def argmax(self) -> Tensor:
        """The best structure as a one-hot event [B, *event_shape]; a tie goes to one of the best."""
        return self.event_of_parts(self.best()[1]).to(self.dtype)

    @property
    def mode(self) -> Tensor:
        """The best structure, as `argmax`."""
        return self.argmax

    @ordinary_tensors
    def decode(self) -> Any:
        """Return the best structure in compact form: LongTensor [B, N] of labels or heads, -1 in the padding."""
        return self.structure_of_parts(self.best()[1])

    @ordinary_tensors
    def kmax(self, k: int) -> Tensor:
        """Return the scores of the k best structures, [k, B], falling, -inf if fewer exist; gradients are `topk`."""
        values, structures = self.k_best(k)
        if self._needs_graph():
            scores = torch.stack([self._live_score(structure) for structure in structures])
            values = torch.where(values > NEG_INF, scores, NEG_INF)
        return values.to(self.dtype)

    @ordinary_tensors
    def topk(self, k: int) -> Tensor:
        """Return the k best structures as events [k, B, *event_shape], best first; all zero if there are fewer."""
        return torch.stack([self.event_of_parts(parts) for parts in self.k_best(k)[1]]).to(self.dtype)

    @ordinary_tensors
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 - torch.distributions' default
        """Draw independent exact samples, one-hot events [*sample_shape, B, *event_shape] without gradients."""
        single = not isinstance(sample_shape, Sequence)
        shape = torch.Size([check_count("sample_shape", sample_shape, 0)] if single else sample_shape)
        draws = self.draw(shape.numel())
        event = torch.cat([self._event_of_draws(parts, count) for parts, count in draws])
        return event.to(self.dtype).reshape(*shape, *self.batch_shape, *self.event_shape)

    @property
    @ordinary_tensors
    def count(self) -> Tensor:
        """Number of possible structures, [B], as a float (it grows exponentially with the sentence)."""
        with torch.no_grad():
            return self.inside(Log(), _support(self.parts()), self.lengths).exp().to(self.dtype)

    def gumbel_crf(self, temperature: float = 1.0) -> Tensor:
        raise NotImplementedError(
            "There are no relaxed samples (gumbel_crf) in structkd. Build the class of torch-struct to use them."
        )

    def to_event(self, sequence: Any, extra: Any = None, lengths: Any = None) -> Tensor:
        """Return compact structures, in torch-struct's convention, as one-hot events."""
        raise NotImplementedError(
            f"{class_name(self)} has no compact form in torch-struct. Use decode() and log_prob instead."
        )

    def from_event(self, event: Tensor) -> Any:
        """Return one-hot events as compact structures, in torch-struct's convention."""
        raise NotImplementedError(
            f"{class_name(self)} has no compact form in torch-struct. Use decode() and log_prob instead."
        )

    # -- structures by differentiation ----------------------------------------------------------------------------

    def best(self) -> tuple[Tensor, Parts]:
        values, structures = self._memo_detached("best", lambda parts: self._solve(Max(), parts, self.lengths))
        return values[0], structures[0]

    def k_best(self, k: int) -> tuple[Tensor, list[Parts]]:
        k = check_count("k", k)
        return self._memo_detached(f"best {k}", lambda parts: self._solve(KBest(k), parts, self.lengths))

    def _memo_detached(self, name: str, solve: Callable[[Parts], Any]) -> Any:
        if name not in self._cache:
            with torch.no_grad():
                parts = tuple(p.detach() for p in self.parts())
                self._log_partition(parts)
            self._cache[name] = solve(parts)
        return self._cache[name]

    def _solve(self, semiring: Log, parts: Parts, lengths: Tensor) -> tuple[Tensor, list[Parts]]:
        """Return values [k, B] (k = 1 but for KBest) and, for each, the part indicators that gave it."""
        with torch.enable_grad():
            leaves = tuple(p.detach().requires_grad_() for p in parts)
            values = self.inside(semiring, leaves, lengths)
            values = values if isinstance(semiring, KBest) else values.unsqueeze(0)
            structures = []
            for value in values:
                grads = torch.autograd.grad(value.sum(), leaves, retain_graph=True, materialize_grads=True)
                found = (value.detach() > NEG_INF).to(value.dtype)
                structures.append(tuple(g * found.view(-1, *[1] * (g.dim() - 1)) for g in grads))
        return values.detach(), structures

    def draw(self, samples: int) -> list[tuple[Parts, int]]:
        """Draw part indicators of `samples` exact samples, as (parts of shape [count * B, ...], count) chunks."""
        with torch.no_grad():
            parts = tuple(p.detach() for p in self.parts())
            self._log_partition(parts)
        largest = max(p.numel() for p in parts)
        chunk = max(1, _MAX_SAMPLED_CELLS // max(largest, 1))
        draws = []
        for start in range(0, samples, chunk):
            count = min(chunk, samples - start)
            draws.append((self._sampled_parts(self._copies(parts, count), self.lengths.repeat(count)), count))
        return draws or [(tuple(p[:0] for p in parts), 0)]

    def _copies(self, parts: Parts, count: int) -> Parts:
        """Return the parts of `count` copies of the batch."""
        return tuple(p.repeat(count, *[1] * (p.dim() - 1)) for p in parts)

    def _sampled_parts(self, parts: Parts, lengths: Tensor) -> Parts:
        return self._solve(Sample(), parts, lengths)[1][0]

    def _event_of_draws(self, parts: Parts, count: int) -> Tensor:
        return self.event_of_parts(parts).reshape(count, *self.batch_shape, *self.event_shape)


def _total_score(indicators: Parts, parts: Parts) -> Tensor:
    """Return `expected_score` of parts of every kind, [B]."""
    return torch.stack([expected_score(i, s) for i, s in zip(indicators, parts, strict=True)]).sum(0)


def _is_huge(parts: Parts, words: int) -> bool:
    """Return whether sums of this many finite scores may be too large for their differences to be seen."""
    largest = [p.detach().masked_fill(p.detach() == NEG_INF, 0.0).abs().amax() for p in parts if p.numel()]
    return bool(largest) and bool(torch.stack(largest).amax() * words > _LARGEST_SUM)


def _at_least_zero(values: Tensor) -> Tensor:
    """Return values that are at least 0 in exact arithmetic with rounding below 0 removed; gradients are unchanged."""
    return values - values.detach().clamp_max(0.0)


def excluding(score: Tensor, faults: Faults) -> Tensor:
    """Return the scores [B] with -inf for the sentences that have a fault."""
    for wrong in faults.values():
        score = score.masked_fill(wrong, NEG_INF)
    return score


def _support(parts: Parts) -> Parts:
    """Return part scores with every possible part at 0."""
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
    """Return the lineage of a class for dispatch, with our class in front of the torch-struct class it extends."""
    if issubclass(kind, StructuredDistribution):
        return kind.__mro__
    lineage = list(kind.__mro__)
    for position, base in enumerate(lineage):
        if base in _ADOPTERS:
            return tuple(lineage[:position]) + _ADOPTERS[base][0].__mro__
    return kind.__mro__


def adopt(distribution: Any) -> Any:
    """Return a torch-struct distribution as ours, and anything else unchanged."""
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
