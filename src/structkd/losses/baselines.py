"""Distillation losses of the literature that do without the teacher's structure distribution, for comparison."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..distributions import LinearChainCRF, MaxEnt
from ..distributions.base import StructuredDistribution, class_name, ordinary_tensors
from ..distributions.checks import check_temperature
from ..distributions.transition_counts import weighted_parts
from ..distributions.wordwise import WordwiseDistribution
from ..projections.registry import check_distribution, check_pair, check_words, targets
from ..projections.structures import k_best
from .structural import Reduction, cross_entropy, structural_kd_loss


@ordinary_tensors
def token_kd_loss(
    teacher: Distribution,
    student: Distribution,
    temperature: float = 1.0,
    temperature_mode: str = "global",
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Token-level distillation: every word's own scores, softmaxed, on both sides; structure is left out.

    Emissions of a chain, arc scores of a parser over heads (first-order ones), logits of a tagger (Hinton et al., 2015,
    word by word). A span's score is of no single word, and what a word would choose alone says little about its
    tag: the tags of the best segmentation stand in, as hard targets. A chain of dense potentials has no per-word scores
    either; its label marginals stand in. Several teachers (a `Mixture`) average word by word.
    Arguments as in `structural_kd_loss`.
    """
    teacher, student = _sides(teacher, student)
    words = student.alone()
    if not isinstance(words, WordwiseDistribution):
        words = student.posterior()
    alone = teacher.alone() if hasattr(teacher, "alone") else teacher
    return structural_kd_loss(alone, words, temperature, temperature_mode, reduction, num_items)


@ordinary_tensors
def posterior_kd_loss(
    teacher: Distribution,
    student: Distribution,
    temperature: float = 1.0,
    temperature_mode: str = "global",
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Posterior distillation (Wang et al., 2020, section 3.2): cross-entropy of every word's marginals on both sides.

    T^2 * -sum_n sum_j P_t(y_n = j) log P_s(y_n = j), with P_t and P_s the marginals of the tempered structure
    distributions. Several teachers (a `Mixture`) average. Arguments as in `structural_kd_loss`, in temperature mode
    "global".
    """
    temperature = _global_only("posterior_kd_loss", temperature, temperature_mode)
    teacher, student = _sides(teacher, student)
    words = student.tempered(temperature).posterior()
    loss = cross_entropy(words, targets(teacher, words, temperature), 1.0, Reduction(words, "none", None))
    return Reduction(student, reduction, num_items)(loss * temperature**2)


@ordinary_tensors
def topk_kd_loss(
    teacher: Distribution,
    student: Distribution,
    temperature: float = 1.0,
    temperature_mode: str = "global",
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
    *,
    k: int,
    weighted: bool = False,
) -> Tensor:
    """Top-K distillation (Kim and Rush, 2016; Wang et al., 2020): -sum_k w_k log P_s(y_k) over the teacher's k best.

    A word whose arc no label of a head-labelling student names takes no part in the loss of that structure.

    Args:
        k: structures per sentence, exactly the best (fewer where fewer exist).
        weighted: weights in proportion to the teacher's probabilities at `temperature`; otherwise equal.
        others: as in `structural_kd_loss`, in temperature mode "global".
    """
    temperature = _global_only("topk_kd_loss", temperature, temperature_mode)
    source, student = _sides(teacher, student, one=True)
    with torch.no_grad():
        scores, parts = k_best(source, student, k)
        weights = (scores / temperature).softmax(0) if weighted else _equal(scores)
        target = tuple(
            reduce(add, [weighted_parts(part, weight) for part, weight in zip(ranked, weights, strict=True)])
            for ranked in zip(*parts, strict=True)
        )
    return cross_entropy(student, target, temperature, Reduction(student, reduction, num_items))


@ordinary_tensors
def emission_kd_loss(
    teacher: Distribution,
    student: Distribution,
    temperature: float = 1.0,
    temperature_mode: str = "global",
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Emission matching (Ba and Caruana, 2014): squared differences of the words' scores on both sides.

    Summed over words and averaged over labels, after each word's scores are centred (a constant per word changes no
    distribution). Scores divided by T and a loss multiplied by T^2 leave no trace of the temperature. For taggers with
    emissions. Arguments as in `structural_kd_loss`, in temperature mode "global". Scores must be finite.
    """
    _global_only("emission_kd_loss", temperature, temperature_mode)
    source, student = _sides(teacher, student, one=True)
    scores = [_emissions(side) for side in (source, student)]
    if None in [None if s is None else True for s in scores]:
        raise NotImplementedError(
            "The loss emission_kd_loss compares the scores of labels, word by word, and needs emissions over one "
            "inventory on both sides (LinearChainCRF.from_scores or MaxEnt), got a teacher "
            f"{class_name(source)} and a student {class_name(student)}. Use structural_kd_loss, which distils between "
            "different factorizations."
        )
    theirs, ours = (s.double() for s in scores)  # type: ignore[union-attr]
    mask = student.word_mask.unsqueeze(-1)
    check_words(MaxEnt(theirs, source.lengths, validate_args=False), MaxEnt(ours, validate_args=False), trailing=1)
    gap = torch.where(mask, ours, 0.0) - torch.where(mask, theirs.detach(), 0.0)
    gap = gap - gap.mean(-1, keepdim=True)
    return Reduction(student, reduction, num_items)(gap.square().mean(-1).sum(-1))


def _sides(teacher: Any, student: Any, one: bool = False) -> tuple[Any, StructuredDistribution]:
    """Both sides checked; `one`: whether the teacher has to be a single structured distribution."""
    teacher, student = check_distribution("teacher", teacher), check_distribution("student", student)
    if not isinstance(student, StructuredDistribution):
        raise NotImplementedError(
            f"The student must be a structured distribution, got {class_name(student)}. Give one of structkd's "
            "classes, or a subclass of structkd.StructuredDistribution."
        )
    if one and not isinstance(teacher, StructuredDistribution):
        raise NotImplementedError(
            f"The teacher of this loss must be a single structured distribution, got {class_name(teacher)}. For "
            "several teachers, give a Mixture to structural_kd_loss, token_kd_loss or posterior_kd_loss."
        )
    check_pair(teacher, student)
    return teacher, student


def _global_only(name: str, temperature: float, temperature_mode: str) -> float:
    if temperature_mode != "global":
        raise ValueError(f"The temperature_mode of {name} must be 'global', got {temperature_mode!r}.")
    return check_temperature(temperature)


def _emissions(side: StructuredDistribution) -> Tensor | None:
    if isinstance(side, LinearChainCRF):
        return getattr(side, "emissions", None)
    return side.log_potentials if isinstance(side, MaxEnt) else None


def _equal(scores: Tensor) -> Tensor:
    found = (scores > float("-inf")).to(scores.dtype)
    return found / found.sum(0)
