"""The promises of the library's conventions and errors that belong to no single distribution."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch_struct
from families import DENSE, FACTORED, HEADS, MAXENT, NONPROJECTIVE, PROJECTIVE, TREES, agrees, lengths_tensor, seeded
from pairs import REPRESENTATIVE, Pair

import structkd
from structkd import project, structural_kd_loss

representative = pytest.mark.parametrize("pair", REPRESENTATIVE, ids=repr)


def words(batch: int = 2, n: int = 3, labels: int = 3, **options: Any) -> Any:
    return structkd.MaxEnt(torch.zeros(batch, n, labels), **options)


# ----------------------------------------------------------------------------------------- torch-struct's own objects
CHAIN = Pair(DENSE, DENSE, (4, 2, 3))
CHAIN.width = 4


def theirs(family: Any, scores: dict, lengths: Any) -> Any:
    """The distribution as a user of torch-struct builds it."""
    if family is DENSE:
        return torch_struct.LinearChainCRF(scores["scores"], lengths=lengths)
    return family.torch_struct_class(scores["scores"], lengths=lengths, multiroot=family.multiroot)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("pair", [CHAIN, *(Pair(t, s, (4, 2, 3)) for t in TREES for s in TREES)], ids=repr)
def test_torch_struct_objects_on_either_side(pair: Pair, temperature: float) -> None:
    pair.width = 4
    lengths = lengths_tensor(pair.lengths)
    teacher, student = pair.scores(1)
    expected = pair.loss(teacher, student, temperature)
    options = {"temperature": temperature, "reduction": "none"}

    ours = pair.build_student(student)
    of_theirs = theirs(pair.teacher, teacher, lengths)
    assert agrees(structural_kd_loss(of_theirs, ours, **options), expected)
    assert agrees(project(of_theirs, ours, temperature=temperature), pair.projected(teacher, student, temperature))

    learning = pair.student.with_grad(student)
    built = pair.build_teacher(teacher)
    loss = structural_kd_loss(built, theirs(pair.student, learning, lengths), **options)
    assert agrees(loss, expected)
    loss.sum().backward()
    assert agrees(learning["scores"].grad, pair.gradients(teacher, student, temperature)["scores"])


def test_kl_and_cross_entropy_to_a_torch_struct_object() -> None:
    for family in (DENSE, *TREES):
        scores, others = (family.scores(seeded(seed), 3, 4) for seed in (10, 11))
        lengths = lengths_tensor([4, 2, 3])
        p, q = family.build(scores, lengths), family.build(others, lengths)
        expected_entropy, expected_divergence = p.cross_entropy(q), p.kl(q)
        assert agrees(p.cross_entropy(theirs(family, others, lengths)), expected_entropy)
        assert agrees(p.kl(theirs(family, others, lengths)), expected_divergence)


@pytest.mark.parametrize("multiroot", [False, True])
def test_building_ours_does_not_change_the_root_mode_of_theirs(multiroot: bool) -> None:
    """torch-struct keeps the root mode on a shared class; ours neither write it nor listen to it."""
    scores = PROJECTIVE.scores(seeded(2), 1, 3)
    their = torch_struct.DependencyCRF(scores["scores"].clone(), multiroot=multiroot)
    ours = structkd.DependencyCRF(scores["scores"], multiroot=not multiroot)
    student = structkd.HeadSelection(torch.zeros(1, 3, 3, dtype=torch.float64))
    for teacher, family in ((their, TREES[int(multiroot)]), (ours, TREES[int(not multiroot)])):
        assert agrees(project(teacher, student), family.marginals(scores, [3], 3))
    torch_struct.DependencyCRF(scores["scores"].clone(), multiroot=multiroot)
    assert agrees(ours.marginals, TREES[int(not multiroot)].marginals(scores, [3], 3))


def test_a_frozen_torch_struct_teacher_is_left_alone() -> None:
    scores = PROJECTIVE.scores(seeded(3), 2, 3)["scores"]
    before = scores.clone()
    teacher = torch_struct.DependencyCRF(scores, lengths=lengths_tensor([3, 2]), multiroot=False)
    structural_kd_loss(teacher, structkd.HeadSelection(torch.zeros(2, 3, 3), lengths=lengths_tensor([3, 2])))
    assert not scores.requires_grad
    assert scores.equal(before)


# ------------------------------------------------------------------------------------------------- labels and shapes
def test_a_label_mismatch_prints_both_inventories() -> None:
    teacher = structkd.LinearChainCRF(torch.zeros(1, 2, 2, 2), labels=["O", "B-PER"])
    for labels in (["O", "B-LOC"], ["B-PER", "O"]):
        for student in (
            structkd.LinearChainCRF(torch.zeros(1, 2, 2, 2), labels=labels, validate_args=False),
            structkd.MaxEnt(torch.zeros(1, 3, 2), labels=labels),
            structkd.LinearChainCRF.from_scores(torch.zeros(1, 3, 2), torch.zeros(2, 2), labels=labels),
        ):
            for function in (structural_kd_loss, project):
                with pytest.raises(ValueError, match="labels") as refused:
                    function(teacher, student)
                assert str(["O", "B-PER"]) in str(refused.value) or "O, B-PER" in str(refused.value)
                assert str(labels) in str(refused.value) or ", ".join(labels) in str(refused.value)


@pytest.mark.parametrize(
    ("theirs", "ours", "remedy"),
    [
        (["NOUN", "VERB"], ["VERB", "NOUN"], "structkd.relabel(teacher, {}, labels=student.labels)"),
        (["NOUN", "VERB"], ["VERB", "NOUN", "X"], "structkd.relabel(teacher, {}, labels=student.labels)"),
        (["NOUN", "PROPN"], ["NOUN", "VERB"], "structkd.relabel(teacher, {'PROPN': 'VERB'}, labels=student.labels)"),
        (["O", "I-X", "B-X"], ["O", "B-X", "I-X"], "structkd.relabel(teacher, {}, labels=student.labels)"),
        (["O", "B-A", "I-A"], ["O", "B-B", "I-B"], "structkd.relabel(teacher, {'A': 'B'}, labels=student.labels)"),
        (["O", "B-A", "I-A", "E-A", "S-A"], ["O", "B-B", "I-B"], "structkd.relabel(teacher, {'A': 'B'})"),
        (["O", "B-A", "I-A", "B-B", "I-B"], ["O", "I-B"], "structkd.relabel(teacher, {'A': 'B'})"),
    ],
)
def test_the_remedy_of_a_label_mismatch_works(theirs: list[str], ours: list[str], remedy: str) -> None:
    teacher = structkd.MaxEnt(torch.randn(1, 2, len(theirs)), labels=theirs)
    student = structkd.MaxEnt(torch.zeros(1, 2, len(ours)), labels=ours)
    with pytest.raises(ValueError, match="the same labels in the same order") as refused:
        structural_kd_loss(teacher, student)
    call = re.search(r"structkd\.relabel\(.*?\)", str(refused.value))
    assert call is not None
    assert call[0] == remedy
    mapped = eval(call[0], {"structkd": structkd, "teacher": teacher, "student": student})
    assert structural_kd_loss(mapped, student).isfinite()


def test_other_types_in_another_scheme_and_sides_without_names() -> None:
    ours, theirs = ["O", "B-A", "I-A", "B-B", "I-B"], ["O", "B-A", "I-A", "E-A", "S-A"]
    teacher, student = structkd.MaxEnt(torch.zeros(1, 2, 5), labels=theirs), structkd.MaxEnt(torch.zeros(1, 2, 5))
    with pytest.raises(ValueError, match=r"the types \['B'\].*all types in BIOES"):
        structural_kd_loss(teacher, structkd.MaxEnt(torch.zeros(1, 2, 5), labels=ours))
    wider = structkd.relabel(teacher, {}, labels=[*theirs, "B-B", "I-B", "E-B", "S-B"])
    assert structural_kd_loss(wider, structkd.MaxEnt(torch.zeros(1, 2, 5), labels=ours)).isfinite()
    with pytest.raises(ValueError, match="The student has no labels"):
        structural_kd_loss(teacher, structkd.MaxEnt(torch.zeros(1, 2, 3)))
    with pytest.raises(ValueError, match="The teacher has no labels"):
        structural_kd_loss(structkd.MaxEnt(torch.zeros(1, 2, 3)), teacher)
    with pytest.raises(ValueError, match=r"got 3 entries for the teacher and 5 for the student\. Score the same"):
        structural_kd_loss(structkd.MaxEnt(torch.zeros(1, 2, 3)), student)


def test_labels_on_one_side_only_are_taken_on_trust() -> None:
    plain, named = words(), structkd.MaxEnt(torch.zeros(2, 3, 3), labels=["a", "b", "c"])
    assert structural_kd_loss(plain, named).isfinite()
    assert structural_kd_loss(named, plain).isfinite()
    assert structural_kd_loss(named, named).isfinite()


@pytest.mark.parametrize("function", [structural_kd_loss, project], ids=["loss", "project"])
@pytest.mark.parametrize(
    "student",
    [
        words(labels=4),
        words(batch=3),
        words(n=4),
        words(lengths=lengths_tensor([3, 2])),
        structkd.LinearChainCRF(torch.zeros(2, 2, 4, 4)),
        structkd.LinearChainCRF(torch.zeros(2, 3, 3, 3)),
        structkd.LinearChainCRF.from_scores(torch.zeros(2, 3, 4), torch.zeros(4, 4)),
    ],
    ids=["labels", "batch", "words", "lengths", "chain-labels", "chain-words", "factored-labels"],
)
def test_teacher_and_student_of_different_shapes(function: Any, student: Any) -> None:
    with pytest.raises(ValueError, match=r"\d"):
        function(words(), student)


@pytest.mark.parametrize("function", [structural_kd_loss, project], ids=["loss", "project"])
def test_dependency_teachers_and_students_of_different_shapes(function: Any) -> None:
    teacher = structkd.HeadSelection(torch.zeros(2, 3, 3))
    for student in (
        structkd.DependencyCRF(torch.zeros(2, 4, 4)),
        structkd.DependencyCRF(torch.zeros(1, 3, 3)),
        structkd.DependencyCRF(torch.zeros(2, 3, 3), lengths=lengths_tensor([3, 2])),
        structkd.HeadLabeling(torch.zeros(2, 4, 2), torch.zeros(2, 4, 2, dtype=torch.long)),
    ):
        with pytest.raises(ValueError, match=r"\d"):
            function(teacher, student)
    labelled = structkd.HeadSelection(torch.zeros(2, 3, 3, 2))
    with pytest.raises(ValueError, match=r"\d"):
        function(labelled, structkd.HeadSelection(torch.zeros(2, 3, 3, 5)))


def test_a_projected_teacher_of_the_wrong_shape() -> None:
    for wrong in (torch.zeros(2, 3, 4), torch.zeros(2, 3), torch.zeros(1, 3, 3)):
        with pytest.raises(ValueError, match=r"\d"):
            structural_kd_loss(wrong, words())


# --------------------------------------------------------------------------------------------------- arguments
@pytest.mark.parametrize("function", [structural_kd_loss, project], ids=["loss", "project"])
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperature(function: Any, temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        function(words(), words(), temperature=temperature)


@pytest.mark.parametrize("function", [structural_kd_loss, project], ids=["loss", "project"])
def test_kinds(function: Any) -> None:
    for teacher, student in (("chain", words()), ([[0.0]], words()), (words(), torch.zeros(2, 3, 3)), (words(), None)):
        with pytest.raises(TypeError):
            function(teacher, student)


def test_options() -> None:
    with pytest.raises(ValueError, match=r"(?s)mean.*batchmean|batchmean.*mean"):
        structural_kd_loss(words(), words(), reduction="mean")
    with pytest.raises(ValueError, match="globl"):
        structural_kd_loss(words(), words(), temperature_mode="globl")
    with pytest.raises(ValueError, match="median"):
        structkd.StructuralKDLoss(reduction="median")(words(), words())
    with pytest.raises(ValueError, match="temperature"):
        structkd.StructuralKDLoss(temperature=0.0)(words(), words())


@pytest.mark.parametrize(
    "weights", [[0.5, 0.6], [-0.5, 1.5], [1.0], [0.2, 0.3, 0.5], [math.nan, 1.0], [0.0, 0.0]], ids=str
)
def test_weights_of_a_mixture(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        structkd.Mixture([words(), words()], weights=weights)


def test_components_of_a_mixture() -> None:
    with pytest.raises(ValueError, match=r"(?i)teacher|component|distribution"):
        structkd.Mixture([])
    with pytest.raises(TypeError):
        structkd.Mixture([words(), torch.zeros(2, 3, 3)])
    with pytest.raises(ValueError, match=r"\d"):
        structural_kd_loss(structkd.Mixture([words(), words(n=4)]), words())


def test_weights_default_to_equal_shares() -> None:
    one, two = (structkd.MaxEnt(torch.randn(1, 2, 3)) for _ in range(2))
    implicit = project(structkd.Mixture([one, two]), words(1, 2))
    assert agrees(implicit, (one.marginals + two.marginals) / 2)


# ---------------------------------------------------------------------------------------------------- empty spaces
@representative
def test_a_loss_from_an_empty_space_names_the_sentence(pair: Pair) -> None:
    if pair.teacher.name == "spans":
        pytest.skip("the segmentation without spans is always possible")
    item = next(i for i, n in enumerate(pair.lengths) if n == max(pair.lengths))
    for side in (0, 1):
        scores, family = list(pair.scores(4)), (pair.teacher, pair.student)[side]
        name = family.maskable[0]
        tensor = scores[side][name].clone()
        if name == "emissions" or family.name in ("maxent", "chain-dense"):
            tensor[item, 1] = -math.inf
        else:
            tensor[item, :, 1] = -math.inf
        scores[side] = scores[side] | {name: tensor}
        built = pair.build(*scores)
        with pytest.raises(ValueError, match=rf"\b{item}\b"):
            structural_kd_loss(*built)


@pytest.mark.parametrize(
    ("teacher", "student"), [(HEADS, PROJECTIVE), (HEADS, NONPROJECTIVE), (NONPROJECTIVE, PROJECTIVE)]
)
def test_a_teacher_without_a_structure_that_the_student_can_build(teacher: Any, student: Any) -> None:
    """The teacher has structures, the student has, but no structure is both's."""
    scores = torch.zeros(2, 4, 4)
    scores[1] = -math.inf
    heads = (1, 0, 2, 2) if teacher is HEADS else (2, 3, 2, 2)
    for word, head in enumerate(heads):
        scores[1, head, word] = 0.0
    built = teacher.build({"scores": scores}), student.build({"scores": torch.zeros(2, 4, 4)})
    assert built[0].partition.isfinite().all()
    for function in (structural_kd_loss, project):
        with pytest.raises(ValueError, match=r"\b1\b"):
            function(*built)


# --------------------------------------------------------------------------------------------------------- the rest
@representative
def test_threads(pair: Pair) -> None:
    """Losses with backward passes from several threads at once."""
    tensors = [pair.scores(seed) for seed in range(4)]

    def step(task: int) -> list[torch.Tensor]:
        teacher, student = tensors[task % 4]
        learning = pair.student.with_grad(student)
        loss = structural_kd_loss(*pair.build(teacher, learning), temperature=1.0 + task % 2)
        loss.backward()
        return [loss.detach(), *(learning[name].grad for name in pair.student.floats(learning))]

    with ThreadPoolExecutor(4) as pool:
        parallel = list(pool.map(step, range(8)))
    for task, results in enumerate(parallel):
        for actual, expected in zip(results, step(task), strict=True):
            assert actual.equal(expected)


@representative
def test_a_loss_leaves_the_callers_tensors_alone(pair: Pair) -> None:
    teacher, student = pair.scores(5)
    before = [{name: tensor.clone() for name, tensor in side.items()} for side in (teacher, student)]
    built = pair.build(teacher, student)
    structural_kd_loss(*built, temperature=2.0)
    project(*built)
    for side, old in zip((teacher, student), before, strict=True):
        for name, tensor in side.items():
            assert tensor.equal(old[name])
            assert not tensor.requires_grad


def test_non_contiguous_and_expanded_scores() -> None:
    for family in (DENSE, FACTORED, MAXENT, HEADS, *TREES):
        scores = family.scores(seeded(6), 3, 4)
        odd = {
            name: tensor.transpose(-1, -2).contiguous().transpose(-1, -2) if tensor.dim() > 1 else tensor
            for name, tensor in scores.items()
        }
        assert agrees(family.build(odd).marginals, family.build(scores).marginals)
        shared = {name: t[:1].expand_as(t) if name in family.batched else t for name, t in scores.items()}
        copied = {name: t.clone() for name, t in shared.items()}
        assert agrees(family.build(shared).marginals, family.build(copied).marginals)
        assert agrees(family.build(shared).entropy, family.build(copied).entropy)


def test_importing_the_library_loads_no_framework() -> None:
    code = (
        "import sys, structkd; "
        "print(sorted({'transformers', 'datasets', 'hydra', 'omegaconf'} & {m.split('.')[0] for m in sys.modules}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


NAMES = [
    "LinearChainCRF",
    "DependencyCRF",
    "NonProjectiveDependencyCRF",
    "HeadSelection",
    "MeanFieldDependency",
    "MaxEnt",
    "HeadLabeling",
    "SpanCRF",
    "Mixture",
    "project",
    "register_projection",
    "uncovered",
    "structural_kd_loss",
    "StructuralKDLoss",
    "token_kd_loss",
    "posterior_kd_loss",
    "topk_kd_loss",
    "emission_kd_loss",
    "logit_matching_loss",
    "legal",
    "KDObjective",
]


@pytest.mark.parametrize("name", NAMES)
def test_public_names(name: str) -> None:
    assert name in structkd.__all__
    assert getattr(structkd, name).__doc__
