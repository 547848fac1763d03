"""Saved models: their class is found, no other class loads them, and files that were changed are refused."""

import json
import shutil
from itertools import permutations

import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification

import structkd
from structkd.data import TagAnnotation, TreeAnnotation
from structkd.models import (
    BiaffineParser,
    BiLSTMRecipe,
    HeadLabeler,
    HeadLabelerRecipe,
    ParserRecipe,
    SecondOrderParser,
    SecondOrderRecipe,
    SpanModel,
    SpanRecipe,
    Tagger,
    TaggerRecipe,
)

ENCODER = BiLSTMRecipe(word_size=4, character_size=3, character_filters=3, hidden_size=3, layers=1)
TAGS, TREES = TagAnnotation.of_spans(["PER"], "BIO"), TreeAnnotation(("root", "dep"))
TEXT = Dataset.from_dict({"tokens": [["a", "b"], ["c"]], "heads": [[0, 1], [0]], "relations": [[0, 1], [0]]})
MODELS = {
    Tagger: (TaggerRecipe(encoder=ENCODER), TAGS),
    SpanModel: (SpanRecipe(encoder=ENCODER, size=3), TAGS),
    BiaffineParser: (ParserRecipe(encoder=ENCODER, arc_size=3, relation_size=3), TREES),
    SecondOrderParser: (SecondOrderRecipe(encoder=ENCODER, arc_size=3, relation_size=3, rank=2), TREES),
    HeadLabeler: (HeadLabelerRecipe(encoder=ENCODER), TREES),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folders = {}
    for kind, (recipe, annotation) in MODELS.items():
        folders[kind] = tmp_path_factory.mktemp(kind.__name__)
        recipe.create(annotation, TEXT, TEXT).save_pretrained(folders[kind])
    return folders


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_transformers_finds_the_class_of_a_model(kind, folders) -> None:
    assert type(AutoConfig.from_pretrained(folders[kind])) is kind.config_class
    found, known = AutoModel.from_pretrained(folders[kind]), kind.from_pretrained(folders[kind])
    assert type(found) is kind
    assert found.features == known.features
    for name, weights in known.state_dict().items():
        assert torch.equal(found.state_dict()[name], weights)


@pytest.mark.parametrize(("saved", "loading"), list(permutations(MODELS, 2)), ids=lambda kind: kind.__name__)
def test_a_model_of_another_class_is_refused(saved, loading, folders) -> None:
    expected = f"type '{saved.config_class.model_type}'; {loading.__name__} loads"
    with pytest.raises(ValueError, match=expected):
        loading.from_pretrained(folders[saved])
    with pytest.raises(ValueError, match=expected):
        loading.from_pretrained(folders[saved], config=AutoConfig.from_pretrained(folders[saved]))
    with pytest.raises(ValueError, match=expected):
        MODELS[loading][0].load(folders[saved])


@pytest.mark.parametrize("kind", MODELS, ids=lambda kind: kind.__name__)
def test_load_finds_the_class_of_a_model(kind, folders, tmp_path) -> None:
    model = structkd.load(folders[kind])
    assert type(model) is kind
    assert not model.training
    assert structkd.load(str(folders[kind]), device="cpu").annotate([["a"]]) == model.annotate([["a"]])
    # the folders of a training and of a run lead to it
    (tmp_path / "model").symlink_to(folders[kind])
    (tmp_path / "config.json").write_text("{}")
    assert type(structkd.load(tmp_path)) is kind


def test_taggers_are_token_classifiers(folders) -> None:
    assert type(AutoModelForTokenClassification.from_pretrained(folders[Tagger])) is Tagger


def hub_cache(folder, cache, name="me/tagger"):
    """Put a model into a cache as huggingface_hub lays it out."""
    place = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, place / "snapshots" / "0123abc")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0123abc")


@pytest.mark.parametrize("kind", [Tagger, HeadLabeler], ids=lambda kind: kind.__name__)
def test_a_model_goes_through_the_cache_of_the_hub(kind, folders, tmp_path) -> None:
    hub_cache(folders[kind], tmp_path)
    options = {"cache_dir": tmp_path, "local_files_only": True}
    expected = structkd.load(folders[kind])
    for loaded in (
        structkd.load("me/tagger", **options),
        AutoModel.from_pretrained("me/tagger", **options),
        kind.from_pretrained("me/tagger", **options),
    ):
        assert type(loaded) is kind
        assert loaded.features == expected.features
        assert loaded.annotate([["a", "c"]]) == expected.annotate([["a", "c"]])
    with pytest.raises(
        FileNotFoundError, match=r"There is no folder me/other .* no model me/other in the cache of the"
    ):
        structkd.load("me/other", **options)


def test_pushing_uploads_everything(folders, tmp_path, monkeypatch) -> None:
    """A stand-in for the hub takes the folder; the model that lies in its cache then loads."""
    import huggingface_hub

    taken = {}

    class Hub:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, name, **options):
            taken.update(options)
            return type("Repo", (), {"repo_id": f"me/{name}"})

        def upload_folder(self, repo_id, folder_path, **options):
            taken.update(options)
            hub_cache(folder_path, tmp_path / "cache", repo_id)
            return type("Commit", (), {"commit_url": f"https://hub/{repo_id}"})

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    model = structkd.load(folders[Tagger])
    assert model.push_to_hub("tagger") == "https://hub/me/tagger"
    loaded = structkd.load("me/tagger", cache_dir=tmp_path / "cache", local_files_only=True)
    assert loaded.annotate([["a"]], scores=True) == model.annotate([["a"]], scores=True)
    wishes = {"private": True, "commit_message": "mine", "revision": "draft", "create_pr": True}
    model.save_pretrained(tmp_path / "named", push_to_hub=True, **wishes)
    assert taken == {**wishes, "exist_ok": True}
    assert type(structkd.load("me/named", cache_dir=tmp_path / "cache", local_files_only=True)) is Tagger


def test_what_names_no_model_is_refused(folders, tmp_path) -> None:
    for given in (None, 3, [folders[Tagger]], b"model"):
        with pytest.raises(TypeError, match=f"A model is named by a text or a path: .* Got {type(given).__name__}"):
            structkd.load(given)
    with pytest.raises(ValueError, match="The name of a model is empty"):
        structkd.load("")
    # Without structkd.json, as the first version saved models: what does not fit the configuration is found.
    for number, (change, message) in enumerate(
        (
            (lambda config: config | {"head": "maxent"}, "3 tensors that a Tagger of this config.json has not"),
            (lambda config: config | {"encoder": {"model_type": "nope"}}, "no encoder that is known here"),
            (lambda config: {key: each for key, each in config.items() if key != "encoder"}, "no encoder that is"),
        )
    ):
        folder = shutil.copytree(folders[Tagger], tmp_path / str(number))
        (folder / "structkd.json").unlink()
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps(change(config)), encoding="utf-8")
        with pytest.raises(ValueError, match=message) as error:
            structkd.load(folder)
        assert len(str(error.value)) < 500
        assert str(folder) in str(error.value)


@pytest.fixture
def saved(folders, tmp_path):
    return shutil.copytree(folders[Tagger], tmp_path / "saved")


def _cut(saved):
    weights = saved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])


def _alter(saved):
    weights = saved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)


def _newer(saved):
    description = json.loads((saved / "structkd.json").read_text())
    del description["seal"]
    (saved / "structkd.json").write_text(json.dumps({**description, "format": 2, "structkd": "9.0"}))


def _rename_type(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_cut, r"model.safetensors has \d+ bytes, it was written with \d+: it was cut off or replaced"),
        (_alter, r"model.safetensors has the sha256 \w+..., it was written with \w+...: it is damaged"),
        (_newer, r"was saved by structkd 9.0 in format 2; this is structkd .*pip install --upgrade structkd"),
        (_rename_type, "holds a model of type 'bert', which is not a tagger or parser of structkd"),
        (lambda saved: (saved / "vocabulary.json").unlink(), "vocabulary.json is missing"),
        (lambda saved: (saved / "config.json").unlink(), "is not the folder of a model: it has no config.json"),
        (lambda saved: (saved / "structkd.json").write_text("[]"), "holds a list; expected an object"),
    ],
)
def test_a_damaged_model_is_refused(change, message, saved) -> None:
    change(saved)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        structkd.load(saved)


def test_a_model_of_the_version_before_is_loaded(folders, saved) -> None:
    """It has no list of its files; damage is still noticed, and weights of another model."""
    (saved / "structkd.json").unlink()
    assert structkd.load(saved).annotate([["a"]]) == structkd.load(folders[Tagger]).annotate([["a"]])
    shutil.copy(folders[HeadLabeler] / "model.safetensors", saved)
    with pytest.raises(ValueError, match=r"lack 5 tensors of a Tagger \(emission.bias"):
        structkd.load(saved)
    _cut(saved)
    with pytest.raises(ValueError, match=r"The weights in .* cannot be read \(SafetensorError"):
        structkd.load(saved)


def test_other_arguments_are_refused(folders) -> None:
    with pytest.raises(TypeError, match="load has no argument 'strict'; it takes device, revision"):
        structkd.load(folders[Tagger], strict=True)
    with pytest.raises(ValueError, match="is a file; a model is a folder"):
        structkd.load(folders[Tagger] / "config.json")
    with pytest.raises(
        FileNotFoundError, match=r"There is no folder \./none \(looked for in .*not a name on the Hugging"
    ):
        structkd.load("./none")


RUN = {
    "scenario": "case2a",
    "role": "student",
    "method": "structural",
    "metric": "f1",
    "data": {
        "name": "made-up",
        "task": "entities",
        "source": "here | there",
        "licence": "CC BY-SA 4.0, the authors",
        "notes": "Invented.",
        "sentences": {"train": 900, "dev": 60, "test": 120},
    },
    "labelled": 500,
    "unlabelled": 1500,
    "teachers": {"teacher": "Tagger, 900 sentences"},
    "temperature": 2.0,
    "words_per_second": 12345.6,
    "seeds": [
        {"seed": 0, "test": {"f1": 0.875, "accuracy": 0.9}, "interval": [0.85, 0.9]},
        {"seed": 1, "test": {"f1": 0.5, "accuracy": 0.75}, "interval": None},
    ],
    "command": "structkd scenario=case2a",
    "versions": {"structkd": "0.1.0", "torch": "2.13.0"},
}


def test_the_model_card_has_what_the_run_recorded(saved, tmp_path) -> None:
    """The hub's own reader finds licence, task and figures; loading and saving again keeps them."""
    model = structkd.load(saved)
    card = ModelCard.load(saved / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("structkd", "token-classification")
    assert "| span types | PER, in BIO |" in card.text
    model.about["run"] = RUN
    model.save_pretrained(tmp_path / "one")
    structkd.load(tmp_path / "one").save_pretrained(tmp_path / "two")
    assert (tmp_path / "one" / "README.md").read_text() == (tmp_path / "two" / "README.md").read_text()
    card = ModelCard.load(tmp_path / "two" / "README.md")
    assert card.data.license == "cc-by-sa-4.0"
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {"f1": 0.875, "accuracy": 0.9}
    for said in (
        "distilled from teacher by the method structural",
        "| 0 | 87.50 | 90.00 | 85.00 to 90.00 |",
        "| 1 | 50.00 | 75.00 |  |",
        "here \\| there",
        "12,346 words per CPU second",
        "    structkd scenario=case2a\n",
        "torch 2.13.0",
    ):
        assert said in card.text


def test_a_readme_of_ones_own_is_kept(folders, tmp_path) -> None:
    (tmp_path / "README.md").write_text("Mine.")
    structkd.load(folders[Tagger]).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "Mine."
