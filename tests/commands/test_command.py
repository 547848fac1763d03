"""The command: whole runs on a made-up language, sharing, errors, configurations of the user's own."""

import gzip
import json
import re
import signal
import sys
import textwrap
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import structkd.conf
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from preloaded import Death, run_program, start_command, wait

import structkd
from structkd.commands.main import main
from structkd.commands.schema import register_schema

CONF = Path(structkd.conf.__file__).parent


def read_predictions(path: Path) -> list[dict]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.usefixtures("offline")
def test_a_run_from_end_to_end_and_once_only(run, tmp_path: Path) -> None:
    status, output, _ = run("scenario=case2a", "+debug=tiny")
    assert status == 0
    work = tmp_path / "structkd-runs"
    (folder,) = (work / "runs").iterdir()
    result = json.loads((folder / "metrics.json").read_text())
    assert [(row["role"], row["method"]) for row in result["results"]] == [
        ("teacher", "teacher"),
        ("teacher", "teacher-words"),
        ("student", "none"),
        ("student", "token"),
        ("student", "structural"),
    ]
    assert result["scenario"] == "case2a"
    assert result["data"]["sentences"] == {"train": 120, "dev": 30, "test": 30}
    assert result["comparisons"] == [["structural", "none"], ["structural", "token"]]
    made = json.loads((folder / "run.json").read_text())
    assert made["command"] == "structkd scenario=case2a +debug=tiny"
    assert made["overrides"] == ["scenario=case2a", "+debug=tiny"]
    assert made["environment"]["torch-struct"]
    assert list(made["results"]) == ["teacher", "teacher-words", "none", "token", "structural"]
    for row in made["results"].values():
        assert row["words_per_second"] > 1000
        assert row["seconds"] > 0
        assert row["resumed_from"] is None
    divergences = [row["divergence"] for row in result["results"]]
    assert divergences[:2] == [None, None]
    assert all(0 < found["kl_per_word"] < found["kl"] for found in divergences[2:])
    teacher, own, plain, token, structural = result["results"]
    assert own["of_methods"]
    assert [row["settings"]["model"]["head"] for row in (teacher, own, plain)] == ["crf", "maxent", "maxent"]
    assert all(row["settings"]["model"]["legal"] for row in result["results"]), "teachers follow the student"
    assert 0 < teacher["transition_kl"] < 1
    assert all(0.5 < row["targets_dev"] <= 1 for row in (token, structural))
    assert [row.get("targets_dev") for row in (teacher, own, plain)] == [None] * 3
    assert teacher["test"]["f1"] > max(plain["test"]["f1"], structural["test"]["f1"]) > 0.05
    assert (plain["labelled"], plain["unlabelled"]) == (15, 0)
    assert (structural["labelled"], structural["unlabelled"]) == (15, 40)
    table = (folder / "results.md").read_text()
    assert table in output
    assert result["data"]["notes"] in table, "what a reader of the results has to know"
    assert f"| student, structural | 15 | 40 | {100 * structural['test']['f1']:.2f} |" in table
    # predictions are complete and legal, and give back the figures
    lines = read_predictions(folder / "predictions" / "structural.jsonl.gz")
    assert len(lines) == 30
    words = [pair for line in lines for pair in zip(line["gold"]["labels"], line["predicted"]["labels"], strict=True)]
    assert sum(a == b for a, b in words) / len(words) == pytest.approx(structural["test"]["accuracy"])
    right, predicted, gold = (sum(line["counts"]["f1"][cell] for line in lines) for cell in range(3))
    assert 2 * right / (predicted + gold) == pytest.approx(structural["test"]["f1"])
    assert not any("checkpoints" in path.name for path in work.rglob("*"))
    trained = {path.name: path.stat().st_mtime_ns for path in work.glob("*/metrics.json")}
    assert (work / teacher["folder"] / "model" / "model.safetensors").is_file()
    assert not list(work.rglob("*.bin")) + list(work.rglob("*.pt")) + list(work.rglob("*.pkl"))

    # the table and the last lines name the students' folders, and the run's folder leads to them
    student = result["results"][-1]["folder"]
    command = f"student structural  structkd predict structkd-runs/{student} FILE"
    assert command in table
    assert output.count("structkd predict structkd-runs/student-") == 3, "in the table, and not a second time"
    assert (folder / "student").resolve() == (folder / "models" / "structural").resolve() == work / student / "model"
    assert {path.name for path in (folder / "models").iterdir()} == {row["method"] for row in result["results"]}
    card = (folder / "student" / "README.md").read_text()
    for said in (
        "license: other",
        "distilled from teacher by the method structural",
        f"| 0 | {100 * structural['test']['f1']:.2f} |",
        "15 sentences with labels, 40 without",
        "    structkd scenario=case2a +debug=tiny",
        "torch-struct",
        "aclanthology.org/2021.acl-long.46",
    ):
        assert said in card
    tagged = structkd.load(folder / "student").annotate([line["tokens"] for line in lines])
    assert [each["tags"] for each in tagged] == [line["predicted"]["labels"] for line in lines]

    # the same run again: found, nothing touched
    before = (folder / "metrics.json").stat().st_mtime_ns
    status, output, _ = run("+debug=tiny", "scenario=case2a")
    assert status == 0
    assert f"Finished before: ./{(folder / 'results.md').relative_to(Path.cwd())}" in output
    assert output.count("structkd predict structkd-runs/student-") == 3
    assert "Annotate text with these models:" in output
    assert (folder / "metrics.json").stat().st_mtime_ns == before

    # the same methods in another run: nothing is trained again, and the figures are the same
    status, output, _ = run("scenario=case2a", "+debug=tiny", "kd=token", "~kd@baselines.token")
    assert status == 0
    assert output.count("done before") == 4
    assert {path.name: path.stat().st_mtime_ns for path in work.glob("*/metrics.json")} == trained
    newest = max((work / "runs").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    again = json.loads((newest / "metrics.json").read_text())
    assert [row["method"] for row in again["results"]] == ["teacher", "teacher-words", "none", "token"]
    assert again["results"][3]["test"] == result["results"][3]["test"]


def test_multirun_shares_and_report_reads(run, tmp_path: Path) -> None:
    status, output, _ = run(
        *("-m", "scenario=case1a,case2a", "kd=none,structural", "seed=0,1", "+debug=tiny", "~kd@baselines.token"),
        *("student.trainer.max_steps=8", "student.trainer.eval_steps=4"),
    )
    assert status == 0
    work = tmp_path / "structkd-runs"
    folders = {path.name.split("-")[0] for path in work.glob("*-*") if (path / "metrics.json").exists()}
    assert folders == {"teacher", "student"}
    assert len(list(work.glob("teacher-*"))) == 1, "both cases and both seeds use one teacher"
    # 2 cases x 2 seeds x (none, structural)
    assert len(list(work.glob("student-*"))) == 8
    assert len(list((work / "runs").rglob("results.md"))) == 8
    assert len(re.findall(r"training on", output)) == 9

    status, output, _ = run("report", str(work), "--output", "report")
    assert status == 0
    text = (tmp_path / "report" / "results.md").read_text()
    assert len(re.findall(r"^\| structural \| \d+\.\d\d ± ", text, re.MULTILINE)) == 2
    assert "inconclusive (2 seeds: p cannot be below 0.5; 6 or more can be significant)" in text
    assert len(set(re.findall(r"`(structkd predict \S*structkd-runs/runs/\S+)`", text))) >= 8
    assert len(re.findall(r"^best on dev \(\d+\.\d\d\), \w+, seed [01]: structkd predict ", output, re.MULTILINE)) == 2
    assert len((tmp_path / "report" / "results.csv").read_text().splitlines()) == 1 + 2 + 8
    assert (tmp_path / "report" / "results.png").read_bytes().startswith(b"\x89PNG")
    assert "</html>" in (tmp_path / "report" / "results.html").read_text()
    # every figure of the table is one of the result files'
    figures = {
        f"{100 * row['test']['f1']:.2f}"
        for path in (work / "runs").rglob("metrics.json")
        for row in json.loads(path.read_text())["results"]
    }
    of_seeds = set(re.findall(r"\[(\d+\.\d\d)\]\(", text))
    assert len(of_seeds) > 5
    assert of_seeds <= figures


@pytest.mark.processes
def test_every_scenario_runs(run, tmp_path: Path) -> None:
    """What the README shows: all scenarios in one sweep."""
    status, _, errors = run("-m", "scenario=glob(case*)", "+debug=tiny", "~kd@baselines.token")
    assert status == 0, errors
    runs = [json.loads(path.read_text()) for path in (tmp_path / "structkd-runs" / "runs").rglob("metrics.json")]
    metrics = {result["scenario"]: result["metric"] for result in runs}
    assert metrics == {
        "case1a": "f1",
        "case1b": "las",
        "case2a": "f1",
        "case2b": "las",
        "case3": "accuracy",
        "case4": "f1",
    }
    for result in runs:
        methods = [row["method"] for row in result["results"]]
        assert methods == ["teacher", "none", "structural"], result["scenario"]
        assert all(0.1 < row["test"][result["metric"]] < 1 for row in result["results"]), result["results"]


def test_upos_and_other_methods(run, tmp_path: Path) -> None:
    status, output, _ = run(
        "scenario=case1a",
        "+debug=tiny",
        "task=upos",
        "kd=pseudo_labels",
        "+kd@baselines.posterior=posterior",
        "+kd@baselines.logits=logit_matching",
        "+kd@baselines.topk=topk",
    )
    assert status == 0, output
    result = json.loads(next((tmp_path / "structkd-runs" / "runs").rglob("metrics.json")).read_text())
    assert result["metric"] == "accuracy"
    assert "test accuracy" in output
    assert "test F1" not in output
    assert [row["method"] for row in result["results"]] == [
        *("teacher", "none", "emission", "posterior", "logit_matching", "topk", "pseudo_labels"),
    ]


class TestErrors:
    """One paragraph, exit status 1, no traceback, nothing trained."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["student.labeled=3"], r"no key 'labeled' in student\. Did you mean 'labelled'\?"),
            (["sceanrio=case2a"], r"no key 'sceanrio'\. Did you mean 'scenario'\?"),
            (["kd=structual"], r"no 'structual' in group 'kd'\. Did you mean 'structural'\?"),
            (["scenario=case9z"], r"no 'case9z' in group 'scenario'.*case1a, case1b, case2a"),
            (["seed=zero"], r"'zero'.*Integer.*seed"),
            (
                ["+student.model.encoder.hiden_size=3"],
                r"student\.model\.encoder: .*'hiden_size'\. Did you mean 'hidden_size'\?",
            ),
            (
                ["student.model.encoder.hiden_size=3"],
                r"student\.model\.encoder: .*'hiden_size'\. Did you mean 'hidden_size'\?",
            ),
            (
                ["+student.trainer.lerning_rate=3"],
                r"student\.trainer: Unknown trainer setting 'lerning_rate'.*'learning_rate'",
            ),
            (["student.labelled=71"], r"student\.labelled=71.*which are 70"),
            (["student.unlabelled=51"], r"student\.unlabelled=51.*less the teacher's 70, has 50 sentences"),
            (["teacher.labelled=121"], r"teacher\.labelled=121.*120"),
            (["student.labelled=0"], r"student\.labelled=0"),
            (["student.select=first"], r"student: Unknown selection 'first'; expected one of best, last"),
            (
                ["student.trainer.num_train_epochs=2"],
                r"student\.trainer\.max_steps=30 and student\.trainer\.num_train_epochs=2 exclude each other\. "
                r"Add student\.trainer\.max_steps=null",
            ),
            (["+student.trainer.label_smoothing_factor=0.1"], r"'label_smoothing_factor' is fixed by structkd"),
            (["data.scheme=BILOU"], r"BILOU"),
            (["task=ner"], r"task 'ner'"),
            (["student.model.head=softmax"], r"'softmax'.*crf, maxent"),
            (["kd.loss.temprature=2"], r"no key 'temprature' in kd\.loss\. Did you mean 'temperature'\?"),
            (["kd.loss._target_=os.system"], r"os\.system is refused"),
            (["student.model._target_=structkd.LinearAnnealing"], r"student\.model"),
            (["kd.loss.temperature=-1"], r"kd\.loss: The temperature must be positive and finite, got -1"),
            (["kd.name=token"], r"The methods kd and baselines\.token are both called 'token'"),
            (["kd=[structural"], r"\["),
            (["student.model.encoder=bilstm"], r"write encoder@student\.model\.encoder=bilstm\."),
            (
                ["+teacher@ensemble.other=bilstm_crf", "ensemble.other.labelled=4000"],
                r"ensemble\.other\.labelled=4000: toy has 120 training sentences.* ensemble\.other\.labelled=null",
            ),
        ],
    )
    def test_message(self, run, tmp_path: Path, arguments: list[str], message: str) -> None:
        status, _, errors = run("+debug=tiny", *arguments)
        assert status == 1
        assert re.search(message, errors, re.DOTALL), errors
        assert "Traceback" not in errors
        assert not list((tmp_path / "structkd-runs").glob("*-*/metrics.json"))

    def test_words_that_are_no_command(self, run) -> None:
        status, _, errors = run("reports", "structkd-runs")
        assert status == 1
        assert "'reports' is neither a command (targets, report, " in errors
        assert ") nor key=value. Did you mean 'report'?" in errors

    def test_full_traceback_on_request(self, run, monkeypatch) -> None:
        monkeypatch.setattr(sys, "argv", ["structkd", "+debug=tiny", "student.labelled=0"])
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        GlobalHydra.instance().clear()
        with pytest.raises(ValueError, match=r"student\.labelled=0"):
            main()

    def test_report_without_runs(self, run, tmp_path: Path) -> None:
        status, _, errors = run("report", str(tmp_path / "nowhere"))
        assert status == 1
        assert "no folder" in errors
        status, _, errors = run("report", str(tmp_path))
        assert status == 1
        assert "no finished run" in errors


def test_ones_own_corpus_at_once(run, tmp_path: Path) -> None:
    """All of its sentences are used, for the numbers of the scenarios are those of their corpus; epochs are obeyed."""
    words = ["Ana B-PER", "runs O", "to O", "Rio B-LOC", "Ben B-PER", "sits O"]
    for name, first in (("train", 0), ("dev", 20), ("test", 30)):
        rows = [[f"w{first + row} O", *words[: 2 + row % 5]] for row in range(10)]
        (tmp_path / f"{name}.txt").write_text("".join("\n".join(row) + "\n\n" for row in rows))
    tiny = [f"encoder@{role}.model.encoder=bilstm_tiny" for role in ("teacher", "student")]
    tiny += [f"{role}.trainer.{each}" for role in ("teacher", "student") for each in ("eval_steps=2", "warmup_steps=0")]
    epochs = ["+student.trainer.num_train_epochs=2", "student.trainer.max_steps=null"]
    files = ["data=columns", "data.dev=dev.txt", "data.test=test.txt"]
    work = tmp_path.with_name(f"{tmp_path.name}-elsewhere")
    arguments = ("teacher.trainer.max_steps=2", *epochs, "~kd@baselines.token", f"work_dir={work}")
    status, output, errors = run(*files, *tiny, *arguments)
    assert status == 0, errors
    (folder,) = (work / "runs").iterdir()
    # The table may be published and has no absolute path; the last lines can be typed where the command was.
    table = (folder / "results.md").read_text()
    assert str(work) not in table
    model = re.search(r"student structural +structkd predict (\S+) FILE", table)
    assert model is not None
    assert (folder / model[1]).is_dir()
    assert f"structkd predict {(folder / model[1]).resolve()} FILE" in errors + output
    teacher, _, student = json.loads((folder / "metrics.json").read_text())["results"]
    assert (teacher["labelled"], student["labelled"], student["unlabelled"]) == (10, 10, 0)
    assert student["steps"] == 2


class TestConfigurations:
    def test_every_shipped_file_composes(self) -> None:
        """Those of paper/ and sweep/ compose in test_paper.py and test_sweeps.py."""
        register_schema()
        groups = {
            folder.name: sorted(path.stem for path in folder.glob("*.yaml"))
            for folder in CONF.iterdir()
            if folder.is_dir() and folder.name not in ("hydra", "debug", "paper", "sweep", "__pycache__")
        }
        assert {"data", "encoder", "model", "teacher", "student", "kd", "trainer", "scenario"} <= groups.keys()
        GlobalHydra.instance().clear()
        with initialize_config_module("structkd.conf", version_base="1.3"):
            places = {
                "model": "model@student.model",
                "encoder": "encoder@student.model.encoder",
                "trainer": "trainer@student.trainer",
                "text": "+text@student.text",
            }
            assert all(groups.values()), groups
            # The n-th choices of all groups are composed at once, because each composition takes 0.2 s.
            for turn in range(max(map(len, groups.values()))):
                chosen = {places.get(group, group): each[turn % len(each)] for group, each in groups.items()}
                overrides = [f"{place}={choice}" for place, choice in chosen.items()]
                config = compose("config", overrides=[*overrides, "work_dir=/nowhere"])
                assert OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            for path in (CONF / "debug").glob("*.yaml"):
                assert compose("config", overrides=[f"+debug={path.stem}", "work_dir=/nowhere"]).data

    def test_scenarios_are_deltas_headed_by_their_command(self) -> None:
        for path in (CONF / "scenario").glob("*.yaml"):
            text = path.read_text()
            assert f"#   structkd scenario={path.stem}\n" in text
            assert f"name: {path.stem}\n" in text
            assert len(text.splitlines()) < 30

    def test_help_names_groups_and_places(self, run) -> None:
        status, output, errors = run("--help")
        assert status == 0, errors
        for expected in ("structkd scenario=case2a", "kd: ", "structural", "work_dir", "STRUCTKD_PLUGINS", "petrogold"):
            assert expected in output, expected


def test_a_users_own_scenario_data_models_method_and_code(tmp_path: Path) -> None:
    """A folder of yaml files and a module elsewhere, through --config-dir and STRUCTKD_PLUGINS."""
    (tmp_path / "my_distillation.py").write_text(
        textwrap.dedent(
            """
            from dataclasses import replace

            import structkd
            from structkd.data import load_toy
            from structkd.models import TaggerRecipe

            def corpus(sentences):
                return replace(load_toy(train=sentences, seed=5), name="mine")

            def doubled(teacher, student, reduction="none", factor=1.0):
                return factor * structkd.structural_kd_loss(teacher, student, reduction=reduction)

            class Timid(TaggerRecipe):
                def create(self, annotation, text, annotated):
                    model = super().create(annotation, text, annotated)
                    model.emission.weight.data.mul_(0.1)
                    return model
            """
        )
    )
    conf = tmp_path / "my_conf"
    for name, text in {
        "scenario/mine.yaml": """
            # @package _global_
            defaults:
              - override /data: mine
              - override /teacher: mine
              - override /student: mine
              - override /kd: doubled
            name: mine
            seed: 7
            """,
        "data/mine.yaml": "{_target_: my_distillation.corpus, sentences: 90}",
        "teacher/mine.yaml": """
            defaults: [bilstm_crf, {override /encoder@model.encoder: bilstm_tiny}, _self_]
            labelled: 60
            trainer: {max_steps: 20, eval_steps: 10, learning_rate: 0.02}
            """,
        "student/mine.yaml": """
            defaults: [bilstm_crf, {override /encoder@model.encoder: bilstm_tiny}, _self_]
            labelled: 15
            unlabelled: 20
            model: {_target_: my_distillation.Timid}
            trainer: {max_steps: 10, eval_steps: 10, learning_rate: 0.02}
            """,
        "kd/doubled.yaml": """
            name: doubled
            loss: {_target_: my_distillation.doubled, _partial_: true, factor: 2.0}
            interpolation: {_target_: structkd.ConstantInterpolation, value: 0.5}
            """,
    }.items():
        (conf / name).parent.mkdir(parents=True, exist_ok=True)
        (conf / name).write_text(textwrap.dedent(text).lstrip())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = ["-m", "structkd.commands.main", "--config-dir", conf, "scenario=mine"]
    command += ["~kd@baselines.none", "~kd@baselines.token"]
    refused = run_program(elsewhere, *command, PYTHONPATH=str(tmp_path))
    assert refused.returncode == 1
    assert re.search(r"my_distillation\.\w+ is refused", refused.stderr)
    done = run_program(elsewhere, *command, PYTHONPATH=str(tmp_path), STRUCTKD_PLUGINS="my_distillation")
    assert done.returncode == 0, done.stderr
    assert "mine: mine, base_phrases, seed 7" in done.stdout
    assert "| student, doubled | 15 | 20 |" in done.stdout
    config = json.loads(next(path for path in elsewhere.rglob("student-*/config.json")).read_text())
    assert config["plugins"].keys() == {"my_distillation"}


def test_several_teachers_and_a_text_of_ones_own(run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("velo tolar su sab .\nke miret ta gorish velo .\n" * 3, encoding="utf-8")
    status, output, errors = run(
        *("scenario=case2a", "+debug=tiny", "+text@student.text=lines", "student.text.path=text.txt"),
        *("student.unlabelled=6", "+teacher@ensemble.wordwise=bilstm_maxent", "ensemble.wordwise.weight=0.5"),
        *("encoder@ensemble.wordwise.model.encoder=bilstm_tiny", "ensemble.wordwise.labelled=50"),
        *("ensemble.wordwise.trainer.max_steps=20", "ensemble.wordwise.trainer.eval_steps=20"),
    )
    assert status == 0, errors
    result = json.loads(next((tmp_path / "structkd-runs" / "runs").rglob("metrics.json")).read_text())
    rows = {row["method"]: row for row in result["results"]}
    assert list(rows) == ["teacher", "teacher-wordwise", "teacher-words", "none", "token", "structural"]
    assert [rows[name]["labelled"] for name in ("teacher", "teacher-wordwise")] == [70, 50]
    assert rows["structural"]["unlabelled"] == 6
    assert rows["structural"]["settings"]["weights"] == [1.0, 0.5]
    # another text under the same name is another training
    (tmp_path / "text.txt").write_text("velo miret su sab .\n" * 6, encoding="utf-8")
    status, output, errors = run(
        *("scenario=case2a", "+debug=tiny", "student.text=text.txt"),
        *("student.unlabelled=6", "~kd@baselines.none", "~kd@baselines.token"),
    )
    assert status == 0, errors
    assert "teacher: done before" in output
    assert "student structural: training on 15 labelled and 6 unlabelled" in output


@pytest.mark.processes
def test_two_processes_share_one_teacher(tmp_path: Path) -> None:
    settings = ("+debug=tiny", "~kd@baselines.none", "~kd@baselines.token", "work_dir=work")
    scenarios = ("case1a", "case2a")
    processes = [start_command(tmp_path, *settings, f"scenario={name}", log=name) for name in scenarios]
    wait(*processes)
    outputs = [(tmp_path / name).read_text() for name in scenarios]
    assert [process.exitcode for process in processes] == [0, 0], outputs
    assert sum("teacher: training on" in output for output in outputs) == 1
    assert len(list((tmp_path / "work").glob("teacher-*"))) == 1


@pytest.mark.processes
def test_a_killed_run_continues_its_training(tmp_path: Path) -> None:
    """It ends in the middle of a student; the next run takes the finished trainings and the rest of this one."""

    def start(work: str, death: Death | None = None) -> BaseProcess:
        settings = ("+debug=tiny", "student.trainer.eval_steps=5", "~kd@baselines.none", "~kd@baselines.token")
        folders = (f"work_dir={work}", "hydra.run.dir=${work_dir}/run")
        return start_command(tmp_path, *settings, *folders, log=f"{work}.txt", death=death)

    killed = start("killed", Death("killed/student-.*/checkpoint-10$", 1, 0.005))
    whole = start("whole")
    wait(killed, whole)
    assert killed.exitcode == -signal.SIGPROF, (tmp_path / "killed.txt").read_text()
    assert not list((tmp_path / "killed").glob("student-*/metrics.json"))
    teacher = next((tmp_path / "killed").glob("teacher-*/metrics.json")).stat().st_mtime_ns
    again = start("killed")
    wait(again)
    assert [again.exitcode, whole.exitcode] == [0, 0]
    assert next((tmp_path / "killed").glob("teacher-*/metrics.json")).stat().st_mtime_ns == teacher
    made = [json.loads((tmp_path / name / "run" / "run.json").read_text()) for name in ("killed", "whole")]
    resumed = [run["results"]["structural"]["resumed_from"] for run in made]
    assert resumed[0] is not None
    assert resumed[1] is None
    results = [(tmp_path / name / "run" / "metrics.json").read_bytes() for name in ("killed", "whole")]
    assert results[0] == results[1]
