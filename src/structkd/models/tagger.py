"""Sequence taggers: an encoder, linear emissions, and a CRF or MaxEnt head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, initialization
from transformers.utils import ModelOutput

from structkd import LinearChainCRF, MaxEnt, Mixture, legal
from structkd.configurable import configurable
from structkd.data import UNLABELLED, Annotation, TagAnnotation, legal_transitions
from structkd.distributions.legality import has_sequences
from structkd.models.recipe import StructuredModelRecipe
from structkd.models.span_tags import TagPrefixes
from structkd.models.structured import Example, StructuredConfig, StructuredModel, WordEncoder, padded

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["HEADS", "Tagger", "TaggerConfig", "TaggerOutput", "TaggerRecipe"]

HEADS = ("crf", "maxent")


class TaggerConfig(StructuredConfig):
    """Configuration of a :class:`Tagger`.

    Args:
        id2label: the tag inventory, number to name, in order.
        head: "crf" (label bigrams are scored) or "maxent" (words are independent).
        scheme: "BIO" or "BIOES" if labels are tags of spans; decoding is then restricted to legal sequences.
        legal: train as the model is decoded: its distribution gives illegal sequences no probability
            (:func:`structkd.legal`), and neither does the teacher's. Needs a scheme. False is the definition of Wang et
            al. (2021).
        transition_scale: the scores of transitions, start and end are this number times their parameters, which move
            as fast as the encoder's weights. Optimizers such as Adam then change the scores this many times faster.
    """

    model_type = "structkd_tagger"

    head: str = "crf"
    scheme: str | None = None
    legal: bool = False
    transition_scale: float = 1.0

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.head not in HEADS:
            raise ValueError(f"Unknown head {self.head!r}: expected one of {', '.join(HEADS)}.")
        if not isinstance(self.legal, bool):
            raise TypeError(f"legal must be true or false, got {self.legal!r}.")
        if not (math.isfinite(self.transition_scale) and self.transition_scale > 0):
            raise ValueError(f"transition_scale must be positive and finite, got {self.transition_scale}.")
        if self.head == "maxent" and self.transition_scale != 1:
            raise ValueError(
                f"transition_scale={self.transition_scale}: A tagger with the head maxent has no transitions. Leave "
                "the setting out, or choose the head crf."
            )

    @property
    def labels(self) -> list[str]:
        """The tag inventory in the order of the emissions' last axis."""
        inventory: dict[Any, str] = dict(self.id2label or {})
        return [inventory[number] for number in range(len(inventory))]


@dataclass
class TaggerOutput(ModelOutput):
    """Scores of a batch; :meth:`Tagger.distribution` turns them into the distribution over tag sequences.

    Attributes:
        emissions: [B, N, C]; cell [b, n, c] scores label c at word n. Cells beyond a sentence's length are arbitrary.
        transitions: [C, C]; cell [j, i] scores label i followed by label j (next, previous). None for MaxEnt.
        start: [C] scores of the first word's label. None for MaxEnt.
        end: [C] scores of the last word's label. None for MaxEnt.
    """

    emissions: Tensor | None = None
    transitions: Tensor | None = None
    start: Tensor | None = None
    end: Tensor | None = None


class Tagger(StructuredModel):
    """An encoder with a CRF or MaxEnt head. Shapes: B sentences, N words, C labels."""

    config_class = TaggerConfig
    score_axes: ClassVar[Mapping[str, int]] = {"emissions": 1, "transitions": 0, "start": 0, "end": 0}

    config: TaggerConfig

    def __init__(self, config: TaggerConfig, encoder: WordEncoder | None = None) -> None:
        super().__init__(config, encoder)
        if config.legal and config.scheme is None:
            raise ValueError(
                "legal=True: The labels are not tags of a scheme (BIO or BIOES), such as parts of speech, and have no "
                "illegal sequences. Leave legal out."
            )
        count = len(config.labels)
        self.emission = nn.Linear(self.encoder.dimension, count)
        if config.head == "crf":
            self.transitions = nn.Parameter(torch.empty(count, count))
            self.start = nn.Parameter(torch.empty(count))
            self.end = nn.Parameter(torch.empty(count))
        with torch.device("cpu"):  # from_pretrained builds models on the meta device
            self._legal = legal_transitions(config.labels) if config.scheme else None
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, Tagger):
            if module.config.head == "crf":
                for parameter in (module.transitions, module.start, module.end):
                    initialization.zeros_(parameter)
        else:
            super()._init_weights(module)

    @property
    def annotation(self) -> Annotation:
        return TagAnnotation(tuple(self.config.labels), self.config.scheme)

    def forward(self, lengths: Tensor, **inputs: Tensor) -> TaggerOutput:
        emissions = self.emission(self.encoder(lengths=lengths, **inputs))
        if self.config.head == "maxent":
            return TaggerOutput(emissions=emissions)
        scale = self.config.transition_scale
        transitions, start, end = (
            scores if scale == 1 else scale * scores for scores in (self.transitions, self.start, self.end)
        )
        return TaggerOutput(emissions=emissions, transitions=transitions, start=start, end=end)

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> LinearChainCRF | MaxEnt:
        found = self._unconditioned(scores, lengths)
        return legal(found) if self.config.legal else found

    def _unconditioned(self, scores: Mapping[str, Tensor], lengths: Tensor) -> LinearChainCRF | MaxEnt:
        if self.config.head == "maxent":
            return MaxEnt(scores["emissions"], lengths=lengths, labels=self.config.labels)
        return LinearChainCRF.from_scores(
            scores["emissions"],
            scores["transitions"],
            start=scores["start"],
            end=scores["end"],
            lengths=lengths,
            labels=self.config.labels,
        )

    def encode_gold(self, examples: Sequence[Example]) -> Tensor:
        """Return label numbers, LongTensor [B, N]; 0 in the padding and for hidden labels."""
        return padded([example["labels"] for example in examples]).clamp(min=0)

    def conditioned(self, teacher: Any) -> Any:
        """Return a teacher's distribution, conditioned on legal sequences if this model is trained with them alone.

        The components of a mixture are conditioned one by one. Distributions over spans build legal sequences only.

        Raises:
            ValueError: the teacher's tags are of another scheme, or not of any.
        """
        if not self.config.legal:
            return teacher
        if isinstance(teacher, Mixture):
            return Mixture([self.conditioned(component) for component in teacher.components], teacher.weights)
        sequences = has_sequences(teacher) or getattr(teacher, "structures_are", None) == "labels"
        return legal(teacher, self.config.labels) if sequences else teacher

    def check_gold(self, examples: Iterable[Example]) -> None:
        """Refuse gold tags that are not a legal sequence, if the model is trained with legal sequences alone.

        Raises:
            ValueError: names the sentence and the tags.
        """
        if not self.config.legal:
            return
        for example in examples:
            values = {"labels": example["labels"]}
            fault = None if UNLABELLED in values["labels"] else self.annotation.fault(values)
            if fault:
                name = example.get("id", " ".join(example["tokens"]))
                raise ValueError(
                    f"Sentence {name!r} is annotated with an illegal sequence: {fault} A model with legal=True gives "
                    "it no probability. Read the corpus with repair=true, which rewrites such tags, or leave legal out."
                )

    def decode_published(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor] | None:
        """Return the best sequence, legal or not; None if the model is trained with legal sequences, or has no scheme.

        Words of a MaxEnt head choose by argmax; a CRF runs Viterbi over all sequences.
        """
        if self.config.legal or self.config.scheme is None:
            return None
        decoded = self._unconditioned(scores, lengths).decode()
        return {"labels": decoded.masked_fill(decoded < 0, UNLABELLED)}

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        decoded = self.distribution(scores, lengths).decode(self._legal)
        return {"labels": decoded.masked_fill(decoded < 0, UNLABELLED)}

    def k_best(self, scores: Mapping[str, Tensor], lengths: Tensor, k: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        distribution: Any = self.distribution(scores, lengths)
        if self._legal is not None:
            emissions = scores["emissions"]
            size = emissions.shape[-1]
            none = {"transitions": emissions.new_zeros(size, size)}
            none |= {name: emissions.new_zeros(size) for name in ("start", "end")}
            start, transitions, end = (
                scores.get(name, none[name]).masked_fill(~mask.to(emissions.device), -torch.inf)
                for name, mask in zip(("start", "transitions", "end"), self._legal, strict=True)
            )
            distribution = LinearChainCRF.from_scores(emissions, transitions, start, end, lengths)
        values, structures = distribution.k_best(k)
        found = []
        for value, parts in zip(values, structures, strict=True):
            labels = distribution.structure_of_parts(parts)
            found.append(({"labels": labels.masked_fill(labels < 0, UNLABELLED)}, value > -torch.inf))
        return found

    def confidences(
        self, scores: Mapping[str, Tensor], lengths: Tensor, structure: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return ``log_prob`` [B], ``tag_scores`` [B, N] and, with a scheme, ``span_scores`` [B, N].

        The score of a span is the probability of its tags and, in BIO, of no tag after them that continues it. It is a
        product of conditional probabilities of a Markov chain: O(N C^2) time and memory for a sentence.
        """
        distribution = self.distribution(scores, lengths)
        tags = structure["labels"].clamp(min=0)
        of_labels, following = _markov_chain(distribution, tags)
        tag_scores = of_labels.gather(-1, tags.unsqueeze(-1)).squeeze(-1)
        result = {"log_prob": distribution.log_prob(tags), "tag_scores": tag_scores}
        if self.config.scheme:
            inventory = TagPrefixes(self.config.labels, tags.device)
            ends = inventory.ends(tags, lengths)
            # A step whose probability is too small for a number must leave the spans beside it alone: no log is -inf.
            chosen = following.gather(-1, tags[:, 1:].unsqueeze(-1)).squeeze(-1)
            steps = nn.functional.pad(chosen.clamp(min=torch.finfo(chosen.dtype).tiny).log(), (1, 0))
            within = (steps.cumsum(1).gather(1, ends) - steps.cumsum(1)).exp()
            # P(a tag that continues the span follows), 0 after the last word and after E and S
            goes_on = (following * inventory.continued_by[tags[:, :-1]]).sum(-1)
            inside = torch.arange(1, tags.shape[1], device=tags.device) < lengths.unsqueeze(1)
            closed = 1.0 - nn.functional.pad(goes_on * inside, (0, 1))
            result["span_scores"] = tag_scores * within * closed.gather(1, ends)
        return result


def _markov_chain(distribution: LinearChainCRF | MaxEnt, tags: Tensor) -> tuple[Tensor, Tensor]:
    """Return P(tag of a word) [B, N, C], and P(next tag | the given tag of a word) [B, N-1, C]."""
    if isinstance(distribution, MaxEnt):
        marginals = distribution.marginals.double()
        return marginals, marginals[:, 1:]
    of_labels = distribution.label_marginals()
    given = tags[:, :-1, None, None].expand(-1, -1, of_labels.shape[-1], 1)
    joint = distribution.marginals.to(of_labels.dtype).gather(-1, given).squeeze(-1)
    return of_labels, joint / joint.sum(-1, keepdim=True).clamp(min=torch.finfo(joint.dtype).tiny)


AutoConfig.register(TaggerConfig.model_type, TaggerConfig)
AutoModel.register(TaggerConfig, Tagger)
AutoModelForTokenClassification.register(TaggerConfig, Tagger)


@configurable
class TaggerRecipe(StructuredModelRecipe):
    """Builds a :class:`Tagger`.

    Args:
        encoder: recipe of the encoder.
        settings: those of :class:`TaggerConfig`, but for the tags and their scheme.
    """

    model_class = Tagger
    derived = frozenset({"scheme"})

    def create(self, annotation: Annotation, text: Dataset, annotated: Dataset) -> Tagger:
        """Return an untrained tagger; see :class:`~structkd.models.ModelRecipe`."""
        if not isinstance(annotation, TagAnnotation):
            raise ValueError(
                f"A tagger predicts one label per word; the data are annotated otherwise ({annotation.description()})."
            )
        encoder = self.encoder.create(text["tokens"])
        labels = annotation.labels
        config = self.configuration(
            encoder=encoder.config,
            scheme=annotation.scheme,
            id2label=dict(enumerate(labels)),
            label2id={label: number for number, label in enumerate(labels)},
        )
        return Tagger(config, encoder)
