"""Weighted sets of structures: annotations, k-best lists and samples as a teacher."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..numbering import NOWHERE
from .base import StructuredDistribution, adopt, class_name
from .checks import check_count, check_inventory, check_lengths, check_temperature
from .kernels.arithmetic import working_precision
from .span import Span

#: The forms of structures that an Empirical holds.
KINDS = ("labels", "heads", "spans")


class Empirical(Distribution):
    """A weighted set of structures for every sentence, as a distribution: P(y) is the weight of y. Teacher only.

    Several annotators, the samples of a language model, a k-best list and a single pseudo label are all of this form.
    The constructors are `from_labels`, `from_heads`, `from_spans` and `from_topk`. Projection onto a student is exact
    counting, conditioned on the structures that the student's class can build: trees for a tree distribution, flat
    spans for a SpanCRF. Weights are non-negative and are normalized per sentence. Equal structures add up, and a
    structure of weight 0 is as good as absent. At temperature T, weights become w^(1/T), renormalized.

    Attributes:
        structures: LongTensor [B, K, N] of labels or heads, -1 in the padding and in structures of weight 0. For spans,
            LongTensor [M, 5]: batch item, number of the structure, first word, last word, type.
        relations: LongTensor [B, K, N], or None.
        weights: float64 [B, K]; every row sums to 1.
        kind: "labels", "heads" or "spans".
        labels, types: the inventories, or None.

    Storage is O(B K N). Counting costs O(B K N), and O(B K N log N) to decide which trees are projective.

    Example:
        >>> import torch
        >>> import structkd
        >>> annotators = torch.tensor([[[0, 1], [0, 1], [1, 1]]])  # three annotators of one sentence
        >>> teacher = structkd.Empirical.from_labels(annotators, lengths=torch.tensor([2]))
        >>> structkd.project(teacher, structkd.MaxEnt(torch.zeros(1, 2, 2)))
        tensor([[[0.6667, 0.3333],
                 [0.0000, 1.0000]]])
        >>> teacher.decode().tolist(), round(teacher.entropy.exp().item(), 3)
        ([[0, 1]], 1.89)
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - the name and type torch.distributions reads

    def __init__(
        self,
        kind: str,
        structures: Tensor,
        weights: Tensor,
        lengths: Tensor,
        words: int,
        relations: Tensor | None = None,
        labels: list[str] | None = None,
        types: list[str] | None = None,
        naming: StructuredDistribution | None = None,
        groups: Tensor | None = None,
    ) -> None:
        # Arguments are checked by the class methods below.
        self.kind, self.structures, self.weights, self.relations = kind, structures, weights, relations
        self.lengths, self.words = lengths, words
        self.labels, self.types, self.naming, self.groups = labels, types, naming, groups
        super().__init__(torch.Size([len(weights)]), torch.Size([words]), validate_args=False)

    def __repr__(self) -> str:
        return f"Empirical({self.kind}, batch_shape={list(self.batch_shape)}, structures={self.weights.shape[1]})"

    @classmethod
    def from_labels(
        cls,
        sequences: Tensor,
        weights: Any = None,
        lengths: Any = None,
        labels: Sequence[str] | None = None,
    ) -> Empirical:
        """Return a distribution over label sequences.

        Args:
            sequences: integers [B, K, N]; cell [b, k, n] is the label of word n in the k-th sequence of sentence b.
                Anything may stand in the padding and in sequences of weight 0.
            weights: [B, K], non-negative, normalized per sentence; None means equal weights.
            lengths: LongTensor [B], words per sentence, 1..N; None means N for all.
            labels: the tag inventory in order.

        Raises:
            TypeError or ValueError: for a wrong kind, shape, length or weight, a label outside the inventory, or an
                unknown label (-100): a structure is known as a whole, so give it weight 0 or leave it out.

        >>> import structkd, torch
        >>> teacher = structkd.Empirical.from_labels(torch.tensor([[[0, 1], [1, 1]]]), weights=torch.tensor([[3, 1]]))
        >>> teacher.weights.tolist()
        [[0.75, 0.25]]
        """
        sequences = _check_structures("sequences", sequences)
        inventory = None if labels is None else check_inventory("labels", labels, len(list(labels)))
        lengths, words, weights = _check_batch(sequences, weights, lengths)
        size = None if inventory is None else len(inventory)
        used = _check_cells("sequences", sequences, weights, lengths, _below(size))
        return cls("labels", used, weights, lengths, words, labels=inventory)

    @classmethod
    def from_heads(
        cls,
        heads: Tensor,
        relations: Tensor | None = None,
        weights: Any = None,
        lengths: Any = None,
    ) -> Empirical:
        """Return a distribution over dependency structures. They may be trees of any class, or no trees.

        Args:
            heads: integers [B, K, N]; cell [b, k, d] is the head of word d, 0-based; a root is its own head. Anything
                may stand in the padding and in structures of weight 0.
            relations: integers [B, K, N], the relation of every word to its head, or None.
            weights, lengths: as in `from_labels`.

        Raises:
            TypeError or ValueError: for a wrong kind, shape, length or weight, a head outside the sentence, or a
                negative relation.

        >>> import structkd, torch
        >>> teacher = structkd.Empirical.from_heads(torch.tensor([[[0, 0], [1, 1]]]))
        >>> structkd.project(teacher, structkd.HeadSelection(torch.zeros(1, 2, 2))).tolist()
        [[[0.5, 0.5], [0.5, 0.5]]]
        """
        heads = _check_structures("heads", heads)
        lengths, words, weights = _check_batch(heads, weights, lengths)
        used = _check_cells("heads", heads, weights, lengths, lengths)
        if relations is not None:
            relations = _check_structures("relations", relations)
            if relations.shape != heads.shape:
                raise ValueError(
                    f"The relations must have the shape of the heads, {list(heads.shape)}, got {list(relations.shape)}."
                )
            relations = _check_cells("relations", relations, weights, lengths, None)
        return cls("heads", used, weights, lengths, words, relations=relations)

    @classmethod
    def from_spans(
        cls,
        spans: Sequence[Sequence[Iterable[tuple[int, int, Any]]]],
        lengths: Any,
        types: Sequence[str],
        weights: Any = None,
    ) -> Empirical:
        """Return a distribution over sets of typed spans.

        Args:
            spans: `spans[b][k]` is the k-th set of sentence b, a list of (first word, last word, type), 0-based and
                inclusive; the type is its name or its index. Sentences may have different numbers of sets. Spans of a
                set may overlap; students over flat spans are then taught by the other sets.
            lengths: LongTensor [B], words per sentence.
            types: the entity types in order.
            weights: [B, K] or, for different numbers of sets, a list of numbers for every sentence; None means equal.

        Raises:
            TypeError or ValueError: for a wrong kind, length or weight, or a span outside its sentence or the types.

        >>> import structkd, torch
        >>> spans = [[[(0, 1, "PER")], []]]  # one of two annotators found a person
        >>> teacher = structkd.Empirical.from_spans(spans, lengths=[2], types=["PER"])
        >>> tagger = structkd.MaxEnt(torch.zeros(1, 2, 3), labels=["O", "B-PER", "I-PER"])
        >>> structkd.project(teacher, tagger).tolist()
        [[[0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]]
        """
        inventory = check_inventory("types", types, len(list(types)))
        if inventory is None or not inventory:
            raise ValueError("The types must be a list of the entity types, at least one, got none.")
        if not isinstance(spans, Sequence) or isinstance(spans, str):
            raise TypeError(f"The spans must be a list of sentences, got {type(spans).__name__}.")
        if lengths is None:
            raise ValueError("The lengths must be given: spans do not tell how many words a sentence has.")
        longest = max((int(n) for n in torch.as_tensor(lengths).flatten().tolist()), default=1)
        batch = len(spans)
        checked, _ = check_lengths(lengths, batch, max(longest, 1), torch.device("cpu"))
        counts = [len(_as_list(f"spans[{item}]", sets)) for item, sets in enumerate(spans)]
        weights = _check_weights(_padded_weights(weights, counts), batch, max(counts, default=0))
        cells = []
        for item, (sets, length) in enumerate(zip(spans, checked.tolist(), strict=True)):
            for number, one in enumerate(sets):
                if weights[item, number]:
                    cells += sorted(
                        {
                            (item, number, *_check_span(span, item, number, length, inventory))
                            for span in _as_list(f"spans[{item}][{number}]", one)
                        }
                    )
        found = torch.tensor(cells, dtype=torch.long).view(-1, 5)
        return cls("spans", found, weights, checked, max(longest, 1), types=inventory)

    @classmethod
    def from_topk(cls, distribution: Any, k: int, weighted: bool = True) -> Empirical:
        """Return the k best structures of a distribution, weighted by their probabilities.

        Args:
            distribution: a structured distribution of labels, arcs or spans, an Empirical, or the result of
                `structkd.relabel` or `structkd.retag`. Of the latter, the k best structures before the map are mapped,
                and the probabilities of equal images are added: the k best images are not tractable.
            k: the number of structures; a sentence that has fewer gives fewer.
            weighted: if false, the structures have equal weights.

        Raises:
            NotImplementedError: for a distribution whose structures are neither labels nor heads nor spans.

        >>> import structkd, torch
        >>> tagger = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
        >>> structkd.Empirical.from_topk(tagger, 2).structures.tolist()
        [[[0, 1], [0, 0]]]
        """
        distribution = adopt(distribution)
        if hasattr(distribution, "heaviest"):
            return distribution.heaviest(check_count("k", k), weighted)
        if not isinstance(distribution, StructuredDistribution):
            raise NotImplementedError(
                f"The k best structures of a {class_name(distribution)} are not known. Give a structured distribution, "
                "and for several teachers a Mixture of their k best."
            )
        with torch.no_grad():
            if check_count("k", k) == 1:
                value, best = distribution.best()
                values, found = value.unsqueeze(0), [best]
            else:
                values, found = distribution.k_best(k)
            possible = values > float("-inf")
            weights = values.softmax(0) if weighted else possible.to(values.dtype) / possible.sum(0)
            return cls.from_parts(distribution, found, weights.T)

    @classmethod
    def from_parts(cls, distribution: Any, structures: Sequence[Any], weights: Tensor) -> Empirical:
        """Return a distribution over structures of a class, each given by its part indicators.

        Args:
            distribution: the structured distribution that the structures are of.
            structures: K tuples of part indicators, as `k_best` gives them.
            weights: [B, K].

        >>> import structkd, torch
        >>> tagger = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
        >>> structkd.Empirical.from_parts(tagger, [tagger.best()[1]], torch.ones(1, 1)).structures.tolist()
        [[[0, 1]]]
        """
        batch = distribution.batch_shape[0]
        weights = _check_weights(weights, batch, len(structures))
        lengths, words = distribution.lengths, distribution.words
        kind = distribution.structures_are
        if kind == "spans":
            rows = [parts[0].nonzero() for parts in structures]
            numbered = [
                torch.cat([row[:, :1], torch.full_like(row[:, :1], number), row[:, 1:]], 1)
                for number, row in enumerate(rows)
            ]
            found = torch.cat(numbered)
            found = found[weights.to(found.device)[found[:, 0], found[:, 1]] > 0]
            return cls(kind, found, weights, lengths, words, types=distribution.types)
        if kind not in KINDS:
            raise NotImplementedError(
                f"The structures of {class_name(distribution)} are neither labels nor heads nor spans. Set its "
                "attribute `structures_are`, or build the Empirical from its decoded structures."
            )
        integers = torch.stack([distribution.structure_of_parts(parts) for parts in structures], 1)
        used = _hidden(integers, weights, lengths)
        if kind == "labels":
            labels = getattr(distribution, "labels", None)
            naming = distribution if hasattr(distribution, "names_as") else None
            return cls(kind, used, weights, lengths, words, labels=labels, naming=naming)
        relations = None
        if distribution.labelled:
            relations = _hidden(torch.stack([p[0].sum(1).argmax(-1) for p in structures], 1), weights, lengths)
        return cls(kind, used, weights, lengths, words, relations=relations)

    # -- the interface of teachers --------------------------------------------------------------------------------

    @property
    def word_mask(self) -> Tensor:
        """BoolTensor [B, N]: True at the words of a sentence, False in the padding."""
        return torch.arange(self.words, device=self.lengths.device) < self.lengths.unsqueeze(1)

    def to(self, device: Any) -> Empirical:
        """Return the same distribution on another device."""
        if self.weights.device == torch.device(device) == self.structures.device:
            return self
        structures, lengths = self.structures.to(device), self.lengths.to(device)
        weights = self.weights.to(working_precision(lengths)).to(device)
        relations = None if self.relations is None else self.relations.to(device)
        groups = None if self.groups is None else self.groups.to(device)
        return Empirical(
            *(self.kind, structures, weights, lengths, self.words, relations),
            *(self.labels, self.types, self.naming, groups),
        )

    def mapped(
        self, structures: Tensor, relations: Tensor | None, labels: list[str] | None, types: list[str] | None
    ) -> Empirical:
        """Return the images of the structures under a map, with their weights.

        A temperature applies to the structures before the map, as it does for every other teacher.
        """
        groups = self.grouped() if self.groups is None else self.groups
        return Empirical(
            *(self.kind, structures, self.weights, self.lengths, self.words),
            *(relations, labels, types, None, groups),
        )

    def tempered(self, temperature: float) -> Empirical:
        """Return the distribution at a temperature: equal structures are added up, and w becomes w^(1/T)."""
        temperature = check_temperature(temperature)
        if temperature == 1:
            return self
        weights = self._added_up(self.grouped() if self.groups is None else self.groups)
        return self.with_weights((weights.log() / temperature).softmax(1))

    def with_weights(self, weights: Tensor) -> Empirical:
        """Return the same structures with other weights [B, K], normalized per sentence."""
        weights = _check_weights(weights, *self.weights.shape)
        return self._weighing(weights)

    def keep(self, possible: Tensor, reason: str = "was excluded") -> Empirical:
        """Return the distribution conditioned on some of its structures.

        Args:
            possible: BoolTensor [B, K], True for the structures that stay.
            reason: completes the sentence "every structure ...", for the error message.

        Raises:
            ValueError: if a sentence has no structure left; the message names the batch items.

        >>> import structkd, torch
        >>> teacher = structkd.Empirical.from_labels(torch.tensor([[[0, 1], [1, 1]]]))
        >>> teacher.keep(torch.tensor([[False, True]])).weights.tolist()
        [[0.0, 1.0]]
        """
        if possible.shape != self.weights.shape:
            raise ValueError(
                f"The mask of structures must have shape {list(self.weights.shape)}, got {list(possible.shape)}."
            )
        if possible.all():
            return self
        weights = self.weights.masked_fill(~possible.to(self.weights.device), 0.0)
        total = weights.sum(1)
        if not (total > 0).all():
            items = (total <= 0).nonzero().flatten().tolist()
            raise ValueError(
                f"Batch item(s) {items} have no structure left: every structure {reason}. Leave these sentences out, "
                "or give them structures that the student can build."
            )
        return self._weighing(weights / total.unsqueeze(1))

    def merged(self) -> Empirical:
        """Return the same distribution in which equal structures stand once: the first has their summed weight.

        >>> import structkd, torch
        >>> teacher = structkd.Empirical.from_labels(torch.tensor([[[0, 1], [1, 1], [0, 1]]]))
        >>> [round(w, 4) for w in teacher.merged().weights[0].tolist()]
        [0.6667, 0.3333, 0.0]
        """
        return self.with_weights(self._added_up(self.grouped()))

    def _added_up(self, groups: Tensor) -> Tensor:
        """Return the weights with those of a group at its first structure, and 0 at the others."""
        return torch.zeros_like(self.weights).scatter_add_(1, groups, self.weights)

    def heaviest(self, k: int, weighted: bool = True) -> Empirical:
        """Return the k structures of most weight, equal ones added up; with equal weights unless `weighted`.

        >>> import structkd, torch
        >>> teacher = structkd.Empirical.from_labels(torch.tensor([[[0, 1], [1, 1], [0, 1]]]))
        >>> teacher.heaviest(1).merged().weights.tolist()
        [[1.0, 0.0, 0.0]]
        """
        groups = self.grouped()
        total = self._added_up(groups)
        best = torch.zeros_like(total, dtype=torch.bool)
        best.scatter_(1, total.argsort(dim=1, descending=True, stable=True)[:, :k], True)
        best &= total > 0
        # Equal structures are not added up here, because a temperature applies to each of them before their sum.
        return self.keep(best.gather(1, groups)) if weighted else self.with_weights(best.double())

    def grouped(self) -> Tensor:
        """Return, for every structure, the number of the first structure of its sentence that equals it, [B, K].

        >>> import structkd, torch
        >>> structkd.Empirical.from_labels(torch.tensor([[[0, 1], [1, 1], [0, 1]]])).grouped().tolist()
        [[0, 1, 0]]
        """
        batch, number = self.weights.shape
        keys: list[Any]
        if self.kind == "spans":
            keys = [[[] for _ in range(number)] for _ in range(batch)]
            for item, k, *span in self.structures.tolist():
                keys[item][k].append(tuple(span))
            keys = [[tuple(sorted(one)) for one in sets] for sets in keys]
        else:
            table = self.structures
            if self.relations is not None:
                table = torch.cat([table, self.relations], 2)
            rows = table.to(torch.int32).cpu().contiguous().numpy()
            keys = [[row.tobytes() for row in sentence] for sentence in rows]
        groups = []
        for sentence in keys:
            first: dict[Any, int] = {}
            groups.append([first.setdefault(key, k) for k, key in enumerate(sentence)])
        return torch.tensor(groups, dtype=torch.long, device=self.weights.device).view(batch, number)

    def decode(self) -> Any:
        """Return the structure of most weight, equal ones added up; -1 in the padding. Ties go to the first.

        Returns:
            LongTensor [B, N] of labels or heads, or a list of spans `(start, end, type index)` for every sentence.
        """
        best = self.merged().weights.argmax(1) if self.weights.shape[1] else self.weights.new_zeros(0).long()
        if self.kind == "spans":
            chosen: list[list[Span]] = [[] for _ in range(self.batch_shape[0])]
            for item, k, *span in self.structures.tolist():
                if k == best[item]:
                    chosen[item].append(Span(*span))
            return chosen
        index = best.view(-1, 1, 1).expand(-1, 1, self.words)
        return self.structures.gather(1, index).squeeze(1).masked_fill(~self.word_mask, NOWHERE)

    @property
    def entropy(self) -> Tensor:  # type: ignore[override]
        """H(P), [B], in nats; equal structures count once."""
        weights = self.merged().weights
        return -torch.where(weights > 0, weights * weights.clamp_min(1e-300).log(), 0.0).sum(1)

    def padded(self, words: int) -> Tensor:
        """Return labels or heads with room for `words` words, LongTensor [B, K, words]; -1 in the padding."""
        return _fit(self.structures, words)

    def padded_relations(self, words: int) -> Tensor | None:
        """Return the relations with room for `words` words, LongTensor [B, K, words], or None."""
        return None if self.relations is None else _fit(self.relations, words)

    def one(self, number: int) -> Any:
        """Return the structure of that number of every sentence, in the form `decode` returns."""
        if self.kind != "spans":
            return self.structures[:, number]
        chosen: list[list[Span]] = [[] for _ in range(self.batch_shape[0])]
        for item, k, *span in self.structures.tolist():
            if k == number:
                chosen[item].append(Span(*span))
        return chosen

    def _weighing(self, weights: Tensor) -> Empirical:
        return Empirical(
            *(self.kind, self.structures, weights, self.lengths, self.words, self.relations),
            *(self.labels, self.types, self.naming, self.groups),
        )


def _fit(structures: Tensor, words: int) -> Tensor:
    """Cut or extend the last axis, which is padding beyond the longest sentence."""
    extra = words - structures.shape[-1]
    if extra <= 0:
        return structures[..., :words]
    return torch.nn.functional.pad(structures, (0, extra), value=NOWHERE)


def _below(size: int | None) -> Tensor | None:
    return None if size is None else torch.tensor(size)


def _check_structures(name: str, structures: Any) -> Tensor:
    """Return integers [B, K, N] as a LongTensor."""
    if not isinstance(structures, Tensor):
        raise TypeError(f"The {name} must be a LongTensor [B, K, N], got {type(structures).__name__}.")
    if structures.is_floating_point() or structures.is_complex() or structures.dtype == torch.bool:
        raise TypeError(f"The {name} must be a LongTensor [B, K, N], got {structures.dtype}.")
    if structures.dim() != 3:
        raise ValueError(
            f"The {name} must have shape [B, K, N], K structures per sentence, got {list(structures.shape)}. For one "
            f"structure per sentence, give {name}.unsqueeze(1)."
        )
    if not structures.shape[2]:
        raise ValueError(f"The {name} need at least one word, got shape {list(structures.shape)}.")
    return structures.detach().long()


def _check_batch(structures: Tensor, weights: Any, lengths: Any) -> tuple[Tensor, int, Tensor]:
    batch, number, words = structures.shape
    if lengths is None:
        checked = torch.full((batch,), words, dtype=torch.long, device=structures.device)
    else:
        checked, _ = check_lengths(lengths, batch, words, structures.device)
    return checked, words, _check_weights(weights, batch, number).to(structures.device)


def _check_weights(weights: Any, batch: int, number: int) -> Tensor:
    """Return weights [B, K] in float64 that sum to 1 per sentence."""
    if weights is None:
        if batch and not number:
            raise ValueError("Every sentence needs at least one structure, got K = 0. Leave such sentences out.")
        return torch.full((batch, number), 1.0 / max(number, 1), dtype=torch.float64)
    if not isinstance(weights, Tensor):
        try:
            weights = torch.as_tensor(weights)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                f"The weights must be numbers [B, K], one per structure, got {type(weights).__name__}."
            ) from None
    if weights.is_complex() or weights.dtype == torch.bool:
        raise TypeError(f"The weights must be numbers [B, K], got {weights.dtype}.")
    if weights.shape != (batch, number):
        raise ValueError(
            f"The weights must have shape {[batch, number]}, one per structure, got {list(weights.shape)}."
        )
    if weights.device.type != "mps":
        weights = weights.detach().double()
    bad = ~(weights.isfinite() & (weights >= 0))
    if bad.any():
        item, k = bad.nonzero()[0].tolist()
        raise ValueError(
            f"The weights must be finite and not negative, and structure {k} of batch item {item} has "
            f"{weights[item, k].item()}."
        )
    most = weights.amax(1, keepdim=True) if number else weights.new_zeros(batch, 1)
    if not (most > 0).all():
        items = (most <= 0).flatten().nonzero().flatten().tolist()
        raise ValueError(
            f"The weights of batch item(s) {items} are all zero. Give every sentence a structure of positive weight, "
            "or leave the sentence out."
        )
    weights = weights / most  # so that their sum is finite
    return weights / weights.sum(1, keepdim=True)


def _check_cells(name: str, structures: Tensor, weights: Tensor, lengths: Tensor, below: Tensor | None) -> Tensor:
    """Refuse values outside 0..below-1 in sentences of positive weight; return structures with -1 elsewhere."""
    used = _hidden(structures, weights, lengths)
    live = _live(structures, weights, lengths)
    wrong = structures < 0
    if below is not None:
        wrong = wrong | (structures >= below.to(structures.device).view(-1, 1, 1))
    wrong &= live
    if wrong.any():
        item, k, word = wrong.nonzero()[0].tolist()
        value = int(structures[item, k, word])
        room = "at least 0" if below is None else f"in 0..{int(below.reshape(-1)[item if below.dim() else 0]) - 1}"
        raise ValueError(
            f"The {name} must be {room}, and word {word} of structure {k} of batch item {item} has {value}. A "
            "structure is known as a whole: give one that is not weight 0, or leave it out."
        )
    return used


def _live(structures: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
    inside = torch.arange(structures.shape[2], device=lengths.device) < lengths.unsqueeze(1)
    return inside.unsqueeze(1) & (weights > 0).to(lengths.device).unsqueeze(2)


def _hidden(structures: Tensor, weights: Tensor, lengths: Tensor) -> Tensor:
    return structures.masked_fill(~_live(structures, weights, lengths), NOWHERE)


def _as_list(name: str, value: Any) -> list[Any]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list, got {type(value).__name__}.")
    return list(value)


def _padded_weights(weights: Any, counts: list[int]) -> Any:
    """Return weights [B, K] for sentences that may have different numbers of structures; 0 beyond them."""
    most = max(counts, default=0)
    empty = [item for item, count in enumerate(counts) if not count]
    if empty:
        raise ValueError(
            f"Batch item(s) {empty} have no set of spans. A sentence without spans has one empty set: [[]]."
        )
    if weights is None:
        rows = [[1.0] * count for count in counts]
    elif isinstance(weights, Tensor) or len(set(counts)) <= 1:
        return weights
    else:
        rows = [_as_list(f"weights[{item}]", row) for item, row in enumerate(_as_list("weights", weights))]
        if [len(row) for row in rows] != counts:
            raise ValueError(
                f"The weights must be one number per set of spans, {counts} for the sentences, got "
                f"{[len(row) for row in rows]}."
            )
    return [[*row, *[0.0] * (most - len(row))] for row in rows] if rows else torch.zeros(0, 0)


def _check_span(span: Any, item: int, number: int, length: int, types: list[str]) -> tuple[int, int, int]:
    where = f"of set {number} of batch item {item}"
    try:
        if len(span) != 3:
            raise TypeError
        start, end, kind = span
        start, end = operator.index(start), operator.index(end)
        if isinstance(kind, str):
            if kind not in types:
                raise ValueError(f"The type {kind!r} of span {tuple(span)} {where} is not among the types {types}.")
            kind = types.index(kind)
        kind = operator.index(kind)
    except TypeError:
        raise TypeError(f"A span must be (first word, last word, type), and one {where} is {span!r}.") from None
    if not (0 <= start <= end < length and 0 <= kind < len(types)):
        raise ValueError(
            f"Span {(start, end, kind)} {where} does not lie in its {length} words and {len(types)} types. A span is "
            "(first word, last word, type), 0-based and inclusive."
        )
    return start, end, kind
