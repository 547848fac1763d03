"""Distributions in which every word chooses alone: one softmax a word."""

from __future__ import annotations

import torch
from torch import Tensor

from .semirings import NEG_INF, Log
from .structure import Parts, StructuredDistribution, expected_score


class WordwiseDistribution(StructuredDistribution):
    """Base of the distributions that factorise over words.

    A subclass lays its part scores out as choices [B, N, M], one row a word (`_choices`), and back (`_arrange`).
    """

    def _choices(self, part: Tensor, lengths: Tensor) -> Tensor:
        """Part scores [B, *event_shape] as choices [B, N, M]; impossible ones -inf. Padded words may hold anything."""
        return part

    def _arrange(self, choices: Tensor) -> Tensor:
        """The inverse of `_choices` for marginals or indicators."""
        return choices

    def _inside(self, semiring: Log, parts: Parts, lengths: Tensor) -> Tensor:
        choices = self._choices(parts[0], lengths)
        here = torch.arange(choices.shape[1], device=lengths.device) < lengths.unsqueeze(1)
        words = semiring.sum(semiring.lift(choices))
        return semiring.prod(torch.where(here, words, semiring.lift(torch.zeros_like(choices[..., 0]))))

    def _expectations(self, parts: Parts) -> tuple[Tensor, Parts]:
        if torch.is_grad_enabled() and parts[0].requires_grad:
            return super()._expectations(parts)
        value = self._log_partition(parts)
        probabilities = self._choices(parts[0], self.lengths).softmax(-1)
        probabilities = probabilities.masked_fill(~self.word_mask.unsqueeze(-1), 0.0)
        return value, (self._arrange(probabilities),)

    def _cross_entropy(self, parts: Parts, targets: Parts) -> tuple[Tensor, Parts]:
        # Word by word: a word whose target carries no mass (nothing it could imitate) has neither loss nor gradient.
        self._log_partition(parts)
        log_probabilities = self._choices(parts[0], self.lengths).log_softmax(-1)
        log_probabilities = log_probabilities.masked_fill(~self.word_mask.unsqueeze(-1), 0.0)
        target = self._choices(targets[0], self.lengths).masked_fill(~self.word_mask.unsqueeze(-1), 0.0)
        target = target.masked_fill(target == NEG_INF, 0.0)
        mass = target.sum(-1, keepdim=True)
        gradient = self._arrange(log_probabilities.exp() * mass - target)
        return -expected_score(target, log_probabilities), (gradient,)

    def marginals_to_targets(self, marginals: Tensor) -> Parts:
        return (self._in_sentence(marginals).to(self._parts()[0].dtype),)
