"""The structural loss of one batch, forward and backward, in every implementation that is compared.

Teacher and student are given as the tensors of scores that define them: (emissions [B, N, C], transitions [C, C]) for
factored chains, ([B, N-1, C, C],) for dense ones, ([B, N, N],) for trees, all sentences N words long. Transitions are
(next, previous). Every loss is the mean over the batch, except pytorch-crf's, which is another loss.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch_struct
from torch import Tensor

import structkd
from structkd.data import legal_transitions
from structkd.distributions.kernels.engines import compiled_for, using

try:
    import torchcrf
except ImportError:
    torchcrf = None

Scores = tuple[Tensor, ...]

FACTORED, DENSE, PROJECTIVE, NON_PROJECTIVE = (
    "factored chain",
    "dense chain",
    "projective trees",
    "non-projective trees",
)
COMPILED, TORCH, LOG = "compiled", "torch", "log"
TORCH_STRUCT, AUTOGRAD, PYTORCH_CRF = "torch-struct", "log-space autograd", "pytorch-crf"
CHECKED = ", checks on"


@dataclass(frozen=True)
class Case:
    """A batch of one structure and the ratios over torch-struct that ours should reach."""

    structure: str
    batch: int
    words: int
    labels: int = 0
    compiled_goal: float | None = None
    torch_goal: float | None = None

    @property
    def title(self) -> str:
        """For the terminal and the tables."""
        labels = f" C={self.labels}" if self.labels else ""
        return f"{self.structure} B={self.batch} N={self.words}{labels}"

    def scores(self, seed: int = 0, scale: float = 1.0, dtype: torch.dtype = torch.float32) -> tuple[Scores, Scores]:
        """Normally distributed scores of a teacher and of a student, whose are leaves that require grad."""
        generator = torch.Generator().manual_seed(seed)
        batch, words, labels = self.batch, self.words, self.labels
        shapes = {
            FACTORED: ((batch, words, labels), (labels, labels)),
            DENSE: ((batch, words - 1, labels, labels),),
        }.get(self.structure, ((batch, words, words),))

        def side() -> Scores:
            return tuple((scale * torch.randn(shape, generator=generator)).to(dtype) for shape in shapes)

        return side(), tuple(scores.requires_grad_() for scores in side())


def legal(scores: Scores) -> Scores:
    """The scores of a factored chain with start scores of 0, and -inf for what is illegal in BIO."""
    emissions, transitions = (tensor.detach() for tensor in scores)
    types = range(transitions.shape[0] // 2)
    start, moves, _ = legal_transitions(["O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")])
    masked = (
        emissions,
        transitions.masked_fill(~moves, float("-inf")),
        torch.zeros(len(start)).masked_fill(~start, float("-inf")),
    )
    return tuple(tensor.requires_grad_(scores[0].requires_grad) for tensor in masked)


def masked_and_plain(case: Case) -> dict[tuple[str, bool], Callable[[], Tensor]]:
    """Forward and backward of a factored chain on every path, by path and whether illegal transitions score -inf."""
    plain = case.scores()
    sides = {False: plain, True: tuple(legal(scores) for scores in plain)}
    paths = [*([COMPILED] if compiled_kernels() else []), TORCH, LOG]
    return {
        (path, masked): partial(step, ours, FACTORED, teacher, student, student=student, path=path)
        for path in paths
        for masked, (teacher, student) in sides.items()
    }


def compiled_kernels() -> bool:
    """Whether the compiled kernels can be had."""
    try:
        with using(COMPILED):
            return compiled_for("chain") is not None
    except ImportError:
        return False


def ours(structure: str, teacher: Scores, student: Scores, validate_args: bool | None = False) -> Tensor:
    """structkd's loss by the path in force."""
    distribution: Callable[..., Any] = {
        FACTORED: structkd.LinearChainCRF.from_scores,
        DENSE: structkd.LinearChainCRF,
        PROJECTIVE: structkd.DependencyCRF,
        NON_PROJECTIVE: structkd.NonProjectiveDependencyCRF,
    }[structure]
    return structkd.structural_kd_loss(
        distribution(*teacher, validate_args=validate_args), distribution(*student, validate_args=validate_args)
    )


def plain_torch_struct(structure: str, teacher: Scores, student: Scores) -> Tensor:
    """The same loss written on torch-struct: its marginals for the teacher, its log Z for the student."""

    def distribution(scores: Tensor) -> Any:
        if structure == PROJECTIVE:
            return torch_struct.DependencyCRF(scores, multiroot=False)
        if structure == NON_PROJECTIVE:
            return torch_struct.NonProjectiveDependencyCRF(scores, multiroot=False)
        return torch_struct.LinearChainCRF(scores)

    theirs, mine = (_potentials(*side) if structure == FACTORED else side[0] for side in (teacher, student))
    target = distribution(theirs.detach().requires_grad_()).marginals.detach()
    return (distribution(mine).partition - (target * mine).flatten(1).sum(1)).mean()


def _potentials(emissions: Tensor, transitions: Tensor) -> Tensor:
    """[B, N-1, C, C], which is what torch-struct takes."""
    bigrams = transitions + emissions[:, 1:, :, None]
    return torch.cat([bigrams[:, :1] + emissions[:, :1, None, :], bigrams[:, 1:]], 1)


def log_space_autograd(structure: str, teacher: Scores, student: Scores) -> Tensor:
    """The same loss of chains as textbooks have it: the forward recursion in log space, differentiated by autograd."""
    log_partition = _log_forward_factored if structure == FACTORED else _log_forward_dense
    theirs = tuple(scores.detach().requires_grad_() for scores in teacher)
    expected = torch.autograd.grad(log_partition(*theirs).sum(), theirs)
    batch = student[0].shape[0]
    score = sum((counts * scores).sum() for counts, scores in zip(expected, student, strict=True))
    return (log_partition(*student).sum() - score) / batch


def _log_forward_factored(emissions: Tensor, transitions: Tensor) -> Tensor:
    forward = emissions[:, 0]
    for n in range(1, emissions.shape[1]):
        forward = torch.logsumexp(forward.unsqueeze(1) + transitions, -1) + emissions[:, n]
    return torch.logsumexp(forward, -1)


def _log_forward_dense(potentials: Tensor) -> Tensor:
    forward = potentials.new_zeros(potentials.shape[0], potentials.shape[-1])
    for n in range(potentials.shape[1]):
        forward = torch.logsumexp(forward.unsqueeze(1) + potentials[:, n], -1)
    return torch.logsumexp(forward, -1)


def step(loss: Callable[..., Tensor], *arguments: Any, student: Scores, path: str | None = None) -> Tensor:
    """Forward and backward; the gradients stay until the next step, as in training."""
    for scores in student:
        scores.grad = None
    if path is None:
        value = loss(*arguments)
        value.backward()
    else:
        with using(path):
            value = loss(*arguments)
            value.backward()
    return value


def contenders(case: Case, only: tuple[str, ...] | None = None) -> dict[str, Callable[[], Tensor]]:
    """Forward and backward by every implementation there is for this structure, on the same scores.

    Args:
        only: the names wanted; None means all.
    """
    teacher, student = case.scores()
    structure = case.structure
    chain = structure in (FACTORED, DENSE)
    found: dict[str, Callable[[], Tensor]] = {}

    def add(name: str, loss: Callable[..., Tensor], *arguments: Any, path: str | None = None) -> None:
        if only is None or name in only:
            found[name] = lambda: step(loss, *arguments, student=student, path=path)

    paths = [COMPILED] if compiled_kernels() else []
    for path in [*paths, TORCH]:
        add(path, ours, structure, teacher, student, path=path)
        # None is the default, which checks
        add(path + CHECKED, ours, structure, teacher, student, None, path=path)
    if structure != PROJECTIVE:  # torch's Eisner is in log space anyway
        add(LOG, ours, structure, teacher, student, path=LOG)
    add(TORCH_STRUCT, plain_torch_struct, structure, teacher, student)
    if chain:
        add(AUTOGRAD, log_space_autograd, structure, teacher, student)
    if structure == FACTORED and torchcrf is not None and (only is None or PYTORCH_CRF in only):
        found[PYTORCH_CRF] = _negative_log_likelihood(case, student[0])
    return found


def _negative_log_likelihood(case: Case, emissions: Tensor) -> Callable[[], Tensor]:
    """-log P(gold) by pytorch-crf: one partition function and no marginals of a teacher."""
    crf = torchcrf.CRF(case.labels, batch_first=True)
    gold = torch.randint(case.labels, emissions.shape[:2], generator=torch.Generator().manual_seed(1))

    def run() -> Tensor:
        emissions.grad = None
        crf.zero_grad()
        loss = -crf(emissions, gold, reduction="mean")
        loss.backward()
        return loss

    return run


def check_agreement(case: Case, functions: dict[str, Callable[[], Tensor]]) -> float:
    """The largest difference of any implementation's loss from torch-struct's, pytorch-crf's other loss aside.

    Raises:
        ArithmeticError: if it is no rounding error; such times would compare nothing.
    """
    values = {name: float(run().detach()) for name, run in functions.items() if name != PYTORCH_CRF}
    wanted = values.get(TORCH_STRUCT, next(iter(values.values())))
    worst = max(abs(value - wanted) for value in values.values())
    if not worst <= 1e-3 * (1 + abs(wanted)):
        raise ArithmeticError(
            f"The implementations must compute the same loss of {case.title}, got {values}. Their times are not "
            "comparable."
        )
    return worst


def gradient_errors(case: Case, scale: float, seeds: int) -> dict[str, float]:
    """Largest error of the gradient from float32 scores, in units of a probability, over some draws.

    What it should be comes from the plain forward recursion in log space and float64, which is neither's code.
    """
    paths = [COMPILED] if compiled_kernels() else []
    errors = dict.fromkeys([*paths, TORCH, LOG, TORCH_STRUCT], 0.0)
    for seed in range(seeds):
        teacher, student = case.scores(seed, scale)
        exact_teacher = tuple(scores.double() for scores in teacher)
        exact = tuple(scores.detach().double().requires_grad_() for scores in student)
        step(log_space_autograd, case.structure, exact_teacher, exact, student=exact)
        for name in errors:
            if name == TORCH_STRUCT:
                step(plain_torch_struct, case.structure, teacher, student, student=student)
            else:
                step(ours, case.structure, teacher, student, student=student, path=name)
            for scores, reference in zip(student, exact, strict=True):
                assert scores.grad is not None
                assert reference.grad is not None
                error = (scores.grad.double() - reference.grad).abs().max() * case.batch
                errors[name] = max(errors[name], float(error))
    return errors
