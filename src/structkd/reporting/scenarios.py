"""Results of many runs, grouped by scenario, corpus and teacher, then by method and seed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from structkd.evaluation import metric_rule, metric_title
from structkd.records import NOTHING_PREDICTED, RunCorpus, Settings, compared

from .runs import Model, Run
from .settings import flat, titles

__all__ = ["Row", "Scenario", "collect", "spread"]


@dataclass(eq=False)
class Row:
    """One model of a scenario, over all seeds it was trained with.

    Attributes:
        role: "teacher" or "student".
        method: name of the method.
        settings: the same for all seeds.
        variant: the settings in which it differs from other rows of the same method, in words.
        models: one per seed.
        runs: folders of all runs that it took part in.
    """

    role: str
    method: str
    settings: Settings
    variant: str = ""
    models: dict[int, Model] = field(default_factory=dict)
    runs: set[Path] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The method and the variant."""
        return f"{self.method} ({self.variant})" if self.variant else self.method

    @property
    def first(self) -> Model:
        """The model of the first seed."""
        return next(iter(self.models.values()))

    def metrics(self, split: str, metric: str) -> dict[int, float]:
        """Return a metric on "dev" or "test" of every seed that has it, in the order of the seeds."""
        return self._each(lambda model: model.metric(split, metric))

    @property
    def kl_per_word(self) -> dict[int, float]:
        """KL(teacher || student) on dev of every seed that has it."""
        return self._each(lambda model: model.kl_per_word)

    @property
    def targets_dev(self) -> dict[int, float]:
        """The main metric of the method's targets on dev of every seed that has it."""
        return self._each(lambda model: model.targets_dev)

    @property
    def transition_kl(self) -> dict[int, float]:
        """KL(marginals || softmaxed emissions) of a CRF teacher, of every seed that has it."""
        return self._each(lambda model: model.transition_kl)

    @property
    def of_methods(self) -> bool:
        """Whether it is a teacher of single methods, not the run's."""
        return bool(self.first.result.of_methods)

    @property
    def words_per_second(self) -> float | None:
        """Median over the seeds."""
        found = self._each(lambda model: model.words_per_second)
        return median(found.values()) if found else None

    def _each(self, take: Callable[[Model], float | None]) -> dict[int, float]:
        found = {seed: take(model) for seed, model in self.models.items()}
        return {seed: value for seed, value in found.items() if value is not None}


@dataclass(eq=False)
class Scenario:
    """The results of one scenario on one corpus, with one teacher (or one ensemble of teachers).

    Attributes:
        name: of the scenario.
        data: the corpus.
        metric: by which models are compared.
        teacher: the teacher's settings that distinguish it, if the same scenario was run with several.
        rows: teachers, the plain student, other students by name, structural KD last.
        runs: the finished runs.
        pairs: rows to be compared, as the configurations declare: (method, baseline).
        missing: declared comparisons that could not be made: one side was never run, or no two rows
            differ in the method only.
        margin: differences of the metric that are smaller count as none; None if none was declared. Of several the
            smallest.
        replaced: runs whose models were trained again by later runs, so that they do not count.
    """

    name: str
    data: RunCorpus
    metric: str
    teacher: str
    rows: list[Row]
    runs: list[Run]
    pairs: list[tuple[Row, Row]]
    missing: list[tuple[str, str]]
    replaced: list[Run]
    margin: float | None = None

    @property
    def title(self) -> str:
        """The scenario, teacher, corpus and task, for headings."""
        teacher = f" (teacher: {self.teacher})" if self.teacher else ""
        return f"{self.name}{teacher}: {self.data.name}, {self.data.task}"

    @property
    def metric_title(self) -> str:
        """The metric by which models are compared, as tables print it."""
        return metric_title(self.metric)

    @property
    def metrics(self) -> list[str]:
        """Names of all test metrics that any model has, the compared one first."""
        found = [name for row in self.rows for model in row.models.values() for name in model.result.test]
        return list(dict.fromkeys([self.metric, *found]))

    @property
    def rule(self) -> str:
        """Sentences on how the metrics are counted; may be empty."""
        return " ".join(dict.fromkeys(filter(None, map(metric_rule, self.metrics))))

    @property
    def teachers(self) -> list[Row]:
        """Rows of the runs' teachers, without those of single methods."""
        return [row for row in self.rows if row.role == "teacher" and not row.of_methods]

    @property
    def students(self) -> list[Row]:
        """Rows of students."""
        return [row for row in self.rows if row.role == "student"]

    @property
    def ceiling(self) -> float | None:
        """Mean test metric of the teacher; of the best one, if there are several."""
        return self._best(self.teachers)

    def _best(self, rows: Sequence[Row]) -> float | None:
        means = [fmean(found.values()) for row in rows if (found := row.metrics("test", self.metric))]
        return max(means, default=None)

    def teachers_of(self, row: Row) -> list[Row]:
        """Return the teachers that share runs with a row; all of them if none does."""
        return [teacher for teacher in self.teachers if teacher.runs & row.runs] or self.teachers

    def teachers_speed(self, row: Row) -> float | None:
        """Return the words per second of a row's teachers one after the other, as an ensemble works."""
        speeds = [teacher.words_per_second for teacher in self.teachers_of(row)]
        known = [speed for speed in speeds if speed]
        return 1 / sum(1 / speed for speed in known) if known and len(known) == len(speeds) else None

    def plain(self, row: Row) -> Row | None:
        """Return the student without KD that belongs to a student."""
        found = _partners(self.students, row, "none")
        return found[0] if len(found) == 1 else None

    def gap_closed(self, row: Row) -> float | None:
        """Return the share of the distance from plain student to teacher that a student covers, on common seeds."""
        plain = self.plain(row) if row.role == "student" else None
        ceiling = self._best(self.teachers_of(row))
        if plain is None or plain is row or ceiling is None:
            return None
        reached, floor = row.metrics("test", self.metric), plain.metrics("test", self.metric)
        seeds = reached.keys() & floor.keys()
        if not seeds:
            return None
        below = fmean(floor[seed] for seed in seeds)
        gap = ceiling - below
        return (fmean(reached[seed] for seed in seeds) - below) / gap if gap > 0 else None

    @property
    def remarks(self) -> list[str]:
        """Sentences on models that predict nothing, and on declared comparisons that could not be made."""
        empty = [row.name for row in self.rows if any(predicts_nothing(m, self.metric) for m in row.models.values())]
        found = [f"{', '.join(empty)}: {NOTHING_PREDICTED}"] if empty else []
        known = {row.method for row in self.students}
        for pair in self.missing:
            lacking = [name for name in dict.fromkeys(compared(each)[0] for each in pair) if name not in known]
            if lacking:
                reason = f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} in none of these runs"
            else:
                reason = "no two students have settings that differ in the method only"
            name = compared(pair[1])[0]
            found.append(
                f"Declared, not possible: {pair[0]} against {pair[1]}; {reason}. To compare methods with each other, "
                f"put them into one run: +kd@baselines.{name}={name}."
            )
        return found


def predicts_nothing(model: Model, metric: str) -> bool:
    """Return whether a model predicts no span in the whole test split."""
    if model.metric("test", metric) != 0:
        return False
    counts = model.counts(metric)
    return counts is not None and not counts[:, 1].any()


def spread(values: Iterable[float]) -> float | None:
    """Return the standard deviation over seeds; None for a single seed."""
    found = list(values)
    return stdev(found) if len(found) > 1 else None


def collect(runs: Sequence[Run]) -> list[Scenario]:
    """Group the results of runs by scenario, corpus and teacher, then by method and seed.

    Teachers are the same if all their settings are equal. A training that several runs share counts once. A run without
    a teacher (of a student without KD) belongs to the groups of all teachers of its scenario.
    """
    groups: dict[tuple[str, ...], dict[str, list[Run]]] = {}
    for run in runs:
        data = run.metrics.data
        by_teacher = groups.setdefault((run.metrics.scenario, data.name, data.task, data.fingerprint), {})
        by_teacher.setdefault(json.dumps(_teachers(run), sort_keys=True), []).append(run)
    scenarios = []
    for by_teacher in groups.values():
        without = by_teacher.pop("[]", [])
        found = [part for members in by_teacher.values() for part in _by_teacher_seed(members)]
        described = [_teachers(part[0]) for part in found]
        if len({json.dumps(each, sort_keys=True) for each in described}) < len(described):
            described = [
                [*settings, {"seed": seed} if len(seed) > 1 else {"seed": seed[0]}]
                for settings, seed in zip(described, (part[0].teacher_seeds for part in found), strict=True)
            ]
        teachers = titles(described) if found else [""]
        scenarios += [
            _scenario(members + without, teacher) for members, teacher in zip(found or [[]], teachers, strict=True)
        ]
    return sorted(scenarios, key=lambda scenario: scenario.title)


def _teachers(run: Run) -> list[Any]:
    """Return the settings of every teacher of a run, as plain data.

    Teachers of single methods do not tell runs apart. Neither does training with legal sequences alone, in which a
    teacher follows its student: such runs are to be compared.
    """
    return [
        _without_legal(result.settings.plain())
        for result in run.metrics.results
        if result.role == "teacher" and not result.of_methods
    ]


def _without_legal(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "model": {name: value for name, value in settings["model"].items() if name != "legal"}}


def _by_teacher_seed(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs by the teachers' seeds; they are one group if every student has a teacher of one seed only."""
    of_student: dict[int, set[tuple[int, ...]]] = {}
    for run in runs:
        of_student.setdefault(run.metrics.seed, set()).add(run.teacher_seeds)
    if all(len(seeds) == 1 for seeds in of_student.values()):
        return [list(runs)]
    parts: dict[tuple[int, ...], list[Run]] = {}
    for run in runs:
        parts.setdefault(run.teacher_seeds, []).append(run)
    return list(parts.values())


def _scenario(runs: Sequence[Run], teacher: str) -> Scenario:
    rows: dict[str, Row] = {}
    for run in sorted(runs, key=lambda run: run.finished):  # the later of two results counts
        for result in run.metrics.results:
            key = json.dumps([result.role, result.method, result.settings.plain()], sort_keys=True)
            row = rows.setdefault(key, Row(result.role, result.method, result.settings))
            row.runs.add(run.folder)
            known = row.models.get(result.seed)
            if known is None or known.result.folder != result.folder:
                row.models[result.seed] = Model(run, result)
    for row in rows.values():
        row.models = dict(sorted(row.models.items()))
    _name_variants(list(rows.values()))
    ordered = sorted(rows.values(), key=_position)
    current = {model.result.folder for row in ordered for model in row.models.values()}
    replaced = [run for run in runs if any(result.folder not in current for result in run.metrics.results)]
    pairs, missing = _declared(runs, ordered)
    first = runs[0].metrics
    margin = min((run.metrics.margin for run in runs if run.metrics.margin is not None), default=None)
    return Scenario(
        *(first.scenario, first.data, first.metric, teacher, ordered, list(runs), pairs, missing, replaced, margin)
    )


def _position(row: Row) -> tuple[int, str, list[tuple[str, float, str]]]:
    """Order rows: teachers, plain student, other methods by name, structural KD; then by settings, numerically."""
    by_size = []
    for part in row.variant.split(", "):
        name, _, value = part.partition("=")
        try:
            by_size.append((name, float(value), ""))
        except ValueError:
            by_size.append((name, 0.0, value))
    order = 0 if row.role == "teacher" else {"none": 1, "structural": 3}.get(row.method, 2)
    return order, row.method, by_size


def _name_variants(rows: Sequence[Row]) -> None:
    """Name the settings in which rows of one method differ."""
    by_name: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        by_name.setdefault((row.role, row.method), []).append(row)
    for group in by_name.values():
        for row, variant in zip(group, titles([row.settings.plain() for row in group]), strict=True):
            row.variant = variant


def _declared(runs: Sequence[Run], rows: Sequence[Row]) -> tuple[list[tuple[Row, Row]], list[tuple[str, str]]]:
    """Return rows to be compared, and declared comparisons that no two rows could be found for."""
    students = [row for row in rows if row.role == "student"]
    # The methods of a sweep over methods are in different runs.
    declared = dict.fromkeys(
        pair for run in runs for pair in (*run.metrics.comparisons, *(run.metrics.elsewhere or ()))
    )
    pairs: list[tuple[Row, Row]] = []
    missing = []
    for one, other in declared:
        before = len(pairs)
        (method, wanted), (baseline, others) = compared(one), compared(other)
        for row in students:
            if row.method == method and _has(row, wanted):
                partners = _partners(students, row, baseline) if not others else students
                partners = [partner for partner in partners if partner.method == baseline and _has(partner, others)]
                pairs += [(row, partner) for partner in partners if partner is not row]
        if len(pairs) == before:
            missing.append((one, other))
    return list(dict.fromkeys(pairs)), missing


def _has(row: Row, wanted: Mapping[str, str]) -> bool:
    """Return whether a row has some settings, given by the last parts of their dotted names."""
    settings = flat(row.settings.plain())
    return all(
        any(f".{name}".endswith(f".{key}") and str(given).lower() == value for name, given in settings.items())
        for key, value in wanted.items()
    )


def _partners(students: Sequence[Row], row: Row, method: str) -> list[Row]:
    """Return the students of a method that a student of another method is compared with.

    These are the students that share runs with it. If there are none, they are the students whose settings differ in
    the method only, those of the same temperature if there are any.
    """
    named = [other for other in students if other.method == method and other is not row]
    if together := [other for other in named if other.runs & row.runs]:
        return together
    comparable = [other for other in named if row.settings.differs_in_method_only(other.settings)]
    same_temperature = [other for other in comparable if other.settings.temperature in (None, row.settings.temperature)]
    return same_temperature or comparable
