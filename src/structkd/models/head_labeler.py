"""Dependency parsing as sequence labelling: an encoder, and one softmax a word over labels of head and relation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import ModelOutput

from structkd import HeadLabeling, NonProjectiveDependencyCRF
from structkd.configurable import configurable
from structkd.data import UNLABELLED, Annotation, TreeAnnotation
from structkd.distributions.kernels.head_labels import trees_of_symbols
from structkd.models.head_encodings import HeadEncoding, head_encoding
from structkd.models.recipe import EncoderRecipe, StructuredModelRecipe
from structkd.models.structured import Example, StructuredConfig, StructuredModel, WordEncoder, padded
from structkd.models.tensor_cache import TensorCache

if TYPE_CHECKING:
    from datasets import Dataset
from structkd.numbering import NOWHERE, to_conllu, to_own_index

__all__ = ["HeadLabeler", "HeadLabelerConfig", "HeadLabelerOutput", "HeadLabelerRecipe"]

#: Cells of candidate heads that a model caches at most (two bytes each: 128 MiB).
_CACHED_CELLS = 1 << 26


class HeadLabelerConfig(StructuredConfig):
    """Configuration of a :class:`HeadLabeler`.

    Args:
        encoding: name of the head encoding, see :mod:`structkd.models.head_encodings`.
        labels: the label inventory in order: pairs of a symbol of the encoding and a relation.
        relations: the relation inventory of the treebank, in order.
        labelled: whether labels are distinguished by relation. False gives one label per symbol, with its most frequent
            relation, and a distribution over heads alone.
        multiroot: whether a sentence may have several roots.
    """

    model_type = "structkd_head_labeler"

    encoding: str = "relative_offset"
    labels: Any = ()
    relations: Any = ()
    labelled: bool = True
    multiroot: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        head_encoding(self.encoding)
        self.labels = [list(label) for label in self.labels]
        self.relations = list(self.relations)
        strange = {relation for _, relation in self.labels} - set(self.relations)
        if strange:
            raise ValueError(f"Labels name the relations {sorted(strange)}, which are not among {self.relations}.")

    @property
    def symbols(self) -> list[str]:
        """The distinct symbols of the labels, in order, H of them."""
        return list(dict.fromkeys(symbol for symbol, _ in self.labels))


@dataclass
class HeadLabelerOutput(ModelOutput):
    """Scores of a batch; :meth:`HeadLabeler.distribution` turns them into the distribution over label sequences.

    Attributes:
        logits: [B, N, K]; cell [b, n, k] scores label k at word n. Cells beyond a sentence's length are arbitrary.
        heads: integer tensor [B, N, H]; the head that symbol h names at word n: a position from 0, n itself for the
            root, -1 if it names no word. All labels of a symbol name its head.
    """

    logits: Tensor | None = None
    heads: Tensor | None = None


class HeadLabeler(StructuredModel):
    """An encoder with a softmax over head labels. Shapes: B sentences, N words, H symbols, K labels.

    The words that symbols name depend on the sentence alone. They are computed once for every sentence, or once for
    every length if the encoding depends on nothing else, and cached.
    """

    config_class = HeadLabelerConfig
    score_axes: ClassVar[Mapping[str, int]] = {"logits": 1, "heads": 1}

    config: HeadLabelerConfig

    def __init__(self, config: HeadLabelerConfig, encoder: WordEncoder | None = None) -> None:
        super().__init__(config, encoder)
        self.label = nn.Linear(self.encoder.dimension, len(config.labels))
        self._encoding = head_encoding(config.encoding)
        self._candidates = _CandidateHeads(self._encoding, config.symbols)
        self._inventory = _Inventory(config)
        self.post_init()

    @property
    def annotation(self) -> Annotation:
        return TreeAnnotation(tuple(self.config.relations), self.config.multiroot)

    def encode(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the inputs of ``forward``, with ``candidates``: the heads that symbols name, ShortTensor [B, N, H].

        Candidates are -1 in the padding.

        Raises:
            ValueError: if the encoding reads parts of speech and a sentence has none.
        """
        return {**super().encode(examples), "candidates": self._candidates(examples)}

    def encode_gold(self, examples: Sequence[Example]) -> Tensor:
        """Return label numbers, LongTensor [B, N].

        They are -100 in the padding, for hidden words, and for words whose (symbol, relation) is not in the inventory;
        these carry no supervised loss.
        """
        candidates = self._candidates(examples)
        heads, relations = (padded([example[column] for example in examples]) for column in ("heads", "relations"))
        naming = candidates == to_own_index(heads).unsqueeze(-1)
        labels = self._inventory.number[naming.int().argmax(-1), relations.clamp(min=0)]
        return labels.masked_fill(~naming.any(-1) | (heads == UNLABELLED), UNLABELLED)

    def forward(self, lengths: Tensor, candidates: Tensor, **inputs: Tensor) -> HeadLabelerOutput:  # type: ignore[override]
        """Score the labels of a batch.

        Args:
            lengths: LongTensor [B].
            candidates: [B, N, H] from :meth:`encode`.
            inputs: the encoder's inputs.
        """
        vectors = self.encoder(lengths=lengths, **inputs)
        if torch.is_grad_enabled() or int(lengths.min()) == vectors.shape[1]:
            return HeadLabelerOutput(logits=self.label(vectors), heads=candidates)
        # There are hundreds of labels, and half of a batch may be padding.
        rows = (torch.arange(vectors.shape[1], device=lengths.device) < lengths.unsqueeze(1)).flatten().nonzero()[:, 0]
        found = self.label(vectors.flatten(0, 1).index_select(0, rows))
        logits = found.new_zeros(vectors.shape[0] * vectors.shape[1], found.shape[1]).index_copy_(0, rows, found)
        return HeadLabelerOutput(logits=logits.view(*vectors.shape[:2], -1), heads=candidates)

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> HeadLabeling:
        relations = self._inventory.to(lengths.device).relations if self.config.labelled else None
        return HeadLabeling(scores["logits"], self._named(scores), relations=relations, lengths=lengths)

    def _named(self, scores: Mapping[str, Tensor]) -> Tensor:
        """Return the head that every label names, [B, N, K]."""
        heads = scores["heads"]
        if heads.shape[2] == len(self.config.labels):  # every label has a symbol of its own, or an older store has K
            return heads
        return heads.index_select(2, self._inventory.to(heads.device).symbols)

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Return the best tree over the heads that labels name, by posterior probability.

        The tree has a single root unless the configuration's ``multiroot`` is set.
        See :meth:`structkd.HeadLabeling.decode_trees`, which also explains arcs that no label names.
        """
        inventory = self._inventory.to(lengths.device)
        logits, named = scores["logits"], inventory.relations
        if lengths.device.type == "cpu" and inventory.distinct:
            candidates = scores["heads"]
            if candidates.shape[2] != len(inventory.labels_of):
                candidates = candidates.index_select(2, inventory.labels_of[:, 0])
            membership = inventory.membership.to(logits.dtype)
            groups = inventory.symbols, membership, inventory.labels_of
            found = trees_of_symbols(logits, candidates, *groups, lengths, self.config.multiroot)
            if found is not None:
                trees, labels = found
                decoded = {"heads": to_conllu(trees), "relations": named.take(labels)}
                if len(lengths) > 1 or int(lengths) < trees.shape[1]:  # a sentence alone has no padding
                    padding = trees < 0
                    decoded = {name: values.masked_fill(padding, UNLABELLED) for name, values in decoded.items()}
                return decoded
        posterior = HeadLabeling(logits, self._named(scores), named, lengths)
        heads, relations = posterior.decode_trees(multiroot=self.config.multiroot)
        assert relations is not None  # as labels name some
        padding = heads < 0
        return {
            "heads": to_conllu(heads).masked_fill(padding, UNLABELLED),
            "relations": relations.masked_fill(padding, UNLABELLED),
        }

    @torch.no_grad()
    def k_best(self, scores: Mapping[str, Tensor], lengths: Tensor, k: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        """Return the k best trees over the arcs that labels name; every arc has its best relation.

        A sentence whose labels name no tree has one structure, that of :meth:`decode`.
        """
        named, probabilities = self._named(scores).long(), scores["logits"].double().softmax(-1)
        words = named.shape[1]
        outside = (named < 0) | (named >= lengths.view(-1, 1, 1))
        mass = probabilities.new_zeros(len(named), words, words + 1)
        mass.scatter_add_(2, named.masked_fill(outside, words), probabilities)
        arcs = mass[..., :words].mT.log()
        best = self.decode(scores, lengths)
        heads = to_own_index(best["heads"])
        inside = heads >= 0
        exists = (arcs.gather(1, heads.clamp(min=0).unsqueeze(1)).squeeze(1) > -torch.inf).logical_or(~inside).all(1)
        # Without a tree of named arcs there is nothing to rank: any scores will do.
        arcs = torch.where(exists.view(-1, 1, 1), arcs, 0.0)
        trees = NonProjectiveDependencyCRF(arcs, lengths, multiroot=self.config.multiroot)
        relations = self._inventory.to(lengths.device).relations
        found = []
        for rank, (value, parts) in enumerate(zip(*trees.k_best(k), strict=True)):
            if rank == 0:
                found.append((best, torch.ones_like(exists)))
                continue
            heads = trees.structure_of_parts(parts)
            chosen = probabilities.masked_fill(named != heads.unsqueeze(-1), -1.0).argmax(-1)
            structure = {
                "heads": to_conllu(heads).masked_fill(heads < 0, UNLABELLED),
                "relations": relations[chosen].masked_fill(heads < 0, UNLABELLED),
            }
            found.append((structure, exists & (value > -torch.inf)))
        return found

    def confidences(
        self, scores: Mapping[str, Tensor], lengths: Tensor, structure: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``log_prob`` [B], ``head_scores`` [B, N] and ``relation_scores`` [B, N].

        Words choose their labels independently. The probability of an arc is the sum over the labels that name it. An
        arc that no label names, which a tree may need, has probability 0, and so has the tree. O(B N K) time.
        """
        heads = to_own_index(structure["heads"])
        inside = torch.arange(heads.shape[1], device=heads.device) < lengths.unsqueeze(1)
        probabilities = scores["logits"].double().softmax(-1)
        naming = self._named(scores) == heads.unsqueeze(-1)
        related = naming & (self._inventory.to(lengths.device).relations == structure["relations"].unsqueeze(-1))
        head_scores, relation_scores = ((probabilities * each).sum(-1) for each in (naming, related))
        log_prob = relation_scores.log().masked_fill(~inside, 0.0).sum(1)
        return {"log_prob": log_prob, "head_scores": head_scores, "relation_scores": relation_scores}


AutoConfig.register(HeadLabelerConfig.model_type, HeadLabelerConfig)
AutoModel.register(HeadLabelerConfig, HeadLabeler)


class _CandidateHeads(TensorCache):
    """A cache of the heads that symbols name in sentences, ShortTensors [N, H].

    The heads depend on the length or the parts of speech alone.
    """

    def __init__(self, encoding: HeadEncoding, symbols: list[str]) -> None:
        super().__init__()
        self.encoding = encoding
        self.symbols = symbols

    def __call__(self, examples: Sequence[Example]) -> Tensor:
        """Return [B, N, H], -1 in the padding."""
        sentences = [self._of_sentence(example) for example in examples]
        if len(sentences) == 1:
            return sentences[0].unsqueeze(0)
        return nn.utils.rnn.pad_sequence(sentences, batch_first=True, padding_value=NOWHERE)

    def _of_sentence(self, example: Example) -> Tensor:
        length, upos = len(example["tokens"]), None
        if self.encoding.reads_upos:
            if example.get("upos") is None:
                raise ValueError(
                    f"Sentence {example.get('id')!r} has no parts of speech (column upos), which the head encoding "
                    f"{self.encoding.name!r} reads. Use the encoding relative_offset, or data with UPOS."
                )
            upos = tuple(example["upos"])
        key: Hashable = length if upos is None else upos
        return self.get(
            key, lambda: self.encoding.candidates(self.symbols, length, upos).to(torch.int16), _CACHED_CELLS
        )


class _Inventory:
    """The labels of a configuration as tensors.

    They are plain tensors rather than buffers, because they do not belong to the saved weights.

    Attributes:
        number: LongTensor [H, R]; the label of symbol h and relation r, -100 if there is none.
        symbols, relations: LongTensors [K]; the numbers of every label's symbol and relation.
        membership: [K, H]; 1 if the label has the symbol, else 0.
        labels_of: LongTensor [H, R]; the labels of every symbol, its last one repeated.
        distinct: whether no two labels have the same symbol and relation.
    """

    def __init__(self, config: HeadLabelerConfig) -> None:
        symbols = {symbol: number for number, symbol in enumerate(config.symbols)}
        relations = {relation: number for number, relation in enumerate(config.relations)}
        with torch.device("cpu"):  # from_pretrained builds models on the meta device
            self.symbols = torch.tensor([symbols[symbol] for symbol, _ in config.labels], dtype=torch.long)
            self.relations = torch.tensor([relations[relation] for _, relation in config.labels], dtype=torch.long)
            self.distinct = len(set(map(tuple, config.labels))) == len(config.labels) > 0
            self.membership = nn.functional.one_hot(self.symbols, max(len(symbols), 1)).float()
            of_symbols = [(self.symbols == number).nonzero().flatten() for number in range(len(symbols))]
            most = max(map(len, of_symbols), default=0)
            places = [labels[torch.arange(most).clamp(max=len(labels) - 1)] for labels in of_symbols]
            self.labels_of = torch.stack(places) if places else torch.zeros(0, 1, dtype=torch.long)
            self.number = torch.full((len(symbols), len(relations)), UNLABELLED)
            every = torch.arange(len(config.labels))
            if config.labelled:
                self.number[self.symbols, self.relations] = every
            else:
                self.number[self.symbols] = every.unsqueeze(1)

        self.elsewhere: dict[torch.device, _Inventory] = {}

    def to(self, device: torch.device) -> _Inventory:
        """Return a copy on a device, made once."""
        if device == self.symbols.device:
            return self
        if device not in self.elsewhere:
            moved = copy(self)
            moved.symbols, moved.relations = self.symbols.to(device), self.relations.to(device)
            moved.number, moved.labels_of = self.number.to(device), self.labels_of.to(device)
            moved.membership = self.membership.to(device)
            self.elsewhere[device] = moved
        return self.elsewhere[device]


@configurable
class HeadLabelerRecipe(StructuredModelRecipe):
    """Builds a :class:`HeadLabeler` with the labels that an annotated treebank has.

    Args:
        encoder: recipe of the encoder.
        minimum_count: labels seen less often are left out. Words that would need one carry no supervised loss; a
            teacher's probabilities are renormalized over the labels that remain.
        relations: distinguish labels by relation; False distils heads alone.
        settings: ``encoding``, as in :class:`HeadLabelerConfig`: relative_offset, relative_pos (needs UPOS) or
            absolute_position.
    """

    model_class = HeadLabeler
    derived = frozenset({"labels", "relations", "labelled", "multiroot"})

    def __init__(
        self, *, encoder: EncoderRecipe, minimum_count: int = 1, relations: bool = True, **settings: Any
    ) -> None:
        super().__init__(encoder=encoder, **settings)
        if minimum_count < 1:
            raise ValueError(f"minimum_count must be at least 1, got {minimum_count}.")
        self.encoding, self.minimum_count, self.relations = self.settings["encoding"], minimum_count, relations

    def create(self, annotation: Annotation, text: Dataset, annotated: Dataset) -> HeadLabeler:
        """Return an untrained head labeler; see :class:`~structkd.models.ModelRecipe`.

        Raises:
            ValueError: if the data are not annotated with trees, lack the parts of speech that the encoding reads, or
                have no label that occurs ``minimum_count`` times.
        """
        if not isinstance(annotation, TreeAnnotation):
            raise ValueError(
                "Parsing as sequence labelling predicts dependency trees; the data are annotated otherwise "
                f"({annotation.description()})."
            )
        if head_encoding(self.encoding).reads_upos:
            for dataset in (text, annotated):
                if "upos" not in dataset.column_names:
                    raise ValueError(
                        f"The head encoding {self.encoding!r} reads parts of speech, and the data have no column upos "
                        f"(they have {', '.join(dataset.column_names)}). Use the encoding relative_offset."
                    )
        labels = self._labels(annotation, annotated)
        encoder = self.encoder.create(text["tokens"])
        config = self.configuration(
            encoder=encoder.config,
            labels=labels,
            relations=list(annotation.relations),
            labelled=self.relations,
            multiroot=annotation.multiroot,
        )
        return HeadLabeler(config, encoder)

    def _labels(self, annotation: TreeAnnotation, annotated: Dataset) -> list[tuple[str, str]]:
        """Return the inventory, the most frequent labels first, ties in alphabetical order."""
        encoding = head_encoding(self.encoding)
        pairs: Counter[tuple[str, str]] = Counter()
        parts_of_speech = annotated["upos"] if encoding.reads_upos else [None] * len(annotated)
        for heads, relations, upos in zip(annotated["heads"], annotated["relations"], parts_of_speech, strict=True):
            if UNLABELLED not in heads:
                names = (annotation.relations[relation] for relation in relations)
                pairs.update(zip(encoding.encode(heads, upos), names, strict=True))
        ranked = sorted(pairs, key=lambda pair: (-pairs[pair], pair))
        counts: Counter[Any] = pairs
        if not self.relations:
            counts = Counter()
            usual: dict[str, tuple[str, str]] = {}
            for pair in ranked:
                counts[usual.setdefault(pair[0], pair)] += pairs[pair]
            ranked = sorted(counts, key=lambda pair: (-counts[pair], pair))
        labels = [pair for pair in ranked if counts[pair] >= self.minimum_count]
        if not labels:
            raise ValueError(
                f"The {len(annotated)} annotated sentences have no label that occurs {self.minimum_count} times; the "
                "inventory of a head labeller comes from annotated trees."
            )
        return labels
