"""Messages: every suggestion can be typed as it stands, and errors of the system are one paragraph, too."""

import errno
import re
import shlex
from collections.abc import Iterator

import pytest
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from structkd.commands.messages import explain, is_user_error
from structkd.commands.schema import register_schema

COLUMNS = "data=columns"
EPOCHS = "+student.trainer.num_train_epochs=3 student.trainer.max_steps=null"
TEXT = "+text@student.text=lines student.text.path=news.txt student.unlabelled=null"


@pytest.fixture(scope="module", autouse=True)
def composing() -> Iterator[None]:
    register_schema()
    GlobalHydra.instance().clear()
    with initialize_config_module("structkd.conf", version_base="1.3"):
        yield


def message(*overrides: str) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=True, throw_on_missing=True)
    assert is_user_error(caught.value)
    return explain(caught.value)


SUGGESTIONS = [
    ("temperature=2", "kd.loss.temperature=2"),
    ("kd.temperature=2", "kd.loss.temperature=2"),
    ("lr=0.1", "student.trainer.learning_rate=0.1 or teacher.trainer.learning_rate=0.1"),
    ("student.trainer.lr=0.1", "student.trainer.learning_rate=0.1"),
    ("teacher.learning_rate=0.1", "teacher.trainer.learning_rate=0.1"),
    ("batch_size=8", "student.trainer.per_device_train_batch_size=8"),
    ("max_steps=3", "student.trainer.max_steps=3 or teacher.trainer.max_steps=3"),
    ("student.epochs=3", EPOCHS),
    ("student.trainer.num_train_epochs=3", EPOCHS),
    ("num_workers=2", "+student.trainer.dataloader_num_workers=2"),
    ("output_dir=x", "work_dir=x"),
    ("patience=3", "student.patience=3 or teacher.patience=3"),
    ("hidden_size=9", "student.model.encoder.hidden_size=9"),
    ("student.encoder=bilstm_tiny", "encoder@student.model.encoder=bilstm_tiny"),
    ("encoder=bilstm_tiny", "encoder@student.model.encoder=bilstm_tiny"),
    ("student.model=crf", "model@student.model=crf"),
    ("teacher.trainer=adamw", "trainer@teacher.trainer=adamw"),
    ("text=news.txt", TEXT),
    ("kd.loss=token", "kd=token"),
    ("kd.interpolation=0.3", "kd.interpolation.start=0.3 kd.interpolation.end=0.3"),
    ("alpha=0.3", "kd.interpolation.start=0.3 kd.interpolation.end=0.3"),
    ("baselines=topk", "+kd@baselines.topk=topk"),
    ("ensemble.b=biaffine", "+teacher@ensemble.b=biaffine"),
    ("debug=tiny", "+debug=tiny"),
    ("kd@baselines.topk=topk", "+kd@baselines.topk=topk"),
    ("scenario case2a", "scenario=case2a"),
]


@pytest.mark.parametrize(("typed", "hint"), SUGGESTIONS)
def test_a_suggestion_can_be_typed_as_it_stands(typed: str, hint: str) -> None:
    said = message(typed)
    assert f"Did you mean {hint}" in said, said


def test_all_suggestions_are_overrides() -> None:
    typed = [each for _, hint in SUGGESTIONS for each in shlex.split(hint.replace(" or ", " "))]
    assert compose("config", overrides=list({each.partition("=")[0]: each for each in reversed(typed)}.values()))


@pytest.mark.parametrize(
    ("typed", "quoted"),
    [
        ("data.delimiter=,", "data.delimiter=','"),
        ("data.delimiter=;", "data.delimiter=';'"),
        ("data.comment=#", "data.comment='#'"),
        ("data.train=a(1).txt", "data.train='a(1).txt'"),
        ("data.train=it's.txt", 'data.train="it\'s.txt"'),
        ('data.train=a"b\\', "data.train='a\"b\\\\'"),
        ("work_dir=~/x", "work_dir='~/x'"),
        ("data.train=a,b.txt", "data.train='a,b.txt'"),
    ],
)
def test_values_that_need_quotes(typed: str, quoted: str) -> None:
    said = message(COLUMNS, typed)
    (hint,) = re.findall(r"(?:quote it twice:|for plain text) (.*?)(?:; for one run.*)?$", said)
    (override,) = shlex.split(hint)
    key = typed.partition("=")[0]
    assert OmegaConf.select(compose("config", overrides=[COLUMNS, override]), key) == typed.partition("=")[2]
    assert OmegaConf.select(compose("config", overrides=[COLUMNS, quoted]), key) == typed.partition("=")[2]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["student.trainer.adam_beta1=0.8"], "and is added with a plus: +student.trainer.adam_beta1=0.8."),
        (["student.trainer.adam_beta=0.8"], "Did you mean +student.trainer.adam_beta2=0.8, a field of transformers."),
        (["data.train=x"], "Files of your own are read with data=columns or data=conllu."),
        (["data=my.conllu"], "data=conllu data.train=TRAIN data.dev=DEV data.test=TEST"),
        (["data=/tmp/my.conllu"], "data=/tmp/my.conllu: the group data chooses a kind of corpus"),
        (["student.labelled=all"], "For all sentences write student.labelled=null."),
        ([COLUMNS, "data.types=PER,LOC"], "For a list write 'data.types=[PER,LOC]'"),
        (["hydra.launcher.n_jobs=2"], "Did you mean -m hydra/launcher=joblib hydra.launcher.n_jobs=2"),
        (["--work_dir=x"], "There is no option --work_dir. Settings are written key=value"),
    ],
)
def test_what_to_do(overrides: list[str], said: str) -> None:
    assert said in message(*overrides)


@pytest.mark.parametrize("typed", ["data.trian=x.txt", "student.trainer.push_to_hub=true", "student.trainer.seed=1"])
def test_keys_that_would_be_refused_are_not_offered(typed: str) -> None:
    said = message(COLUMNS, typed)
    assert "plus" not in said
    assert "+" not in said


@pytest.mark.parametrize(
    ("file", "package"),
    [
        ("hydra/sweeper/optuna", "'structkd[sweep]'"),
        ("hydra/launcher/joblib", "'structkd[sweep]'"),
        ("hydra/launcher/submitit_slurm", "'structkd[sweep]'"),
        ("hydra/launcher/ray", "hydra-ray-launcher"),
    ],
)
def test_a_launcher_that_is_not_installed(file: str, package: str) -> None:
    error = MissingConfigException("", missing_cfg_file=file, options=["basic"])
    assert explain(error).endswith(f"is not installed: pip install {package}")


class TestErrorsOfTheSystem:
    def test_a_full_disk(self) -> None:
        error = OSError(errno.ENOSPC, "No space left on device", "/x/y")
        assert is_user_error(error)
        assert explain(error).startswith("No space left on device: /x/y. Make room, or let results go to another disk")
        assert "another disk with --output." in explain(error, "--output")

    @pytest.mark.parametrize(
        "text",
        [
            "[enforce fail at inline_container.cc:672] . unexpected pos 12416 vs 12308",
            "PytorchStreamWriter failed writing file data/3: file write failed",
            "basic_ios::clear: iostream error",
        ],
    )
    def test_torchs_writer(self, text: str) -> None:
        assert is_user_error(RuntimeError(text))
        assert f"({text}). The disk may be full. Make room" in explain(RuntimeError(text))

    def test_out_of_memory(self) -> None:
        error = RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")
        assert is_user_error(error)
        assert "per_device_train_batch_size" in explain(error)

    def test_a_logging_file_that_cannot_be_opened(self) -> None:
        """The logging module hides the reason."""
        error = ValueError("Unable to configure handler 'file'")
        error.__cause__ = OSError(errno.EROFS, "Read-only file system", "/ro/structkd.log")
        assert explain(error).startswith("Read-only file system: /ro/structkd.log. If results are to be written there")

    def test_a_fault_of_the_program_is_none_of_the_users(self) -> None:
        assert not is_user_error(RuntimeError("shapes differ"))
        assert not is_user_error(KeyError("x"))
