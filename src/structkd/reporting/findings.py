"""The findings of a report, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean

from .comparisons import SIGNIFICANCE, Comparison
from .scenarios import Scenario
from .tables import intervals, mean_and_spread, percent

__all__ = ["EXPLANATIONS", "correction", "of_all", "of_scenario"]


def of_all(scenarios: Sequence[Scenario], comparisons: Sequence[Comparison]) -> str:
    """Summarize the outcomes of all comparisons."""
    where = f"{len(scenarios)} scenario{'s' * (len(scenarios) != 1)}"
    if not comparisons:
        return f"No comparison was declared that could be made in {where}: the figures below are not tested."
    family = f" {correction(comparisons)}" if len(comparisons) > 1 else ""
    several = f"{len(comparisons)} comparisons were" if len(comparisons) > 1 else "One comparison was"
    return f"{several} declared in {where}: {_outcomes(comparisons)}.{family}"


def correction(comparisons: Sequence[Comparison]) -> str:
    """Say over how many comparisons p is corrected, or that none of them could be significant."""
    if all(each.attainable >= SIGNIFICANCE for each in comparisons):
        least = min(each.attainable for each in comparisons)
        return f"None could be significant: with so few seeds or teachers, p after correction is {least:.3g} or more."
    return f"p is Holm-corrected over the {comparisons[0].family} that could be significant."


def of_scenario(scenario: Scenario, comparisons: Sequence[Comparison]) -> list[str]:
    """Summarize a scenario: its best student, and its comparisons (of many, those of the best student)."""
    test = {row: found for row in scenario.rows if (found := row.metrics("test", scenario.metric))}
    students = [row for row in scenario.students if row in test]
    if not students:
        return [f"No student has a test {scenario.metric_title}."]
    best = max(students, key=lambda row: fmean(test[row].values()))
    closed, plain = scenario.gap_closed(best), scenario.plain(best)
    number = len(test[best])
    sentence = f"{best.name} is the best student with {mean_and_spread(test[best])} ({_seeds(number)})"
    if scenario.ceiling is not None:
        sentence += f"; the teacher has {100 * scenario.ceiling:.2f}"
    if closed is not None and plain is not None:
        sentence += (
            f", a student without distillation {percent(test[plain])}: {100 * closed:.0f}\u00a0% of the gap is closed"
        )
    of_scenario = [comparison for comparison in comparisons if comparison.scenario is scenario]
    listed = of_scenario
    if len(of_scenario) > _LISTED:
        listed = [comparison for comparison in of_scenario if best in (comparison.method, comparison.baseline)][
            :_LISTED
        ]
    sentences = [f"By test {scenario.metric_title}, {sentence}.", *map(in_words, listed)]
    if len(listed) < len(of_scenario):
        sentences.append(f"Of all {len(of_scenario)} comparisons: {_outcomes(of_scenario)}.")
    return [*sentences, *scenario.remarks]


def _outcomes(comparisons: Sequence[Comparison]) -> str:
    """Count the outcomes of some comparisons, in words."""
    count = Counter(comparison.outcome for comparison in comparisons)
    ahead = sum(comparison.outcome == "significant" and comparison.difference > 0 for comparison in comparisons)
    favour = f" ({ahead} in favour of the method)" if len(comparisons) > 1 else ""
    parts = [
        (count["significant"], f"a significant difference over seeds{favour}"),
        (count["not significant"], "none that is significant"),
        (count["inconclusive"], "too few seeds to conclude anything"),
    ]
    found = [(number, text) for number, text in parts if number]
    if len(found) == 1:
        return f"{'all have ' * (len(comparisons) > 1)}{found[0][1]}"
    return ", ".join(f"{number} {'has' if number == 1 else 'have'} {text}" for number, text in found)


def in_words(comparison: Comparison) -> str:
    """Return a comparison as a sentence."""
    points = 100 * comparison.difference
    relation = "level with" if round(points, 2) == 0 else "ahead of" if points > 0 else "behind"
    by = "" if round(points, 2) == 0 else f" by {abs(points):.2f} points"
    between = f"{comparison.method.name} is {relation} {comparison.baseline.name}{by}{intervals(comparison)}"
    return f"{between}: {comparison.verdict}."


def _seeds(number: int) -> str:
    return f"{number} seed{'s' * (number > 1)}"


#: A summary lists at most so many comparisons of a scenario.
_LISTED = 4

#: Terms of the report and their explanations.
EXPLANATIONS = (
    ("Mean ± standard deviation", "over seeds; a single seed has no standard deviation. All figures are in percent."),
    (
        "Gap closed",
        "the share of the distance from the student without distillation to the teacher (the best, if there are "
        "several), on the seeds that both students have.",
    ),
    (
        "p",
        "of the exact two-sided sign-flip test over paired seeds: the share of all 2ⁿ patterns of signs whose mean "
        "difference is as far from 0 as the one observed. With n seeds it cannot be below 2/2ⁿ.",
    ),
    (
        "p, Holm",
        "p after Holm's correction; the family is the comparisons of this report that the configurations declare, that "
        "have a seed on both sides, and that can be significant at all (Tarone, 1990): rows of few seeds cost the "
        "others no power.",
    ),
    (
        "Verdict",
        "significant if the corrected p is below 0.05; inconclusive if it could not have been below 0.05 even if every "
        "seed had agreed, which says nothing about whether there is a difference.",
    ),
    (
        "95 % interval",
        "bias-corrected and accelerated (BCa) bootstrap over test sentences, 2,000 samples, paired, averaged over "
        "seeds: how much depends on this test set. It says nothing about other seeds.",
    ),
    (
        "Over teachers",
        "if the teacher's seed varies with the student's (teacher.seed='${seed}'), differences are averaged by "
        "teacher, and teachers are the units of tests and intervals; otherwise all figures hold for this one teacher.",
    ),
    (
        "Detectable difference",
        "the mean difference that as many seeds (or teachers) with this spread would show at p < 0.05, before "
        "correction, in four of five repetitions. A smaller true difference would most often be missed.",
    ),
    (
        "p, equivalent",
        "of two one-sided sign-flip tests that the difference is smaller than the margin declared in the configuration "
        "(margin), corrected likewise. Without a margin, methods are never said to be equal.",
    ),
    (
        "Targets, dev",
        "the figure of the method's targets on dev, decoded as the student decodes: a prediction of which method has "
        "more to teach.",
    ),
    (
        "Transitions' KL",
        "KL(marginals || softmaxed emissions) of a CRF teacher on dev, in nats a word: near 0, it is a CRF in name "
        "only.",
    ),
    ("KL", "exact KL(teacher || student) on the development text, at temperature 1, in nats a word."),
    (
        "Words/s",
        "decoded on one core, in processor time, median over seeds; beside it the ratio to the teacher (to all of "
        "them, one after the other, if there are several).",
    ),
    (
        "Parameters",
        "of a model with its vocabulary, which is made of its own training text: students that distil read more words "
        "than the student without distillation, and have more parameters.",
    ),
    ("Sentences", "labelled + unlabelled ones that the model was trained on."),
)
