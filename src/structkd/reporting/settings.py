"""Settings in which models differ, and short names for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["differences", "flat", "short_names", "titles"]

#: If more settings differ, titles name as few as distinguish all models.
_NAMED = 3


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names. A list of one element counts as the element."""
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
    """Return, for every model, the settings in which any models differ, by their dotted names."""
    flattened = [flat(nested) for nested in settings]
    names = sorted(set().union(*flattened))
    different = [name for name in names if len({json.dumps(one.get(name)) for one in flattened}) > 1]
    return [{name: one.get(name) for name in different} for one in flattened]


def titles(settings: Sequence[Any]) -> list[str]:
    """Return a title for every model that names its settings, as "temperature=2, unlabelled=500".

    A title names the settings in which the models differ; it is empty if they do not. If many settings differ, as
    between two classes of models, it names as few as distinguish all models.

    >>> titles([{"loss": {"temperature": 1}, "labelled": 10}, {"loss": {"temperature": 2.0}, "labelled": 10}])
    ['temperature=1', 'temperature=2']
    """
    different = differences(settings)
    names = list(different[0]) if different else []
    if len(names) > _NAMED:
        names = _distinguishing(different)
    # "encoder._target_" is called "encoder": "encoder=BiLSTMRecipe".
    called = {name: name.removesuffix("._target_") for name in names}
    short = short_names(list(called.values()))
    return [", ".join(f"{short[called[name]]}={_written(one[name])}" for name in names) for one in different]


def _distinguishing(different: Sequence[Mapping[str, Any]]) -> list[str]:
    """Choose a few names whose values distinguish all models, greedily."""

    def distinguished(names: Sequence[str]) -> int:
        return len({json.dumps([one[name] for name in names]) for one in different})

    chosen: list[str] = []
    while distinguished(chosen) < distinguished(list(different[0])):
        rest = [name for name in different[0] if name not in chosen]
        # Prefer the model, and above all its class; prefer a number or a word to a list or a missing value.
        chosen.append(
            max(
                rest,
                key=lambda name: (
                    distinguished([*chosen, name]),
                    "model." in name,
                    name.endswith("_target_"),
                    all(isinstance(one[name], (str, int, float)) for one in different),
                    -len(name),
                ),
            )
        )
    return sorted(chosen)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Shorten dotted names from the front as far as they stay different.

    >>> short_names(["teacher.model.size", "student.model.size", "seed"])
    {'teacher.model.size': 'teacher.model.size', 'student.model.size': 'student.model.size', 'seed': 'seed'}
    """
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
