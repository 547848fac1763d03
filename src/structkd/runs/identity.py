"""When two training runs are one, as far as their configurations tell.

Everything here is computed from plain data: no corpus, no model, and no library but Python's own. The runner adds what
the data decide (:class:`structkd.records.TrainingConfig`); ``make reproduce`` counts trainings before they are run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from structkd.records import MethodSettings, Settings

__all__ = [
    "TrainingIdentity",
    "canonical",
    "chosen_settings",
    "digest",
    "distils",
    "identities",
    "kind_of_training",
    "methods",
    "teacher_of",
    "teachers",
    "teachers_of_methods",
    "trainer_settings",
]

#: Name of a teacher whose words are independent, which a scenario may define for methods that need one.
WORDS = "words"

#: Trainer settings that say how long to train: one of them that is null gives way to the other.
_LENGTHS = ("max_steps", "num_train_epochs")


@dataclass(frozen=True)
class TrainingIdentity:
    """A training that a configuration asks for.

    Attributes:
        identity: digest, the same for two runs that share the training.
        kind: digest, the same for trainings that differ in their seed, or in settings that their folders do not show.
        role: "teacher" or "student".
        seed: of the training.
    """

    identity: str
    kind: str
    role: str
    seed: int


def digest(content: Any) -> str:
    """Return the sha256 of plain data in canonical JSON."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def canonical(settings: Any) -> Any:
    """Return plain data in which whole numbers are of one kind: a temperature of 1 is one of 1.0."""
    if isinstance(settings, Mapping):
        return {name: canonical(value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [canonical(value) for value in settings]
    return int(settings) if isinstance(settings, float) and settings.is_integer() else settings


def trainer_settings(trainer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of TrainingArguments that a configuration gives, without a length of training that is null."""
    return {name: value for name, value in trainer.items() if not (name in _LENGTHS and value is None)}


def teachers(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the teachers of a run by their places in its configuration, the first one before those of an ensemble."""
    return {"teacher": config["teacher"]} | {f"ensemble.{name}": each for name, each in config["ensemble"].items()}


def teacher_of(config: Mapping[str, Any], method: Mapping[str, Any]) -> str | None:
    """Return the name of a method's own teacher, one of ``teachers``; None if it learns from the run's.

    The teacher of independent words, ``words``, takes the encoder of the run's teacher. If that has none, because it
    trains nothing, the method learns from it.

    Raises:
        ValueError: the method names a teacher that the configuration does not have.
    """
    name, known = method.get("teacher") if distils(method) else None, config.get("teachers", {})
    if name == WORDS:
        models = [each["model"] for each in (config["teacher"], known.get(name, {})) if "model" in each]
        return name if name in known and any("encoder" in model for model in models) else None
    if name is None or name in known:
        return name
    raise ValueError(
        f"The method {method['name']} learns from teachers.{name}, and there are these teachers of single methods: "
        f"{', '.join(known) or 'none'}. Name one of them, define it as changes to the run's teacher "
        f"(such as '+teachers.{name}={{model: {{head: maxent}}}}'), or set the method's teacher to null."
    )


def teachers_of_methods(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the teachers of single methods by name, in full; those that no method of the run uses are left out.

    They are the run's first teacher with changes. If a change names another class of models, the settings of the old
    one do not carry over, but for its encoder.
    """
    if clash := config.get("teachers", {}).keys() & config["ensemble"].keys():
        raise ValueError(
            f"The name {min(clash)!r} is that of a teacher in the ensemble and of one in teachers. Rename one of them."
        )
    used = dict.fromkeys(name for method in methods(config).values() if (name := teacher_of(config, method)))
    return {name: _changed(config["teacher"], config["teachers"][name]) for name in used}


def _changed(teacher: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    model = teacher["model"]
    target = changes.get("model", {}).get("_target_", model.get("_target_"))
    if target != model.get("_target_"):
        model = {"encoder": model["encoder"]} if "encoder" in model else {}
    return _merged({**teacher, "model": model}, changes)


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with others laid over them."""
    inner = {
        name: _merged(base[name], value)
        for name, value in changes.items()
        if isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
    }
    return {**base, **changes, **inner}


def methods(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the method and its baselines by their places in the configuration of a run, each once.

    Raises:
        ValueError: two that differ have one name.
    """
    found: dict[str, Mapping[str, Any]] = {}
    named: dict[str, Mapping[str, Any]] = {}
    places = {"kd": config["kd"]} | {f"baselines.{name}": each for name, each in config["baselines"].items()}
    for where, method in places.items():
        name = method["name"]
        if named.setdefault(name, method) != method:
            raise ValueError(
                f"The methods kd and {where} are both called {name!r} but differ. Give one of them another name, "
                f"for instance kd.name={name}-mine."
            )
        if named[name] is method:
            found[where] = method
    return found


def distils(method: Mapping[str, Any] | None) -> bool:
    """Whether a student trained by this method learns from a teacher; otherwise it learns from gold labels alone."""
    return method is not None and method["loss"] is not None


def chosen_settings(config: Mapping[str, Any], method: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the settings of a training that configuration and folder both show: fields of :class:`Settings`.

    Args:
        config: of the teacher or the student; its model with all settings.
        method: by which a student learns; None for a teacher.
    """
    # The place to which metrics are reported does not affect the result.
    trainer = {name: value for name, value in trainer_settings(config["trainer"]).items() if name != "report_to"}
    return {
        "model": canonical(config["model"]),
        "trainer": canonical(trainer),
        "method": None
        if method is None
        else MethodSettings(
            name=method["name"],
            loss=canonical(method["loss"]),
            interpolation=canonical(method["interpolation"]),
        ),
    }


def kind_of_training(role: str, settings: Settings | Mapping[str, Any]) -> str:
    """Return a digest of the settings that a training's folder and a configuration both show.

    Args:
        role: "teacher" or "student".
        settings: from the folder, or from :func:`chosen_settings`.
    """
    shown = vars(settings) if isinstance(settings, Settings) else settings
    method = shown["method"]
    return digest([role, shown["model"], shown["trainer"], None if method is None else method.plain()])[:16]


def identities(config: Mapping[str, Any]) -> Iterator[TrainingIdentity]:
    """Yield the trainings of a run: its teachers, those of single methods, and a student for each method.

    Args:
        config: plain data in the form of the command's ``ExperimentConfig``. As in training folders, models have all of
            their settings, not those alone that differ from the defaults.
    """
    data, taught = config["data"], []
    for teacher in teachers(config).values():
        # The weight of a teacher in an ensemble does not affect its training.
        settings = {name: value for name, value in teacher.items() if name not in ("weight", "seed")}
        identity = _identity("teacher", data, settings, teacher, None, teacher["seed"])
        taught.append((identity.identity, teacher["weight"]))
        yield identity
    own = {}
    for name, teacher in teachers_of_methods(config).items():
        settings = {key: value for key, value in teacher.items() if key not in ("weight", "seed")}
        own[name] = _identity("teacher", data, settings, teacher, None, teacher["seed"])
        yield own[name]
    # The student's sentences depend on which ones the first teacher has.
    drawn = [config["teacher"]["labelled"], config["teacher"]["seed"]]
    for method in methods(config).values():
        student = dict(config["student"])
        of_method = teacher_of(config, method)
        sources: list[Any] = [drawn, taught if of_method is None else [(own[of_method].identity, 1.0)]]
        if not distils(method):
            student["unlabelled"], student["text"], sources = 0, None, [drawn]
        yield _identity("student", [data, sources], student, student, method, config["seed"])


def _identity(
    role: str, sources: Any, settings: dict[str, Any], config: Mapping[str, Any], method: Any, seed: int
) -> TrainingIdentity:
    chosen = chosen_settings(config, method)
    others = {name: value for name, value in settings.items() if name not in ("model", "trainer")}
    kind = kind_of_training(role, chosen)
    return TrainingIdentity(digest([kind, canonical([sources, others]), seed])[:16], kind, role, seed)
