"""Teachers of single methods, as changes to the run's teacher."""

from __future__ import annotations

from typing import Any

import pytest

from structkd.runs.identity import teacher_of, teachers_of_methods

ENCODER = {"_target_": "structkd.models.BiLSTMRecipe", "hidden_size": 8}
TEACHER: dict[str, Any] = {
    "model": {"_target_": "structkd.models.TaggerRecipe", "encoder": ENCODER, "head": "crf", "transition_scale": 5.0},
    "trainer": {"max_steps": 10},
    "seed": 3,
    "labelled": 20,
}
TOKEN = {"name": "token", "loss": {}, "teacher": "words"}


def config(teachers: dict[str, Any], teacher: dict[str, Any] = TEACHER, **method: Any) -> dict[str, Any]:
    return {"teacher": teacher, "ensemble": {}, "teachers": teachers, "kd": TOKEN | method, "baselines": {}}


def test_changes_are_laid_over_the_runs_teacher() -> None:
    (words,) = teachers_of_methods(
        config({"words": {"model": {"head": "maxent"}, "trainer": {"eval_steps": 5}}})
    ).values()
    assert words["model"] == TEACHER["model"] | {"head": "maxent"}
    assert words["trainer"] == {"max_steps": 10, "eval_steps": 5}
    assert (words["seed"], words["labelled"]) == (3, 20)
    assert TEACHER["trainer"] == {"max_steps": 10}


def test_another_class_keeps_the_encoder_alone() -> None:
    changes = {"model": {"_target_": "structkd.models.ParserRecipe", "encoder": {"hidden_size": 4}}}
    (words,) = teachers_of_methods(config({"words": changes})).values()
    assert words["model"] == {"_target_": "structkd.models.ParserRecipe", "encoder": ENCODER | {"hidden_size": 4}}


def test_who_teaches_a_method() -> None:
    known = {"words": {"model": {"head": "maxent"}}, "other": {}}
    trains_nothing = {"model": {"_target_": "structkd.teachers.Trained", "path": "x"}}
    assert teacher_of(config(known), TOKEN) == "words"
    assert teacher_of(config(known), TOKEN | {"teacher": "other"}) == "other"
    assert teacher_of(config(known), TOKEN | {"teacher": None}) is None
    assert teacher_of(config(known), TOKEN | {"loss": None}) is None, "it learns from labels alone"
    assert teacher_of(config({}), TOKEN) is None, "the run's teacher, if the scenario defines no other"
    assert teacher_of(config(known, trains_nothing), TOKEN) is None
    assert teachers_of_methods(config(known, teacher=TEACHER, loss=None)) == {}


def test_names_that_lead_nowhere_or_twice() -> None:
    with pytest.raises(ValueError, match=r"learns from teachers\.wrods.*there are these teachers.*: words\."):
        teachers_of_methods(config({"words": {}}, teacher=TEACHER) | {"kd": TOKEN | {"teacher": "wrods"}})
    with pytest.raises(ValueError, match="'words' is that of a teacher in the ensemble and of one in teachers"):
        teachers_of_methods(config({"words": {}}) | {"ensemble": {"words": TEACHER}})
