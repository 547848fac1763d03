"""A span model: a biaffine score of every typed span, and the distribution over flat segmentations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, initialization
from transformers.utils import ModelOutput

from structkd import MaxEnt, SpanCRF, project
from structkd.configurable import configurable
from structkd.data import UNLABELLED, TagAnnotation, tag_spans
from structkd.models.biaffine import MLP, biaffine
from structkd.models.recipe import StructuredModelRecipe
from structkd.models.span_tags import TagPrefixes
from structkd.models.structured import Example, StructuredConfig, StructuredModel, WordEncoder
from structkd.tags import CONTINUING, OPENING

if TYPE_CHECKING:
    from datasets import Dataset

    from structkd.data import Annotation

__all__ = ["SpanConfig", "SpanModel", "SpanOutput", "SpanRecipe"]


class SpanConfig(StructuredConfig):
    """Configuration of a :class:`SpanModel`.

    Args:
        types: the span types, in order.
        scheme: "BIO" or "BIOES", in which spans are read and written as tags.
        size: size of a word's vector as the first or the last word of a span.
        dropout: share of the channels of these vectors dropped in training, for all words of a sentence at once.
        max_width: number of words of the longest span; None sets no bound.
    """

    model_type = "structkd_span"

    types: Any = ("SPAN",)
    scheme: str = "BIOES"
    size: int = 100
    dropout: float = 0.3
    max_width: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.types = list(self.types)
        TagAnnotation.of_spans(self.types, self.scheme)  # refuses unknown schemes and bad types
        self.check_range(size=(self.size, 1, float("inf")), dropout=(self.dropout, 0, 0.99))
        if self.max_width is not None:
            self.check_range(max_width=(self.max_width, 1, float("inf")))


@dataclass
class SpanOutput(ModelOutput):
    """Scores of a batch.

    Attributes:
        spans: [B, N, N, L]; cell [b, i, j, l], i <= j, is the log-odds of words i..j (inclusive) being a span of type l
            against no span; -inf if the span is wider than ``max_width``. Cells with j < i, or beyond a sentence's
            length, are arbitrary.
    """

    spans: Tensor | None = None


class SpanModel(StructuredModel):
    """An encoder with a biaffine score of every span by its first and last word (Yu et al. 2020, "NER as parsing").

    That paper classifies every span independently and resolves overlaps afterwards; this model is a distribution over
    sets of spans that do not overlap. It reads and writes tags. Shapes: B sentences, N words, L span types.
    """

    config_class = SpanConfig
    score_axes: ClassVar[Mapping[str, int]] = {"spans": 2}

    config: SpanConfig

    def __init__(self, config: SpanConfig, encoder: WordEncoder | None = None) -> None:
        super().__init__(config, encoder)
        self.start = MLP(self.encoder.dimension, config.size, config.dropout)
        self.end = MLP(self.encoder.dimension, config.size, config.dropout)
        self.weight = nn.Parameter(torch.empty(len(config.types), config.size + 1, config.size + 1))
        self._annotation = TagAnnotation.of_spans(config.types, config.scheme)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, SpanModel):
            initialization.zeros_(module.weight)
        else:
            super()._init_weights(module)

    @property
    def annotation(self) -> TagAnnotation:
        return self._annotation

    def forward(self, lengths: Tensor, **inputs: Tensor) -> SpanOutput:
        words = self.encoder(lengths=lengths, **inputs)
        spans = biaffine(self.start(words), self.end(words), self.weight)
        width = self.config.max_width
        if width is not None and width < words.shape[1]:
            too_wide = torch.ones(spans.shape[1:3], dtype=torch.bool, device=spans.device).triu(width)
            spans = spans.masked_fill(too_wide.unsqueeze(-1), -torch.inf)
        return SpanOutput(spans=spans)

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> SpanCRF:
        return SpanCRF(scores["spans"], lengths, types=self.config.types)

    def encode_gold(self, examples: Sequence[Example]) -> Tensor:
        """Return indicators of the spans, BoolTensor [B, N, N, L]; False for hidden annotation.

        Raises:
            ValueError: if a span has more words than ``max_width``; the message names the sentence.
        """
        longest = max(len(example["labels"]) for example in examples)
        # An additional word outside all spans closes a span that ends with the sentence.
        rows = [[*example["labels"], *[0] * (longest + 1 - len(example["labels"]))] for example in examples]
        tags = torch.tensor(rows).clamp(min=0)
        prefixes = [label[0] for label in self.annotation.labels]
        opens, continues = (torch.tensor([prefix in which for prefix in prefixes]) for which in (OPENING, CONTINUING))
        kinds = torch.tensor([0, *[self.config.types.index(label[2:]) for label in self.annotation.labels[1:]]])
        # In flat spans the first and the last words, read from left to right, come in the same order.
        item, start = opens[tags].nonzero(as_tuple=True)
        end = ((opens | continues)[tags[:, :-1]] & ~continues[tags[:, 1:]]).nonzero(as_tuple=True)[1]
        self._check_width(examples, item, end - start + 1)
        gold = torch.zeros(len(examples), longest, longest, len(self.config.types), dtype=torch.bool)
        gold[item, start, end, kinds[tags[item, start]]] = True
        return gold

    def _check_width(self, examples: Sequence[Example], item: Tensor, width: Tensor) -> None:
        limit = self.config.max_width
        if limit is not None and (width > limit).any():
            example = examples[int(item[width.argmax()])]
            raise ValueError(
                f"Sentence {example.get('id', ' '.join(example['tokens']))!r} has a span of {int(width.max())} words; "
                f"max_width is {limit}. Raise max_width, or set it to null for no bound."
            )

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Return the best flat segmentation of every sentence as tags: ``labels``, LongTensor [B, N]."""
        return self._as_tags(self.distribution(scores, lengths).decode(), scores["spans"].shape[1], lengths)

    def k_best(self, scores: Mapping[str, Tensor], lengths: Tensor, k: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        distribution = self.distribution(scores, lengths)
        words, (values, structures) = scores["spans"].shape[1], distribution.k_best(k)
        return [
            (self._as_tags(distribution.structure_of_parts(parts), words, lengths), value > -torch.inf)
            for value, parts in zip(values, structures, strict=True)
        ]

    def _as_tags(self, best: Sequence[Sequence[Any]], words: int, lengths: Tensor) -> dict[str, Tensor]:
        labels = torch.full((len(best), words), UNLABELLED)
        for row, spans, length in zip(labels, best, lengths.tolist(), strict=True):
            named = [(span.start, span.end, self.config.types[span.type]) for span in spans]
            tags = tag_spans(named, length, self.config.scheme)
            row[:length] = torch.tensor([self.annotation.index[tag] for tag in tags])
        return {"labels": labels.to(lengths.device)}

    def confidences(
        self, scores: Mapping[str, Tensor], lengths: Tensor, structure: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``log_prob`` [B], ``tag_scores`` [B, N] and ``span_scores`` [B, N], the marginals of the spans."""
        distribution, tags = self.distribution(scores, lengths), structure["labels"].clamp(min=0)
        labels = list(self.annotation.labels)
        of_tags = project(
            distribution, MaxEnt(scores["spans"].new_zeros(*tags.shape, len(labels)), lengths=lengths, labels=labels)
        )
        inventory = TagPrefixes(labels, tags.device)
        kinds = torch.tensor([0, *[self.config.types.index(label[2:]) for label in labels[1:]]], device=tags.device)
        inside = torch.arange(tags.shape[1], device=tags.device) < lengths.unsqueeze(1)
        item, start = (inventory.opens[tags] & inside).nonzero(as_tuple=True)
        end, kind = inventory.ends(tags, lengths)[item, start], kinds[tags[item, start]]
        marginals = distribution.marginals.double()
        span_scores = marginals.new_zeros(tags.shape)
        span_scores[item, start] = marginals[item, start, end, kind]
        cells = zip(*(each.tolist() for each in (item, start, end, kind)), strict=True)
        spans: list[list[tuple[int, int, int]]] = [[] for _ in tags]
        for row, first, last, number in cells:
            spans[row].append((first, last, number))
        return {
            "log_prob": distribution.log_prob(spans),
            "tag_scores": of_tags.double().gather(-1, tags.unsqueeze(-1)).squeeze(-1),
            "span_scores": span_scores,
        }


AutoConfig.register(SpanConfig.model_type, SpanConfig)
AutoModel.register(SpanConfig, SpanModel)


@configurable
class SpanRecipe(StructuredModelRecipe):
    """Builds a :class:`SpanModel`.

    Args:
        encoder: recipe of the encoder.
        settings: those of :class:`SpanConfig`, but for the types and the scheme.
    """

    model_class = SpanModel
    derived = frozenset({"types", "scheme"})

    def create(self, annotation: Annotation, text: Dataset, annotated: Dataset) -> SpanModel:
        """Return an untrained model; see :class:`~structkd.models.ModelRecipe`."""
        if not isinstance(annotation, TagAnnotation) or annotation.types is None:
            raise ValueError(
                "A span model predicts flat typed spans, written as BIO or BIOES tags; the data are annotated "
                f"otherwise ({annotation.description()})."
            )
        encoder = self.encoder.create(text["tokens"])
        config = self.configuration(encoder=encoder.config, types=list(annotation.types), scheme=annotation.scheme)
        return SpanModel(config, encoder)
