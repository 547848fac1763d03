"""A teacher's scores on disk: computed once, read by every student.

:mod:`structkd.records` describes the folder. The shard ``scores-00003-of-00010`` holds the sentences
``text.shard(10, 3, contiguous=True)``: their scores one after the other, and ``lengths``.

The store keeps scores ([N, C] and one [C, C] for a CRF) rather than bigram marginals ([N, C, C]). That is C times
smaller, and one store serves every temperature. Files are mapped into memory, so that a training holds only the parts
that it reads.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from structkd.files import MANIFEST, fault, inside, json_bytes, make_folder, remove_unfinished, write_bytes
from structkd.models import StructuredModel
from structkd.records import RoundingError, ScoreFile, ScoreLayout, StoredFile, StoreManifest
from structkd.training.teacher_scores import Shard, TeacherScores, run_teacher, teacher_bar

__all__ = ["DTYPES", "ScoreStore"]

log = logging.getLogger(__name__)

_SHARED = "shared"
#: The types in which scores can be stored.
DTYPES = {"float32": torch.float32, "float16": torch.float16}
#: Pairs of words for which the rounding error is measured at once.
_MEASURED_CELLS = 1 << 16


class ScoreStore(TeacherScores):
    """The scores of one teacher for the sentences of one text, in files that are mapped into memory.

    :meth:`write` and :meth:`open` return one. A training takes it like any :class:`~structkd.training.Teacher`. Scores
    are read in float32, whatever type they are stored in.

    Attributes:
        manifest: the content of ``manifest.json``. Its ``divergence`` is the KL(exact || stored) of the teacher's
            distributions, in nats per sentence at temperature 1, mean and maximum over all sentences; it is 0 in
            float32. At temperature T it is at most r^2 / 8 T^2, where r is the range of the error of a structure's
            score over the structures of a sentence.
    """

    manifest: StoreManifest

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
    ) -> ScoreStore | None:
        """Run the teacher over a text once and store its scores, shard by shard; see :meth:`TeacherScores.compute`.

        An unfinished store is completed: finished shards are kept, and the files have the same bytes as without the
        interruption. Every file gets its name when it is complete and on the disk. The memory needed is that of one
        shard.

        Args:
            teacher: a model with its features.
            text: the columns that the teacher reads, ``tokens`` among them.
            folder: of the store; created if need be.
            fingerprint: plain data that describe everything the scores depend on (weights, text, settings);
                :meth:`open` compares them.
            dtype: "float32", which is exact for a teacher that computes in float32 or less, or "float16", which takes
                half the space; its rounding error is measured on every sentence.
            shard_sentences: sentences in a shard. A store that is finished keeps its own number.
            part: (k, n) writes every n-th shard from shard k on. With the same folder, n processes or machines that
                take k = 0..n-1 write a store together.
            batch_size: sentences in a batch.
            progress: show a bar, if the output is a terminal.

        Returns:
            The store, or None if shards of other parts are missing. The process that finishes last completes it.

        Raises:
            ValueError: a setting is unknown, the text is empty, the folder holds a store of something else (the message
                names the field), or a score is too large for float16.
            TypeError: the fingerprint is not plain data.
        """
        folder, fingerprint = Path(folder), _plain(fingerprint)
        _check_settings(text, dtype, shard_sentences, part)
        layout, shared = _layout(teacher)
        about = {
            "format": StoreManifest.FORMAT,
            "fingerprint": fingerprint,
            "dtype": dtype,
            "scores": {name: score.plain() for name, score in layout.items()},
            "sentences": len(text),
            "shard_sentences": shard_sentences,
        }
        if (folder / MANIFEST).exists():
            found = read_manifest(folder)
            about["shard_sentences"] = shard_sentences = found.shard_sentences
            _check_same(folder, found, about)
        count = -(-len(text) // shard_sentences)
        shards = {f"scores-{number:05d}-of-{count:05d}": number for number in range(count)}
        of_part = [name for name, number in shards.items() if number % part[1] == part[0]]
        key = hashlib.sha256(json_bytes(about)).hexdigest()

        make_folder(folder)
        remove_unfinished(folder)
        complete = {name: file for name in of_part if (file := _finished(folder, name, key))}
        missing = [(name, text.shard(count, shards[name], contiguous=True)) for name in of_part if name not in complete]
        done = sum(file.sentences for file in complete.values())
        with teacher_bar(done + sum(len(sentences) for _, sentences in missing), progress, done) as bar:
            if complete:
                bar.set_postfix_str(f"{len(complete)} of {len(of_part)} shards were there")
            for name, sentences in missing:
                complete[name] = _write_shard(teacher, sentences, folder, name, key, DTYPES[dtype], batch_size, bar)
        if shared and part[0] == 0 and not _finished(folder, _SHARED, key):
            write_tensors(folder, _SHARED, shared, key=key, sentences=0)
        names = [*shards, *([_SHARED] if shared else [])]
        for name in names:
            file = complete.get(name) or _finished(folder, name, key)
            if file is None:
                return None
            complete[name] = file
        _complete(folder, about, layout, {name: complete[name] for name in names})
        return cls.open(folder, teacher, fingerprint=fingerprint, verify=False)

    @classmethod
    def open(
        cls, folder: str | Path, teacher: StructuredModel, *, fingerprint: Mapping[str, Any], verify: bool = True
    ) -> ScoreStore:
        """Open a store that is finished, after comparing its files with its manifest.

        Args:
            folder: that :meth:`write` was given.
            teacher: the model whose scores they are.
            fingerprint: that :meth:`write` was given.
            verify: compare every file with its sha256, which reads all of them. Sizes are compared in any case.

        Raises:
            FileNotFoundError: there is no store, it is not finished, or a file is missing.
            ValueError: the store has another format, or is of another teacher or text, or a file has changed since it
                was written; the message names the file or field.
        """
        folder, fingerprint = Path(folder), _plain(fingerprint)
        manifest = read_manifest(folder)
        scores = {name: score.plain() for name, score in _layout(teacher)[0].items()}
        _check_same(folder, manifest, {"fingerprint": fingerprint, "scores": scores})
        tensors = {}
        for name, file in manifest.files.items():
            difference = fault(folder / name, file.bytes, file.sha256 if verify else None)
            if difference:
                error = ValueError if (folder / name).exists() else FileNotFoundError
                raise error(f"{folder / name} {difference}. Write the store again: complete files are kept.")
            tensors[name] = mapped(folder / name)
        shared = tensors.pop(f"{_SHARED}.safetensors", {})
        check_tensors(folder, manifest, tensors, shared)
        store = cls(teacher, list(tensors.values()), shared)
        store.manifest = manifest
        return store


def _check_settings(text: Dataset, dtype: str, shard_sentences: int, part: tuple[int, int]) -> None:
    if not len(text):
        raise ValueError("The text is empty. Give at least one sentence whose scores are to be stored.")
    if dtype not in DTYPES:
        raise ValueError(f"Unknown dtype {dtype!r} of a store; expected one of {', '.join(DTYPES)}.")
    if shard_sentences < 1:
        raise ValueError(f"shard_sentences must be at least 1, got {shard_sentences}.")
    number, parts = part
    if not 0 <= number < parts:
        raise ValueError(f"part must be (k, n) with 0 <= k < n, got {tuple(part)}.")


def _layout(teacher: StructuredModel) -> tuple[dict[str, ScoreLayout], dict[str, Tensor]]:
    """Return the layout of every score, and the scores that do not depend on the sentence."""
    # A sentence of one word shows all of them; the teacher need not know the word.
    sentence = Dataset.from_dict({"id": [""], "tokens": [["a"]], "upos": [["X"]]})
    shard, shared = run_teacher(teacher, sentence)
    shapes = {name: list(value.shape[1:]) for name, value in shard.items() if name != "lengths"}
    shapes |= {name: list(value.shape) for name, value in shared.items()}
    return {name: ScoreLayout(axes=teacher.score_axes[name], shape=shapes[name]) for name in sorted(shapes)}, shared


def _write_shard(
    teacher: StructuredModel,
    sentences: Dataset,
    folder: Path,
    name: str,
    key: str,
    dtype: torch.dtype,
    batch_size: int,
    bar: tqdm,
) -> ScoreFile:
    exact, shared = run_teacher(teacher, sentences, batch_size, bar)
    stored = {score: rounded(score, value, dtype) for score, value in exact.items()}
    divergence = RoundingError(mean=0.0, max=0.0)
    if dtype != torch.float32:
        divergence = rounding_error(TeacherScores(teacher, [exact], shared), stored)
    return write_tensors(folder, name, stored, key=key, sentences=len(sentences), divergence=divergence)


def rounding_error(exact: TeacherScores, stored: Shard) -> RoundingError:
    """Measure KL(exact || stored) of every sentence of one shard, in nats."""
    double = TeacherScores(exact.model, [_double(exact.shards[0])], _double(exact.shared))
    measured = _divergence(double, _double(stored))
    return RoundingError(mean=float(measured.mean()), max=float(measured.max()))


def rounded(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return scores in the type that they are stored in."""
    if not value.is_floating_point():
        return value
    result = value.to(dtype)
    if (result.isinf() & ~value.isinf()).any():
        largest = float(value[~value.isinf()].abs().max())
        raise ValueError(
            f"The teacher's {name} reach {largest:g}, and float16 ends at {torch.finfo(dtype).max:g}. Store them with "
            "dtype=float32."
        )
    return result


def _double(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.double() if value.is_floating_point() else value for name, value in tensors.items()}


def _divergence(exact: TeacherScores, stored: Shard) -> Tensor:
    """Compute KL(exact || stored) of every sentence at temperature 1, float64 [sentences]."""
    rounded = TeacherScores(exact.model, [stored], exact.shared)
    result = torch.empty(len(exact), dtype=torch.float64)
    order = exact.lengths.argsort(descending=True, stable=True)
    while len(order):
        size = max(1, _MEASURED_CELLS // int(exact.lengths[order[0]]) ** 2)
        rows, order = order[: min(size, 64)], order[min(size, 64) :]
        given, approximate = (
            scores.distribution(scores.batch(rows.tolist()), exact.lengths[rows]) for scores in (exact, rounded)
        )
        result[rows] = given.kl(approximate).clamp(min=0)
    return result


def write_tensors(folder: Path, name: str, tensors: Shard, **about: Any) -> ScoreFile:
    """Write a file of tensors, and then the record of it."""
    content = save({score: value.contiguous() for score, value in tensors.items()})
    record = ScoreFile(**about, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    write_bytes(folder / f"{name}.safetensors", content)
    record.write(folder / f"{name}.json")
    return record


def _finished(folder: Path, name: str, key: str) -> ScoreFile | None:
    """Return the record of a file that is complete and part of this store; None if there is no such file."""
    try:
        record = ScoreFile.read(folder / f"{name}.json")
    except (FileNotFoundError, ValueError):
        return None
    if record.key != key:
        return None
    path = folder / f"{name}.safetensors"
    if difference := fault(path, record.bytes, record.sha256):
        log.warning("%s %s. It is written again.", path, difference)
        return None
    return record


def mapped(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, mapped into memory.

    Raises:
        ValueError: the file does not hold tensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a mapping
    except SafetensorError as error:
        raise ValueError(f"{path} does not hold tensors ({error}). Write the store again.") from error


def check_tensors(
    folder: Path, manifest: StoreManifest, tensors: Mapping[str, Shard], shared: Mapping[str, Tensor]
) -> None:
    """Compare the shapes of all tensors of a store with the layout that its manifest states.

    Raises:
        ValueError: a tensor is missing, or does not fit the sentences; names the file.
    """
    layout = manifest.scores
    for name, shard in {**tensors, f"{_SHARED}.safetensors": shared}.items():
        own = {score for score, each in layout.items() if (each.axes == 0) == (shard is shared)}
        lengths = None if shard is shared else shard.get("lengths")
        if lengths is not None:
            own.add("lengths")
        if own != {*shard} or (lengths is None and shard is not shared):
            raise ValueError(
                f"{folder / name} has the tensors {sorted(shard)}; expected {sorted(own)}. Write the store again."
            )
        if lengths is not None:
            whole = not lengths.is_floating_point() and lengths.dim() == 1
            if not whole or len(lengths) != manifest.files[name].sentences or not (lengths > 0).all():
                raise ValueError(
                    f"{folder / name}: Expected the lengths of {manifest.files[name].sentences} sentences, each at "
                    "least 1. Write the store again."
                )
        for score in own - {"lengths"}:
            cells = [] if lengths is None else [int((lengths.long() ** layout[score].axes).sum())]
            if list(shard[score].shape) != [*cells, *layout[score].shape]:
                raise ValueError(
                    f"{folder / name}: {score} has the shape {list(shard[score].shape)}; expected "
                    f"{[*cells, *layout[score].shape]}. Write the store again."
                )


def _complete(
    folder: Path, about: dict[str, Any], layout: dict[str, ScoreLayout], files: Mapping[str, ScoreFile]
) -> None:
    """Write the manifest, and remove files that do not belong to it."""
    errors = [(file.divergence, file.sentences) for file in files.values() if file.divergence is not None]
    manifest = StoreManifest(
        **about | {"scores": layout},
        divergence=RoundingError(
            mean=sum(error.mean * sentences for error, sentences in errors) / about["sentences"],
            max=max(error.max for error, _ in errors),
        ),
        files={
            f"{name}.safetensors": StoredFile(sentences=file.sentences, bytes=file.bytes, sha256=file.sha256)
            for name, file in files.items()
        },
    )
    path = folder / MANIFEST
    if not path.exists() or path.read_bytes() != manifest.written():
        manifest.write(path)
    for stray in folder.glob("scores-*"):
        if stray.stem not in files:
            stray.unlink()


def read_manifest(folder: Path) -> StoreManifest:
    """Return the manifest of a store that is finished.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, was written by another version, or names files outside of the folder.
    """
    path = folder / MANIFEST
    if not path.is_file():
        shards = sorted(folder.glob("scores-*.json"))
        state = f"it is not finished, with {len(shards)} of its shards written" if shards else "nothing was stored yet"
        raise FileNotFoundError(
            f"{folder} has no {MANIFEST}: {state}. ScoreStore.write with the same settings finishes it and keeps the "
            "shards that are complete."
        )
    manifest = StoreManifest.read(path)
    for name in manifest.files:
        try:
            inside(folder, name)
        except ValueError as error:
            raise ValueError(f"{path} {error}. {StoreManifest.REMEDY}") from None
    return manifest


def _check_same(folder: Path, manifest: StoreManifest, expected: Mapping[str, Any]) -> None:
    """Refuse a store of something else: fields of its manifest differ from those expected."""
    content = manifest.plain()
    difference = _difference({name: content[name] for name in expected}, dict(expected), "")
    if difference:
        raise ValueError(
            f"The teacher's scores in {folder} are stale or foreign: {difference}. Give the store another folder, or "
            "delete this one to have them computed again."
        )


def _difference(found: Any, expected: Any, field: str) -> str | None:
    """Describe the first field in which two pieces of plain data differ, with both values."""
    inner: list[tuple[str, Any, Any]] = []
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in {**expected, **found}:
            where = f"{field}.{name}" if field else name
            if name not in found or name not in expected:
                values = [_short(side[name]) if name in side else "absent" for side in (found, expected)]
                return f"{where} is {values[0]} in the store and {values[1]} here"
            inner.append((where, found[name], expected[name]))
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        inner = [(f"{field}[{number}]", *pair) for number, pair in enumerate(zip(found, expected, strict=True))]
    elif found != expected:
        return f"{field} is {_short(found)} in the store and {_short(expected)} here"
    return next((found for where, *values in inner if (found := _difference(values[0], values[1], where))), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _plain(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return a fingerprint as JSON gives it back: tuples as lists, and names in order."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(fingerprint, sort_keys=True))
    except (TypeError, ValueError) as error:
        raise TypeError(f"The fingerprint of a store must be plain data that JSON can hold: {error}.") from None
    return plain
