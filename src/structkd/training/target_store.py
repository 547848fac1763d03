"""A teacher's scores on disk: computed once, read by every student.

A store is a folder:

    scores-00003-of-00010.safetensors   the sentences ``text.shard(10, 3, contiguous=True)``: their scores one after the
                                        other, and ``lengths``
    scores-00003-of-00010.json          written after it: size, sha256, and what was lost by rounding
    shared.safetensors, shared.json     the scores that belong to the teacher and not to a sentence, in float32
    manifest.json                       written last: a folder that has one is finished

Scores, not marginals: the teacher's distribution comes out of them at any temperature, and a CRF's take [N, C] and one
[C, C] in place of [N, C, C]. Files are mapped into memory when read, so what a training holds of them is what it reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from structkd.files import MANIFEST, fault, json_bytes, read_json, remove_unfinished, write_bytes, write_json
from structkd.models import StructuredModel
from structkd.training.targets import Shard, TeacherTargets, run_teacher, teacher_bar

__all__ = ["DTYPES", "TargetStore"]

_FORMAT = 1
_SHARED = "shared"
#: What scores may be stored in.
DTYPES = {"float32": torch.float32, "float16": torch.float16}
#: Cells of pairs of words for which rounding is measured at once; relations multiply them.
_MEASURED_CELLS = 1 << 16


class TargetStore(TeacherTargets):
    """The scores of one teacher for the sentences of one text, in files that are mapped into memory.

    Made by :meth:`write` and :meth:`open`. A training takes it like any :class:`~structkd.training.Targets`; scores
    come back in float32, whatever they are stored in.

    Attributes:
        manifest: the content of ``manifest.json``. Its ``divergence`` is the KL(exact || stored) of the teacher's
            distributions, in nats per sentence at temperature 1, mean and maximum over all sentences: 0 in float32.
            At a temperature T it is at most r^2 / 8 T^2, with r the range, over the structures of a sentence, of the
            error of a structure's score.
    """

    manifest: dict[str, Any]

    @classmethod
    def write(
        cls,
        teacher: StructuredModel,
        text: Dataset,
        folder: str | Path,
        *,
        fingerprint: Mapping[str, Any],
        dtype: str = "float32",
        shard_sentences: int = 2000,
        part: tuple[int, int] = (0, 1),
        batch_size: int = 64,
        progress: bool = True,
    ) -> TargetStore | None:
        """Run the teacher over a text once and store its scores, shard by shard; see :meth:`TeacherTargets.compute`.

        A store that was begun before is finished: complete shards are kept, and the files come out the same, byte for
        byte, as without the interruption. Every file gets its name when all of it is on the disk. Memory is that of
        one shard.

        Args:
            teacher: a model with its features.
            text: the columns the teacher reads, ``tokens`` among them.
            folder: of the store; made if need be.
            fingerprint: plain data that say what the scores depend on (weights, text, settings); :meth:`open` asks for
                the same.
            dtype: "float32", exact for a teacher that computes in float32 or less, or "float16", at half the size;
                what that costs is measured on every sentence.
            shard_sentences: of a shard. A store that is finished keeps its own.
            part: (k, n): write every n-th shard from shard k on. With the same folder, n processes or machines that
                take k = 0..n-1 write a store together.
            batch_size: sentences at once.
            progress: show a bar (never where the output is not a terminal).

        Returns:
            The store; None if shards of other parts are still missing. Whoever finishes last completes it.

        Raises:
            ValueError: for unknown settings or an empty text; if the folder holds a store of something else, naming
                the field; if a score is too large for float16.
            TypeError: if the fingerprint is not plain data.
        """
        folder, fingerprint = Path(folder), _plain(fingerprint)
        _check_settings(text, dtype, shard_sentences, part)
        layout, shared = _layout(teacher)
        about = {
            "format": _FORMAT,
            "fingerprint": fingerprint,
            "dtype": dtype,
            "scores": layout,
            "sentences": len(text),
            "shard_sentences": shard_sentences,
        }
        if (folder / MANIFEST).exists():
            manifest = _read_manifest(folder)
            about["shard_sentences"] = shard_sentences = manifest.get("shard_sentences", shard_sentences)
            _check_same(folder, {name: manifest.get(name) for name in about}, about)
        count = -(-len(text) // shard_sentences)
        shards = {f"scores-{number:05d}-of-{count:05d}": number for number in range(count)}
        own = [name for name, number in shards.items() if number % part[1] == part[0]]
        key = hashlib.sha256(json_bytes(about)).hexdigest()

        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        facts = {name: found for name in own if (found := _finished(folder, name, key))}
        missing = [(name, text.shard(count, shards[name], contiguous=True)) for name in own if name not in facts]
        done = sum(found["sentences"] for found in facts.values())
        with teacher_bar(done + sum(len(sentences) for _, sentences in missing), progress, done) as bar:
            if facts:
                bar.set_postfix_str(f"{len(facts)} of {len(own)} shards were there")
            for name, sentences in missing:
                facts[name] = _write_shard(teacher, sentences, folder, name, key, DTYPES[dtype], batch_size, bar)
        if shared and part[0] == 0 and not _finished(folder, _SHARED, key):
            _write_tensors(folder, _SHARED, shared, {"key": key, "sentences": 0})
        names = [*shards, *([_SHARED] if shared else [])]
        for name in names:
            found = facts.get(name) or _finished(folder, name, key)
            if found is None:
                return None
            facts[name] = found
        _complete(folder, about, {name: facts[name] for name in names})
        return cls.open(folder, teacher, fingerprint=fingerprint, verify=False)

    @classmethod
    def open(
        cls, folder: str | Path, teacher: StructuredModel, *, fingerprint: Mapping[str, Any], verify: bool = True
    ) -> TargetStore:
        """A store that is finished and as it was written.

        Args:
            folder: that :meth:`write` was given.
            teacher: the model that the scores are of.
            fingerprint: as given to :meth:`write`.
            verify: compare every file with its sha256, which reads them all. Sizes are compared in any case.

        Raises:
            FileNotFoundError: there is no store, it is not finished, or a file is missing.
            ValueError: it is another format, of another teacher or text, or a file is not as it was written; names the
                file or field.
        """
        folder, fingerprint = Path(folder), _plain(fingerprint)
        manifest = _read_manifest(folder)
        expected = {"format": _FORMAT, "fingerprint": fingerprint, "scores": _layout(teacher)[0]}
        _check_same(folder, {name: manifest.get(name) for name in expected}, expected)
        tensors = {}
        for name, facts in manifest["files"].items():
            difference = fault(folder / name, facts["bytes"], facts["sha256"] if verify else None)
            if difference:
                kind = ValueError if (folder / name).exists() else FileNotFoundError
                raise kind(f"{folder / name} {difference}. Write the store again: complete files are kept.")
            tensors[name] = _mapped(folder / name)
        shared = tensors.pop(f"{_SHARED}.safetensors", {})
        store = cls(teacher, list(tensors.values()), shared)
        store.manifest = manifest
        return store


def _check_settings(text: Dataset, dtype: str, shard_sentences: int, part: tuple[int, int]) -> None:
    if not len(text):
        raise ValueError("There are no sentences to store the teacher's scores of.")
    if dtype not in DTYPES:
        raise ValueError(f"Unknown dtype {dtype!r} of a store: expected one of {', '.join(DTYPES)}.")
    if shard_sentences < 1:
        raise ValueError(f"shard_sentences must be at least 1, got {shard_sentences}.")
    number, parts = part
    if not 0 <= number < parts:
        raise ValueError(f"part (k, n) needs 0 <= k < n, got {tuple(part)}.")


def _layout(teacher: StructuredModel) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Axes of words and trailing shape of every score, and the scores that no sentence has a part in."""
    # A word is enough to see them all; the teacher need not know it.
    sentence = Dataset.from_dict({"id": [""], "tokens": [["a"]], "upos": [["X"]]})
    shard, shared = run_teacher(teacher, sentence)
    shapes = {name: list(value.shape[1:]) for name, value in shard.items() if name != "lengths"}
    shapes |= {name: list(value.shape) for name, value in shared.items()}
    return {name: {"axes": teacher.score_axes[name], "shape": shapes[name]} for name in sorted(shapes)}, shared


def _write_shard(
    teacher: StructuredModel,
    sentences: Dataset,
    folder: Path,
    name: str,
    key: str,
    dtype: torch.dtype,
    batch_size: int,
    bar: tqdm,
) -> dict[str, Any]:
    exact, shared = run_teacher(teacher, sentences, batch_size, bar)
    stored = {score: _rounded(score, value, dtype) for score, value in exact.items()}
    divergence = {"mean": 0.0, "max": 0.0}
    if dtype != torch.float32:
        measured = _divergence(TeacherTargets(teacher, [_double(exact)], _double(shared)), _double(stored))
        divergence = {"mean": float(measured.mean()), "max": float(measured.max())}
    facts = {"key": key, "sentences": len(sentences), "divergence": divergence}
    return _write_tensors(folder, name, stored, facts)


def _rounded(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    if not value.is_floating_point():
        return value
    result = value.to(dtype)
    if (result.isinf() & ~value.isinf()).any():
        largest = float(value[~value.isinf()].abs().max())
        raise ValueError(
            f"The teacher's {name} reach {largest:g}; float16 ends at {torch.finfo(dtype).max:g}. Store them with "
            "dtype=float32."
        )
    return result


def _double(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}


def _divergence(exact: TeacherTargets, stored: Shard) -> Tensor:
    """KL(exact || stored) of every sentence at temperature 1, float64 [sentences]."""
    rounded = TeacherTargets(exact.teacher, [stored], exact.shared)
    result = torch.empty(len(exact), dtype=torch.float64)
    order = exact.lengths.argsort(descending=True, stable=True)
    while len(order):
        size = max(1, _MEASURED_CELLS // int(exact.lengths[order[0]]) ** 2)
        rows, order = order[: min(size, 64)], order[min(size, 64) :]
        given, lost = (
            targets.distribution(targets.scores(rows.tolist()), exact.lengths[rows]) for targets in (exact, rounded)
        )
        result[rows] = given.kl(lost).clamp(min=0)
    return result


def _write_tensors(folder: Path, name: str, tensors: Shard, facts: dict[str, Any]) -> dict[str, Any]:
    """Write a file of tensors, and then the facts about it."""
    content = save({each: value.contiguous() for each, value in tensors.items()})
    facts = facts | {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    write_bytes(folder / f"{name}.safetensors", content)
    write_json(folder / f"{name}.json", facts)
    return facts


def _finished(folder: Path, name: str, key: str) -> dict[str, Any] | None:
    """The facts about a file that is there, whole, and part of this very store."""
    try:
        facts = read_json(folder / f"{name}.json")
    except (FileNotFoundError, ValueError):
        return None
    if facts.get("key") != key or fault(folder / f"{name}.safetensors", facts["bytes"], facts["sha256"]):
        return None
    return facts


def _mapped(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, mapped into memory."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping


def _complete(folder: Path, about: dict[str, Any], facts: Mapping[str, dict[str, Any]]) -> None:
    """Write the manifest, and remove what belongs to no file of it."""
    shards = [each for each in facts.values() if "divergence" in each]
    total = sum(each["divergence"]["mean"] * each["sentences"] for each in shards)
    content = json_bytes(
        about
        | {
            "divergence": {
                "mean": total / about["sentences"],
                "max": max(each["divergence"]["max"] for each in shards),
            },
            "files": {
                f"{name}.safetensors": {field: each[field] for field in ("sentences", "bytes", "sha256")}
                for name, each in facts.items()
            },
        }
    )
    path = folder / MANIFEST
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)
    for stray in folder.glob("scores-*"):
        if stray.stem not in facts:
            stray.unlink()


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    again = "TargetStore.write with the same settings finishes it and keeps the shards that are complete"
    if not path.is_file():
        shards = sorted(folder.glob("scores-*.json"))
        state = f"it is not finished, with {len(shards)} of its shards written" if shards else "nothing was stored yet"
        raise FileNotFoundError(f"{folder} has no {MANIFEST}: {state}. {again}.")
    return read_json(path, f"Delete it: {again}.")


def _check_same(folder: Path, found: Any, expected: Any) -> None:
    """Refuse a store that is of something else."""
    difference = _difference(found, expected, "")
    if difference:
        raise ValueError(
            f"The teacher's scores in {folder} are stale or foreign: {difference}. Give the store another folder, or "
            "delete this one to have them computed again."
        )


def _difference(found: Any, expected: Any, field: str) -> str | None:
    """The first field in which two pieces of plain data differ, with both values."""
    inner: list[tuple[str, Any, Any]] = []
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in {**expected, **found}:
            where = f"{field}.{name}" if field else name
            if name not in found or name not in expected:
                there, here = (_shown(each[name]) if name in each else "absent" for each in (found, expected))
                return f"{where} is {there} in the store and {here} here"
            inner.append((where, found[name], expected[name]))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        inner = [(f"{field}[{number}]", *pair) for number, pair in enumerate(zip(found, expected, strict=True))]
    elif found != expected:
        return f"{field} is {_shown(found)} in the store and {_shown(expected)} here"
    return next((fault for where, there, here in inner if (fault := _difference(there, here, where))), None)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprint as JSON gives it back: tuples are lists, and names in order."""
    try:
        return json.loads(json.dumps(fingerprint, sort_keys=True))
    except (TypeError, ValueError) as error:
        raise TypeError(f"The fingerprint of a store must be plain data, which JSON can hold ({error}).") from None
