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
MODELS = json.loads((ROOT / "docs" / "measured" / "inference.json").read_text(encoding="utf-8"))
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


def test_the_speed_of_trained_models() -> None:
    speeds = {name: row["words_per_cpu_second"] for name, row in MODELS["engines"].items()}
    table = re.search(r"^\| words per second of processor time.*?\n\n", PAGE, flags=re.S | re.M)
    assert table is not None
    names = {
        "tagger, exported": "tagger, exported",
        "tagger, `[fast]`": "tagger, compiled",
        "parser, exported": "parser, exported",
        "parser, `[fast]`": "parser, compiled",
        "parser, pure torch": "parser, torch",
        "its biaffine teacher, `[fast]`": "biaffine teacher, compiled",
        "its biaffine teacher, pure torch": "biaffine teacher, torch",
        "MiniLM-L6 tagger, torch": "MiniLM-L6 tagger, torch",
        "spaCy's `ner` (en_core_web_sm 3.8)": "spaCy ner",
    }
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].strip().splitlines()[2:]]
    assert [row[0] for row in rows] == list(names)
    for title, *cells in rows:
        for batch, cell in zip((1, 32), cells, strict=True):
            speed = speeds.get(f"{names[title]}, batch {batch}")
            assert cell == ("" if speed is None else f"{speed:,.0f}")

    def ratio(one: str, other: str, batch: int = 1) -> float:
        return speeds[f"{one}, batch {batch}"] / speeds[f"{other}, batch {batch}"]

    over_spacy = f"{ratio('tagger, exported', 'spaCy ner'):.0f} times as fast as spaCy's"
    assert over_spacy in PAGE
    assert over_spacy in README
    assert f"{ratio('tagger, exported', 'MiniLM-L6 tagger, torch'):.0f} times as fast as MiniLM" in PAGE
    assert f"first tag {MODELS['first_tag_seconds']:.2f} s" in PAGE
    assert f"held {MODELS['peak_megabytes']:.0f} MB" in PAGE
    exported = [ratio("parser, exported", "biaffine teacher, compiled", batch) for batch in (1, 32)]
    assert f"was {exported[0]:.1f} times as fast as its biaffine teacher in torch, and {exported[1]:.1f}" in PAGE
    fast, plain = (ratio(f"parser, {path}", f"biaffine teacher, {path}") for path in ("compiled", "torch"))
    assert f"was {fast:.1f} times as fast as its teacher, without `[fast]` {plain:.1f} times" in PAGE


def test_the_table_of_accuracy_and_speed() -> None:
    rows = json.loads((ROOT / "docs" / "measured" / "both_axes.json").read_text(encoding="utf-8")).values()
    section = PAGE.partition("### More accurate and faster")[2].partition("![")[0]
    slowest = list(rows)[-1]["words_per_cpu_second"]
    expected = [(row["f1"], row["words_per_cpu_second"]) for row in rows]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert [row[1:] for row in cells[2:]] == [
        [f"{100 * f1:.2f}", f"{speed:,.0f}", f"{speed / slowest:.1f}"] for f1, speed in expected
    ]
