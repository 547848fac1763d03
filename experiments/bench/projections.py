"""What teachers of other families cost: the structural loss of one batch, forward and backward, pair by pair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import structkd

TYPES = ["LOC", "MISC", "ORG", "PER"]
TAGS = {
    "IO": ["O", *(f"I-{kind}" for kind in TYPES)],
    "BIO": ["O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BI")],
    "BIOES": ["O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BIES")],
}
STRUCTURES = 8


def pairs(batch: int, words: int) -> dict[str, Callable[[], Tensor]]:
    """Forward and backward of the loss for every pair, on sentences of `words` words and four entity types."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    def maxent(scheme: str, **options: Any) -> structkd.MaxEnt:
        size = len(TAGS[scheme])
        return structkd.MaxEnt(random(words, size).requires_grad_(), labels=TAGS[scheme], **options)

    def chain(scheme: str) -> structkd.LinearChainCRF:
        size = len(TAGS[scheme])
        transitions = torch.randn(size, size, generator=generator).requires_grad_()
        return structkd.LinearChainCRF.from_scores(
            random(words, size).requires_grad_(), transitions, labels=TAGS[scheme]
        )

    def spans() -> structkd.SpanCRF:
        return structkd.SpanCRF(random(words, words, len(TYPES)).requires_grad_(), types=TYPES)

    def second_order() -> structkd.SecondOrderChainCRF:
        return structkd.SecondOrderChainCRF(random(words, *[len(TAGS["IO"])] * 3).requires_grad_(), labels=TAGS["IO"])

    segments = structkd.SemiMarkovCRF(random(words - 1, 6, len(TYPES), len(TYPES)))
    labels = torch.randint(len(TAGS["BIO"]), (batch, STRUCTURES, words), generator=generator)
    annotated = structkd.Empirical.from_labels(labels, labels=TAGS["BIO"])
    heads = structkd.Empirical.from_heads(torch.arange(-1, words - 1).clamp_min(0).expand(batch, STRUCTURES, -1))
    trees = structkd.DependencyCRF(random(words, words).requires_grad_())
    plain = structkd.MaxEnt(random(words, len(TYPES)).requires_grad_())
    renamed = structkd.relabel(chain("BIO"), {"MISC": None}, TAGS["BIO"])
    sides: dict[str, tuple[Any, Any]] = {
        "chain BIO -> chain BIO (reference)": (chain("BIO"), chain("BIO")),
        "spans -> MaxEnt BIOES": (spans(), maxent("BIOES")),
        "spans -> chain BIO": (spans(), chain("BIO")),
        "spans -> chain BIOES": (spans(), chain("BIOES")),
        "MaxEnt BIO -> spans": (maxent("BIO"), spans()),
        "chain BIO -> spans": (chain("BIO"), spans()),
        "chain BIOES -> spans": (chain("BIOES"), spans()),
        "MaxEnt BIO -> MaxEnt BIOES": (maxent("BIO"), maxent("BIOES")),
        "chain BIO -> chain BIOES": (chain("BIO"), chain("BIOES")),
        "chain BIOES -> MaxEnt IO": (chain("BIOES"), maxent("IO")),
        "chain BIO, one type outside -> MaxEnt BIO": (renamed, maxent("BIO")),
        "semi-Markov -> MaxEnt": (segments, plain),
        "semi-Markov -> spans": (segments, spans()),
        "label trigrams -> chain IO": (second_order(), chain("IO")),
        "chain IO -> label trigrams": (chain("IO"), second_order()),
        "label trigrams -> spans": (second_order(), spans()),
        f"{STRUCTURES} annotations -> chain BIO": (annotated, chain("BIO")),
        f"{STRUCTURES} annotations -> spans": (annotated, spans()),
        f"{STRUCTURES} trees -> projective trees": (heads, trees),
        "mixture of chain and spans -> MaxEnt BIO": (structkd.Mixture([chain("BIO"), spans()]), maxent("BIO")),
    }
    return {name: _step(*both) for name, both in sides.items()}


def _step(teacher: Any, student: Any) -> Callable[[], Tensor]:
    """Fresh distributions for every call, as in training: results of the one before must not be remembered."""
    theirs, ours = _again(teacher), _again(student)

    def run() -> Tensor:
        loss = structkd.structural_kd_loss(theirs(), ours(), temperature=2.0)
        loss.backward()
        return loss

    return run


def _again(side: Any) -> Callable[[], Any]:
    if isinstance(side, structkd.StructuredDistribution):
        return lambda: side.with_scores(*side.scores)
    if isinstance(side, structkd.Mixture):
        return lambda: structkd.Mixture([_again(component)() for component in side.components], side.weights)
    return lambda: side.tempered(1.0)
