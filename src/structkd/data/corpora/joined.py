"""Join several corpora of one annotation, for a multilingual teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from structkd.configurable import configurable
from structkd.data.corpus import SPLITS, Corpus, without_test_sentences

if TYPE_CHECKING:
    from datasets import Dataset


@configurable
def load_joined(name: str, **corpora: Corpus) -> Corpus:
    """Join several corpora, split by split, in the order given.

    Sentence ids get the name of their corpus before them (``de:17``). Sentences that occur word for word in dev or test
    of another corpus are dropped, from train, and those of test from dev; the notes say how many.

    Args:
        name: of the whole.
        corpora: by a short name; all of the same annotation.

    Raises:
        ValueError: no corpus, or corpora of different annotation; two are printed.
    """
    from datasets import DatasetDict, concatenate_datasets

    if not corpora:
        raise ValueError(f"{name}: Name at least one corpus to be joined.")
    first, *others = corpora.values()
    for other in others:
        if other.annotation != first.annotation:
            raise ValueError(
                f"{name}: Corpora that are joined need the same annotation; {first.name} has "
                f"{first.annotation.description()}, {other.name} has {other.annotation.description()}."
            )
    columns = ["id", "tokens", *first.annotation.columns]
    if all("upos" in corpus.splits["train"].column_names for corpus in corpora.values()):
        columns.append("upos")
    splits = {
        split: concatenate_datasets([_named(key, corpus.splits[split], columns) for key, corpus in corpora.items()])
        for split in SPLITS
    }
    splits["dev"], from_dev = without_test_sentences(splits["dev"], splits["test"])
    splits["train"], from_train = without_test_sentences(
        splits["train"], concatenate_datasets([splits["dev"], splits["test"]])
    )
    dropped = (
        f"{from_train} sentences of train and {from_dev} of dev occur in a later split of another corpus: dropped."
    )
    return Corpus(
        name=name,
        task=first.task,
        splits=DatasetDict(splits),
        annotation=first.annotation,
        licence=_each(corpora, "licence"),
        source=_each(corpora, "source"),
        notes=f"{_each(corpora, 'notes')} {dropped if from_train or from_dev else ''}".strip(),
    )


def _named(key: str, sentences: Dataset, columns: list[str]) -> Dataset:
    ids = [f"{key}:{sentence_id}" for sentence_id in sentences["id"]]
    return sentences.select_columns(columns).remove_columns("id").add_column("id", ids).select_columns(columns)


def _each(corpora: dict[str, Corpus], what: str) -> str:
    """Return the statement that all corpora share, or else the statement of each."""
    statements: dict[str, str] = {key: getattr(corpus, what) for key, corpus in corpora.items()}
    if len(set(statements.values())) == 1:
        return next(iter(statements.values()))
    return "; ".join(f"{key}: {statement}" for key, statement in statements.items() if statement)
