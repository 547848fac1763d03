"""The comparisons that the configurations declare, tested as one family."""

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
        method, baseline: what is compared.
        differences: test figure of the method less that of the baseline, by seed; 0 to 1.
        interval: of the mean difference over other test sentences; None where predictions were not kept.
        p: of the exact sign-flip test.
        adjusted: p after Holm's correction over all comparisons of the report.
        attainable: what ``adjusted`` would be, had all seeds agreed: no p below it was possible.
        family: how many comparisons were corrected for.
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
        """For tables."""
        return f"{self.method.name} − {self.baseline.name}"  # noqa: RUF001

    @property
    def difference(self) -> float:
        """Mean over the seeds."""
        return fmean(self.differences.values())

    @property
    def seeds(self) -> str:
        """Their number, in words."""
        return f"{len(self.differences)} seed{'s' * (len(self.differences) > 1)}"

    @property
    def smallest(self) -> float:
        """The smallest p that so many pairs allow, uncorrected."""
        return smallest_p(len(self.differences))

    @property
    def outcome(self) -> str:
        """ "significant", "not significant", or "inconclusive" where no result could have been significant."""
        if self.adjusted < SIGNIFICANCE:
            return "significant"
        return "not significant" if self.attainable < SIGNIFICANCE else "inconclusive"

    @property
    def verdict(self) -> str:
        """The outcome and what it rests on."""
        if self.outcome != "inconclusive":
            return f"{self.outcome} (p = {self.adjusted:.2g})"
        if self.smallest >= SIGNIFICANCE:
            return f"inconclusive ({self.seeds}: p cannot be below {self.smallest:.2g})"
        return f"inconclusive ({self.seeds}: p cannot be below {self.attainable:.2g} after correction)"


def compare_all(scenarios: Sequence[Scenario]) -> list[Comparison]:
    """Every declared comparison that has a seed on both sides; the family of Holm's correction is all of them."""
    found = []
    for scenario in scenarios:
        for method, baseline in scenario.pairs:
            figures = [row.metrics("test", scenario.metric) for row in (method, baseline)]
            seeds = [seed for seed in figures[0] if seed in figures[1]]
            if seeds:
                found.append(
                    (scenario, method, baseline, {seed: figures[0][seed] - figures[1][seed] for seed in seeds})
                )
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
