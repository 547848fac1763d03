"""How far a sweep is: a line for every run that ended, with its figures and the time that is left."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from structkd.harmless import without_folders
from structkd.records import RunFolder, RunMetrics, SweepRecord

__all__ = ["Progress", "duration", "number_of_runs", "seeds_remark"]

#: With fewer, no pattern of signs has a p below 0.05.
ENOUGH_SEEDS = 6

#: Seconds after which the records of runs in other processes are looked at again.
_PAUSE = 2.0


def number_of_runs(config: DictConfig) -> int | None:
    """Return how many runs a sweep has; None if its sweeper does not tell before."""
    trials = OmegaConf.select(config, "hydra.sweeper.n_trials")
    if trials is not None:
        return int(trials)
    if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
        return None
    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        overrides = parser.parse_overrides([*swept, *config.hydra.overrides.task])
        # Of two overrides of one key the later one counts, as for the sweeper.
        counts = {each.get_key_element(): _number_of_values(each) for each in overrides}
    except (HydraException, OmegaConfBaseException):  # the sweeper meets it again, and says what is wrong
        return None
    return math.prod(counts.values())


def seeds_remark(overrides: Sequence[str]) -> str:
    """Return a sentence if a sweep has several seeds, but too few for any comparison over them; else "".

    >>> seeds_remark(["seed=0,1,2", "scenario=case1a"])
    '3 seeds: p of a comparison over seeds cannot be below 0.25; 6 seeds or more can be significant.'
    >>> seeds_remark(["seed=range(6)"]), seeds_remark(["seed=1"])
    ('', '')
    """
    try:
        swept = [
            each for each in OverridesParser.create().parse_overrides(list(overrides)) if each.key_or_group == "seed"
        ]
        number = _number_of_values(swept[-1]) if swept else 1
    except (HydraException, OmegaConfBaseException):  # the sweeper meets it again, and says what is wrong
        return ""
    least = 2.0 ** (1 - number)  # of the sign-flip test, see structkd.reporting.significance.smallest_p
    if not 1 < number < ENOUGH_SEEDS:
        return ""
    return (
        f"{number} seeds: p of a comparison over seeds cannot be below {least:.3g}; {ENOUGH_SEEDS} seeds or more can "
        "be significant."
    )


def _number_of_values(override: Override) -> int:
    return len(list(override.sweep_string_iterator())) if override.is_discrete_sweep() else 1


def duration(seconds: float) -> str:
    """Return a time in words.

    >>> duration(20), duration(100), duration(5000), duration(200_000)
    ('less than a minute', 'about 2 minutes', 'about 83 minutes', 'about 56 hours')
    """
    if seconds < 45:
        return "less than a minute"
    if seconds < 90:
        return "about a minute"
    return f"about {seconds / 60:.0f} minutes" if seconds < 7200 else f"about {seconds / 3600:.0f} hours"


class Progress:
    """Reads the records of a sweep, and prints a line for each run that ended.

    Args:
        records: the folder of the records.
        total: number of runs, if it is known.
        say: prints a line.
        typed: the overrides of the sweep; those that all its runs share are left out of the lines.
    """

    def __init__(
        self, records: Path, total: int | None, say: Callable[[str], None], typed: Collection[str] = ()
    ) -> None:
        self._records, self._total, self._say = records, total, say
        self._shared = set(typed) | {f"{each}=null" for each in typed if each.startswith("~")}  # as Hydra writes it
        self._started = time.monotonic()
        self._seen: set[Path] = set()
        self._made = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self) -> None:
        """Look for runs that end in other processes, until :meth:`close`."""
        self._thread = threading.Thread(target=self._watch, daemon=True, name="structkd sweep")
        self._thread.start()

    def close(self) -> None:
        """Report the last runs, and watch no longer."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.report()

    def report(self) -> None:
        """Print a line for every run that has ended since the last call."""
        with self._lock:
            # A record that is being written has a longer name.
            for path in sorted(self._records.glob("[0-9]*.json")):
                if path in self._seen:
                    continue
                try:
                    record = SweepRecord.read(path)
                except (OSError, ValueError):  # it is being written
                    continue
                if record.status != "started":
                    self._seen.add(path)
                    self._made += record.status != "before"
                    self._say(self._line(record))

    def _watch(self) -> None:
        while not self._stop.wait(_PAUSE):
            self.report()

    def _line(self, record: SweepRecord) -> str:
        done = len(self._seen)
        place = f"run {done} of {self._total}" if self._total is not None else f"run {done}"
        own = [each for each in record.overrides if each not in self._shared] or record.overrides
        overrides = " ".join(map(without_folders, own)) or "no overrides"
        parts = [f"{place}: {overrides}: {_outcome(record)}"]
        if self._total is not None and done < self._total and self._made:
            left = (time.monotonic() - self._started) / self._made * (self._total - done)
            parts.append(f"{duration(left)} left")
        return "; ".join(parts)


def _outcome(record: SweepRecord) -> str:
    if record.status == "failed":
        return "failed"
    try:
        run: Any = RunMetrics.find(RunFolder(Path(record.folder)).metrics)
    except (OSError, ValueError):
        run = None
    if run is None:  # the teacher's scores, or a file system that is behind
        return "finished"
    students = sorted(
        (each for each in run.results if each.role == "student"), key=lambda each: each.method != run.method
    )
    figures = [f"{each.method} {100 * each.test[run.metric]:.2f}" for each in students if run.metric in each.test]
    return f"test {run.metric} " + ", ".join(figures)
