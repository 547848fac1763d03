"""The figures that README and docs/performance.md state are those of the benchmark that is kept with the pages."""

from __future__ import annotations

import json
import re
from typing import Any

from pages import ROOT

KINDS = {
    "chains from emissions and transitions": "factored chain",
    "chains from dense potentials": "dense chain",
    "projective trees": "projective trees",
    "non-projective trees": "non-projective trees",
}
BENCH = json.loads((ROOT / "docs" / "measured" / "bench.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def milliseconds(row: dict[str, Any]) -> dict[str, float]:
    return {name: times["cpu_ms"] for name, times in row["times"].items()}


def interval(values: list[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f} times"


def test_the_table_of_speeds() -> None:
    found = re.findall(r"^\| ([a-z][^|]*), ([\d /]+) (labels|words) \| ([\d. /]+) \| ([\d. /]+) \|$", PAGE, flags=re.M)
    assert [row[0] for row in found] == list(KINDS)
    for title, sizes, unit, *columns in found:
        rows = [row for row in BENCH["losses"] if row["structure"] == KINDS[title]]
        assert [str(row[unit]) for row in rows] == sizes.split(" / ")
        for name, column in zip(("torch", "compiled"), columns, strict=True):
            times = [milliseconds(row) for row in rows]
            ratios = [each["torch-struct"] / each[name] for each in times]
            assert column.split(" / ") == [f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}" for ratio in ratios]


def test_the_sentences_about_costs() -> None:
    checks: dict[bool, list[float]] = {True: [], False: []}
    for row in BENCH["losses"]:
        times = milliseconds(row)
        checks[row["structure"] == "dense chain"] += [
            times[f"{name}, checks on"] / times[name] for name in ("torch", "compiled")
        ]
    dense, others = (f"{100 * max(checks[each]) - 100:.0f} %" for each in (True, False))
    assert f"up to {others} more time, and up to {dense} for chains from dense potentials" in PAGE
    assert f"cost {interval([ratio for row in BENCH['masks'] for ratio in row['ratios'].values()])} unmasked" in PAGE

    errors = [row["errors"]["torch-struct"] / row["errors"]["compiled"] for row in BENCH["accuracy"]]
    emissions, dense_chain = (f"{each:.0f} times" for each in errors)
    assert f"were {emissions} (chains from emissions) and {dense_chain} (dense) closer" in PAGE
    assert f"{emissions} closer" in README

    held = {name: f"{size / 1e6:.0f} MB" for name, size in BENCH["memory"][0]["bytes"].items()}
    assert f"took {held['torch']}, or {held['compiled']} compiled" in PAGE
    assert f"takes {held['compiled']}, compiled" in README

    steps = {
        parser: [
            times["distilled"] / times["supervised"]
            for times, head in ((milliseconds(row), row["head"]) for row in BENCH["training"])
            if head.startswith("head labels") is parser
        ]
        for parser in (False, True)
    }
    assert f"tagger cost {interval(steps[False])} a supervised one" in PAGE
    assert f"labels words {interval(steps[True])}" in PAGE
    assert f"tagger costs {interval(steps[False])} a supervised one" in README

    chain = milliseconds(BENCH["losses"][1])
    assert f"1/{chain['torch-struct'] / chain['compiled']:.0f} of torch-struct's time" in README
