"""Two processes that train one model get what one process gets on twice the batch."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import ending_processes
import pytest
import torch
from distributed_training import TRAININGS, connected, train_all
from preloaded import kill, start, start_connected, wait
from safetensors.torch import load_file

from structkd.training import processes
from structkd.training.checkpoints import last_complete_checkpoint

EXACT = [name for name in TRAININGS if name != "dropout"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of one process, and of two that were started with no setting but their number."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    log = two / "log.txt"
    # DDP warns where all parameters have gradients: it need not have looked for those that have not.
    started = [*start_connected(connected, two, log=log, TORCH_CPP_LOG_LEVEL="ERROR"), start(train_all, one, log=log)]
    wait(*started, log=log)
    assert [process.exitcode for process in started] == [0, 0, 0], log.read_text()
    return one, two


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.processes
@pytest.mark.parametrize("name", EXACT)
def test_loss_gradient_and_weights_equal_those_of_one_process(name: str, folders: tuple[Path, Path]) -> None:
    one, two = (folder / name for folder in folders)
    alone, shared = log(one), log(two)
    assert len([entry for entry in alone if "loss" in entry]) == 10
    for left, right in zip(alone, shared, strict=True):
        # Dev figures exactly: no sentence is counted twice.
        assert left == pytest.approx(right, abs=1e-5 if "loss" in left else 0.0, rel=0.0)
    weights = load_file(one / "0.safetensors")
    for process in (0, 1):
        final = load_file(two / f"{process}.safetensors")
        for parameter, value in weights.items():
            torch.testing.assert_close(final[parameter], value, rtol=0.0, atol=1e-5, msg=f"{process} {parameter}")


@pytest.mark.processes
def test_two_processes_resume_where_they_stopped(folders: tuple[Path, Path]) -> None:
    for folder in folders:
        assert (folder / "dropout" / "metrics.jsonl").read_bytes() == (folder / "again" / "metrics.jsonl").read_bytes()
        for path in (folder / "dropout").glob("*.safetensors"):
            assert path.read_bytes() == (folder / "again" / path.name).read_bytes(), path
    checkpoints = folders[1] / "dropout" / "checkpoints"
    last = last_complete_checkpoint(checkpoints, processes=2)
    assert last is not None
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in last.iterdir()}
    with pytest.raises(ValueError, match="written by 2 processes and cannot be continued by 1"):
        last_complete_checkpoint(checkpoints)


@pytest.mark.processes
def test_loss_under_data_parallelism_is_that_without(folders: tuple[Path, Path]) -> None:
    for process in (0, 1):
        results = load_file(folders[1] / f"wrapped-{process}.safetensors")
        for name in ("loss", "gradient"):
            torch.testing.assert_close(results[name], results[f"wrapped {name}"], rtol=1e-12, atol=0.0)
        assert results["gradient"].abs().max() > 0


@pytest.mark.processes
@pytest.mark.parametrize(
    ("way", "expected"),
    [
        (ending_processes.with_a_wrapper_in_a_global_name, [0, 0]),
        (ending_processes.by_an_error_in_both, [1, 1]),
        (ending_processes.by_an_error_before_a_collective_operation_is_over, [1, -signal.SIGKILL]),
    ],
)
def test_processes_end_however_a_training_ends(way: Callable[[int], None], expected: list[int], tmp_path: Path) -> None:
    """No thread of gloo outlives the connection, and no process waits for a collective operation that never ends."""
    log = tmp_path / "log.txt"
    first, second = start_connected(ending_processes.train, way, log=log)
    wait(first, log=log)
    if expected[1] < 0:  # as torchrun kills the others
        kill(second)
        # The process that would have waited for ever says where it waited.
        assert "_disconnect" in log.read_text()
    wait(second, log=log)
    assert [first.exitcode, second.exitcode] == expected, log.read_text()


def test_one_process_needs_nothing() -> None:
    code = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("processes", sys.argv[1])
processes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(processes)
assert (processes.is_main_process(), processes.process_count(), processes.broadcast("it")) == (True, 1, "it")
processes.wait_for_everyone()
assert not {"torch", "accelerate"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code, processes.__file__], check=True)
