"""Structures given from outside: probabilities in every form, what is no structure, and what is known in part."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from families import (
    ARCS_LABELLED,
    BARE,
    DENSE,
    FACTORED,
    FAMILIES,
    HEAD_LABELING,
    HEADS,
    HEADS_LABELLED,
    MAXENT,
    MEAN_FIELDS,
    PROJECTIVE,
    SPANS,
    TREES,
    TREES_LABELLED,
    Arcs,
    Family,
    agrees,
    lengths_tensor,
    seeded,
)
from oracles import Enumeration, Structure, log_sum_exp
from torch import Tensor

import structkd
from structkd.distributions.kernels.engines import using

every_family = pytest.mark.parametrize("family", FAMILIES, ids=repr)


@pytest.fixture(autouse=True, params=["compiled", "log"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """What is a structure does not depend on the kernels; two of their paths will do."""
    with using(request.param):
        yield request.param


COMPACT = [family for family in FAMILIES if family is not SPANS]
INTEGERS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]
OPEN = -100


class Sample:
    """Random scores of a family, their enumeration, and the distribution."""

    def __init__(self, family: Family, seed: int, grad: bool = False, masked: bool = False, **options: Any) -> None:
        self.family, self.lengths, self.width = family, family.lengths, max(family.lengths) + 1
        self.scores = family.scores(seeded(seed), len(self.lengths), self.width)
        if masked:
            self.scores, _ = family.masked(self.scores, self.lengths, seeded(seed))
        self.enumerations = family.enumerate(self.scores, self.lengths)
        self.scores = family.with_grad(self.scores) if grad else self.scores
        self.distribution = family.build(self.scores, lengths_tensor(self.lengths), **options)

    def some(self, seed: int) -> list[Structure]:
        """One structure of every sentence, whatever its score."""
        draw = torch.Generator().manual_seed(seed)
        listed = [sorted(e.scores) for e in self.enumerations]
        return [ys[int(torch.randint(len(ys), (1,), generator=draw))] for ys in listed]

    def compact(self, structures: Sequence[Structure]) -> Any:
        """As `decode` gives them."""
        rows = [self.family.decoded(y, self.width) for y in structures]
        return rows if self.family is SPANS else torch.tensor(rows)

    def events(self, structures: Sequence[Structure]) -> Tensor:
        return torch.stack([self.family.event(y, self.width) for y in structures])

    def log_probs(self, structures: Sequence[Structure]) -> list[float]:
        """Of structures as `compact` says them: relations of arcs are not said."""
        if getattr(self.family, "relations", None) is None:
            return [e.log_prob(y) for e, y in zip(self.enumerations, structures, strict=True)]
        return self.agreeing([[head for head, _ in y] for y in structures])

    def agreeing(self, rows: Sequence[Sequence[int]]) -> list[float]:
        """log P of all structures that agree with rows of labels or heads, OPEN where not known."""
        return [log_sum_exp(map(e.log_prob, fits(e, row))) for e, row in zip(self.enumerations, rows, strict=True)]


def fits(enumeration: Enumeration, row: Sequence[int]) -> list[Structure]:
    return [
        y
        for y in enumeration.scores
        if all(g in (OPEN, p[0] if isinstance(p, tuple) else p) for g, p in zip(row, y, strict=False))
    ]


@every_family
@pytest.mark.parametrize("masked", [False, True], ids=["finite", "impossible"])
def test_log_prob_of_every_form(family: Family, masked: bool) -> None:
    sample = Sample(family, 1, masked=masked)
    rounds = [sample.some(seed) for seed in range(4)]
    for structures in rounds:
        found = sample.distribution.log_prob(sample.compact(structures))
        assert agrees(found, sample.log_probs(structures))
    if family is not SPANS:
        several = torch.stack([sample.compact(structures) for structures in rounds]).view(2, 2, len(sample.lengths), -1)
        expected = torch.tensor([sample.log_probs(structures) for structures in rounds], dtype=torch.float64)
        assert agrees(sample.distribution.log_prob(several), expected.view(2, 2, -1))
    best = sample.distribution.log_prob(sample.distribution.decode())
    if getattr(family, "relations", None) is None:
        assert agrees(best, sample.distribution.max - sample.distribution.partition)
    tempered = sample.distribution.tempered(2.0)
    colder = family.enumerate(sample.scores, sample.lengths, 2.0)
    if getattr(family, "relations", None) is None:
        expected = [e.log_prob(y) for e, y in zip(colder, rounds[0], strict=True)]
        assert agrees(tempered.log_prob(sample.compact(rounds[0])), expected)


@every_family
def test_log_prob_learns(family: Family) -> None:
    """The gradient of log P(y) is the event less the marginals, for events and for what `decode` gives."""
    structures = Sample(family, 2).some(0)
    gradients = []
    for form in ("compact", "events"):
        sample = Sample(family, 2, grad=True)
        one_word = torch.tensor([n > 1 or family.one_word_events for n in sample.lengths])
        found = sample.distribution.log_prob(getattr(sample, form)(structures))
        torch.where(one_word, found, 0.0).sum().backward()
        gradients.append({name: sample.scores[name].grad for name in family.floats(sample.scores)})
    if getattr(family, "relations", None) is None:
        for name, gradient in gradients[0].items():
            assert agrees(gradient, gradients[1][name]), name
    if family.score_is_event and family.one_word_events:
        expected = sample.events(structures) - sample.distribution.marginals
        assert agrees(gradients[1]["scores"], expected)


@pytest.mark.parametrize("family", COMPACT, ids=repr)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_every_integer_dtype(family: Family, dtype: torch.dtype) -> None:
    sample = Sample(family, 3, grad=True)
    gold = sample.compact(sample.some(0))
    expected = sample.distribution.log_prob(gold)
    assert torch.equal(sample.distribution.log_prob(gold.to(dtype)), expected)
    assert agrees(-structkd.supervised_loss(sample.distribution, gold.to(dtype), reduction="none"), expected)


def test_labels_beyond_a_small_dtype() -> None:
    """More labels and words than an int8 holds."""
    for student in (structkd.MaxEnt(torch.randn(1, 3, 300)), structkd.HeadSelection(torch.randn(1, 200, 200))):
        gold = torch.zeros(1, student.words, dtype=torch.int8)
        assert agrees(student.log_prob(gold), student.log_prob(gold.long()))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_other_integers_of_every_dtype(dtype: torch.dtype) -> None:
    """What labels of `HeadLabeling` name, and torch-struct's compact forms."""
    logits = torch.randn(2, 3, 4, generator=seeded(1))
    heads, relations = torch.randint(0, 3, (2, 3, 4), generator=seeded(2)), torch.tensor([0, 1, 1, 0])
    teacher = structkd.HeadSelection(torch.randn(2, 3, 3, 2, generator=seeded(3)))
    expected = structkd.HeadLabeling(logits, heads, relations)
    student = structkd.HeadLabeling(logits, heads.to(dtype), relations.to(dtype))
    assert agrees(structkd.project(teacher, student), structkd.project(teacher, expected))
    assert all(map(torch.equal, student.decode_trees(), expected.decode_trees()))
    for family in (DENSE, MAXENT, PROJECTIVE):
        distribution, sequence = Sample(family, 1).distribution, torch.ones(4, 5, dtype=dtype)
        wanted = distribution.to_event(sequence.long())
        assert torch.equal(distribution.to_event(sequence), wanted)
        assert torch.equal(distribution.to_event(sequence, None, distribution.lengths.tolist()), wanted)


partly = pytest.mark.parametrize("family", COMPACT, ids=repr)


@partly
@pytest.mark.parametrize("masked", [False, True], ids=["finite", "impossible"])
def test_labels_and_heads_that_are_not_known(family: Family, masked: bool) -> None:
    """The likelihood of all structures that agree, and its gradient: what they expect less what all expect."""
    sample = Sample(family, 4, grad=True, masked=masked)
    gold = sample.compact(sample.some(1))
    gold[torch.rand(gold.shape, generator=seeded(5)) < 0.4] = OPEN
    expected = sample.agreeing(gold.tolist())
    assert agrees(sample.distribution.log_prob(gold), expected)
    loss = structkd.supervised_loss(sample.distribution, gold, reduction="none")
    assert agrees(loss, [-value for value in expected])
    possible = torch.tensor(expected) > -math.inf
    weights = torch.arange(1.0, len(expected) + 1, dtype=torch.float64) * possible
    torch.where(possible, loss, 0.0).mul(weights).sum().backward()
    if family.partition_is_sum:
        counts = []
        for weight, row, e in zip(weights.tolist(), gold.tolist(), sample.enumerations, strict=True):
            if not weight:
                counts.append({})
                continue
            everywhere, agreeing = e.expectation(family.cells), e.restricted(fits(e, row)).expectation(family.cells)
            cells = everywhere.keys() | agreeing.keys()
            counts.append({c: weight * (everywhere.get(c, 0.0) - agreeing.get(c, 0.0)) for c in cells})
        for name, gradient in family.gradients(sample.scores, counts).items():
            assert agrees(sample.scores[name].grad, gradient), name


def test_nothing_known_is_certain_and_teaches_nothing() -> None:
    for family in COMPACT:
        sample = Sample(family, 6, grad=True)
        gold = torch.full((len(sample.lengths), sample.width), OPEN)
        assert agrees(sample.distribution.log_prob(gold), [0.0] * len(gold))
        loss = structkd.supervised_loss(sample.distribution, gold, reduction="none")
        assert agrees(loss, [0.0] * len(gold))
        loss.sum().backward()
        for name in family.floats(sample.scores):
            assert sample.scores[name].grad.abs().max() < 1e-9


# -- outside the space ------------------------------------------------------------------------------------------------


def test_trees_outside_the_space() -> None:
    """Assignments of heads to four words, in both forms: a tree of the class, or -inf."""
    for family in TREES:
        allowed = set(family.structures(4))
        scores = family.scores(seeded(7), 1, 5)
        distribution = family.build(scores, lengths_tensor([4]))
        (enumeration,) = family.enumerate(scores, [4])
        listed = list(itertools.product(range(4), repeat=4))[::3]
        rows = torch.tensor([[*heads, -1] for heads in listed])
        expected = torch.tensor([enumeration.log_prob(heads) for heads in listed], dtype=torch.float64)
        assert ((expected > -math.inf) == torch.tensor([heads in allowed for heads in listed])).all()
        assert agrees(distribution.log_prob(rows.unsqueeze(1)).squeeze(1), expected)
        events = torch.stack([family.event(heads, 5) for heads in listed])
        assert agrees(distribution.log_prob(events.unsqueeze(1)).squeeze(1), expected)


REASONS: list[tuple[str, Callable[[], Any], Any, str]] = [
    ("crossing", lambda: structkd.DependencyCRF(torch.zeros(2, 4, 4)), [[1, 1, 1, 1], [2, 3, 2, 2]], "cross.*lift"),
    ("cycle", lambda: structkd.DependencyCRF(torch.zeros(2, 4, 4)), [[1, 1, 1, 1], [1, 0, 2, 2]], "cycle"),
    ("cycle", lambda: structkd.NonProjectiveDependencyCRF(torch.zeros(2, 3, 3)), [[0, 0, 0], [1, 2, 0]], "cycle"),
    ("roots", lambda: structkd.DependencyCRF(torch.zeros(2, 3, 3)), [[0, 0, 0], [0, 1, 1]], "several roots.*multiroot"),
    (
        "labelled roots",
        lambda: structkd.NonProjectiveDependencyCRF(torch.zeros(2, 3, 3)).with_relations(torch.zeros(2, 3, 3, 2)),
        [[0, 0, 0], [0, 1, 1]],
        "several roots.*multiroot",
    ),
    (
        "beyond",
        lambda: structkd.HeadSelection(torch.zeros(2, 3, 3), lengths=[3, 2]),
        [[0, 0, 0], [2, 0, 0]],
        "beyond the sentence",
    ),
    ("overlap", lambda: structkd.SpanCRF(torch.zeros(2, 3, 3, 1)), [[], [(0, 1, 0), (1, 2, 0)]], "overlap"),
    ("twice", lambda: structkd.SpanCRF(torch.zeros(2, 3, 3, 1)), [[], [(0, 1, 0), (0, 1, 0)]], "overlap"),
]


@pytest.mark.parametrize(("build", "structures", "reason"), [row[1:] for row in REASONS], ids=[r[0] for r in REASONS])
def test_what_is_no_structure_is_refused_as_gold(build: Callable[[], Any], structures: Any, reason: str) -> None:
    student = build()
    gold = structures if isinstance(student, structkd.SpanCRF) else torch.tensor(structures)
    log_probs = student.log_prob(gold)
    assert log_probs[0] > -math.inf
    assert log_probs[1] == -math.inf
    name = type(student).__name__
    with pytest.raises(ValueError, match=rf"Gold of batch item 1 is not a structure of {name}: it .*{reason}"):
        structkd.supervised_loss(student, gold)
    with pytest.raises(ValueError, match=rf"batch item 1 .*{reason}"):
        structkd.KDObjective(None)(None, student, gold)
    assert structkd.KDObjective(None)(None, student, gold, labelled=torch.tensor([True, False])).isfinite()


@every_family
@pytest.mark.parametrize("dtype", [torch.float64, torch.bool, torch.long], ids=str)
def test_events_that_are_no_structure(family: Family, dtype: torch.dtype) -> None:
    """An event without one of its parts, with one more, and, where it can be, with half of one."""
    sample = Sample(family, 8)
    item = sample.lengths.index(max(sample.lengths))
    structures = [max(e.scores, key=len) for e in sample.enumerations]
    right = sample.events(structures)
    cells = (right[item] == 1).nonzero().tolist()
    broken = []
    if family is not SPANS:  # a span less is a structure
        broken.append((cells[0], 0))
    other = list(cells[0])
    if family is SPANS:
        structures[item] = ((0, 1, 0),)
        right = sample.events(structures)
        other, cells = [1, 1, 0], [[0, 1, 0]]
    else:
        axis = 0 if isinstance(family, Arcs) and family.relations is None else -1
        other[axis] += 1 if other[axis] == 0 else -1
    broken.append((other, 1))
    if dtype == torch.float64:
        broken += [(cells[0], 0.5), (cells[0], math.nan)]
    if dtype != torch.bool:
        broken += [(cells[0], 2), (cells[0], -1)]
    assert sample.distribution.log_prob(right.to(dtype))[item] > -math.inf
    for cell, value in broken:
        event = right.to(dtype, copy=True)
        event[(item, *cell)] = value
        found = sample.distribution.log_prob(event)
        assert found[item] == -math.inf
        assert (found[[i for i in range(len(found)) if i != item]] > -math.inf).all()
        if value == 0 and family in (MAXENT, HEAD_LABELING, HEADS, HEADS_LABELLED, *MEAN_FIELDS):
            # a word that chooses alone may be left out of gold, but not all of a sentence's
            loss = structkd.supervised_loss(sample.distribution, event, reduction="none")
            assert 0 < loss[item] < -sample.distribution.log_prob(right)[item]
            event[item] = 0
        with pytest.raises(ValueError, match=rf"Gold of batch item {item} is not a structure"):
            structkd.supervised_loss(sample.distribution, event)


def test_bigrams_that_contradict_each_other() -> None:
    event = torch.zeros(2, 2, 2, 2)
    event[0, 0, 0, 0] = event[0, 1, 1, 0] = 1
    event[1, 0, 1, 0] = event[1, 1, 0, 0] = 1
    factored = structkd.LinearChainCRF.from_scores(torch.zeros(2, 3, 2), torch.zeros(2, 2))
    for student in (structkd.LinearChainCRF(torch.zeros(2, 2, 2, 2)), factored):
        assert agrees(student.log_prob(event), [-math.log(8), -math.inf], torch.float32)
        with pytest.raises(ValueError, match=r"batch item 1 .*bigrams that contradict"):
            structkd.supervised_loss(student, event)


def test_what_is_known_in_part_may_be_no_structure_either() -> None:
    student = structkd.DependencyCRF(torch.zeros(2, 4, 4))
    gold = torch.tensor([[OPEN, OPEN, 1, OPEN], [1, 0, OPEN, OPEN]])
    assert student.log_prob(gold)[1] == -math.inf
    with pytest.raises(ValueError, match=r"batch item 1 .*no structure of the class has together"):
        structkd.supervised_loss(student, gold)


@every_family
def test_structures_that_scores_exclude(family: Family) -> None:
    """-inf as log probability and +inf as loss; finite gradients that are 0 for other sentences only if theirs are."""
    sample = Sample(family, 9)
    kept = sample.some(3)
    item = sample.lengths.index(max(sample.lengths))
    scores = family.only(sample.scores, sample.lengths, [e.ranked()[0] for e in sample.enumerations])
    enumerations = family.enumerate(scores, sample.lengths)
    kept[item] = next(y for y in enumerations[item].scores if enumerations[item].log_prob(y) == -math.inf)
    learning = family.with_grad(scores)
    distribution = family.build(learning, lengths_tensor(sample.lengths))
    events, compact = sample.events(kept), sample.compact(kept)
    assert distribution.log_prob(events)[item] == -math.inf
    forms = [events] if family in ARCS_LABELLED else [compact] if family in (FACTORED, BARE) else [events, compact]
    for gold in forms if family.student else ():
        assert distribution.log_prob(gold)[item] == -math.inf
        loss = structkd.supervised_loss(distribution, gold, reduction="none")
        assert loss[item] == math.inf
        loss.sum().backward()
        for name in family.floats(learning):
            assert learning[name].grad.isfinite().all()


@pytest.mark.parametrize("family", [*TREES, *TREES_LABELLED], ids=repr)
def test_unlabelled_sentences_may_have_anything_for_gold(family: Family) -> None:
    sample = Sample(family, 10, grad=True)
    right = sample.events(sample.some(4)).bool()
    labelled = torch.tensor([True, False, *[True] * (len(right) - 2)])
    gold = right.clone()
    gold[~labelled] = False
    loss = structkd.KDObjective(None)(None, sample.distribution, gold, labelled=labelled)
    expected = structkd.supervised_loss(sample.distribution, right, reduction="none")
    assert agrees(loss, expected[labelled].sum() / len(labelled))


def test_things_that_are_no_structures() -> None:
    student = structkd.MaxEnt(torch.zeros(2, 3, 4))
    for wrong in ([[0, 0, 0], [0, 0, 0]], np.zeros((2, 3), dtype=int), "labels", None):
        with pytest.raises(TypeError, match=r"log_prob takes|labels must be a LongTensor \[B, N\], got list"):
            student.log_prob(wrong)
        with pytest.raises(TypeError, match="labels must be a LongTensor"):
            structkd.supervised_loss(student, wrong)
    for wrong in (torch.zeros(2, 2), torch.zeros(2, 3), torch.zeros(3, 3, dtype=torch.long)):
        with pytest.raises(ValueError, match="log_prob takes"):
            student.log_prob(wrong)
    spans = structkd.SpanCRF(torch.zeros(2, 3, 3, 1))
    with pytest.raises(ValueError, match="for 2 sentences, got 1"):
        spans.log_prob([[]])
    with pytest.raises(ValueError, match=r"Span \(1, 3, 0\) of batch item 1"):
        spans.log_prob([[], [(1, 3, 0)]])
    for wrong in (3, [[], None], [[(0, 1)], []], [[(0.0, 1, 0)], []], [[(0, 1, 0, 0)], []]):
        with pytest.raises(TypeError, match="a list of spans"):
            structkd.supervised_loss(spans, wrong)
    assert agrees(spans.log_prob([[(np.int64(0), torch.tensor(1), 0)], ()]), spans.log_prob([[(0, 1, 0)], []]))


# -- the best structures learn ----------------------------------------------------------------------------------------


@every_family
def test_max_and_kmax_are_differentiable(family: Family) -> None:
    """The gradient of the best score is the best structure's parts, as torch-struct's is."""
    for mode in (torch.no_grad, torch.inference_mode):
        sample = Sample(family, 13, grad=True, masked=True)
        with mode():
            value, values = sample.distribution.max, sample.distribution.kmax(3)
        assert not value.requires_grad
        assert not values.requires_grad
        assert agrees(sample.distribution.max, value)
        assert agrees(sample.distribution.kmax(3), values)
        sample.distribution.max.sum().backward()
        if not family.partition_is_sum:
            continue
        best = [dict(Counter(family.cells(e.ranked()[0]))) for e in sample.enumerations]
        if family is DENSE:
            best[sample.lengths.index(1)] = {}
        for name, gradient in family.gradients(sample.scores, best).items():
            assert agrees(sample.scores[name].grad, gradient), name
    sample = Sample(family, 13, grad=True, masked=True)
    values, events = sample.distribution.kmax(3), sample.distribution.topk(3)
    assert values.requires_grad
    values[2].masked_fill(values[2] == -math.inf, 0.0).sum().backward()
    if family.score_is_event:
        assert agrees(sample.scores["scores"].grad, events[2])


def test_a_margin_loss() -> None:
    for family in (DENSE, PROJECTIVE, MAXENT, BARE, FACTORED):
        sample = Sample(family, 14, grad=True)
        gold = sample.compact(sample.some(8))
        margin = sample.distribution.max - sample.distribution.log_prob(gold) - sample.distribution.partition
        margin.sum().backward()
        expected = []
        for e, row in zip(sample.enumerations, gold.tolist(), strict=True):
            (right,) = fits(e, row)
            counts = Counter(family.cells(e.ranked()[0]))
            counts.subtract(family.cells(right))
            expected.append({} if family is DENSE and len(right) == 1 else counts)
        for name, gradient in family.gradients(sample.scores, expected).items():
            assert agrees(sample.scores[name].grad, gradient), name
