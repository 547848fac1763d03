"""A look at the data of a run before anything is trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import disable_progress_bars

from structkd.data import Corpus, TagAnnotation, Transfer, TreeAnnotation
from structkd.tags import strict_spans

from .configuration import check_configuration
from .instantiate import InstantiationError, instantiate
from .plan import plan

__all__ = ["check_data"]

_SPLITS = ("train", "dev", "test")


def check_data(config: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Return lines on the data of a configuration and on the use that its run would make of them.

    Args:
        config: plain data in the form of :class:`~structkd.commands.schema.ExperimentConfig`.

    Returns:
        The lines, and whether the run would start.

    Raises:
        ValueError, FileNotFoundError: if the data cannot be read; the message names file and line.
    """
    check_configuration(config)
    disable_progress_bars()
    data = instantiate(config["data"], "data")
    if not isinstance(data, (Corpus, Transfer)):
        raise InstantiationError(
            f"data: The _target_ must name a function that loads a Corpus, got {type(data).__name__}."
        )
    corpora = [data] if isinstance(data, Corpus) else list(dict.fromkeys((data.source, data.target)))
    lines = [line for corpus in corpora for line in [*_of_corpus(corpus), ""]]
    of_run, starts = _of_run(config)
    return [*lines, *of_run], starts


def _of_corpus(corpus: Corpus) -> list[str]:
    lines = [f"{corpus.name} ({corpus.task})", f"  source: {corpus.source}", f"  licence: {corpus.licence}"]
    if corpus.notes:
        lines.append(f"  notes: {corpus.notes}")
    vocabulary: Counter[str] = Counter()
    tables: dict[str, Counter[str]] = {}
    texts: dict[str, list[tuple[str, ...]]] = {}
    lines.append(
        f"  {'split':<6} {'sentences':>10} {'words':>10} {'mean':>6} {'longest':>8} {'words unseen in train':>22}"
    )
    for split in _SPLITS:
        sentences = corpus.splits[split]
        texts[split] = [tuple(tokens) for tokens in sentences["tokens"]]
        lengths = np.array([len(tokens) for tokens in texts[split]])
        if split == "train":
            vocabulary.update(word for tokens in texts[split] for word in tokens)
        unseen = sum(word not in vocabulary for tokens in texts[split] for word in tokens)
        share = "" if split == "train" else f"{100 * unseen / lengths.sum():.1f} %"
        sizes = f"{len(lengths):>10,} {lengths.sum():>10,} {lengths.mean():>6.1f} {lengths.max():>8,}"
        lines.append(f"  {split:<6} {sizes} {share:>22}")
        tables[split] = _labels(corpus, split)
    lines += _label_table(corpus, tables)
    repeated = sum(count - 1 for count in Counter(texts["train"]).values())
    lines.append(f"  sentences of train that repeat one of train: {repeated:,}")
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        common = len(set(texts[one]) & set(texts[other]))
        lines.append(f"  sentences of both {one} and {other}: {common:,}")
    return lines


def _labels(corpus: Corpus, split: str) -> Counter[str]:
    """Count span types, tags or relations of a split."""
    annotation, sentences = corpus.annotation, corpus.splits[split]
    counted: Counter[str] = Counter()
    if isinstance(annotation, TagAnnotation):
        for numbers in sentences["labels"]:
            tags = [annotation.labels[number] for number in numbers if number >= 0]
            if annotation.scheme is None:
                counted.update(tags)
            else:
                counted.update(span.type for span in strict_spans(tags, annotation.scheme))
    elif isinstance(annotation, TreeAnnotation):
        for numbers in sentences["relations"]:
            counted.update(annotation.relations[number] for number in numbers if number >= 0)
    return counted


def _label_table(corpus: Corpus, tables: Mapping[str, Counter[str]]) -> list[str]:
    labels = sorted(set().union(*tables.values()), key=lambda each: (-tables["train"][each], each))
    if not labels:
        return []
    kind = "relation" if isinstance(corpus.annotation, TreeAnnotation) else "label"
    if isinstance(corpus.annotation, TagAnnotation) and corpus.annotation.scheme:
        kind = f"span ({corpus.annotation.scheme})"
    width = max(len(kind), *map(len, labels))
    lines = [f"  {kind:<{width}} {'train':>10} {'dev':>10} {'test':>10}"]
    for label in labels:
        numbers = " ".join(f"{tables[split][label]:>10,}" for split in _SPLITS)
        missing = "   train has none" if not tables["train"][label] else ""
        lines.append(f"  {label:<{width}} {numbers}{missing}")
    return lines


def _of_run(config: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Return lines on the run and true, or the error that it would end with and false."""
    try:
        planned = plan(config, Path(config["work_dir"]))
    except (ValueError, TypeError, NotImplementedError) as error:
        return ["A run with these settings would stop before any training:", f"  {error}"], False
    splits = planned.splits
    teachers = ", ".join(each.name for each in planned.teachers) or "none"
    students = ", ".join(each.name for each in planned.students)
    lines = [
        f"A run with these settings ({planned.scenario}):",
        f"  teacher ({teachers}): {len(splits.teacher):,} sentences of train with their labels",
        f"  students ({students}): {len(splits.labelled):,} of these, and {len(splits.unlabelled):,} others whose "
        "labels are hidden",
        f"  models are chosen by {planned.metric} on dev ({len(planned.target.splits['dev']):,} sentences), and judged "
        f"on test ({len(planned.target.splits['test']):,} sentences)",
    ]
    return [*lines, *(f"  {note}" for note in (splits.note, *planned.remarks) if note)], True
