"""The interface of all models: an encoder of words, scores of structures, and conversions from and to annotated text.

A model has an encoder (words -> vectors), which any file may add. Its scores define one of structkd's distributions.
Training, prediction and the storage of teachers' scores use nothing but this interface.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, initialization
from transformers.utils import ModelOutput

from structkd.data import UNLABELLED, Annotation

__all__ = ["Features", "StructuredConfig", "StructuredModel", "WordEncoder", "padded"]

Example = Mapping[str, Any]
"""A sentence: ``tokens``, and the columns of its annotation and further inputs (``upos``) that a model asks for."""


def padded(rows: Sequence[Sequence[int]], filling: int = UNLABELLED) -> Tensor:
    """Return rows of any length as one LongTensor [B, N], filled up with ``filling``."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filling] * (longest - len(row))] for row in rows])


class Features(Protocol):
    """Converts tokenised sentences into an encoder's inputs, e.g. :class:`~structkd.models.Vocabulary`."""

    def encode(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Return the padded inputs of ``WordEncoder.forward``, ``lengths`` [B] among them."""

    def save_pretrained(self, folder: str | Path) -> Any:
        """Write everything needed to rebuild the object into ``folder``."""


class WordEncoder(PreTrainedModel):
    """Base of the encoders, which give every word of a batch a vector in its context.

    A subclass has a configuration class with a ``model_type`` of its own. Its file registers both with transformers
    (``AutoConfig.register`` and ``AutoModel.register``), so that models can rebuild it from their configuration.

    Attributes:
        features: converts sentences into the inputs of ``forward``; it is saved beside the weights.
        dimension: D, the size of a word's vector.
    """

    base_model_prefix = ""
    main_input_name = "lengths"
    features_class: ClassVar[Any] = None

    features: Features | None
    dimension: int

    def forward(self, lengths: Tensor, **inputs: Tensor) -> Tensor:
        """Return the words' vectors [B, N, D]; the padding may hold anything.

        Args:
            lengths: LongTensor [B].
            inputs: the other tensors that ``features.encode`` returns.
        """
        raise NotImplementedError

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse sentences that the encoder cannot take, before any work is done; the message names the sentence."""

    def load_features(self, folder: str | os.PathLike) -> None:
        """Read the features that were saved beside the weights."""
        self.features = self.features_class.from_pretrained(folder)


class StructuredConfig(PreTrainedConfig):
    """Base of the models' configurations.

    Args:
        encoder: the encoder's configuration, or a mapping with its ``model_type``.
    """

    model_type = "structkd"

    encoder: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if isinstance(self.encoder, Mapping):
            self.encoder = AutoConfig.for_model(**self.encoder)

    @staticmethod
    def check_range(**values: tuple[float, float, float]) -> None:
        """Refuse settings outside their range; each is (value, least, largest)."""
        for name, (value, least, largest) in values.items():
            if not least <= value <= largest:
                raise ValueError(f"{name} must lie in {least:g}..{largest:g}, got {value}.")


class StructuredModel(PreTrainedModel):
    """Base of the models: an encoder, and scores that define a distribution over structures.

    A subclass adds its layers after ``super().__init__`` and calls ``post_init``. It defines ``score_axes``,
    ``annotation``, ``forward``, ``distribution``, ``encode_gold`` and ``decode``. Shapes: B sentences, N words.

    Args:
        config: sizes and inventories.
        encoder: an encoder with its features and weights; None builds one from ``config.encoder``.
    """

    config_class = StructuredConfig
    base_model_prefix = ""
    main_input_name = "lengths"

    #: The number of word axes that follow the batch axis, for every score that :meth:`scores` returns. 0 marks a score
    #: that belongs to the model, not to a sentence; it has no batch axis either.
    score_axes: ClassVar[Mapping[str, int]] = {}

    config: StructuredConfig
    encoder: WordEncoder

    def __init__(self, config: StructuredConfig, encoder: WordEncoder | None = None) -> None:
        super().__init__(config)
        self.encoder = cast(WordEncoder, AutoModel.from_config(config.encoder)) if encoder is None else encoder

    @property
    def annotation(self) -> Annotation:
        """The kind of annotation that the model predicts."""
        raise NotImplementedError

    @property
    def features(self) -> Features:
        """The converter of tokenised sentences into the encoder's inputs.

        Raises:
            ValueError: if the model has none and so cannot read text.
        """
        features: Features | None = getattr(self.encoder, "features", None)
        if features is None:
            raise ValueError("The model has no vocabulary and cannot read text: create it by its recipe or load it.")
        return features

    def encode(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the padded inputs of ``forward`` for some sentences, ``lengths`` LongTensor [B] among them."""
        return self.features.encode([example["tokens"] for example in examples])

    def encode_gold(self, examples: Sequence[Example]) -> Tensor:
        """Return the annotation of some sentences in the form that :func:`structkd.supervised_loss` takes.

        A sentence whose annotation is hidden (-100) gets an arbitrary structure, which the objective ignores.
        """
        raise NotImplementedError

    def forward(self, lengths: Tensor, **inputs: Tensor) -> ModelOutput:
        """Score the structures of a batch.

        Args:
            lengths: LongTensor [B].
            inputs: the other tensors that :meth:`encode` returns.
        """
        raise NotImplementedError

    def scores(self, output: ModelOutput) -> dict[str, Tensor]:
        """Return the scores that define the distribution, at any temperature, in the layout of :attr:`score_axes`."""
        return {name: output[name] for name in self.score_axes if output.get(name) is not None}

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """Return the distribution over the structures of a batch.

        Args:
            scores: :meth:`scores` of the batch (or the output itself).
            lengths: LongTensor [B].
        """
        raise NotImplementedError

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Return the best legal structure of every sentence, in the columns of its annotation.

        Returns:
            For every column of ``annotation``, a LongTensor [B, N]; -100 in the padding.
        """
        raise NotImplementedError

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # `initialization` skips tensors that from_pretrained has already filled; plain torch.nn.init would not.
        if isinstance(module, nn.Linear):
            initialization.xavier_uniform_(module.weight)
            if module.bias is not None:
                initialization.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:  # type: ignore[override]
        """Save the model as transformers does, and its features beside it."""
        super().save_pretrained(save_directory, **kwargs)
        if getattr(self.encoder, "features", None) is not None:
            self.features.save_pretrained(Path(save_directory))

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Load a model and its features; weights are read from safetensors alone, never from a pickle.

        Args:
            folder: a folder written by :meth:`save_pretrained`, or a name on the Hugging Face hub.
            args, kwargs: as transformers takes them.

        Raises:
            ValueError: if a model of another type was saved there.
        """
        config = kwargs.get("config")
        if isinstance(config, PreTrainedConfig):
            saved: dict[str, Any] = {"model_type": config.model_type}
        else:
            saved, _ = PreTrainedConfig.get_config_dict(folder, **kwargs)
        found = saved.get("model_type")
        if saved and found != cls.config_class.model_type:  # transformers refuses a folder without a configuration
            raise ValueError(
                f"{folder} holds a model of type {found!r}; {cls.__name__} loads the type "
                f"{cls.config_class.model_type!r}. transformers.AutoModel.from_pretrained finds the class of a model."
            )
        loaded = super().from_pretrained(folder, *args, **({"use_safetensors": True} | kwargs))
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.encoder.load_features(folder)
        return loaded
