"""Models of other people: settings in their files that would fetch or run code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

__all__ = ["check_foreign"]

#: Implementations of attention that are part of transformers or of an installed package. transformers fetches others,
#: written owner/name, from the hub as compiled code.
_IMPLEMENTATION = re.compile(r"[a-z0-9_|]*")
_WEIGHTS = re.compile(r"[\w-][\w.-]*\.safetensors")


def check_foreign(config: PreTrainedConfig | Mapping[str, Any], of: str) -> None:
    """Refuse the configuration of a model that would have transformers fetch code, or unpack weights by a library.

    Args:
        config: of a pretrained model, as an object or as the content of ``config.json``.
        of: name of the model, for messages.

    Raises:
        ValueError: naming the setting.
    """
    for key, value in _settings(config):
        if key.strip("_").removesuffix("_internal").endswith("implementation"):
            for each in value.values() if isinstance(value, Mapping) else [value]:
                if each is not None and not (isinstance(each, str) and _IMPLEMENTATION.fullmatch(each)):
                    raise ValueError(
                        f"The configuration of {of} has {key}={str(each)[:100]!r}, which transformers would fetch "
                        "from the hub as code. Remove the setting from its config.json."
                    )
        elif key == "quantization_config" and value:
            raise ValueError(
                f"The configuration of {of} has a quantization_config, and models are read in float32 here. Name the "
                "model that was not quantized."
            )
        elif key == "transformers_weights" and value is not None and not _WEIGHTS.fullmatch(str(value)):
            raise ValueError(
                f"The configuration of {of} names its weights {str(value)[:100]!r}: Expected a name that ends in "
                ".safetensors, without a folder."
            )


def _settings(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the settings of a configuration and of those inside it."""
    content = vars(config) if isinstance(config, PreTrainedConfig) else config
    for key, value in content.items():
        yield str(key), value
        if isinstance(value, Mapping | PreTrainedConfig) and key != "quantization_config":
            yield from _settings(value)
