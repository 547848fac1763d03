"""Distillation losses from the literature that do not use the teacher's structure distribution, for comparison."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from structkd.configurable import configurable

from ..distributions import Empirical, LinearChainCRF, MaxEnt, Mixture, Relabelled
from ..distributions.base import StructuredDistribution, class_name, ordinary_tensors
from ..distributions.checks import check_temperature
from ..projections.registry import check_distribution, check_pair, check_words, targets
from ..projections.weighted_structures import k_best
from .structural import Reduction, cross_entropy, structural_kd_loss


@configurable
@ordinary_tensors
def token_kd_loss(
    teacher: Distribution,
    student: Distribution,
    temperature: float = 1.0,
    temperature_mode: str = "global",
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Compute token-level distillation: every word of both sides has a softmax of its own (Hinton et al., 2015).

    The teacher factorizes over words: `MaxEnt`, `HeadSelection`, `MeanFieldDependency`, or a `Mixture` of such
    teachers, which are averaged word by word. Of a student that scores transitions or trees, the words' own scores are
    used (its emissions or first-order arc scores). If `structkd.legal` conditioned both sides on legal tags, the
    words' distributions are conditioned likewise.

    Args and Returns are as in `structural_kd_loss`.

    Raises:
        NotImplementedError: the teacher does not factorize over words. `emission_kd_loss` softmaxes the emissions of
            such a teacher, and `posterior_kd_loss` takes its marginals.

    >>> import structkd, torch
    >>> teacher = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> round(structkd.token_kd_loss(teacher, student).item(), 4)
    1.1256
    """
    teacher, student = _sides(teacher, student)
    for component in _components(teacher):
        if not getattr(component, "over_words", False):
            raise NotImplementedError(
                f"The teacher {class_name(component)} does not factorize over words, as token_kd_loss needs. Use "
                "emission_kd_loss, which softmaxes the words' own scores of such a teacher, or posterior_kd_loss, "
                "which takes its marginals; or train a teacher of independent words."
            )
    return structural_kd_loss(teacher, _words(student), temperature, temperature_mode, reduction, num_items)


@configurable
@ordinary_tensors
def emission_kd_loss(
    teacher: Distribution,
    student: Distribution,
    temperature: float = 1.0,
    temperature_mode: str = "global",
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Compute emission distillation: a CRF teacher's emissions are softmaxed word by word (Wang et al., 2020).

    The teacher's transitions, siblings or trees are left out. Its distribution does not determine softmaxed emissions,
    because a CRF may move scores from emissions to transitions. The emissions of a parser are its first-order arc
    scores. Of the student, the words' own scores are used, too. If `structkd.legal` conditioned both
    sides on legal tags, the words' distributions are conditioned likewise. Several teachers (a `Mixture`) are averaged
    word by word.

    Args and Returns are as in `structural_kd_loss`.

    Raises:
        NotImplementedError: the teacher has no scores of single words, as a dense chain or a span model.

    >>> import structkd, torch
    >>> emissions, transitions = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.eye(2)
    >>> teacher = structkd.LinearChainCRF.from_scores(emissions, transitions)
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> round(structkd.emission_kd_loss(teacher, student).item(), 4)
    1.1256
    """
    teacher, student = _sides(teacher, student)
    for component in _components(teacher):
        dense = isinstance(component, LinearChainCRF) and not component.factored
        if dense or not getattr(_alone(component), "over_words", False):
            raise NotImplementedError(
                f"The teacher {class_name(component)}{' of dense potentials' if dense else ''} has no emissions, which "
                "emission_kd_loss softmaxes word by word. Use posterior_kd_loss, which takes its marginals, or "
                "topk_kd_loss with k=1 for its best structure; chains built by LinearChainCRF.from_scores have "
                "emissions."
            )
    return structural_kd_loss(_alone(teacher), _words(student), temperature, temperature_mode, reduction, num_items)


@configurable
@ordinary_tensors
def posterior_kd_loss(
    teacher: Distribution,
    student: Distribution,
    temperature: float = 1.0,
    temperature_mode: str = "global",
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Compute the cross-entropy between every word's marginals on both sides (Wang et al., 2020, section 3.2).

    The loss is T^2 * -sum_n sum_j P_t(y_n = j) log P_s(y_n = j), with P_t and P_s the marginals of the tempered
    structure distributions. Several teachers (a `Mixture`) are averaged.

    Args, Returns and Raises are as in `structural_kd_loss`; the temperature mode must be "global".

    >>> import structkd, torch
    >>> emissions, transitions = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.eye(2)
    >>> teacher = structkd.LinearChainCRF.from_scores(emissions, transitions)
    >>> student = structkd.LinearChainCRF.from_scores(torch.zeros(1, 2, 2), torch.zeros(2, 2))
    >>> round(structkd.posterior_kd_loss(teacher, student).item(), 4)
    1.3863
    """
    temperature = _global_only("posterior_kd_loss", temperature, temperature_mode)
    teacher, student = _sides(teacher, student)
    words = student.tempered(temperature).posterior()
    loss = cross_entropy(words, targets(teacher, words, temperature), 1.0, Reduction(words, "none", None))
    return Reduction(student, reduction, num_items)(loss * temperature**2)


@configurable
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
    """Compute -sum_k w_k log P_s(y_k) over the teacher's k best structures (Kim and Rush, 2016; Wang et al., 2020).

    This is structural distillation from `Empirical.from_topk`, with equal weights unless `weighted`. Of a relabelled or
    retagged teacher, the images of the k best structures before the map are taken; equal images count once.

    Args:
        k: the number of structures per sentence. They are exactly the best; a sentence that has fewer gives fewer.
        weighted: if true, weight the structures by the teacher's probabilities at `temperature`; otherwise equally.
        others: as in `structural_kd_loss`; the temperature mode must be "global".

    Returns and Raises are as in `structural_kd_loss`, but the teacher must be a single structured distribution.

    >>> import structkd, torch
    >>> emissions, transitions = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.eye(2)
    >>> teacher = structkd.LinearChainCRF.from_scores(emissions, transitions)
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> round(structkd.topk_kd_loss(teacher, student, k=2).item(), 4)
    1.0064
    """
    temperature = _global_only("topk_kd_loss", temperature, temperature_mode)
    source, student = _sides(teacher, student, one=True)
    best = k_best(source, student, k, weighted, temperature)
    if isinstance(best, Empirical):
        return structural_kd_loss(best, student, temperature, "global", reduction, num_items)
    return cross_entropy(student, best, temperature, Reduction(student, reduction, num_items))


@configurable
@ordinary_tensors
def logit_matching_loss(
    teacher: Distribution,
    student: Distribution,
    temperature: float = 1.0,
    temperature_mode: str = "global",
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Compute the squared distance of the words' scores of both sides, logit matching (Ba and Caruana, 2014).

    Squares are summed over words and averaged over labels, after each word's scores are centered, because a constant
    per word does not change a distribution. The temperature has no effect: scores are divided by T and the loss is
    multiplied by T^2. Both sides must be taggers with finite emissions.

    Args, Returns and Raises are as in `structural_kd_loss`; the temperature mode must be "global".

    >>> import structkd, torch
    >>> teacher = structkd.MaxEnt(torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]))
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> structkd.logit_matching_loss(teacher, student).item()
    0.5
    """
    _global_only("logit_matching_loss", temperature, temperature_mode)
    source, student = _sides(teacher, student, one=True)
    scores = [_emissions(side) for side in (source, student)]
    if None in [None if s is None else True for s in scores]:
        raise NotImplementedError(
            "The loss logit_matching_loss compares the scores of labels, word by word, and needs emissions over one "
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
    """Check both sides; if `one`, refuse a teacher that is not a single structured distribution."""
    teacher, student = check_distribution("teacher", teacher), check_distribution("student", student)
    if not isinstance(student, StructuredDistribution):
        raise NotImplementedError(
            f"The student must be a structured distribution, got {class_name(student)}. Give one of structkd's "
            "classes, or a subclass of structkd.StructuredDistribution."
        )
    if one and not isinstance(teacher, (StructuredDistribution, Empirical, Relabelled)):
        raise NotImplementedError(
            f"The teacher of this loss must be a single structured distribution, got {class_name(teacher)}. For "
            "several teachers, give a Mixture to structural_kd_loss, token_kd_loss, emission_kd_loss or "
            "posterior_kd_loss."
        )
    check_pair(teacher, student)
    return teacher, student


def _global_only(name: str, temperature: float, temperature_mode: str) -> float:
    if temperature_mode != "global":
        raise ValueError(f"The temperature_mode of {name} must be 'global', got {temperature_mode!r}.")
    return check_temperature(temperature)


def _components(teacher: Any) -> list[Any]:
    return list(teacher.components) if isinstance(teacher, Mixture) else [teacher]


def _alone(teacher: Any) -> Any:
    """Return the distribution in which every word chooses by its own scores; a foreign one has none."""
    return teacher.alone() if hasattr(teacher, "alone") else teacher


def _words(student: StructuredDistribution) -> StructuredDistribution:
    """Return the student's words by their own scores, or by their marginals if words have none."""
    words: Any = student.alone()
    return words if isinstance(words, StructuredDistribution) and words.over_words else student.posterior()


def _emissions(side: StructuredDistribution) -> Tensor | None:
    if isinstance(side, LinearChainCRF):
        return getattr(side, "emissions", None)
    return side.log_potentials if isinstance(side, MaxEnt) else None
