"""Hostile configurations: none is obeyed, and none passes without a word.

A payload is what a stranger could write into a folder of configurations. It goes through the steps of a command up to
the first that would create, read or write something: composed, vetted, resolved, checked.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structkd.conf
import yaml
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import structkd.commands.main  # registers the schema and the resolvers
from structkd.commands.messages import is_user_error
from structkd.commands.vetting import VettingError, vet, vetted
from structkd.harmless import is_name
from structkd.runs.configuration import check_configuration
from structkd.training import training_arguments

REFUSED = (ValueError, TypeError, HydraException, OmegaConfBaseException)
COUNT = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def hydra_at_rest() -> Iterator[None]:
    yield
    GlobalHydra.instance().clear()


def composed(folder: Path, *typed: str) -> DictConfig:
    """Compose as the command does, vetting included."""
    GlobalHydra.instance().clear()
    with vetted(), initialize_config_module("structkd.conf", version_base="1.3", job_name="structkd"):
        overrides = [f"hydra.searchpath=[file://{folder}]", *typed]
        return compose("config", overrides=overrides, return_hydra_config=True)


def merged(base: DictConfig, plain: dict[str, Any], payload: Any) -> DictConfig:
    """Lay a payload over a composed configuration, as Hydra lays one file over another, and vet it; much faster."""
    vet(laid_over(plain, payload), [*plain["hydra"]["overrides"]["hydra"], *plain["hydra"]["overrides"]["task"]])
    return OmegaConf.merge(base, payload)


def laid_over(base: dict[str, Any], payload: dict[str, Any]) -> dict[str, Any]:
    inner = {
        key: laid_over(base[key], value)
        for key, value in payload.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return base | payload | inner


def obeyed(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Take a vetted configuration as far as the runner does before it creates anything."""
    OmegaConf.set_readonly(config.hydra, False)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    check_configuration(plain)
    for role in ("teacher", "student"):
        training_arguments(dict(plain[role]["trainer"]), folder / "out", 0, "accuracy")
    return plain


def file_of(folder: Path, payload: Any) -> str:
    """Write a payload as a file of the group x, and return the override that chooses it."""
    name = f"p{next(COUNT)}"
    (folder / "x").mkdir(exist_ok=True)
    text = payload if isinstance(payload, str) else yaml.safe_dump(payload, allow_unicode=True)
    (folder / "x" / f"{name}.yaml").write_text(f"# @package _global_\n{text}", encoding="utf-8")
    return f"+x={name}"


def hydra(key: str, value: Any) -> dict[str, Any]:
    """A payload that sets one key of the node ``hydra``."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return {"hydra": value}


def target(name: Any, *arguments: Any, **keywords: Any) -> dict[str, Any]:
    """A payload that names an object in the place of a loss."""
    return {"kd": {"loss": {"x": {"_target_": name, "_args_": list(arguments), **keywords}}}}


CALLBACKS = (
    *("numpy.load", "pandas.read_pickle", "joblib.load", "torch.load", "pip._internal.main", "pathlib.Path.write_text"),
    *("urllib.request.urlretrieve", "os.system", "builtins.exec", "hydra.experimental.callbacks.PickleJobInfoCallback"),
    *("hydra.experimental.callbacks.LogJobReturnCallback", "structkd.commands.sweep.Outcomes2", "${oc.env:HOME}", 7),
)
VARIABLES = (
    *("STRUCTKD_PLUGINS", "STRUCTKD_CACHE", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONINSPECT", "PIP_INDEX_URL"),
    *("PIP_FIND_LINKS", "LD_PRELOAD", "LD_LIBRARY_PATH", "HF_HOME", "HF_ENDPOINT", "HF_TOKEN", "CUDA_VISIBLE_DEVICES"),
    *(
        "PATH",
        "HOME",
        "BASH_ENV",
        "http_proxy",
        "NUMBA_CACHE_DIR",
        "TORCH_HOME",
        "TRITON_CACHE_DIR",
        "OMP_TOOL_LIBRARIES",
    ),
    *("SSL_CERT_FILE", "GIT_SSH_COMMAND", "WANDB_BASE_URL", "TMPDIR", "CC"),
)
HANDLERS: tuple[dict[str, Any], ...] = (
    {"class": "logging.FileHandler", "filename": "/tmp/anywhere"},
    {"class": "logging.FileHandler", "filename": "${hydra.runtime.output_dir}/../../x.log"},
    {"class": "logging.FileHandler", "filename": "${oc.env:HOME}/.bashrc"},
    {"class": "logging.handlers.SocketHandler", "host": "example.org", "port": 1},
    {"class": "logging.handlers.HTTPHandler", "host": "example.org", "url": "/"},
    {"class": "logging.handlers.SMTPHandler", "mailhost": "example.org"},
    {"class": "logging.handlers.RotatingFileHandler", "filename": "x"},
    {"class": "subprocess.Popen", "args": ["touch", "marker"]},
    {"()": "subprocess.getoutput", "cmd": "touch marker"},
    {"class": "logging.StreamHandler", "stream": "ext://os.environ"},
    {"class": "logging.StreamHandler", "stream": "cfg://root"},
    {"class": "logging.StreamHandler", ".": {"terminator": "x"}},
    {"class": "logging.StreamHandler", "filters": ["x"]},
    {"class": "${oc.env:HOME}"},
)
FORMATTERS: tuple[dict[str, Any], ...] = (
    {"()": "subprocess.getoutput", "cmd": "touch marker"},
    {"class": "subprocess.Popen", "format": "touch"},
    {"format": "{0.__class__}", "style": "{"},
    {"format": "%(lineno)999999999d"},
    {"format": "ext://os.environ"},
    {"format": "${oc.env:HOME}"},
    {"defaults": {"x": 1}, "format": "x"},
)
LAUNCHERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("submitit_slurm", {"setup": ["touch marker"]}),
    ("submitit_slurm", {"additional_parameters": {"wrap": "touch marker"}}),
    ("submitit_slurm", {"partition": "main\ntouch marker"}),
    ("submitit_slurm", {"comment": "x --wrap=touch"}),
    ("submitit_slurm", {"submitit_folder": "/tmp/x"}),
    ("submitit_local", {"submitit_folder": "${oc.env:HOME}/x"}),
    ("submitit_local", {"name": "../../x"}),
    ("joblib", {"pre_dispatch": "__import__('os').system('touch marker')"}),
    ("joblib", {"temp_folder": "/tmp/x"}),
    ("joblib", {"backend": "dask"}),
    ("basic", {"_target_": "subprocess.Popen"}),
    ("basic", {"_target_": "hydra_plugins.evil.Launcher"}),
    ("basic", {"_target_": "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"}),
)
OPTUNA: tuple[dict[str, Any], ...] = (
    {"custom_search_space": "os.system"},
    {"storage": "sqlite:////tmp/x.db"},
    {"storage": {"_target_": "os.system"}},
    {"sampler": {"_target_": "os.system"}},
    {"sampler": {"_target_": "optuna.samplers.PartialFixedSampler"}},
    {"study_name": "../../x"},
    {"params": {"hydra.callbacks.x._target_": "choice(os.system)"}},
)
PARAMETERS = (
    *(
        "hydra.run.dir",
        "+hydra.job.env_set.PYTHONPATH",
        "hydra/launcher",
        "x@hydra.callbacks.evil",
        "+trust",
        "work_dir",
    ),
    *("++hydra.job_logging.handlers.x.class", "~hydra.callbacks", "+x@hydra.job", "x@_global_:hydra"),
)
NODES = (
    *[hydra("callbacks.evil", {"_target_": name, "_args_": ["x"]}) for name in CALLBACKS],
    hydra("callbacks.outcomes", {"_target_": "structkd.commands.sweep.Outcomes", "x": {"_target_": "os.system"}}),
    hydra("callbacks", [{"_target_": "os.system"}]),
    *[hydra("job.env_set", {name: "x"}) for name in VARIABLES],
    hydra("job.env_set", {"OMP_NUM_THREADS": "2; touch marker"}),
    hydra("job.env_copy", ["HOME"]),
    hydra("job.env_copy", ["NOT_SET_ANYWHERE"]),
    *[hydra(f"{kind}.handlers.x", each) for kind in ("job_logging", "hydra_logging") for each in HANDLERS],
    *[hydra("job_logging.formatters.x", each) for each in FORMATTERS],
    hydra("job_logging.filters.x", {"()": "os.system"}),
    hydra("job_logging.root", {"()": "os.system"}),
    hydra("job_logging.loggers.x", {"class": "os.system"}),
    *[hydra("run.dir", each) for each in ("/tmp/x", "../x", "${oc.env:HOME}", "${work_dir}/../x", "${now:%Y}")],
    *[hydra("sweep.dir", each) for each in ("/tmp/x", "..", "${hydra.runtime.cwd}")],
    *[hydra("sweep.subdir", each) for each in ("../x", "/tmp", "${hydra.job.num}")],
    *[hydra("output_subdir", each) for each in ("../../..", "/tmp/x", ".ssh", "x")],
    *[hydra("job.name", each) for each in ("../../x", "/tmp/x", "${oc.env:HOME}", "-x", "")],
    hydra("job.id", "../../x"),
    hydra("verbose", ["../x"]),
    hydra("overrides.task", ["+trust=evil"]),
    hydra("overrides.hydra", ["hydra.run.dir=/tmp/x"]),
    hydra("searchpath", ["pkg://os"]),
    hydra("env", {"x": "os.system"}),
    *[{"hydra": {"sweeper": {"params": {key: "1,2"}}}} for key in PARAMETERS],
    {"hydra": {"sweeper": {"_target_": "subprocess.Popen"}}},
    *[
        {"defaults": [{"override /hydra/launcher": kind}], "hydra": {"launcher": settings}}
        for kind, settings in LAUNCHERS
    ],
    *[{"defaults": [{"override /hydra/sweeper": "optuna"}], "hydra": {"sweeper": settings}} for settings in OPTUNA],
)
NAMES = (
    *("../../../../x", "/abs/x", ".ssh", "a/b", "a\\b", "-rf", "", " ", "x" * 101, "x" * 100_000, "é" * 60, "x.", "x "),
    *(
        "a\x00b",
        "a\x1b[2Jb",
        "a\nb",
        "a\u202eb",
        "a\x9bb",
        "${oc.env:HOME}",
        "${oc.env:SECRET,x}",
        "=1+1",
        "@x",
        "a:b",
        "~",
    ),
    *("a*b", "$HOME", "`id`", "a|b", "<script>", 'a"b'),
)
WORK_DIRS = (
    "/tmp/x",
    "../x",
    "~/x",
    "~root/x",
    "a/../../x",
    ".git/hooks",
    "${oc.env:HOME}",
    "${oc.env:HOME}/x",
    "a//b",
    "",
)
SECRETS = ("SECRET", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PATH")
TRAINER: tuple[dict[str, Any], ...] = (
    {"push_to_hub": True},
    {"push_to_hub": False},
    {"hub_token": "x"},
    {"hub_model_id": "evil/model"},
    {"hub_strategy": "every_save"},
    {"hub_always_push": True},
    {"trackio_space_id": "evil/space"},
    {"report_to": "wandb"},
    {"report_to": ["tensorboard", "mlflow"]},
    {"report_to": "all"},
    {"deepspeed": "/tmp/x.json"},
    {"fsdp_config": "/tmp/x.json"},
    {"accelerator_config": "/tmp/x.json"},
    {"output_dir": "/tmp/x"},
    {"logging_dir": "/tmp/x"},
    {"resume_from_checkpoint": "/tmp/x"},
)
FOLDER = {"_target_": "structkd.data.locate.data_folder", "folder": "/tmp/x"}
TARGETS = (
    target("structkd.training.checkpoints.seal", FOLDER, FOLDER),
    target("structkd.training.checkpoints.last_complete_checkpoint", FOLDER),
    target("structkd.training.target_store._write", FOLDER, b"print(1)"),
    target("structkd.training.score_writer.ScoreWriter", FOLDER),
    target("structkd.data.wheels._extract", "x.whl", "a", "b", FOLDER),
    target("structkd.data.wheels._download", FOLDER),
    target("structkd.data.cached_package_folder", {"_target_": "structkd.data.PackageFolder"}),
    target("structkd.models.Vocabulary.save_pretrained", "/tmp/x"),
    target("structkd.models.BiLSTMTagger.from_pretrained", "/tmp/x"),
    target("structkd.files.write_text", "/tmp/x", "x"),
    target("structkd.export.export", "a", "b"),
    target("structkd.runs.instantiate.register_plugin", "subprocess"),
    target("structkd.plugins.register_plugin", "subprocess"),
    target("structkd.plugins.os.system", "touch marker"),
    target("structkd.configurable.configurable", "x"),
    target("structkd.load", "/tmp/x"),
    target("subprocess.getoutput", "touch marker"),
    target("shutil.rmtree", "/tmp/x"),
    target("${oc.env:HOME}"),
    target("structkd.LinearAnnealing", _partial_="yes"),
    target("structkd.LinearAnnealing", start={"_target_": "os.system"}),
    {"data": {"_target_": "structkd.data.load_toy", "x": {"_target_": "structkd.data.read_columns"}}},
    {"data": {"_target_": "structkd.data.load_joined", "name": "../../x"}},
    {"student": {"model": {"encoder": {"_target_": "torch.hub.load", "_args_": ["evil/repo", "x"]}}}},
    {"teacher": {"model": {"encoder": {"_target_": "transformers.AutoModel.from_pretrained"}}}},
    {"student": {"text": {"_target_": "datasets.load_from_disk", "path": "x"}}},
    {"ensemble": {"x": {"model": {"_target_": "os.system"}}}},
    {"teachers": {"x": {"model": {"_target_": "os.system"}}}},
    {"baselines": {"token": {"interpolation": {"_target_": "os.system"}}}},
)
OTHERS = (
    *[{"name": each} for each in NAMES],
    *[{"kd": {"name": each}} for each in NAMES],
    *[{"baselines": {each: {"name": "x", "loss": None}}} for each in ("../x", "a/b", "x\x1b")],
    {"baselines": {"token": {"name": "../../x"}}},
    {"teachers": {"../x": {"seed": 1}}},
    {"comparisons": [["structural", "../../x\x1b[2J"]]},
    *[{"work_dir": each} for each in WORK_DIRS],
    *[{"data": {"path": f"${{oc.env:{each}}}"}} for each in SECRETS],
    *[{"data": {"path": f"${{oc.${{x}}:{each}}}"}, "x": "env"} for each in SECRETS[:1]],
    {"teacher": {"path": "${oc.env:HF_TOKEN}"}},
    {"seed": "${oc.decode:${oc.env:SECRET}}"},
    *[{"student": {"trainer": each}} for each in TRAINER],
    {"teacher": {"trainer": {"push_to_hub": True}}},
    {"trust": "subprocess"},
    {"trust": ["os"]},
    {"data": {"licence": "\ud800"}},
)


def _label(payload: Any) -> str:
    return ascii(payload)[:70]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("strangers_conf")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET", "the-secret-of-the-environment")
    monkeypatch.delenv("STRUCTKD_WORK", raising=False)
    return tmp_path


def refusal(compose_it: Callable[[], DictConfig], folder: Path) -> str:
    """Return the message with which a configuration is refused; fail if it is obeyed."""
    with pytest.raises(REFUSED) as caught:
        obeyed(compose_it(), folder)
    assert is_user_error(caught.value)
    chain, error = [], caught.value
    while error is not None:
        chain.append(str(error))
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return "\n".join(chain)


def test_there_are_enough() -> None:
    assert len({ascii(each) for each in (*NODES, *OTHERS, *TARGETS)}) >= 250


@pytest.mark.parametrize("payloads", [NODES, OTHERS, TARGETS], ids=["hydra", "values", "objects"])
def test_no_file_is_obeyed(payloads: tuple[Any, ...], folder: Path, elsewhere: Path) -> None:
    base = composed(folder)
    OmegaConf.set_struct(base, False)
    OmegaConf.set_readonly(base.hydra, False)
    plain = OmegaConf.to_container(base, resolve=False, enum_to_str=True)
    passed = []
    for number, payload in enumerate(payloads):
        if number % 20 == 0 or "defaults" in payload:
            ways = functools.partial(composed, folder, file_of(folder, payload))
        else:
            ways = functools.partial(merged, base, plain, payload)
        try:
            message = refusal(ways, folder)
        except pytest.fail.Exception:
            passed.append(ascii(payload)[:200])
        else:
            assert "the-secret-of-the-environment" not in message, payload
            assert len(message) < 20_000, payload
    assert passed == []
    assert list(elsewhere.iterdir()) == []


def test_files_that_would_replace_the_root(folder: Path, tmp_path: Path) -> None:
    for name in ("config.yaml", "structkd_schema.yaml", "hydra/config.yaml"):
        root = tmp_path / name.replace("/", "_")
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("hydra: {searchpath: ['pkg://this']}\n")
        assert "root of the configuration" in refusal(lambda root=root: composed(root), root)


def test_what_is_typed_is_the_users_own(folder: Path) -> None:
    config = composed(
        folder,
        *(
            "hydra.run.dir=/somewhere/else",
            "hydra.sweep.dir=/elsewhere",
            "hydra.output_subdir=x",
            "work_dir=/scratch/me",
        ),
        *("+hydra.job.env_set.CUDA_VISIBLE_DEVICES='0'", "hydra/launcher=submitit_slurm", "+trust=my_module"),
        *(
            "hydra.launcher.setup=[module load cuda]",
            "+hydra.launcher.additional_parameters={mail-user: me@example.org}",
        ),
        *("hydra.job_logging.handlers.file.filename=/somewhere/log", "student.trainer.weight_decay=0.1"),
    )
    plain = obeyed(config, folder)
    assert (plain["work_dir"], plain["trust"]) == ("/scratch/me", "my_module")
    for typed in (
        *(
            "+hydra.callbacks.x._target_=os.system",
            "hydra.launcher._target_=os.system",
            "hydra.sweeper._target_=os.system",
        ),
        *("+hydra.job.env_set.STRUCTKD_PLUGINS=os", "hydra.job_logging.handlers.file.class=os.system"),
        *("+student.trainer.push_to_hub=true", "+student.trainer.hub_token=x", "kd.name=../x"),
    ):
        refusal(functools.partial(composed, folder, typed), folder)


HARMLESS: tuple[dict[str, Any], ...] = (
    {"hydra": {"sweeper": {"params": {"seed": "range(3)", "kd.loss.temperature": "1,2"}}, "mode": "MULTIRUN"}},
    {"hydra": {"job": {"env_set": {"OMP_NUM_THREADS": "2"}}}},
    {"hydra": {"job_logging": {"root": {"level": "DEBUG"}, "loggers": {"structkd": {"level": "WARNING"}}}}},
    {
        "defaults": [{"override /hydra/launcher": "submitit_slurm"}],
        "hydra": {"launcher": {"partition": "gpu", "timeout_min": 60, "gres": "gpu:1", "constraint": "a100|h100"}},
    },
    {"defaults": [{"override /hydra/launcher": "joblib"}], "hydra": {"launcher": {"n_jobs": 2}}},
    {"name": "Português (UD), v2.1", "kd": {"name": "my-method_1"}, "work_dir": "runs/of-mine"},
    {"comparisons": [["structural(legal=true)", "token(legal=false)"]], "student": {"trainer": {"max_steps": 3}}},
    {"student": {"text": {"_target_": "structkd.data.load_text", "path": "${oc.env:STRUCTKD_DATA,.}/news.txt"}}},
    {"student": {"trainer": {"report_to": "tensorboard"}}},
)


@pytest.mark.parametrize("payload", HARMLESS, ids=_label)
def test_ordinary_files_are_obeyed(payload: dict[str, Any], folder: Path) -> None:
    assert obeyed(composed(folder, file_of(folder, payload)), folder)


def test_the_defaults_of_rays_launcher_are_obeyed() -> None:
    """The package is no dependency, so its settings are written down here."""
    launcher = {
        "_target_": "hydra_plugins.hydra_ray_launcher.ray_launcher.RayLauncher",
        "ray": {"init": {"address": None}, "remote": {}},
    }
    vet({"hydra": {"launcher": launcher}, "work_dir": "runs"}, [])
    launcher["ray"] = {"init": {"address": None}, "remote": {"runtime_env": {"working_dir": "https://x/y.zip"}}}
    with pytest.raises(VettingError, match="runtime_env"):
        vet({"hydra": {"launcher": launcher}, "work_dir": "runs"}, [])


def test_the_shipped_files_are_obeyed(folder: Path) -> None:
    root = Path(structkd.conf.__file__).parent
    for group, override in {"scenario": "scenario={}", "sweep": "+sweep={}"}.items():
        for path in sorted((root / group).glob("*.yaml")):
            assert obeyed(composed(folder, override.format(path.stem)), folder)
    for path in root.rglob("*.yaml"):
        name = yaml.safe_load(path.read_text(encoding="utf-8")).get("name")
        assert not isinstance(name, str) or path.parent.name == "encoder" or is_name(name), path
