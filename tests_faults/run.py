"""Try faults of every kind and write experiments/results/faults.md: what `make test-faults` calls.

    python tests_faults/run.py [--size 1 interrupted=0.2] [--parts damaged fuzzed interrupted ...] [--seconds N]

A size of 1 tries everything, which takes hours; 0.02 is a slice of minutes; PART=SIZE is that of one part. Every
outcome is kept in the folder --place, and a call that was stopped, or ran out of --seconds, goes on there. With other
code it begins again.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from cases import OUTCOMES, Case, Outcome  # noqa: E402

PARTS = ("damaged", "fuzzed", "payloads", "interrupted", "power", "together")
_SHOWN = 30


def all_cases(parts: list[str], place: Path, sizes: dict[str, float]) -> Iterator[Case]:
    """Yield the cases of some parts; the size of "" is that of parts without one of their own."""
    for part in parts:
        yield from __import__(part).cases(place, sizes.get(part, sizes[""]))


def share(text: str) -> tuple[str, float]:
    """Read SIZE or PART=SIZE."""
    part, _, size = text.rpartition("=")
    if part not in ("", *PARTS) or not 0 < float(size) <= 1:
        raise argparse.ArgumentTypeError(f"a size lies above 0 and is at most 1, and a part is known, got {text}")
    return part, float(size)


def code() -> str:
    """Return a digest of the sources: outcomes of other code do not count."""
    sources = sorted([*(ROOT / "src").rglob("*.py"), *Path(__file__).parent.glob("*.py")])
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def kept(path: Path) -> dict[str, dict]:
    """Return the outcomes of an earlier call by part and name; a line that was cut off is passed over."""
    found = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                record = json.loads(line)
                found[f"{record['part']}: {record['name']}"] = record
            except (ValueError, KeyError):
                continue
    return found


def tried(case: Case) -> dict:
    """Return the record of a case: counts of the outcomes, and what was seen of the bad ones."""
    begun = time.perf_counter()
    outcomes: list[Outcome] = list(case.tries())
    bad = [outcome for outcome in outcomes if not outcome.good]
    return {
        "part": case.part,
        "name": case.name,
        "counts": dict(collections.Counter(outcome.kind for outcome in outcomes)),
        "bad": [f"{outcome.kind}: {outcome.detail}" for outcome in bad[:5]],
        "seconds": round(time.perf_counter() - begun, 2),
    }


def table(records: list[dict], command: str, digest: str) -> str:
    """Return the outcomes as Markdown."""
    parts: dict[str, list[dict]] = {}
    for record in records:
        parts.setdefault(record["part"], []).append(record)
    header = ["fault", "tried", *OUTCOMES, "seconds"]
    rows = []
    for part, of_part in sorted(parts.items()):
        counts = collections.Counter()
        for record in of_part:
            counts.update(record["counts"])
        cells = [part, f"{sum(counts.values()):,}", *(f"{counts[kind]:,}" for kind in OUTCOMES)]
        rows.append([*cells, f"{sum(record['seconds'] for record in of_part):,.0f}"])
    counts = collections.Counter()
    for record in records:
        counts.update(record["counts"])
    rows.append(["all", f"{sum(counts.values()):,}", *(f"{counts[kind]:,}" for kind in OUTCOMES), ""])
    lines = ["# Faults", "", f"    {command}", "", f"Sources {digest}, {time.strftime('%Y-%m-%d')}.", ""]
    lines += ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", *(f"- **{kind}**: {meaning}." for kind, meaning in OUTCOMES.items())]
    bad = [f"{record['part']}, {record['name']}: {each}" for record in records for each in record["bad"]]
    if bad:
        lines += ["", "## Bad ends", ""]
        lines += [f"- `{' '.join(each.split())[:400]}`".replace("``", "`") for each in bad[:_SHOWN]]
    return "\n".join([*lines, ""])


def main() -> None:
    """Try the faults that are not tried yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=share, nargs="+", default=[], help="share of the faults, above 0 and at most 1")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--place", type=Path, default=ROOT / "tests_faults" / ".place", help="folder to work in")
    parser.add_argument("--output", type=Path, default=ROOT / "experiments" / "results" / "faults.md")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after these, to go on another time")
    options = parser.parse_args()
    import everything  # noqa: F401 - processes are forked with all of it

    place = options.place.resolve()
    place.mkdir(parents=True, exist_ok=True)
    digest, log = code(), place / "outcomes.jsonl"
    if (place / "code").exists() and (place / "code").read_text() != digest:
        log.unlink(missing_ok=True)
    (place / "code").write_text(digest)
    records, begun = kept(log), time.monotonic()
    wanted = []
    for case in all_cases(options.parts, place, {"": 1.0, **dict(options.size)}):
        key = f"{case.part}: {case.name}"
        if key not in records and time.monotonic() - begun < options.seconds:
            records[key] = tried(case)
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(records[key]) + "\n")
            for bad in records[key]["bad"]:
                print(f"{key}: {bad}", flush=True)
        if key in records:
            wanted.append(records[key])
    options.output.parent.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "tests_faults/run.py", *sys.argv[1:]])
    options.output.write_text(table(wanted, command, digest), encoding="utf-8")
    print(f"written: {options.output}")
    sys.exit(any(record["bad"] for record in wanted))


if __name__ == "__main__":
    main()
