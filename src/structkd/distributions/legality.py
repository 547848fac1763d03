"""Tag sequences conditioned on being legal in their scheme, so that a tagger is trained as it is decoded."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch.distributions import Distribution

from ..tags import legal_transitions
from .base import adopt, class_name
from .checks import check_inventory
from .empirical import Empirical
from .kernels.arithmetic import NEG_INF
from .kernels.viterbi import Legality
from .linear_chain import LinearChainCRF, _FactoredLinearChainCRF
from .maxent import MaxEnt
from .relabelled import Relabelled

__all__ = ["has_sequences", "legal", "restrict"]


def legal(distribution: Distribution, labels: Sequence[str] | None = None) -> Any:
    """Return a distribution over tag sequences, conditioned on the sequences that its tag scheme allows.

    The result is P(y) / P(legal) for every legal sequence y and 0 for every other one, exactly. A `MaxEnt` becomes a
    factored `LinearChainCRF` whose transitions, start and end are 0 or -inf; a chain keeps its scores where they are
    legal. A student that is trained through this function on both sides of the loss is trained as it is decoded, by
    the best legal sequence. An `Empirical` keeps its legal structures, and a relabelled teacher the legal images of its
    source's. Per-word losses (`token_kd_loss`, `emission_kd_loss`) take every word's own scores first
    and condition afterwards.

    Args:
        distribution: a `MaxEnt`, a `LinearChainCRF` (factored or dense), an `Empirical`, the result of
            `structkd.relabel` or `structkd.retag`, or another class that registers itself with
            `structkd.distributions.legality.restrict`.
        labels: the tag inventory in score order, BIO or BIOES; None takes `distribution.labels`.

    Returns:
        A distribution over the same sentences with these labels. It costs O(N C^2) a sentence, as every chain does.

    Raises:
        TypeError: if `distribution` is not a distribution.
        NotImplementedError: if its class has no legal sequences to choose from.
        ValueError: if there are no labels, they are not the distribution's own, or they are not tags of a scheme. A
            sentence whose scores of -inf exclude every legal sequence is refused as soon as it is used.

    >>> import structkd, torch
    >>> words = structkd.MaxEnt(torch.tensor([[[0.0, 0.5, 1.0], [0.0, 0.0, 0.9]]]), labels=["O", "B-PER", "I-PER"])
    >>> words.decode().tolist(), structkd.legal(words).decode().tolist()
    ([[2, 2]], [[1, 2]])
    """
    if not isinstance(distribution, Distribution):
        raise TypeError(
            f"structkd.legal takes a distribution over tag sequences, got {class_name(distribution)}. Wrap the scores "
            "in a class such as structkd.MaxEnt(scores, lengths=lengths, labels=labels)."
        )
    distribution = adopt(distribution)
    if not has_sequences(distribution):
        raise NotImplementedError(
            "structkd.legal conditions distributions over tag sequences (MaxEnt, LinearChainCRF, Empirical), got "
            f"{class_name(distribution)}. A SpanCRF builds legal sequences only; condition the components of a Mixture "
            "one by one."
        )
    known = getattr(distribution, "labels", None)
    if labels is None and known is None:
        raise ValueError(
            "structkd.legal needs the tag inventory, and the distribution has no labels. Give them here or to the "
            'distribution, such as labels=["O", "B-PER", "I-PER"].'
        )
    inventory = known if labels is None else list(check_inventory("labels", labels, _size(distribution, labels)) or ())
    assert inventory is not None
    if known is not None and inventory != list(known):
        raise ValueError(
            f"The labels must be those of the distribution, in its order, got {inventory} for a distribution over "
            f"{list(known)}. Convert one side with structkd.retag if the schemes differ, or reorder its scores."
        )
    return restrict(distribution, _legality(tuple(inventory)), list(inventory))


@functools.singledispatch
def restrict(distribution: Any, legality: Legality, labels: list[str]) -> Any:
    """Return a distribution conditioned on legal sequences; a class registers its function (`restrict.register`).

    Args:
        distribution: of the registered class.
        legality: BoolTensors on the CPU: start [C], transitions [C, C] as [next, previous], end [C].
        labels: C tags, which the result carries. A distribution that is conditioned already is returned as it is.
    """
    raise NotImplementedError(f"{class_name(distribution)} is not a distribution over tag sequences.")


def has_sequences(distribution: Any) -> bool:
    """Return whether `legal` takes distributions of this class."""
    return restrict.dispatch(type(adopt(distribution))) is not restrict.dispatch(object)


def _size(distribution: Any, labels: Any) -> int:
    """Return the number of labels that a distribution has scores for; one without scores takes any inventory."""
    scored = isinstance(distribution, (MaxEnt, LinearChainCRF))
    return int(distribution.event_shape[-1]) if scored else len(labels)


@functools.lru_cache(maxsize=64)
def _legality(labels: tuple[str, ...]) -> Legality:
    if all(label == "O" or label.startswith("I-") for label in labels):  # IO, in which every sequence is legal
        every = torch.ones(len(labels), dtype=torch.bool)
        return every, every.expand(len(labels), -1), every
    try:
        return legal_transitions(labels)
    except ValueError as error:
        raise ValueError(
            f"structkd.legal needs tags of a scheme, BIO or BIOES: {error} Labels of words, such as parts of speech, "
            "have no illegal sequences: leave legal out for them."
        ) from None


def _both(known: Legality | None, legality: Legality) -> Legality:
    """Return what two conditions allow; a distribution without one has None."""
    if known is None:
        return legality
    return known[0] & legality[0], known[1] & legality[1], known[2] & legality[2]


@restrict.register
def _(distribution: MaxEnt, legality: Legality, labels: Any) -> LinearChainCRF:
    named = distribution.labels or labels
    words = MaxEnt(distribution.logits, distribution.lengths, named, validate_args=False)
    return _FactoredLinearChainCRF.of_legal_words(words, legality)


@restrict.register
def _(distribution: _FactoredLinearChainCRF, legality: Legality, labels: Any) -> LinearChainCRF:
    known = distribution.legality
    if known is not None and all(map(torch.equal, known, legality)):
        return distribution
    legality = _both(known, legality)
    emissions, moves, first, last = distribution.scores
    assert emissions is not None
    assert moves is not None
    zeros = moves.new_zeros(moves.shape[-1])  # a chain that tags are read from has no labels of its own
    given = (zeros if first is None else first, moves, zeros if last is None else last)
    named, words = distribution.labels or labels, distribution.over_words
    return _FactoredLinearChainCRF.of_legal(emissions, given, legality, distribution.lengths, named, words)


@restrict.register
def _(distribution: LinearChainCRF, legality: Legality, labels: Any) -> LinearChainCRF:
    start, transitions, end = (mask.to(distribution.log_potentials.device) for mask in legality)
    position = torch.arange(distribution.words - 1, device=start.device).view(1, -1, 1, 1)
    last = (distribution.lengths - 2).view(-1, 1, 1, 1)
    allowed = transitions & (start | (position > 0)) & (end.unsqueeze(-1) | (position < last))
    scores = distribution.log_potentials.masked_fill(~allowed, NEG_INF)
    result = LinearChainCRF(scores, distribution.lengths, distribution.labels or labels, validate_args=False)
    result.legality = _both(distribution.legality, legality)
    return result


@restrict.register
def _(distribution: Empirical, legality: Legality, labels: Any) -> Empirical:
    if distribution.kind == "spans":
        return distribution  # flat spans are written legally
    if distribution.kind != "labels":
        raise ValueError(
            "structkd.legal conditions label sequences, and this Empirical holds dependency structures (from_heads)."
        )
    tags = distribution.structures
    if int(tags.max()) >= len(labels):
        raise ValueError(
            f"The Empirical has label {int(tags.max())}, and there are {len(labels)} labels: {labels}. Give the "
            "inventory that its sequences were numbered by."
        )
    start, transitions, end = (mask.to(tags.device) for mask in legality)
    position = torch.arange(tags.shape[-1], device=tags.device)
    last = position == (distribution.lengths - 1).view(-1, 1, 1)
    tags = tags.clamp_min(0)
    moves = transitions[tags[..., 1:], tags[..., :-1]] | (position[1:] >= distribution.lengths.view(-1, 1, 1))
    possible = start[tags[..., 0]] & moves.all(-1) & (end[tags] | ~last).all(-1)
    kept = distribution.keep(possible | (distribution.weights == 0), "is an illegal tag sequence")
    if kept.labels is None:
        kept = copy.copy(kept)
        kept.labels = labels
    return kept


@restrict.register
def _(distribution: Relabelled, legality: Legality, labels: Any) -> Relabelled:
    """Condition the source on the sequences whose images are legal."""
    source = distribution.source
    if distribution.kind == "spans":
        return distribution  # spans that were read are written legally
    outputs = distribution.outputs.cpu()
    start, transitions, end = legality
    pulled = start[outputs], transitions[outputs][:, outputs], end[outputs]
    return Relabelled(restrict(source, pulled, source.labels), outputs.tolist(), distribution.size, labels)
