"""Projections between flat typed spans and tags (case 4 and its relatives)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..distributions import LinearChainCRF, MaxEnt, SpanCRF
from ..distributions.base import Parts
from ..distributions.tag_tables import TagReader, TagWriter, reader, writer
from ..distributions.transition_counts import TransitionCounts
from .registry import check_words, register_projection


@register_projection(SpanCRF, SpanCRF)
def _(teacher: SpanCRF, student: SpanCRF) -> Tensor:
    """Return P_t(span), the teacher's marginals."""
    check_words(teacher, student, trailing=1)
    return teacher.expected_event()


@register_projection(SpanCRF, MaxEnt)
def _(teacher: SpanCRF, student: MaxEnt) -> Parts:
    """Case 4: return the per-word tag marginals of the distribution over flat segmentations."""
    check_words(teacher, student, trailing=0)
    return (tag_marginals(teacher.expected_parts(), writing_of(teacher, student), student.event_shape[-1]),)


@register_projection(SpanCRF, LinearChainCRF)
def _(teacher: SpanCRF, student: LinearChainCRF) -> Parts:
    """Return the tag marginals and the tag-bigram marginals of the distribution over flat segmentations."""
    check_words(teacher, student, trailing=0)
    parts, writing, size = teacher.expected_parts(), writing_of(teacher, student), student.event_shape[-1]
    return tag_marginals(parts, writing, size), tag_bigrams(parts, writing, size, student.factored)


def writing_of(spans: Any, student: Any) -> TagWriter:
    """Return the tags of a tagger in which the spans of a distribution with types are written."""
    if spans.types is None:
        raise ValueError(
            "Spans become tags by their names, and the span model's types have no names. Build the SpanCRF with "
            "types=[...]."
        )
    return writer(student.labels, spans.types, student.lengths.device)


def _roles(mass: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the mass of words that are a span, begin a longer one, end one, and are inside, each [B, N, L]."""
    single = mass.diagonal(0, 1, 2).transpose(1, 2)
    longer = mass - torch.diag_embed(single.transpose(1, 2), dim1=1, dim2=2)
    return single, longer.sum(2), longer.sum(1), _around(longer, 0)


def _around(mass: Tensor, gap: int) -> Tensor:
    """Return, for every word k, the mass of spans that begin before it and end after word k + gap, [B, N - gap, L]."""
    started = mass.cumsum(1) - mass
    later = started.flip(2).cumsum(2).flip(2) - started
    return later.diagonal(gap, 1, 2).transpose(1, 2)


def _tags(by_role: list[tuple[Tensor, Tensor]], outside: Tensor, writing: TagWriter, size: int) -> Tensor:
    """Add masses [B, N, L] up in the tags [L] of their types, and `outside` [B, N] in O: [B, N, C]."""
    tags = outside.new_zeros(*outside.shape, size)
    for index, values in by_role:
        tags.index_add_(-1, index, values)
    tags[..., writing.outside] += outside
    return tags


def tag_marginals(parts: Parts, writing: TagWriter, size: int) -> Tensor:
    """Compute P(tag) for every word, [B, N, C], from expected span parts or those of one structure; 0 in the padding.

    With M[i, j] the mass of span i..j of a type, and the tags of the type in BIOES,

        S(k) = M[k, k]           B(k) = sum_{j > k} M[k, j]      E(k) = sum_{i < k} M[i, k]
        I(k) = sum_{i < k < j} M[i, j]                           O(k) = mass of k in no span;

    In BIO, the mass of S is added to B, and that of E to I; in IO, all are added to I. All cells are sums of
    probabilities, so that a tag which no span can give has exactly 0. Costs O(N^2 L).
    """
    mass, outside = parts
    table = writing.table
    single, begin, end, inner = _roles(mass)
    by_role = [(table[:, 1, 1], single), (table[:, 1, 0], begin), (table[:, 0, 1], end), (table[:, 0, 0], inner)]
    return _tags(by_role, outside, writing, size)


def tag_bigrams(parts: Parts, writing: TagWriter, size: int, factored: bool) -> Any:
    """Compute P(tag of k, tag of k+1), [B, N-1, C, C] as [next, previous], or the expected counts [B, C, C].

    Two words are in one span, or there is a boundary between them. Given the boundary, both sides are independent:

        P(s, t) = L(s) R(t) / P(boundary),

    with L(s) the mass of spans of which word k is the last (or of O), and R(t) the mass of spans of which word k+1 is
    the first (or of O). Their sums are both P(boundary). Within a span of one type, the mass of spans by whether they
    begin at k and end at k+1 is added to the tags of the type. Costs O(N^2 L + N C^2); for counts, O(N^2 L + N C + C^2)
    memory.
    """
    mass, outside = parts
    table, words = writing.table, mass.shape[1]
    single, begin, end, _ = _roles(mass)
    left = _tags([(table[:, 1, 1], single), (table[:, 0, 1], end)], outside, writing, size)[:, :-1]
    right = _tags([(table[:, 1, 1], single), (table[:, 1, 0], begin)], outside, writing, size)[:, 1:]
    boundary = right.sum(-1, keepdim=True)
    left = torch.where(boundary > 0, left / boundary.masked_fill(boundary == 0, 1.0), 0.0)
    pair = mass.diagonal(1, 1, 2).transpose(1, 2)  # spans of just these two words, [B, N-1, L]
    upper = mass * torch.ones(words, words, dtype=mass.dtype, device=mass.device).triu(2).unsqueeze(-1)
    within = [  # begins at k, ends at k + 1
        (True, True, pair),
        (True, False, upper.sum(2)[:, :-1]),
        (False, True, upper.sum(1)[:, 1:]),
        (False, False, _around(mass, 1)),
    ]
    cells = [(table[:, 0, int(ends)] * size + table[:, int(begins), 0], values) for begins, ends, values in within]
    if factored:
        counts = mass.new_zeros(len(mass), size * size)
        for index, values in cells:
            counts.index_add_(1, index, values.sum(1))
        return TransitionCounts((right, left, None)) + TransitionCounts.from_dense(counts.view(-1, size, size))
    bigrams = right.unsqueeze(-1) * left.unsqueeze(-2)
    flat = bigrams.view(len(mass), words - 1, size * size)
    for index, values in cells:
        flat.index_add_(2, index, values)
    return bigrams


# -- tags as spans ----------------------------------------------------------------------------------------------------


@register_projection(MaxEnt, SpanCRF)
def _(teacher: MaxEnt, student: SpanCRF) -> Parts:
    """Return the probability of every span as a segment of the tag sequence, with independent words."""
    check_words(teacher, student, trailing=0)
    reading = reading_of(teacher.labels, student)
    labels = teacher.label_marginals()
    return segments(Independent(labels), labels, reading, student)


@register_projection(LinearChainCRF, SpanCRF)
def _(teacher: LinearChainCRF, student: SpanCRF) -> Parts:
    """Return the probability of every span as a segment of the tag sequence, by the chain's Markov property."""
    check_words(teacher, student, trailing=0)
    reading = reading_of(teacher.labels, student)
    labels = teacher.label_marginals()
    return segments(Neighbours(teacher.expected_event(), labels), labels, reading, student)


def reading_of(labels: list[str] | None, student: SpanCRF) -> TagReader:
    """Return the reader of a tagger's labels as spans of the student's types."""
    if student.types is None:
        raise ValueError("Tags become spans by their names, and the span model's types have none. Give types=[...].")
    return reader(labels, student.types, student.lengths.device)


def borders(reading: TagReader) -> tuple[Tensor, Tensor]:
    """Return whether a label begins a span, and whether it continues one, after another: [C, C] as [next, previous]."""
    state = torch.arange(len(reading.types), device=reading.types.device)
    begins = reading.begins(state.unsqueeze(0), state.unsqueeze(1))
    return begins, (reading.types >= 0).unsqueeze(1) & ~begins


def groups_of(types: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the labels of every type, LongTensor [L, G], and which of these count, BoolTensor [L, G].

    A type with fewer labels than another is filled up with labels that do not count.
    """
    members = [(types == kind).nonzero().flatten().tolist() for kind in range(number)]
    widest = max(max(map(len, members)), 1)
    group = torch.tensor([(m + [0] * widest)[:widest] for m in members], device=types.device)
    real = torch.tensor([[n < len(m) for n in range(widest)] for m in members], device=types.device)
    return group, real


class Independent:
    """Neighbouring labels of independent words, from label marginals [B, N, C]."""

    def __init__(self, labels: Tensor) -> None:
        self.labels = labels

    def after(self, allowed: Tensor) -> Tensor:
        """Return P(label of word n+1, an allowed label before it), [B, N-1, C]; allowed [C, C] as [next, previous]."""
        return self.labels[:, 1:] * (self.labels[:, :-1] @ allowed.to(self.labels.dtype).T)

    def before(self, allowed: Tensor) -> Tensor:
        """Return P(an allowed label follows | label of word n), [B, N-1, C]."""
        return self.labels[:, 1:] @ allowed.to(self.labels.dtype)

    def within(self, group: Tensor, allowed: Tensor) -> Tensor:
        """Return P(next label | label) among the labels of each type where allowed, [B, N-1, L, G, G]."""
        following = self.labels[:, 1:, group].unsqueeze(-1)
        return following * allowed[group.unsqueeze(-1), group.unsqueeze(-2)]


class Neighbours:
    """Neighbouring labels of a chain, from bigram marginals [B, N-1, C, C] and label marginals [B, N, C]."""

    def __init__(self, bigrams: Tensor, labels: Tensor) -> None:
        self.bigrams = bigrams
        before = labels[:, :-1]
        self.inverse = torch.where(before > 0, 1.0 / before.masked_fill(before == 0, 1.0), 0.0)

    def after(self, allowed: Tensor) -> Tensor:
        """As `Independent.after`."""
        return torch.einsum("bnji,ji->bnj", self.bigrams, allowed.to(self.bigrams.dtype))

    def before(self, allowed: Tensor) -> Tensor:
        """As `Independent.before`."""
        return torch.einsum("bnji,ji->bni", self.bigrams, allowed.to(self.bigrams.dtype)) * self.inverse

    def within(self, group: Tensor, allowed: Tensor) -> Tensor:
        """As `Independent.within`."""
        following, before = group.unsqueeze(-1), group.unsqueeze(-2)
        return self.bigrams[:, :, following, before] * self.inverse[:, :, before] * allowed[following, before]


def segments(pairs: Independent | Neighbours, labels: Tensor, reading: TagReader, student: SpanCRF) -> Parts:
    """Compute P(words i..j are a segment of type l) of tag sequences, [B, N, N, L], and P(word is outside), [B, N].

    With c(s, t) for "t continues the span of s", read as decoding reads tags (`TagReader`), and Markov sequences,

        P(i..j, l) = sum over s_i..s_j of type l of P(s_i begins) prod_k c P(s_{k+1} | s_k) P(not continued | s_j).

    A span begins at the first word, and ends with the sentence. Costs O(N^2 L G^2) for G labels per type (2 in BIO, 4
    in BIOES) in N steps, plus O(N C^2) for a chain.
    """
    batch, words, _ = labels.shape
    types, number = reading.types, student.event_shape[-1]
    typed = types >= 0
    begins, continues = borders(reading)
    first = labels[:, :1] * typed
    starting = torch.cat([first, pairs.after(begins)], 1) if words > 1 else first
    last = (torch.arange(words, device=labels.device) == (student.lengths - 1).unsqueeze(1)).unsqueeze(-1)
    ending = nn.functional.pad(pairs.before(~continues), (0, 0, 0, 1)) if words > 1 else torch.zeros_like(labels)
    ending = torch.where(last, 1.0, ending)
    group, real = groups_of(types, number)
    moving = pairs.within(group, continues) * (real.unsqueeze(-1) & real.unsqueeze(-2)) if words > 1 else None
    reached, closing = starting[..., group] * real, ending[..., group] * real  # [B, N, L, G]
    event = labels.new_zeros(batch, words, words, number)
    for size_less_one in range(words):
        spans = (reached * closing[:, size_less_one:]).sum(-1)
        event.diagonal(size_less_one, 1, 2).copy_(spans.transpose(1, 2))
        if size_less_one < words - 1:
            assert moving is not None
            reached = (moving[:, size_less_one:] @ reached[:, :-1].unsqueeze(-1)).squeeze(-1)
    outside = labels @ (~typed).to(labels.dtype)
    return event * student.event_mask(), outside
