"""The schema of the configuration: the settings and their types.

Hydra checks every configuration against it before anything runs. The ``model``, ``trainer``, ``loss`` and ``data``
nodes are open mappings because their fields belong to the object they name; its signature checks them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from . import environment  # noqa: F401 - registers a resolver, too

__all__ = [
    "ExperimentConfig",
    "MethodConfig",
    "SizesConfig",
    "StoreConfig",
    "StudentConfig",
    "TeacherConfig",
    "register_schema",
]


@dataclass
class TeacherConfig:
    """A model to be trained on labelled text and distilled from, or a teacher that trains nothing."""

    model: dict[str, Any] = MISSING  # a recipe, group model
    trainer: dict[str, Any] = MISSING  # fields of transformers.TrainingArguments, group trainer
    labelled: int | None = None  # sentences of the training split; null: all
    seed: int = 0  # not the experiment's, so that one teacher serves all seeds
    patience: int | None = None  # evaluations without progress until training stops; null: never
    weight: float = 1.0  # beside the other teachers of an ensemble
    batch_words: int | None = None  # words of a training batch, whatever the sentences; null: the trainer's batch size
    path: str | None = None  # of a teacher that trains nothing: its folder, file, or name
    map: dict[str, Any] = field(default_factory=dict)  # of such a teacher: its labels in the words of the data


@dataclass
class StudentConfig:
    """A model to be distilled into."""

    model: dict[str, Any] = MISSING
    trainer: dict[str, Any] = MISSING
    labelled: int | None = MISSING  # some of the teacher's sentences; null: all of them
    unlabelled: int | None = 0  # other sentences, which only the teacher annotates; null: all there are
    patience: int | None = None
    text: dict[str, Any] | None = None  # a data set of plain text; null: the training split the teacher has not seen
    select: str = "best"  # best: the best on dev; last: the last step, for data without an annotated dev split
    batch_words: int | None = None  # as the teacher's


@dataclass
class SizesConfig:
    """How many sentences are used of the data, group sizes. A teacher and a student may have numbers of their own."""

    teacher: int | None = None  # null: all
    labelled: int | None = None
    unlabelled: int | None = None


@dataclass
class MethodConfig:
    """A way of training the student, group kd."""

    name: str = MISSING
    loss: dict[str, Any] | None = None  # callable (teacher, student, reduction) -> [B]; null: gold labels only
    interpolation: dict[str, Any] | None = None  # callable progress -> share of the loss above
    teacher: str | None = None  # one of `teachers`; null, or words in a run that has no teacher of that name: the run's
    targets: str = "store"  # store: the teacher's scores, computed once and kept; live: the teacher runs on every batch


@dataclass
class StoreConfig:
    """How the teacher's scores are kept."""

    dtype: str = "float32"  # or float16, half as large; its error is measured and stated when the store is written
    shard_sentences: int = 2000  # sentences per file; a killed process loses at most one file
    part: str = "1/1"  # k/n: the share that `structkd targets` writes, as one of n machines


@dataclass
class ExperimentConfig:
    """One run: a teacher, and students trained by one method and by baselines."""

    name: str = "custom"  # of the scenario, in tables
    task: str = MISSING  # which annotation of the corpus is to be predicted: spans, upos or dependencies
    data: dict[str, Any] = MISSING
    sizes: SizesConfig = field(default_factory=SizesConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    ensemble: dict[str, TeacherConfig] = field(default_factory=dict)  # further teachers; marginals are averaged
    teachers: dict[str, Any] = field(default_factory=dict)  # of single methods, as changes to `teacher`, by name
    student: StudentConfig = field(default_factory=StudentConfig)
    kd: MethodConfig = field(default_factory=MethodConfig)
    baselines: dict[str, MethodConfig] = field(default_factory=dict)
    legal: bool = False  # taggers over a tag scheme are trained with legal sequences alone, teachers and students
    comparisons: list[list[str]] | None = None  # pairs [method, baseline] to be tested; null: kd against every baseline
    margin: float | None = None  # points within which a difference counts as none, tested for equivalence
    store: StoreConfig = field(default_factory=StoreConfig)
    seed: int = 0  # of the student: its sentences, weights, order and dropout
    work_dir: str = MISSING
    trust: Any = None  # a module or modules of the user's own that this run may name; the command line alone sets it


def of_spans(task: str) -> bool:
    """Return whether a task's labels are tags of a scheme; ``legal: ${of_spans:${task}}`` is true for these alone."""
    return task == "spans"


# Here and not in register_schema(): processes that carry out the runs of a sweep import this module and no more.
OmegaConf.register_new_resolver("of_spans", of_spans, replace=True)


def register_schema() -> None:
    """Make the schema known to Hydra under the name that config.yaml begins with.

    A configuration names the settings of a model that differ from the defaults of its class. Others may be set, too,
    so these nodes are open to new keys; the class refuses a wrong one.
    """
    schema = OmegaConf.structured(ExperimentConfig)
    open_to_keys = [schema._get_node(name) for name in ("ensemble", "teachers")]
    teacher, student = schema.teacher, schema.student
    for node in (*map(teacher._get_node, ("model", "map")), student._get_node("model"), *open_to_keys):
        node._set_flag("struct", False)
    ConfigStore.instance().store(name="structkd_schema", node=schema)
