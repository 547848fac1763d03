"""The loss of chains on a GPU, by every path there is; nothing is measured, or imported, where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from contenders import (
    AUTOGRAD,
    DENSE,
    FACTORED,
    TORCH,
    TORCH_STRUCT,
    Case,
    log_space_autograd,
    ours,
    plain_torch_struct,
)
from contenders import step as forward_and_backward
from measuring import interleaved

TRITON = "triton"
CASES = [
    Case(FACTORED, 32, 32, 9),
    Case(FACTORED, 32, 64, 17),
    Case(FACTORED, 128, 128, 33),
    Case(DENSE, 32, 64, 17),
    Case(DENSE, 128, 128, 33),
]
#: torch-struct multiplies pairs of steps in log space, with C^3 cells each.
LARGEST_TENSOR = 4 * 10**9


def measure(rounds: int, quick: bool, device: str = "cuda") -> list[dict[str, Any]]:
    """Milliseconds of forward and backward, the end of the device's work awaited, all implementations in turns."""
    results = []
    for case in CASES[:1] if quick else CASES:
        functions = contenders(case, device)
        # the paths agree before they are timed
        values = {name: float(function()) for name, function in functions.items()}
        worst = max(values.values()) - min(values.values())
        if not worst <= 1e-3 * (1 + abs(values[TORCH])):
            raise ArithmeticError(
                f"The implementations must compute the same loss of {case.title}, got {values}. Their times are not "
                "comparable."
            )
        times = interleaved(functions, rounds, seconds=5.0)
        results.append({**asdict(case), "wall_ms": {name: time.median_wall for name, time in times.items()}})
    return results


def contenders(case: Case, device: str) -> dict[str, Callable[[], torch.Tensor]]:
    teacher, student = (tuple(scores.detach().to(device) for scores in side) for side in case.scores())
    for scores in student:
        scores.requires_grad_()
    found: dict[str, Callable[[], torch.Tensor]] = {}

    def add(name: str, loss: Callable[..., torch.Tensor], path: str | None = None) -> None:
        def run() -> torch.Tensor:
            value = forward_and_backward(loss, case.structure, teacher, student, student=student, path=path)
            if device == "cuda":
                torch.cuda.synchronize()
            return value

        found[name] = run

    for path in (TRITON, TORCH):
        if path != TRITON or (device == "cuda" and _triton()):
            add(path, ours, path)
    if 2 * case.batch * case.words * case.labels**3 <= LARGEST_TENSOR:
        add(TORCH_STRUCT, plain_torch_struct)
    add(AUTOGRAD, log_space_autograd)
    return found


def _triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
