"""One parametrised fixture: every test of the mathematics runs by every path its dynamic programmes can take."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from structkd.distributions.kernels.dispatch import using


@pytest.fixture(autouse=True, params=["compiled", "torch", "log"])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Compiled kernels, torch in probability space, or torch in log space."""
    if request.param == "compiled":
        pytest.importorskip("numba")
    with using(request.param):
        yield request.param
