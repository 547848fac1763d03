"""Reports of made-up runs, written once."""

from pathlib import Path

import pytest
from made_up import save_everything

from structkd.reporting import write_report


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of many runs and that of their report."""
    root = tmp_path_factory.mktemp("reports")
    save_everything(root / "structkd runs")
    write_report([root / "structkd runs"], root / "out" / "report", title="Mine", notes=["A note."])
    return root / "structkd runs", root / "out" / "report"
