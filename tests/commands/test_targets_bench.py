"""The benchmark of teacher targets at its smallest; no figure it measures is judged here."""

from pathlib import Path

from preloaded import run_program

from structkd.cache import cache_folder

SCRIPT = Path(__file__).parents[2] / "experiments" / "bench" / "targets.py"


def test_writes_the_tables(tmp_path: Path) -> None:
    options = ["--sentences", "300", "--rounds", "1", "--parts", "memory", "speed", "--output", str(tmp_path / "out")]
    # a cache without corpora; kernels that were compiled before are not compiled again
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "kernels").symlink_to(cache_folder() / "kernels")
    done = run_program(tmp_path, SCRIPT, *options, STRUCTKD_CACHE=str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "out" / "targets.md").read_text()
    for expected in ("## Memory: 300 sentences", "| write |", "| read |", "sentences of toy", "| store |", "| live |"):
        assert expected in text, expected
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["targets.md"]
