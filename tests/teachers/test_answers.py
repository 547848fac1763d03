"""The recipes: a language model that is asked several times, and annotators who disagree."""

from __future__ import annotations

import json
import runpy
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from structkd.data import TagAnnotation
from structkd.teachers import (
    Annotations,
    Parsed,
    agreement,
    ask,
    load_annotated_text,
    mentions,
    parse_answers,
    weigh,
)

SENTENCES = [["Ada", "met", "Bob", "."], ["It", "rained", "in", "Rome", "."], ["Nothing", "."]]
KNOWN = {"Ada": "PER", "Bob": "PER", "Rome": "LOC"}


class StandIn:
    """A language model that always answers the same: every third answer is chatter, and every fifth call fails."""

    def __init__(self, breaks: int | None = None) -> None:
        self.calls: list[list[str]] = []
        self.breaks = breaks

    def __call__(self, texts: list[str]) -> list[Any]:
        if len(self.calls) == self.breaks:
            raise ConnectionError("the line is dead")
        self.calls.append(texts)
        return [self.answer(text) for text in texts]

    def answer(self, text: str) -> str:
        if text == "Nothing .":
            return "There is nothing to annotate, sorry."
        found = [{"text": word, "label": KNOWN[word]} for word in text.split() if word in KNOWN]
        return f"Here you are: {json.dumps(found)}. Anything else?"


def test_an_interrupted_session_continues_and_pays_once(tmp_path: Path) -> None:
    path = tmp_path / "asked.jsonl"

    def price(text: str, answer: Any) -> float:
        return 0.25

    model = StandIn(breaks=2)
    with pytest.raises(ConnectionError):
        ask(model, SENTENCES, path, times=2, batch_size=2, cost=price)
    assert len(path.read_text().splitlines()) == 4
    with path.open("a") as file:
        file.write('{"text": "cut o')
    model = StandIn()
    done = ask(model, SENTENCES, path, times=2, batch_size=2, cost=price)
    assert (done.asked, done.known, done.cost) == (2, 4, 1.5)
    assert sum(map(len, model.calls)) == 2
    again = ask(StandIn(breaks=0), SENTENCES, path, times=2)
    assert (again.asked, again.known, again.cost) == (0, 6, 1.5)

    parsed = parse_answers(path, tmp_path / "answers.jsonl", labels=["PER", "LOC"])
    assert parsed == Parsed(4, Counter({"no list in the answer": 2}), 2, 1.5)
    teacher = Annotations(str(tmp_path / "answers.jsonl")).open(TagAnnotation.of_spans(["PER", "LOC"], "BIO"))
    assert [each.weight for each in teacher.found(SENTENCES[0])] == [2.0]
    assert teacher.found(SENTENCES[0])[0].values == (1, 0, 1, 0)
    assert teacher.found(SENTENCES[1])[0].values == (0, 0, 0, 3, 0)
    assert teacher.found(SENTENCES[2]) == []
    parsed = parse_answers(path, tmp_path / "answers.jsonl", labels=["PER"])
    assert parsed.dropped == {"no list in the answer": 2, "a label that was not asked for": 2}

    with pytest.raises(ValueError, match="1 answers for 3 texts"):
        ask(lambda texts: ["x"], SENTENCES, tmp_path / "other.jsonl")
    (tmp_path / "other.jsonl").write_text('{"no": "answer"}\n')
    with pytest.raises(ValueError, match="line 1"):
        ask(StandIn(), SENTENCES, tmp_path / "other.jsonl")
    ask(lambda texts: ["?"] * len(texts), SENTENCES, tmp_path / "junk.jsonl")
    with pytest.raises(ValueError, match="3 times no list"):
        parse_answers(tmp_path / "junk.jsonl", tmp_path / "answers.jsonl")


def test_mentions_that_are_not_there_are_told_apart() -> None:
    assert mentions("a b a", [{"text": "a", "label": "X"}, {"text": "a", "label": "Y"}])[1]["start_char"] == 4
    for answer, said in (
        (None, "no list"),
        ("[1, ", "no list"),
        ([{"text": "a"}], "without text and label"),
        ([{"text": "c", "label": "X"}], "not in the text"),
        ([{"text": " ", "label": "X"}], "not in the text"),
    ):
        with pytest.raises(ValueError, match=said):
            mentions("a b a", answer)


def test_weights_are_mean_agreements(tmp_path: Path) -> None:
    """Three annotators, one of them careless and one with other words: F1 with each of the others, by hand."""
    rows = [
        ("one", ["Ada", "met", "Bob"], [[0, 1, "PER"], [2, 3, "PER"]]),
        ("two", ["Ada", "met", "B", "ob"], [[0, 1, "PER"], [2, 4, "PER"]]),
        ("three", ["Ada", "met", "Bob"], [[0, 1, "PER"]]),
        ("one", ["Rome"], [[0, 1, "LOC"]]),
        ("three", ["Rome"], [[0, 1, "PER"]]),
    ]
    lines = [{"source": source, "words": words, "spans": spans} for source, words, spans in rows]
    path = tmp_path / "crowd.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    one_three, two_three = 2 * 1 / (3 + 2), 2 * 1 / (2 + 1)
    expected = {"one": (1 + one_three) / 2, "two": (1 + two_three) / 2, "three": (one_three + two_three) / 2}
    assert agreement(path) == pytest.approx(expected)
    weigh(path, tmp_path / "weighed.jsonl")
    teacher = Annotations(str(tmp_path / "weighed.jsonl")).open(TagAnnotation.of_spans(["PER", "LOC"], "BIO"))
    assert [each.weight for each in teacher.found(["Ada", "met", "Bob"])] == pytest.approx(
        [expected["one"] + expected["two"], expected["three"]]
    )
    tags = [
        {"source": source, "words": ["a", "b"], "tags": tags} for source, tags in (("x", ["A", "B"]), ("y", ["A", "A"]))
    ]
    path.write_text("\n".join(map(json.dumps, tags)))
    assert agreement(path, "upos") == {"x": 0.5, "y": 0.5}
    trees = [
        {"source": source, "words": ["a", "b"], "heads": heads} for source, heads in (("x", [0, 1]), ("y", [2, 0]))
    ]
    path.write_text("\n".join(map(json.dumps, trees)))
    assert agreement(path, "dependencies") == {"x": 0.0, "y": 0.0}
    with pytest.raises(ValueError, match="line 1: All annotations"):
        weigh(path, tmp_path / "weighed.jsonl", "dependencies")
    assert not (tmp_path / "weighed.jsonl").exists()
    for changed, said in (({}, "no source"), ({"source": "z", "words": ["c", "d"]}, "'z' shares no sentence")):
        path.write_text("\n".join(map(json.dumps, [*trees, {"words": ["a", "b"], "heads": [0, 1]} | changed])))
        with pytest.raises(ValueError, match=said):
            agreement(path, "dependencies")


def test_the_script_asks_a_function_of_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(Path(__file__).resolve().parents[2] / "experiments" / "black_box.py"))
    (tmp_path / "stand_in_model.py").write_text(
        "import json\n\n\ndef model(texts):\n"
        "    return [json.dumps([{'text': 'Ada', 'label': 'PER'}]) if 'Ada' in text else 'sorry' for text in texts]\n"
    )
    (tmp_path / "news.txt").write_text("Ada met Bob .\nNothing .\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    script["main"](["stand_in_model:model", "news.txt", "--times", "2", "--price", "0.5"])
    said = capsys.readouterr().out
    assert "4 answers asked for, 0 known before; cost of all: 60" in said
    assert "2 annotations of 1 sentences in answers.jsonl" in said
    assert "2 answers dropped: no list in the answer" in said
    assert load_annotated_text("answers.jsonl")["tokens"][:] == [["Ada", "met", "Bob", "."]]
