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


#: Folders of tests that train something or start processes.
SLOW = ("models", "training", "commands", "packaging")


def pytest_configure(config: pytest.Config) -> None:
    # torch-struct's own classes, which tests build to compare with, declare no constraints.
    config.addinivalue_line("filterwarnings", "ignore:.*does not define `arg_constraints`:UserWarning")
    # Triton's interpreter takes logarithms of 0 by numpy, which reports what a GPU does not.
    config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning:triton.runtime.interpreter")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast",
        action="store_true",
        help="leave out models, trainings, commands and the built package; the mathematics runs by one path",
    )


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        # The interpreter has a limit too: it ends with threads and pools that tests have left.
        faulthandler.dump_traceback_later(60, exit=True, file=2)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from kernel_paths import repeats

    left_out = {item for item in items if repeats(item)}
    if config.getoption("fast"):
        seen: set[tuple[str, str]] = set()
        for item in items:
            folder, name = item.path.parent.name, _without_path(item)
            if item not in left_out and (folder in SLOW or name in seen):
                left_out.add(item)
            elif item not in left_out:
                seen.add(name)
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    # One path after the other for the same parameters: what is expected is worked out once.
    places: dict[tuple[str, str], int] = {}
    items.sort(key=lambda item: places.setdefault(_without_path(item), len(places)))


def _without_path(item: pytest.Item) -> tuple[str, str]:
    parts = item.nodeid.partition("[")
    path = getattr(item, "callspec", None) and item.callspec.params.get("kernels")  # type: ignore[attr-defined]
    return parts[0], parts[2].replace(f"{path}", "", 1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
