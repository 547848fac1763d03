"""Taggers that are trained as they are decoded, and measurements of their teachers."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import structkd
from structkd.data import TagAnnotation, load_toy
from structkd.models import BiLSTMRecipe, Tagger, TaggerRecipe
from structkd.training import (
    TeacherScores,
    pseudo_label_loss,
    share_of_illegal,
    targets_metric,
    training_text,
    transition_kl,
)

CORPUS = load_toy(train=20, dev=12, test=4)
TEXT = training_text(CORPUS.annotation, CORPUS.splits["dev"])


def tagger(head: str = "maxent", seed: int = 0, **settings: Any) -> Tagger:
    torch.manual_seed(seed)
    recipe = TaggerRecipe(encoder=BiLSTMRecipe(word_size=6, hidden_size=6, layers=1), head=head, **settings)
    model: Tagger = recipe.create(CORPUS.annotation, TEXT, TEXT).eval()
    return model


def distribution(model: Tagger) -> Any:
    batch = model.encode([TEXT[row] for row in range(3)])
    with torch.no_grad():
        return model.distribution(model.scores(model(**batch)), batch["lengths"])


@pytest.mark.parametrize("head", ["crf", "maxent"])
def test_the_flag_is_saved_and_conditions_model_and_teacher(head: str, tmp_path: Path) -> None:
    plain, legal = tagger(head), tagger(head, legal=True)
    assert not torch.equal(distribution(plain).partition, distribution(legal).partition)
    torch.testing.assert_close(distribution(legal).partition, structkd.legal(distribution(plain)).partition)
    assert plain.conditioned(distribution(plain)) is not None
    torch.testing.assert_close(legal.conditioned(distribution(plain)).partition, distribution(legal).partition)
    mixture = legal.conditioned(structkd.Mixture([distribution(plain)] * 2))
    torch.testing.assert_close(mixture.components[1].partition, distribution(legal).partition)
    legal.save_pretrained(tmp_path / "legal")
    assert Tagger.from_pretrained(tmp_path / "legal").config.legal
    config = tmp_path / "legal" / "config.json"
    config.write_text(config.read_text().replace('"legal": true,', ""))  # as saved before there was the flag
    (config.parent / "structkd.json").unlink()
    assert not Tagger.from_pretrained(tmp_path / "legal").config.legal


def test_transitions_are_scaled() -> None:
    model = tagger("crf", transition_scale=5.0)
    with torch.no_grad():
        model.transitions.fill_(0.5)
        model.start.fill_(-1.0)
    batch = model.encode([TEXT[0]])
    output = model(**batch)
    assert output["transitions"].unique().tolist() == [2.5]
    assert output["start"].unique().tolist() == [-5.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"transition_scale": 0.0}, "positive and finite, got 0.0"),
        ({"head": "maxent", "transition_scale": 2.0}, "has no transitions"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tagger(**{"head": "crf"} | settings)


def test_parts_of_speech_have_no_illegal_sequences() -> None:
    recipe = TaggerRecipe(encoder=BiLSTMRecipe(word_size=4, hidden_size=4, layers=1), legal=True)
    with pytest.raises(ValueError, match="not tags of a scheme"):
        recipe.create(TagAnnotation(("NOUN", "VERB")), TEXT, TEXT)


def test_illegal_gold_is_named_by_its_sentence() -> None:
    first = next(number for number, label in enumerate(CORPUS.annotation.labels) if label.startswith("I-"))
    bad = {"id": "s-17", "tokens": ["a", "b"], "labels": [first, 0]}
    hide = {"id": "s-18", "tokens": ["a"], "labels": [-100]}
    tagger(legal=True).check_gold([*TEXT.select([0]), hide])
    tagger().check_gold([bad])
    with pytest.raises(ValueError, match=r"'s-17' is annotated with an illegal sequence.*repair=true"):
        tagger(legal=True).check_gold([hide, bad])


def test_the_published_decoding_beside_the_legal_one() -> None:
    model = tagger()
    with torch.no_grad():
        model.emission.bias.zero_()
        model.emission.bias[[label.startswith("I-") for label in CORPUS.annotation.labels].index(True)] = 50.0
    batch = model.encode([TEXT[0]])
    with torch.no_grad():
        scores = model.scores(model(**batch))
    published = model.decode_published(scores, batch["lengths"])
    assert published is not None
    names = [CORPUS.annotation.labels[number] for number in published["labels"][0].tolist()]
    assert {name[0] for name in names} == {"I"}
    assert CORPUS.annotation.fault({"labels": model.decode(scores, batch["lengths"])["labels"][0].tolist()}) is None
    assert tagger(legal=True).decode_published(scores, batch["lengths"]) is None


def test_share_of_sentences_whose_legal_sequences_are_improbable() -> None:
    teacher = tagger()
    with torch.no_grad():
        teacher.emission.bias[[label.startswith("I-") for label in CORPUS.annotation.labels].index(True)] = 80.0
    scores = TeacherScores.compute(teacher, TEXT, progress=False)
    assert share_of_illegal(tagger(legal=True), scores, TEXT) == 1.0
    assert share_of_illegal(tagger(), scores, TEXT) == 0.0
    assert (
        share_of_illegal(tagger(legal=True), TeacherScores.compute(tagger(seed=3), TEXT, progress=False), TEXT) == 0.0
    )


def test_a_crf_in_name_only() -> None:
    model = tagger("crf")
    assert transition_kl(TeacherScores.compute(model, TEXT, progress=False), TEXT) == pytest.approx(0.0, abs=1e-9)
    with torch.no_grad():
        model.transitions.normal_(std=2.0)
    assert (transition_kl(TeacherScores.compute(model, TEXT, progress=False), TEXT) or 0.0) > 0.05
    assert transition_kl(TeacherScores.compute(tagger(), TEXT, progress=False), TEXT) is None


@pytest.mark.parametrize("legal", [False, True])
@pytest.mark.parametrize("head", ["crf", "maxent"])
def test_targets_under_the_students_decoder(head: str, legal: bool) -> None:
    """The targets that a teacher who is right gives its student are all right; those of one that guesses are not."""
    gold = [[*row, *[0] * (max(map(len, TEXT["labels"])) - len(row))] for row in TEXT["labels"]]

    class Oracle:
        def __len__(self) -> int:
            return len(TEXT)

        def batch(self, rows: Any) -> Any:
            return torch.tensor([gold[row] for row in rows])

        def distribution(self, batch: Any, lengths: Any) -> Any:
            labels = batch[:, : int(lengths.max())]
            scores = 9.0 * torch.nn.functional.one_hot(labels, len(CORPUS.annotation.labels)).double()
            return structkd.MaxEnt(scores, lengths, list(CORPUS.annotation.labels))

    student = tagger(head, legal=legal)
    guess = TeacherScores.compute(tagger("maxent", seed=1), TEXT, progress=False)
    for temperature in (1.0, 3.0):
        for loss in (structkd.structural_kd_loss, structkd.token_kd_loss, structkd.emission_kd_loss):
            tempered = partial(loss, temperature=temperature)
            assert targets_metric(student, tempered, Oracle(), TEXT) == 1.0
            assert (targets_metric(student, tempered, guess, TEXT) or 0.0) < 0.5
    assert targets_metric(student, partial(pseudo_label_loss), Oracle(), TEXT) == 1.0
    assert targets_metric(student, partial(structkd.logit_matching_loss), guess, TEXT) is None
