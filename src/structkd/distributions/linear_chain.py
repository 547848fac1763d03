"""Linear-chain conditional random fields (Lafferty et al., 2001)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch_struct
from torch import Tensor, nn

from ..numbering import UNLABELLED
from .base import Parts, StructuredDistribution, adopts, ordinary_tensors
from .checks import check_inventory, check_labels, check_scores
from .faults import CONTRADICTION, SEVERAL_BIGRAMS, Faults, choices_of_event
from .kernels import chain
from .kernels.arithmetic import NEG_INF, Gradient, logarithm, logsumexp, working_precision
from .kernels.viterbi import Legality, viterbi
from .maxent import MaxEnt
from .semirings import Log
from .transition_counts import TransitionCounts, scale_gradient_


class LinearChainCRF(StructuredDistribution, torch_struct.LinearChainCRF):
    """A distribution over the label sequences of each sentence, factored over label bigrams.

    Args:
        log_potentials: [B, N-1, C, C]; cell [b, n, j, i] scores label i at word n followed by label j at word n+1
            (**next, previous**). The first word's own score is folded into n = 0.
        lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
        labels: the tag inventory in score order, C strings.
        validate_args: check values (NaN, +inf); None means torch.distributions' default.

    A sentence of one word has no bigram, so dense potentials cannot score it and it is uniform; `from_scores`
    takes scores for it. `marginals` are [B, N-1, C, C], `decode()` labels [B, N].

    Raises TypeError or ValueError for a wrong kind, shape, length, inventory or value. Costs O(N C^2) a sentence.

    Example:
        >>> import torch
        >>> scores = torch.zeros(1, 1, 2, 2)  # two words, two labels
        >>> scores[0, 0, 1, 0] = 2.0  # label 0, followed by label 1
        >>> chain = LinearChainCRF(scores)
        >>> chain.decode().tolist(), round(chain.partition.item(), 3)
        ([[0, 1]], 2.341)
    """

    def __init__(
        self,
        log_potentials: Tensor,
        lengths: Tensor | None = None,
        labels: Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if isinstance(log_potentials, Tensor) and log_potentials.dim() == 3:
            raise ValueError(
                f"log_potentials must have shape [B, N-1, C, C], got {list(log_potentials.shape)}. For emissions "
                "[B, N, C] and transitions [C, C] use LinearChainCRF.from_scores(emissions, transitions)."
            )
        check_scores("log_potentials", log_potentials, ("B", "N-1", "C", "C"))
        _, bigrams, size, previous = log_potentials.shape
        if size != previous or size < 1:
            raise ValueError(
                f"The log_potentials must have shape [B, N-1, C, C] (next, previous), got {list(log_potentials.shape)}."
            )
        self.log_potentials = log_potentials
        self._initialise(log_potentials, bigrams + 1, size, lengths, labels, validate_args)
        self.check_values("log_potentials", log_potentials, self.event_mask)

    def _initialise(
        self,
        scores: Tensor,
        words: int,
        size: int,
        lengths: Any,
        labels: Sequence[str] | None,
        validate_args: bool | None,
    ) -> None:
        self.labels = check_inventory("labels", labels, size)
        super().__init__(scores, words, (words - 1, size, size), lengths, validate_args)

    @staticmethod
    def from_scores(
        emissions: Tensor,
        transitions: Tensor,
        start: Tensor | None = None,
        end: Tensor | None = None,
        lengths: Tensor | None = None,
        labels: Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> LinearChainCRF:
        """Return a chain that stores scores of words and of transitions separately.

        Args:
            emissions: [B, N, C]; cell [b, n, i] scores label i at word n.
            transitions: [C, C]; cell [j, i] scores label j after label i (**next, previous**).
            start: [C], added at the first word. end: [C], added at the last word of each sentence.
            lengths, labels, validate_args: as in the constructor.

        [B, N-1, C, C] is built only when `log_potentials` or `marginals` are asked for: a loss needs O(B (N C + C^2))
        memory.

        Example:
            >>> import torch
            >>> emissions = torch.tensor([[[2.0, 0.0], [0.0, 0.5], [0.0, 2.0]]])
            >>> chain = LinearChainCRF.from_scores(emissions, torch.eye(2), labels=["O", "B"])
            >>> chain.decode().tolist(), chain.max.tolist()
            ([[0, 1, 1]], [5.5])
        """
        return _FactoredLinearChainCRF(emissions, transitions, start, end, lengths, labels, validate_args)

    # Parts are (unary [B, N, C], bigrams [B, N-1, C, C]); dense potentials have unary scores of 0, so that all
    # forms give label marginals, one-word sentences included.

    @property
    def words(self) -> int:
        return self.event_shape[0] + 1

    @property
    def bigram_mask(self) -> Tensor:
        """BoolTensor [B, N-1]: True where word n has a successor in its sentence."""
        return torch.arange(self.words - 1, device=self.lengths.device) < (self.lengths - 1).unsqueeze(1)

    def event_mask(self) -> Tensor:
        return self.bigram_mask[:, :, None, None]

    structures_are = "labels"
    #: Whether targets and gradients are per transition [C, C] rather than per bigram [N-1, C, C].
    factored = False
    #: What a sentence is conditioned on (`structkd.legal`), on the CPU; None if every sequence is possible. The scores
    #: of bigrams say so themselves, and this says it of sentences of one word, which have none.
    legality: Legality | None = None

    def _form(self) -> Any:
        return self.factored

    def dense(self) -> LinearChainCRF:
        """Return the same distribution over scores of bigrams; one-word sentences are uniform then."""
        return self

    def bigrams(self, labels: Tensor) -> Any:
        """Return expected bigrams of independent words with label marginals [B, N, C], in the form of this chain."""
        return labels[:, 1:, :, None] * labels[:, :-1, None, :]

    def parts(self) -> Parts:
        dtype = working_precision(self.log_potentials)
        bigrams = torch.where(self.event_mask(), self.log_potentials.to(dtype), 0.0)
        unary = bigrams.new_zeros(*self.batch_shape, self.words, self.event_shape[-1])
        chosen = self._labels_of_one_word()
        if chosen is not None:
            alone, possible = chosen
            unary.masked_fill_(alone.view(-1, 1, 1) & ~possible, NEG_INF)
        return unary, bigrams

    def _labels_of_one_word(self) -> tuple[Tensor, Tensor] | None:
        """Return which sentences have one word, [B], and the labels it may have, [C]; None if nothing is excluded."""
        if self.legality is None:
            return None
        alone, (start, _, end) = self.lengths == 1, self.legality
        return (alone, (start & end).to(alone.device)) if bool(alone.any()) else None

    def inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        unary, pairwise = parts
        forward = semiring.lift(unary[:, 0])
        for n in range(1, unary.shape[1]):
            step = pairwise[:, n - 1] if pairwise.dim() == 4 else pairwise
            reached = semiring.sum(forward.unsqueeze(-2) + step) + unary[:, n]
            forward = torch.where((n < lengths).unsqueeze(-1), reached, forward)
        return semiring.sum(forward)

    def expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        return self._forward_backward(parts, self.dtype)

    def _forward_backward(self, parts: Parts, precision: torch.dtype) -> tuple[Tensor, Parts]:
        if torch.is_grad_enabled() and any(p.requires_grad for p in parts):
            return super().expectations(parts)
        scores = parts[1].detach()
        (value,), (labels,), (bigrams,) = chain.dense_expectations([scores], self.lengths, precision=precision)
        labels, bigrams = labels.to(scores.dtype), bigrams.to(scores.dtype)
        chosen = self._labels_of_one_word()
        if chosen is not None:  # the kernel takes a sentence of one word for uniform over all labels
            alone, possible = chosen
            possible = possible.to(labels.dtype)
            uniform = torch.where(self.word_mask.unsqueeze(-1), possible / possible.sum(), 0.0)
            labels = torch.where(alone.view(-1, 1, 1), uniform, labels)
            value = torch.where(alone, possible.to(value.dtype).sum().log(), value)
        self._require_structures(value, parts)
        return value, (labels, bigrams)

    def fused_loss(self, teacher: Any, temperature: float) -> tuple[Tensor, Gradient] | None:
        if not isinstance(teacher, LinearChainCRF) or teacher.factored or teacher.event_shape != self.event_shape:
            return None
        if self._labels_of_one_word() is not None:
            return None  # as above
        theirs, own = teacher.log_potentials.detach(), self.log_potentials.detach()
        precision = torch.promote_types(theirs.dtype, self.dtype)
        found = chain.dense_kd(theirs, own, self.lengths, temperature, precision)
        if found is None:
            return None
        loss, gap = found
        return loss, lambda weights: (scale_gradient_(gap, weights),)

    def fused_likelihood(self, gold: Any) -> tuple[Tensor, Gradient] | None:
        """Return the likelihood of label sequences that are known as a whole."""
        if self.is_event(gold) or self.leaves_open(gold):
            return None
        if self._labels_of_one_word() is not None:
            return None  # as above
        found = chain.dense_likelihood(self.log_potentials.detach(), gold, self.lengths, self.dtype)
        if found is None:
            return None
        loss, gap = found
        return loss, lambda weights: (scale_gradient_(gap, weights).to(self.log_potentials.dtype),)

    @ordinary_tensors
    def decode(self, legal: Legality | None = None) -> Tensor:
        """Find the best label sequence of every sentence by the Viterbi algorithm.

        Args:
            legal: BoolTensors (start [C], transitions [C, C] as [next, previous], end [C]) that say which labels may
                start a sentence, follow each other and end it, as `structkd.data.legal_transitions` gives them. None
                allows all of them.

        Returns:
            LongTensor [B, N] of labels; -1 in the padding. O(N C^2) time for a sentence.

        Raises:
            ValueError: if a sentence has no sequence of finite score, with the batch items.
        """
        with torch.no_grad():
            unary, bigrams = self.parts()
            return viterbi(unary, bigrams, self.lengths, legal=legal)[1]

    def best(self) -> tuple[Tensor, Parts]:
        with torch.no_grad():
            unary, bigrams = self.parts()
            values, labels = viterbi(unary, bigrams, self.lengths)
            return values, self.parts_of_structure(labels)

    def event_of_parts(self, parts: Any) -> Tensor:
        return parts[1]

    def placeholder_event(self) -> Tensor:
        event = torch.zeros(self.event_shape, dtype=torch.bool, device=self._device)
        event[:, 0, 0] = True
        return event

    def faults_of_event(self, event: Tensor, as_gold: bool = False) -> Faults:
        cells, missing, several = choices_of_event(event, self.bigram_mask, 1)
        differ = (cells[:, :-1, 2] != cells[:, 1:, 3]) & self.bigram_mask[:, 1:]
        return {SEVERAL_BIGRAMS: several | missing.any(1), CONTRADICTION: differ.any(1)}

    def read_structure(self, structure: Any) -> tuple[Tensor, Faults]:
        return check_labels(structure, self.word_mask, self.event_shape[-1]), {}

    def constrained(self, parts: Parts, structure: Tensor) -> Parts:
        known = (structure != UNLABELLED) & self.word_mask
        index = torch.arange(self.event_shape[-1], device=structure.device)
        others = known.unsqueeze(-1) & (structure.unsqueeze(-1) != index)
        return parts[0].masked_fill(others, NEG_INF), parts[1]

    def _exact_expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        if parts[0].any():  # scores of words count, too
            return StructuredDistribution.expectations(self, parts)
        return self._forward_backward(parts, parts[1].dtype)

    def _consistent_expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        return StructuredDistribution.expectations(self, parts)

    def measured_from(self, structure: Parts, parts: Parts) -> Parts:
        bigrams = parts[1]
        chosen = torch.where(structure[1] > 0, bigrams.detach(), 0.0).sum((2, 3), keepdim=True)
        return parts[0], bigrams - chosen

    def structure_of_parts(self, parts: Parts) -> Tensor:
        mask = self.word_mask
        return parts[0].argmax(-1).reshape(-1, self.words).masked_fill(~mask, -1)

    def parts_of_structure(self, structure: Tensor) -> Parts:
        labels = self._one_hot(structure)
        return labels, self.bigrams(labels)

    def _one_hot(self, labels: Tensor) -> Tensor:
        """Return labels [B, N] as indicators [B, N, C]; 0 in the padding."""
        size = self.event_shape[-1]
        dtype = working_precision(labels)
        index = labels.clamp(0, size - 1).unsqueeze(-1)
        one_hot = torch.zeros(*labels.shape, size, dtype=dtype, device=labels.device).scatter_(-1, index, 1.0)
        return one_hot * self.word_mask.unsqueeze(-1)

    def parts_of_event(self, marginals: Tensor) -> Parts:
        bigrams = self._in_sentence(marginals).to(working_precision(marginals))
        return bigrams.new_zeros(*self.batch_shape, self.words, self.event_shape[-1]), bigrams

    def certain_of(self, parts: Parts) -> LinearChainCRF:
        labels = parts[0]
        transitions = labels.new_zeros(labels.shape[-1], labels.shape[-1])
        emissions = torch.where(labels > 0, 0.0, NEG_INF).to(labels.dtype)
        certain = LinearChainCRF.from_scores(emissions, transitions, None, None, self.lengths, self.labels, False)
        certain.dtype = self.dtype
        certain.know((labels, certain.bigrams(labels)))
        return certain

    def alone(self) -> StructuredDistribution:
        return self.posterior()

    def words_alone(self, scores: Tensor | None = None) -> MaxEnt:
        if scores is None:
            shape = *self.batch_shape, self.words, self.event_shape[-1]
            scores = torch.zeros(1, dtype=self.dtype, device=self._device).expand(shape)
        return MaxEnt(scores, self.lengths, self.labels, validate_args=False)

    def posterior(self) -> MaxEnt:
        return self.words_alone(logarithm(self.label_marginals()).to(self.dtype))

    def label_marginals(self) -> Tensor:
        """Return P(label) for every word, [B, N, C], in working precision; 0 in the padding."""
        return self.expected_parts()[0]

    def _indicators_of_event(self, event: Tensor) -> Parts:
        return event.new_zeros(*self.batch_shape, self.words, self.event_shape[-1]), event

    def to_event(self, sequence: Tensor, extra: Any = None, lengths: Tensor | None = None) -> Tensor:
        """Return labels [B, N] as bigrams, LongTensor [B, N-1, C, C]; 0 beyond `lengths` (default: this batch's)."""
        if lengths is None:
            lengths = self.lengths
        mask = torch.arange(sequence.shape[1] - 1, device=sequence.device) < (torch.as_tensor(lengths).view(-1, 1) - 1)
        labels = torch.nn.functional.one_hot(sequence.long().clamp_min(0), extra or self.event_shape[-1])
        return labels[:, 1:, :, None] * labels[:, :-1, None, :] * mask[:, :, None, None]

    def from_event(self, event: Tensor) -> tuple[Tensor, int]:
        """Return bigram indicators [B, N-1, C, C] as labels [B, N] (0 in the padding) and C."""
        return labels_of_bigrams(event).argmax(-1), event.shape[-1]


class _FactoredLinearChainCRF(LinearChainCRF):
    """A linear chain with separate emissions [B, N, C] and transitions [C, C]; see `LinearChainCRF.from_scores`."""

    def __init__(
        self,
        emissions: Tensor,
        transitions: Tensor,
        start: Tensor | None = None,
        end: Tensor | None = None,
        lengths: Tensor | None = None,
        labels: Sequence[str] | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check_scores("emissions", emissions, ("B", "N", "C"))
        check_scores("transitions", transitions, ("C", "C"))
        _, words, size = emissions.shape
        if size < 1:
            raise ValueError(f"The emissions must have shape [B, N, C] with C >= 1, got {list(emissions.shape)}.")
        if transitions.shape != (size, size):
            raise ValueError(
                f"The transitions must have shape [{size}, {size}] (next, previous) to go with emissions "
                f"{list(emissions.shape)}, got {list(transitions.shape)}."
            )
        dtype = torch.promote_types(emissions.dtype, transitions.dtype)
        for name, scores in (("start", start), ("end", end)):
            if scores is not None:
                if isinstance(scores, Tensor) and not scores.dtype.is_floating_point:
                    raise TypeError(
                        f"{name} must be scores [C] of floating point, got {scores.dtype} of shape "
                        f"{list(scores.shape)}. Numbers of words are a keyword: lengths=..."
                    )
                check_scores(name, scores, ("C",))
                if scores.shape != (size,):
                    raise ValueError(f"{name} must have shape [{size}], got {list(scores.shape)}.")
                dtype = torch.promote_types(dtype, scores.dtype)
        self.emissions, self.transitions, self.start, self.end = emissions, transitions, start, end
        self._initialise(emissions, words, size, lengths, labels, validate_args)
        self.dtype = dtype
        self.check_values("emissions", emissions, lambda: self.word_mask.unsqueeze(-1))
        for name, scores in (("transitions", transitions), ("start", start), ("end", end)):
            if scores is not None:
                self.check_values(name, scores, lambda: torch.ones((), dtype=torch.bool))

    score_fields = ("emissions", "transitions", "start", "end")

    @staticmethod
    def of_legal(
        emissions: Tensor,
        given: tuple[Tensor, Tensor, Tensor],
        legality: Legality,
        lengths: Tensor,
        labels: Sequence[str] | None,
        over_words: bool,
    ) -> _FactoredLinearChainCRF:
        """Return a chain over legal sequences: the given start, transitions and end, and -inf elsewhere.

        Args:
            over_words: whether the words are independent but for this, so that the given scores are constants.
        """
        start, transitions, end = (
            scores.masked_fill(~mask.to(scores.device), NEG_INF) for scores, mask in zip(given, legality, strict=True)
        )
        found = _FactoredLinearChainCRF(emissions, transitions, start, end, lengths, labels, validate_args=False)
        found.legality, found.over_words = legality, over_words
        return found

    @staticmethod
    def of_legal_words(words: MaxEnt, legality: Legality) -> _FactoredLinearChainCRF:
        """Return independent words conditioned on legal sequences."""
        size = words.event_shape[-1]
        zeros = words.logits.new_zeros(size)
        given = (zeros, words.logits.new_zeros(size, size), zeros)
        return _FactoredLinearChainCRF.of_legal(words.logits, given, legality, words.lengths, words.labels, True)

    def _factors(self) -> chain.Scores:
        return self.emissions, self.transitions, self.start, self.end

    factored = True

    def bigrams(self, labels: Tensor) -> Any:
        return TransitionCounts((labels[:, 1:], labels[:, :-1], None))

    def dense(self) -> LinearChainCRF:
        dense = LinearChainCRF(self.log_potentials, self.lengths, self.labels, validate_args=False)
        dense.legality = self.legality
        return dense

    @ordinary_tensors
    def decode(self, legal: Legality | None = None) -> Tensor:
        dtype = working_precision(self.emissions)
        with torch.no_grad():
            emissions = self.emissions.to(dtype)
            return viterbi(emissions, self.transitions, self.lengths, self.start, self.end, legal)[1]

    def alone(self) -> StructuredDistribution:
        if self.over_words:
            return self
        words = self.words_alone(self.emissions)
        return words if self.legality is None else self.of_legal_words(words, self.legality)

    # Parts are (unary [B, N, C], transitions [C, C]), expectations (label marginals, TransitionCounts); a structure is
    # its labels alone.

    def parts(self) -> Parts:
        return chain.unary_scores(self._factors(), self.lengths), self.transitions.to(
            working_precision(self.transitions)
        )

    def _forward_backward(self, parts: Parts, precision: torch.dtype) -> tuple[Tensor, Parts]:
        if torch.is_grad_enabled() and any(p.requires_grad for p in parts):
            # counts per sentence: the derivative by transitions of its own
            unary, transitions = parts
            return StructuredDistribution.expectations(self, (unary, transitions.expand(*self.batch_shape, -1, -1)))
        unary, transitions = (p.detach().unsqueeze(0) for p in parts)
        (value,), (labels,), (counts,) = chain.factored_expectations(unary, transitions, self.lengths, precision)
        self._require_structures(value, parts)
        return value, (labels, counts)

    def fused_loss(self, teacher: Any, temperature: float) -> tuple[Tensor, Gradient] | None:
        if not isinstance(teacher, _FactoredLinearChainCRF) or teacher.emissions.shape != self.emissions.shape:
            return None
        precision = torch.promote_types(teacher.dtype, self.dtype)
        return chain.factored_kd(teacher._factors(), self._factors(), self.lengths, temperature, precision)

    def fused_likelihood(self, gold: Any) -> tuple[Tensor, Gradient] | None:
        if self.is_event(gold) or self.leaves_open(gold):
            return None
        return chain.factored_likelihood(self._factors(), gold, self.lengths, self.dtype)

    def _exact_expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        return self._forward_backward(parts, parts[1].dtype)

    def _consistent_expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        unary, transitions = parts
        return StructuredDistribution.expectations(self, (unary, transitions.repeat(*self.batch_shape, 1, 1)))

    def _all_parts(self, structure: Parts) -> Parts:
        return structure[0], self.bigrams(structure[0])

    def best(self) -> tuple[Tensor, Parts]:
        value, structure = super().best()
        return value, structure[:1]

    def measured_from(self, structure: Parts, parts: Parts) -> Parts:
        unary, transitions = (p.detach() for p in parts)
        labels = structure[0]
        finite = transitions.masked_fill(transitions == NEG_INF, 0.0)
        most = transitions.amax().clamp_min(torch.finfo(transitions.dtype).min)
        moves = torch.where(self.bigram_mask, (labels[:, 1:] @ (finite - most) * labels[:, :-1]).sum(-1), 0.0)
        chosen = torch.where(labels > 0, unary, 0.0).sum(-1, keepdim=True)
        # the move to a word belongs to its scores, exactly so for the structure's own
        return parts[0] - chosen - nn.functional.pad(moves, (1, 0)).unsqueeze(-1), parts[1] - most

    def _solve(self, semiring: Log, parts: Parts, lengths: Tensor) -> tuple[Tensor, list[Parts]]:
        unary, transitions = parts
        values, structures = super()._solve(semiring, (unary, transitions.expand(len(unary), -1, -1)), lengths)
        return values, [structure[:1] for structure in structures]

    def _copies(self, parts: Parts, count: int) -> Parts:
        return parts[0].repeat(count, 1, 1), parts[1]

    @property
    def log_potentials(self) -> Tensor:  # type: ignore[override]
        """[B, N-1, C, C]: the scores as torch-struct wants them, built on request. 0 in the padding."""
        unary, transitions = self.parts()
        return self._bigram_scores(unary, transitions).to(self.dtype)

    def _bigram_scores(self, unary: Tensor, transitions: Tensor) -> Tensor:
        potentials = transitions + unary[:, 1:].unsqueeze(-1)
        at_first = torch.arange(self.words - 1, device=unary.device).view(1, -1, 1, 1) == 0
        potentials = potentials + torch.where(at_first, unary[:, None, None, 0], 0.0)
        return torch.where(self.event_mask(), potentials, 0.0)

    def expected_event(self) -> Tensor:
        """Return bigram marginals, built on request: the expected parts hold their sums over the sentence only."""
        parts = self.parts()
        self._log_partition(parts)  # a sentence of one word has no bigram to show that it is impossible
        potentials = self._bigram_scores(*parts)
        return LinearChainCRF(potentials, self.lengths, validate_args=False).expected_event()

    def event_of_parts(self, parts: Any) -> Tensor:
        return LinearChainCRF.bigrams(self, parts[0])

    def _indicators_of_event(self, event: Tensor) -> Parts:
        if self.words == 1:
            return event.new_zeros(*self.batch_shape, 1, self.event_shape[-1]), event.sum(1)
        return labels_of_bigrams(event), event.sum(1)

    def _score_of_event(self, event: Tensor, parts: Parts) -> Tensor:
        # every label of a one-word sentence has the same event, of no bigram: its probability is 1
        return torch.where(self.lengths == 1, logsumexp(parts[0][:, 0]), super()._score_of_event(event, parts))

    def parts_of_event(self, marginals: Tensor) -> Parts:
        alone = (self.lengths == 1).nonzero().flatten().tolist()
        if alone:
            raise ValueError(
                f"Bigram marginals [B, N-1, C, C] do not determine the labels of the one-word sentence(s) {alone}. "
                "Give the teacher as a distribution built by LinearChainCRF.from_scores or MaxEnt, or drop sentences "
                "of one word."
            )
        bigrams = self._in_sentence(marginals).to(working_precision(marginals))
        return labels_of_bigrams(bigrams), TransitionCounts.from_dense(bigrams.sum(1))


def labels_of_bigrams(bigrams: Tensor) -> Tensor:
    """Return label marginals (or indicators) [B, N, C] of bigrams [B, N-1, C, C], for two or more words."""
    return torch.cat([bigrams[:, :1].sum(2), bigrams.sum(3)], 1)


@adopts(torch_struct.LinearChainCRF, LinearChainCRF)
@adopts(torch_struct.HMM, LinearChainCRF)
def _adopt(foreign: torch_struct.StructDistribution) -> LinearChainCRF:
    return LinearChainCRF(foreign.log_potentials, foreign.lengths)
