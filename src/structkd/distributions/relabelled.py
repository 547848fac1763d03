"""Distributions under a map of labels, entity types or relations, or under a change of tag scheme."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from .base import StructuredDistribution, adopt, class_name
from .checks import check_inventory
from .empirical import Empirical
from .head_labeling import HeadLabeling
from .kernels.arithmetic import NEG_INF
from .linear_chain import LinearChainCRF
from .maxent import MaxEnt
from .mixture import Mixture
from .second_order_chain import SecondOrderChainCRF
from .span import Span
from .tag_tables import TagReader, TagWriter, reader, same_spans, scheme_of_tags, types_of_tags, writer


class Relabelled(Distribution):
    """The distribution of f(y) for y of a distribution and a map f of its labels, types or relations. Teacher only.

    Built by `structkd.relabel` and `structkd.retag`. Marginals are sums of the source's marginals, so the class is
    projected onto every student that the source is projected onto. A temperature divides the source's scores.

    Attributes:
        source: the distribution that is mapped.
        outputs: LongTensor [S], the label, type or relation that each of the source's becomes; -1 for a type that falls
            outside.
        size: the number of targets.
        labels, types: their names, or None.

    >>> import structkd, torch
    >>> tagger = structkd.MaxEnt(torch.zeros(1, 1, 3), labels=["O", "I-GPE", "I-LOC"])
    >>> places = structkd.relabel(tagger, {"GPE": "LOC"}, labels=["O", "I-LOC"])
    >>> type(places).__name__, places.labels
    ('Relabelled', ['O', 'I-LOC'])
    >>> student = structkd.MaxEnt(torch.zeros(1, 1, 2), labels=["O", "I-LOC"])
    >>> [round(share, 2) for share in structkd.project(places, student)[0, 0].tolist()]
    [0.33, 0.67]
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type torch.distributions reads

    def __init__(self, source: StructuredDistribution, outputs: Sequence[int], size: int, names: list[str] | None):
        self.source, self.size = source, size
        self.outputs = torch.tensor(list(outputs), dtype=torch.long, device=source.lengths.device)
        self.lengths, self.words, self.dtype = source.lengths, source.words, source.dtype
        self.kind = source.structures_are
        self.labels = names if self.kind == "labels" else None
        self.types = names if self.kind == "spans" else None
        super().__init__(source.batch_shape, source.event_shape, validate_args=False)

    def __repr__(self) -> str:
        return f"Relabelled({self.source!r}, size={self.size})"

    @property
    def over_words(self) -> bool:
        """Whether words choose independently: a map of every word's label leaves them so."""
        return self.source.over_words

    def tempered(self, temperature: float) -> Relabelled:
        """Return the map of the source at a temperature."""
        return self.of(self.source.tempered(temperature))

    def of(self, source: StructuredDistribution) -> Relabelled:
        """Return the same map of another distribution over structures of the source's kind.

        >>> import structkd, torch
        >>> arcs = structkd.HeadSelection(torch.zeros(1, 2, 2, 2))
        >>> structkd.relabel(arcs, {1: 0}).of(structkd.DependencyCRF(torch.zeros(1, 2, 2, 2))).source.count.tolist()
        [8.0]
        """
        return Relabelled(source, self.outputs.tolist(), self.size, self.labels or self.types)

    def merged(self, values: Tensor, axis: int = -1) -> Tensor:
        """Add values of the source's labels up over those that become one; an axis [S] becomes [size]."""
        axis = axis % values.dim()
        kept = self.outputs >= 0
        total = values.new_zeros(*values.shape[:axis], self.size, *values.shape[axis + 1 :])
        if kept.all():
            return total.index_add_(axis, self.outputs, values)
        return total.index_add_(axis, self.outputs[kept], values.index_select(axis, kept.nonzero().flatten()))

    def heaviest(self, k: int, weighted: bool = True) -> Empirical:
        """Return the images of the source's k best structures; probabilities of equal images are added.

        There are fewer than k images if some are equal. A temperature applies to the structures before the map. The
        k best images of all are not tractable: finding the best one is NP-hard for a chain (Lyngsø and Pedersen, 2002).

        Args:
            k: the number of the source's structures.
            weighted: if false, the images have equal weights, whatever the number of structures that become one.

        >>> import structkd, torch
        >>> tagger = structkd.MaxEnt(torch.tensor([[[1.0, 0.8, 0.0]]]), labels=["O", "GPE", "LOC"])
        >>> best = structkd.relabel(tagger, {"GPE": "LOC"}).heaviest(3).merged()
        >>> best.structures.flatten().tolist(), [round(weight, 2) for weight in best.weights.flatten().tolist()]
        ([0, 1, 1], [0.46, 0.54, 0.0])
        """
        images = _mapped_structures(Empirical.from_topk(self.source, k), self.outputs, self.labels or self.types)
        if weighted:
            return images
        images = images.merged()
        return images.with_weights((images.weights > 0).double())

    def decode(self) -> Any:
        """Return the map of the source's best structure: LongTensor [B, N] of labels or heads, or lists of spans."""
        best = self.source.decode()
        if self.kind == "labels":
            return torch.where(best < 0, best, self.outputs[best.clamp_min(0)])
        if self.kind == "heads":
            return best
        outputs = self.outputs.tolist()
        return [[Span(start, end, outputs[kind]) for start, end, kind in spans if outputs[kind] >= 0] for spans in best]


def relabel(distribution: Any, mapping: Mapping[Any, Any], labels: Sequence[str] | None = None) -> Any:
    """Return the distribution of structures under a many-to-one map of their labels, entity types or relations.

    Args:
        distribution: a distribution of labels, spans or labelled arcs, an Empirical, or a Mixture of these.
        mapping: from names to names. A name is a label or, for tags, an entity type, which stands for all of its tags.
            The target None means outside: O for a tag, no span for a span. Names that are left out stay. Without an
            inventory, and for relations, which have none, names are numbers.
        labels: the inventory of the result in order, labels or types; None means the order in which targets appear.

    Returns:
        A teacher that projects onto all students that the distribution projects onto. Its marginals are those of the
        push-forward: the sums over all structures that become one. An Empirical becomes an Empirical. A temperature
        applies before the map.

    Raises:
        TypeError: for something that is not a distribution or a mapping.
        ValueError: if the mapping names a label that the distribution lacks, or a target that `labels` lacks.

    >>> import structkd, torch
    >>> tagger = structkd.MaxEnt(torch.zeros(1, 1, 3), labels=["O", "GPE", "NORP"])
    >>> mapped = structkd.relabel(tagger, {"GPE": "LOC", "NORP": None})
    >>> mapped.labels, structkd.project(mapped, structkd.MaxEnt(torch.zeros(1, 1, 2), labels=["O", "LOC"]))
    (['O', 'LOC'], tensor([[[0.6667, 0.3333]]]))
    """
    distribution = _checked(distribution)
    if not isinstance(mapping, Mapping):
        raise TypeError(f"The mapping must be a dictionary from names to names, got {type(mapping).__name__}.")
    if isinstance(distribution, Mixture):
        if labels is None and len({str(_inventory(one)) for one in distribution.components}) > 1:
            raise ValueError("The components have different inventories. Give the inventory of the result as labels.")
        return Mixture([relabel(one, mapping, labels) for one in distribution.components], distribution.weights)
    kind = _kind(distribution)
    outputs, names, size = _outputs(kind, _inventory(distribution), _size(distribution), mapping, labels)
    if isinstance(distribution, Empirical):
        return _mapped_structures(distribution, torch.tensor(outputs), names)
    if isinstance(distribution, HeadLabeling):
        return _renamed_relations(distribution, outputs)
    if isinstance(distribution, Relabelled):
        outputs = [-1 if here < 0 else outputs[here] for here in distribution.outputs.tolist()]
        distribution = distribution.source
    return Relabelled(distribution, outputs, size, names)


def retag(distribution: Any, labels: Sequence[str]) -> Any:
    """Return the distribution of tag sequences under a change of scheme between IO, BIO and BIOES.

    Every sequence is read as decoding reads it (structkd.tags), whether or not it is legal, and its spans are written
    in the other scheme. In IO, spans of one type that touch become one. Spans of a SpanCRF have no scheme, and it stays
    as it is.

    Args:
        distribution: a MaxEnt, a chain of first or second order, an Empirical, a relabelled one, or a Mixture of these,
            with tags of a scheme as `labels`.
        labels: tags of the same types, in order; the scheme is BIOES if there are E- or S- tags, IO if there are no B-.

    Returns:
        A teacher that projects onto all students that the distribution projects onto. Costs those of a chain with three
        times as many labels for a result in BIO or BIOES; nothing more for IO.

    Raises:
        NotImplementedError: for a distribution whose labels are not of a chain.
        ValueError: for labels that are not tags of the same types, or lack one.

    >>> import structkd, torch
    >>> tagger = structkd.MaxEnt(torch.tensor([[[0.0, 9.0], [0.0, 9.0]]]), labels=["O", "I-X"])
    >>> structkd.retag(tagger, ["O", "B-X", "I-X"]).decode().tolist()
    [[1, 2]]
    """
    distribution = _checked(distribution)
    if isinstance(distribution, Mixture):
        return Mixture([retag(one, labels) for one in distribution.components], distribution.weights)
    names = check_inventory("labels", labels, len(list(labels)))
    assert names is not None
    if _kind(distribution) == "spans":
        writer(names, distribution.types or [])  # refuses other types
        return distribution
    have = _inventory(distribution)
    if have is None:
        raise ValueError("Tags are read by their names, and the distribution has none. Build it with labels=[...].")
    if scheme_of_tags(have) == scheme_of_tags(names) is not None and set(have) == set(names):
        return relabel(distribution, {}, names)
    if not same_spans(have, names):
        raise ValueError(
            f"The tags must be of the same types in one of the schemes IO, BIO and BIOES, got {have} for the "
            f"distribution and {names}. To change the types, use structkd.relabel."
        )
    if isinstance(distribution, Empirical):
        return rewritten(distribution, names)
    types = types_of_tags(names)
    writing = writer(names, types)
    if writing.scheme == "IO":
        return relabel(distribution, {tag: tag if tag == "O" else f"I-{tag[2:]}" for tag in have}, names)
    source, outputs = (
        (distribution.source, distribution.outputs) if isinstance(distribution, Relabelled) else (distribution, None)
    )
    tags = have if outputs is None else [have[label] for label in outputs.tolist()]
    return _read_chain(source, reader(tags, types, source.lengths.device), writing, names)


def rewritten(teacher: Empirical, labels: Sequence[str]) -> Empirical:
    """Return tag sequences in another scheme of the same types: read as decoding reads them, and written anew.

    >>> import torch
    >>> from structkd import Empirical
    >>> teacher = Empirical.from_labels(torch.tensor([[[1, 1]]]), labels=["O", "I-X"])
    >>> rewritten(teacher, ["O", "B-X", "I-X"]).decode().tolist()
    [[1, 2]]
    """
    types = types_of_tags(labels)
    device = teacher.structures.device
    tags = writer(labels, types, device).write(*reader(teacher.labels, types, device).read(teacher.structures))
    tags = tags.masked_fill(teacher.structures < 0, -1)
    return teacher.mapped(tags, None, list(labels), None)


# -- maps of names ----------------------------------------------------------------------------------------------------


def _checked(distribution: Any) -> Any:
    distribution = adopt(distribution)
    if not isinstance(distribution, (StructuredDistribution, Empirical, Relabelled, Mixture)):
        raise TypeError(
            f"Only distributions over structures have labels to map, got {class_name(distribution)}. Wrap the scores "
            "in one of structkd's classes, such as structkd.MaxEnt(scores, labels=[...])."
        )
    return distribution


def _kind(distribution: Any) -> str:
    kind = distribution.structures_are if isinstance(distribution, StructuredDistribution) else distribution.kind
    if isinstance(distribution, HeadLabeling):
        kind = "heads"
    labelled = getattr(distribution, "relations", None) is not None or len(distribution.event_shape) == 3
    if kind not in ("labels", "spans", "heads") or (kind == "heads" and not labelled):
        raise NotImplementedError(
            f"{class_name(distribution)} has neither labels nor entity types nor relations that could be mapped."
        )
    return kind


def _inventory(distribution: Any) -> list[str] | None:
    return getattr(distribution, "labels", None) or getattr(distribution, "types", None)


def _size(distribution: Any) -> int:
    if isinstance(distribution, Relabelled):
        return distribution.size
    if isinstance(distribution, (Empirical, HeadLabeling)):
        names = _inventory(distribution)
        if names is not None:
            return len(names)
        numbers = distribution.structures if getattr(distribution, "kind", "") == "labels" else distribution.relations
        return int(numbers.amax()) + 1 if numbers.numel() else 1  # type: ignore[union-attr]
    return distribution.event_shape[-1]


def _outputs(
    kind: str, names: list[str] | None, size: int, mapping: Mapping[Any, Any], labels: Sequence[str] | None
) -> tuple[list[int], list[str] | None, int]:
    """Return the target of every label (-1 for outside), the names of the targets, and their number."""
    if names is None:
        return _numbers(kind, size, mapping, labels)
    tags = kind == "labels"
    types = set(types_of_tags(names)) if tags and scheme_of_tags(names) else set()
    unknown = [key for key in mapping if key not in names and key not in types]
    if unknown:
        known = f"{names}" + (f", of the types {sorted(types)}" if types else "")
        raise ValueError(f"The mapping names {unknown}, which the distribution lacks; it has {known}.")
    wrong = [value for value in mapping.values() if not (value is None or isinstance(value, str))]
    if wrong:
        raise TypeError(f"The mapping must lead to names or None, got {wrong[0]!r}.")
    targets: list[str | None] = []
    for name in names:
        prefix, _, entity = name.partition("-")
        if name in mapping:
            target = mapping[name]
        elif entity in types and entity in mapping:
            target = None if mapping[entity] is None else f"{prefix}-{mapping[entity]}"
        else:
            target = name
        targets.append("O" if target is None and tags else target)
    found = [target for target in dict.fromkeys(targets) if target is not None]
    if labels is None:
        inventory = found
    else:
        inventory = check_inventory("labels", labels, len(list(labels))) or []
        missing = [target for target in found if target not in inventory]
        if missing:
            raise ValueError(
                f"The mapping leads to {missing}, which the labels {inventory} lack. Map their sources to one of these "
                "labels, or to None for outside."
            )
    place = {target: number for number, target in enumerate(inventory)}
    return [-1 if target is None else place[target] for target in targets], inventory, len(inventory)


def _numbers(
    kind: str, size: int, mapping: Mapping[Any, Any], labels: Sequence[str] | None
) -> tuple[list[int], list[str] | None, int]:
    wrong = [key for key in mapping if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < size]
    if wrong:
        raise ValueError(
            f"The distribution's {'relations' if kind == 'heads' else kind} have no names, so the mapping must be from "
            f"numbers in 0..{size - 1}, got {wrong[0]!r}."
        )
    outputs = [mapping.get(number, number) for number in range(size)]
    for target in outputs:
        if isinstance(target, bool) or not isinstance(target, int) or target < 0:
            if target is None and kind == "spans":
                continue
            raise ValueError(
                f"The mapping must lead to numbers of at least 0, got {target!r}. None means outside, which only spans "
                "and labels with names have."
            )
    count = max((target for target in outputs if target is not None), default=-1) + 1
    names = None if labels is None else check_inventory("labels", labels, len(list(labels)))
    if names is not None and len(names) < count:
        raise ValueError(f"The mapping leads to number {count - 1}, and there are {len(names)} labels: {names}.")
    numbers = [-1 if target is None else target for target in outputs]
    return numbers, names, max(count, 1) if names is None else len(names)


def _mapped_structures(teacher: Empirical, outputs: Tensor, names: list[str] | None) -> Empirical:
    table = outputs.to(teacher.structures.device)
    structures, relations = teacher.structures, teacher.relations
    if teacher.kind == "spans":
        structures = torch.cat([structures[:, :4], table[structures[:, 4:]]], 1)
        structures = structures[structures[:, 4] >= 0]
    elif teacher.kind == "labels":
        structures = torch.where(structures < 0, -1, table[structures.clamp_min(0)])
    else:
        assert relations is not None
        relations = torch.where(relations < 0, -1, table[relations.clamp_min(0)])
    labels, types = (names if teacher.kind == kind else None for kind in ("labels", "spans"))
    return teacher.mapped(structures, relations, labels, types)


def _renamed_relations(distribution: HeadLabeling, outputs: list[int]) -> HeadLabeling:
    relations = distribution.relations
    assert relations is not None
    table = torch.tensor(outputs, device=relations.device)
    renamed = torch.where(relations < 0, relations, table[relations.clamp_min(0)])
    return HeadLabeling(distribution.logits, distribution.heads, renamed, distribution.lengths, validate_args=False)


# -- tags that are read -----------------------------------------------------------------------------------------------


def _read_chain(source: StructuredDistribution, reading: TagReader, writing: TagWriter, names: list[str]) -> Relabelled:
    """Return the chain whose states are a source label and whether its word begins (and ends) a span, as written."""
    if not isinstance(source, (MaxEnt, LinearChainCRF, SecondOrderChainCRF)):
        raise NotImplementedError(
            f"Tags of {class_name(source)} cannot be read: only those of MaxEnt and of chains can. Give a student "
            "in the teacher's scheme."
        )
    ends_count = writing.scheme == "BIOES"
    states = []
    for label, (kind, opens, closes) in enumerate(
        zip(reading.types.tolist(), reading.opens.tolist(), reading.closes.tolist(), strict=True)
    ):
        begins = [False] if kind < 0 else [True] if opens else [True, False]
        ends = [False] if kind < 0 or not ends_count else [True] if closes else [True, False]
        states += [(label, kind, begin, end) for begin in begins for end in ends]
    device = source.lengths.device
    labels, kinds, begin, end = (torch.tensor(column, device=device) for column in zip(*states, strict=True))
    outputs = writing.write(kinds, begin, end)
    allowed = begin.unsqueeze(1) == reading.begins(labels.unsqueeze(0), labels.unsqueeze(1))  # [next, previous]
    typed = kinds >= 0
    if ends_count:
        allowed &= ~typed | (end == ((kinds < 0) | begin).unsqueeze(1))
    first, last = ~typed | begin, ~typed | end if ends_count else torch.ones_like(typed)
    hidden = _expanded(source, labels, allowed, first, last)
    return Relabelled(hidden, outputs.tolist(), len(names), names)


def _expanded(
    source: MaxEnt | LinearChainCRF | SecondOrderChainCRF, label: Tensor, allowed: Tensor, first: Tensor, last: Tensor
) -> LinearChainCRF | SecondOrderChainCRF:
    """Return a chain over states with the scores of their labels, and -inf if one may not follow or be at an end."""

    def masked(possible: Tensor, scores: Tensor | None) -> Tensor:
        scores = torch.zeros(possible.shape, dtype=source.dtype, device=possible.device) if scores is None else scores
        return scores.masked_fill(~possible, NEG_INF)

    if isinstance(source, SecondOrderChainCRF):
        # the first state has the first label, which stands for words before the sentence in both
        scores = source.log_potentials[..., label, :, :][..., label, :][..., label]
        position = torch.arange(source.words, device=label.device).view(1, -1, 1, 1)
        possible = torch.where(position > 0, allowed, first.unsqueeze(-1))
        possible = possible & (last.unsqueeze(-1) | (position != (source.lengths - 1).view(-1, 1, 1, 1)))
        return SecondOrderChainCRF(
            scores.masked_fill(~possible.unsqueeze(-1), NEG_INF), source.lengths, validate_args=False
        )
    if isinstance(source, LinearChainCRF) and not source.factored:
        scores = source.log_potentials[..., label, :][..., label].masked_fill(~allowed, NEG_INF)
        position = torch.arange(source.words - 1, device=label.device).view(1, -1, 1)
        ends = (position == (source.lengths - 2).view(-1, 1, 1)) & ~last
        scores = scores.masked_fill(ends.unsqueeze(-1), NEG_INF)
        starts = (position == 0) & ~first
        chain = LinearChainCRF(scores.masked_fill(starts.unsqueeze(-2), NEG_INF), source.lengths, validate_args=False)
        chain.legality = (first.cpu(), allowed.cpu(), last.cpu())
        return chain
    if isinstance(source, MaxEnt):
        emissions, transitions, start, end = source.logits, None, None, None
    else:
        emissions, transitions, start, end = source.scores  # type: ignore[assignment]
        transitions = transitions[label][:, label]  # type: ignore[index]
    return LinearChainCRF.from_scores(
        emissions[..., label],
        masked(allowed, transitions),
        masked(first, None if start is None else start[label]),
        masked(last, None if end is None else end[label]),
        source.lengths,
        validate_args=False,
    )
