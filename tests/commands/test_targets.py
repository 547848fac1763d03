"""`structkd targets`: stores of teachers' scores, written once, in shares, and read by trainings."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

#: Of the 55 sentences of the tiny student.
SHARDS = "store.shard_sentences=10"
#: As short as a training can be.
BRIEFLY = (
    *("+debug=tiny", "teacher.trainer.max_steps=4", "teacher.trainer.eval_steps=2"),
    *("student.trainer.max_steps=4", "student.trainer.eval_steps=2", "~kd@baselines.token"),
)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "structkd-runs"


def written(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_shares_make_the_store_that_trainings_read(run, work: Path) -> None:
    status, output, errors = run("targets", *BRIEFLY, SHARDS, "store.part=1/2")
    assert status == 0, errors
    assert "share 1 of 2 is written, others are missing" in output
    (folder,) = work.glob("targets-*")
    assert not (folder / "manifest.json").exists()
    status, output, errors = run("targets", *BRIEFLY, SHARDS, "store.part=2/2")
    assert status == 0, errors
    assert "teacher: done before" in output
    assert re.search(r"55 sentences, 0\.0 MB, \d+ bytes a sentence; exact", output)
    assert json.loads((folder / "manifest.json").read_text())["sentences"] == 55
    before = written(folder)

    status, output, errors = run(*BRIEFLY, SHARDS, "~kd@baselines.none")
    assert status == 0, errors
    assert list(work.glob("targets-*")) == [folder]
    assert written(folder) == before

    # what a training finds damaged is computed again, and no more than that
    damaged = folder / "scores-00002-of-00006.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    status, output, errors = run(*BRIEFLY, SHARDS, "seed=0", "kd=posterior", "~kd@baselines.none")
    assert status == 0, errors
    after = written(folder)
    assert {name: content for name, (content, _) in after.items()} == {name: each for name, (each, _) in before.items()}
    assert [name for name in before if after[name][1] != before[name][1]] != list(before)
    assert after[damaged.name][1] != before[damaged.name][1]


def test_a_sweep_over_shares_writes_the_store(run, work: Path) -> None:
    """As a launcher for a cluster sends them to several machines."""
    status, output, errors = run("targets", "-m", *BRIEFLY, SHARDS, "store.part=1/2,2/2")
    assert status == 0, errors
    assert "2 runs in" in output
    (folder,) = work.glob("targets-*")
    assert json.loads((folder / "manifest.json").read_text())["sentences"] == 55
    assert len(list((work / "targets").glob("*store.part*"))) == 2
    assert not list((work / "targets").glob("*/.hydra")), "a report would take it for a run"
    assert not (work / "runs").exists(), "a run of its own kind has a folder of its own"


def test_half_precision_is_another_store_and_says_what_it_costs(run, work: Path) -> None:
    sizes = []
    for dtype in ("float32", "float16"):
        status, output, errors = run("targets", *BRIEFLY, f"store.dtype={dtype}")
        assert status == 0, errors
        sizes.append(int(re.search(r"(\d+) bytes a sentence", output)[1]))
    assert re.search(r"rounding costs KL\(exact \|\| stored\) \d.* nats a sentence", output)
    assert sizes[1] < sizes[0]
    assert len(list(work.glob("targets-*"))) == 2


def test_a_live_teacher_says_the_same(run, work: Path) -> None:
    reached = {}
    for way in ("store", "live"):
        status, _, errors = run(*BRIEFLY, f"kd.targets={way}", "~kd@baselines.none")
        assert status == 0, errors
        (path,) = (work / "runs").glob(f"*targets={way}*/metrics.json")
        reached[way] = json.loads(path.read_text())["results"][-1]
    assert len(list(work.glob("targets-*"))) == 1
    assert reached["live"]["folder"] != reached["store"]["folder"]
    assert reached["live"]["divergence"]["kl"] == pytest.approx(reached["store"]["divergence"]["kl"], rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["store.part=3/2"], r"store\.part=3/2: Expected k/n with 1 <= k <= n"),
        (["store.part=half"], r"store\.part=half: Expected k/n"),
        (["store.dtype=bfloat16"], r"store\.dtype=bfloat16: Expected one of float32, float16"),
        (["kd.targets=disk"], r"kd\.targets='disk': Expected one of store, live"),
        (["kd.targets=live", "~kd@baselines.token"], r"No method of this run reads a store"),
        (["kd=none", "~kd@baselines.none", "~kd@baselines.token"], r"No method of this run reads a store"),
    ],
)
def test_errors(run, arguments: list[str], message: str) -> None:
    status, _, errors = run("targets", "+debug=tiny", "teacher.trainer.max_steps=1", *arguments)
    assert status == 1
    assert re.search(message, errors, re.DOTALL), errors
    assert "Traceback" not in errors


@pytest.mark.processes
@pytest.mark.skipif(sys.platform == "win32", reason="gloo as torchrun uses it needs Linux or macOS")
def test_processes_of_torchrun_do_one_run_together(tmp_path: Path) -> None:
    """Two processes, really started by it: one speaks and writes; the training is another than that of one process."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "STRUCTKD_WORK": str(tmp_path / "work")}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "structkd"]
    done = subprocess.run(
        [*command, "scenario=case1a", "+debug=tiny", "~kd@baselines.token", "~kd@baselines.none"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("teacher: training on") == 1
    assert done.stdout.count("| student, structural |") == 1
    (path,) = (tmp_path / "work" / "runs").glob("*/metrics.json")
    result = json.loads(path.read_text())
    assert [row["settings"]["processes"] for row in result["results"]] == [2] * 2
    assert all(row["test"]["f1"] > 0.2 for row in result["results"])
    assert len(list((tmp_path / "work").glob("targets-*/manifest.json"))) == 1


def test_teachers_of_single_methods_have_stores_of_their_own(run, work: Path) -> None:
    status, output, errors = run(
        "targets", "+debug=tiny", "teacher.trainer.max_steps=2", "teacher.trainer.eval_steps=2"
    )
    assert status == 0, errors
    assert len(list(work.glob("targets-*/manifest.json"))) == 2
    assert re.findall(r"^(teacher[\w-]*): 55 sentences", output, re.MULTILINE) == ["teacher", "teacher-words"]
