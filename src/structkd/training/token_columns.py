"""Rows and batches of a tokenizer for a Trainer of one's own: words, labels and a teacher's outputs by position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from structkd.numbering import UNLABELLED

__all__ = ["STORED", "WORD_COLUMNS", "StoredColumns", "TokenCollator", "encode_words"]

STORED = "teacher_"
"""The prefix of the columns in which a data set holds a teacher's outputs, or inputs of its own."""

WORD_COLUMNS = ("word_mask", "word_ids")
"""Columns that say where words are. They are for distributions, and no model reads them."""


def encode_words(
    tokenizer: Any, words: Sequence[str], labels: Sequence[int] | None = None, **options: Any
) -> dict[str, Any]:
    """Return the row of one sentence: the tokenizer's columns, `word_mask`, and `labels`.

    Args:
        tokenizer: a fast tokenizer of transformers.
        words: the sentence.
        labels: the number of every word's label, -100 for a word whose label is not known; None for an unlabelled
            sentence.
        options: for the tokenizer, such as `truncation=True, max_length=128`, which cuts words off with their labels.

    Returns:
        A dictionary of lists with one entry per position. `word_mask` is 1 at the first piece of every word, and
        `labels` are -100 elsewhere.

    Raises:
        TypeError: if the words are one string.
        ValueError: if there are not as many labels as words, or a word has no piece.

    >>> import transformers
    >>> from structkd.training import encode_words
    >>> vocab = {piece: n for n, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ana", "sing", "##s"])}
    >>> row = encode_words(transformers.BertTokenizer(vocab), ["Ana", "sings"], [1, 0])
    >>> row["input_ids"], row["word_mask"], row["labels"]
    ([2, 4, 5, 6, 3], [0, 1, 1, 0, 0], [-100, 1, 0, -100, -100])
    """
    if isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise TypeError("The words of a sentence must be a list of strings. Split the text into words first.")
    if labels is not None and len(labels) != len(words):
        raise ValueError(f"The sentence has {len(words)} words and {len(labels)} labels. Give every word one label.")
    encoding = tokenizer(list(words), is_split_into_words=True, **options)
    owners = encoding.word_ids()
    first = [
        owner is not None and (position == 0 or owners[position - 1] != owner) for position, owner in enumerate(owners)
    ]
    found = {owner for owner in owners if owner is not None}
    kept = max(found, default=-1) + 1 if options.get("truncation") else len(words)
    lost = [words[number] for number in range(kept) if number not in found]
    if lost or not found:
        raise ValueError(
            f"The tokenizer makes no piece of the word(s) {lost or list(words)}, so that no score belongs to them. "
            "Drop such words, and sentences without a word, before the tokenizer."
        )
    row = {name: list(values) for name, values in encoding.items()}
    row["word_mask"] = [int(begins) for begins in first]
    row["labels"] = [
        int(labels[owner]) if begins and labels is not None else UNLABELLED
        for begins, owner in zip(first, owners, strict=True)
    ]
    return row


class TokenCollator:
    """A collator of rows as :func:`encode_words` gives them; labelled and unlabelled sentences may share a batch.

    Args:
        tokenizer: pads its own columns.

    The batch gets tensors [B, S], padded on the tokenizer's side: the tokenizer's columns; `word_mask` (0 in the
    padding); and `labels` (-100 in the padding, and everywhere in a row without labels). A column `word_ids`
    becomes lists with None in the padding, as `words_of` takes them. Columns that begin with ``teacher_`` are padded as
    :class:`StoredColumns` pads them.

    Raises:
        ValueError: for other columns, and rows with more or fewer entries than positions.

    >>> import transformers
    >>> from structkd.training import TokenCollator, encode_words
    >>> vocab = {piece: n for n, piece in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ana", "sing", "##s"])}
    >>> tokenizer = transformers.BertTokenizer(vocab)
    >>> rows = [encode_words(tokenizer, ["Ana", "sings"], [1, 0]), encode_words(tokenizer, ["Ana"])]
    >>> batch = TokenCollator(tokenizer)(rows)
    >>> batch["labels"].tolist()
    [[-100, 1, 0, -100, -100], [-100, -100, -100, -100, -100]]
    >>> batch["word_mask"].tolist()
    [[0, 1, 1, 0, 0], [0, 1, 0, 0, 0]]
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """Return the batch of some rows."""
        return StoredColumns(self._others)(examples)

    def _others(self, examples: list[dict[str, Any]]) -> Any:
        names = list(dict.fromkeys(name for example in examples for name in example))
        read = {"input_ids", "attention_mask", "special_tokens_mask", *self.tokenizer.model_input_names}
        strange = [name for name in names if name not in {*read, *WORD_COLUMNS, "labels"}]
        if strange:
            raise ValueError(
                f"TokenCollator pads the tokenizer's columns, {[*WORD_COLUMNS, 'labels']} and those that begin with "
                f"{STORED!r}, got {strange}. Remove them with dataset.remove_columns({strange})."
            )
        known = [name for name in names if name in read]
        batch = self.tokenizer.pad([{name: one[name] for name in known} for one in examples], return_tensors="pt")
        positions = batch["input_ids"].shape[1]
        for name, fill in (("labels", UNLABELLED), ("word_mask", 0), ("word_ids", None)):
            if name not in names:
                continue
            rows = [self._padded(name, one, positions, fill) for one in examples]
            batch[name] = rows if name == "word_ids" else torch.tensor(rows)
        return batch

    def _padded(self, name: str, example: Mapping[str, Any], positions: int, fill: Any) -> list[Any]:
        size, values = len(example["input_ids"]), example.get(name)
        if values is None and name == "labels":  # an unlabelled sentence
            values = [UNLABELLED] * size
        if values is None or len(values) != size:
            given = "nothing" if values is None else f"{len(values)} entries"
            raise ValueError(
                f"The column {name!r} must have one entry per position, and has {given} in an example of {size} "
                "positions. structkd.training.encode_words makes such rows."
            )
        values, padding = list(values), [fill] * (positions - size)
        return padding + values if self.tokenizer.padding_side == "left" else values + padding


class StoredColumns:
    """A collator that pads a teacher's stored columns, in front of the collator of the other columns.

    Args:
        collator: from a list of examples to a batch, such as ``DataCollatorForTokenClassification(tokenizer)``.

    A column ``teacher_NAME`` holds, for every example, one entry per position, not per word: [S, ...]. The batch gets a
    tensor [B, S, ...] with zeros in the padding, on the side where ``attention_mask`` has it. If the teacher reads
    pieces of its own, the data set has a column ``teacher_input_ids``; the teacher's columns then have its length.

    Raises:
        ValueError: if a row has more or fewer entries than positions.

    >>> import torch
    >>> from structkd.training import StoredColumns
    >>> def collator(examples):
    ...     return {"input_ids": torch.tensor([example["input_ids"] + [0] for example in examples])}
    >>> batch = StoredColumns(collator)([{"input_ids": [5, 6], "teacher_logits": [[1.0], [2.0]]}])
    >>> batch["teacher_logits"].tolist()
    [[[1.0], [2.0], [0.0]]]
    """

    def __init__(self, collator: Callable[[list[dict[str, Any]]], Any]) -> None:
        self.collator = collator

    def __call__(self, examples: Sequence[Mapping[str, Any]]) -> Any:
        """Return the batch of some examples."""
        names = [name for name in examples[0] if name.startswith(STORED)]
        others = [{name: value for name, value in one.items() if name not in names} for one in examples]
        batch = self.collator(others)
        mask = batch.get("attention_mask")
        own = f"{STORED}input_ids"
        measure = own if own in names else "input_ids"
        sizes = [len(one[measure]) for one in examples if measure in one]
        positions = max(sizes) if measure == own else batch["input_ids"].shape[1]
        for name in names:
            columns = [torch.as_tensor(one[name]) for one in examples]
            padded = columns[0].new_zeros(len(columns), positions, *columns[0].shape[1:])
            for item, values in enumerate(columns):
                if len(values) != (sizes[item] if len(sizes) == len(columns) else len(values)):
                    raise ValueError(
                        f"The column {name!r} has {len(values)} positions in an example of {sizes[item]}. Store one "
                        "entry per position (special tokens and every piece), not per word, for the same tokens. "
                        "Scores of words go to the positions of the words' first pieces."
                    )
                padded[item, _place(item, len(values), positions, mask)] = values
            batch[name] = padded
        return batch


def _place(item: int, size: int, positions: int, mask: Tensor | None) -> slice:
    """Return where the entries of an example lie among the positions of its batch."""
    left = mask is not None and positions > size and not bool(mask[item, 0])
    return slice(positions - size, positions) if left else slice(size)
