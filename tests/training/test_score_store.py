"""Teachers' scores on disk: exact, refused when they are not what they should be, and finished after any kill."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from preloaded import Death, start, wait
from transformers import set_seed

from structkd import KDObjective, structural_kd_loss
from structkd.data import TagAnnotation, load_toy
from structkd.files import sealed
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
from structkd.records import RoundingError
from structkd.training import (
    Collator,
    DistillationTrainer,
    LiveTeacher,
    ScoreStore,
    TeacherMixture,
    TeacherScores,
    training_arguments,
    training_text,
)

ENCODER = BiLSTMRecipe(word_size=6, character_size=4, character_filters=4, hidden_size=6, layers=1)
FAMILIES: dict[str, tuple[str, ModelRecipe]] = {
    "crf": ("spans", TaggerRecipe(encoder=ENCODER, head="crf")),
    "crf_upos": ("upos", TaggerRecipe(encoder=ENCODER, head="crf")),
    "maxent": ("spans", TaggerRecipe(encoder=ENCODER, head="maxent")),
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


def write(name: str, folder: Path, **settings: Any) -> tuple[ScoreStore, StructuredModel, Dataset]:
    teacher, text = family(name)
    settings = {"fingerprint": FINGERPRINT, "shard_sentences": 5, "progress": False} | settings
    store = ScoreStore.write(teacher, text, folder, **settings)
    assert store is not None
    return store, teacher, text


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


ROWS = [[22, 0, 3, 3, 8], [5], list(range(23))]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "crf_upos"])
class TestEveryFamily:
    def test_one_shard_is_what_memory_holds(self, name: str, tmp_path: Path) -> None:
        store, teacher, text = write(name, tmp_path, shard_sentences=100)
        memory = TeacherScores.compute(teacher, text, progress=False)
        for rows in ROWS:
            scores, expected = store.batch(rows), memory.batch(rows)
            assert scores.keys() == expected.keys()
            for each, value in scores.items():
                assert value.dtype == expected[each].dtype
                assert torch.equal(value, expected[each])
        assert {each: value.tolist() for each, value in store.shared.items()} == {
            each: value.tolist() for each, value in memory.shared.items()
        }
        assert store.manifest.divergence == RoundingError(mean=0.0, max=0.0)

    def test_shards_rebuild_the_live_distribution(self, name: str, tmp_path: Path) -> None:
        store, teacher, text = write(name, tmp_path)
        assert len(store.shards) == 5
        assert len(store) == len(text)
        live = LiveTeacher(teacher, text)
        for rows in ROWS:
            lengths = torch.tensor([len(text[row]["tokens"]) for row in rows])
            stored, computed = (each.distribution(each.batch(rows), lengths) for each in (store, live))
            assert type(stored) is type(computed)
            torch.testing.assert_close(stored.marginals, computed.marginals, atol=1e-5, rtol=1e-5)
            assert not computed.partition.requires_grad

    def test_float16_states_what_it_costs(self, name: str, tmp_path: Path) -> None:
        store, teacher, text = write(name, tmp_path, dtype="float16")
        exact = TeacherScores.compute(teacher, text, progress=False)
        kl = []
        for row in range(len(text)):
            lengths = exact.lengths[row : row + 1]
            given, lost = (
                each.distribution({n: v.double() if v.is_floating_point() else v for n, v in scores.items()}, lengths)
                for each, scores in ((double(exact), exact.batch([row])), (double(store), store.batch([row])))
            )
            kl.append(float(given.kl(lost)))
        assert store.manifest.divergence.mean == pytest.approx(sum(kl) / len(kl), rel=1e-3)
        assert store.manifest.divergence.max == pytest.approx(max(kl), rel=1e-3)
        assert 0 < max(kl) < 1e-2
        values = store.batch([0, 1])
        assert {value.dtype for value in values.values() if value.is_floating_point()} == {torch.float32}


def double(scores: TeacherScores) -> TeacherScores:
    shared = {name: value.double() for name, value in scores.shared.items()}
    return TeacherScores(scores.model, scores.shards, shared)


def test_mixtures_take_teachers_of_any_kind(tmp_path: Path) -> None:
    store, teacher, text = write("crf", tmp_path)
    mixture = TeacherMixture([store, LiveTeacher(teacher, text)], [1.0, 3.0])
    lengths = store.lengths[[4, 7]]
    components = mixture.distribution(mixture.batch([4, 7]), lengths).components
    torch.testing.assert_close(components[0].marginals, components[1].marginals, atol=1e-5, rtol=1e-5)


def test_a_training_takes_any_of_them(tmp_path: Path) -> None:
    """The same weights from a store as from memory, and nearly the same from a live teacher."""
    store, teacher, text = write("crf", tmp_path / "store", shard_sentences=100)
    weights = []
    for number, source in enumerate(
        [TeacherScores.compute(teacher, text, progress=False), store, LiveTeacher(teacher, text)]
    ):
        set_seed(2)
        student = FAMILIES["crf"][1].create(teacher.annotation, text, text)
        settings = {"max_steps": 4, "eval_steps": 4, "report_to": "none", "learning_rate": 0.01}
        arguments = training_arguments(settings, tmp_path / str(number), 0, "f1")
        objective = KDObjective(structural_kd_loss, interpolation=1.0)
        DistillationTrainer(student, arguments, text, text, objective=objective, teacher=source).train()
        weights.append(torch.cat([value.flatten() for value in student.state_dict().values()]))
    assert torch.equal(weights[0], weights[1])
    torch.testing.assert_close(weights[0], weights[2], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_teacher_is_in_evaluation_mode_and_in_its_own_precision(name: str) -> None:
    teacher, text = family(name)
    teacher.train()
    live, memory = LiveTeacher(teacher, text), TeacherScores.compute(teacher, text, progress=False)
    lengths = memory.lengths[[4, 7]]
    expected = memory.distribution(memory.batch([4, 7]), lengths).marginals
    with torch.autocast("cpu", torch.bfloat16):
        for source in (live, memory):
            computed = source.distribution(source.batch([4, 7]), lengths).marginals
            assert not computed.requires_grad
            torch.testing.assert_close(computed, expected, atol=1e-5, rtol=1e-5)


def test_minus_infinity_is_kept_and_too_large_scores_are_refused(tmp_path: Path) -> None:
    store, teacher, text = write("spans", tmp_path / "a", dtype="float16")
    assert store.batch([0])["spans"].isneginf().any()
    with torch.no_grad():
        teacher.weight.mul_(1e6)
    with pytest.raises(ValueError, match=r"spans reach .*float16 ends at 65504.*dtype=float32"):
        ScoreStore.write(teacher, text, tmp_path / "b", fingerprint=FINGERPRINT, dtype="float16", progress=False)


def test_what_a_training_changes_does_not_reach_the_files(tmp_path: Path) -> None:
    store, _, _ = write("crf", tmp_path)
    before = files(tmp_path)
    store.batch([0])["emissions"].fill_(7)
    store.shards[0]["emissions"].fill_(7)
    assert files(tmp_path) == before


class TestRefusals:
    @pytest.fixture(autouse=True)
    def _store(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "store"
        self.store, self.teacher, self.text = write("crf", self.folder)
        self.shard = self.folder / "scores-00002-of-00005.safetensors"

    def open(self, **settings: Any) -> ScoreStore:
        return ScoreStore.open(self.folder, self.teacher, **{"fingerprint": FINGERPRINT} | settings)

    def write(self, **settings: Any) -> ScoreStore | None:
        settings = {"fingerprint": FINGERPRINT, "shard_sentences": 5, "progress": False} | settings
        return ScoreStore.write(settings.pop("teacher", self.teacher), self.text, self.folder, **settings)

    def test_as_it_was_written_it_is_opened(self) -> None:
        assert torch.equal(self.open().batch([3])["emissions"], self.store.batch([3])["emissions"])

    @pytest.mark.parametrize(
        ("fingerprint", "message"),
        [
            ({**FINGERPRINT, "text": "abd"}, r"fingerprint\.text is 'abc' in the store and 'abd' here"),
            (
                {**FINGERPRINT, "teacher": {"key": "t", "weights": (1, 3)}},
                r"fingerprint\.teacher\.weights\[1\] is 2 in the store and 3 here",
            ),
            ({**FINGERPRINT, "teacher": {"key": "t"}}, r"teacher\.weights is \[1, 2\] in the store and absent here"),
            ({**FINGERPRINT, "task": "upos"}, r"fingerprint\.task is absent in the store and 'upos' here"),
        ],
    )
    def test_a_stale_store(self, fingerprint: dict[str, Any], message: str) -> None:
        for attempt in (self.open, self.write):
            with pytest.raises(ValueError, match=message):
                attempt(fingerprint=fingerprint)

    def test_of_another_kind_or_text(self) -> None:
        with pytest.raises(ValueError, match="dtype is 'float32' in the store and 'float16' here"):
            self.write(dtype="float16")
        self.text = self.text.select(range(7))
        with pytest.raises(ValueError, match="sentences is 23 in the store and 7 here"):
            self.write()
        manifest = json.loads((self.folder / "manifest.json").read_text())
        (self.folder / "manifest.json").write_text(json.dumps(sealed(manifest | {"format": 9})))
        with pytest.raises(
            ValueError,
            match=r"manifest\.json was written by another version of structkd \(format 9, expected 1\)\. Delete",
        ):
            self.open()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("crf_upos", r"scores\.emissions\.shape\[0\] is 9 in the store and 7 here"),
            ("maxent", r"scores\.end is \{'axes': 0, 'shape': \[9\]\} in the store and absent here"),
            ("spans", r"scores\.spans is absent in the store and \{'axes': 2"),
        ],
    )
    def test_a_foreign_teacher(self, name: str, message: str) -> None:
        self.teacher, _ = family(name)
        for attempt in (self.open, self.write):
            with pytest.raises(ValueError, match=message):
                attempt()

    @pytest.mark.parametrize(
        ("damage", "error", "message"),
        [
            (lambda path: os.truncate(path, 100), ValueError, "has 100 bytes, it was written with .*cut off"),
            (lambda path: flip(path), ValueError, "has the sha256 .*damaged"),
            (lambda path: path.unlink(), FileNotFoundError, "is missing"),
        ],
    )
    @pytest.mark.parametrize("name", ["scores-00002-of-00005.safetensors", "shared.safetensors"])
    def test_a_damaged_file_is_named_and_written_again(
        self, name: str, damage: Callable[[Path], None], error: type[Exception], message: str
    ) -> None:
        before, times = files(self.folder), modified(self.folder)
        damage(self.folder / name)
        with pytest.raises(error, match=rf"{name} {message}.*Write the store again"):
            self.open()
        self.write()
        assert files(self.folder) == before
        changed = {each for each, when in modified(self.folder).items() if when != times[each]}
        assert changed == {name, name.replace("safetensors", "json")}

    def test_only_a_flipped_bit_needs_the_hash(self) -> None:
        flip(self.shard)
        assert len(self.open(verify=False)) == 23

    def test_an_unfinished_store(self, tmp_path: Path) -> None:
        (self.folder / "manifest.json").unlink()
        with pytest.raises(FileNotFoundError, match=r"no manifest\.json.*5 of its shards written.*ScoreStore\.write"):
            self.open()
        with pytest.raises(FileNotFoundError, match=r"nothing was stored yet"):
            ScoreStore.open(tmp_path / "nowhere", self.teacher, fingerprint=FINGERPRINT)
        (self.folder / "manifest.json").write_text("{")
        with pytest.raises(ValueError, match=r"manifest\.json cannot be read .*Delete it"):
            self.open()

    def test_bad_settings(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "other"
        for settings, error, message in (
            ({"dtype": "bfloat16"}, ValueError, "'bfloat16'.*float32, float16"),
            ({"shard_sentences": 0}, ValueError, "shard_sentences must be at least 1, got 0"),
            ({"part": (2, 2)}, ValueError, r"0 <= k < n, got \(2, 2\)"),
            ({"fingerprint": {"path": Path()}}, TypeError, "plain data"),
        ):
            with pytest.raises(error, match=message):
                self.write(**settings)
        self.text = self.text.select([])
        with pytest.raises(ValueError, match="text is empty"):
            self.write()
        assert not self.folder.exists()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def modified(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_finished_store_is_left_alone(tmp_path: Path) -> None:
    write("crf", tmp_path)
    times = modified(tmp_path)
    store, _, _ = write("crf", tmp_path, shard_sentences=3)  # that of the store counts
    assert modified(tmp_path) == times
    assert len(store.shards) == 5


def test_other_shards_and_abandoned_files_are_removed(tmp_path: Path) -> None:
    write("crf", tmp_path / "whole")
    write("crf", tmp_path / "begun", shard_sentences=2)
    (tmp_path / "begun" / "manifest.json").unlink()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    names = {process: f".{os.uname().nodename}-{process}.manifest.json" for process in (os.getppid(), ended.pid)}
    for name in names.values():
        (tmp_path / "begun" / name).write_text("{")
    write("crf", tmp_path / "begun")
    begun = files(tmp_path / "begun")
    assert begun.pop(names[os.getppid()]) == b"{"
    assert begun == files(tmp_path / "whole")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_parts_make_the_same_store(order: tuple[int, int], tmp_path: Path) -> None:
    teacher, text = family("crf")
    settings = {"fingerprint": FINGERPRINT, "shard_sentences": 5, "progress": False}
    for number in order:
        assert not (tmp_path / "parts" / "manifest.json").exists()
        store = ScoreStore.write(teacher, text, tmp_path / "parts", part=(number, 2), **settings)
        assert (store is None) == (number == order[0])
    ScoreStore.write(teacher, text, tmp_path / "whole", **settings)
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert ScoreStore.write(teacher, text, tmp_path / "parts", part=(order[0], 2), **settings) is not None


def writes(folder: Path) -> None:
    """What is killed."""
    torch.set_num_threads(1)
    teacher, text = family("crf", 400)
    settings = {"fingerprint": FINGERPRINT, "dtype": "float16", "shard_sentences": 8, "progress": False}
    ScoreStore.write(teacher, text, folder, **settings)


@pytest.mark.processes
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    """It ends a moment after so many of 50 shards; shards that were finished are not written again."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finished: dict[str, int] = {}
    for shards, seconds in ((3, 0.002), (17, 0.007), (30, 0.0), (43, 0.001)):
        # The shards of the killed writers before it are not written again, and are not counted.
        death = Death(r"killed/scores-[^/]*\.json$", shards - len(finished) // 2, seconds)
        writer = start(writes, killed, log=tmp_path / "log.txt", death=death)
        wait(writer)
        assert writer.exitcode == -(signal.SIGPROF if seconds else signal.SIGKILL), (tmp_path / "log.txt").read_text()
        assert not (killed / "manifest.json").exists()
        now = modified(killed)
        assert all(now[name] == when for name, when in finished.items())
        vouched = [name for name in now if name.startswith("scores-") and name.endswith(".json")]
        assert len(vouched) >= shards - 1
        finished = {name: now[name] for json in vouched for name in (json, json.replace(".json", ".safetensors"))}
    writers = [start(writes, folder) for folder in (killed, whole)]
    wait(*writers)
    assert [writer.exitcode for writer in writers] == [0, 0]
    now = modified(killed)
    assert len(finished) >= 2 * 42
    assert all(now[name] == when for name, when in finished.items())
    assert files(killed) == files(whole)
    assert len(files(whole)) == 2 * 51 + 1


def memory(name: str) -> float:
    """MiB of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


@pytest.mark.processes
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel does not say how much memory it was")
def test_memory_is_that_of_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """150 MiB of scores and 12,000 sentences on disk, a fraction of that in memory, from the text to the last batch."""
    monkeypatch.setattr("structkd.models.vocabulary._CACHED_CELLS", 1)
    annotation = TagAnnotation(tuple(f"T{number}" for number in range(400)))
    words = load_toy("upos", train=60).splits["train"]["tokens"][:]
    rows = ({"id": str(row), "tokens": [f"w{row}", *words[row % 60]]} for row in range(12_000))
    path = str(tmp_path / "text.arrow")
    with ArrowWriter(path=path) as writer:
        for row in rows:
            writer.write({**row, "labels": [-100] * len(row["tokens"])})
        writer.finalize()
    part = Dataset.from_file(path).select(range(500))
    set_seed(0)
    teacher = TaggerRecipe(encoder=ENCODER).create(annotation, part, part)
    settings = {"fingerprint": {}, "shard_sentences": 500, "progress": False}
    ScoreStore.write(teacher, training_text(annotation, part.select([]), part), tmp_path / "part", **settings)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    before, anonymous = memory("VmHWM"), memory("RssAnon")
    text = training_text(annotation, part.select([]), Dataset.from_file(path))
    store = ScoreStore.write(teacher, text, tmp_path / "whole", **settings)
    assert store is not None
    assert sum(file.stat().st_size for file in (tmp_path / "whole").iterdir()) > 150 * 2**20
    assert memory("VmHWM") - before < 75
    collate = Collator(teacher, store)
    for rows in torch.randperm(len(text)).split(32):
        batch = collate(text.__getitems__(rows.tolist()))
        assert batch["teacher"]["emissions"].shape[:2] == batch["words"].shape
    assert memory("RssAnon") - anonymous < 75
