"""Only what is defined in structkd or a registered plug-in can be created from a configuration."""

import functools
import importlib
import re
import sys
import textwrap
from pathlib import Path

import pytest
import structkd.conf

import structkd
from structkd.configurable import is_configurable
from structkd.models import BiLSTMRecipe
from structkd.plugins import freeze_plugins
from structkd.runs.instantiate import InstantiationError, instantiate, plugins, register_plugin, resolve


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module of a user's, importable but not registered."""
    (tmp_path / "my_plugin_room").mkdir()
    (tmp_path / "my_plugin_room" / "__init__.py").write_text(
        textwrap.dedent(
            """
            import os
            from contextlib import contextmanager
            from os import system as innocent
            from subprocess import Popen

            class Mine:
                def __init__(self, size=1, part=None):
                    self.size, self.part = size, part

                @classmethod
                def wide(cls, size=9):
                    return cls(size)

            class Shell(Popen):
                pass

            @contextmanager
            def context():
                yield 1

            Popen2 = Popen
            run = lambda command: os.system(command)
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("structkd.plugins._from_environment", ())
    yield "my_plugin_room"
    sys.modules.pop("my_plugin_room", None)


class TestAdmitted:
    def test_functions_classes_and_nested_objects(self) -> None:
        schedule = instantiate({"_target_": "structkd.LinearAnnealing", "start": 1.0, "end": 0.5})
        assert schedule == structkd.LinearAnnealing(1.0, 0.5)
        objective = instantiate(
            {
                "_target_": "structkd.KDObjective",
                "kd": {"_target_": "structkd.structural_kd_loss", "_partial_": True, "temperature": 2.0},
                "interpolation": {"_target_": "structkd.ConstantInterpolation", "_args_": [0.25]},
            }
        )
        assert isinstance(objective.kd, functools.partial)
        assert objective.kd.func is structkd.structural_kd_loss
        assert objective.kd.keywords == {"temperature": 2.0}
        assert objective.share(0.0) == 0.25
        assert instantiate({"_target_": "structkd.models.BiLSTMRecipe", "layers": 2}) == BiLSTMRecipe(layers=2)

    def test_plain_data_are_left_alone(self) -> None:
        data = {"a": [1, {"b": None}], "c": "os.system"}
        assert instantiate(data) == data

    @pytest.mark.parametrize("how", ["registered", "environment"])
    def test_plugins(self, how: str, plugin: str, monkeypatch) -> None:
        with pytest.raises(InstantiationError, match="STRUCTKD_PLUGINS"):
            resolve(f"{plugin}.Mine")
        assert plugin not in sys.modules, "refused without being imported"
        if how == "environment":
            monkeypatch.setenv("STRUCTKD_PLUGINS", f" other_module, {plugin}")
            assert plugin not in plugins(), "a variable set in a running process"
            freeze_plugins()
        else:
            monkeypatch.setattr("structkd.plugins._registered", [])
            register_plugin(plugin)
        assert plugin in plugins()
        outer = instantiate({"_target_": f"{plugin}.Mine", "part": {"_target_": f"{plugin}.Mine.wide"}})
        assert (outer.size, outer.part.size) == (1, 9)
        assert resolve(f"{plugin}.Shell").__name__ == "Shell"  # defined there by the user: the user's own business


ATTACKS = [
    "os.system",
    "builtins.eval",
    "subprocess.Popen",
    "torch.os.system",
    # aliases: the string begins well, the object lives elsewhere
    "structkd.commands.main.os.system",
    "structkd.commands.main.torch.os.system",
    "structkd.models.bilstm.torch.load",
    "structkd.models.bilstm.torch.hub.load",
    "structkd.training.fit.shutil.rmtree",
    "structkd.training.progress.json.loads",
    "structkd.training.progress.write_text",
    # functions of structkd's rooms that write, delete, fetch, or make a path of a string
    "structkd.training.checkpoints.seal",
    "structkd.training.checkpoints.last_complete_checkpoint",
    "structkd.training.score_store.ScoreStore",
    "structkd.training.fit",
    "structkd.data.locate.data_folder",
    "structkd.data.cached_package_folder",
    "structkd.data.wheels.cached_package_file",
    "structkd.data.wheels._download",
    "structkd.data.wheels._extract",
    "structkd.data.PackageFile",
    "structkd.data.read_columns",
    "structkd.models.Vocabulary",
    "structkd.models.Vocabulary.save_pretrained",
    "structkd.models.load",
    "structkd.models.BiLSTMRecipe.load",
    "structkd.models.TransformerRecipe.create",
    "structkd.teachers.Trained.open",
    "structkd.losses.KDObjective.register_module",
    "structkd.teachers.ask",
    "structkd.configurable.configurable",
    "structkd.plugins.register_plugin",
    # what writes files
    "structkd.files.write_text",
    "structkd.files.move",
    "structkd.records.Failure",
    # re-exports
    "structkd.training.trainer.Trainer",
    "structkd.models.tagger.PreTrainedModel.from_pretrained",
    "structkd.models.BiLSTMTagger.push_to_hub",
    "structkd.models.BiLSTMTagger.register_for_auto_class",
    # what would widen the rules, or run a whole program
    "structkd.runs.instantiate.register_plugin",
    "structkd.runs.instantiate.instantiate",
    "structkd.commands.main.main",
    "structkd.conf",
    # ways around by attributes
    "structkd.models.BiLSTMTagger.__class__",
    "structkd.models.BiLSTMTagger.__subclasses__",
    "structkd.models.BiLSTMTagger.__init__.__globals__",
    "structkd.models.BiLSTMTagger.__init__.__builtins__",
    "structkd.models.__loader__.exec_module",
    "structkd.models.__spec__.loader.get_data",
    "structkd.models",
    "structkd",
    # not names at all
    "structkd.models:BiLSTMTagger",
    "structkd..models",
    "../structkd",
    "",
    7,
    None,
]


@pytest.mark.parametrize("target", ATTACKS, ids=map(str, ATTACKS))
def test_attacks_are_refused(target: object) -> None:
    with pytest.raises(InstantiationError):
        instantiate({"_target_": target})
    with pytest.raises(InstantiationError):
        instantiate({"_target_": "structkd.KDObjective", "kd": {"_target_": target, "_partial_": True}})
    with pytest.raises(InstantiationError):
        instantiate({"_target_": "structkd.KDObjective", "_args_": [{"inner": [{"_target_": target}]}]})


def test_the_plugin_module_does_not_open_what_it_imports(plugin: str, monkeypatch) -> None:
    monkeypatch.setattr("structkd.plugins._registered", [plugin])
    for name in ("os.system", "innocent", "Popen", "Popen2", "context", "Mine.__class__", "os"):
        with pytest.raises(InstantiationError, match="refused"):
            resolve(f"{plugin}.{name}")


def test_forged_module_names_do_not_help(monkeypatch) -> None:
    def stranger() -> None: ...

    stranger.__module__ = "structkd.losses"
    monkeypatch.setattr(structkd.losses, "stranger", stranger, raising=False)
    with pytest.raises(InstantiationError, match="refused"):
        resolve("structkd.losses.stranger")
    wrapping = functools.wraps(structkd.structural_kd_loss)(lambda *arguments: None)
    monkeypatch.setattr(structkd.losses, "wrapping", wrapping, raising=False)
    with pytest.raises(InstantiationError, match="refused"):
        resolve("structkd.losses.wrapping")


def test_nothing_is_created_before_all_is_checked(plugin: str, monkeypatch) -> None:
    monkeypatch.setattr("structkd.plugins._registered", [plugin])
    module = importlib.import_module(plugin)
    made = []
    monkeypatch.setattr(module.Mine, "__init__", lambda self, size=1, part=None: made.append(size))
    inner = {"_target_": f"{plugin}.Mine"}
    for outer in (
        {"_target_": "structkd.LinearAnnealing", "x": inner},
        {"_target_": "structkd.KDObjective", "kd": inner, "supervised": {"_target_": "os.system"}},
        {"_target_": f"{plugin}.Mine", "part": [inner, {"_args_": []}]},
        {"x": inner, "y": {"_target_": "structkd.LinearAnnealing", "_partial_": 3}},
        {"x": inner, "y": functools.reduce(lambda below, _: [below], range(99), [])},
    ):
        with pytest.raises(InstantiationError):
            instantiate(outer)
    assert made == []
    assert resolve(f"{plugin}.run")
    with pytest.raises(InstantiationError, match="private"):
        resolve(f"{plugin}._hidden")


def test_what_the_shipped_files_name_is_offered() -> None:
    names = set()
    for path in Path(structkd.conf.__file__).parent.rglob("*.yaml"):
        names |= set(re.findall(r"_target_: (structkd[\w.]+)", path.read_text(encoding="utf-8")))
    names.discard("structkd.commands.sweep.Outcomes")
    assert len(names) > 30
    for name in names:
        assert is_configurable(resolve(name))


class TestMessages:
    def test_misspelt_argument(self) -> None:
        with pytest.raises(InstantiationError, match=r"teacher\.model: .*'hiden_size'. Did you mean 'hidden_size'\?"):
            instantiate({"_target_": "structkd.models.BiLSTMRecipe", "hiden_size": 3}, "teacher.model")

    def test_misspelt_target(self) -> None:
        with pytest.raises(InstantiationError, match=r"Did you mean 'structural_kd_loss'"):
            resolve("structkd.structual_kd_loss")
        with pytest.raises(InstantiationError, match=r"'modells'"):
            resolve("structkd.modells.BiLSTMRecipe")

    def test_misplaced_keys(self) -> None:
        for config, message in (
            ({"_partial_": True}, "no _target_"),
            ({"_target_": "structkd.LinearAnnealing", "_partial_": "yes"}, "true or false"),
            ({"_target_": "structkd.LinearAnnealing", "_args_": 3}, "must be a list"),
            ({"_target_": "structkd.LinearAnnealing", "_recursive_": False}, "'_recursive_'"),
        ):
            with pytest.raises(InstantiationError, match=message):
                instantiate(config)
