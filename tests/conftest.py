"""One thread, fixed seeds, reproducible hypothesis: a failure here fails everywhere, and again tomorrow."""

from __future__ import annotations

import faulthandler
import os

import hypothesis
import pytest
import torch
import torch_struct  # noqa: F401  (loaded before any test counts what importing or calling ours does to it)

torch.set_num_threads(1)

if not torch.cuda.is_available():
    # read when triton is imported, which happens later: its kernels then run on the CPU
    os.environ["TRITON_INTERPRET"] = "1"

hypothesis.settings.register_profile(
    "structkd",
    derandomize=True,
    deadline=None,
    max_examples=15,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
hypothesis.settings.load_profile("structkd")


def pytest_configure(config: pytest.Config) -> None:
    # torch-struct's own classes, which tests build to compare with, declare no constraints.
    config.addinivalue_line("filterwarnings", "ignore:.*does not define `arg_constraints`:UserWarning")
    # Triton's interpreter takes logarithms of 0 by numpy, which reports what a GPU does not.
    config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning:triton.runtime.interpreter")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        # The interpreter has a limit too: it ends with threads and pools that tests have left.
        faulthandler.dump_traceback_later(60, exit=True, file=2)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from kernel_paths import repeats

    left_out = [item for item in items if repeats(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not repeats(item)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
