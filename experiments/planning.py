"""From a profile to its commands, the trainings that these share, and how long they will take.

Nothing is loaded but configurations: :mod:`structkd.runs.identity` decides whether two trainings are one.
"""

from __future__ import annotations

import copy
import functools
import itertools
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from structkd.files import read_json
from structkd.harmless import without_places
from structkd.records import Timing, TrainingConfig, TrainingFolder
from structkd.runs.identity import identities, kind_of_training

PROFILES = Path(__file__).with_name("profiles.yaml")
_FIELDS = {"about", "overrides", "seeds", "runs"}
_RUN_FIELDS = {"overrides", "over", "seconds"}

#: Seconds beside a training and what goes with it: to start a process, to load a corpus, to measure speed.
BESIDES = 4.0


@dataclass(frozen=True)
class Training:
    """A model to be trained, as far as the configuration tells.

    Attributes:
        identity: the same for two runs that share it.
        kind: the same for trainings that differ in seed alone, or in what the folder of a training does not show.
        seed: of the training.
        role: "teacher" or "student".
        guess: seconds, by the profile; None where nobody has measured it.
    """

    identity: str
    kind: str
    seed: int
    role: str
    guess: float | None


@dataclass(frozen=True)
class Command:
    """A call of ``structkd -m``.

    Attributes:
        name: for messages and its log.
        arguments: what follows ``structkd``; the seeds come last.
        runs: the overrides of every run it carries out.
        trainings: what has to be done for them, each once.
    """

    name: str
    arguments: tuple[str, ...]
    runs: tuple[frozenset[str], ...]
    trainings: tuple[Training, ...]

    def __str__(self) -> str:
        return shlex.join(["structkd", *self.arguments])


@dataclass(frozen=True)
class Plan:
    """What a profile comes to.

    Attributes:
        about: one line.
        rounds: for every list of seeds its commands, in the order in which they start.
        configurations: of all runs, but for the seed.
    """

    about: str
    rounds: tuple[tuple[Command, ...], ...]
    configurations: tuple[dict[str, Any], ...] = ()

    @property
    def commands(self) -> tuple[Command, ...]:
        """Of all rounds."""
        return tuple(itertools.chain(*self.rounds))

    @property
    def runs(self) -> set[frozenset[str]]:
        """The overrides of every run."""
        return {run for command in self.commands for run in command.runs}

    @property
    def trainings(self) -> dict[str, Training]:
        """All trainings, by their identity."""
        return {training.identity: training for command in self.commands for training in command.trainings}


def read_profiles(path: Path = PROFILES) -> dict[str, dict[str, Any]]:
    """The table of profiles.

    Raises:
        ValueError: a profile has a field that is not known, or lacks one.
    """
    profiles = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, profile in profiles.items():
        if profile.keys() - _FIELDS or not {"about", "seeds", "runs"} <= profile.keys():
            raise ValueError(f"{path.name}, {name}: expected {', '.join(sorted(_FIELDS))}; got {', '.join(profile)}.")
        for run, settings in profile["runs"].items():
            if (settings or {}).keys() - _RUN_FIELDS:
                raise ValueError(f"{path.name}, {name}, {run}: expected some of {', '.join(sorted(_RUN_FIELDS))}.")
    return profiles


def plan(profile: Mapping[str, Any]) -> Plan:
    """Compose every run of a profile."""
    planned: list[list[Command]] = [[] for _ in profile["seeds"]]
    configurations = []
    with _composing() as compose:
        for name, settings in profile["runs"].items():
            settings = settings or {}
            own = list(settings.get("overrides", []))
            over = settings.get("over", {})
            # a run is named by its scenario unless it says otherwise
            named = {key.lstrip("+") for key in [*over, *(each.partition("=")[0] for each in own)]}
            chosen = [] if named & {"scenario", "paper"} else [f"scenario={name}"]
            overrides = [*chosen, *profile.get("overrides", []), *own]
            values = [dict(zip(over, point, strict=True)) for point in itertools.product(*over.values())]
            points = [list(map(_override, point, point.values())) for point in values]
            composed = [compose(tuple(overrides), point) for point in values]
            configurations += composed
            for number, seeds in enumerate(profile["seeds"]):
                trainings = (
                    training
                    for config, seed in itertools.product(composed, seeds)
                    for training in _trainings({**config, "seed": seed}, settings.get("seconds"))
                )
                swept = [_override(key, ",".join(map(str, values))) for key, values in over.items()]
                planned[number].append(
                    Command(
                        name=f"{name},seed={'-'.join(map(str, sorted({seeds[0], seeds[-1]})))}",
                        arguments=("-m", *overrides, *swept, _override("seed", ",".join(map(str, seeds)))),
                        runs=tuple(
                            run_key([*overrides, *point, _override("seed", seed)])
                            for point, seed in itertools.product(points, seeds)
                        ),
                        trainings=tuple({training.identity: training for training in trainings}.values()),
                    )
                )
    return Plan(profile["about"], tuple(map(tuple, planned)), tuple(configurations))


def run_key(overrides: Iterable[str]) -> frozenset[str]:
    """A run by its overrides, in whatever order; Hydra keeps ``~key`` as ``~key=null``."""
    typed = (each.removesuffix("=null") if each.startswith("~") else each for each in overrides)
    return frozenset(without_places(each) for each in typed)  # as records have them


def _override(key: str, value: Any) -> str:
    return f"{key}={value}"


class _composing:
    """Hydra's compose on structkd's configuration, as plain data."""

    def __enter__(self) -> Any:
        from hydra import compose, initialize_config_module
        from hydra.core.global_hydra import GlobalHydra
        from omegaconf import OmegaConf

        from structkd.commands.schema import register_schema

        register_schema()
        GlobalHydra.instance().clear()
        self._hydra = initialize_config_module("structkd.conf", version_base="1.3")
        self._hydra.__enter__()

        @functools.cache
        def common(overrides: tuple[str, ...]) -> Any:
            return compose("config", overrides=list(overrides))

        def composed(overrides: tuple[str, ...], values: Mapping[str, Any]) -> Any:
            # To set a value in what is composed is quicker than to compose it once more; groups must be.
            plain = {key: value for key, value in values.items() if "." in key and not set(key) & set("/@+~")}
            groups = tuple(_override(key, value) for key, value in values.items() if key not in plain)
            config = copy.deepcopy(common((*overrides, *groups)))
            for key, value in plain.items():
                OmegaConf.update(config, key, value)
            return OmegaConf.to_container(config, resolve=True)

        return composed

    def __exit__(self, *error: Any) -> None:
        self._hydra.__exit__(*error)


def _trainings(config: Mapping[str, Any], guesses: Sequence[float] | None) -> Iterator[Training]:
    """The trainings of one run; guesses: seconds of a teacher and of a student."""
    from structkd.runs.plan import complete

    config = {**config, "teacher": complete(config["teacher"]), "student": complete(config["student"])}
    config["ensemble"] = {name: complete(each) for name, each in config["ensemble"].items()}
    seconds = dict(zip(("teacher", "student"), guesses or (None, None), strict=True))
    for each in identities(config):
        yield Training(each.identity, each.kind, each.seed, each.role, seconds[each.role])


@dataclass
class Progress:
    """Which trainings of a plan are done, and how long they took.

    Args:
        plan: all that is to be done.
        work: the folder of the trainings.
        code: fingerprint of the code; trainings by other code do not count.
    """

    plan: Plan
    work: Path
    code: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list), init=False)
    _known: set[Path] = field(default_factory=set, init=False)
    _done: Counter[tuple[str, int]] = field(default_factory=Counter, init=False)

    def update(self) -> None:
        """Look for trainings that have been finished since."""
        for path in self.work.glob("*-*/metrics.json"):
            if path in self._known:
                continue
            self._known.add(path)
            folder = TrainingFolder(path.parent)
            if read_json(folder.config).get("code") != self.code:
                continue
            config = TrainingConfig.read(folder.config)
            kind = kind_of_training(config.role, config.settings)
            self._done[kind, config.seed] += 1
            taken = _time_taken(folder)
            if taken is not None:
                self.seconds[kind].append(taken)

    @property
    def done(self) -> set[str]:
        """Identities of the trainings that are done."""
        left = self._done.copy()
        found = set()
        for identity, training in self.plan.trainings.items():
            # Trainings that look alike from outside are told apart by nothing: the first ones count.
            if left[training.kind, training.seed] > 0:
                left[training.kind, training.seed] -= 1
                found.add(identity)
        return found

    @property
    def undone(self) -> list[Training]:
        """The trainings that are not."""
        done = self.done
        return [training for identity, training in self.plan.trainings.items() if identity not in done]

    def remaining(self, jobs: int) -> float | None:
        """Seconds until all is done by so many processes; None while nothing is known of how long some trainings take.

        A kind that was measured takes its mean. Others take what the profile guesses, times how much slower this
        machine was than the guesses so far; or, without a guess, the mean of what was measured in the same role.
        """
        undone = self.undone
        each = [self._expected(training) for training in undone]
        if None in each:
            return None
        known = [seconds + BESIDES for seconds in each if seconds is not None]
        # A training is one process: more processes than trainings are of no use.
        return max(sum(known) / jobs, max(known)) if known else 0.0

    def _expected(self, training: Training) -> float | None:
        if training.kind in self.seconds:
            return fmean(self.seconds[training.kind])
        if training.guess is not None:
            return training.guess * self._slowness
        role = {other.kind for other in self.plan.trainings.values() if other.role == training.role}
        measured = [seconds for kind in role & self.seconds.keys() for seconds in self.seconds[kind]]
        return fmean(measured) if measured else None

    @property
    def _slowness(self) -> float:
        """Time taken over time guessed, of the kinds that have both."""
        guesses = {training.kind: training.guess for training in self.plan.trainings.values()}
        both = [(fmean(taken), guess) for kind, taken in self.seconds.items() if (guess := guesses.get(kind))]
        return sum(taken for taken, _ in both) / sum(guess for _, guess in both) if both else 1.0


def _time_taken(folder: TrainingFolder) -> float | None:
    """Seconds of a finished training; None if it was interrupted, as only its last part is known.

    From the first file of its folder to the last, so that the teacher's scores and judging the model count.
    """
    timing = Timing.read(folder.timing)
    if timing.resumed_from is not None:
        return None
    written = folder.metrics.stat().st_mtime - folder.config.stat().st_mtime
    trained = timing.seconds
    # A folder that was copied may have been written in any order and at any time.
    return written if trained <= written <= 3 * trained + 600 else trained


def next_command(queue: list[Command], running: Iterable[Command], done: set[str]) -> Command:
    """Take the next command off a queue: the first that none of the running ones would keep waiting.

    Two that need the same training, not yet done, do not run side by side while there is something else to do.
    """
    busy = {training.identity for command in running for training in command.trainings} - done
    free = (at for at, command in enumerate(queue) if busy.isdisjoint(each.identity for each in command.trainings))
    return queue.pop(next(free, 0))
