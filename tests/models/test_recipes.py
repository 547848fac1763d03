"""Recipes: the settings of a configuration class, whose defaults stand nowhere else."""

import inspect
from importlib.resources import files

import pytest
import yaml

from structkd.models import (
    BiLSTMConfig,
    BiLSTMRecipe,
    HeadLabelerRecipe,
    ParserRecipe,
    SecondOrderConfig,
    SecondOrderRecipe,
    TaggerRecipe,
    TransformerRecipe,
)
from structkd.runs.instantiate import resolve, with_defaults

CONFIGURATIONS = [path for group in ("model", "encoder") for path in (files("structkd.conf") / group).iterdir()]


@pytest.mark.parametrize("path", CONFIGURATIONS, ids=lambda path: path.name)
def test_a_configuration_says_only_what_differs_from_the_class(path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "_target_" in content:
        parameters = inspect.signature(resolve(content["_target_"])).parameters
        assert not {key for key, value in content.items() if key in parameters and parameters[key].default == value}


def test_a_recipe_has_the_settings_and_defaults_of_its_configuration() -> None:
    recipe = SecondOrderRecipe(encoder=BiLSTMRecipe(), rank=7)
    names = set(inspect.signature(SecondOrderRecipe).parameters)
    assert {"encoder", "structure", "arc_size", "memory_limit", "rank", "iterations"} <= names
    assert not {"relations", "multiroot"} & names  # the data decide them
    assert recipe.settings["rank"] == 7
    assert recipe.settings["arc_size"] == SecondOrderConfig().arc_size
    assert recipe.configuration(relations=["root"]).to_dict() == SecondOrderConfig(rank=7).to_dict()
    assert BiLSTMRecipe().settings["layers"] == BiLSTMConfig().layers


def test_recipes_are_equal_if_their_settings_are() -> None:
    assert BiLSTMRecipe(layers=BiLSTMConfig().layers) == BiLSTMRecipe()
    assert BiLSTMRecipe(layers=3) != BiLSTMRecipe()
    assert BiLSTMRecipe(minimum_count=2) != BiLSTMRecipe()
    assert TaggerRecipe(encoder=BiLSTMRecipe(layers=3)) != TaggerRecipe(encoder=BiLSTMRecipe())
    assert repr(TransformerRecipe(name="x")).startswith("TransformerRecipe(name='x', pooling='first'")


@pytest.mark.parametrize("recipe", [TaggerRecipe, ParserRecipe, HeadLabelerRecipe])
def test_an_unknown_setting_is_refused(recipe) -> None:
    with pytest.raises(TypeError, match=r"no setting 'layers'\. It takes: .*encoder"):
        recipe(encoder=BiLSTMRecipe(), layers=2)


def test_a_configuration_with_defaults_is_complete() -> None:
    config = {"_target_": "structkd.models.TaggerRecipe", "encoder": {"_target_": "structkd.models.BiLSTMRecipe"}}
    complete = with_defaults([{"model": config}])[0]["model"]
    assert complete["head"] == "crf"
    assert complete["encoder"]["layers"] == BiLSTMConfig().layers
    assert complete["encoder"]["_target_"] == "structkd.models.BiLSTMRecipe"
    assert with_defaults(complete) == complete
