"""Sequence taggers: an encoder, linear emissions, and a CRF or MaxEnt head.

:class:`Tagger` holds everything that does not depend on the encoder. A new encoder is a subclass in a file of its
own that says how words become vectors (see ``bilstm.py``); heads, distributions, saving and loading come from here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, initialization
from transformers.utils import ModelOutput

from structkd import LinearChainCRF, MaxEnt

__all__ = ["HEADS", "ModelRecipe", "Tagger", "TaggerConfig", "TaggerOutput"]

HEADS = ("crf", "maxent")


class TaggerConfig(PreTrainedConfig):
    """What all taggers share.

    Args:
        id2label: the tag inventory, number to name, in order.
        head: "crf" (label bigrams are scored) or "maxent" (every word alone).
    """

    model_type = "structkd_tagger"

    head: str = "crf"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.head not in HEADS:
            raise ValueError(f"Unknown head {self.head!r}: expected one of {', '.join(HEADS)}.")

    @property
    def labels(self) -> list[str]:
        """The tag inventory in the order of the emissions' last axis."""
        inventory: dict[Any, str] = dict(self.id2label or {})
        return [inventory[number] for number in range(len(inventory))]


@dataclass
class TaggerOutput(ModelOutput):
    """Scores of a batch; :meth:`Tagger.distribution` turns them into the distribution over tag sequences.

    Attributes:
        emissions: [B, N, C]; cell [b, n, c] scores label c at word n. Cells beyond a sentence's length mean nothing.
        transitions: [C, C]; cell [j, i] scores label i followed by label j (next, previous). None for MaxEnt.
        start: [C] scores of the first word's label. None for MaxEnt.
        end: [C] scores of the last word's label. None for MaxEnt.
    """

    emissions: Tensor | None = None
    transitions: Tensor | None = None
    start: Tensor | None = None
    end: Tensor | None = None


class Features(Protocol):
    """What turns tokenised sentences into a tagger's inputs, e.g. :class:`~structkd.models.Vocabulary`."""

    def encode(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Return the padded inputs of ``Tagger.forward``, ``lengths`` [B] among them."""

    def save_pretrained(self, folder: str | Path) -> None:
        """Write everything needed to rebuild the object into ``folder``."""


class ModelRecipe(Protocol):
    """Settings that build a model; what a configuration of the ``model`` group names."""

    def create(self, labels: Sequence[str], sentences: Sequence[Sequence[str]]) -> Tagger:
        """An untrained model for this tag inventory; ``sentences`` is the text it will be trained on."""

    def load(self, folder: str | Path) -> Tagger:
        """A model that was saved with ``save_pretrained``."""


class Tagger(PreTrainedModel):
    """A tagger without its encoder: subclasses set ``self.encoder`` and call ``add_head``, then ``post_init``.

    The encoder is a module ``encoder(**inputs, lengths=lengths) -> [B, N, D]``. ``features`` turns sentences into
    those inputs and is saved beside the weights.

    Shapes: B sentences, N words, C labels.
    """

    config_class = TaggerConfig
    base_model_prefix = ""
    main_input_name = "lengths"
    features_class: ClassVar[Any] = None

    config: TaggerConfig
    encoder: nn.Module
    emission: nn.Linear
    features: Features | None

    def add_head(self, dimension: int) -> None:
        """Put the head on an encoder whose vectors have ``dimension`` cells."""
        count = len(self.config.labels)
        self.emission = nn.Linear(dimension, count)
        if self.config.head == "crf":
            self.transitions = nn.Parameter(torch.empty(count, count))
            self.start = nn.Parameter(torch.empty(count))
            self.end = nn.Parameter(torch.empty(count))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # `initialization` skips tensors that from_pretrained has already filled; plain torch.nn.init would not.
        if isinstance(module, Tagger):
            if module.config.head == "crf":
                for parameter in (module.transitions, module.start, module.end):
                    initialization.zeros_(parameter)
        elif isinstance(module, nn.Linear):
            initialization.xavier_uniform_(module.weight)
            if module.bias is not None:
                initialization.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def forward(self, lengths: Tensor, **inputs: Tensor) -> TaggerOutput:
        """Score every label of every word.

        Args:
            lengths: LongTensor [B].
            inputs: the encoder's, as made by ``features.encode``.
        """
        emissions = self.emission(self.encoder(lengths=lengths, **inputs))
        if self.config.head == "maxent":
            return TaggerOutput(emissions=emissions)
        return TaggerOutput(emissions=emissions, transitions=self.transitions, start=self.start, end=self.end)

    def scores(self, output: TaggerOutput) -> dict[str, Tensor]:
        """The scores that define the distribution: ``emissions``, and for a CRF ``transitions, start, end``."""
        return {name: value for name, value in output.items() if value is not None}

    def distribution(self, scores: TaggerOutput | dict[str, Tensor], lengths: Tensor) -> LinearChainCRF | MaxEnt:
        """The distribution over tag sequences of a batch.

        Args:
            scores: the model's output, or :meth:`scores` of it.
            lengths: LongTensor [B].
        """
        given = self.scores(scores) if isinstance(scores, TaggerOutput) else scores
        return tag_distribution(given, lengths, self.config.labels)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:  # type: ignore[override]
        """As transformers', plus the features."""
        super().save_pretrained(save_directory, **kwargs)
        if self.features is not None:
            self.features.save_pretrained(Path(save_directory))

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """As transformers', plus the features; weights come from safetensors alone, never from a pickle."""
        loaded = super().from_pretrained(folder, *args, **({"use_safetensors": True} | kwargs))
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.features = cls.features_class.from_pretrained(folder)
        return loaded


def tag_distribution(scores: dict[str, Tensor], lengths: Tensor, labels: Sequence[str]) -> LinearChainCRF | MaxEnt:
    """Rebuild a tagger's distribution from its scores: a CRF if there are transitions, else MaxEnt."""
    if "transitions" not in scores:
        return MaxEnt(scores["emissions"], lengths=lengths, labels=list(labels))
    return LinearChainCRF.from_scores(
        scores["emissions"],
        scores["transitions"],
        start=scores.get("start"),
        end=scores.get("end"),
        lengths=lengths,
        labels=list(labels),
    )
