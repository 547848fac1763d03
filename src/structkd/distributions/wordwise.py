"""Distributions in which words choose independently: one softmax per word."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import Parts, StructuredDistribution
from .kernels.arithmetic import NEG_INF, working_precision
from .semirings import Log
from .transition_counts import expected_score


class WordwiseDistribution(StructuredDistribution):
    """Base of the distributions that factorise over words.

    A subclass lays its part scores out as choices [B, N, M], one row a word (`choices`), and back (`arrange`).
    """

    over_words = True

    def words_alone(self, scores: Tensor | None = None) -> StructuredDistribution:
        return self if scores is None else self.with_scores(scores)

    def posterior(self) -> StructuredDistribution:
        return self

    def choices(self, part: Tensor, lengths: Tensor, impossible: float = NEG_INF) -> Tensor:
        """Return part scores [B, *event_shape] as choices [B, N, M], with `impossible` for words without a choice.

        Padded words may hold anything.
        """
        return part

    def arrange(self, choices: Tensor) -> Tensor:
        """Return the inverse of `choices` for marginals or indicators."""
        return choices

    def inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        choices = self.choices(parts[0], lengths)
        here = torch.arange(choices.shape[1], device=lengths.device) < lengths.unsqueeze(1)
        words = semiring.sum(semiring.lift(choices))
        return semiring.prod(torch.where(here, words, semiring.lift(torch.zeros_like(choices[..., 0]))))

    def _is_incomplete(self, missing: Tensor, as_gold: bool) -> Tensor:
        # gold may leave words out, but not a whole sentence
        return (missing | ~self.word_mask).all(1) if as_gold else missing.any(1)

    def _require_choices(self, choices: Tensor, parts: Parts) -> None:
        """Refuse words without any possible choice, as `_log_partition` does, without computing log Z."""
        self._require_possible(choices.amax(-1), parts)

    def _require_possible(self, best: Tensor, parts: Parts) -> None:
        """Refuse such words, given the score of every word's best choice, [B, N]."""
        impossible = (best == NEG_INF) & self.word_mask
        if impossible.any():
            self._require_structures(torch.where(impossible.any(-1), NEG_INF, 0.0), parts)

    def expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        if torch.is_grad_enabled() and parts[0].requires_grad:
            return super().expectations(parts)
        choices = self.choices(parts[0], self.lengths)
        self._require_choices(choices, parts)
        probabilities = choices.softmax(-1)
        # a word's normaliser is its best score less the logarithm of that choice's probability
        normalisers = choices.amax(-1) - probabilities.amax(-1).log()
        padding = ~self.word_mask
        value = normalisers.masked_fill(padding, 0.0).sum(-1)
        return value, (self.arrange(probabilities.masked_fill_(padding.unsqueeze(-1), 0.0)),)

    def cross_entropy_of_parts(self, parts: Parts, targets: Parts) -> tuple[Tensor, Parts]:
        # Word by word: a word whose target carries no mass (nothing it could imitate) has neither loss nor gradient.
        choices = self.choices(parts[0], self.lengths)
        self._require_choices(choices, parts)
        log_probabilities = choices.log_softmax(-1)
        # 0 in the padding, where scores are finite
        target = self.choices(targets[0], self.lengths, impossible=0.0)
        loss = -expected_score(target, log_probabilities)
        mass = target.sum(-1, keepdim=True)
        gradient = log_probabilities.exp_().mul_(mass).sub_(target)
        return loss, (self.arrange(gradient),)

    def parts_of_event(self, marginals: Tensor) -> Parts:
        return (self._in_sentence(marginals).to(working_precision(marginals)),)
