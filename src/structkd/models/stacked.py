"""Several encoders side by side, and a BiLSTM over the vectors of them all.

Named-entity taggers of the literature combine a pretrained transformer and static word vectors, often frozen, with a
BiLSTM that learns the task (Akbik et al. 2018).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from structkd.configurable import configurable
from structkd.models.bilstm import LockedDropout, PackedBiLSTM
from structkd.models.recipe import ConfigRecipe, EncoderRecipe
from structkd.models.structured import Example, Features, WordEncoder

__all__ = ["StackedConfig", "StackedEncoder", "StackedFeatures", "StackedRecipe"]


class StackedConfig(PreTrainedConfig):
    """Configuration of a :class:`StackedEncoder`.

    Args:
        parts: the encoders' configurations by name, stored as mappings with their ``model_type`` in alphabetical order,
            in which their vectors are concatenated.
        hidden_size: units of the LSTM in one direction.
        layers: stacked BiLSTM layers; 0 gives the parts' vectors without a BiLSTM.
        locked_dropout: share of the parts' and the LSTM's channels dropped for a whole sentence at once in training.
    """

    model_type = "structkd_stacked"

    parts: Any = None
    hidden_size: int = 256
    layers: int = 1
    locked_dropout: float = 0.5

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.parts = {
            name: part.to_dict() if isinstance(part, PreTrainedConfig) else part
            for name, part in sorted((self.parts or {}).items())  # saved configurations have them in this order
        }
        _check_names(self.parts)
        for setting, least in (("hidden_size", 1), ("layers", 0)):
            if getattr(self, setting) < least:
                raise ValueError(f"{setting} must be at least {least}, got {getattr(self, setting)}.")
        if not 0 <= self.locked_dropout < 1:
            raise ValueError(f"locked_dropout is a share in [0, 1), got {self.locked_dropout}.")


class StackedFeatures:
    """The features of all parts; the inputs of a part are named ``<part>.<input>``.

    Args:
        parts: the features of every part, by its name.
    """

    def __init__(self, parts: Mapping[str, Features]) -> None:
        self.parts = dict(parts)

    def encode(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Return ``lengths`` LongTensor [B], and the padded inputs of every part."""
        encoded = {name: part.encode(sentences) for name, part in self.parts.items()}
        lengths = next(iter(encoded.values()))["lengths"]
        inputs = {
            f"{name}.{key}": value for name, part in encoded.items() for key, value in part.items() if key != "lengths"
        }
        return {"lengths": lengths, **inputs}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the features of every part into ``folder/<part>``."""
        for name, part in self.parts.items():
            part.save_pretrained(Path(folder) / name)

    def __eq__(self, other: object) -> bool:
        return self.parts == other.parts if isinstance(other, StackedFeatures) else NotImplemented

    __hash__ = None  # type: ignore[assignment]


class StackedEncoder(WordEncoder):
    """The parts' word vectors, concatenated -> BiLSTM -> [B, N, 2 * hidden_size].

    Every part has its own dropout and pretrained weights, and may be frozen.

    Args:
        config: sizes, and the parts' configurations.
        parts: encoders by name; None builds them from the configuration.
    """

    config_class = StackedConfig

    config: StackedConfig
    features: StackedFeatures | None

    def __init__(self, config: StackedConfig, parts: Mapping[str, WordEncoder] | None = None) -> None:
        super().__init__(config)
        if not config.parts:
            raise ValueError("A stacked encoder needs at least one part.")
        if parts is None:
            parts = {name: AutoModel.from_config(AutoConfig.for_model(**part)) for name, part in config.parts.items()}
        parts = {name: parts[name] for name in config.parts}
        self.parts = nn.ModuleDict(parts)
        features = {name: part.features for name, part in parts.items() if part.features is not None}
        self.features = StackedFeatures(features) if len(features) == len(parts) else None
        size = sum(part.dimension for part in parts.values())
        self.dropout = LockedDropout(config.locked_dropout)
        self.lstm = (
            PackedBiLSTM(size, config.hidden_size, config.layers, config.locked_dropout) if config.layers else None
        )
        self.dimension = 2 * config.hidden_size if config.layers else size
        self.post_init()
        self.train()

    def forward(self, lengths: Tensor, **inputs: Tensor) -> Tensor:
        """Return [B, N, D] for the inputs of :meth:`StackedFeatures.encode`; padding gets 0.

        It costs O(B N D^2) time beside the parts' cost.
        """
        vectors = [
            part(
                lengths=lengths,
                **{key.removeprefix(f"{name}."): value for key, value in inputs.items() if key.startswith(f"{name}.")},
            )
            for name, part in self.parts.items()
        ]
        stacked: Tensor = self.dropout(torch.cat(vectors, dim=-1))
        if self.lstm is not None:
            stacked = self.dropout(self.lstm(stacked, lengths))
        return stacked

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, PackedBiLSTM):
            module.initialize()
        else:
            super()._init_weights(module)

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse sentences that one of the parts cannot take."""
        examples = examples if isinstance(examples, Sized) else list(examples)  # every part iterates over them
        for part in self._encoders().values():
            part.check(examples)

    def load_features(self, folder: str | os.PathLike) -> None:
        """Read the features that :meth:`StackedFeatures.save_pretrained` wrote."""
        features = {}
        for name, part in self._encoders().items():
            part.load_features(Path(folder) / name)
            features[name] = cast(Features, part.features)
        self.features = StackedFeatures(features)

    def _encoders(self) -> dict[str, WordEncoder]:
        return cast("dict[str, WordEncoder]", dict(self.parts.items()))


AutoConfig.register(StackedConfig.model_type, StackedConfig)
AutoModel.register(StackedConfig, StackedEncoder)


@configurable
class StackedRecipe(ConfigRecipe):
    """Builds a :class:`StackedEncoder`.

    Args:
        parts: recipes of encoders, by names of your choice.
        settings: those of :class:`StackedConfig`.
    """

    config_class = StackedConfig
    derived = frozenset({"parts"})

    def __init__(self, *, parts: Mapping[str, EncoderRecipe], **settings: Any) -> None:
        super().__init__(**settings)
        if not parts:
            raise ValueError("A stacked encoder needs at least one part.")
        _check_names(parts)
        self.parts = parts

    def create(self, sentences: Iterable[Sequence[str]]) -> StackedEncoder:
        """Return an encoder whose parts are created for the same text."""
        sentences = list(sentences)
        parts = {name: part.create(sentences) for name, part in self.parts.items()}
        config = self.configuration(parts={name: part.config for name, part in parts.items()})
        return StackedEncoder(config, parts)


def _check_names(parts: Mapping[str, Any]) -> None:
    for name in parts:
        # A part's name is that of a submodule and of a folder.
        if not str(name).isidentifier() or hasattr(nn.ModuleDict, name):
            raise ValueError(f"The name of a part is a word such as 'subwords', got {name!r}.")
