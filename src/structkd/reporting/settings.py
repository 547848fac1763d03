"""Settings that differ, and short names for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["differences", "flat", "short_names", "titles"]

#: Titles name no more settings than these where fewer tell all apart.
_NAMED = 3


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names. A list of one is its element: most runs have one teacher."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    elif isinstance(value, list) and all(isinstance(part, Mapping) for part in value):
        value = dict(enumerate(value))
    if not isinstance(value, Mapping):
        return {prefix: value}
    return {
        name: inner
        for key, part in value.items()
        for name, inner in flat(part, f"{prefix}.{key}" if prefix else str(key)).items()
    }


def differences(settings: Sequence[Any]) -> list[dict[str, Any]]:
    """Of each settings, those in which any of them differ, by their dotted names; empty where all are alike."""
    every = [flat(one) for one in settings]
    names = sorted(set().union(*every))
    different = [name for name in names if len({json.dumps(one.get(name)) for one in every}) > 1]
    return [{name: one.get(name) for name in different} for one in every]


def titles(settings: Sequence[Any]) -> list[str]:
    """What tells settings apart, as "temperature=2, unlabelled=500"; empty where all are alike.

    Where very many settings differ, as between two kinds of model, as many are named as it takes to tell them apart.
    """
    different = differences(settings)
    names = list(different[0]) if different else []
    if len(names) > _NAMED:
        names = _telling(different)
    # What a _target_ names is the thing itself: "encoder=BiLSTMRecipe".
    called = {name: name.removesuffix("._target_") for name in names}
    short = short_names(list(called.values()))
    return [", ".join(f"{short[called[name]]}={_written(one[name])}" for name in names) for one in different]


def _telling(different: Sequence[Mapping[str, Any]]) -> list[str]:
    """A few names whose values tell all apart that differ at all: those first that do most of it."""

    def kinds(names: Sequence[str]) -> int:
        return len({json.dumps([one[name] for name in names]) for one in different})

    chosen: list[str] = []
    while kinds(chosen) < kinds(list(different[0])):
        rest = [name for name in different[0] if name not in chosen]
        # The model first, its kind above all; and a number or a word says more than a list or a missing value.
        chosen.append(
            max(
                rest,
                key=lambda name: (
                    kinds([*chosen, name]),
                    "model." in name,
                    name.endswith("_target_"),
                    all(isinstance(one[name], (str, int, float)) for one in different),
                    -len(name),
                ),
            )
        )
    return sorted(chosen)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """The shortest ends of dotted names that are still different names."""
    short = {}
    for name in names:
        parts = name.split(".")
        ends = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        short[name] = next(
            end
            for end in ends
            if end == name or not any(f".{other}".endswith(f".{end}") for other in names if other != name)
        )
    return short


def _written(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value).rsplit(".", 1)[-1] if isinstance(value, str) and value.startswith("structkd.") else str(value)
