"""What was found, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from .comparisons import Comparison
from .scenarios import Row, Scenario
from .tables import mean_and_spread

__all__ = ["EXPLANATIONS", "of_all", "of_scenario"]


def of_all(scenarios: Sequence[Scenario], comparisons: Sequence[Comparison]) -> str:
    """How many comparisons came out how."""
    where = f"{len(scenarios)} scenario{'s' * (len(scenarios) != 1)}"
    if not comparisons:
        return f"No comparison was declared that could be made in {where}: the figures below are not tested."
    outcomes = Counter(each.outcome for each in comparisons)
    ahead = sum(each.outcome == "significant" and each.difference > 0 for each in comparisons)
    parts = []
    if outcomes["significant"]:
        behind = outcomes["significant"] - ahead
        parts.append(
            f"{outcomes['significant']} found a significant difference over seeds ({ahead} in favour of the method"
            + (f", {behind} of the baseline)" if behind else ")")
        )
    if outcomes["not significant"]:
        parts.append(f"{outcomes['not significant']} found none that is significant")
    if outcomes["inconclusive"]:
        parts.append(f"{outcomes['inconclusive']} ha{'s' if outcomes['inconclusive'] == 1 else 've'} "
                     "too few seeds to conclude anything")  # fmt: skip
    some = "The one comparison declared" if len(comparisons) == 1 else f"Of {len(comparisons)} comparisons declared"
    if len(comparisons) == 1:
        return f"{some} in {where} {parts[0].removeprefix('1 ')}."
    return f"{some} in {where}, {_listed(parts)} (Holm-corrected over all {len(comparisons)})."


def of_scenario(scenario: Scenario, comparisons: Sequence[Comparison]) -> list[str]:
    """What the models reach, and a sentence per comparison."""
    test = {row: found for row in scenario.rows if (found := row.figures("test", scenario.metric))}
    students = [row for row in scenario.students if row in test]
    if not students:
        return [f"No student has a test {scenario.metric_title}."]
    best = max(students, key=lambda row: fmean(test[row].values()))
    sentences = [f"{_reached(best, scenario)} is the best mean of the students."]
    if scenario.ceiling is not None:
        sentences[0] = f"The teacher reaches {100 * scenario.ceiling:.2f} % {scenario.metric_title}. {sentences[0]}"
    closed, plain = scenario.gap_closed(best), scenario.plain(best)
    if closed is not None and plain is not None:
        sentences[0] += (
            f" It closes {100 * closed:.0f} % of the gap between the student without distillation "
            f"({mean_and_spread(test[plain])}) and the teacher."
        )
    return sentences + [in_words(each) for each in comparisons if each.scenario is scenario]


def in_words(comparison: Comparison) -> str:
    """A comparison in a sentence."""
    points = 100 * comparison.difference
    relation = "level with" if round(points, 2) == 0 else "ahead of" if points > 0 else "behind"
    by = "" if round(points, 2) == 0 else f" by {abs(points):.2f} points"
    interval = comparison.interval
    limits = "" if interval is None else f" [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
    return (
        f"{comparison.method.name} is {relation} {comparison.baseline.name}{by}{limits} on average of "
        f"{comparison.seeds}: {comparison.verdict}."
    )


def _reached(row: Row, scenario: Scenario) -> str:
    seeds = len(row.figures("test", scenario.metric))
    return f"{row.name} with {mean_and_spread(row.figures('test', scenario.metric))} ({seeds} seed{'s' * (seeds > 1)})"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


#: What a reader needs to know about the figures, as (term, explanation).
EXPLANATIONS = (
    ("Mean ± standard deviation", "over seeds; a single seed has no standard deviation. All figures are in percent."),
    (
        "Gap closed",
        "the share of the distance from the student without distillation to the teacher (the best, where there are "
        "several), on the seeds that both students have.",
    ),
    (
        "p",
        "of the exact two-sided sign-flip test over paired seeds: the share of all 2ⁿ patterns of signs whose mean "
        "difference is as far from 0 as the one observed. With n seeds it cannot be below 2/2ⁿ.",
    ),
    (
        "p, Holm",
        "p after Holm's correction; the family is all comparisons of this report that the configurations declare and "
        "that have a seed on both sides.",
    ),
    (
        "Verdict",
        "significant where the corrected p is below 0.05; inconclusive where it could not have come out below 0.05 "
        "even if every seed had agreed, which says nothing about whether there is a difference.",
    ),
    (
        "95 % interval",
        "bias-corrected and accelerated (BCa) bootstrap over test sentences, 2,000 samples, paired, averaged over "
        "seeds: how much hangs on this test set. It says nothing about other seeds.",
    ),
    ("KL", "exact KL(teacher || student) on the development text, at temperature 1, in nats a word."),
    (
        "Words/s",
        "decoded on one core, in processor time, median over seeds; beside it the ratio to the teacher (to all of "
        "them, one after the other, where there are several).",
    ),
    ("Sentences", "labelled + unlabelled ones that the model was trained on."),
)
