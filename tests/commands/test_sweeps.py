"""Sweeps: named folders, launchers, failed runs, optimisers, and a sweep killed again and again."""

import json
import os
import random
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structkd.conf
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from preloaded import Death, run_program, start_command, wait

from structkd.commands.schema import register_schema
from structkd.commands.sweep import run_name

CONF = Path(structkd.conf.__file__).parent
# As small as a training can be that still stops, saves and chooses in its middle.
TINY = (
    *("+debug=tiny", "~kd@baselines.token", "teacher.trainer.max_steps=20", "teacher.trainer.eval_steps=5"),
    *("student.trainer.max_steps=9", "student.trainer.eval_steps=3"),
)


def results(work: Path) -> dict[str, bytes]:
    """What came out: of runs and of trainings."""
    return {str(path.relative_to(work)): path.read_bytes() for path in work.rglob("metrics.json")}


def finished(work: Path) -> dict[str, tuple[int, int]]:
    """What would be written anew if a run or a training were repeated."""
    return {
        str(path.relative_to(work)): ((stat := path.stat()).st_mtime_ns, stat.st_ino)
        for metrics in work.rglob("metrics.json")
        for path in metrics.parent.glob("*.json")
    }


class TestNames:
    def test_overrides_in_alphabetical_order(self) -> None:
        assert run_name([]) == "defaults"
        assert run_name(["work_dir=/some/where"]) == "defaults"
        assert run_name(["seed=0", "scenario=case1a", "work_dir=x"]) == "scenario=case1a,seed=0"
        files = ["data=columns", "data.dev=a", "data.train=b", *(f"student.trainer.x{key}={key}" for key in range(9))]
        long = run_name([*files, "seed=0", "kd=topk"])
        assert long.startswith("data=columns,kd=topk,seed=0,data.dev=a,data.train=b,student.trainer.x0=0,")
        assert len(long) == 120
        assert len(run_name([f"x{key}={'y' * 20}" for key in range(9)])) == 120
        assert run_name(["seed=0", "+debug=tiny"]) == run_name(["+debug=tiny", "seed=0"]) == "+debug=tiny,seed=0"

    @pytest.mark.parametrize(
        ("typed", "swept"),
        [("a=[1, 2]", "a=[1,2]"), ("~kd@baselines.token", "~kd@baselines.token=null"), ("a= b", "a=b")],
    )
    def test_same_alone_and_in_a_sweep(self, typed: str, swept: str) -> None:
        """Sweepers write overrides in their own way."""
        assert run_name([typed, "b=2"]) == run_name(["b=2", swept])

    @pytest.mark.parametrize(
        ("overrides", "name"),
        [
            (["student.text.path=news/2020.txt"], "student.text.path=news%2F2020.txt"),
            (["a='it: 5%'"], "a=%27it%3A 5%25%27"),
            (["a={b: 1, c: [2, x]}"], "a={b:1,c:[2,x]}".replace(":", "%3A")),
            (["encoder@student.model.encoder=bilstm_tiny"], "encoder@student.model.encoder=bilstm_tiny"),
            (["a=1."], "a=1.0"),
            (["a=b."], "a=b%2E"),
        ],
    )
    def test_legal_everywhere_and_readable(self, overrides: list[str], name: str) -> None:
        assert run_name(overrides) == name

    def test_different_overrides_have_different_names(self) -> None:
        lists = [
            *(
                ["a=1"],
                ["a='1'"],
                ['a="1"'],
                ["+a=1"],
                ["++a=1"],
                ["~a"],
                ["~a=1"],
                ["a=1.0"],
                ["a=null"],
                ["a='null'"],
            ),
            *(["a=1", "b=2"], ["a='1,b=2'"], ["a=[1,2]"], ["a=['1','2']"], ["a=['1,2']"], ["a=b/c"], ["a=b%2Fc"]),
            # of overlapping keys the last one wins
            *(["a=1", "a=2"], ["a=2", "a=1"], ["a.b=1", "a={b:2}"], ["a={b:2}", "a.b=1"], ["+a=1", "a=2"]),
            *([f"a={'x' * 200}"], [f"a={'x' * 201}"], [f"a={'x' * 200}", "b=1"]),
        ]
        names = [run_name(overrides) for overrides in lists]
        assert len(set(names)) == len(names), sorted(names)
        for name in names:
            assert re.fullmatch(r"[ -~]{1,120}", name), name
            assert not re.search(r'[<>:"/\\|?*]|[. ]$', name), name


def test_a_failed_run_stops_no_other_and_is_the_only_one_done_again(run, tmp_path: Path) -> None:
    for name in ("one.txt", "three.txt"):
        (tmp_path / name).write_text("velo tolar su sab .\n" * 8)
    # missing.txt comes before three.txt
    tiny = (*TINY, "~kd@baselines.none", "+text@student.text=lines", "student.unlabelled=6")
    sweep = ("-m", *tiny)
    sweep += ("student.text.path=one.txt,missing.txt,three.txt",)
    status, output, errors = run(*sweep)
    work = tmp_path / "structkd-runs"
    assert status == 1
    assert "3 runs in structkd-runs/runs: 2 finished (0 of them before), 1 failed." in output
    assert re.search(r"^run 1 of 3: .*one\.txt.*: test f1 structural \d.*; .* left$", output, flags=re.M), output
    assert re.search(r"^run 3 of 3: .*three\.txt.*: test f1 structural \d+\.\d\d$", output, flags=re.M), output
    assert (work / "index.md").read_text().count("| `student-") == 2
    assert "structkd report structkd-runs/runs" in output
    assert re.search(r"failed: .*student\.text\.path=missing\.txt\n +.*missing\.txt", errors), errors
    assert "Traceback" not in output + errors
    (failed,) = work.glob("runs/*/failed.json")
    failure = json.loads(failed.read_text())
    assert failure["error"] == "FileNotFoundError"
    assert "missing.txt" in failure["message"]
    assert "load_text" in failure["traceback"]
    assert "student.text.path=missing.txt" in failure["overrides"]
    done = finished(work)
    assert len([path for path in done if path.startswith("runs/") and path.endswith("metrics.json")]) == 2
    assert not list(work.glob("runs/.sweeps"))

    (tmp_path / "missing.txt").write_text("ke miret ta gorish velo .\n" * 8)
    status, output, errors = run(*sweep)
    assert status == 0, errors
    assert "3 runs in structkd-runs/runs: 3 finished (2 of them before), 0 failed." in output
    assert not list(work.glob("runs/*/failed.json"))
    assert finished(work).items() >= done.items()
    assert output.count(": training on") == 1, "the student of the failed run"

    # alone, in another order: the same folder
    done = finished(work)
    status, output, _ = run("student.text.path=one.txt", *reversed(tiny))
    assert status == 0
    assert finished(work) == done


#: One of the runs fails. They start processes that load data.
PARALLEL = ("-m", *TINY, "student.labelled=10,1000", "+student.trainer.dataloader_num_workers=1")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What comes out of these runs, one after the other."""
    folder = tmp_path_factory.mktemp("alone")
    done = run_program(folder, "-m", "structkd", *PARALLEL, "work_dir=work")
    assert done.returncode == 1
    found = results(folder / "work")
    assert len([name for name in found if name.startswith("runs/")]) == 1
    assert len([name for name in found if name.startswith("teacher-")]) == 1
    return found


@pytest.fixture
def idle_pools() -> Iterator[None]:
    """The processes that joblib keeps for the next sweep end with the test."""
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


@pytest.mark.processes
def test_joblib_gives_the_same_bytes(run, tmp_path: Path, monkeypatch, alone: dict[str, bytes], idle_pools) -> None:
    """In processes that joblib starts and that have nothing imported; one run fails in its process."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    status, output, errors = run(*PARALLEL, "work_dir=parallel", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert os.environ["OMP_NUM_THREADS"] == "1", "inherited by every process"
    of_parallel_runs(tmp_path / "parallel", status, output, errors, alone)


@pytest.mark.processes
def test_submitit_gives_the_same_bytes(run, tmp_path: Path, alone: dict[str, bytes]) -> None:
    done = run_program(
        tmp_path, "-m", "structkd", *PARALLEL, "work_dir=parallel", "hydra/launcher=submitit_local", OMP_NUM_THREADS=""
    )
    of_parallel_runs(tmp_path / "parallel", done.returncode, done.stdout, done.stderr, alone)
    # The basic launcher finds what they finished.
    before = finished(tmp_path / "parallel")
    _, output, _ = run(*PARALLEL, "work_dir=parallel")
    assert "1 finished (1 of them before), 1 failed" in output
    assert finished(tmp_path / "parallel") == before


def of_parallel_runs(work: Path, status: int, output: str, errors: str, alone: dict[str, bytes]) -> None:
    assert status == 1, errors
    assert "2 runs in parallel/runs: 1 finished (0 of them before), 1 failed." in output, output + errors
    assert "student.labelled=1000" in errors
    assert re.search(r"^run 2 of 2: ", output, flags=re.M), output
    assert results(work) == alone
    (path,) = work.rglob("run.json")
    assert json.loads(path.read_text())["command"].startswith("structkd -m +debug=tiny"), (
        "as typed, not as the launcher started it"
    )


def test_a_sweep_that_cannot_be_composed_starts_nothing(run, tmp_path: Path) -> None:
    status, _, errors = run("-m", *TINY, "kd.loss.temprature=1,2")
    assert status == 1
    assert "no key 'temprature' in kd.loss. Did you mean 'temperature'?" in errors
    assert not list((tmp_path / "structkd-runs").rglob("metrics.json"))


@pytest.mark.processes
@pytest.mark.filterwarnings("ignore:.*SQLAlchemy 2.0")
def test_optuna_continues_and_survives_failed_trials(run, tmp_path: Path) -> None:
    search = ("+sweep=optuna", *(each for each in TINY if not each.startswith("~")))
    # one of the choices cannot be had
    search += ("student.labelled=choice(15,1000)",)
    work = tmp_path / "structkd-runs"
    status, output, errors = run(*search, "hydra.sweeper.n_trials=2")
    first = finished(work)
    status, output, errors = run(*search, "hydra.sweeper.n_trials=4")
    assert status == 1, errors
    runs = [json.loads(path.read_text()) for path in work.glob("runs/*/metrics.json")]
    failed = list(work.glob("runs/*/failed.json"))
    assert len(runs) > 0
    assert len(failed) > 0
    assert len(runs) + len(failed) == 4
    assert f"4 runs in structkd-runs/runs: {len(runs)} finished" in output
    assert finished(work).items() >= first.items()
    best = OmegaConf.load(work / "runs" / "optimization_results.yaml")
    assert best.best_value == max(run["results"][-1]["dev"]["f1"] for run in runs)
    assert [row["method"] for row in runs[0]["results"]] == ["teacher", "structural"]


def test_a_sweeper_that_gives_up_does_not_swallow_the_failures(tmp_path: Path) -> None:
    """Optuna raises where no trial was any good, before Hydra says that the sweep is over."""
    # In a process of its own: optuna keeps writing to the standard error of the test that imported it.
    search = ("+sweep=optuna", "+debug=tiny", "student.labelled=choice(1000,2000)", "hydra.sweeper.n_trials=2")
    done = run_program(tmp_path, "-m", "structkd", *search)
    assert done.returncode == 1
    assert "2 runs in structkd-runs/runs: 0 finished (0 of them before), 2 failed." in done.stdout
    assert done.stderr.count("\nfailed: ") == 2
    assert "student.labelled=1000" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "structkd-runs" / "runs").glob(".sweeps"))


class TestShippedSweeps:
    @pytest.mark.parametrize("path", sorted((CONF / "sweep").glob("*.yaml")), ids=lambda path: path.stem)
    def test_composes_and_is_headed_by_its_command(self, path: Path) -> None:
        assert f"#   structkd +sweep={path.stem}\n" in path.read_text()
        register_schema()
        GlobalHydra.instance().clear()
        with initialize_config_module("structkd.conf", version_base="1.3"):
            config = compose("config", overrides=[f"+sweep={path.stem}"], return_hydra_config=True)
            assert config.hydra.mode.name == "MULTIRUN"
            swept = config.hydra.sweeper.params
            assert swept
            compose("config", overrides=[f"+sweep={path.stem}", "+debug=tiny"])

    @pytest.mark.processes
    def test_temperature(self, run, tmp_path: Path) -> None:
        tiny = [each for each in TINY if not each.startswith("~")]
        status, output, errors = run("+sweep=temperature", *tiny, "kd.loss.temperature=1,3")
        assert status == 0, errors
        assert "4 runs in structkd-runs/runs: 4 finished" in output
        assert len(list((tmp_path / "structkd-runs").glob("student-*"))) == 1 + 4

    def test_unlabelled(self, run, tmp_path: Path) -> None:
        status, output, errors = run("+sweep=unlabelled", *TINY, "student.unlabelled=0,20")
        assert status == 0, errors
        assert "2 runs in structkd-runs/runs: 2 finished" in output


SWEEP = ("-m", "scenario=case1a,case2a", "seed=0,1", *TINY, "~kd@baselines.none")


@pytest.mark.processes
def test_a_sweep_killed_again_and_again(tmp_path: Path) -> None:
    """The same bytes as without, and nothing that was finished is done twice."""
    whole = start_command(tmp_path, *SWEEP, "work_dir=whole", log="whole.txt")
    moments = random.Random(0)
    work = tmp_path / "killed"
    seen: dict[str, tuple[int, int]] = {}
    # In the middle of the teacher, then anywhere.
    deaths = [Death("killed/teacher-.*/checkpoint-10$", 1, 0.005)]
    deaths += [Death("/killed/", moments.randrange(20, 90), moments.uniform(0, 0.02)) for _ in range(3)]
    for death in deaths:
        process = start_command(tmp_path, *SWEEP, "work_dir=killed", death=death)
        wait(process)
        assert process.exitcode == -signal.SIGPROF, (tmp_path / "log.txt").read_text()
        assert finished(work).items() >= seen.items(), "something finished was done again"
        seen = finished(work)
    assert seen, "the moments are early"
    process = start_command(tmp_path, *SWEEP, "work_dir=killed")
    wait(process, whole)
    assert process.exitcode == 0, (tmp_path / "log.txt").read_text()
    assert whole.exitcode == 0, (tmp_path / "whole.txt").read_text()
    assert finished(work).items() >= seen.items(), "something finished was done again"
    assert len([name for name in results(work) if name.startswith("runs/")]) == 4
    assert results(work) == results(tmp_path / "whole")
    (teacher,) = work.glob("teacher-*/timing.json")
    assert json.loads(teacher.read_text())["resumed_from"] is not None


@pytest.mark.processes
def test_a_terminated_sweep_says_how_to_continue(tmp_path: Path) -> None:
    death = Death("work/student-.*/checkpoints", 1, signal=signal.SIGTERM)
    process = start_command(tmp_path, *SWEEP, "work_dir=work", death=death)
    wait(process)
    assert process.exitcode == 143
    log = (tmp_path / "log.txt").read_text()
    assert "interrupted. The same command continues" in log
    assert "Traceback" not in log


def test_as_a_module(tmp_path: Path) -> None:
    """As torchrun starts it; the folder is the user's where hydra.run.dir says so."""
    done = run_program(tmp_path, "-m", "structkd", *TINY, "hydra.run.dir=mine")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "metrics.json").exists()
    assert not (tmp_path / "structkd-runs" / "runs").exists()
