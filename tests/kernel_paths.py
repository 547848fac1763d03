"""One parametrised fixture: every test of the mathematics runs by every path its dynamic programmes can take."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from families import Chain, Family
from pairs import Pair

from structkd.distributions.kernels.engines import using

PATHS = ["compiled", "torch", "log", pytest.param("triton", marks=pytest.mark.triton)]

#: The names by which a test that has no parameters shows that it is about chains, which alone can run in Triton.
NAMES_OF_CHAINS = {"DENSE", "FACTORED", "BARE", "LinearChainCRF"}


@pytest.fixture(autouse=True, params=PATHS)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compiled kernels, torch in probability space, torch in log space, Triton's interpreter."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    if request.param == "triton":
        require_interpreter()
    with using(request.param):
        yield request.param


def require_interpreter() -> None:
    """Skip where Triton's kernels do not run on the CPU."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("Triton compiles for the GPU here, see test_gpu_kernels.py; CUDA_VISIBLE_DEVICES= hides it")


def repeats(item: pytest.Item) -> bool:
    """Whether a test would only repeat on its path what another path has shown."""
    chosen = getattr(item, "callspec", None)
    if chosen is None or "kernels" not in chosen.params:
        return False
    if item.get_closest_marker("above_kernels"):
        return chosen.params["kernels"] != "torch"
    path, values = chosen.params["kernels"], list(chosen.params.values())
    for pair in [value for value in values if isinstance(value, Pair)]:
        values += [pair.teacher, pair.student]
    values.append(getattr(item.cls, "family", None))  # type: ignore[attr-defined]
    families = [value for value in values if isinstance(value, Family)]
    if path == "triton" and len(set(families)) > 1 and not item.get_closest_marker("every_path"):
        return True  # the interpreter takes its time: chains with chains of their own kind
    if families and (isinstance(values[-1], Family) or {"family", "pair", "student"} & chosen.params.keys()):
        return all(path not in family.paths for family in families)
    if path != "triton" or any(isinstance(family, Chain) for family in families):
        return False
    names: set[str] = set(item.function.__code__.co_names)  # type: ignore[attr-defined]
    return not names & NAMES_OF_CHAINS
