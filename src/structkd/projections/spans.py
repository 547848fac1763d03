"""Projections of flat typed spans onto spans and onto tags (case 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..distributions import MaxEnt, SpanCRF
from ..distributions.base import Parts
from ..tags import PREFIXES, scheme_of
from .registry import check_words, register_projection


@register_projection(SpanCRF, SpanCRF)
def _(teacher: SpanCRF, student: SpanCRF) -> Tensor:
    """Return P_t(span), the teacher's marginals."""
    check_words(teacher, student, trailing=1)
    return teacher.expected_event()


@register_projection(SpanCRF, MaxEnt)
def _(teacher: SpanCRF, student: MaxEnt) -> Tensor:
    """Case 4: return the per-word tag marginals of the distribution over flat segmentations."""
    check_words(teacher, student, trailing=0)
    return tag_marginals(teacher, teacher.expected_parts(), student.labels)


def tag_marginals(spans: SpanCRF, parts: Parts, labels: list[str] | None) -> Tensor:
    """Compute P(tag) for every word, [B, N, C], from expected span parts or those of one structure; 0 in the padding.

    The scheme is BIOES if the inventory has S- or E- tags of the spans' types, and BIO otherwise. With M[i, j] the mass
    of span i..j,

        S(k) = M[k, k]           B(k) = sum_{j > k} M[k, j]      E(k) = sum_{i < k} M[i, k]
        I(k) = sum_{i < k < j} M[i, j]                           O(k) = mass of k in no span;

    In BIO, the mass of S is added to B, and that of E to I. All cells are sums of probabilities, so that a tag which no
    span can give has exactly 0. Costs O(N^2 L).
    """
    types, labels, scheme = _inventories(spans, labels)
    mass, outside = parts
    single = mass.diagonal(0, 1, 2).transpose(1, 2)  # [B, N, L]
    longer = mass - torch.diag_embed(single.transpose(1, 2), dim1=1, dim2=2)
    begin, end = longer.sum(2), longer.sum(1)
    # For spans that start before k and end after it, sum over i < k, then over j > k, and take the diagonal.
    started = longer.cumsum(1) - longer
    inner = (started.flip(2).cumsum(2).flip(2) - started).diagonal(0, 1, 2).transpose(1, 2)
    if scheme == "BIO":
        per_prefix = {"B": begin + single, "I": inner + end}
    else:
        per_prefix = {"B": begin, "I": inner, "E": end, "S": single}
    tags = _by_name(per_prefix, types, labels, 0.0)
    tags[..., labels.index("O")] = outside
    return tags


def _inventories(spans: SpanCRF, labels: list[str] | None) -> tuple[list[str], list[str], str]:
    """Return types, labels and their scheme: BIOES if they have S- or E- tags of the types, BIO otherwise.

    Raises:
        ValueError: if an inventory is unknown, or the labels lack a tag of their scheme.
    """
    types: list[str] | None = spans.types
    if types is None or labels is None:
        missing = "the span model's types" if types is None else "the tagger's labels"
        raise ValueError(
            f"Spans become tags by their names, and {missing} have no names. Build the SpanCRF with types=[...] and "
            "the tagger with labels=[...]."
        )
    scheme = scheme_of(labels, types)
    needed = ["O", *(f"{prefix}-{kind}" for kind in types for prefix in PREFIXES[scheme])]
    missing_tags = [tag for tag in needed if tag not in labels]
    if missing_tags:
        raise ValueError(
            f"The tagger's {scheme} inventory lacks {missing_tags}; it has {labels}. Add the missing tags."
        )
    return types, labels, scheme


def _by_name(per_prefix: dict[str, Tensor], types: list[str], labels: list[str], otherwise: float) -> Tensor:
    """Arrange tensors [B, N, L] by prefix in one tensor [B, N, C], in the order of the labels."""
    tags = per_prefix["B"].new_full((*per_prefix["B"].shape[:2], len(labels)), otherwise)
    for prefix, values in per_prefix.items():
        tags[..., [labels.index(f"{prefix}-{kind}") for kind in types]] = values
    return tags
