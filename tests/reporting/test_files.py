"""The files of a report: they say what the results say, link to it, and need nothing else."""

import csv
import re
import struct
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, stdev
from urllib.parse import unquote, urlsplit

import pytest
from made_up import TAGS, TREES, model, save_failure, save_run

from structkd.commands.report import command as report
from structkd.reporting import Report, collect, read_runs, write_report

RULE = "punctuation counted, relation subtypes dropped, as the CoNLL-18 scorer"


class Page(HTMLParser):
    """What a page links to, loads and names; and that what is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names: list[str] = []
        self.tags: Counter[str] = Counter()
        self.text = ""
        self._open: list[str] = []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag not in ("meta", "br", "link", "img"):
            self._open.append(tag)
        for name, value in attributes:
            assert not name.startswith("on")
            if name in ("href", "xlink:href") and value is not None:
                self.links.append(value)
            if name in ("src", "srcset", "data", "poster", "action") and value is not None:
                self.loaded.append(value)
            if name == "id" and value is not None:
                self.names.append(value)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def tables(markdown: str) -> list[list[dict[str, str]]]:
    """Every table of a Markdown text: its lines by the columns of its header."""
    found: list[list[dict[str, str]]] = []
    header: list[str] | None = None
    for line in markdown.splitlines():
        if not line.startswith("|"):
            header = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if header is None:
            header = cells
            found.append([])
        elif set(cells[0]) != {"-"}:
            found[-1].append(dict(zip(header, cells, strict=True)))
    return found


def test_the_files(written: tuple[Path, Path]) -> None:
    _, folder = written
    assert sorted(path.name for path in folder.iterdir()) == [
        "comparisons.csv",
        "divergence.png",
        "learning_curves.png",
        "results.csv",
        "results.html",
        "results.md",
        "results.png",
        "temperature.png",
        "unlabelled.png",
    ]
    for path in folder.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_tables_say_what_the_runs_say(written: tuple[Path, Path]) -> None:
    runs, folder = written
    scenario = collect(read_runs([runs]).finished)[0]
    table = tables((folder / "results.md").read_text())[0]
    assert [line["model"] for line in table] == ["teacher", "none", "token", "structural"]
    for row, line in zip(scenario.rows, table, strict=True):
        values = [model.result.test["f1"] for model in row.models.values()]
        spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
        assert line["test span F1"] == f"{100 * fmean(values):.2f}{spread}"
        assert re.findall(r"\[([\d.]+)\]", line["every seed"]) == [f"{100 * value:.2f}" for value in values]
        assert line["dev span F1"] == f"{100 * fmean(model.result.dev['f1'] for model in row.models.values()):.2f}"
        accuracy = fmean(model.result.test["accuracy"] for model in row.models.values())
        assert line["test accuracy"] == f"{100 * accuracy:.2f}"
        assert line["parameters"] == f"{row.first.result.parameters:,}"
    assert table[3]["words/s (ratio)"] == "18,450 (4.6 ×)"  # noqa: RUF001
    assert table[3]["KL a word"] == "0.070"
    assert table[3]["sentences"] == "100 + 1,500"
    assert (table[0]["gap closed"], table[1]["gap closed"]) == ("", "")


def test_the_page_says_what_the_markdown_says(written: tuple[Path, Path]) -> None:
    _, folder = written
    shown = Page((folder / "results.html").read_text()).text
    for table in tables((folder / "results.md").read_text()):
        for line in table:
            for cell in line.values():
                plain = re.sub(r"\[(.*?)\]\(.*?\)", r"\1", cell).replace("\\", "").strip("`")
                for part in plain.split(", ") if "±" not in plain else [plain]:
                    assert part in shown


@pytest.mark.parametrize("name", ["results.html", "results.md"])
def test_every_link_leads_somewhere(written: tuple[Path, Path], name: str) -> None:
    runs, folder = written
    text = (folder / name).read_text()
    page = Page(text) if name.endswith("html") else None
    links = page.links if page is not None else re.findall(r"\]\((.*?)\)", text)
    targets = set()
    for link in links:
        parts = urlsplit(link)
        assert not parts.scheme
        assert not parts.netloc
        if parts.path:
            target = (folder / unquote(parts.path)).resolve()
            assert target.exists(), link
            targets.add(target)
        else:
            assert page is not None
            assert parts.fragment in page.names, link
    home = runs.resolve() / "runs"
    # names that a URL cannot hold as they are
    assert home / "scenario=case1a,seed=3" in targets
    assert home / "scenario=case1a,seed=3" / ".hydra" / "config.yaml" in targets
    assert home / "scenario=case1a,seed=3" / "predictions" / "token.jsonl.gz" in targets
    assert home / "scenario=case2b,seed=0" in targets


def test_report_and_runs_can_be_moved_together(written: tuple[Path, Path]) -> None:
    _, folder = written
    assert str(folder.parent.parent) not in (folder / "results.html").read_text().replace("structkd report", "")[:-2000]
    assert "../../structkd%20runs/runs/scenario%3Dcase1a%2Cseed%3D0/" in (folder / "results.html").read_text()


def test_the_page_needs_nothing_else(written: tuple[Path, Path]) -> None:
    _, folder = written
    text = (folder / "results.html").read_text()
    page = Page(text)
    assert page.loaded == []
    assert not page.tags.keys() & {"script", "link", "iframe", "object", "embed", "base"}
    assert "@import" not in text
    assert all(match.startswith("#") for match in re.findall(r"url\(['\"]?(.*?)['\"]?\)", text))
    assert page.tags["svg"] >= 15
    assert len(page.names) == len(set(page.names))
    assert '<html lang="en">' in text
    assert 'name="viewport"' in text


def test_colours_are_those_of_the_page(written: tuple[Path, Path]) -> None:
    """A plot keeps no colour of its own that could not be told from a dark ground."""
    text = (written[1] / "results.html").read_text()
    drawings = " ".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawings)) <= {"#000000"}
    used = set(re.findall(r"var\(--([\w-]+)\)", text))
    for block in re.findall(r":root \{(.*?)\}", text, flags=re.DOTALL)[-2:]:
        assert {name for name in used if name.startswith("method-")} <= set(re.findall(r"--([\w-]+):", block))


def test_failures_and_how_all_was_made(written: tuple[Path, Path]) -> None:
    _, folder = written
    page = Page((folder / "results.html").read_text()).text
    markdown = (folder / "results.md").read_text()
    for text in (page, markdown):
        for said in ("ValueError", "kd.loss: StructuralKDLoss takes no", "scenario=case2b seed=0", "case3,seed=7"):
            assert said in text
        for said in ("torch 2.13.0", "CC0", "Invented.", "A note.", "structkd -m scenario=case1a seed=range(10)"):
            assert said in text
        assert "structkd report" in text
    assert markdown.startswith("# Mine\n")


def test_comparisons_of_the_files(written: tuple[Path, Path]) -> None:
    markdown = (written[1] / "results.md").read_text()
    lines = [line for table in tables(markdown) for line in table if "verdict" in line]
    assert len(lines) == 15
    by_name = {line["comparison"]: line for line in lines}
    assert by_name["structural − none"]["verdict"].startswith("inconclusive (2 seeds")  # noqa: RUF001
    assert lines[0]["verdict"] == "significant (p = 0.0039)"  # 2 * 2 / 2^10: 13 have too few seeds
    assert (lines[0]["p, Holm"], lines[0]["p"]) == ("0.00391", "0.00195")
    assert not re.search("no difference", markdown)


def test_the_csv_has_a_line_per_model(written: tuple[Path, Path]) -> None:
    runs, folder = written
    lines = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    scenarios = collect(read_runs([runs]).finished)
    assert len(lines) == sum(len(row.models) for scenario in scenarios for row in scenario.rows)
    first = lines[1]
    assert (first["scenario"], first["role"], first["method"], first["seed"]) == ("case1a", "student", "none", "0")
    assert float(first["test_f1"]) == scenarios[0].rows[1].models[0].metric("test", "f1")
    assert first["test_las"] == ""
    assert first["command"] == "structkd scenario=case1a seed=0"
    assert first["words_per_second"] == "18000.0"


def test_attachment_scores_come_with_the_punctuation_rule(tmp_path: Path) -> None:
    results = [model("student", "structural", 0, metric="las")]
    save_run(tmp_path / "0", results, scenario="case1b", metric="las", data=TREES)
    markdown = write_report([tmp_path / "0"], tmp_path / "report")[0].read_text()
    assert f"UAS and LAS: {RULE}." in markdown
    (line,) = tables(markdown)[0]
    assert "test UAS" in line
    assert "gap closed" not in line  # without a plain student there is no distance


def test_names_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    nasty = """<script>alert('x')</script>|a](javascript:x) $x$ & "q" `c`"""
    results = [model("teacher", "teacher", 0), model("student", "none", 0)]
    results[1]["settings"]["model"] = {"_target_": nasty}
    results.append({**model("student", "none", 1), "settings": {**results[1]["settings"], "model": {"_target_": "y"}}})
    data = TAGS | {"name": nasty, "notes": nasty, "licence": nasty, "source": nasty}
    save_run(tmp_path / "a", results, scenario=nasty, data=data, overrides=[nasty])
    save_failure(tmp_path / "b", nasty, [nasty])
    write_report([tmp_path], tmp_path / "report", title=nasty, notes=[nasty])
    text = (tmp_path / "report" / "results.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert not [link for link in page.links if link.startswith("javascript")]
    assert page.text.count(nasty) >= 8
    markdown = (tmp_path / "report" / "results.md").read_text()
    prose = re.sub(r"``.*?`` |^    .*$", "", markdown, flags=re.MULTILINE)  # less what is typed
    assert not re.search(r"(?<!\\)\]\(javascript", prose)
    assert not re.search(r"(?<!\\)<script", prose)
    assert tables(markdown)[0][0]["model"] == "teacher"


def test_figures_that_are_missing_leave_gaps(tmp_path: Path) -> None:
    """An annotation of the user's own, a model that lacks figures, runs that say nothing of how they were made."""
    results = [model("student", method, 0, metric="agreement") for method in ("structural", "token")]
    results[1] |= {"dev": {}, "test": {}, "history": [], "divergence": None}
    folder = save_run(tmp_path / "0", results, metric="agreement")
    (folder / "run.json").unlink()
    markdown = write_report([tmp_path / "0"], tmp_path / "report")[0].read_text()
    structural, token = sorted(tables(markdown)[0], key=lambda line: line["model"])
    assert structural["test agreement"]
    assert (token["test agreement"], token["dev agreement"], token["KL a word"]) == ("", "", "")
    assert "words/s" not in markdown.split("## How to read")[0]


def test_a_report_without_any_figure_can_be_written(tmp_path: Path) -> None:
    result = model("student", "none", 0) | {"dev": {}, "test": {}, "history": [], "divergence": None}
    save_run(tmp_path / "0", [result])
    assert not [path for path in write_report([tmp_path / "0"], tmp_path / "r") if path.suffix == ".png"]


def test_many_scenarios_stand_three_a_row(tmp_path: Path) -> None:
    bars_only = model("student", "none", 0) | {"history": [], "divergence": None}
    for number in range(7):
        save_run(tmp_path / str(number), [bars_only], scenario=f"case{number}")
    sizes = {}
    for count in (1, 3, 7):
        write_report([tmp_path / str(number) for number in range(count)], tmp_path / f"report{count}")
        header = (tmp_path / f"report{count}" / "results.png").read_bytes()[16:24]
        sizes[count] = struct.unpack(">II", header)
    assert sizes[7][0] == sizes[3][0] > sizes[1][0]
    assert abs(sizes[7][1] - 3 * sizes[3][1]) <= 3


def test_what_the_terminal_shows(
    written: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs, _ = written
    report([str(runs)])
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 100
    assert "structural  88" in shown
    assert "significant (p = 0.0039)" in shown
    assert "failed: scenario=case2b seed=0: ValueError: kd.loss" in shown
    assert "unfinished: scenario=case3,seed=7" in shown
    assert "15 comparisons were declared" in shown
    report([str(runs / "runs" / "scenario=case1a,seed=0"), "--output", str(tmp_path / "here")])
    assert f"written: {tmp_path / 'here' / 'results.html'}" in capsys.readouterr().out


def test_the_report_says_how_it_is_made_again(written: tuple[Path, Path], tmp_path: Path) -> None:
    made = Report.of([written[0]], "Some title", output=tmp_path)
    assert made.command == f"structkd report '{written[0]}' --output {tmp_path} --title 'Some title'"
    assert Report.of([written[0]], command="make reproduce").command == "make reproduce"
