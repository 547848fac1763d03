"""Cases 1b and 2b: teachers over arcs, students that parse by labelling words with (head, relation)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from families import (
    ARCS_LABELLED,
    HEADS,
    HEADS_LABELLED,
    MEAN_FIELD,
    MEAN_FIELDS,
    PROJECTIVE,
    TREES,
    Arcs,
    Family,
    Scores,
    agrees,
    lengths_tensor,
    random,
    seeded,
)
from oracles import label_targets, log_sum_exp, mixture
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import structkd
from structkd import structural_kd_loss

TEACHERS: list[Arcs] = [HEADS, *TREES, *MEAN_FIELDS]
temperatures = pytest.mark.parametrize("temperature", [1.0, 2.5])
every_teacher = pytest.mark.parametrize("teacher", [*TEACHERS, *ARCS_LABELLED], ids=repr)


class Encoding:
    """Label meanings for a batch: heads [B,N,K] and relations [K], [B,N,K] or none."""

    def __init__(self, lengths: Sequence[int], kind: str, relations: int | None = None, per_word: bool = False) -> None:
        batch, self.width, generator = len(lengths), max(lengths) + 1, seeded(99)
        self.lengths = tuple(lengths)
        heads = torch.empty(batch, self.width, 0, dtype=torch.long)
        order = torch.stack([torch.randperm(self.width, generator=generator) for _ in range(batch * self.width)])
        order = order.reshape(batch, self.width, self.width)
        if kind == "exact":  # every head has one label
            heads = order
        elif kind == "shared":  # some heads have several labels, some labels point nowhere or beyond the sentence
            extra = torch.randint(-1, self.width + 2, (batch, self.width, 4), generator=generator)
            heads = torch.cat([extra, order, order[..., :2]], -1)
        elif kind == "partial":  # the root and whatever chance brings
            own = torch.arange(self.width)[None, :, None].expand(batch, -1, 1)
            heads = torch.cat([torch.randint(-1, self.width + 1, (batch, self.width, 3), generator=generator), own], -1)
        self.relations: Tensor | None = None
        if relations is not None:
            heads = heads.repeat_interleave(relations, -1)
            count = heads.shape[-1]
            if per_word:
                self.relations = torch.randint(relations, heads.shape, generator=generator)
            else:
                self.relations = torch.arange(count) % relations
        self.heads = heads
        self.labels = heads.shape[-1]

    def logits(self, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return random(seeded(seed), *self.heads.shape, dtype=dtype)

    def build(self, logits: Tensor) -> Any:
        return structkd.HeadLabeling(logits, self.heads, relations=self.relations, lengths=lengths_tensor(self.lengths))

    def relations_of(self, item: int) -> list[list[int]] | None:
        if self.relations is None:
            return None
        table = self.relations if self.relations.dim() == 3 else self.relations.expand(self.heads.shape)
        return table[item].tolist()


def arc_probabilities(teacher: Arcs, scores: Scores, lengths: Sequence[int], temperature: float) -> list[dict]:
    return [e.expectation(teacher.event_cells) for e in teacher.enumerate(scores, lengths, temperature)]


def raw_targets(encoding: Encoding, arcs: list[dict]) -> list[list[list[float]]]:
    return [
        label_targets(p, encoding.heads[item].tolist(), encoding.relations_of(item), n)
        for item, (n, p) in enumerate(zip(encoding.lengths, arcs, strict=True))
    ]


def expected(
    encoding: Encoding, logits: Tensor, raw: list[list[list[float]]], temperature: float
) -> tuple[list[float], Tensor, Tensor]:
    """Loss per sentence, its closed-form gradient, and the mass of arcs that no label names."""
    losses, gradient = [], torch.zeros(logits.shape, dtype=torch.float64)
    uncovered = torch.zeros(logits.shape[:2], dtype=torch.float64)
    for item, words in enumerate(raw):
        total = 0.0
        for d, row in enumerate(words):
            covered = math.fsum(row)
            uncovered[item, d] = 1 - covered
            if covered < 1e-6:
                continue
            values = [value / temperature for value in logits[item, d].tolist()]
            normaliser = log_sum_exp(values)
            for k, mass in enumerate(row):
                target = mass / covered
                gradient[item, d, k] = temperature * (math.exp(values[k] - normaliser) - target)
                if target > 0:
                    total += target * (normaliser - values[k])
        losses.append(temperature**2 * total)
    return losses, gradient, uncovered


def check(
    teacher: Arcs, encoding: Encoding, temperature: float, scores: Scores, logits: Tensor, tolerance: torch.dtype
) -> None:
    raw = raw_targets(encoding, arc_probabilities(teacher, scores, encoding.lengths, temperature))
    losses, gradient, uncovered = expected(encoding, logits, raw, temperature)
    learning = logits.detach().clone().requires_grad_()
    built, student = teacher.build(scores, lengths_tensor(encoding.lengths)), encoding.build(learning)
    loss = structural_kd_loss(built, student, temperature=temperature, reduction="none")
    assert loss.dtype == logits.dtype
    assert agrees(loss, losses, tolerance)
    loss.sum().backward()
    assert agrees(learning.grad, gradient, tolerance)
    assert torch.equal(learning, logits)
    missing = structkd.uncovered(built, student, temperature=temperature)
    assert missing.shape == encoding.heads.shape[:2]
    assert agrees(missing, uncovered, tolerance)
    targets = structkd.project(built, student, temperature=temperature)
    assert targets.shape == logits.shape
    for item, words in enumerate(raw):
        for d, row in enumerate(words):
            if sum(row) >= 1e-6:
                assert agrees(targets[item, d], [mass / sum(row) for mass in row], tolerance)
            assert not any(targets[item, d, k] for k, mass in enumerate(row) if encoding.heads[item, d, k] < 0)
        assert not targets[item, len(words) :].any()


@every_teacher
@pytest.mark.parametrize("kind", ["exact", "shared", "partial"])
@pytest.mark.parametrize(("dtype", "temperature"), [(torch.float64, 2.5), (torch.float32, 1.0)], ids=str)
def test_loss_gradient_and_uncovered_mass(teacher: Arcs, kind: str, dtype: torch.dtype, temperature: float) -> None:
    encoding = Encoding(teacher.ragged, kind)
    scores = teacher.scores(seeded(1), len(encoding.lengths), encoding.width, dtype)
    check(teacher, encoding, temperature, scores, encoding.logits(2, dtype), dtype)


@pytest.mark.parametrize("teacher", [*TEACHERS, *ARCS_LABELLED], ids=repr)
@pytest.mark.parametrize(("kind", "per_word"), [("exact", False), ("shared", True), ("partial", True)])
def test_relations(teacher: Arcs, kind: str, per_word: bool) -> None:
    """Labels name (head, relation); under an unlabelled teacher, the head alone."""
    encoding = Encoding(teacher.ragged, kind, relations=2, per_word=per_word)
    scores = teacher.scores(seeded(3), len(encoding.lengths), encoding.width)
    check(teacher, encoding, 2.5, scores, encoding.logits(4), torch.float64)


#: Of the teacher and of the student: the kind, the number of relations, and whether words differ in them.
INVENTORIES = [
    *((("partial", None, False), ("shared", None, False)), (("shared", None, False), ("partial", None, False))),
    *((("partial", 2, True), ("partial", 2, False)), (("partial", 2, False), ("partial", 3, False))),
    *((("partial", 2, True), ("partial", None, False)), (("partial", None, False), ("partial", 2, False))),
]


@pytest.mark.above_kernels
@pytest.mark.parametrize(("given", "wanted"), INVENTORIES, ids=str)
def test_labels_of_another_inventory(given: tuple, wanted: tuple) -> None:
    """All label sequences of the teacher, as arcs and relations, conditioned on those that the student can write."""
    temperature = 2.5
    theirs, ours = Encoding((2, 1, 3), *given), Encoding((2, 1, 3), *wanted)
    logits = ours.logits(2)
    with_relations = given[1] is not None and wanted[1] is not None
    scores = theirs.logits(1).masked_fill(theirs.logits(5) > 1.5, -math.inf)
    padded, learning = scores.clone(), logits.clone()
    for item, n in enumerate(theirs.lengths):
        padded[item, n:] = math.nan
        learning[item, n:] = math.inf

    def arcs(encoding: Encoding, item: int, word: int) -> list[Any]:
        """The arc that every label of a word names, or None."""
        heads, relations = encoding.heads[item, word].tolist(), encoding.relations_of(item)
        kinds = relations[word] if with_relations and relations else [0] * len(heads)
        return [(h, r) if 0 <= h < encoding.lengths[item] else None for h, r in zip(heads, kinds, strict=True)]

    losses, missing = [], torch.zeros(logits.shape[:2], dtype=torch.float64)
    for item, n in enumerate(theirs.lengths):
        chances = [(scores[item, d] / temperature).softmax(-1).tolist() for d in range(n)]
        named = [arcs(theirs, item, d) for d in range(n)]
        writing: list[dict[Any, list[int]]] = [{} for _ in range(n)]
        for d in range(n):
            for label, arc in enumerate(arcs(ours, item, d)):
                if arc is not None:
                    writing[d].setdefault(arc, []).append(label)
            lost = [p for p, arc in zip(chances[d], named[d], strict=True) if arc not in writing[d]]
            missing[item, d] = math.fsum(lost)
        log_probs = [(logits[item, d] / temperature).log_softmax(-1).tolist() for d in range(n)]
        total, loss = 0.0, 0.0
        for labels in itertools.product(range(theirs.labels), repeat=n):
            chosen = [named[d][label] for d, label in enumerate(labels)]
            if all(arc in writing[d] for d, arc in enumerate(chosen)):
                chance = math.prod(chances[d][label] for d, label in enumerate(labels))
                total += chance
                for d, arc in enumerate(chosen):
                    loss -= chance * math.fsum(log_probs[d][k] for k in writing[d][arc]) / len(writing[d][arc])
        losses.append(temperature**2 * loss / total)
    teacher, student = theirs.build(padded), ours.build(learning)
    assert agrees(structural_kd_loss(teacher, student, temperature=temperature, reduction="none"), losses)
    assert agrees(structkd.uncovered(teacher, student, temperature), missing)
    if theirs.labels**3 < 100:
        everything = structkd.Empirical.from_topk(theirs.build(scores), theirs.labels**3)
        assert agrees(structural_kd_loss(everything, student, temperature=temperature, reduction="none"), losses)


@every_teacher
def test_impossible_arcs_and_noise_in_the_padding(teacher: Arcs) -> None:
    encoding = Encoding(teacher.ragged, "shared")
    scores, _ = teacher.masked(
        teacher.scores(seeded(5), len(encoding.lengths), encoding.width), encoding.lengths, seeded(6)
    )
    raw = raw_targets(encoding, arc_probabilities(teacher, scores, encoding.lengths, 2.5))
    logits = encoding.logits(7)
    losses, _, _ = expected(encoding, logits, raw, 2.5)
    for value in (math.nan, math.inf):
        built = teacher.build(teacher.poisoned(scores, encoding.lengths, value), lengths_tensor(encoding.lengths))
        dirty = logits.clone()
        for item, n in enumerate(encoding.lengths):
            dirty[item, n:] = value
        assert agrees(structural_kd_loss(built, encoding.build(dirty), temperature=2.5, reduction="none"), losses)


def test_heads_in_the_padding_are_ignored() -> None:
    encoding = Encoding((3, 1), "shared")
    scores, logits = PROJECTIVE.scores(seeded(8), 2, encoding.width), encoding.logits(9)
    teacher = PROJECTIVE.build(scores, lengths_tensor((3, 1)))
    loss = structural_kd_loss(teacher, encoding.build(logits), reduction="none")
    encoding.heads = encoding.heads.clone()
    encoding.heads[0, 3:] = encoding.heads[1, 1:] = 77
    assert agrees(structural_kd_loss(teacher, encoding.build(logits), reduction="none"), loss)


def two_word_teacher(mass: float) -> Any:
    """Word 1 takes word 0 as head with probability 1 - mass, and the root with probability mass."""
    scores = torch.zeros(1, 2, 2, dtype=torch.float64)
    scores[0, 1, 0] = -math.inf
    scores[0, 1, 1] = math.log(mass / (1 - mass))
    return structkd.HeadSelection(scores)


@pytest.mark.parametrize(("mass", "counted"), [(1e-4, True), (1e-5, True), (1e-7, False), (1e-12, False)])
def test_a_word_almost_uncovered_carries_no_loss_and_still_counts_as_a_word(mass: float, counted: bool) -> None:
    teacher = two_word_teacher(mass)
    logits = torch.tensor([[[0.3, -0.2], [0.9, 0.1]]], dtype=torch.float64, requires_grad=True)
    student = structkd.HeadLabeling(logits, torch.tensor([[[0, -1], [1, -1]]]))
    nll = -logits.detach().log_softmax(-1)[0, :, 0]
    total = nll[0] + (nll[1] if counted else 0)
    assert agrees(structural_kd_loss(teacher, student, reduction="none"), total[None])
    loss = structural_kd_loss(teacher, student, reduction="token")
    assert agrees(loss, total / 2)
    loss.backward()
    assert bool(logits.grad[0, 1].any()) == counted
    assert not logits.grad.isnan().any()
    assert agrees(structkd.uncovered(teacher, student), torch.tensor([[0.0, 1 - mass]], dtype=torch.float64))


def test_no_word_covered_at_all() -> None:
    teacher = PROJECTIVE.build(PROJECTIVE.scores(seeded(10), 1, 3))
    logits = torch.zeros(1, 3, 2, dtype=torch.float64, requires_grad=True)
    student = structkd.HeadLabeling(logits, torch.full((1, 3, 2), -1))
    loss = structural_kd_loss(teacher, student)
    loss.backward()
    assert loss.item() == 0.0
    assert not logits.grad.any()
    assert structkd.uncovered(teacher, student).tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("teacher", [HEADS, PROJECTIVE, MEAN_FIELD], ids=repr)
def test_local_temperature(teacher: Arcs) -> None:
    """Targets at T = 1 to the power 1/T, renormalised over the word's labels."""
    temperature, encoding = 2.5, Encoding(teacher.ragged, "exact")
    scores, logits = teacher.scores(seeded(11), len(encoding.lengths), encoding.width), encoding.logits(12)
    raw = raw_targets(encoding, arc_probabilities(teacher, scores, encoding.lengths, 1.0))
    sharp = [[[mass ** (1 / temperature) for mass in row] for row in words] for words in raw]
    losses, _, _ = expected(encoding, logits, sharp, temperature)
    built = teacher.build(scores, lengths_tensor(encoding.lengths))
    loss = structural_kd_loss(
        built, encoding.build(logits), temperature=temperature, temperature_mode="local", reduction="none"
    )
    assert agrees(loss, losses)


@temperatures
def test_mixture_of_a_tree_and_a_mean_field_teacher(temperature: float) -> None:
    encoding = Encoding(MEAN_FIELD.ragged, "exact")
    families: list[Family] = [MEAN_FIELD, PROJECTIVE, HEADS]
    weights = [0.5, 0.3, 0.2]
    scores = [f.scores(seeded(20 + i), len(encoding.lengths), encoding.width) for i, f in enumerate(families)]
    enumerations = [f.enumerate(s, encoding.lengths, temperature) for f, s in zip(families, scores, strict=True)]
    mixed = [mixture(parts, weights) for parts in zip(*enumerations, strict=True)]
    logits = encoding.logits(13)
    losses, _, _ = expected(
        encoding, logits, raw_targets(encoding, [e.expectation(HEADS.event_cells) for e in mixed]), temperature
    )
    lengths = lengths_tensor(encoding.lengths)
    teacher = structkd.Mixture([f.build(s, lengths) for f, s in zip(families, scores, strict=True)], weights=weights)
    assert agrees(
        structural_kd_loss(teacher, encoding.build(logits), temperature=temperature, reduction="none"), losses
    )


def test_a_student_that_forbids_the_teachers_label() -> None:
    encoding = Encoding((3, 2), "exact")
    teacher = HEADS.build(HEADS.scores(seeded(14), 2, encoding.width), lengths_tensor((3, 2)))
    logits = encoding.logits(15)
    label = encoding.heads[0, 1].tolist().index(2)
    logits[0, 1, label] = -math.inf
    logits.requires_grad_()
    loss = structural_kd_loss(teacher, encoding.build(logits), reduction="none")
    assert loss[0] == math.inf
    assert loss[1].isfinite()
    loss.sum().backward()
    assert not logits.grad.isnan().any()


def test_a_student_may_forbid_labels_that_point_nowhere() -> None:
    teacher = HEADS.build(HEADS.scores(seeded(16), 1, 2))
    heads = torch.tensor([[[0, 1, -1], [1, 0, 9]]])
    logits = torch.zeros(1, 2, 3, dtype=torch.float64)
    logits[..., 2] = -math.inf
    assert structural_kd_loss(teacher, structkd.HeadLabeling(logits, heads)).item() == pytest.approx(2 * math.log(2))


def test_a_label_that_points_nowhere_takes_its_share_of_the_softmax() -> None:
    teacher = structkd.HeadSelection(torch.zeros(1, 1, 1))
    student = structkd.HeadLabeling(torch.zeros(1, 1, 4), torch.tensor([[[-1, 0, 5, -1]]]))
    assert structural_kd_loss(teacher, student).item() == pytest.approx(math.log(4), rel=1e-6)
    assert structkd.project(teacher, student).tolist() == [[[0.0, 1.0, 0.0, 0.0]]]


@pytest.mark.parametrize("labelled", [False, True])
def test_longer_sentences_add_up(labelled: bool) -> None:
    """Beyond enumeration: targets over the exact encoding are the teacher's marginals, reordered."""
    family = HEADS_LABELLED if labelled else HEADS
    n = 9
    scores = family.scores(seeded(17), 1, n)
    heads = torch.arange(n).expand(1, n, n)
    relations = None
    if labelled:
        heads, relations = heads.repeat_interleave(2, -1), torch.arange(2 * n) % 2
    student = structkd.HeadLabeling(torch.zeros(heads.shape, dtype=torch.float64), heads, relations=relations)
    teacher = family.build(scores)
    expected_targets = teacher.marginals.transpose(1, 2).flatten(2) if labelled is False else teacher.marginals
    if labelled:
        expected_targets = teacher.marginals.transpose(1, 2).flatten(2)
    assert agrees(structkd.project(teacher, student), expected_targets)
    assert agrees(structkd.uncovered(teacher, student), torch.zeros(1, n))


class LargestInDoublePrecision(TorchDispatchMode):
    """Records the largest number of float64 elements that any operation's result occupies."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.dtype == torch.float64:
                self.elements = max(self.elements, leaf.untyped_storage().nbytes() // 8)
        return result


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("teacher", ["head selection", "non-projective", "projective", "mean field"])
def test_labelled_arcs_are_never_made_in_double_precision(teacher: str, temperature: float) -> None:
    """And relations of large scores lose nothing by it."""
    batch, n, relations, size = 2, 6, 30, 4
    lengths = torch.tensor([n, 4])
    arcs, labelled = torch.randn(batch, n, n), 300 * torch.randn(batch, n, n, relations)
    # label k names word k, with the relation that goes best with the arc
    heads = torch.arange(size).expand(batch, n, size)
    chosen = labelled.argmax(-1)[:, :size].transpose(1, 2)

    def loss(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        logits = torch.linspace(-1, 1, batch * n * size).view(batch, n, size).to(dtype).requires_grad_()
        built: Any
        if teacher == "mean field":
            built = structkd.MeanFieldDependency(arcs.to(dtype), lengths=lengths, relations=labelled.to(dtype))
        else:
            kind = {
                "head selection": structkd.HeadSelection,
                "non-projective": structkd.NonProjectiveDependencyCRF,
                "projective": structkd.DependencyCRF,
            }[teacher]
            # arcs score the same over all of their relations, so that all have some mass
            built = kind((labelled.log_softmax(-1) + arcs.unsqueeze(-1)).to(dtype), lengths)
        student = structkd.HeadLabeling(logits, heads, chosen, lengths)
        value = structural_kd_loss(built, student, temperature=temperature)
        value.backward()
        assert logits.grad is not None
        return value.detach(), logits.grad

    exact = loss(torch.float64)
    with LargestInDoublePrecision() as largest:
        found = loss(torch.float32)
    assert largest.elements < batch * n * n * relations
    assert (found[0] > 0.1).all()
    for single, double in zip(found, exact, strict=True):
        assert torch.allclose(single.double(), double, rtol=1e-5, atol=1e-6)
