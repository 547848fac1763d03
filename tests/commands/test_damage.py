"""The same command mends a finished run of which files are damaged, and says so; the bytes are as they were."""

import os
from pathlib import Path

TINY = ("+debug=tiny", "~kd@baselines.token", "~kd@baselines.none", "student.labelled=5", "student.unlabelled=8")
SHORT = tuple(f"{model}.trainer.{name}" for model in ("teacher", "student") for name in ("max_steps=2", "eval_steps=2"))


def contents(work: Path) -> dict[str, bytes]:
    """The files of a working folder that are the same however often it is made."""
    files = (path for path in work.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        str(path.relative_to(work)): path.read_bytes()
        for path in files
        if path.name in ("metrics.json", "model.safetensors", "dev.jsonl.gz", "test.jsonl.gz", "structural.jsonl.gz")
        and ".damaged" not in str(path)
    }


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def test_a_finished_run_is_mended(run, tmp_path: Path) -> None:
    status, _, errors = run(*TINY, *SHORT)
    assert status == 0, errors
    work = tmp_path / "structkd-runs"
    written = contents(work)
    (teacher,), (student,), (folder,) = (sorted(work.glob(each)) for each in ("teacher-*", "student-*", "runs/*"))
    flip(teacher / "model" / "model.safetensors")
    (student / "predictions" / "test.jsonl.gz").write_bytes(b"")
    flip(folder / "results.md")
    os.unlink(next(work.glob("targets-*/manifest.json")))
    status, output, errors = run(*TINY, *SHORT)
    assert status == 0, errors
    said = output + errors
    for name in ("model.safetensors has the sha256", "test.jsonl.gz has 0 bytes", "results.md has the sha256"):
        assert said.count(name) == 1
    assert sorted(path.name for path in work.rglob("*.damaged")) == sorted(
        f"{each.name}.damaged" for each in (teacher, student, folder)
    )
    assert contents(work) == written
    # and the next time nothing is to be done
    status, output, errors = run(*TINY, *SHORT)
    assert status == 0
    assert "Finished before" in output + errors


def test_a_finished_run_is_looked_at_on_a_read_only_file_system(run, tmp_path: Path, monkeypatch) -> None:
    status, _, errors = run(*TINY, *SHORT)
    assert status == 0, errors
    opened = open

    def refusing(path, mode="r", *arguments, **options):
        if set(mode) & set("wax+") and str(path).startswith(str(tmp_path)):
            raise OSError(30, "Read-only file system", str(path))
        return opened(path, mode, *arguments, **options)

    monkeypatch.setattr("builtins.open", refusing)
    monkeypatch.setattr("logging.open", refusing, raising=False)
    status, output, errors = run(*TINY, *SHORT)
    assert status == 0, errors
    assert "Finished before" in output + errors
