"""Comparisons that the configurations declare, tested as one family."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from structkd.reporting.significance import (
    Interval,
    equivalence_test,
    minimal_effect,
    paired_bootstrap,
    sign_flip_test,
    smallest_p,
    t_interval,
    tarone,
)

from .scenarios import Row, Scenario

__all__ = ["SIGNIFICANCE", "Comparison", "compare_all"]

#: Adjusted p below it counts as evidence of a difference.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """A method against a baseline, on the seeds that both have.

    Attributes:
        scenario: of which both are rows.
        method, baseline: the rows compared.
        differences: test metric of the method less that of the baseline, by seed, each between -1 and 1.
        units: the differences that are tested: those of the seeds; or their means by teacher, if teachers vary.
        by_teacher: whether the units are teachers.
        interval: of the mean difference over other test sentences; None if predictions were not kept.
        p: of the exact sign-flip test over the units.
        adjusted: p after the correction for several comparisons.
        attainable: the value of ``adjusted`` if all units had agreed: no lower one was possible.
        family: the number of comparisons in the correction.
        equivalence: p of the test that the difference is smaller than the scenario's margin, corrected likewise; None
            without a margin.
    """

    scenario: Scenario
    method: Row
    baseline: Row
    differences: dict[int, float]
    units: list[float]
    by_teacher: bool
    interval: Interval | None
    p: float
    adjusted: float
    attainable: float
    family: int
    equivalence: float | None

    @property
    def title(self) -> str:
        """The two rows, as tables print them."""
        return f"{self.method.name} − {self.baseline.name}"  # noqa: RUF001

    @property
    def difference(self) -> float:
        """Mean over the units."""
        return fmean(self.units)

    @property
    def seeds(self) -> str:
        """The number of units, in words."""
        return f"{len(self.units)} {'teacher' if self.by_teacher else 'seed'}{'s' * (len(self.units) > 1)}"

    @property
    def over_units(self) -> tuple[float, float] | None:
        """The 95 % interval of the mean difference over other units."""
        return t_interval(self.units)

    @property
    def detectable(self) -> float | None:
        """The smallest difference that would have been found in four of five repetitions."""
        return minimal_effect(self.units, SIGNIFICANCE)

    @property
    def smallest(self) -> float:
        """The smallest p that this number of units allows, before correction."""
        return smallest_p(len(self.units))

    @property
    def equivalent(self) -> bool:
        """Whether the difference is shown to be smaller than the margin."""
        return self.equivalence is not None and self.equivalence < SIGNIFICANCE

    @property
    def outcome(self) -> str:
        """ "significant", "not significant", or "inconclusive" if no result could have been significant."""
        if self.adjusted < SIGNIFICANCE:
            return "significant"
        return "not significant" if self.attainable < SIGNIFICANCE else "inconclusive"

    @property
    def verdict(self) -> str:
        """The outcome with the p or the number of units behind it, and whether the two count as equal."""
        return self._verdict + (f"; {self._equal}" if self.equivalent else "")

    @property
    def _verdict(self) -> str:
        if self.outcome != "inconclusive":
            return f"{self.outcome} (p = {self.adjusted:.2g})"
        if self.smallest >= SIGNIFICANCE:
            bound = f"p cannot be below {self.smallest:.3g}"
        else:
            bound = f"p cannot be below {self.attainable:.3g} after correction"
        return f"inconclusive ({self.seeds}: {bound}; {self._enough} or more can be significant)"

    @property
    def _enough(self) -> int:
        """The number of units whose smallest p would be significant after the correction that this one had."""
        factor = max(1.0, self.attainable / self.smallest)
        return next(units for units in itertools.count(1) if factor * smallest_p(units) < SIGNIFICANCE)

    @property
    def _equal(self) -> str:
        margin = 100 * (self.scenario.margin or 0.0)
        return f"no difference of {margin:g} points or more (p = {self.equivalence:.2g})"


def compare_all(scenarios: Sequence[Scenario]) -> list[Comparison]:
    """Test every declared comparison that has a seed on both sides; the correction covers all that can be significant.

    If the runs of a comparison have several teachers, differences are averaged by teacher, and teachers are the units
    of the tests: students of one teacher share its luck.
    """
    found = []
    for scenario in scenarios:
        for method, baseline in scenario.pairs:
            reached, floor = (row.metrics("test", scenario.metric) for row in (method, baseline))
            differences = {seed: reached[seed] - floor[seed] for seed in reached if seed in floor}
            if differences:
                found.append((scenario, method, baseline, differences, *_units(method, differences)))
    units = [each[4] for each in found]
    tested = [sign_flip_test(each) for each in units]
    least = [smallest_p(len(each)) for each in units]
    adjusted, family = tarone(tested, least, SIGNIFICANCE)
    with_margin = [index for index, each in enumerate(found) if each[0].margin]
    equal = [equivalence_test(units[index], found[index][0].margin or 0.0) for index in with_margin]
    corrected, _ = tarone(equal, [0.5 ** len(units[index]) for index in with_margin], SIGNIFICANCE)
    equivalence = dict(zip(with_margin, corrected, strict=True))
    return [
        Comparison(
            scenario,
            method,
            baseline,
            differences,
            own_units,
            by_teacher,
            interval=_interval(method, baseline, list(differences), scenario.metric),
            p=tested[index],
            adjusted=adjusted[index],
            attainable=tarone([*tested[:index], least[index], *tested[index + 1 :]], least, SIGNIFICANCE)[0][index],
            family=family,
            equivalence=equivalence.get(index),
        )
        for index, (scenario, method, baseline, differences, own_units, by_teacher) in enumerate(found)
    ]


def _units(method: Row, differences: Mapping[int, float]) -> tuple[list[float], bool]:
    """Return the differences to be tested, and whether they are means by teacher."""
    by_teacher: dict[tuple[int, ...], list[float]] = {}
    for seed, difference in differences.items():
        by_teacher.setdefault(method.models[seed].teacher_seeds, []).append(difference)
    if len(by_teacher) < 2:
        return list(differences.values()), False
    return [fmean(each) for each in by_teacher.values()], True


def _interval(method: Row, baseline: Row, seeds: Sequence[int], metric: str) -> Interval | None:
    sides = []
    for row in (method, baseline):
        tables = [row.models[seed].counts(metric) for seed in seeds]
        if any(table is None for table in tables):
            return None
        sides.append(np.stack([table for table in tables if table is not None]))
    return paired_bootstrap(*sides)
