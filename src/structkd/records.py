"""The files that trainings and runs leave behind: every key is defined here, and every file name.

A training has a folder ``<work_dir>/<role>-<digest>``. The digest covers everything that its result depends on.
``metrics.json`` is written last, so a folder that has one is finished. ``manifest.json``, written just before it, lists
size and sha256 of every file but ``model/README.md`` and ``model/structkd.json``. A finished training is compared with
it whenever it is used; one that differs is renamed to ``<role>-<digest>.damaged`` and done again::

    config.json          TrainingConfig: the content of the digest
    checkpoints/         while the training runs; an interrupted one continues from here
    model/               weights (safetensors), configuration and vocabulary of the model that was kept
    predictions/         dev.jsonl.gz and test.jsonl.gz: every sentence with its gold and predicted annotation and its
                         counts of correct, predicted and gold parts
    metrics.jsonl        loss, learning rate and dev metrics, as they were logged
    timing.json          Timing
    manifest.json        size and sha256 of the other files
    metrics.json         TrainingMetrics: the same bytes wherever and however often the training is done

A run has a folder ``<work_dir>/runs/<overrides>``. Its ``manifest.json`` and ``metrics.json`` are written last, too::

    .hydra/              the configuration in full, as Hydra composed it, and the overrides
    predictions/         <method>.jsonl.gz: the test sentences, as in the training's folder
    results.md           the results as a table
    student, models/     links to the model of the method, and to all models by their methods
    run.json             RunRecord: how the results were made
    manifest.json        size and sha256 of predictions, results.md, run.json and metrics.json
    metrics.json         RunMetrics: the results
    failed.json          Failure, if the last attempt failed

A store of a teacher's scores has a folder ``<work_dir>/targets-<digest>``, finished when it has a manifest::

    scores-00003-of-00010.safetensors   the scores of some sentences
    scores-00003-of-00010.json          ScoreFile, written after it
    shared.safetensors, shared.json     the scores that belong to the teacher and not to a sentence
    manifest.json                       StoreManifest
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import types
import typing
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from structkd.files import json_bytes, read_json, sealed, unsealed, write_bytes
from structkd.harmless import without_places

__all__ = [
    "Divergence",
    "Failure",
    "MethodSettings",
    "Record",
    "Result",
    "RoundingError",
    "RunCorpus",
    "RunFolder",
    "RunMetrics",
    "RunRecord",
    "RunTiming",
    "ScoreFile",
    "ScoreLayout",
    "Settings",
    "StoreManifest",
    "StoredFile",
    "SweepRecord",
    "Timing",
    "TrainingConfig",
    "TrainingFolder",
    "TrainingMetrics",
]


@dataclass(frozen=True)
class TrainingFolder:
    """The paths in the folder of a training."""

    path: Path

    @property
    def config(self) -> Path:
        """The file that holds a :class:`TrainingConfig`."""
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints, which is removed when the training is finished."""
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        """The folder of the model, for ``from_pretrained``."""
        return self.path / "model"

    @property
    def weights(self) -> Path:
        """The weights of the model."""
        return self.model / "model.safetensors"

    @property
    def log(self) -> Path:
        """The log, with one JSON object on every line."""
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        """The file that holds a :class:`Timing`."""
        return self.path / "timing.json"

    @property
    def metrics(self) -> Path:
        """The file that holds :class:`TrainingMetrics`."""
        return self.path / "metrics.json"

    @property
    def sealed(self) -> list[Path]:
        """The files of a finished training that its manifest lists, as far as they are there."""
        rewritten = (self.model / "README.md", self.model / "structkd.json")  # by every run that uses the model
        inner = [path for folder in (self.model, self.path / "predictions") for path in sorted(folder.rglob("*"))]
        listed = [self.config, self.log, self.timing, *(path for path in inner if path not in rewritten)]
        return [path for path in listed if path.is_file() and not path.name.startswith(".")]

    def predictions(self, split: str) -> Path:
        """Return the path of the predictions for "dev" or "test"."""
        return self.path / "predictions" / f"{split}.jsonl.gz"


@dataclass(frozen=True)
class RunFolder:
    """The paths in the folder of a run."""

    path: Path

    @property
    def hydra(self) -> Path:
        """The folder of Hydra, which is there from the beginning of a run."""
        return self.path / ".hydra"

    @property
    def config(self) -> Path:
        """The configuration in full."""
        return self.hydra / "config.yaml"

    @property
    def results(self) -> Path:
        """The results as a table."""
        return self.path / "results.md"

    @property
    def run(self) -> Path:
        """The file that holds a :class:`RunRecord`."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """The file that holds :class:`RunMetrics`."""
        return self.path / "metrics.json"

    @property
    def models(self) -> Path:
        """The folder of links to the models, by their methods."""
        return self.path / "models"

    @property
    def student(self) -> Path:
        """The link to the model of the method."""
        return self.path / "student"

    @property
    def sealed(self) -> list[Path]:
        """The files of a finished run that its manifest lists, as far as they are there."""
        listed = [self.results, self.run, *sorted((self.path / "predictions").glob("*"))]
        return [path for path in listed if path.is_file() and not path.name.startswith(".")]

    @property
    def failure(self) -> Path:
        """The file that holds a :class:`Failure`."""
        return self.path / "failed.json"

    def predictions(self, method: str) -> Path:
        """Return the path of a model's predictions for the test sentences."""
        return self.path / "predictions" / f"{method}.jsonl.gz"


#: A model without any predicted span: the cause, most often, and the remedy.
NOTHING_PREDICTED = (
    "No span is predicted in the whole test split, so F1 is 0. The model was not trained for long enough, most often: "
    "raise student.trainer.max_steps (teacher.trainer.max_steps) or its learning_rate."
)


def compared(name: str) -> tuple[str, dict[str, str]]:
    """Return the method that a declared comparison names, and the settings of the student that it asks for.

    >>> compared("structural"), compared("structural(legal=true)")
    (('structural', {}), ('structural', {'legal': 'true'}))
    """
    method, bracket, settings = name.partition("(")
    pairs = [part.partition("=") for part in settings.removesuffix(")").split(",")] if bracket else []
    return method.strip(), {key.strip(): value.strip().lower() for key, _, value in pairs}


class Record:
    """A dataclass that is a JSON object in a file, its fields in order.

    A field with a default is left out of the file while it has its default. Fields are checked when they are read: the
    types used are ``bool``, ``int``, ``float``, ``str``, ``Any``, other records, ``X | None``, ``list[X]``,
    ``tuple[X, Y]`` and ``dict[str, X]``.
    """

    #: Value of the field ``format`` that this version reads and writes.
    FORMAT: ClassVar[int | None] = None
    #: Whether the file has a seal, see :mod:`structkd.files`: for records that no manifest covers.
    SEALED: ClassVar[bool] = False
    #: Whether the file is kept with results, which may be published: it has no absolute paths, and what is read back
    #: has none either.
    PUBLISHED: ClassVar[bool] = False
    #: The advice for a file that cannot be used.
    REMEDY: ClassVar[str] = "Remove it and run the command again."

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the record in a file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file cannot be read, was written by another version, lacks a key, or has a key that is
                unknown or of the wrong type. The message names the file and the key and gives advice.
        """
        return cls.of(read_json(path, cls.REMEDY), path)

    @classmethod
    def find(cls, path: Path) -> Self | None:
        """Return the record in a file, or None if the file does not exist; see :meth:`read`."""
        return cls.read(path) if path.exists() else None

    @classmethod
    def of(cls, content: dict[str, Any], path: Path) -> Self:
        """Return the record that plain data hold.

        Args:
            content: as JSON gives it.
            path: of its file, for messages.
        """
        if cls.SEALED:
            content = unsealed(content, path, cls.REMEDY)
        if cls.FORMAT is not None and content.get("format") != cls.FORMAT:
            raise ValueError(
                f"{path} was written by another version of structkd (format {content.get('format')}, expected "
                f"{cls.FORMAT}). {cls.REMEDY}"
            )
        try:
            record: Self = _read(cls, content)
        except _WrongKey as error:
            raise ValueError(f"{path}: {error.key} {error}. {cls.REMEDY}") from None
        return record

    def write(self, path: Path) -> None:
        """Write the record atomically."""
        write_bytes(path, self.written())

    def written(self) -> bytes:
        """Return the content of the file that :meth:`write` writes."""
        plain = without_places(self.plain()) if self.PUBLISHED else self.plain()
        return json_bytes(sealed(plain) if self.SEALED else plain)

    def plain(self) -> dict[str, Any]:
        """Return the record as plain data: the same as reading its file as JSON."""
        fields = [field for field in dataclasses.fields(self) if getattr(self, field.name) != field.default]  # type: ignore[arg-type]
        return {field.name: _plain(getattr(self, field.name)) for field in fields}


@dataclass(frozen=True, kw_only=True)
class MethodSettings(Record):
    """How a student learns from its teacher.

    Attributes:
        name: of the method, for messages and tables.
        loss, interpolation: their configurations; None for a student that learns from labels alone.
    """

    name: str
    loss: dict[str, Any] | None
    interpolation: Any

    @property
    def temperature(self) -> float | None:
        """Of the loss; None without a loss, or for a loss that has none."""
        return (self.loss or {}).get("temperature")


@dataclass(frozen=True, kw_only=True)
class Settings(Record):
    """The settings of a training, the same for all seeds. Whole numbers are integers.

    Attributes:
        model: configuration of the recipe.
        trainer: fields of TrainingArguments, without ``report_to``.
        patience, batch_words, select: as in :func:`structkd.training.fit`.
        labelled, unlabelled: sentences of the training text.
        method: None for a teacher.
        processes: that trained together, if there were several.
        targets: the precision of the teacher's scores; absent without a teacher.
        weights: of several teachers.
    """

    model: dict[str, Any]
    trainer: dict[str, Any]
    patience: int | None
    batch_words: int | None
    select: str
    labelled: int
    unlabelled: int
    method: MethodSettings | None
    processes: int | None = None
    targets: str | None = None
    weights: list[float] | None = None

    @property
    def distils(self) -> bool:
        """Whether a teacher has a part in the training."""
        return self.method is not None and self.method.loss is not None

    @property
    def temperature(self) -> float | None:
        """Of the method's loss."""
        return None if self.method is None else self.method.temperature

    def differs_in_method_only(self, other: Settings) -> bool:
        """Whether two students differ in their methods only; a student without a teacher has no unlabelled text."""
        without: dict[str, Any] = {"method": None, "targets": None, "weights": None}
        if not (self.distils and other.distils):
            without["unlabelled"] = 0
        return dataclasses.replace(self, **without) == dataclasses.replace(other, **without)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Record):
    """Everything that the result of a training depends on; its digest names the folder.

    Attributes:
        code: fingerprint of the package's code.
        versions: of the packages that decide the last bits of a result.
        compiled: whether compiled kernels run.
        accelerator: of the machine, if it has one.
        corpora: name, task, description of the annotation, and fingerprint of each.
        role: "teacher" or "student".
        settings: of the training.
        seed: of weights, order and dropout.
        teachers: name of the training's folder and weight of each; None for a training on labels alone.
        text: fingerprints of the labelled and unlabelled sentences, and of those that inventories come from.
        plugins: fingerprints of the plug-in modules that take part.
        files: fingerprints of the user's files that take part.
    """

    PUBLISHED: ClassVar[bool] = True
    FORMAT: ClassVar[int | None] = 3

    format: int
    code: str
    versions: dict[str, str]
    compiled: bool
    accelerator: str | None
    corpora: list[tuple[str, str, dict[str, Any], str]]
    role: str
    settings: Settings
    seed: int
    teachers: list[tuple[str, float]] | None
    text: tuple[str | None, str | None, str | None]
    plugins: dict[str, str]
    files: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Timing(Record):
    """How long a training took.

    Attributes:
        seconds: of its last part, if it was interrupted.
        resumed_from: step of the checkpoint that it continued from.
    """

    seconds: float
    resumed_from: int | None


@dataclass(frozen=True, kw_only=True)
class TrainingMetrics(Record):
    """The result of a training.

    Attributes:
        role: "teacher" or "student".
        folder: name of the training's folder.
        labelled, unlabelled: sentences that it was trained on.
        parameters: of the model.
        steps: that were taken.
        best_step: the step whose model was kept.
        history: step and dev metrics of every evaluation.
        dev, test: metrics of the model that was kept, 0 to 1.
    """

    PUBLISHED: ClassVar[bool] = True

    role: str
    folder: str
    labelled: int
    unlabelled: int
    parameters: int
    steps: int
    best_step: int | None
    history: list[dict[str, float]]
    dev: dict[str, float]
    test: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Divergence(Record):
    """KL(teacher || student) on the development text at temperature 1, in nats: a sentence's mean, and a word's."""

    kl: float
    kl_per_word: float


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """A model of a run: its :class:`TrainingMetrics`, under the name that the run gives it.

    Attributes:
        method: name of the method, or of the teacher.
        seed: of its training.
        settings: of its training.
        divergence: from the run's teacher; None for a teacher, or if it cannot be computed.
        of_methods: true for a teacher of single methods, which is not the run's teacher; otherwise absent.
        targets_dev: the main metric on dev of the method's targets, decoded by the student's decoder, 0 to 1; absent
            where there is none.
        transition_kl: of a CRF teacher: KL(marginals || softmaxed emissions) on dev, in nats a word.
    """

    role: str
    method: str
    seed: int
    folder: str
    labelled: int
    unlabelled: int
    parameters: int
    steps: int
    best_step: int | None
    history: list[dict[str, float]]
    dev: dict[str, float]
    test: dict[str, float]
    settings: Settings
    divergence: Divergence | None
    of_methods: bool | None = None
    targets_dev: float | None = None
    transition_kl: float | None = None

    def metrics(self, split: str) -> dict[str, float]:
        """Return the metrics on "dev" or "test"."""
        return {"dev": self.dev, "test": self.test}[split]


@dataclass(frozen=True, kw_only=True)
class RunCorpus(Record):
    """The data of a run.

    Attributes:
        name: of the corpus, or of the teacher's and the student's.
        task: to be predicted.
        annotation: its kind and inventory.
        fingerprint: of the data.
        licence, source, notes: for those who read the results.
        sentences: of every split.
    """

    name: str
    task: str
    annotation: dict[str, Any]
    fingerprint: str
    licence: str
    source: str
    notes: str
    sentences: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RunMetrics(Record):
    """The results of a run; the same bytes wherever it is made.

    Attributes:
        scenario: its name.
        method: name of the method, among the results.
        seed: of the students.
        metric: by which models are chosen and compared.
        data: the corpus.
        comparisons: pairs of a method and its baseline, to be tested.
        fingerprint: of all that the results depend on.
        results: teachers, baselines, and the method last.
        margin: differences of the metric, 0 to 1, that are smaller than it count as none; absent if none was declared.
        elsewhere: declared comparisons with a method that this run does not have; absent if there are none. Runs beside
            this one may have it.
    """

    PUBLISHED: ClassVar[bool] = True
    FORMAT: ClassVar[int | None] = 3
    REMEDY: ClassVar[str] = (
        "Run the command again, which keeps the trainings that are finished, or remove the folder of this run. Up to "
        "format 2, `token` is the name of what is now emission KD, and `emission` that of logit matching."
    )

    format: int
    scenario: str
    method: str
    seed: int
    metric: str
    data: RunCorpus
    comparisons: list[tuple[str, str]]
    fingerprint: str
    results: list[Result]
    margin: float | None = None
    elsewhere: list[tuple[str, str]] | None = None

    @property
    def student(self) -> Result:
        """The student that was trained by the method."""
        return next(each for each in self.results if (each.role, each.method) == ("student", self.method))


@dataclass(frozen=True, kw_only=True)
class RunTiming(Record):
    """How a model of a run was made: its training's :class:`Timing`, and the speed of decoding on one core.

    ``words_per_second`` is None for a teacher that looks its annotations up.
    """

    seconds: float
    resumed_from: int | None
    words_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class RunRecord(Record):
    """How the results of a run were made.

    Attributes:
        command: as typed.
        overrides: of this run; a sweep has one command for several runs.
        work_dir: where trainings lie, seen from the run's folder.
        environment: versions of packages and platform, and `plug-ins` if there are any.
        finished: when, in ISO format; sorts by time.
        results: by method.
    """

    PUBLISHED: ClassVar[bool] = True
    FORMAT: ClassVar[int | None] = 1

    format: int
    command: str
    overrides: list[str]
    work_dir: str
    environment: dict[str, str]
    finished: str
    results: dict[str, RunTiming]

    @property
    def command_alone(self) -> str:
        """The command that makes this run alone: the flags that were typed, the run's overrides, and its plug-ins."""
        typed = shlex.split(self.command)
        takes_value = ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp")
        flags: list[str] = []
        for position, word in enumerate(typed):
            follows = position > 0 and typed[position - 1] in takes_value
            if follows or (word.startswith("-") and word not in ("-m", "--multirun")):
                flags.append(word)
        trusted = self.environment.get("plug-ins", "")
        named = any(override.lstrip("+").startswith("trust=") for override in self.overrides)
        trust = [f"+trust=[{trusted}]" if "," in trusted else f"+trust={trusted}"] if trusted and not named else []
        return shlex.join(["structkd", *flags, *self.overrides, *trust])


@dataclass(frozen=True, kw_only=True)
class Failure(Record):
    """Why a run failed.

    Attributes:
        error: class of the exception.
        message: for the user.
        traceback: in full.
        overrides: of this run.
        sweep: that the run was part of, if any.
        time: in ISO format.
    """

    PUBLISHED: ClassVar[bool] = True

    error: str
    message: str
    traceback: str
    overrides: list[str]
    sweep: str | None
    time: str


@dataclass(frozen=True, kw_only=True)
class SweepRecord(Record):
    """A run of a sweep, while the sweep goes on.

    Attributes:
        folder: of the run.
        overrides: of this run.
        status: "started", "finished", "failed", or "before" if it had been finished already.
        message: of the error.
    """

    folder: str
    overrides: list[str]
    status: str
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class RoundingError(Record):
    """KL(exact || stored) of a teacher's distributions at temperature 1, in nats a sentence."""

    mean: float
    max: float


@dataclass(frozen=True, kw_only=True)
class ScoreLayout(Record):
    """A score of a teacher: the number of its axes of words, and the shape of the axes after them."""

    axes: int
    shape: list[int]


@dataclass(frozen=True, kw_only=True)
class StoredFile(Record):
    """A file of scores: how many sentences it holds, its bytes, and its sha256."""

    sentences: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ScoreFile(Record):
    """A file of scores of a store that may be unfinished.

    Attributes:
        key: digest of the store's fingerprint and layout.
        sentences: in the file; 0 for scores that belong to the teacher.
        divergence: lost by rounding; absent for scores that belong to the teacher.
        bytes, sha256: of the file.
    """

    SEALED: ClassVar[bool] = True

    key: str
    sentences: int
    divergence: RoundingError | None = None
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StoreManifest(Record):
    """A store of a teacher's scores.

    Attributes:
        fingerprint: plain data that describe everything the scores depend on.
        dtype: that they are stored in.
        scores: their layout, by name.
        sentences: in all files.
        shard_sentences: in a file.
        divergence: lost by rounding, mean and maximum over all sentences; 0 in float32.
        files: by name.
    """

    FORMAT: ClassVar[int | None] = 1
    SEALED: ClassVar[bool] = True
    REMEDY: ClassVar[str] = (
        "Delete it: writing the store again with the same settings finishes it and keeps the shards that are complete."
    )

    format: int
    fingerprint: dict[str, Any]
    dtype: str
    scores: dict[str, ScoreLayout]
    sentences: int
    shard_sentences: int
    divergence: RoundingError
    files: dict[str, StoredFile]


class _WrongKey(Exception):
    """A key that is missing, unknown, or of the wrong type."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key if len(key) <= 200 else f"{key[:197]}..."


@functools.cache
def _types(record: Any) -> dict[str, Any]:
    return typing.get_type_hints(record)


def _read(record: Any, content: Any, key: str = "") -> Any:
    prefix = f"{key}." if key else ""
    if not isinstance(content, dict):
        raise _WrongKey(key, f"is {content!r:.80}; expected an object")
    fields = {field.name: field for field in dataclasses.fields(record)}
    for name in content.keys() - fields.keys():
        raise _WrongKey(f"{prefix}{name}", "is not a key that this version of structkd knows")
    values = {}
    for name, field in fields.items():
        if name in content:
            values[name] = _checked(_types(record)[name], content[name], f"{prefix}{name}")
        elif field.default is MISSING:
            raise _WrongKey(f"{prefix}{name}", "is missing")
    return record(**values)


_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _checked(kind: Any, value: Any, key: str) -> Any:
    """Return a value as a field of this type holds it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _checked(arguments[0], value, key)
    if isinstance(kind, type) and issubclass(kind, Record):
        return _read(kind, value, key)
    if origin is dict and isinstance(value, dict):
        return {name: _checked(arguments[1], each, f"{key}.{name}") for name, each in value.items()}
    if origin in (list, tuple) and isinstance(value, list):
        every = len(arguments) if origin is tuple else len(value)
        if len(value) != every:
            raise _WrongKey(key, f"has {len(value)} elements; expected {every}")
        expected = arguments if origin is tuple else arguments * every
        return origin(
            _checked(one, each, f"{key}[{row}]") for row, (one, each) in enumerate(zip(expected, value, strict=True))
        )
    accepted = (int, float) if kind is float else kind
    if origin is None and isinstance(value, accepted) and (kind is bool or not isinstance(value, bool)):
        return value
    wanted = _EXPECTED.get(kind) or ("an object" if origin is dict else "a list")
    raise _WrongKey(key, f"is {value!r:.80}; expected {wanted}")


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.plain()
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return value
