"""Every method of training a student, for the teacher and the student of every scenario: it runs, or says why not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import structkd
from structkd import KDObjective
from structkd.training import pseudo_label_loss

LENGTHS = torch.tensor([4, 1, 3])
LABELS = ["O", "B-X", "I-X", "E-X", "S-X"]
OFFSETS = torch.tensor([0, 1, -1, 2, -2, 3, -3, 9])  # the last names no word
RELATIONS = torch.arange(2).repeat_interleave(len(OFFSETS))


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def chain(scores: Tensor) -> Any:
    return structkd.LinearChainCRF.from_scores(scores, random(5, 5), random(5), random(5), LENGTHS, LABELS)


def maxent(scores: Tensor) -> Any:
    return structkd.MaxEnt(scores, LENGTHS, LABELS)


def head_labels(scores: Tensor) -> Any:
    heads = (torch.arange(4).unsqueeze(1) + OFFSETS).repeat(3, 1, 2).clamp(min=-1)
    return structkd.HeadLabeling(scores, heads, RELATIONS, LENGTHS)


def spans(scores: Tensor) -> Any:
    return structkd.SpanCRF(scores, LENGTHS, types=["X"])


def mean_field(scores: Tensor) -> Any:
    second_order = random(3, 4, 4, 4), random(3, 4, 4, 4)
    return structkd.MeanFieldDependency(scores, *second_order, lengths=LENGTHS, relations=random(3, 4, 4, 2))


TAGS, ARCS, LABELLED = (3, 4, 5), (3, 4, 4), (3, 4, 4, 2)
#: name -> teacher, the shape of its scores, student, the shape of its scores
CASES: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...], Callable[[Tensor], Any], tuple[int, ...]]] = {
    "1a": (chain, TAGS, chain, TAGS),
    "1b head selection": (partial(structkd.HeadSelection, lengths=LENGTHS), LABELLED, head_labels, (3, 4, 16)),
    "1b projective": (partial(structkd.DependencyCRF, lengths=LENGTHS), LABELLED, head_labels, (3, 4, 16)),
    "1b nonprojective": (
        *(partial(structkd.NonProjectiveDependencyCRF, lengths=LENGTHS), LABELLED),
        *(head_labels, (3, 4, 16)),
    ),
    "2a": (chain, TAGS, maxent, TAGS),
    "2b": (mean_field, ARCS, head_labels, (3, 4, 16)),
    "3": (maxent, TAGS, chain, TAGS),
    "4": (spans, (3, 4, 4, 1), maxent, TAGS),
}
METHODS: dict[str, Callable[..., Tensor] | None] = {
    "none": None,
    "token": structkd.token_kd_loss,
    "structural": structkd.structural_kd_loss,
    "posterior": structkd.posterior_kd_loss,
    "emission": structkd.emission_kd_loss,
    "logit_matching": structkd.logit_matching_loss,
    "topk": partial(structkd.topk_kd_loss, k=3, weighted=True),
    "pseudo_labels": pseudo_label_loss,
}
#: Scores of arcs or spans are not scores of labels; chains, trees and spans are not distributions over words.
REFUSED = {(case, "logit_matching"): "compares the scores of labels" for case in CASES if case[:2] in ("1b", "2b", "4")}
REFUSED |= {
    (case, "token"): "not factorize over words" for case in ("1a", "1b projective", "1b nonprojective", "2a", "4")
}
REFUSED |= {("4", "emission"): "has no emissions"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", CASES)
def test_every_method_trains_every_student_or_says_why_not(case: str, method: str) -> None:
    build_teacher, teacher_shape, build_student, student_shape = CASES[case]
    watched, learning = random(*teacher_shape).requires_grad_(), random(*student_shape).requires_grad_()
    teacher, student = build_teacher(watched), build_student(learning)
    gold = torch.zeros(3, 4, dtype=torch.long)
    labelled = torch.tensor([True, False, True])

    def loss() -> Tensor:
        return KDObjective(METHODS[method])(teacher, student, gold, labelled=labelled)

    if (case, method) in REFUSED:
        with pytest.raises(NotImplementedError, match=REFUSED[case, method]):
            loss()
        return
    value = loss()
    assert value.isfinite()
    value.backward()
    assert watched.grad is None
    assert learning.grad.isfinite().all()
    inside = torch.arange(4) < LENGTHS.unsqueeze(1)
    expected = inside if method != "none" else inside & labelled.unsqueeze(1)
    assert torch.equal(learning.grad.abs().sum(-1) > 0, expected)


def best_labels(case: str, teacher: Any) -> Tensor:
    """The teacher's prediction as the student's gold."""
    if (case[0] in "13" and not case.startswith("1b")) or case == "2a":
        return teacher.decode()
    if case == "4":
        tags = torch.zeros(3, 4, dtype=torch.long)
        for item, found in enumerate(teacher.decode()):
            for start, end, _ in found:
                tags[item, start : end + 1] = LABELS.index("I-X")
                tags[item, start], tags[item, end] = LABELS.index("B-X"), LABELS.index("E-X")
                if start == end:
                    tags[item, start] = LABELS.index("S-X")
        return tags
    if not isinstance(teacher, (structkd.DependencyCRF, structkd.NonProjectiveDependencyCRF)):
        teacher = structkd.NonProjectiveDependencyCRF(teacher.log_potentials, teacher.lengths)
    tree = teacher.argmax
    heads, relations = tree.sum(-1).argmax(1), tree.sum(1).argmax(-1)
    offset = (heads - torch.arange(4)).unsqueeze(-1) == OFFSETS
    return relations * len(OFFSETS) + offset.int().argmax(-1)


@pytest.mark.parametrize("case", CASES)
def test_pseudo_labels_are_what_the_teacher_predicts(case: str) -> None:
    build_teacher, teacher_shape, build_student, student_shape = CASES[case]
    teacher, student = build_teacher(random(*teacher_shape) * 3), build_student(random(*student_shape))
    gold = best_labels(case, teacher).clamp(min=0)
    expected = structkd.supervised_loss(student, gold, reduction="none")
    torch.testing.assert_close(pseudo_label_loss(teacher, student, reduction="none"), expected)
    torch.testing.assert_close(pseudo_label_loss(teacher, student, num_items=7), expected.sum() / 7)


def test_pseudo_labels_of_heads_chosen_alone_are_a_tree() -> None:
    """Two words that prefer each other to the root: the tree drops the arc that costs least."""
    scores = torch.tensor([[[0.0, 5.0], [4.5, 1.0]]])  # 4.5 + 1 with the second word as root, 5 + 0 with the first
    logits = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])
    student = structkd.HeadLabeling(logits, torch.tensor([[[0, 1], [0, 1]]]))
    loss = pseudo_label_loss(structkd.HeadSelection(scores), student)
    assert loss.item() == pytest.approx(-float(logits.log_softmax(-1)[0, :, 1].sum()))
