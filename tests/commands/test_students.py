"""The commands for trained models, called in this process on small untrained models."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import shlex
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from datasets import Dataset

import structkd
from structkd.data import TagAnnotation, TreeAnnotation, convert_tags, load_columns
from structkd.evaluation import compute_metrics, counts
from structkd.inference import benchmark, format_of, predict_files
from structkd.models import BiLSTMRecipe, HeadLabelerRecipe, TaggerRecipe
from structkd.tags import spans

ENCODER = BiLSTMRecipe(word_size=4, character_size=3, character_filters=3, hidden_size=3, layers=1)
TEXT = Dataset.from_dict(
    {"tokens": [["Ana", "runs", "home"], ["Ben"]], "heads": [[2, 0, 2], [0]], "relations": [[1, 0, 2], [0]]}
)
MODELS = {
    "ner": (TaggerRecipe(encoder=ENCODER), TagAnnotation.of_spans(["PER", "LOC"], "BIOES")),
    "upos": (TaggerRecipe(encoder=ENCODER, head="maxent"), TagAnnotation(("NOUN", "VERB", "PUNCT"))),
    "parser": (HeadLabelerRecipe(encoder=ENCODER), TreeAnnotation(("root", "nsubj", "obj"))),
}
#: Comments, a multiword token, an empty node, odd line ends, columns of all kinds, and no blank line at the end.
CONLLU = (
    "# newdoc id = d\n# text = Ana runs\n1\tAna\tana\tPROPN\tN\tCase=Nom\t5\told\t5:old\tA=1|ner=X\n"
    "2-3\truns\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No\n2\tru\tru\t_\t_\t_\t_\t_\t_\t_\n3\tns\tns\t_\t_\t_\t_\t_\t_\t_\n"
    "3.1\tgone\t_\t_\t_\t_\t_\t_\t0:root\t_\n\n\n# sent_id = 2\r\n1\tBen\tben\tX\t_\t_\t0\troot\t_\t_\r\n\r\n"
    "# the end\n1\tCy\u00a0Z\t_\t_\t_\t_\t_\t_\t_\tB"
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    torch.manual_seed(3)
    made = {}
    for name, (recipe, annotation) in MODELS.items():
        model = recipe.create(annotation, TEXT, TEXT)
        for weight in model.parameters():
            weight.data.normal_(std=0.7)
        made[name] = str(tmp_path_factory.mktemp(name))
        model.save_pretrained(made[name])
    return made


def split(line: str) -> list[str]:
    return line.rstrip("\r\n").split("\t")


@pytest.mark.parametrize(("name", "changed"), [("ner", {9}), ("upos", {3}), ("parser", {6, 7})])
def test_conllu_keeps_everything_else_byte_for_byte(name, changed, folders, run, tmp_path) -> None:
    (tmp_path / "a.conllu").write_bytes(CONLLU.encode())
    status, output, errors = run("predict", folders[name], "a.conllu", "--output", "b.conllu")
    assert (status, output) == (0, "")
    assert "3 sentences, 5 words in" in errors
    written = (tmp_path / "b.conllu").read_bytes().decode()
    found = structkd.load(folders[name]).annotate([["Ana", "ru", "ns"], ["Ben"], ["Cy\u00a0Z"]])
    words = iter([(each, place) for each in found for place in range(len(each["words"]))])
    for before, after in zip(CONLLU.splitlines(True), written.splitlines(True), strict=True):
        if not split(before)[0].isdecimal():
            assert after == before
            continue
        result, place = next(words)
        columns = split(before)
        if name == "parser":
            columns[6:8] = [str(result["heads"][place]), result["relations"][place]]
        elif name == "upos":
            columns[3] = result["tags"][place]
        else:
            rest = [each for each in columns[9].split("|") if each != "_" and not each.startswith("ner=")]
            columns[9] = "|".join([*rest, f"ner={result['tags'][place]}"])
        assert split(after) == columns
        assert after.endswith("\r\n") == before.endswith("\r\n")
        assert {n for n, (one, other) in enumerate(zip(split(before), columns, strict=True)) if one != other} <= changed
    # the written file, read again, gives the same predictions
    status, output, _ = run("predict", folders[name], "b.conllu", "--quiet")
    assert output == written if name != "upos" else output.count("\n") == written.count("\n")


def test_text_from_the_standard_input(folders, run, monkeypatch) -> None:
    text = "Ana runs. Ben isn't home!\n\nCy\n"
    found = structkd.load(folders["ner"]).annotate(text, scores=True)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    status, output, _ = run("predict", folders["ner"], "--to", "jsonl", "--scores", "--batch-size", "1")
    assert status == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert [each["words"] for each in lines] == [each["words"] for each in found]
    for line, sentence in zip(lines, found, strict=True):
        assert line["tags"] == sentence["tags"]
        assert [text[start:end] for start, end in line["offsets"]] == line["words"]
        assert line["log_prob"] == pytest.approx(sentence["log_prob"], abs=1e-5)
        for span in line["spans"]:
            assert text[span["start_char"] : span["end_char"]] == span["text"]
            assert 0 < span["score"] <= 1
    for name in MODELS:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        status, output, _ = run("predict", folders[name], "-", "--quiet")
        assert output.count("\n") == 3
        first, result = output.split("\n")[0], structkd.load(folders[name]).annotate(text)[0]
        if name == "upos":
            assert first == " ".join(f"{w}/{t}" for w, t in zip(result["words"], result["tags"], strict=True))
        elif name == "parser":
            zipped = zip(result["words"], result["heads"], result["relations"], strict=True)
            assert first == " ".join(f"{w}/{h}/{r}" for w, h, r in zipped)
        else:
            assert first.count("]") == len(result["spans"])


def test_the_column_of_the_words(folders, run, tmp_path) -> None:
    (tmp_path / "a.tsv").write_text("# 1\n1\tAna\tO\n2\truns\tO\n3\thome\tO\n\n")
    status, output, errors = run("predict", folders["ner"], "a.tsv")
    assert (status, output) == (1, "")
    assert "The first column numbers the words" in errors
    assert "--token-column 1" in errors
    (tags,) = (each["tags"] for each in structkd.load(folders["ner"]).annotate([["Ana", "runs", "home"]]))
    for column in ("1", "-2"):
        _, output, _ = run("predict", folders["ner"], "a.tsv", "--quiet", "--token-column", column)
        assert output == f"# 1\n1\tAna\tO\t{tags[0]}\n2\truns\tO\t{tags[1]}\n3\thome\tO\t{tags[2]}\n\n"
    assert run("predict", folders["ner"], "a.tsv", "--quiet", "--token-column", "0")[0] == 0
    assert "no word in column 5 (from 0)" in run("predict", folders["ner"], "a.tsv", "--token-column", "5")[2]


def test_columns_and_json_lines_keep_the_rest(folders, run, tmp_path) -> None:
    (tmp_path / "a.conll").write_text("# id = 1\nAna\tx\tB-PER\nruns\ty\tO\n\nBen z q\n\n")
    tags = [each["tags"] for each in structkd.load(folders["ner"]).annotate([["Ana", "runs"], ["Ben"]])]
    _, output, _ = run("predict", folders["ner"], "a.conll", "--quiet")
    assert output == (f"# id = 1\nAna\tx\tB-PER\t{tags[0][0]}\nruns\ty\tO\t{tags[0][1]}\n\nBen z q {tags[1][0]}\n\n")
    values = [{"id": 7, "tokens": ["Ana", "runs"]}, {"text": "Ben. Cy", "n": None}, "Ben", ["Ana"], {"words": []}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, values)))
    _, output, _ = run("predict", folders["ner"], "a.jsonl", "--quiet")
    lines = [json.loads(line) for line in output.splitlines()]
    assert [each["words"] for each in lines] == [["Ana", "runs"], ["Ben", "."], ["Cy"], ["Ben"], ["Ana"], []]
    assert lines[0] == {"id": 7, "words": ["Ana", "runs"], "tags": tags[0], "spans": lines[0]["spans"]}
    assert (lines[2]["text"], lines[2]["n"], lines[2]["offsets"]) == ("Ben. Cy", None, [[5, 7]])
    # any format is written from any other
    for to in ("text", "columns", "conllu", "jsonl"):
        for file in ("a.conll", "a.jsonl"):
            status, output, _ = run("predict", folders["parser"], file, "--to", to, "--quiet")
            assert status == 0
            assert output.count("Ben") >= 1


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"1\tAna\n", ["--format", "conllu"], "a.txt, line 1: 2 tab-separated columns where CoNLL-U has 10"),
        (b"Ana runs.\n", ["--format", "jsonl"], "a.txt, line 1: Not JSON"),
        (b'{"word": 3}\n', ["--format", "jsonl"], "a.txt, line 1: A line must hold words"),
        (b"1\tA\t_\t_\t_\t_\t_\t_\t_\t_\n", [], "a.txt, line 1: This is a line of CoNLL-U, and no text"),
        (b"fine\n\xff\xfe\n", [], "a.txt, line 2: Not UTF-8 (invalid start byte). Convert the file to UTF-8"),
        (b"Ana runs home.\nShe runs.\n", ["--format", "columns"], "line 2: 2 columns, and the first word has 3"),
        (b"caf\xe9\n", [], "If it is in Latin-1: iconv -f latin1 -t utf-8 a.txt"),
        (b"PK\0\3\n", [], "a.txt is not a text file: line 1 has a zero byte."),
        (b"Ana\n", ["--scheme", "BIOSE"], "--scheme BIOSE: Tags are written in BIO or BIOES. Did you mean 'BIOES'?"),
        (b"Ana\n", ["--scheme", "BIO", "--scores"], "--scores are those of the model's tags, in BIOES"),
        (b"\tx\n", ["--format", "columns"], "a.txt, line 1: The line has no word in its first column"),
        (b"2\tA\t_\t_\t_\t_\t_\t_\t_\t_\n", ["--format", "conllu"], "Word number '2' where 1 was expected"),
    ],
)
def test_bad_files_leave_the_output_as_it_was(content, options, message, folders, run, tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "out").write_text("before")
    status, output, errors = run("predict", folders["ner"], "a.txt", *options, "--output", "out")
    assert (status, output) == (1, "")
    assert message in errors
    assert errors.count("\n") <= 3
    assert (tmp_path / "out").read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "out"]


def test_words_by_white_space(folders, run, tmp_path) -> None:
    """As many lines are written as were read, and offsets count from the begin of the file."""
    text = "Ana isn't home. So\tbe it.\n\n10\u00a0000 Ben\r\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    words = [["Ana", "isn't", "home.", "So", "be", "it."], [], ["10\u00a0000", "Ben"]]
    status, output, _ = run("predict", folders["upos"], "a.txt", "--format", "words")
    assert status == 0
    assert [[each.rpartition("/")[0] for each in line.split(" ")] for line in output.splitlines() if line] == [
        words[0],
        words[2],
    ]
    assert output.count("\n") == text.count("\n")
    output = run("predict", folders["ner"], "a.txt", "--format", "words", "--to", "jsonl")[1]
    found = [json.loads(line) for line in output.splitlines()]
    assert [each["words"] for each in found] == words
    assert [[text[start:end] for start, end in each["offsets"]] for each in found] == words
    expected = structkd.load(folders["ner"]).annotate(words)
    assert [each["tags"] for each in found] == [each["tags"] for each in expected]


def test_tags_in_another_scheme(folders, run, tmp_path) -> None:
    (tmp_path / "a.tsv").write_text("Ana\nruns\nhome\n\nBen\n")
    given = [["Ana", "runs", "home"], ["Ben"]]
    tags = [each["tags"] for each in structkd.load(folders["ner"]).annotate(given)]
    bio = [convert_tags(each, "BIOES", "BIO") for each in tags]
    assert bio != tags
    for to in ("columns", "jsonl"):
        output = run("predict", folders["ner"], "a.tsv", "--to", to, "--scheme", "BIO")[1]
        if to == "jsonl":
            assert [json.loads(line)["tags"] for line in output.splitlines()] == bio
        else:
            assert [split(line)[1] for line in output.splitlines() if line] == [tag for each in bio for tag in each]
    same = run("predict", folders["ner"], "a.tsv", "--scheme", "BIOES", "--scores")[1]
    assert [split(line)[1] for line in same.splitlines() if line] == [tag for each in tags for tag in each]
    for model in ("upos", "parser"):
        assert (
            "--scheme BIO: The model predicts no tags of spans."
            in run("predict", folders[model], "a.tsv", "--scheme", "BIO")[2]
        )


def test_columns_are_not_taken_for_text(folders, run, tmp_path) -> None:
    told = "looks like columns, a word and its tag a line: add --format columns."
    for content, expected in (
        ("Ana\tB-PER\nLee\tI-PER\n\nruns\tO\n", True),
        ("Ana NNP B-PER\nruns VBZ O\nhome NN O\n", True),
        ("Ana runs home.\nShe runs.\nBen is O.\n", False),
        ("1\tAna runs home.\n2\tShe runs.\n3\tBen runs.\n", False),
    ):
        (tmp_path / "a.txt").write_text(content)
        status, _, errors = run("predict", folders["ner"], "a.txt", "--quiet")
        assert (status, told in errors) == (0, expected)
    assert run("predict", folders["ner"], "a.txt", "--format", "columns", "--token-column", "0")[0] == 0


def test_misspelt_options(folders, run, tmp_path) -> None:
    for command, message in (
        (["predict", folders["ner"], "--scroes"], "unrecognized arguments: --scroes. Did you mean '--scores'?"),
        (["report", "x", "--ouptut", "y"], "Did you mean '--output'?"),
        (["check-data", "--data.train=x"], "Leave out the dashes: data.train=x"),
        (["--data.train=x"], "There is no option --data.train. Leave out the dashes: data.train=x"),
        (["--data.train", "x"], "Leave out the dashes: data.train=..."),
        (["--multirn", "seed=1,2"], "There is no option --multirn. Did you mean '--multirun'?"),
        (["trian"], "A training has no word for a command: structkd scenario=case2a"),
        (["predict"], "the following arguments are required: MODEL\n"),
    ):
        status, output, errors = run(*command)
        assert status in (1, 2)
        assert output == ""
        assert message in errors
    (tmp_path / "empty.tsv").write_text("\n")
    assert "empty.tsv: The file is empty." in run("evaluate", folders["ner"], "empty.tsv")[2]


def test_nobody_reads_the_predictions(folders, run, monkeypatch, tmp_path) -> None:
    """The reader has all that it wanted; a command that also writes a file has not done its work."""
    (tmp_path / "a.txt").write_text("Ana runs.\n")
    for options, status in ([], 0), (["--help"], 0), (["--output=b.txt", "--help"], 1):
        reading, writing = os.pipe()
        os.close(reading)
        with open(writing, "w") as closed, (tmp_path / "errors").open("w") as errors, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", closed)
            patch.setattr(sys, "stderr", errors)
            assert run("predict", folders["ner"], "a.txt", *options)[0] == status
        assert (tmp_path / "errors").read_text() == ""


def test_missing_files_and_models(folders, run, tmp_path) -> None:
    status, _, errors = run("predict", str(tmp_path), "none.txt")
    assert status == 1
    assert "is not the folder of a model" in errors
    status, _, errors = run("predict", folders["ner"], "none.txt")
    assert status == 1
    assert f"none.txt: No such file (looked for in {tmp_path})" in errors
    status, _, errors = run("predikt", folders["ner"])
    assert "Did you mean 'predict'?" in errors


def test_the_output_is_a_link_a_pipe_or_a_file_of_some_mode(folders, run, tmp_path) -> None:
    """The file behind a link is replaced, with its permissions; a pipe stays one and is written to."""
    (tmp_path / "a.txt").write_text("Ana runs.\n")
    expected = run("predict", folders["ner"], "a.txt")[1]
    (tmp_path / "kept").write_text("")
    (tmp_path / "kept").chmod(0o600)
    (tmp_path / "link").symlink_to("kept")
    assert run("predict", folders["ner"], "a.txt", "--output", "link")[0] == 0
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "kept").read_text() == expected
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o600
    for suffix, reading in ((".gz", gzip.open), (".bz2", bz2.open), (".xz", lzma.open)):
        assert run("predict", folders["ner"], "a.txt", "--output", f"a{suffix}")[0] == 0
        with reading(tmp_path / f"a{suffix}", "rt", encoding="utf-8") as file:
            assert file.read() == expected
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit((tmp_path / "pipe").read_text)
        assert run("predict", folders["ner"], "a.txt", "--output", "pipe")[0] == 0
        assert reader.result(60) == expected
    assert (tmp_path / "pipe").is_fifo()


def test_options_stand_anywhere(folders, run, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("Ana runs.\n")
    (tmp_path / "-b.txt").write_text("Ben runs.\n")
    expected = run("predict", folders["ner"], "a.txt", "--to", "jsonl", "--scores")
    assert expected[0] == 0
    assert run("predict", folders["ner"], "--to", "jsonl", "--scores", "a.txt")[:2] == expected[:2]
    both = run("predict", "--to", "jsonl", folders["ner"], "a.txt", "--scores", "a.txt")
    assert both[:2] == (0, expected[1] * 2)
    assert run("predict", folders["ner"], "--quiet", "--", "-b.txt")[0] == 0
    status, _, errors = run("predict", "--scores")
    assert status != 0
    assert "MODEL" in errors


@pytest.mark.parametrize("target", ["text", "words", "columns", "conllu"])
@pytest.mark.parametrize("word", ["", "a\tb", "a\nb", "\ud800a"], ids=ascii)
def test_words_that_a_format_cannot_hold(word, target, folders, run, tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"words": ["a b", word]}) + "\n")
    status, printed, errors = run("predict", folders["ner"], "a.jsonl", "--to", target)
    assert (status, printed) == (1, "")
    assert f"a.jsonl: The word {word!r} " in errors
    assert f"which the format {target} cannot hold" in errors


def test_texts_without_words_and_cells_without_content(folders, run, tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 3, "text": ""}\n{"id": 4, "text": "Ana."}\n{"id": 5, "words": []}\n')
    status, printed, _ = run("predict", folders["ner"], "a.jsonl")
    found = [json.loads(line) for line in printed.splitlines()]
    assert (status, [each["id"] for each in found]) == (0, [3, 4, 5])
    assert found[0]["words"] == found[0]["tags"] == found[0]["spans"] == []
    (tmp_path / "a.conllu").write_text("1\tAna" + "\t_" * 7 + "\t\n\n")
    assert run("predict", folders["ner"], "a.conllu")[1].splitlines()[0].split("\t")[9].startswith("ner=")


def test_no_input_is_replaced(folders, run, tmp_path) -> None:
    """Neither by its own name nor by a link to it."""
    (tmp_path / "a.txt").write_text("Ana runs.\n")
    (tmp_path / "link.txt").symlink_to("a.txt")
    (tmp_path / "hard.txt").hardlink_to(tmp_path / "a.txt")
    (tmp_path / "file").write_text("")
    for output, message in (
        ("a.txt", "structkd: a.txt is read; name another file for --output."),
        ("./link.txt", "a.txt is read; name another file"),
        ("hard.txt", "a.txt is read; name another file"),
        ("nodir/x.txt", "structkd: There is no folder nodir. Make it, or name another file for --output."),
        (".", "structkd: . is a folder. Name a file for --output, such as predictions.txt."),
        ("file/x.txt", "structkd: file is a file, and a folder is needed there."),
    ):
        status, printed, errors = run("predict", folders["ner"], "a.txt", "--output", output)
        assert (status, printed) == (1, "")
        assert message in errors
        assert (tmp_path / "a.txt").read_text() == "Ana runs.\n"
        with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message.removeprefix("structkd: "))):
            predict_files(None, ["a.txt"], Path(output))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text("{}")
    assert "run is the folder of a run" in run("report", "run", "--output", "run")[2]
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "tables.json").write_text("{}")
    (tmp_path / "exported" / "dev.jsonl").write_text("{}")
    errors = run("export", folders["ner"], "exported", "--int8", "--dev", "exported/dev.jsonl")[2]
    assert "exported/dev.jsonl is read, and exported would be replaced; name another FOLDER." in errors


@pytest.mark.parametrize("command", [["predict", "a.txt"], ["evaluate", "a.tsv"], ["export", "out"]])
def test_devices_that_are_not_there(command, folders, run, monkeypatch, tmp_path) -> None:
    (tmp_path / "a.txt").write_text("Ana\n")
    monkeypatch.setattr("torch.backends.cuda.is_built", lambda: False)
    monkeypatch.setattr("torch.empty", absent_device)
    status, output, errors = run(command[0], folders["ner"], *command[1:], "--device", "cuda")
    assert (status, output) == (1, "")
    version = f"(torch {torch.__version__})"
    assert errors.startswith(f"structkd: This torch has no CUDA {version}. Leave --device out")
    monkeypatch.setattr("torch.backends.cuda.is_built", lambda: True)
    for count, device, message in (
        (0, "cuda", f"No CUDA device is found here {version}"),
        (2, "cuda:2", "There is no device cuda:2: the CUDA devices here are 0 to 1."),
        (2, "gpu", "There is no device 'gpu'; expected cpu, cuda, cuda:1 or mps."),
        (2, "cudda", "Did you mean 'cuda'?"),
        (2, "meta", "A model on the device meta has no weights."),
    ):
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        status, _, errors = run(command[0], folders["ner"], *command[1:], "--device", device)
        assert status == 1
        assert message in errors


def absent_device(*sizes, device):
    raise AssertionError("Torch not compiled with CUDA enabled")


def test_folders_of_other_kinds(folders, run, tmp_path) -> None:
    """An exported model is named as one, and a misspelt folder gets the one that is meant."""
    (tmp_path / "exported").mkdir()
    for name in ("tables.json", "annotate.py"):
        (tmp_path / "exported" / name).write_text("{}")
    for command in (["predict"], ["evaluate", "a.tsv"]):
        status, _, errors = run(command[0], "exported", *command[1:])
        assert status == 1
        assert "exported is an exported model, which annotates without structkd: python exported/annotate.py" in errors
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "student").symlink_to(folders["ner"])
    (tmp_path / "second" / "runs").mkdir()
    for name in ("second/studnt", "second/runs", "./secnd"):
        status, _, errors = run("predict", name)
        assert status == 1
        assert re.search(r"Did you mean 'second(/student)?'\?", errors), errors


def test_evaluation_is_that_of_the_runs(folders, run, tmp_path) -> None:
    sentences = [(["Ana", "runs", "home"], ["B-PER", "O", "B-LOC"]), (["Ben", "Lee"], ["B-PER", "I-PER"])]
    text = "\n\n".join("\n".join(f"{w}\t{t}" for w, t in zip(*each, strict=True)) for each in sentences) + "\n"
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (tmp_path / name).write_text(text)
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"words": w, "tags": t}) + "\n" for w, t in sentences))
    model = structkd.load(folders["ner"])
    index = model.annotation.index
    gold = [["S-PER", "O", "S-LOC"], ["B-PER", "E-PER"]]
    predicted = [each["tags"] for each in model.annotate([words for words, _ in sentences])]
    sides = [[{"labels": [index[tag] for tag in tags]} for tags in side] for side in (gold, predicted)]
    expected = compute_metrics(counts(model.annotation, *sides))
    for file in ("test.tsv", "test.jsonl"):
        status, output, errors = run("evaluate", folders["ner"], file, "--scheme", "BIO", "--json")
        assert (status, errors) == (0, "")
        found = json.loads(output)
        assert found["metrics"] == pytest.approx(expected)
        assert (found["sentences"], found["words"], found["unknown"]) == (2, 5, {})
        assert found["labels"]["PER"]["gold"] == 2
        guessed = sum(span.type == "PER" for tags in predicted for span in spans(tags, "BIOES"))
        assert found["labels"].get("PER", {}).get("predicted", 0) == guessed
    (tmp_path / "odd.tsv").write_text("Ana\tB-GPE\n")
    status, output, errors = run("evaluate", folders["ner"], "odd.tsv", "--scheme", "BIO")
    assert "f1" in output
    assert "does not have these labels of the file: S-GPE (1)" in errors
    status, _, errors = run("evaluate", folders["parser"], "odd.tsv")
    assert status == 1
    assert "The model predicts trees" in errors
    assert load_columns  # the same files serve a run


#: For every kind of error in a file: the lines, and the flags that the message offers.
HELPED = {
    "BIO for a model of BIOES": (["Ana B-PER", "home O"], [["--scheme", "BIO"]]),
    "another separator": (["Ana S_PER", "home O"], [["--separator", "_"]]),
    "both": (["Ana B_PER", "Lee I_PER", "home O"], [["--scheme", "BIO", "--separator", "_"]]),
    "no scheme fits": (["Ana E-PER", "Lee S-PER", "home B-PER"], [["--repair"]]),
    "numbers for words": (["1\tAna\tS-PER", "2\tsings\tO", "3\t.\tO"], [["--token-column", "1"]]),
    "an empty word": (["Ana\tS-PER", "\tO"], []),
}


#: JSON may have empty words, and numbers.
FILES = [(name, "test.tsv") for name in HELPED] + [
    (name, "test.jsonl") for name in HELPED if not name.endswith(("an empty word", "numbers for words"))
]


@pytest.mark.parametrize(("name", "file"), FILES)
def test_messages_about_a_file_offer_flags_that_help(name, file, folders, run, tmp_path) -> None:
    lines, offered = HELPED[name]
    cells = [line.split("\t" if "\t" in line else " ") for line in lines]
    words, tags = [each[0] for each in cells], [each[-1] for each in cells]
    written = json.dumps({"words": words, "tags": tags}) if file == "test.jsonl" else "\n".join(lines)
    (tmp_path / file).write_text(written + "\n")
    status, output, errors = run("evaluate", folders["ner"], file)
    assert (status, output) == (1, "")
    found = [shlex.split(each) for each in re.findall(r"\((--[^()]*)\)", errors)]
    together = [[flag for flags in found for flag in flags]] if name == "both" else found
    assert together[: len(offered)] == offered
    assert "data." not in errors
    for flags in together:
        status, output, errors = run("evaluate", folders["ner"], file, *flags)
        assert (status, errors) == (0, "")
        assert "1 sentences" in output


def test_ids_and_heads_of_a_file(folders, run, tmp_path) -> None:
    (tmp_path / "twice.tsv").write_text("# sent_id = 1\nAna\tO\n\n# sent_id = 1\nBen\tO\n")
    status, output, _ = run("evaluate", folders["ner"], "twice.tsv")
    assert (status, output.split(",")[0]) == (0, "2 sentences")
    (tmp_path / "heads.jsonl").write_text('{"words": ["Ana"], "heads": [2], "relations": ["root"]}\n')
    assert "line 1: Head 2 where 0 (root) to 1 was expected." in run("evaluate", folders["parser"], "heads.jsonl")[2]
    for wrong in ('{"words": ["Ana"], "tags": [1]}', '{"words": [1], "tags": ["O"]}', "3"):
        (tmp_path / "wrong.jsonl").write_text(wrong + "\n")
        assert "Expected an object with words and as many tags" in run("evaluate", folders["ner"], "wrong.jsonl")[2]
    (tmp_path / "bare.conllu").write_text("1\tAna\t_\t_\t_\t_\t_\t_\t_\t_\n\n")
    errors = run("evaluate", folders["parser"], "bare.conllu")[2]
    assert "The word has no head." in errors
    assert "task=" not in errors


def test_trees_are_judged_by_relation(folders, run, tmp_path) -> None:
    rows = [("1", "Ana", "2", "nsubj"), ("2", "runs", "0", "root"), ("3", "home", "2", "obl")]
    lines = ["\t".join([n, w, "_", "_", "_", "_", h, r, "_", "_"]) for n, w, h, r in rows]
    (tmp_path / "gold.conllu").write_text("\n".join([*lines, "", ""]))
    status, output, _ = run("evaluate", folders["parser"], "gold.conllu", "--json")
    assert status == 0
    found = json.loads(output)
    tree = structkd.load(folders["parser"]).annotate([["Ana", "runs", "home"]])[0]
    assert found["metrics"]["uas"] == pytest.approx(
        sum(h == g for h, g in zip(tree["heads"], (2, 0, 2), strict=True)) / 3
    )
    assert found["unknown"] == {"obl": 1}
    assert found["labels"]["obl"]["recall"] == 0


def test_models_are_exported(folders, run, tmp_path) -> None:
    """The folder annotates as the model does; int8 needs development sentences, which these models do not have."""
    annotate = pytest.importorskip("structkd.export.annotate", exc_type=ImportError)
    pytest.importorskip("onnx")
    status, output, _ = run("export", folders["ner"], "exported", "--single-file")
    assert status == 0
    assert "annotate.py FILE" in output
    names = {"README.md", "annotate.py", "manifest.json", "model.onnx", "strings.onnx", "tables.json"}
    assert {path.name for path in (tmp_path / "exported").iterdir()} == names | {"words.npy", "characters.npy"}
    expected = structkd.load(folders["ner"]).annotate("Ana runs home. Ben sits.")
    assert annotate.load(tmp_path / "exported").annotate("Ana runs home. Ben sits.") == expected
    status, _, errors = run("export", folders["ner"], "small", "--int8")
    assert status == 1
    assert "int8 needs annotated sentences" in errors
    (tmp_path / "dev.jsonl").write_text('{"tokens": ["Ana"]}\n')
    status, _, errors = run("export", folders["ner"], "small", "--int8", "--dev", "dev.jsonl")
    assert status == 1
    assert "a line has no tokens or no gold" in errors
    assert not (tmp_path / "small").exists()


def test_an_export_of_another_model_is_not_measured(folders, run, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    output = run("export", folders["parser"], "an export")[1]
    assert "python 'an export/annotate.py' FILE" in output
    assert "`python 'an export/annotate.py' FILE`" in (tmp_path / "an export" / "README.md").read_text()
    for folder, message in (
        ("an export", "an export was exported from another model than"),
        (".", ". is not an exported model. Name a folder"),
    ):
        status, _, errors = run("benchmark", folders["ner"], "--batches", "5", "--exported", folder)
        assert status == 1
        assert message in errors


def test_int8_tells_its_figures(folders, run, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    dev = [{"tokens": each["words"], "gold": {"labels": each["tags"]}} for each in _annotated(folders["upos"])]
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(each) + "\n" for each in dev))
    status, output, errors = run("export", folders["upos"], "small", "--int8", "--dev", "dev.jsonl")
    assert (status, errors) == (0, "")
    assert output.startswith("dev accuracy 100.00 (32 bits: 100.00), 2 sentences\n")


def _annotated(folder: str):
    return structkd.load(folder).annotate([["Ana"], ["Ben"]])


def test_speed_is_measured_over_batches(tmp_path) -> None:
    """A stand-in for an exported model, whose batches take CPU time in proportion to their words."""
    (tmp_path / "annotate.py").write_text(
        "import time\nclass Model:\n    def annotate(self, sentences, batch_size=32):\n"
        "        end = time.process_time() + 1e-4 * sum(map(len, sentences))\n"
        "        while time.process_time() < end: pass\n"
        "def load(folder): return Model()\n"
    )
    (speed,) = benchmark({"exported": str(tmp_path)}, [["a"] * 5, ["b"] * 9], batches=12, rounds=2, batch_sizes=(1, 2))
    assert speed.batches == {1: 12, 2: 12}
    for mean, low, high in speed.words_per_second.values():
        assert low <= mean <= high
        assert 5_000 < mean <= 10_100
    assert speed.load_seconds > 0
    # Its own memory, not that of this process, which has loaded torch.
    assert sys.platform != "linux" or 5 < speed.memory < 60
    (tmp_path / "annotate.py").write_text("raise ImportError('no onnxruntime here')")
    with pytest.raises(ValueError, match="The process that measures exported ended: ImportError: no onnxruntime here"):
        benchmark({"exported": str(tmp_path)}, [["a"]])
    with pytest.raises(ValueError, match="There are no sentences"):
        benchmark({}, [])


def test_the_parts_of_runs_are_listed(run, tmp_path) -> None:
    status, output, _ = run("list", "scenarios", "methods")
    assert status == 0
    assert "case2a" in output
    assert "Structural KD: the cross-entropy of the two structure distributions" in output
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine" / "data" / "wills.yaml").write_text("# Wills and testaments.\n#   structkd data=wills\n")
    status, output, _ = run("list", "data", "--config-dir", "mine", "--json")
    assert json.loads(output)["data"]["wills"] == "Wills and testaments"
    status, output, _ = run("list", "projections", "--json")
    found = json.loads(output)["projections"]
    assert found["LinearChainCRF"]["MaxEnt"] == "exact"
    assert "  E: exact" in run("list", "projections")[1]
    status, _, errors = run("list", "planets")
    assert status == 1
    assert "There is no section 'planets'. It has: scenarios, data" in errors


def test_the_environment(run, monkeypatch) -> None:
    monkeypatch.setenv("STRUCTKD_CACHE", "/somewhere/else")
    status, output, _ = run("env", "--json")
    assert status == 0
    found = json.loads(output)
    assert found["versions"]["torch"] == torch.__version__
    assert found["structkd"]["cache"] == "/somewhere/else"
    assert "versions" in run("env")[1]


def test_data_are_looked_at(run, tmp_path) -> None:
    status, output, _ = run("check-data", "data=toy", "teacher.labelled=null", "student.labelled=20")
    assert status == 0
    assert "NP" in output
    assert "20 of these, and 0 others whose labels are hidden" in output
    assert "all 120 sentences of train are the teacher's. Lower teacher.labelled" in output
    assert "sentences of both train and test: 0" in output
    status, output, _ = run("check-data", "data=toy", "teacher.labelled=9999")
    assert status == 1
    assert "would stop before any training:\n  teacher.labelled=" in output
    (tmp_path / "a.txt").write_text("Ana I-PER\n")
    files = [f"data.{split}=a.txt" for split in ("train", "dev", "test")]
    status, _, errors = run("check-data", "data=columns", *files, "data.file_scheme=BIOES")
    assert status == 1
    assert "a.txt, line 1" in errors


@pytest.mark.parametrize(
    "command", ["predict", "evaluate", "export", "benchmark", "list", "check-data", "env", "report"]
)
def test_help_is_printed(command, run) -> None:
    status, output, _ = run(command, "--help")
    assert status == 0
    assert output.startswith(f"usage: structkd {command}")
    assert max(map(len, output.splitlines())) <= 122


def test_formats_go_by_suffixes() -> None:
    names = {"a.txt": "text", "b.CONLLU.gz": "conllu", "c.tsv": "columns", "d.jsonl.xz": "jsonl", "e": "text"}
    assert {name: format_of(str(Path("/x") / name)).name for name in names} == names
