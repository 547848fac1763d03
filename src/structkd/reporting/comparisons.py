"""Comparisons that the configurations declare, tested as one family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from structkd.reporting.significance import Interval, holm, paired_bootstrap, sign_flip_test, smallest_p

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
        interval: of the mean difference over other test sentences; None if predictions were not kept.
        p: of the exact sign-flip test.
        adjusted: p after Holm's correction over all comparisons of the report.
        attainable: the value of ``adjusted`` if all seeds had agreed: no lower one was possible.
        family: the number of comparisons in the correction.
    """

    scenario: Scenario
    method: Row
    baseline: Row
    differences: dict[int, float]
    interval: Interval | None
    p: float
    adjusted: float
    attainable: float
    family: int

    @property
    def title(self) -> str:
        """The two rows, as tables print them."""
        return f"{self.method.name} − {self.baseline.name}"  # noqa: RUF001

    @property
    def difference(self) -> float:
        """Mean over the seeds."""
        return fmean(self.differences.values())

    @property
    def seeds(self) -> str:
        """The number of seeds, in words."""
        return f"{len(self.differences)} seed{'s' * (len(self.differences) > 1)}"

    @property
    def smallest(self) -> float:
        """The smallest p that this number of pairs allows, before correction."""
        return smallest_p(len(self.differences))

    @property
    def outcome(self) -> str:
        """ "significant", "not significant", or "inconclusive" if no result could have been significant."""
        if self.adjusted < SIGNIFICANCE:
            return "significant"
        return "not significant" if self.attainable < SIGNIFICANCE else "inconclusive"

    @property
    def verdict(self) -> str:
        """The outcome with the p or the number of seeds behind it."""
        if self.outcome != "inconclusive":
            return f"{self.outcome} (p = {self.adjusted:.2g})"
        if self.smallest >= SIGNIFICANCE:
            return f"inconclusive ({self.seeds}: p cannot be below {self.smallest:.2g})"
        return f"inconclusive ({self.seeds}: p cannot be below {self.attainable:.2g} after correction)"


def compare_all(scenarios: Sequence[Scenario]) -> list[Comparison]:
    """Test every declared comparison that has a seed on both sides; Holm's correction covers all of them."""
    found = []
    for scenario in scenarios:
        for method, baseline in scenario.pairs:
            reached, floor = (row.metrics("test", scenario.metric) for row in (method, baseline))
            differences = {seed: reached[seed] - floor[seed] for seed in reached if seed in floor}
            if differences:
                found.append((scenario, method, baseline, differences))
    tested = [sign_flip_test(list(differences.values())) for *_, differences in found]
    least = [smallest_p(len(differences)) for *_, differences in found]
    adjusted = holm(tested)
    return [
        Comparison(
            scenario,
            method,
            baseline,
            differences,
            interval=_interval(method, baseline, list(differences), scenario.metric),
            p=tested[index],
            adjusted=adjusted[index],
            attainable=holm([*tested[:index], least[index], *tested[index + 1 :]])[index],
            family=len(found),
        )
        for index, (scenario, method, baseline, differences) in enumerate(found)
    ]


def _interval(method: Row, baseline: Row, seeds: Sequence[int], metric: str) -> Interval | None:
    sides = []
    for row in (method, baseline):
        tables = [row.models[seed].counts(metric) for seed in seeds]
        if any(table is None for table in tables):
            return None
        sides.append(np.stack([table for table in tables if table is not None]))
    return paired_bootstrap(*sides)
