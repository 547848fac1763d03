"""One thread, fixed seeds, reproducible hypothesis: a failure here fails everywhere, and again tomorrow."""

from __future__ import annotations

import faulthandler
import functools
import gc
import os
from pathlib import Path
from typing import Any

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


#: Folders of tests that train something, lay out whole runs or start processes.
SLOW = ("commands", "models", "training", "packaging", "docs", "runs", "reporting", "teachers", "export")


def pytest_configure(config: pytest.Config) -> None:
    # torch-struct's own classes, which tests build to compare with, declare no constraints.
    config.addinivalue_line("filterwarnings", "ignore:.*does not define `arg_constraints`:UserWarning")
    # Triton's interpreter takes logarithms of 0 by numpy, which reports what a GPU does not.
    config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning:triton.runtime.interpreter")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fast",
        action="store_true",
        help="leave out models, trainings, runs, commands and the built package; the mathematics runs by one path",
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
    # First those that share a forkserver, then the other folders that take long.
    items.sort(key=lambda item: (not _starts_processes(str(item.path)), item.path.parent.name not in SLOW))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file in one process, and those of all files that share a forkserver, too."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = nodeid.partition("::")[0]
            return "processes" if _starts_processes(str(config.rootpath / path)) else path

    config.option.loadscopereorder = False  # the order is that of the collection
    return ByFile(config, log)


def pytest_collection_finish(session: pytest.Session) -> None:
    # Every training collects garbage. It need not look through what stays: modules, and thousands of tests.
    gc.collect()
    gc.freeze()


@functools.cache
def _starts_processes(path: str) -> bool:
    return "from preloaded import" in Path(path).read_text(encoding="utf-8")


def _without_path(item: pytest.Item) -> tuple[str, str]:
    parts = item.nodeid.partition("[")
    path = getattr(item, "callspec", None) and item.callspec.params.get("kernels")  # type: ignore[attr-defined]
    return parts[0], parts[2].replace(f"{path}", "", 1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
