"""The published settings: every configuration composes, and is laid out on stand-ins for what a hub has."""

from __future__ import annotations

import copy
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import structkd.conf
from hydra import compose, initialize_config_dir, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from stand_ins import small_bert, word_vectors

from structkd import KDObjective
from structkd.commands.schema import register_schema
from structkd.data import Corpus, Transfer, load_toy, load_transfer
from structkd.runs.instantiate import instantiate, register_plugin, with_defaults
from structkd.runs.plan import plan
from structkd.training import DistillationTrainer, fit, main_metric, training_arguments, training_text

CONF = Path(structkd.conf.__file__).parent
NAMES = sorted(path.stem for path in (CONF / "paper").glob("*.yaml"))
LANGUAGES = {"en": "conll2003", "de": "conll2003_de", "nl": "ned", "es": "esp"}

register_plugin(__name__)


@functools.cache
def _composed(*overrides: str) -> Any:
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_module("structkd.conf", version_base="1.3"):
        return OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True, throw_on_missing=True)


def composed(*overrides: str) -> dict[str, Any]:
    return copy.deepcopy(_composed(*overrides))


def made_up(task: str) -> Corpus:
    return load_toy(task=task, train=40, dev=8, test=8)


def made_up_transfer(task: str) -> Transfer:
    return load_transfer(made_up(task), load_toy(task=task, train=30, dev=8, test=8, seed=7))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    small_bert(folder / "bert")
    corpus = made_up("spans")
    words = {token for tokens in corpus.splits["train"]["tokens"] for token in tokens}
    word_vectors(folder / "words.vec", size=300, words=tuple(sorted(words)))
    lines = [" ".join([*tokens, "again"]) for tokens in corpus.splits["train"]["tokens"]]
    (folder / "text.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def stood_in(node: Any, sources: Path) -> Any:
    """The same configuration with a small encoder, small vectors and a short text in place of those of a hub."""
    if not isinstance(node, dict):
        return node
    node = {key: stood_in(value, sources) for key, value in node.items()}
    if node.get("_target_") == "structkd.models.TransformerRecipe":
        node["name"] = str(sources / "bert")
    elif node.get("_target_") == "structkd.data.load_text":
        node["path"] = str(sources / "text.txt")
    if node.get("vectors") is not None:
        node["vectors"] = str(sources / "words.vec")
    return node


@pytest.mark.parametrize("name", NAMES)
def test_a_published_run_is_laid_out(name: str, sources: Path, tmp_path: Path) -> None:
    """All that `structkd +paper=...` does before it trains: recipes, settings, every loss with untrained models."""
    config = stood_in(composed(f"+paper={name}"), sources) | {"work_dir": str(tmp_path)}
    transfer = config["data"]["_target_"].endswith("load_transfer")
    config["data"] = {
        "_target_": f"{__name__}.{'made_up_transfer' if transfer else 'made_up'}",
        "task": config["task"],
    }
    config["student"]["unlabelled"] = min(20, config["student"]["unlabelled"])
    for role in ("teacher", "student"):
        # The sizes are looked at below; untrained networks of 800 cells only take their time.
        shrink(config[role]["model"])
    planned = plan(config, tmp_path)
    methods = [student.name for student in planned.students]
    baseline = "emission" if name.startswith("case1") else "token"
    assert methods == ["structural", *([] if transfer else ["none"]), baseline]
    assert planned.comparisons[-1] == ("structural", baseline)
    assert list(planned.own_teachers) == ["words"] * (baseline == "token" and not transfer)
    assert len(planned.splits.teacher) == len(planned.source.splits["train"]), "all of it"
    assert len(planned.splits.labelled) == (0 if transfer else len(planned.splits.teacher))
    assert len(planned.splits.unlabelled) == config["student"]["unlabelled"]
    for training in (*planned.every_teacher, *planned.students):
        figure = main_metric(training.annotation)
        assert training_arguments(training.settings, tmp_path, 0, figure, training.select)


def shrink(model: dict[str, Any]) -> None:
    encoder = model["encoder"]
    if "hidden_size" in encoder:
        encoder["hidden_size"] = 4


def test_names_languages_and_data() -> None:
    assert len(NAMES) == 4 * (1 + 1 + 1 + 2) + 2
    for language, data in LANGUAGES.items():
        for case in ("case1a", "case2a", "case4"):
            config = composed(f"+paper={case}_{language}")
            assert config["name"] == case
            assert data in (config["data"].get("name"), config["data"].get("language"))
            assert vectors(config) == {f"vectors/cc.{language}.300.vec.gz"}
        config = composed(f"+paper=case4_wikiann_{language}")
        assert config["data"]["config"] == language
        assert config["student"]["text"]["path"].endswith(f"wikiann-{language}.txt")
        assert vectors(config) == {f"vectors/cc.{language}.300.vec.gz"}
    for language in ("eu", "fa", "he", "ta"):
        config = composed(f"+paper=case3_{language}")
        assert config["data"]["target"]["config"] == language
        assert {config["data"]["source"][each]["config"] for each in LANGUAGES} == LANGUAGES.keys()
        assert config["student"]["unlabelled"] == 30_000
        assert config["student"]["text"]["path"].endswith(f"wikiann-{language}.txt")
        assert vectors(config) == {f"vectors/cc.{language}.300.vec.gz"}
    for case in ("case1b", "case2b"):
        assert composed(f"+paper={case}")["data"]["name"] == "ptb"


def vectors(node: Any) -> set[str]:
    if not isinstance(node, dict):
        return set()
    own = {node["vectors"]} if node.get("vectors") else set()
    return own.union(*map(vectors, node.values()))


def test_published_temperatures_and_annealing() -> None:
    """The figures of the paper, written down once more."""
    temperatures = {
        "case1a": {"en": 3, "de": 3, "nl": 2, "es": 2},
        "case2a": {"en": 5, "de": 3, "nl": 3, "es": 7},
        "case3": {"eu": 1, "fa": 1, "he": 1, "ta": 1},
        "case4": {"de": 1.5, "en": 4, "es": 2, "nl": 2},
    }
    rates = {"case1a": (0.5, 0.5), "case2a": (0.5, 0.5), "case3": (0.5, 0.5), "case4": (0.5, 1.5)}
    expected = {
        f"{case}_{language}": (temperature, rates[case])
        for case, each in temperatures.items()
        for language, temperature in each.items()
    } | dict.fromkeys(["case1b", "case2b"], (3, (1, 1)))
    for name, (temperature, (slowest, fastest)) in expected.items():
        config = composed(f"+paper={name}")
        for method in (config["kd"], config["baselines"]["token"]):
            assert method["loss"]["temperature"] == temperature, name
            schedule = instantiate(method["interpolation"])
            epochs = config["student"]["trainer"]["num_train_epochs"]
            assert epochs == 300
            rate = (1 - schedule(1 / epochs)) * 100
            assert slowest - 1e-9 <= rate <= fastest + 1e-9, name
            for epoch in range(epochs + 1):
                assert math.isclose(schedule(epoch / epochs), max(0, 1 - rate * epoch / 100), abs_tol=1e-9)


def test_published_sizes_and_optimisers() -> None:
    def of(node: dict[str, Any], **wanted: Any) -> None:
        assert {key: node[key] for key in wanted} == wanted

    sgd = {
        "optim": "sgd",
        "learning_rate": 0.1,
        "max_grad_norm": 5.0,
        "per_device_train_batch_size": 32,
        "num_train_epochs": 300,
    }
    for name in NAMES:
        config = composed(f"+paper={name}")
        teacher, student = (
            config[role] | {"model": with_defaults(config[role]["model"])} for role in ("teacher", "student")
        )
        encoder = student["model"]["encoder"]
        if config["task"] == "spans":
            of(encoder, hidden_size=256, layers=1, character_filters=25, character_window=3, freeze_vectors=True)
            of(encoder, word_dropout=0.05, locked_dropout=0.5, word_size=300)
            of(student["trainer"], **sgd)
            of(student["trainer"]["lr_scheduler_kwargs"], mode="max", factor=0.5, patience=9)
        else:
            of(encoder, hidden_size=800, layers=2)
            of(student, batch_words=2000)
            of(student["trainer"], learning_rate=2e-3, optim="adamw_torch", weight_decay=0.0)
        encoder, model = teacher["model"]["encoder"], teacher["model"]
        if name.startswith(("case1a", "case2a")):
            of(encoder, hidden_size=256, layers=1)
            of(encoder["parts"]["subwords"], name="google-bert/bert-base-multilingual-cased", freeze=True)
            of(teacher["trainer"], **sgd)
        elif name.startswith("case3"):
            of(encoder, name="google-bert/bert-base-multilingual-cased", freeze=False)
            of(teacher["trainer"], optim="adamw_torch", learning_rate=5e-5, num_train_epochs=10)
        elif name.startswith("case4"):
            of(encoder, hidden_size=200, layers=3)
            of(model, size=150)
        else:
            of(encoder, hidden_size=400, layers=3)
            of(model, arc_size=500, relation_size=100, structure="head_selection")
            of(teacher["trainer"], learning_rate=2e-3)
            of(teacher, batch_words=2000)
            if name == "case2b":
                of(model, rank=150, iterations=3, siblings=True, grandparents=True)


def test_files_are_deltas_headed_by_their_command() -> None:
    for name in NAMES:
        text = (CONF / "paper" / f"{name}.yaml").read_text()
        assert f"#   structkd +paper={name}" in text
        assert len(text.splitlines()) < 32


def trainer_settings(name: str, **changes: Any) -> dict[str, Any]:
    """A file of the group, with a batch for 16 sentences."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF.absolute() / "trainer"), version_base="1.3"):
        return {**OmegaConf.to_container(compose(name)), "per_device_train_batch_size": 8, **changes}


@pytest.fixture(scope="module")
def small() -> dict[str, Any]:
    corpus = made_up("spans")
    text = training_text(corpus.annotation, corpus.splits["train"].select(range(16)))
    recipe = instantiate(composed("+debug=tiny")["teacher"]["model"])
    return {"model": lambda: recipe.create(corpus.annotation, text, text), "train": text, "dev": corpus.splits["dev"]}


@pytest.mark.parametrize("name", ["sgd", "adam_plateau", "adamw"])
def test_the_shipped_trainers_train(name: str, small: dict[str, Any], tmp_path: Path) -> None:
    settings = trainer_settings(name, num_train_epochs=3)
    arguments = {"objective": KDObjective(None), "settings": settings, "folder": tmp_path, "seed": 0}
    result = fit(small["model"](), small["train"], small["dev"], **arguments)
    assert [entry["step"] for entry in result.history] == [2, 4, 6], "one evaluation an epoch"


def test_the_tenth_epoch_without_progress_halves_the_learning_rate(small: dict[str, Any], tmp_path: Path) -> None:
    # So small a step changes no figure: the first one stays the best.
    settings = trainer_settings("sgd", num_train_epochs=12, learning_rate=1e-6)
    trainer = DistillationTrainer(
        small["model"](),
        training_arguments(settings, tmp_path, 0, "f1"),
        small["train"],
        small["dev"],
        objective=KDObjective(None),
    )
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([1e-6] * 11 + [0.5e-6])
