"""The structural distillation loss (Wang et al., 2021, equation 3) and supervised training in the same arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from structkd.configurable import configurable

from ..distributions.base import Parts, StructuredDistribution, class_name, ordinary_tensors
from ..distributions.checks import check_number, check_temperature
from ..distributions.kernels.arithmetic import Gradient
from ..distributions.transition_counts import TransitionCounts, weighted_parts
from ..distributions.wordwise import WordwiseDistribution
from ..projections.registry import check_distribution, require_pair


class _WithGradient(torch.autograd.Function):
    """Losses [B], or their reduction, with a gradient in closed form.

    `gradient` takes the incoming gradient, [B] or [], and is called once. It may therefore give away the tensors it
    holds, which are as large as the scores. If the graph is retained and walked again, `again` computes a new one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        loss: Tensor,
        gradient: Gradient,
        again: Callable[[], Gradient],
        reduction: Reduction,
        *scores: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(*(s for s in scores if s is not None and s.requires_grad))
        ctx.gradient, ctx.again, ctx.reduction = gradient, again, reduction
        ctx.precision = loss.dtype
        value = reduction(loss)
        return value.clone() if value is loss else value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # torch's once_differentiable accepts a constant incoming gradient, and the second derivative is then silently
        # 0. This check refuses every request for a graph of the gradient.
        if torch.is_grad_enabled():
            raise RuntimeError(
                "Structural distillation losses can be differentiated once, and create_graph=True asks for a second "
                "derivative. Write the loss as student.partition - (target * student.log_potentials).sum(...) instead, "
                "with target = structkd.project(teacher, student)."
            )
        if ctx.gradient is None:
            _ = ctx.saved_tensors  # torch refuses if the graph was freed or the scores were changed in place
            ctx.gradient = ctx.again()
        gradient, ctx.gradient = ctx.gradient, None
        return None, None, None, None, *gradient(ctx.reduction.weights(grads[0].to(ctx.precision)))


class Reduction:
    """The reduction of losses [B]: their sum over a divisor, or all of them, in the dtype of the result."""

    def __init__(self, student: StructuredDistribution, reduction: str, num_items: Any) -> None:
        if reduction not in ("none", "sum", "batchmean", "token"):
            raise ValueError(f"The reduction must be 'none', 'sum', 'batchmean' or 'token', got {reduction!r}.")
        self.dtype = student.dtype if student.dtype in (torch.float32, torch.float64) else torch.float32
        self.divisor: float | Tensor | None = None
        if reduction == "none":
            if num_items is not None:
                raise ValueError(
                    f"The divisor num_items={num_items} was given with reduction='none', which sums nothing. Leave "
                    "num_items out, or use reduction='sum'."
                )
        elif num_items is not None:
            self.divisor = check_num_items(num_items)
        elif reduction == "sum" or not student.batch_shape[0]:
            self.divisor = 1
        else:
            self.divisor = student.lengths.sum() if reduction == "token" else student.batch_shape[0]

    def __call__(self, loss: Tensor) -> Tensor:
        """Reduce the losses [B], in the student's dtype (float32 for half precision)."""
        return (loss if self.divisor is None else loss.sum() / self.divisor).to(self.dtype)

    def weights(self, grad: Tensor) -> Tensor:
        """Return the gradient by every loss, [B], or [] if it is the same for all, given that of the reduced value."""
        return grad if self.divisor is None else grad / self.divisor


def cross_entropy(student: StructuredDistribution, target: Parts, temperature: float, reduction: Reduction) -> Tensor:
    """Compute T^2 times the cross-entropy of target part marginals to the student at temperature T, reduced.

    The student's scores are divided by T. The gradient of the result is T (P_s - P_t), which is computed along with the
    value, so that the recursion does not record a graph.
    """
    return _by_parts(student, temperature, reduction, lambda parts: student.cross_entropy_of_parts(parts, target))


def _by_parts(
    student: StructuredDistribution,
    temperature: float,
    reduction: Reduction,
    compute: Callable[[Parts], tuple[Tensor, Parts]],
) -> Tensor:
    """Multiply by T^2 and reduce the losses that `compute` returns, with gradients, from the student's parts over T."""
    parts = student.parts()
    with torch.no_grad():
        tempered = parts if temperature == 1 else tuple(part / temperature for part in parts)
        value, gradients = compute(tempered)

    def gradient(weights: Tensor) -> tuple[Tensor, ...]:
        weights = weights * temperature
        return tuple(
            g.weighted_sum(weights) if isinstance(g, TransitionCounts) else weighted_parts(g, weights)
            for g in gradients
        )

    return _WithGradient.apply(value * temperature**2, gradient, lambda: gradient, reduction, *parts)


def with_gradient(
    recursion: Callable[[], tuple[Tensor, Gradient] | None], student: StructuredDistribution, reduction: Reduction
) -> Tensor | None:
    """Reduce the losses of a recursion that returns them, with gradients, directly from the student's scores.

    Such recursions are `fused_loss` and `fused_likelihood`. Returns None if the recursion does not apply.
    """

    def again() -> Gradient:
        with torch.no_grad():
            found = recursion()
        assert found is not None
        return found[1]

    with torch.no_grad():
        found = recursion()
    return None if found is None else _WithGradient.apply(*found, again, reduction, *student.scores)


def check_num_items(num_items: Any) -> Any:
    if not isinstance(num_items, Tensor):
        num_items = check_number("num_items", num_items)
    elif num_items.numel() != 1:
        raise ValueError(f"The divisor num_items must be one number, got a tensor of shape {list(num_items.shape)}.")
    if not num_items > 0:
        raise ValueError(f"The divisor num_items must be positive, got {num_items}.")
    return num_items.reshape(()) if isinstance(num_items, Tensor) else num_items


def check_mode(temperature_mode: str, student: Distribution) -> None:
    if temperature_mode not in ("global", "local"):
        raise ValueError(f"The temperature_mode must be 'global' or 'local', got {temperature_mode!r}.")
    if temperature_mode == "local" and not isinstance(student, WordwiseDistribution):
        raise ValueError(
            f"The temperature_mode 'local' needs a student that factorizes over words, got {class_name(student)}. "
            "Marginals that are sharpened word by word would belong to no distribution of that class, and the loss "
            "would have no lower bound. Use temperature_mode='global'."
        )


@configurable
@ordinary_tensors
def structural_kd_loss(
    teacher: Distribution | Tensor,
    student: Distribution,
    temperature: float = 1.0,
    temperature_mode: str = "global",
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Compute the cross-entropy of the teacher's structure distribution to the student's.

    The loss is T^2 (log Z_s - sum_u P_t(u) s_s(u)), with u over the student's substructures (Wang et al., 2021,
    equation 3). The gradient by the student's scores is T (P_s(u) - P_t(u)), computed in closed form. The teacher
    receives no gradient.

    Args:
        teacher: a distribution over the same sentences, or a tensor shaped like `student.marginals` that holds the
            teacher's marginals, already projected at this temperature (see `structkd.project`).
        student: a distribution whose scores require grad.
        temperature: T; scores of both sides are divided by it.
        temperature_mode: "global" divides the scores by T before the marginals are computed. "local", the mode of the
            published code, raises the teacher's marginals at T = 1 to the power 1/T and renormalizes them per word; it
            needs a student that factorizes over words.
        reduction: "none" keeps the losses, [B]. The others sum them: "sum" stops there, "batchmean" divides by B, and
            "token" divides by the number of words.
        num_items: divide the sum by this number instead (for gradient accumulation).

    Returns:
        A tensor [] or [B] of the student's dtype (float32 for half precision). It is +inf if the student excludes a
        structure that the teacher allows.

    Raises:
        ValueError: if the two sides have different sentences or inventories, or the student's scores are so large
            (beyond 5e9) that their sums hide the differences.
        NotImplementedError: if no projection serves the pair.

    >>> import structkd, torch
    >>> emissions, transitions = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.eye(2)
    >>> teacher = structkd.LinearChainCRF.from_scores(emissions, transitions)
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> round(structkd.structural_kd_loss(teacher, student).item(), 4)
    1.1792
    """
    temperature = check_temperature(temperature)
    student = check_distribution("student", student)
    check_mode(temperature_mode, student)
    if not isinstance(student, StructuredDistribution):
        raise NotImplementedError(
            f"The student must be a structured distribution, which has parts to train, got {class_name(student)}. Give "
            "one of structkd's other classes, or write a subclass of structkd.StructuredDistribution."
        )
    student.check_size()
    reduced = Reduction(student, reduction, num_items)
    if isinstance(teacher, Tensor):
        target = _given(teacher, student)
    elif temperature_mode == "local":
        target = _sharpened(require_pair(teacher, student).targets(1.0), student, temperature)
    else:
        pair = require_pair(teacher, student)
        if pair.fused and not student.has_large_scores:
            loss = with_gradient(partial(student.fused_loss, pair.teacher, temperature), student, reduced)
            if loss is not None:
                return loss
        target = pair.targets(temperature)
    return cross_entropy(student, target, temperature, reduced)


def _given(marginals: Tensor, student: StructuredDistribution) -> Parts:
    """Check marginals that the caller projected, and return them as parts."""
    shape = student.batch_shape + student.event_shape
    if marginals.shape != shape:
        raise ValueError(
            f"Projected marginals must have the shape of student.marginals, {list(shape)}, got "
            f"{list(marginals.shape)}. Compute them with structkd.project(teacher, student)."
        )
    if not marginals.is_floating_point():
        raise TypeError(
            f"Projected marginals must be floating point, got {marginals.dtype}. Convert them with .float()."
        )
    marginals = marginals.detach()
    if student.checks_values:
        bad = ~((marginals > -1e-4) & (marginals < 1 + 1e-2)) & student.event_mask()
        if bad.any():
            cell = tuple(bad.nonzero()[0].tolist())
            raise ValueError(
                f"Projected marginals must be probabilities; cell {list(cell)} is {marginals[cell].item()}. Compute "
                "them with structkd.project(teacher, student)."
            )
    return student.parts_of_event(marginals)


def _sharpened(target: Parts, student: WordwiseDistribution, temperature: float) -> Parts:
    """Compute P_t(u)^(1/T), renormalized over each word; a word without mass keeps none."""
    choices = student.choices(target[0], student.lengths).clamp_min(0.0) ** (1.0 / temperature)
    total = choices.sum(-1, keepdim=True)
    return (student.arrange(choices / total.masked_fill(total == 0, 1.0)),)


@ordinary_tensors
def supervised_loss(
    student: Any,
    gold: Any,
    reduction: str = "batchmean",
    num_items: float | Tensor | None = None,
) -> Tensor:
    """Compute -log P_s(gold), the cross-entropy to a teacher that is certain of the gold structure.

    Args:
        student: a distribution whose scores require grad.
        gold: structures in the form that `student.decode()` returns (LongTensor [B, N] of labels or heads, or lists of
            spans; padding is ignored), or one-hot events shaped like `student.marginals`. A label or head of -100 is
            unknown, and the loss is then that of all structures that agree with the known ones. If words are
            independent (MaxEnt, HeadLabeling, HeadSelection), an unknown word, or one without a part in an event, has
            no loss; it still counts as a word.
        reduction, num_items: as in `structural_kd_loss`.

    Returns:
        A tensor [] or [B]. It is +inf if scores of -inf exclude the structure.

    Raises:
        ValueError: if `gold` is not a structure of the student's class, such as a tree with crossing arcs for
            `DependencyCRF`; the loss would have no lower bound.

    >>> import structkd, torch
    >>> student = structkd.MaxEnt(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))
    >>> round(structkd.supervised_loss(student, torch.tensor([[0, 1]])).item(), 4)
    1.0064
    >>> round(structkd.supervised_loss(student, torch.tensor([[0, -100]])).item(), 4)
    0.3133
    """
    student = check_distribution("student", student)
    if isinstance(student, StructuredDistribution):
        student.check_size()
    reduced = Reduction(student, reduction, num_items)
    if isinstance(gold, Tensor):
        gold = gold.detach()
    factors = student.factor_likelihood(gold)
    if factors is not None:
        losses = [supervised_loss(factor, part, reduction="none") for factor, part in factors]
        return reduced(torch.stack(losses).sum(0))
    gold = student.checked_gold(gold)
    loss = with_gradient(partial(student.fused_likelihood, gold), student, reduced)
    if loss is not None:
        return loss
    if not student.is_event(gold) and student.leaves_open(gold):
        return _by_parts(student, 1.0, reduced, lambda parts: student.partial_likelihood(parts, gold))
    target = (
        student.parts_of_event(gold.to(student.dtype)) if student.is_event(gold) else student.parts_of_structure(gold)
    )
    return cross_entropy(student, target, 1.0, reduced)
