"""Projections from and onto second-order chains (label trigrams)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributions import LinearChainCRF, MaxEnt, SecondOrderChainCRF, SpanCRF
from ..distributions.base import Parts
from ..distributions.tag_tables import TagReader
from ..distributions.transition_counts import TransitionCounts
from .registry import check_words, register_projection
from .spans import borders, groups_of, reading_of


@register_projection(SecondOrderChainCRF, SecondOrderChainCRF)
def _(teacher: SecondOrderChainCRF, student: SecondOrderChainCRF) -> Tensor:
    """Return P_t(y_{n-2}, y_{n-1}, y_n), the teacher's marginals. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    return teacher.expected_event()


@register_projection(SecondOrderChainCRF, MaxEnt)
def _(teacher: SecondOrderChainCRF, student: MaxEnt) -> Tensor:
    """Return P_t(y_n), summed over the two labels before. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    return teacher.label_marginals()


@register_projection(SecondOrderChainCRF, LinearChainCRF)
def _(teacher: SecondOrderChainCRF, student: LinearChainCRF) -> Parts:
    """Return P_t(y_n) and P_t(y_n, y_{n+1}), summed over the label before. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    bigrams = teacher.expected_event()[:, 1:].sum(4)
    return teacher.label_marginals(), TransitionCounts.from_dense(bigrams.sum(1)) if student.factored else bigrams


@register_projection(SecondOrderChainCRF, SpanCRF)
def _(teacher: SecondOrderChainCRF, student: SpanCRF) -> Parts:
    """Return the probability of every span as a segment of the tag sequence, from the trigram marginals."""
    check_words(teacher, student, trailing=0)
    return trigram_segments(teacher.expected_event(), reading_of(teacher.labels, student), student)


@register_projection(LinearChainCRF, SecondOrderChainCRF)
def _(teacher: LinearChainCRF, student: SecondOrderChainCRF) -> Tensor:
    """Return P_t(i, j) P_t(j, k) / P_t(j) for every trigram, by the chain's Markov property. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    labels, bigrams = teacher.label_marginals(), teacher.expected_event()
    return trigrams(labels, bigrams)


@register_projection(MaxEnt, SecondOrderChainCRF)
def _(teacher: MaxEnt, student: SecondOrderChainCRF) -> Tensor:
    """Return P_t(i) P_t(j) P_t(k) for every trigram of independent words. Costs O(N C^3)."""
    check_words(teacher, student, trailing=1)
    labels = teacher.label_marginals()
    return trigrams(labels, labels[:, 1:, :, None] * labels[:, :-1, None, :])


def trigrams(labels: Tensor, bigrams: Tensor) -> Tensor:
    """Return trigram marginals [B, N, C, C, C] of a Markov chain from its label and bigram marginals."""
    batch, words, size = labels.shape
    event = labels.new_zeros(batch, words, size, size, size)
    event[:, 0, :, 0, 0] = labels[:, 0]
    event[:, 1:2, :, :, 0] = bigrams[:, :1]
    middle = labels[:, 1:-1].unsqueeze(-1)
    given = torch.where(middle > 0, bigrams[:, :-1] / middle.masked_fill(middle == 0, 1.0), 0.0)  # P(i | j)
    event[:, 2:] = bigrams[:, 1:].unsqueeze(-1) * given.unsqueeze(2)
    return event


def trigram_segments(event: Tensor, reading: TagReader, student: SpanCRF) -> Parts:
    """Compute P(words i..j are a segment of type l) of tag sequences, [B, N, N, L], and P(word is outside), [B, N].

    With c(s, t) for "t continues the span of s", read as decoding reads tags (`TagReader`), and given two neighbouring
    labels the later ones do not depend on the earlier ones, so that

        P(i..j, l) = sum over s_{i-1}..s_j, of which s_i..s_j are of type l, of P(s_{i-1}, s_i) [s_i begins]
                     prod_k c(s_k, s_{k+1}) P(s_{k+1} | s_k, s_{k-1}) P(not continued | s_j, s_{j-1}).

    A span begins at the first word, and ends with the sentence. Costs O(N^2 L G^3) for G labels per type (2 in BIO, 4
    in BIOES) in N steps, plus O(N C^3).

    Args:
        event: trigram marginals [B, N, C, C, C], as of `SecondOrderChainCRF`.
        reading: of the C labels.
        student: the distribution over spans.
    """
    batch, words, number = *event.shape[:2], student.event_shape[-1]
    typed = reading.types >= 0
    begins, continues = borders(reading)
    pairs = event.sum(4)  # [B, N, label, label before]
    labels = pairs.sum(3)
    position = torch.arange(words, device=event.device)
    starting = pairs * torch.where((position == 0).view(-1, 1, 1), typed.unsqueeze(1), begins)
    inverse = torch.where(pairs > 0, 1.0 / pairs.masked_fill(pairs == 0, 1.0), 0.0)
    following = event[:, 1:] * inverse[:, :-1].unsqueeze(2)  # P(next label | label, label before), [B, N-1, C, C, C]
    ending = torch.einsum("bnkji,kj->bnji", following, (~continues).to(event.dtype))
    last = (position == (student.lengths - 1).unsqueeze(1))[..., None, None]
    ending = torch.where(last, 1.0, torch.cat([ending, torch.zeros_like(pairs[:, :1])], 1))
    spans = event.new_zeros(batch, words, words, number)
    single = (starting * ending).sum(3)
    spans.diagonal(0, 1, 2).transpose(1, 2).index_add_(2, reading.types[typed], single[..., typed])
    if words > 1:
        group, real = groups_of(reading.types, number)
        here, before = group.unsqueeze(-1), group.unsqueeze(-2)
        closing = ending[..., here, before]  # [B, N, L, G, G]
        moving = following * continues.unsqueeze(-1)
        reached = torch.einsum("bnkji,bnji->bnkj", moving, starting[:, :-1])[..., here, before]
        reached = reached * (real.unsqueeze(-1) & real.unsqueeze(-2))
        moving = moving[:, :, group[..., None, None], here.unsqueeze(1), before.unsqueeze(1)] * real[..., None, None]
        for more in range(1, words):  # words of a span after its first
            spans.diagonal(more, 1, 2).copy_((reached * closing[:, more:]).sum((3, 4)).transpose(1, 2))
            if more < words - 1:
                reached = (moving[:, more:] * reached[:, :-1].unsqueeze(3)).sum(5)
    outside = labels @ (~typed).to(event.dtype)
    return spans * student.event_mask(), outside
