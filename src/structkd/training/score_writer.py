"""Scores that another program writes, in the files of a :class:`~structkd.training.ScoreStore`.

Any parser or tagger, in any framework, can be a teacher by command: it writes the scores of its distributions with
:class:`ScoreWriter`, and ``structkd teacher=scores teacher.path=FOLDER`` distils from them. Beside the files of a store
the folder has ``sentences.jsonl``, with the words of every sentence in order, by which sentences are found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from structkd import DependencyCRF, HeadSelection, LinearChainCRF, MaxEnt, NonProjectiveDependencyCRF, SpanCRF
from structkd.files import MANIFEST, fault, make_folder, remove_unfinished
from structkd.records import RoundingError, ScoreLayout, StoredFile, StoreManifest
from structkd.training.score_store import (
    DTYPES,
    check_tensors,
    mapped,
    read_manifest,
    rounded,
    rounding_error,
    write_tensors,
)
from structkd.training.teacher_scores import TeacherScores

__all__ = ["STRUCTURES", "ScoreWriter", "WrittenScores"]

#: What a program can write: the scores that it has to give, with their axes of words, and those that it may give.
STRUCTURES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "words": ({"emissions": 1}, {}),
    "chain": ({"emissions": 1, "transitions": 0}, {"start": 0, "end": 0}),
    "head_selection": ({"arcs": 2}, {"relations": 2}),
    "projective": ({"arcs": 2}, {"relations": 2}),
    "nonprojective": ({"arcs": 2}, {"relations": 2}),
    "spans": ({"spans": 2}, {}),
}
_TREES = {
    "head_selection": HeadSelection,
    "projective": DependencyCRF,
    "nonprojective": NonProjectiveDependencyCRF,
}
_SENTENCES = "sentences.jsonl"
_WRITER = "structkd.training.ScoreWriter"


class ScoreWriter:
    """Writes the scores of a teacher, sentence by sentence, into a folder that ``teacher=scores`` reads.

    Use it in a ``with`` block: the store is complete, and can be read, when the block ends without an error.

    Args:
        folder: of the store; it must not hold a complete store.
        structure: "words" (independent labels), "chain" (a linear-chain CRF), "head_selection", "projective" or
            "nonprojective" (dependencies), or "spans" (flat typed spans).
        names: the labels, types or relations in the order of the last axis of the scores; None for trees without
            relations.
        shared: of a chain, ``transitions`` [C, C] as [next, previous], and ``start`` and ``end`` [C], which may be left
            out.
        teacher: a word about the teacher, for the report.
        multiroot: of a tree CRF, whether a sentence may have several roots.
        dtype: "float32" or "float16"; what float16 rounds off is measured on every sentence.
        shard_sentences: sentences in a file.

    Raises:
        ValueError: an unknown setting, names that repeat, scores of a wrong shape or that are NaN or +inf, or a folder
            that holds a complete store.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> with ScoreWriter(folder, "chain", ["O", "B-PER", "I-PER"], shared={"transitions": torch.zeros(3, 3)}) as writer:
    ...     writer.add(["Ada", "slept"], emissions=torch.tensor([[0.0, 3.0, 1.0], [4.0, 0.0, 0.0]]))
    >>> scores = WrittenScores.open(folder)
    >>> scores.distribution(scores.batch([0]), scores.lengths).decode().tolist()
    [[1, 0]]
    """

    def __init__(
        self,
        folder: str | Path,
        structure: str,
        names: Sequence[str] | None = None,
        *,
        shared: Mapping[str, Tensor] | None = None,
        teacher: str = "",
        multiroot: bool = False,
        dtype: str = "float32",
        shard_sentences: int = 2000,
    ) -> None:
        if structure not in STRUCTURES:
            raise ValueError(f"Unknown structure {structure!r}; expected one of {', '.join(STRUCTURES)}.")
        if dtype not in DTYPES:
            raise ValueError(f"Unknown dtype {dtype!r} of a store; expected one of {', '.join(DTYPES)}.")
        if shard_sentences < 1:
            raise ValueError(f"shard_sentences must be at least 1, got {shard_sentences}.")
        listed = None if names is None else [str(name) for name in names]
        if (listed is None) != (structure in _TREES and names is None) or listed == []:
            raise ValueError(f"The structure {structure!r} needs the names of its labels, at least one.")
        if listed is not None and len(set(listed)) < len(listed):
            raise ValueError(f"The names must be distinct, got {listed}.")
        self.folder, self.structure, self.names = Path(folder), structure, listed
        self.teacher, self.multiroot, self.dtype, self.shard_sentences = teacher, multiroot, dtype, shard_sentences
        if (self.folder / MANIFEST).exists():
            raise ValueError(f"{self.folder} holds a complete store. Give another folder, or delete this one.")
        required, optional = STRUCTURES[structure]
        self._axes = {**required, **optional}
        self._required = [name for name, axes in required.items() if axes]
        self._shared = self._checked_shared(dict(shared or {}), required)
        self._rows: list[dict[str, Tensor]] = []
        self._shards: dict[str, StoredFile] = {}
        self._errors: list[tuple[RoundingError, int]] = []
        self._layout: dict[str, ScoreLayout] = {}
        self._count = 0
        self._text: Any = None

    def __enter__(self) -> Self:
        make_folder(self.folder)
        remove_unfinished(self.folder)
        for stray in [*self.folder.glob("scores-*"), *self.folder.glob("shared.*")]:  # of a writer that was interrupted
            stray.unlink()
        self._text = (self.folder / _SENTENCES).open("w", encoding="utf-8")
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._text.close()
        if kind is None:
            self._complete()

    def add(self, words: Sequence[str], *, id: str | None = None, **scores: Tensor) -> None:
        """Write the scores of one sentence of N words.

        Args:
            words: the sentence; ``teacher=scores`` finds it by them, so they must be those of the student's text.
            id: for messages.
            scores: by structure, ``emissions`` [N, C]; ``arcs`` [N, N] as [head, dependent] with the root on the
                diagonal, and ``relations`` [N, N, L] of them; or ``spans`` [N, N, L], cell [i, j, l] for words i..j,
                log-odds against no span. Scores of -inf mean "impossible".
        """
        if self._text is None:
            raise ValueError("A ScoreWriter writes inside of a with block: with ScoreWriter(...) as writer.")
        where = f"Sentence {id or self._count!r}"
        if not words or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{where}: Expected its words, a list of at least one string.")
        wanted = [*self._required, *(["relations"] if self.structure in _TREES and self.names is not None else [])]
        if sorted(scores) != sorted(wanted):
            raise ValueError(f"{where}: Expected the scores {', '.join(wanted)}, got {', '.join(scores) or 'none'}.")
        row = {"lengths": torch.tensor([len(words)], dtype=torch.int32)}
        for name, value in scores.items():
            axes = self._axes[name]
            shape = [len(words)] * axes + ([] if name == "arcs" else [len(self.names or [])])
            row[name] = _checked(f"{where}: {name}", value, shape).flatten(0, axes - 1)
            self._layout[name] = ScoreLayout(axes=axes, shape=list(row[name].shape[1:]))
        self._rows.append(row)
        self._text.write(json.dumps({"id": id, "words": list(words)}, ensure_ascii=False) + "\n")
        self._count += 1
        if len(self._rows) == self.shard_sentences:
            self._flush()

    def _checked_shared(self, shared: dict[str, Tensor], required: Mapping[str, int]) -> dict[str, Tensor]:
        known = [name for name, axes in self._axes.items() if axes == 0]
        missing = [name for name, axes in required.items() if axes == 0 and name not in shared]
        if missing or set(shared) - set(known):
            raise ValueError(
                f"The shared scores of the structure {self.structure!r} are {', '.join(known) or 'none'}; got "
                f"{', '.join(shared) or 'none'}."
            )
        count = len(self.names or [])
        return {
            name: _checked(name, value, [count, count] if name == "transitions" else [count])
            for name, value in shared.items()
        }

    def _flush(self) -> None:
        """Write the sentences that are waiting as one file."""
        exact = {name: torch.cat([row[name] for row in self._rows]) for name in self._rows[0]}
        stored = {name: rounded(name, value, DTYPES[self.dtype]) for name, value in exact.items()}
        error = RoundingError(mean=0.0, max=0.0)
        if self.dtype != "float32":
            error = rounding_error(TeacherScores(_Distributions(self._about()), [exact], self._shared), stored)
        name = f"scores-{len(self._shards):05d}"
        self._write(name, stored, len(self._rows))
        self._errors.append((error, len(self._rows)))
        self._rows = []

    def _write(self, name: str, tensors: Mapping[str, Tensor], sentences: int) -> None:
        file = write_tensors(self.folder, name, tensors, key=_WRITER, sentences=sentences)
        self._shards[f"{name}.safetensors"] = StoredFile(sentences=sentences, bytes=file.bytes, sha256=file.sha256)

    def _about(self) -> dict[str, Any]:
        return {
            "writer": _WRITER,
            "structure": self.structure,
            "names": self.names,
            "multiroot": self.multiroot,
            "teacher": self.teacher,
        }

    def _complete(self) -> None:
        if self._rows:
            self._flush()
        if not self._count:
            raise ValueError(f"{self.folder}: No sentence was written.")
        if self._shared:
            self._write("shared", self._shared, 0)
            for name, value in self._shared.items():
                self._layout[name] = ScoreLayout(axes=0, shape=list(value.shape))
        content = (self.folder / _SENTENCES).read_bytes()
        StoreManifest(
            format=StoreManifest.FORMAT or 1,
            fingerprint=self._about(),
            dtype=self.dtype,
            scores=self._layout,
            sentences=self._count,
            shard_sentences=self.shard_sentences,
            divergence=RoundingError(
                mean=sum(error.mean * sentences for error, sentences in self._errors) / self._count,
                max=max(error.max for error, _ in self._errors),
            ),
            files=self._shards
            | {_SENTENCES: StoredFile(sentences=0, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())},
        ).write(self.folder / MANIFEST)


class WrittenScores(TeacherScores):
    """A store that a :class:`ScoreWriter` wrote, mapped into memory. Its sentences are in the order of writing.

    Attributes:
        manifest: of the store.
        sentences: the words of every sentence.

    >>> WrittenScores.open("nowhere")
    Traceback (most recent call last):
    FileNotFoundError: nowhere has no manifest.json: nothing was stored yet. ...
    """

    manifest: StoreManifest
    sentences: list[tuple[str, ...]]

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> WrittenScores:
        """Open a store after comparing its files with its manifest.

        Args:
            folder: that the writer was given.
            verify: compare every file with its sha256, which reads all of them. Sizes are compared in any case.

        Raises:
            FileNotFoundError: there is no store, it is not complete, or a file is missing.
            ValueError: the store was written by something else, or a file has changed since; the message names it.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        about = manifest.fingerprint
        if about.get("writer") != _WRITER or about.get("structure") not in STRUCTURES:
            raise ValueError(
                f"{folder} holds a store that no ScoreWriter wrote. Those of a run belong to its teacher and are found "
                "without being named."
            )
        _check_about(folder, about, manifest)
        tensors = {}
        for name, file in manifest.files.items():
            difference = fault(folder / name, file.bytes, file.sha256 if verify else None)
            if difference:
                error = ValueError if (folder / name).exists() else FileNotFoundError
                raise error(f"{folder / name} {difference}. Write the store again.")
            if name != _SENTENCES:
                tensors[name] = mapped(folder / name)
        shared = tensors.pop("shared.safetensors", {})
        check_tensors(folder, manifest, tensors, shared)
        store = cls(_Distributions(about), list(tensors.values()), shared)
        store.manifest = manifest
        store.sentences = list(_sentences(folder / _SENTENCES))
        sizes = [len(words) for words in store.sentences]
        if sizes != store.lengths.tolist():
            raise ValueError(f"{folder}: {_SENTENCES} and the scores have different sentences. Write the store again.")
        return store


class _Distributions:
    """The part of a model that a :class:`~structkd.training.TeacherScores` asks: from scores to distributions."""

    def __init__(self, about: Mapping[str, Any]) -> None:
        self.structure, self.names, self.multiroot = about["structure"], about["names"], about["multiroot"]
        required, optional = STRUCTURES[self.structure]
        self.score_axes = {**required, **optional}

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """Return the distribution of a batch."""
        if self.structure == "words":
            return MaxEnt(scores["emissions"], lengths=lengths, labels=self.names)
        if self.structure == "chain":
            return LinearChainCRF.from_scores(
                scores["emissions"],
                scores["transitions"],
                start=scores.get("start"),
                end=scores.get("end"),
                lengths=lengths,
                labels=self.names,
            )
        if self.structure == "spans":
            return SpanCRF(scores["spans"], lengths, types=self.names)
        several = {} if self.structure == "head_selection" else {"multiroot": self.multiroot}
        trees = _TREES[self.structure](scores["arcs"], lengths, **several)
        return trees.with_relations(scores["relations"]) if "relations" in scores else trees


def _sentences(path: Path) -> Iterator[tuple[str, ...]]:
    with path.open(encoding="utf-8") as lines:
        number = 0
        try:
            for number, line in enumerate(lines, 1):  # noqa: B007 - for the message
                words = json.loads(line)["words"]
                if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                    raise TypeError("expected words, a list of strings")
                yield tuple(words)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: {error!r:.200}. Write the store again.") from error


def _check_about(folder: Path, about: Mapping[str, Any], manifest: StoreManifest) -> None:
    """Refuse a store whose description is not one that a ScoreWriter writes."""
    names, axes = about.get("names"), {name: each.axes for name, each in manifest.scores.items()}
    required, optional = STRUCTURES[about["structure"]]
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if (
        not (known or (names is None and about["structure"] in _TREES))
        or not isinstance(about.get("multiroot"), bool)
        or not isinstance(about.get("teacher"), str)
        or not required.items() <= axes.items() <= {**required, **optional}.items()
        or _SENTENCES not in manifest.files
    ):
        raise ValueError(
            f"{folder / MANIFEST} lacks something that a ScoreWriter writes (names, multiroot, teacher, the scores "
            f"{', '.join(required)}, or {_SENTENCES}). Write the store again."
        )


def _checked(name: str, value: Any, shape: list[int]) -> Tensor:
    """Return scores as a float32 tensor of their own on the CPU."""
    tensor = torch.as_tensor(value).detach().to("cpu", torch.float32, copy=True)
    if list(tensor.shape) != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {list(tensor.shape)}.")
    if (tensor.isnan() | (tensor == torch.inf)).any():
        raise ValueError(f"{name} has cells that are NaN or +inf. Scores are finite, or -inf for impossible.")
    return tensor
