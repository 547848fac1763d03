"""Models from elsewhere as teachers: a model of structkd's, and a stock token classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from stand_ins import small_classifier
from transformers import AutoModelForTokenClassification, AutoTokenizer

import structkd
from structkd.data import TagAnnotation, load_toy
from structkd.models import BiLSTMRecipe, ParserRecipe, TaggerRecipe
from structkd.teachers import LabelMap, TokenClassification, Trained
from structkd.teachers.label_map import read_scheme
from structkd.training import ScoreStore, TeacherScores, pseudo_label_loss

ENCODER = BiLSTMRecipe(word_size=6, character_size=4, character_filters=4, hidden_size=6, layers=1)
BIO = ["O", "B-NP", "I-NP", "B-VP", "I-VP"]


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("alignment", ["words", "characters"])
def test_emissions_are_those_of_plain_transformers(tmp_path: Path, alignment: str, pooling: str) -> None:
    """Whatever the batch, a word has the scores of its subwords, as transformers gives them for the sentence alone."""
    folder = str(small_classifier(tmp_path / "stock", BIO))
    annotation = TagAnnotation.of_spans(["NP", "VP"], "BIO")
    teacher = TokenClassification(folder, alignment=alignment, pooling=pooling).open(annotation)
    sentences = [["cats", "sat", "[SEP]", "\u200b", "u.n"], ["dog"], ["a", "rainy", "day"]]
    inputs = teacher.encode([{"tokens": tokens} for tokens in sentences])
    emissions = teacher(**inputs)["emissions"]
    model, tokenizer = AutoModelForTokenClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for row, tokens in enumerate(
        sentences[:1] if alignment == "words" else sentences[1:], 0 if alignment == "words" else 1
    ):
        encoded = tokenizer(
            tokens if alignment == "words" else " ".join(tokens),
            is_split_into_words=alignment == "words",
            return_tensors="pt",
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        ids = encoded["input_ids"][0].tolist()
        words = encoded.word_ids()
        if "\u200b" in tokens:  # a word without subwords is an unknown one
            place = words.index(4)
            ids.insert(place, tokenizer.unk_token_id)
            words.insert(place, 3)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0]
        for word in range(len(tokens)):
            pieces = [number for number, owner in enumerate(words) if owner == word]
            expected = logits[pieces[:1] if pooling == "first" else pieces].mean(0)
            torch.testing.assert_close(emissions[row, word], expected, rtol=1e-4, atol=1e-5)


def test_long_sentences_are_read_in_windows_or_refused(tmp_path: Path) -> None:
    folder = str(small_classifier(tmp_path / "stock", BIO))
    annotation = TagAnnotation.of_spans(["NP", "VP"], "BIO")
    long = {"id": "s1", "tokens": ["cats"] * 60}
    teacher = TokenClassification(folder).open(annotation)
    assert teacher(**teacher.encode([long]))["emissions"].shape == (1, 60, 5)
    teacher.check([long])
    with pytest.raises(ValueError, match="'s1'"):
        TokenClassification(folder, long_sentences="error").open(annotation).check([long])


def test_schemes_are_read_from_labels() -> None:
    def read(*labels: str, scheme: str | None = None) -> tuple[str, list[str]]:
        found, tags = read_scheme(labels, scheme, "it")
        return found, list(tags.values())

    assert read("O", "B-X", "I-X") == ("BIO", ["O", "B-X", "I-X"])
    assert read("O", "B-X", "I-X", "L-X", "U-X") == ("BIOES", ["O", "B-X", "I-X", "E-X", "S-X"])
    assert read("S_X", "B_X", "E_X", "I_X", "O") == ("BIOES", ["S-X", "B-X", "E-X", "I-X", "O"])
    assert read("O", "I-X", "I-Y") == ("IO", ["O", "I-X", "I-Y"])
    assert read("X", "O", "Y") == ("IO", ["I-X", "O", "I-Y"])
    assert read("B-X", "I-X", "O", scheme="IOB2") == ("BIO", ["B-X", "I-X", "O"])
    for labels, scheme in ((("O", "B-X", "Q-X"), None), (("O", "B-X"), "IOB1"), (("O", "B-X", "B_X"), None)):
        with pytest.raises(ValueError, match=r"labels of it|cannot be read by it"):
            read(*labels, scheme=scheme)


def test_maps_name_everything_that_is_left_out() -> None:
    annotation = TagAnnotation.of_spans(["PER", "LOC"])
    own = ["PERSON", "GPE", "LOC", "NORP"]
    found = LabelMap.of(own, annotation, {"PERSON": "PER", "GPE": "LOC", "*": None}, "it")
    assert found.names == {"PERSON": "PER", "GPE": "LOC", "LOC": "LOC", "NORP": None}
    assert found.describe() == "PERSON read as PER; GPE read as LOC; NORP read as outside"
    assert found.labels_of_spans([(0, 0, "GPE"), (1, 2, "NORP"), (3, 4, "PERSON")], 5) == [8, 0, 0, 1, 3]
    for given, said in (
        ({"GPE": "LOC"}, "PERSON, NORP"),
        ({"PERSON": "PRE", "*": None}, "Did you mean"),
        ({"PRSON": "PER", "*": None}, "Did you mean"),
    ):
        with pytest.raises(ValueError, match=said):
            LabelMap.of(own, annotation, given, "it")
    with pytest.raises(ValueError, match="no spans but labels"):
        LabelMap.of(["X"], TagAnnotation(("A", "B")), {"X": None}, "it")


def test_what_is_no_teacher_is_refused_with_the_remedy(tmp_path: Path) -> None:
    annotation = TagAnnotation.of_spans(["NP", "VP"])
    stock = small_classifier(tmp_path / "stock", BIO)
    with pytest.raises(ValueError, match=r"teacher\.path"):
        TokenClassification()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TokenClassification(str(tmp_path / "nowhere")).open(annotation)
    with pytest.raises(ValueError, match="teacher=token_classification"):
        Trained(str(stock)).open(annotation)
    with pytest.raises(ValueError, match="annotated otherwise"):
        TokenClassification(str(stock)).open(load_toy("dependencies").annotation)
    config = json.loads((stock / "config.json").read_text())

    def write(**changes: object) -> None:
        (stock / "config.json").write_text(json.dumps(config | changes))

    write(architectures=["BertForMaskedLM"])
    with pytest.raises(ValueError, match="not a token classifier"):
        TokenClassification(str(stock)).open(annotation)
    write(id2label={str(n): f"LABEL_{n}" for n in range(5)}, label2id={f"LABEL_{n}": n for n in range(5)})
    with pytest.raises(ValueError, match="id2label"):
        TokenClassification(str(stock)).open(annotation)
    write(id2label={"0": "O", "1": "B-ADJP", "2": "I-ADJP", "3": "B-VP", "4": "I-VP"})
    with pytest.raises(ValueError, match="ADJP"):
        TokenClassification(str(stock)).open(annotation)
    write()
    model = AutoModelForTokenClassification.from_pretrained(stock)
    model.bert.save_pretrained(stock)  # without its head
    write()
    with pytest.raises(ValueError, match=r"classifier\.weight"):
        TokenClassification(str(stock)).open(annotation)


@pytest.mark.parametrize("task", ["spans", "dependencies"])
def test_a_model_that_structkd_wrote_is_the_same_teacher(tmp_path: Path, task: str) -> None:
    corpus = load_toy(task)
    train, dev = corpus.splits["train"], corpus.splits["dev"]
    recipe = (ParserRecipe if task == "dependencies" else TaggerRecipe)(encoder=ENCODER)
    model = recipe.create(corpus.annotation, train, train).eval()
    model.save_pretrained(tmp_path / "folder" / "model")  # a training's folder has it there
    given = Trained(str(tmp_path / "folder")).open(corpus.annotation)
    expected, found = TeacherScores.compute(model, dev), TeacherScores.compute(given, dev)
    store = ScoreStore.write(given, dev, tmp_path / "store", fingerprint={})
    lengths = expected.lengths[:5]
    one, two, three = (each.distribution(each.batch(range(5)), lengths) for each in (expected, found, store))
    torch.testing.assert_close(one.marginals, two.marginals)
    torch.testing.assert_close(one.marginals, three.marginals)


def test_commands_with_models_from_elsewhere(run, tmp_path: Path) -> None:
    corpus = load_toy()
    train = corpus.splits["train"]
    TaggerRecipe(encoder=ENCODER).create(corpus.annotation, train, train).save_pretrained(tmp_path / "own")
    small_classifier(tmp_path / "stock", BIO)
    status, output, errors = run(
        "teacher=trained",
        "teacher.path=own",
        "+teacher@ensemble.second=token_classification",
        "ensemble.second.path=stock",
    )
    assert status == 0, errors
    assert "teacher trains nothing: the Tagger own" in output
    (metrics,) = (tmp_path / "structkd-runs" / "runs").rglob("metrics.json")
    found = json.loads(metrics.read_text())
    assert "second trains nothing: the token classifier stock" in found["data"]["notes"]
    teachers = [row for row in found["results"] if row["role"] == "teacher"]
    assert [(row["labelled"], row["steps"]) for row in teachers] == [(0, 0), (0, 0)]
    assert all(0 <= row["test"]["f1"] <= 1 for row in teachers)
    (student,) = [row for row in found["results"] if row["role"] == "student"]
    assert (student["labelled"], student["unlabelled"]) == (15, 40)
    # a teacher in another tag scheme than the data's: every method, every figure
    status, output, errors = run("teacher=trained", "teacher.path=own", "data.scheme=BIO", "student.model.legal=true")
    assert status == 0, errors
    for wrong, said in (
        (("teacher=trained",), "teacher.path"),
        (("teacher=trained", "teacher.path=own", "teacher.patience=2"), "trains nothing"),
        (("teacher.path=own",), "teacher=trained"),
        (("teacher=trained", "teacher.path=own", "teacher.map={NX:NP}"), "Did you mean"),
    ):
        status, _, errors = run(*wrong)
        assert status == 1
        assert said in errors


def test_a_parser_and_a_tagger_with_annotations(run, tmp_path: Path) -> None:
    """Scenario 1b takes a parser that was trained before, and an ensemble a teacher that knows some sentences only."""
    for task, recipe in (("dependencies", ParserRecipe), ("spans", TaggerRecipe)):
        corpus = load_toy(task)
        train = corpus.splits["train"]
        recipe(encoder=ENCODER).create(corpus.annotation, train, train).save_pretrained(tmp_path / task)
    labels = corpus.annotation.labels  # type: ignore[union-attr]
    rows = [
        {"words": row["tokens"], "annotations": [{"tags": [labels[label] for label in row["labels"]]}]} for row in train
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for arguments in (
        ("scenario=case1b", "teacher=trained", "teacher.path=dependencies"),
        (
            *("teacher=trained", "teacher.path=spans", "student.model.legal=true"),
            *("+teacher@ensemble.people=annotations", "ensemble.people.path=answers.jsonl"),
        ),
    ):
        status, _, errors = run(*arguments)
        assert status == 0, errors


def test_pseudo_labels_of_teachers_with_other_labels() -> None:
    """The best structure of the teacher, translated: of a tagger in another scheme, and of spans of other types."""
    labels = ["O", "B-GPE", "I-GPE", "B-NORP", "I-NORP"]
    tagger = structkd.MaxEnt(
        torch.eye(5)[torch.tensor([[1, 2, 3], [0, 1, 0]])] * 9, torch.tensor([3, 2]), labels=labels
    )
    target = structkd.MaxEnt(
        torch.randn(2, 3, 5), torch.tensor([3, 2]), labels=["O", "B-LOC", "I-LOC", "E-LOC", "S-LOC"]
    )
    mapped = structkd.relabel(tagger, {"GPE": "LOC", "NORP": None}, labels=["O", "B-LOC", "I-LOC"])
    found = pseudo_label_loss(structkd.retag(mapped, target.labels), target)
    torch.testing.assert_close(found, structkd.supervised_loss(target, torch.tensor([[1, 3, 0], [0, 4, 0]])))
    scores = torch.full((1, 3, 3, 2), -9.0)
    scores[0, 0, 1, 0], scores[0, 2, 2, 1] = 9.0, 9.0
    spans = structkd.relabel(structkd.SpanCRF(scores, types=["GPE", "NORP"]), {"GPE": "LOC", "NORP": None})
    learner = structkd.SpanCRF(torch.randn(1, 3, 3, 1), types=["LOC"])
    torch.testing.assert_close(pseudo_label_loss(spans, learner), structkd.supervised_loss(learner, [[(0, 1, 0)]]))
