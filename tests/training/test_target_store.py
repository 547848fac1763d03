"""Teachers' scores on disk: exact, refused when they are not what they should be, and finished after any kill."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import set_seed

from structkd.data import load_toy
from structkd.models import (
    BiLSTMRecipe,
    HeadLabelerRecipe,
    ModelRecipe,
    ParserRecipe,
    SecondOrderRecipe,
    SpanRecipe,
    StructuredModel,
    TaggerRecipe,
)
from structkd.training import LiveTargets, MixtureTargets, TargetStore, TeacherTargets, training_text

ENCODER = BiLSTMRecipe(word_size=6, character_size=4, character_filters=4, hidden_size=6)
FAMILIES: dict[str, tuple[str, ModelRecipe]] = {
    "crf": ("spans", TaggerRecipe(encoder=ENCODER, head="crf")),
    "maxent": ("upos", TaggerRecipe(encoder=ENCODER, head="maxent")),
    "spans": ("spans", SpanRecipe(encoder=ENCODER, size=5, max_width=4)),
    "head_selection": ("dependencies", ParserRecipe(encoder=ENCODER, arc_size=5, relation_size=4)),
    "projective": ("dependencies", ParserRecipe(encoder=ENCODER, arc_size=5, relation_size=4, structure="projective")),
    "nonprojective": (
        "dependencies",
        ParserRecipe(encoder=ENCODER, arc_size=5, relation_size=4, structure="nonprojective"),
    ),
    "second_order": (
        "dependencies",
        SecondOrderRecipe(encoder=ENCODER, arc_size=5, relation_size=4, rank=3, second_order_size=4),
    ),
    "head_labeler": ("dependencies", HeadLabelerRecipe(encoder=ENCODER)),
    "head_labeler_upos": (
        "dependencies",
        HeadLabelerRecipe(encoder=ENCODER, encoding="relative_pos", relations=False),
    ),
}
FINGERPRINT = {"teacher": {"key": "t", "weights": [1, 2]}, "text": "abc"}


def family(name: str, sentences: int = 23) -> tuple[StructuredModel, Dataset]:
    """A teacher with weights that are not 0, and a text of labelled and unlabelled sentences."""
    task, recipe = FAMILIES[name]
    corpus = load_toy(task, train=sentences, dev=2, test=2)
    train = corpus.splits["train"]
    set_seed(1)
    teacher = recipe.create(corpus.annotation, train, train)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.add_(torch.randn_like(parameter))
    return teacher, training_text(corpus.annotation, train)


def write(name: str, folder: Path, **settings: Any) -> tuple[TargetStore, StructuredModel, Dataset]:
    teacher, text = family(name)
    settings = {"fingerprint": FINGERPRINT, "shard_sentences": 5, "progress": False} | settings
    store = TargetStore.write(teacher, text, folder, **settings)
    assert store is not None
    return store, teacher, text


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


ROWS = [[22, 0, 3, 3, 8], [5], list(range(23))]


@pytest.mark.parametrize("name", FAMILIES)
class TestEveryFamily:
    def test_one_shard_is_what_memory_holds(self, name: str, tmp_path: Path) -> None:
        store, teacher, text = write(name, tmp_path, shard_sentences=100)
        memory = TeacherTargets.compute(teacher, text, progress=False)
        for rows in ROWS:
            scores, expected = store.scores(rows), memory.scores(rows)
            assert scores.keys() == expected.keys()
            for each, value in scores.items():
                assert value.dtype == expected[each].dtype
                assert torch.equal(value, expected[each])
        assert {each: value.tolist() for each, value in store.shared.items()} == {
            each: value.tolist() for each, value in memory.shared.items()
        }
        assert store.manifest["divergence"] == {"mean": 0.0, "max": 0.0}

    def test_shards_rebuild_the_live_distribution(self, name: str, tmp_path: Path) -> None:
        store, teacher, text = write(name, tmp_path)
        assert len(store.shards) == 5
        assert len(store) == len(text)
        live = LiveTargets(teacher, text)
        for rows in ROWS:
            lengths = torch.tensor([len(text[row]["tokens"]) for row in rows])
            stored, computed = (each.distribution(each.scores(rows), lengths) for each in (store, live))
            assert type(stored) is type(computed)
            torch.testing.assert_close(stored.marginals, computed.marginals, atol=1e-5, rtol=1e-5)
            assert not computed.partition.requires_grad

    def test_float16_states_what_it_costs(self, name: str, tmp_path: Path) -> None:
        store, teacher, text = write(name, tmp_path, dtype="float16")
        exact = TeacherTargets.compute(teacher, text, progress=False)
        kl = []
        for row in range(len(text)):
            lengths = exact.lengths[row : row + 1]
            given, lost = (
                each.distribution({n: v.double() if v.is_floating_point() else v for n, v in scores.items()}, lengths)
                for each, scores in ((double(exact), exact.scores([row])), (double(store), store.scores([row])))
            )
            kl.append(float(given.kl(lost)))
        assert store.manifest["divergence"]["mean"] == pytest.approx(sum(kl) / len(kl), rel=1e-3)
        assert store.manifest["divergence"]["max"] == pytest.approx(max(kl), rel=1e-3)
        assert 0 < max(kl) < 1e-2
        values = store.scores([0, 1])
        assert {value.dtype for value in values.values() if value.is_floating_point()} == {torch.float32}


def double(targets: TeacherTargets) -> TeacherTargets:
    shared = {name: value.double() for name, value in targets.shared.items()}
    return TeacherTargets(targets.teacher, targets.shards, shared)
