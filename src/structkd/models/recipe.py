"""Recipes: the settings of a configuration class that a user chooses, before the data decide the others."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from transformers import PreTrainedConfig

from structkd.data import Annotation
from structkd.models.structured import StructuredModel, WordEncoder

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["ConfigRecipe", "EncoderRecipe", "ModelRecipe", "StructuredModelRecipe"]


class EncoderRecipe(Protocol):
    """Settings that build an encoder, as a configuration of the ``encoder`` group names them."""

    def create(self, sentences: Iterable[Sequence[str]]) -> WordEncoder:
        """Return an encoder, with its features, for a training text from which its vocabulary may come."""


class ModelRecipe(Protocol):
    """Settings that build a model, as a configuration of the ``model`` group names them."""

    def create(self, annotation: Annotation, text: Dataset, annotated: Dataset) -> StructuredModel:
        """Return an untrained model, whose weights come from torch's global generator.

        Args:
            annotation: the annotation that the model predicts.
            text: the sentences it will be trained on, with labels or without.
            annotated: sentences with labels, from which an inventory of structures may be collected.
        """

    def load(self, folder: str | Path) -> StructuredModel:
        """Load a model that was saved with ``save_pretrained``."""


class ConfigRecipe:
    """Base of the recipes whose settings are those of a configuration class.

    A subclass takes the settings of its ``config_class`` by keyword, with the defaults that stand there, and the
    arguments of its own ``__init__``; its signature lists both.

    Attributes:
        config_class: the configuration class.
        derived: fields of the configuration that the data or parts of the model decide.
        settings: all settings by name.
    """

    config_class: ClassVar[type[PreTrainedConfig]]
    derived: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, **settings: Any) -> None:
        defaults = self._defaults()
        for name in settings:
            if name not in defaults:
                known = ", ".join(inspect.signature(type(self)).parameters)
                raise TypeError(f"{type(self).__name__} has no setting {name!r}. It takes: {known}.")
        self.settings = defaults | settings
        self.configuration()  # bad settings are refused before any data are read

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = [
            parameter
            for parameter in inspect.signature(cls.__init__).parameters.values()
            if parameter.kind is parameter.KEYWORD_ONLY
        ]
        keyword = inspect.Parameter.KEYWORD_ONLY
        settings = [inspect.Parameter(name, keyword, default=value) for name, value in cls._defaults().items()]
        cls.__signature__ = inspect.Signature([*own, *settings])  # type: ignore[attr-defined]

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        """Return the default of every setting, in the order of the configuration class."""
        if not hasattr(cls, "config_class"):
            return {}
        excluded = cls.derived | {field.name for field in fields(PreTrainedConfig)}
        return {field.name: field.default for field in fields(cls.config_class) if field.name not in excluded}

    def configuration(self, **derived: Any) -> Any:
        """Return the configuration of these settings and of what the data decide."""
        return self.config_class(**self.settings, **derived)

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        values = {name: value for name, value in vars(self).items() if name != "settings"} | self.settings
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"


class StructuredModelRecipe(ConfigRecipe):
    """Base of the recipes of models.

    Args:
        encoder: recipe of the encoder.
        settings: those of the model's configuration class.
    """

    model_class: ClassVar[type[StructuredModel]]

    def __init__(self, *, encoder: EncoderRecipe, **settings: Any) -> None:
        self.encoder = encoder
        super().__init__(**settings)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.config_class = cls.model_class.config_class
        cls.derived = cls.derived | {"encoder"}
        super().__init_subclass__(**kwargs)

    def load(self, folder: str | Path) -> Any:
        """Load a model that was saved with ``save_pretrained``."""
        return self.model_class.from_pretrained(folder)
