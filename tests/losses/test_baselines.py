"""Baselines of the literature, where they meet the definition."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from families import (
    DENSE,
    FACTORED,
    HEADS,
    HEADS_LABELLED,
    MAXENT,
    MEAN_FIELD,
    NONPROJECTIVE,
    PROJECTIVE,
    SPANS,
    Arcs,
    Family,
    Trees,
    agrees,
    lengths_tensor,
    random,
    seeded,
)
from listed import Listed
from oracles import Enumeration, cross_entropy, log_sum_exp, softmax
from pairs import LONG, RELABELLED, TO_TAGS, TYPES, Pair
from torch import Tensor

import structkd
from structkd.distributions.kernels import arithmetic
from structkd.training.pseudo_labels import pseudo_label_loss

CHAIN = Pair(FACTORED, FACTORED)
FUNCTIONS = {
    "token_kd_loss": Pair(MAXENT, FACTORED),
    "posterior_kd_loss": CHAIN,
    "emission_kd_loss": CHAIN,
    "logit_matching_loss": CHAIN,
}


@pytest.mark.parametrize("pair", [Pair(FACTORED, FACTORED), Pair(DENSE, DENSE, LONG), Pair(MAXENT, FACTORED)], ids=repr)
@pytest.mark.parametrize(("k", "weighted"), [(1, False), (2, True), (5, False)])
def test_topk(pair: Pair, weighted: bool, k: int) -> None:
    """The teacher's k best structures, equally weighted or by their renormalised probabilities, as targets."""
    teacher, student = pair.scores(1)
    expected = []
    for p, q in zip(
        pair.teacher.enumerate(teacher, pair.lengths), pair.student.enumerate(student, pair.lengths), strict=True
    ):
        best = p.ranked()[:k]
        kept = Enumeration({y: p.scores[y] if weighted else 0.0 for y in best})
        expected.append(cross_entropy(kept, q))
    built = pair.build(teacher, student)
    assert agrees(structkd.topk_kd_loss(*built, k=k, weighted=weighted, reduction="none"), expected)


LISTED_AND_MAPPED = next(pair for pair in RELABELLED if isinstance(pair.teacher.of, Listed))


@pytest.mark.above_kernels
@pytest.mark.parametrize(("pair", "k"), [(CHAIN, 243), (LISTED_AND_MAPPED, 7), (RELABELLED[-2], 125)], ids=repr)
def test_weighted_topk_of_everything_is_structural_kd(pair: Pair, k: int) -> None:
    teacher, student = pair.scores(2)
    everything = structkd.topk_kd_loss(*pair.build(teacher, student), 2.0, k=k, weighted=True, reduction="none")
    assert agrees(everything, pair.loss(teacher, student, 2.0))


MAPPED = [pair for pair in RELABELLED if not isinstance(pair.teacher.of, Listed)][::3]
#: Sequences of tags have equal weights; spans that several of them write have more.
DISTINCT = [pair for pair in MAPPED if not pair.student.name.startswith("spans") or "types" in pair.teacher_options]


@pytest.mark.above_kernels
@pytest.mark.parametrize(
    ("pair", "k", "weighted"),
    [*((pair, k, k > 1) for pair in MAPPED for k in (1, 5)), *((pair, 7, False) for pair in DISTINCT)],
    ids=repr,
)
def test_topk_of_a_mapped_teacher(pair: Pair, k: int, weighted: bool) -> None:
    """The images of the k best structures before the map; the probabilities of equal images are added."""
    teacher, student = pair.scores(3)
    expected = []
    for n, p, q in zip(
        pair.lengths,
        pair.teacher.enumerate(teacher, pair.lengths),
        pair.student.enumerate(student, pair.lengths, 2.0),
        strict=True,
    ):
        best = p.ranked()[:k]
        images: dict[Any, float] = {}
        for y, weight in zip(best, softmax([p.scores[y] / 2 for y in best]), strict=True):
            image = pair.convert(y, n)
            images[image] = images.get(image, 0.0) + weight if weighted else 1.0
        expected.append(4 * cross_entropy(Enumeration.from_probabilities(images), q))
    built = pair.build(teacher, student)
    assert agrees(structkd.topk_kd_loss(*built, 2.0, k=k, weighted=weighted, reduction="none"), expected)
    if k == 1 and pair.teacher.of is not HEADS_LABELLED:  # pseudo labels of independent heads are a tree
        assert agrees(pseudo_label_loss(*built, reduction="none"), structkd.topk_kd_loss(*built, k=1, reduction="none"))


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_posterior_kd_compares_label_marginals(temperature: float) -> None:
    teacher, student = CHAIN.scores(3)
    expected = []
    for n, p, q in zip(
        CHAIN.lengths,
        FACTORED.enumerate(teacher, CHAIN.lengths, temperature),
        FACTORED.enumerate(student, CHAIN.lengths, temperature),
        strict=True,
    ):
        of_p, of_q = (e.expectation(lambda y: list(enumerate(y))) for e in (p, q))
        expected.append(-(temperature**2) * sum(of_p[d, c] * math.log(of_q[d, c]) for d in range(n) for c in range(3)))
    built = CHAIN.build(teacher, student)
    assert agrees(structkd.posterior_kd_loss(*built, temperature=temperature, reduction="none"), expected)


@pytest.mark.parametrize("name", ["token_kd_loss", "emission_kd_loss", "posterior_kd_loss"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_independent_words_leave_nothing_to_choose(name: str, temperature: float) -> None:
    pair = Pair(MAXENT, MAXENT)
    teacher, student = pair.scores(4)
    loss = getattr(structkd, name)(*pair.build(teacher, student), temperature=temperature, reduction="none")
    assert agrees(loss, pair.loss(teacher, student, temperature))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signature(name: str) -> None:
    """The same arguments as the structural loss; finite, differentiable in the student only."""
    function, pair = getattr(structkd, name), FUNCTIONS[name]
    teacher, student = pair.scores(5)
    watched, learning = pair.teacher.with_grad(teacher), FACTORED.with_grad(student)
    built = pair.build(watched, learning)
    each = function(*built, temperature=2.0, reduction="none")
    assert each.shape == (len(CHAIN.lengths),)
    assert each.isfinite().all()
    assert agrees(function(*built, temperature=2.0), each.mean())
    assert agrees(function(*built, temperature=2.0, reduction="sum"), each.sum())
    assert agrees(function(*built, temperature=2.0, reduction="token"), each.sum() / sum(CHAIN.lengths))
    assert agrees(function(*built, temperature=2.0, num_items=3), each.sum() / 3)
    each.sum().backward()
    assert all(tensor.grad is None for tensor in watched.values())
    assert learning["emissions"].grad.isfinite().all()


def test_supervised_loss_is_the_negative_log_likelihood() -> None:
    for family in (FACTORED, MAXENT):
        lengths = family.ragged
        scores = family.scores(seeded(6), len(lengths), max(lengths) + 1)
        enumerations = family.enumerate(scores, lengths)
        gold = [e.ranked()[len(e.scores) // 2] for e in enumerations]
        padded = torch.full((len(lengths), max(lengths) + 1), -100)
        for item, row in enumerate(gold):
            padded[item, : len(row)] = torch.tensor(row)
        student = family.build(scores, lengths_tensor(lengths))
        expected = torch.tensor([-e.log_prob(y) for e, y in zip(enumerations, gold, strict=True)], dtype=torch.float64)
        assert agrees(structkd.supervised_loss(student, padded, reduction="none"), expected)
        assert agrees(structkd.supervised_loss(student, padded), expected.mean())
        assert agrees(structkd.supervised_loss(student, padded, num_items=4), expected.sum() / 4)


@pytest.mark.parametrize("padding", [0.0, math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [structkd.DependencyCRF, structkd.NonProjectiveDependencyCRF])
def test_likelihood_of_labelled_trees(kind: Any, dtype: torch.dtype, padding: float, kernels: str) -> None:
    """Value and gradient as those of log_prob, whatever the padding holds and whatever else is impossible."""
    lengths, sizes = torch.tensor([5, 3, 1, 4]), (4, 5, 5, 3)
    scores = random(seeded(21), *sizes).to(dtype)
    inside = torch.arange(5) < lengths.unsqueeze(1)
    events = kind(scores, lengths, validate_args=False).sample()
    scores[0, 3, 3] = -math.inf if not events[0, 3, 3].any() else scores[0, 3, 3]
    scores[1, 0, 2, events[1, 0, 2] == 0] = -math.inf
    scores = scores.masked_fill(~(inside.unsqueeze(1) & inside.unsqueeze(2)).unsqueeze(-1), padding)
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=dtype)
    one, other = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    loss = structkd.supervised_loss(kind(one, lengths, validate_args=False), events.bool(), reduction="none")
    expected = -kind(other, lengths, validate_args=False).log_prob(events)
    tolerance = {"rtol": 1e-6, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(loss, expected, **tolerance)
    (gradient,) = torch.autograd.grad((weights * loss).sum(), one)
    (wanted,) = torch.autograd.grad((weights * expected).sum(), other)
    torch.testing.assert_close(gradient, wanted.nan_to_num(), **tolerance)


def test_likelihood_of_labelled_trees_takes_its_own_way() -> None:
    """Otherwise the test above would be of the general one."""
    scores = random(seeded(22), 2, 4, 4, 3)
    trees = structkd.NonProjectiveDependencyCRF(scores, torch.tensor([4, 2]))
    events = trees.sample()
    found = trees.fused_likelihood(events)
    assert found is not None
    assert agrees(found[0], -trees.log_prob(events))


def head_labels(teacher: Arcs, seed: int) -> tuple[Tensor, Tensor | None]:
    """Heads [N, N] in shuffled order for every word (all of them named once), with every relation."""
    words = max(teacher.ragged) + 1
    heads = torch.stack([torch.randperm(words, generator=seeded(seed + word)) for word in range(words)])
    if teacher.relations is None:
        return heads, None
    return heads.repeat_interleave(teacher.relations, 1), torch.arange(teacher.relations).repeat(words)


def as_labels(structure: Any, heads: Tensor, relations: Tensor | None) -> list[int]:
    """The label of every word of a tree."""
    labels = []
    for word, part in enumerate(structure):
        head, relation = part if isinstance(part, tuple) else (part, None)
        names = (heads[word] == head) if relation is None else (heads[word] == head) & (relations == relation)
        labels.append(int(names.nonzero()))
    return labels


PARSERS = [HEADS, PROJECTIVE, NONPROJECTIVE, MEAN_FIELD, HEADS_LABELLED, Trees(True, False, 2), Trees(False, False, 2)]


@pytest.mark.parametrize("teacher", PARSERS, ids=repr)
@pytest.mark.parametrize("weighted", [False, True])
def test_topk_of_a_parser_as_head_labels(teacher: Arcs, weighted: bool) -> None:
    lengths = teacher.ragged
    heads, relations = head_labels(teacher, 1)
    scores = teacher.scores(seeded(10), len(lengths), len(heads))
    logits = random(seeded(11), len(lengths), *heads.shape)
    log_probs = logits.log_softmax(-1)
    expected = []
    for item, p in enumerate(teacher.enumerate(scores, lengths)):
        best = p.ranked()[:3]
        weights = softmax([p.scores[y] for y in best]) if weighted else [1 / len(best)] * len(best)
        losses = [
            -sum(float(log_probs[item, d, k]) for d, k in enumerate(as_labels(y, heads, relations))) for y in best
        ]
        expected.append(sum(w * loss for w, loss in zip(weights, losses, strict=True)))
    student = structkd.HeadLabeling(logits, heads.expand(logits.shape), relations, lengths_tensor(lengths))
    built = teacher.build(scores, lengths_tensor(lengths))
    assert agrees(structkd.topk_kd_loss(built, student, k=3, weighted=weighted, reduction="none"), expected)


@pytest.mark.parametrize("teacher", PARSERS, ids=repr)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_emission_kd_of_a_parser_takes_its_arc_scores_word_by_word(teacher: Arcs, temperature: float) -> None:
    lengths = teacher.ragged
    heads, relations = head_labels(teacher, 2)
    scores = teacher.scores(seeded(12), len(lengths), len(heads))
    logits = random(seeded(13), len(lengths), *heads.shape)
    arcs = scores["arcs" if teacher is MEAN_FIELD else "scores"]
    expected = []
    for item, n in enumerate(lengths):
        total = 0.0
        for d in range(n):
            inside = [k for k in range(heads.shape[1]) if heads[d, k] < n]
            cells = [(int(heads[d, k]), d) + (() if relations is None else (int(relations[k]),)) for k in inside]
            targets = softmax([float(arcs[(item, *cell)]) / temperature for cell in cells])
            log_probs = (logits[item, d] / temperature).log_softmax(-1)
            total -= sum(p * float(log_probs[k]) for p, k in zip(targets, inside, strict=True))
        expected.append(temperature**2 * total)
    student = structkd.HeadLabeling(logits, heads.expand(logits.shape), relations, lengths_tensor(lengths))
    built = teacher.build(scores, lengths_tensor(lengths))
    assert agrees(structkd.emission_kd_loss(built, student, temperature=temperature, reduction="none"), expected)


@pytest.mark.parametrize("teacher", PARSERS, ids=repr)
def test_posterior_kd_of_a_parser_is_structural_for_words_that_label_alone(teacher: Arcs) -> None:
    heads, relations = head_labels(teacher, 3)
    lengths = lengths_tensor(teacher.ragged)
    logits = random(seeded(15), len(lengths), *heads.shape)
    student = structkd.HeadLabeling(logits, heads.expand(logits.shape), relations, lengths)
    built = teacher.build(teacher.scores(seeded(14), len(lengths), len(heads)), lengths)
    losses = [
        loss(built, student, temperature=2.5, reduction="none")
        for loss in (structkd.posterior_kd_loss, structkd.structural_kd_loss)
    ]
    assert agrees(*losses)


@pytest.mark.parametrize("pair", TO_TAGS, ids=repr)
def test_posterior_kd_of_spans_is_structural_for_words_that_label_alone(pair: Pair) -> None:
    teacher, student = pair.scores(16)
    loss = structkd.posterior_kd_loss(*pair.build(teacher, student), temperature=2.5, reduction="none")
    assert agrees(loss, pair.loss(teacher, student, 2.5))


@pytest.mark.parametrize("teacher", [FACTORED, DENSE, PROJECTIVE, NONPROJECTIVE, SPANS], ids=repr)
def test_token_kd_needs_a_teacher_of_independent_words(teacher: Family) -> None:
    """Alone or in a mixture; emission KD takes those that have scores of words, and every refusal names the others."""
    built = teacher.build(teacher.scores(seeded(17), 1, 3), lengths_tensor((3,)))
    students: Any = structkd.MaxEnt(torch.zeros(1, 3, 3)), structkd.HeadSelection(torch.zeros(1, 3, 3))
    student = students[teacher in (PROJECTIVE, NONPROJECTIVE)]
    for given in (built, structkd.Mixture([built])):
        with pytest.raises(NotImplementedError, match=r"(?s)not factorize over words.*emission_kd_loss.*posterior_kd_"):
            structkd.token_kd_loss(given, student)
        if teacher in (DENSE, SPANS):
            with pytest.raises(
                NotImplementedError, match=r"has no emissions.*posterior_kd_loss.*topk_kd_loss with k=1"
            ):
                structkd.emission_kd_loss(given, student)
        else:
            assert structkd.emission_kd_loss(given, student) > 0


def test_token_kd_takes_relabelled_words() -> None:
    teacher = structkd.relabel(MAXENT.build(MAXENT.scores(seeded(16), 2, 4), labels=["O", "A", "B"]), {"B": "A"})
    student = structkd.MaxEnt(random(seeded(17), 2, 4, 2), labels=["O", "A"])
    losses = [loss(teacher, student, 2.0) for loss in (structkd.token_kd_loss, structkd.structural_kd_loss)]
    assert agrees(*losses)


def test_token_kd_takes_posteriors_of_heads() -> None:
    """Mean field chooses every word's head alone, second-order scores included: the loss is the structural one."""
    built = MEAN_FIELD.build(MEAN_FIELD.scores(seeded(18), 2, 4), lengths_tensor((4, 2)))
    student = HEADS.build(HEADS.scores(seeded(19), 2, 4), lengths_tensor((4, 2)))
    losses = [loss(built, student, 2.0) for loss in (structkd.token_kd_loss, structkd.structural_kd_loss)]
    assert agrees(*losses)
    assert structkd.emission_kd_loss(built, student, 2.0) != losses[0]


def test_spans_need_a_tagger_for_a_distribution_per_word() -> None:
    scores, lengths = SPANS.scores(seeded(20), 1, 3), lengths_tensor((3,))
    spans = SPANS.build(scores, lengths, types=TYPES)
    with pytest.raises(NotImplementedError, match="in the tags of a tagger, and the student is SpanCRF"):
        structkd.posterior_kd_loss(spans, spans)


@pytest.mark.parametrize(
    "student",
    [
        structkd.HeadLabeling(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3, dtype=torch.long)),
        structkd.HeadSelection(torch.zeros(1, 2, 2)),
    ],
)
def test_emissions_of_different_factorizations_are_not_compared(student: Any) -> None:
    with pytest.raises(NotImplementedError, match="emissions over one inventory on both sides"):
        structkd.logit_matching_loss(structkd.DependencyCRF(torch.zeros(1, 2, 2)), student)


class TestLikelihoodOfLabels:
    LENGTHS = torch.tensor([4, 1, 3])
    GOLD = torch.tensor([[0, 4, 2, 2], [3, 9, 9, 9], [1, -100, 0, 9]])

    @pytest.mark.parametrize("padding", [0.0, math.inf, math.nan])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
    @pytest.mark.parametrize("cells", [1, 1 << 17], ids=["by-sentence", "whole"])
    def test_value_and_gradient(
        self, monkeypatch: pytest.MonkeyPatch, cells: int, dtype: torch.dtype, padding: float
    ) -> None:
        monkeypatch.setattr(arithmetic, "_CACHED_CELLS", cells)
        inside = torch.arange(4) < self.LENGTHS.unsqueeze(1)
        scores = random(seeded(31), 3, 4, 5).to(dtype).masked_fill(~inside.unsqueeze(-1), padding)
        scores[0, 1, 3] = -math.inf
        leaf, weights = scores.clone().requires_grad_(), torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        loss = structkd.supervised_loss(structkd.MaxEnt(leaf, self.LENGTHS), self.GOLD, reduction="none")
        exact = scores.double().requires_grad_()
        known = inside & (self.GOLD >= 0)
        labels = self.GOLD.clamp(0, 4).unsqueeze(-1)
        surprisals = -exact.log_softmax(-1).gather(-1, labels).squeeze(-1).masked_fill(~known, 0.0)
        tolerance = {torch.float16: 1e-3, torch.float32: 1e-6, torch.float64: 1e-12}[dtype]
        torch.testing.assert_close(loss.double(), surprisals.sum(1), rtol=tolerance, atol=tolerance)
        (loss * weights).sum().backward()
        (wanted,) = torch.autograd.grad((surprisals.sum(1) * weights).sum(), exact)
        assert leaf.grad.dtype == dtype
        torch.testing.assert_close(leaf.grad.double(), wanted.nan_to_num(), rtol=tolerance, atol=tolerance)

    def test_labels_too_unlikely_for_a_probability(self) -> None:
        scores = torch.tensor([[[0.0, -800.0]], [[0.0, -math.inf]]], dtype=torch.float64, requires_grad=True)
        loss = structkd.supervised_loss(structkd.MaxEnt(scores), torch.tensor([[1], [1]]), reduction="none")
        assert loss.tolist() == [800.0, math.inf]
        loss[0].backward()
        assert scores.grad[0].tolist() == [[1.0, -1.0]]

    @pytest.mark.parametrize("gold", [1, -100])
    def test_words_without_a_possible_label(self, gold: int) -> None:
        scores = torch.zeros(1, 2, 3).index_fill(1, torch.tensor(1), -math.inf)
        with pytest.raises(ValueError, match="no possible structure"):
            structkd.supervised_loss(structkd.MaxEnt(scores), torch.tensor([[0, gold]]))


class TestPartialGold:
    """-100 in place of a word's label or head: the word is open."""

    @pytest.mark.parametrize("family", [MAXENT, HEADS], ids=repr)
    def test_the_labelled_words_alone_are_learned_from(self, family: Family) -> None:
        lengths = (3, 1, 4)
        scores = family.with_grad(family.scores(seeded(21), 3, 5))
        gold = torch.tensor([[1, -100, 0, -100, 7], [-100, 7, 7, 7, 7], [0, 0, -100, 2, -100]])
        enumerations = family.enumerate(family.map(scores, torch.detach), lengths)
        expected = []
        for n, e, row in zip(lengths, enumerations, gold.tolist(), strict=True):
            fits = [y for y in e.scores if all(g in (-100, label) for g, label in zip(row[:n], y, strict=True))]
            expected.append(log_sum_exp([e.log_prob(y) for y in fits]))
        student = family.build(scores, lengths_tensor(lengths))
        assert agrees(student.log_prob(gold), expected)
        loss = structkd.supervised_loss(student, gold, reduction="none")
        assert agrees(-loss, expected)
        assert loss[1] == 0
        loss.sum().backward()
        (gradient,) = (t.grad for t in scores.values())
        by_word = gradient if family is MAXENT else gradient.transpose(1, 2)
        learned = by_word.abs().sum(-1) > 0
        inside = torch.arange(5) < lengths_tensor(lengths).unsqueeze(1)
        assert torch.equal(learned, inside & (gold != -100))

    def test_head_labels(self) -> None:
        logits = random(seeded(22), 1, 3, 4).requires_grad_()
        student = structkd.HeadLabeling(logits, torch.zeros(1, 3, 4, dtype=torch.long))
        structkd.supervised_loss(student, torch.tensor([[-100, 2, -100]])).backward()
        assert logits.grad.abs().sum(-1).gt(0).tolist() == [[False, True, False]]

    def test_other_negative_numbers_are_mistakes(self) -> None:
        with pytest.raises(ValueError, match="word 1 of batch item 0 has -1"):
            structkd.supervised_loss(structkd.MaxEnt(torch.zeros(1, 2, 3)), torch.tensor([[0, -1]]))


@pytest.mark.parametrize("loss", [structkd.emission_kd_loss, structkd.posterior_kd_loss])
def test_several_teachers_average_word_by_word(loss) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([5, 1, 3])

    def chain() -> structkd.LinearChainCRF:
        emissions, transitions = (torch.randn(*shape, generator=generator).double() for shape in ((3, 5, 4), (4, 4)))
        return structkd.LinearChainCRF.from_scores(emissions, transitions, lengths=lengths)

    one, other = chain(), structkd.MaxEnt(torch.randn(3, 5, 4, generator=generator).double(), lengths=lengths)
    student = structkd.MaxEnt(torch.randn(3, 5, 4, generator=generator).double(), lengths=lengths)
    several = loss(structkd.Mixture([one, other], weights=[0.25, 0.75]), student, temperature=2.0, reduction="none")
    # cross-entropy is linear in the teacher's marginals
    expected = 0.25 * loss(one, student, 2.0, reduction="none") + 0.75 * loss(other, student, 2.0, reduction="none")
    torch.testing.assert_close(several, expected)


def test_losses_of_whole_structures_want_one_teacher() -> None:
    teacher = structkd.MaxEnt(torch.randn(2, 3, 4))
    for loss in (structkd.logit_matching_loss, partial(structkd.topk_kd_loss, k=2)):
        with pytest.raises(NotImplementedError, match=r"got Mixture\..*emission_kd_loss or posterior"):
            loss(structkd.Mixture([teacher, teacher]), teacher)
