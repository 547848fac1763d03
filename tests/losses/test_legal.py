"""Distributions conditioned on legal tag sequences, and losses between them, by enumeration."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from families import (
    BARE,
    DENSE,
    FACTORED,
    MAXENT,
    Chain,
    DenseChain,
    FactoredChain,
    Family,
    MaxEnt,
    lengths_tensor,
    seeded,
)
from families import agrees as close
from oracles import Enumeration, cross_entropy
from pairs import TO_TAGS, Pair

import structkd
from structkd.tags import find_violation, tag_inventory

LENGTHS = (3, 1, 4, 2)
BIO, BIOES = tag_inventory(["X", "Y"], "BIO"), tag_inventory(["X"], "BIOES")


def of_five(family: Family) -> Family:
    """The family with five labels in place of three."""
    if isinstance(family, MaxEnt):
        return MaxEnt(5)
    copied: Chain = DenseChain() if isinstance(family, DenseChain) else FactoredChain(family.ends)  # type: ignore[attr-defined]
    copied.labels = 5
    return copied


FAMILIES = [of_five(family) for family in (MAXENT, FACTORED, BARE, DENSE)]


def conditioned(family: Family, scores: Any, labels: list[str], temperature: float = 1.0) -> list[Enumeration]:
    """P(y) / P(legal) for the legal sequences, from the sequences themselves."""
    scheme = "BIOES" if labels is BIOES else "BIO"
    found = []
    for each in family.enumerate(scores, LENGTHS, temperature):
        space = [y for y in each.scores if find_violation([labels[tag] for tag in y], scheme) is None]
        found.append(each.restricted(space))
    return found


BIOES_OF_BIO = ["O", *(f"{mark}-{kind}" for kind in dict.fromkeys(tag[2:] for tag in BIO[1:]) for mark in "BIES")]


def build(family: Family, scores: Any, labels: list[str]) -> Any:
    return family.build(scores, lengths_tensor(LENGTHS), labels=labels)


def label_marginals(enumerations: list[Enumeration], width: int) -> torch.Tensor:
    expected = torch.zeros(len(LENGTHS), width, 5, dtype=torch.float64)
    for item, each in enumerate(enumerations):
        for (word, tag), mass in each.expectation(lambda y: list(enumerate(y))).items():
            expected[item, word, tag] = mass
    return expected


@pytest.mark.parametrize("labels", [BIO, BIOES], ids=["BIO", "BIOES"])
@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_everything_a_distribution_says(family: Family, labels: list[str]) -> None:
    scores = family.scores(seeded(1), len(LENGTHS), 5)
    given = build(family, scores, labels)
    legal = structkd.legal(given)
    expected = conditioned(family, scores, labels)
    assert isinstance(legal, structkd.LinearChainCRF)
    assert legal.labels == labels
    assert close(legal.partition, [each.partition for each in expected])
    assert close(legal.entropy, [each.entropy for each in expected])
    assert close(structkd.project(legal, structkd.MaxEnt(torch.zeros(4, 5, 5).double(), lengths_tensor(LENGTHS))),
                 label_marginals(expected, 5))  # fmt: skip
    best = legal.decode()
    assert torch.equal(best, given.decode(structkd_legality(labels)))
    for item, (n, each) in enumerate(zip(LENGTHS, expected, strict=True)):
        if n > 1 or family.name != "chain-dense":  # a dense chain cannot score one word: its legal tags are tied
            assert tuple(best[item, :n].tolist()) == each.ranked()[0]
        for y in itertools.product(range(5), repeat=n):
            value = torch.zeros(4, 5, dtype=torch.long)
            value[item, :n] = torch.tensor(y)
            assert math.isclose(legal.log_prob(value)[item].item(), each.log_prob(y), abs_tol=1e-8)
    assert close(structkd.legal(legal).partition, legal.partition)  # once is enough


def structkd_legality(labels: list[str]) -> Any:
    from structkd.data import legal_transitions

    return legal_transitions(labels)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("student", FAMILIES, ids=repr)
@pytest.mark.parametrize("teacher", FAMILIES, ids=repr)
def test_structural_kd_with_both_sides_conditioned(teacher: Family, student: Family, temperature: float) -> None:
    """Loss, closed-form gradient, and the teacher's entropy as the lower bound."""
    if "chain-dense" in (teacher.name, student.name) and teacher is not student:
        pytest.skip("bigram tensors say nothing about the one-word sentence; see the next test")
    theirs, ours = (family.scores(seeded(seed), 4, 5) for seed, family in ((2, teacher), (3, student)))
    learning = {name: tensor.clone().requires_grad_() for name, tensor in ours.items()}
    p, q = conditioned(teacher, theirs, BIO, temperature), conditioned(student, ours, BIO, temperature)
    loss = structkd.structural_kd_loss(
        structkd.legal(build(teacher, theirs, BIO)),
        structkd.legal(build(student, learning, BIO)),
        temperature,
        reduction="none",
    )
    assert close(loss, [temperature**2 * cross_entropy(one, other) for one, other in zip(p, q, strict=True)])
    entropies = torch.tensor([each.entropy for each in p], dtype=torch.float64) * temperature**2
    assert (loss.detach() >= entropies - 1e-8).all()
    loss.sum().backward()
    counts = []
    for one, other in zip(p, q, strict=True):
        of_p, of_q = one.expectation(student.cells), other.expectation(student.cells)
        counts.append({c: temperature * (of_q.get(c, 0.0) - of_p.get(c, 0.0)) for c in of_p.keys() | of_q.keys()})
    for name, expected in student.gradients(ours, counts).items():
        assert close(learning[name].grad, expected)


def test_dense_chains_beside_other_forms() -> None:
    """Without a sentence of one word, for which bigrams say nothing."""
    lengths = (3, 2, 4)
    for teacher, student in itertools.permutations(FAMILIES[1::2], 2):
        theirs, ours = teacher.scores(seeded(4), 3, 4), student.scores(seeded(5), 3, 4)
        built = [f.build(s, lengths_tensor(lengths), labels=BIO) for f, s in ((teacher, theirs), (student, ours))]
        loss = structkd.structural_kd_loss(*map(structkd.legal, built), reduction="none")
        expected = []
        for p, q in zip(teacher.enumerate(theirs, lengths), student.enumerate(ours, lengths), strict=True):
            space = [y for y in p.scores if find_violation([BIO[tag] for tag in y], "BIO") is None]
            expected.append(cross_entropy(p.restricted(space), q.restricted(space)))
        assert close(loss, expected)


def test_a_dense_chain_scores_a_sentence_of_one_word_by_legality_alone() -> None:
    """It is uniform over the labels that may stand alone, for gold and beside a teacher's bigrams, which it lacks."""
    family = FAMILIES[3]
    scores = family.scores(seeded(9), len(LENGTHS), 5)
    legal = structkd.legal(build(family, scores, BIOES))
    (alone,) = [item for item, n in enumerate(LENGTHS) if n == 1]
    possible = [n for n, label in enumerate(BIOES) if label[0] in "OS"]
    uniform = math.log(len(possible))
    for label in range(5):
        gold = torch.zeros(len(LENGTHS), 5, dtype=torch.long)
        gold[alone, 0] = label
        loss = structkd.supervised_loss(legal, gold, reduction="none")[alone].item()
        assert loss == (pytest.approx(uniform, abs=1e-12) if label in possible else math.inf)
    unconditioned = build(family, scores, BIOES)
    assert math.isclose(structkd.structural_kd_loss(unconditioned, legal, reduction="none")[alone].item(), uniform)
    read = structkd.retag(unconditioned, ["O", "B-X", "I-X"])  # any of the five tags may be a word of its own there
    assert math.isclose(read.source.partition[alone].item(), math.log(5), abs_tol=1e-12)


@pytest.mark.parametrize("pair", [TO_TAGS[0], TO_TAGS[2]], ids=repr)
def test_spans_teach_legal_tags(pair: Pair) -> None:
    """Case 4: every segmentation is a legal sequence, so the student alone is conditioned."""
    theirs, ours = pair.scores(10)
    labels, scheme = pair.student_options["labels"], pair.name.partition("->")[2]
    teacher, student = pair.build(theirs, ours)
    expected = []
    enumerations = pair.student.enumerate(ours, pair.lengths)
    for p, q in zip(pair.targets(theirs, enumerations), enumerations, strict=True):
        space = [y for y in q.scores if find_violation([labels[tag] for tag in y], scheme) is None]
        expected.append(cross_entropy(p, q.restricted(space)))
    learner = structkd.legal(student)
    assert close(structkd.structural_kd_loss(teacher, learner, reduction="none"), expected)


def test_losses_by_word_condition_the_words_own_scores() -> None:
    """Token and emission KD read emissions first, and the tag scheme conditions them afterwards, on both sides."""
    theirs, ours = FAMILIES[1].scores(seeded(6), 4, 5), FAMILIES[1].scores(seeded(7), 4, 5)
    teacher, student = (structkd.legal(build(FAMILIES[1], scores, BIO)) for scores in (theirs, ours))
    p, q = (conditioned(FAMILIES[0], {"scores": scores["emissions"]}, BIO, 2.0) for scores in (theirs, ours))
    expected = [4 * cross_entropy(one, other) for one, other in zip(p, q, strict=True)]
    assert close(structkd.emission_kd_loss(teacher, student, 2.0, reduction="none"), expected)
    words = structkd.legal(build(FAMILIES[0], {"scores": theirs["emissions"]}, BIO))
    assert close(structkd.token_kd_loss(words, student, 2.0, reduction="none"), expected)
    with pytest.raises(NotImplementedError, match="does not factorize over words"):
        structkd.token_kd_loss(teacher, student)


def test_supervised_loss_and_what_the_scheme_excludes() -> None:
    scores = FAMILIES[0].scores(seeded(8), 4, 5)
    student = structkd.legal(build(FAMILIES[0], scores, BIO))
    gold = torch.tensor([[0, 1, 2, 0], [3, 0, 0, 0], [1, 2, 2, 3], [0, 2, 0, 0]])  # the last one is O I-X
    each = structkd.supervised_loss(student, torch.nn.functional.pad(gold, (0, 1)), reduction="none")
    expected = conditioned(FAMILIES[0], scores, BIO)
    wanted = [-e.log_prob(tuple(row[:n].tolist())) for e, row, n in zip(expected, gold, LENGTHS, strict=True)]
    assert close(each, wanted)
    assert each[3] == math.inf
    unconditioned = build(FAMILIES[0], scores, BIO)
    assert structkd.structural_kd_loss(unconditioned, student) == math.inf


@pytest.mark.parametrize(
    ("distribution", "labels", "error", "message"),
    [
        (structkd.MaxEnt(torch.zeros(1, 2, 3)), None, ValueError, "needs the tag inventory"),
        (structkd.MaxEnt(torch.zeros(1, 2, 2), labels=["NOUN", "VERB"]), None, ValueError, "leave legal out for them"),
        (structkd.MaxEnt(torch.zeros(1, 2, 2)), BIO, ValueError, "5"),
        (structkd.MaxEnt(torch.zeros(1, 2, 5), labels=BIO), BIOES, ValueError, r"B-X.*for a distribution over.*I-Y"),
        (structkd.SpanCRF(torch.zeros(1, 2, 2, 1)), BIO, NotImplementedError, "A SpanCRF builds legal sequences only"),
        (torch.zeros(1, 2, 3), BIO, TypeError, "takes a distribution over tag sequences"),
    ],
)
def test_bad_input(distribution: Any, labels: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        structkd.legal(distribution, labels)


def test_in_the_scheme_io_every_sequence_is_legal() -> None:
    words = structkd.MaxEnt(torch.randn(1, 3, 2, generator=seeded(9)).double(), labels=["O", "I-X"])
    assert close(structkd.legal(words).partition, words.partition)


def test_an_impossible_sentence_is_named() -> None:
    scores = torch.zeros(2, 2, 3).double()
    scores[1, 0, :2] = -math.inf  # I-X alone is left for the first word
    with pytest.raises(ValueError, match=r"no possible structure for batch item\(s\) \[1\]"):
        structkd.legal(structkd.MaxEnt(scores, labels=["O", "B-X", "I-X"])).partition  # noqa: B018


def test_an_empirical_teacher_keeps_its_legal_sequences() -> None:
    sequences = torch.tensor([[[0, 1, 2, 0], [2, 0, 0, 0], [1, 2, 2, 2]], [[2, 9, 9, 9], [0, 9, 9, 9], [1, 9, 9, 9]]])
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]], dtype=torch.float64)
    teacher = structkd.Empirical.from_labels(sequences, weights, lengths=torch.tensor([4, 1]), labels=BIO)
    legal = structkd.legal(teacher)
    assert close(legal.weights, [[5 / 7, 0.0, 2 / 7], [0.0, 0.75, 0.25]])
    assert close(teacher.weights, weights)
    student = structkd.legal(structkd.MaxEnt(torch.randn(2, 4, 5, generator=seeded(11)).double(), labels=BIO,
                                             lengths=torch.tensor([4, 1])))  # fmt: skip
    loss = structkd.structural_kd_loss(teacher, student, reduction="none")
    assert (loss == math.inf).all()
    kept = structkd.structural_kd_loss(legal, student, reduction="none")
    scores = [student.log_prob(sequences[:, k].clamp(max=4)) for k in range(3)]
    assert close(kept[0], -(5 * scores[0][0] + 2 * scores[2][0]) / 7)
    assert close(kept[1], -(3 * scores[1][1] + scores[2][1]) / 4)
    with pytest.raises(ValueError, match=r"illegal tag sequence"):
        structkd.legal(structkd.Empirical.from_labels(torch.tensor([[[2, 0]]]), labels=BIO))
    with pytest.raises(ValueError, match="holds dependency structures"):
        structkd.legal(structkd.Empirical.from_heads(torch.tensor([[[0, 0]]])), BIO)


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_a_teacher_in_another_scheme_is_legal_as_it_is(family: Family) -> None:
    """Its tags are read as decoding reads them and written anew, so that conditioning changes nothing."""
    teacher = structkd.retag(build(family, family.scores(seeded(3), 4, 5), BIO), BIOES_OF_BIO)
    student = structkd.MaxEnt(torch.randn(4, 5, 9).double(), lengths_tensor(LENGTHS), labels=BIOES_OF_BIO)
    legal = structkd.legal(teacher, BIOES_OF_BIO)
    assert close(structkd.project(legal, student), structkd.project(teacher, student))
    if family.name != "chain-dense":  # bigram tensors say nothing about the one-word sentence
        loss = structkd.structural_kd_loss(legal, structkd.legal(student), reduction="none")
        assert torch.isfinite(loss).all()


@pytest.mark.parametrize("family", FAMILIES[:3], ids=repr)
def test_a_relabelled_teacher_keeps_what_becomes_legal(family: Family) -> None:
    """B-X I-Y becomes B-Z I-Z, which is legal; I-X at the beginning becomes I-Z, which is not."""
    scores, target = family.scores(seeded(12), len(LENGTHS), 5), tag_inventory(["Z"], "BIO")
    mapped = structkd.relabel(build(family, scores, BIO), {"X": "Z", "Y": "Z"}, target)
    expected = []
    for each in family.enumerate(scores, LENGTHS):
        pushed = each.pushed(lambda y: tuple(0 if tag == 0 else 1 + (tag - 1) % 2 for tag in y))
        expected.append(pushed.restricted(y for y in pushed.scores if legal_in(y, target)))
    zeros = torch.zeros(4, 5, 3).double()
    student = structkd.MaxEnt(zeros, lengths_tensor(LENGTHS), target)
    found = structkd.project(structkd.legal(mapped), student)
    wanted = torch.zeros_like(zeros)
    for item, each in enumerate(expected):
        for (word, tag), mass in each.expectation(lambda y: list(enumerate(y))).items():
            wanted[item, word, tag] = mass
    assert close(found, wanted)
    assert structkd.structural_kd_loss(structkd.legal(mapped), structkd.legal(student)).isfinite()


def legal_in(tags: Any, labels: list[str]) -> bool:
    return find_violation([labels[tag] for tag in tags], "BIO") is None
