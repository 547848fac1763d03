"""First-order dependency parsers: an encoder, biaffine scores of arcs and relations, and three classes of trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel
from transformers.utils import ModelOutput

from structkd import DependencyCRF, HeadSelection, NonProjectiveDependencyCRF
from structkd.configurable import configurable
from structkd.data import UNLABELLED, Annotation, TreeAnnotation
from structkd.models.biaffine import ArcScorer, BilinearRelations, RelationFactors, initialize_scorer
from structkd.models.recipe import StructuredModelRecipe
from structkd.models.structured import Example, StructuredConfig, StructuredModel, WordEncoder, padded

if TYPE_CHECKING:
    from datasets import Dataset
from structkd.numbering import to_conllu, to_own_index

__all__ = ["STRUCTURES", "BiaffineParser", "ParserConfig", "ParserOutput", "ParserRecipe", "lift"]

STRUCTURES = ("head_selection", "projective", "nonprojective")


class ParserConfig(StructuredConfig):
    """Configuration of a :class:`BiaffineParser`.

    Args:
        relations: the relation inventory, in order.
        multiroot: whether a sentence may have several roots.
        structure: "head_selection" (every word picks its head independently), "projective" or "nonprojective" (a CRF
            over such trees).
        arc_size: size of a word's vector as a head or dependent of an arc.
        relation_size: size of its vector as a head or dependent of a relation.
        dropout: share of the channels of these vectors dropped in training, for all words of a sentence at once.
        memory_limit: GiB that the labelled arcs of a batch may take, by an estimate for a training step; None sets no
            limit. Training on gold trees does not need labelled arcs.
    """

    model_type = "structkd_parser"

    relations: Any = ("root",)
    multiroot: bool = False
    structure: str = "head_selection"
    arc_size: int = 100
    relation_size: int = 32
    dropout: float = 0.3
    memory_limit: float | None = 16.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.relations = list(self.relations)
        if self.structure not in STRUCTURES:
            raise ValueError(f"Unknown structure {self.structure!r}: expected one of {', '.join(STRUCTURES)}.")
        if not self.relations:
            raise ValueError("A parser needs at least one relation.")
        self.check_range(
            arc_size=(self.arc_size, 1, float("inf")),
            relation_size=(self.relation_size, 1, float("inf")),
            dropout=(self.dropout, 0, 0.99),
        )
        if self.memory_limit is not None:
            self.check_range(memory_limit=(self.memory_limit, 0, float("inf")))


@dataclass
class ParserOutput(ModelOutput):
    """Scores of a batch; :meth:`BiaffineParser.distribution` turns them into the distribution over trees.

    The scores of relations are kept as factors, which are far smaller than [B, N, N, L];
    :class:`~structkd.models.BilinearRelations` multiplies them out. Cells beyond a sentence's length are arbitrary.

    Attributes:
        arcs: [B, N, N]; cell [b, h, d] scores the arc from head h to dependent d, root arcs on the diagonal.
        relation_heads: [B, N, R], vectors of the words as heads.
        relation_dependents: [B, N, R], vectors of the words as dependents.
        relation_root: [R], the vector of the root as a head.
        relation_weight: [L, R+1, R+1], the bilinear forms (head, dependent) of the relations, biases last.
    """

    arcs: Tensor | None = None
    relation_heads: Tensor | None = None
    relation_dependents: Tensor | None = None
    relation_root: Tensor | None = None
    relation_weight: Tensor | None = None


class BiaffineParser(StructuredModel):
    """An encoder with biaffine scores of arcs and relations (Dozat & Manning 2017).

    The log potential of a labelled arc is the arc's score plus the log probability of the relation given the arc, so
    that the distribution over arcs depends on the arcs' scores alone. Shapes: B sentences, N words, L relations.
    """

    config_class = ParserConfig
    score_axes: ClassVar[Mapping[str, int]] = {
        "arcs": 2,
        "relation_heads": 1,
        "relation_dependents": 1,
        "relation_root": 0,
        "relation_weight": 0,
    }

    config: ParserConfig

    def __init__(self, config: ParserConfig, encoder: WordEncoder | None = None) -> None:
        super().__init__(config, encoder)
        dimension = self.encoder.dimension
        self.arcs = ArcScorer(dimension, config.arc_size, config.dropout)
        self.relations = RelationFactors(dimension, config.relation_size, len(config.relations), config.dropout)
        self.add_scorers(dimension)
        self.post_init()

    def add_scorers(self, dimension: int) -> None:
        """Add the layers of a subclass; ``dimension`` is the size of the encoder's vectors."""

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if not initialize_scorer(module):
            super()._init_weights(module)

    @property
    def annotation(self) -> Annotation:
        return TreeAnnotation(tuple(self.config.relations), self.config.multiroot)

    def forward(self, lengths: Tensor, **inputs: Tensor) -> ParserOutput:
        words = self.encoder(lengths=lengths, **inputs)
        return ParserOutput(arcs=self.arcs(words), **self.relations(words))

    def relation_scores(self, scores: Mapping[str, Tensor]) -> BilinearRelations:
        """Return the scores of relations given the arc."""
        return BilinearRelations(
            scores["relation_heads"],
            scores["relation_dependents"],
            scores["relation_root"],
            scores["relation_weight"],
            self.config.memory_limit,
        )

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """Return the distribution over labelled arcs [B, N, N, L], of the class that ``structure`` names.

        Args:
            scores: :meth:`scores` of the batch (or the output itself).
            lengths: LongTensor [B].

        Labelled arcs are multiplied out on demand, which raises ValueError if they would exceed ``memory_limit``.
        Training on gold trees (:func:`structkd.supervised_loss`) does not need them.
        """
        return self.arc_distribution(scores, lengths).with_relations(self.relation_scores(scores))

    def arc_distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """Return the distribution over unlabelled arcs [B, N, N]; see :meth:`distribution`."""
        if self.config.structure == "head_selection":
            return HeadSelection(scores["arcs"], lengths)
        trees = DependencyCRF if self.config.structure == "projective" else NonProjectiveDependencyCRF
        return trees(scores["arcs"], lengths, multiroot=self.config.multiroot)

    def encode_gold(self, examples: Sequence[Example]) -> Tensor:
        """Return indicators of labelled arcs, BoolTensor [B, N, N, L]; False in the padding and for hidden annotation.

        A projective CRF gives non-projective trees no probability, and the likelihood of such a tree could be raised
        without end: they are made projective first, see :func:`lift`.
        """
        heads, relations = (padded([example[column] for example in examples]) for column in ("heads", "relations"))
        if self.config.structure == "projective":
            heads = lift(heads)
        item, dependent = (heads >= 0).nonzero(as_tuple=True)
        head = to_own_index(heads)[item, dependent]
        batch, words = heads.shape
        gold = torch.zeros(batch, words, words, len(self.config.relations), dtype=torch.bool)
        gold[item, head, dependent, relations[item, dependent]] = True
        return gold

    @torch.no_grad()
    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Return the best tree over arcs, and the best relation of each of its arcs.

        Projective trees are found by Eisner's algorithm, others as maximum spanning arborescences; they have a single
        root unless the annotation has several. O(N^3) time and O(N^2) memory: only the tree's arcs need relations.

        Returns:
            ``heads`` (1-based, 0 for the root) and ``relations``, LongTensors [B, N]; -100 in the padding.
        """
        trees = DependencyCRF if self.config.structure == "projective" else NonProjectiveDependencyCRF
        heads = trees(self.arc_scores(scores, lengths), lengths, multiroot=self.config.multiroot).decode()
        return self._labelled(scores, heads)

    @torch.no_grad()
    def k_best(self, scores: Mapping[str, Tensor], lengths: Tensor, k: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        """Return the k best trees, ranked by their arcs; every arc has its best relation."""
        trees = DependencyCRF if self.config.structure == "projective" else NonProjectiveDependencyCRF
        distribution = trees(self.arc_scores(scores, lengths), lengths, multiroot=self.config.multiroot)
        values, structures = distribution.k_best(k)
        return [
            (self._labelled(scores, distribution.structure_of_parts(parts)), value > -torch.inf)
            for value, parts in zip(values, structures, strict=True)
        ]

    def _labelled(self, scores: Mapping[str, Tensor], heads: Tensor) -> dict[str, Tensor]:
        """Return trees, given by heads that are positions from 0 (-1 in the padding), with their best relations."""
        padding = heads < 0
        relations = self.relation_scores(scores).along(heads.clamp(min=0)).argmax(-1)
        return {
            "heads": to_conllu(heads).masked_fill(padding, UNLABELLED),
            "relations": relations.masked_fill(padding, UNLABELLED),
        }

    def confidences(
        self, scores: Mapping[str, Tensor], lengths: Tensor, structure: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``log_prob`` [B], ``head_scores`` [B, N] and ``relation_scores`` [B, N].

        Only the tree's arcs need relations: O(B N^2) memory beside that of the distribution over arcs.
        """
        arcs, heads = self.arc_distribution(scores, lengths), to_own_index(structure["heads"]).clamp(min=0)
        head_scores = arcs.arc_marginals().gather(1, heads.unsqueeze(1)).squeeze(1)
        chosen = structure["relations"].clamp(min=0).unsqueeze(-1)
        relations = self.relation_scores(scores).along(heads).double().log_softmax(-1).gather(-1, chosen).squeeze(-1)
        inside = torch.arange(heads.shape[1], device=heads.device) < lengths.unsqueeze(1)
        return {
            "log_prob": arcs.log_prob(heads).double() + (relations * inside).sum(1),
            "head_scores": head_scores,
            "relation_scores": head_scores * relations.exp(),
        }

    def arc_scores(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Tensor:
        """Return the log potentials of unlabelled arcs, [B, N, N], from which trees are decoded."""
        return scores["arcs"]


AutoConfig.register(ParserConfig.model_type, ParserConfig)
AutoModel.register(ParserConfig, BiaffineParser)


def lift(heads: Tensor) -> Tensor:
    """Make trees projective by lifting arcs (Nivre & Nilsson 2005), the shortest crossing arc of a tree first.

    An arc from h to d is projective if all words between them descend from h. One that is not is replaced by the arc
    from the head of h to d, until all are.

    Args:
        heads: LongTensor [B, N], 1-based, 0 for the root; negative in the padding, which stays.

    Returns:
        LongTensor [B, N]. Projective trees are returned unchanged.
    """
    words = heads.shape[1]
    position = torch.arange(words + 1, device=heads.device)
    heads = nn.functional.pad(heads, (1, 0), value=UNLABELLED)  # node 0 is the root
    itself = torch.eye(words + 1, dtype=torch.bool, device=heads.device)
    node = position.view(1, -1, 1)
    while True:
        inside, above = heads >= 0, heads.clamp(min=0)
        ancestor = (heads.unsqueeze(1) == node) | itself  # [b, a, d]
        for _ in range(words.bit_length()):
            ancestor = (ancestor.float() @ ancestor.float()) > 0
        left, right = torch.minimum(heads, position), torch.maximum(heads, position)
        between = (left.unsqueeze(1) < node) & (node < right.unsqueeze(1)) & inside.unsqueeze(1)  # [b, k, d]
        descends = ancestor.gather(1, above.unsqueeze(2).expand(ancestor.shape)).mT  # [b, k, d]: k from the head of d
        crossing = (between & ~descends).any(1)
        if not crossing.any():
            return heads[:, 1:]
        # Lift one arc of every sentence at a time, because that may make others projective.
        shortest = (right - left).masked_fill(~crossing, words + 1).argmin(1, keepdim=True)
        lifted = crossing & (position == shortest)
        heads = torch.where(lifted, heads.gather(1, above), heads)


@configurable
class ParserRecipe(StructuredModelRecipe):
    """Builds a :class:`BiaffineParser`.

    Args:
        encoder: recipe of the encoder.
        settings: those of :class:`ParserConfig`, but for the relations and ``multiroot``.
    """

    model_class: ClassVar[type[BiaffineParser]] = BiaffineParser
    derived = frozenset({"relations", "multiroot"})

    def create(self, annotation: Annotation, text: Dataset, annotated: Dataset) -> BiaffineParser:
        """Return an untrained parser; see :class:`~structkd.models.ModelRecipe`."""
        if not isinstance(annotation, TreeAnnotation):
            raise ValueError(
                f"A parser predicts dependency trees; the data are annotated otherwise ({annotation.description()})."
            )
        encoder = self.encoder.create(text["tokens"])
        config = self.configuration(
            encoder=encoder.config, relations=list(annotation.relations), multiroot=annotation.multiroot
        )
        return self.model_class(config, encoder)
