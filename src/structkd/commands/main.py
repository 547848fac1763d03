"""The console command ``structkd``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.utils import to_absolute_path
from omegaconf import DictConfig, OmegaConf

from .messages import explain, is_user_error
from .schema import register_schema

__all__ = ["main"]

register_schema()


@hydra.main(version_base="1.3", config_path="pkg://structkd.conf", config_name="config")
def _run(config: DictConfig) -> None:
    # Loads transformers and datasets: not before they are needed, so that --help and messages come at once.
    from .distil import distil, typed_command

    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    # Hydra changes the working directory where hydra.job.chdir says so.
    plain["work_dir"] = to_absolute_path(os.path.expanduser(plain["work_dir"]))
    distil(plain, Path(HydraConfig.get().runtime.output_dir), typed_command(), list(HydraConfig.get().overrides.task))


def main() -> None:
    """Run ``structkd report ...``, or hand the command line to Hydra.

    A user's error is one paragraph and exit status 1; HYDRA_FULL_ERROR=1 shows where it was raised.
    """
    if sys.argv[1:2] == ["report"]:
        from .report import report

        run = report
    else:
        run = _run
    wanted = os.environ.get("HYDRA_FULL_ERROR", "0") not in ("", "0")
    # Hydra would print tracebacks of its own and exit; the message is decided here instead.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        run()
    except Exception as error:
        if wanted or not is_user_error(error):
            raise
        print(f"structkd: {explain(error)}", file=sys.stderr)
        print("(HYDRA_FULL_ERROR=1 shows where this was noticed.)", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
