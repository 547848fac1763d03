"""Scores of sub-words as scores of words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..distributions import check_scores
from ..numbering import UNLABELLED

POOLINGS = ("first", "mean")


def words_of(
    scores: Tensor,
    word_ids: Sequence[Sequence[int | None]] | None = None,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
    pooling: str = "first",
) -> tuple[Tensor, Tensor]:
    """Pack the scores of the positions of a model, which are sub-words and special tokens, to scores of words.

    Exactly one of `word_ids`, `labels` and `mask` says which positions are words. The padding may be on either side.

    Args:
        scores: [B, S, C]; cell [b, s, i] scores label i at position s.
        word_ids: for every sentence a list of S numbers: the word that each position is a piece of, or None for special
            tokens and padding, as `BatchEncoding.word_ids(b)` of a fast tokenizer gives them.
        labels: integers [B, S] as a token classifier is trained on; positions with -100 are no words. Only the first
            piece of a word may have a label.
        mask: BoolTensor [B, S], or integers 0 and 1; true at one position per word. An attention mask is not one:
            it counts special tokens and every piece.
        pooling: "first" takes the scores of a word's first piece, "mean" averages those of all of its pieces (with
            `word_ids` only).

    Returns:
        The scores of words [B, N, C], differentiable by `scores` and 0 in the padding, and the lengths, LongTensor [B].
        Costs O(B S C).

    Raises:
        TypeError or ValueError: if not exactly one of the three is given, a shape is wrong, a sentence has no word, or
            the numbers cannot be words: they must count from 0 without a gap, each in consecutive positions.

    >>> import torch
    >>> from structkd.integrations import words_of
    >>> scores = torch.arange(5.0).view(1, 5, 1)  # [CLS] a ##b c [SEP]
    >>> words, lengths = words_of(scores, word_ids=[[None, 0, 0, 1, None]], pooling="mean")
    >>> words.flatten().tolist(), lengths.tolist()
    ([1.5, 3.0], [2])
    """
    check_scores("scores", scores, ("B", "S", "C"))
    if pooling not in POOLINGS:
        raise ValueError(f"The pooling must be 'first' or 'mean', got {pooling!r}.")
    given = [name for name, value in (("word_ids", word_ids), ("labels", labels), ("mask", mask)) if value is not None]
    if len(given) != 1:
        raise ValueError(
            f"Exactly one of word_ids, labels and mask must say where words are, got {given or 'none of them'}. "
            "Without it, special tokens and pieces of words would count as words."
        )
    if word_ids is not None:
        owner = _owners(word_ids, scores)
    else:
        if pooling == "mean":
            raise ValueError(
                f"The pooling 'mean' needs word_ids: {given[0]} says where words begin, but not which pieces they have."
            )
        if isinstance(mask, Tensor) and (mask.is_floating_point() or mask.is_complex()):
            raise TypeError(
                f"The mask must be a BoolTensor [B, S], or integers 0 and 1, got {mask.dtype}. Give a mask that is "
                "true at one position per word, such as mask.bool(); an attention mask is not one."
            )
        first = _labelled(labels, scores) if labels is not None else _masked(mask, scores.shape[:2], scores.device)
        owner = torch.where(first, first.long().cumsum(1) - 1, -1)
    return _packed(scores, owner, pooling)


def _packed(scores: Tensor, owner: Tensor, pooling: str) -> tuple[Tensor, Tensor]:
    """Pack scores [B, S, C] by the word of every position, LongTensor [B, S], -1 for none."""
    lengths = owner.amax(1) + 1 if owner.numel() else owner.new_zeros(len(owner))
    if not (lengths > 0).all():
        items = (lengths <= 0).nonzero().flatten().tolist()
        raise ValueError(
            f"The sentence(s) {items} of the batch have no word. Drop empty sentences; if they are unlabelled, so that "
            "labels do not say where words are, give word_ids or mask."
        )
    batch, _, size = scores.shape
    words = int(lengths.max()) if batch else 1
    if pooling == "first":
        before = torch.nn.functional.pad(owner[:, :-1], (1, 0), value=-1)
        item, position = ((owner >= 0) & (owner != before)).nonzero().T
        packed = scores.new_zeros(batch, words, size)
        return packed.index_put((item, owner[item, position]), scores[item, position]), lengths
    dtype = torch.promote_types(scores.dtype, torch.float32)
    item, position = (owner >= 0).nonzero().T
    place = item, owner[item, position]
    total = torch.zeros(batch, words, size, dtype=dtype, device=scores.device)
    total = total.index_put(place, scores[item, position].to(dtype), accumulate=True)
    pieces = torch.zeros(batch, words, dtype=dtype, device=scores.device)
    pieces.index_put_(place, torch.ones(len(item), dtype=dtype, device=scores.device), accumulate=True)
    return (total / pieces.clamp_min(1.0).unsqueeze(-1)).to(scores.dtype), lengths


def _owners(word_ids: Any, scores: Tensor) -> Tensor:
    batch, positions, _ = scores.shape
    if isinstance(word_ids, (str, Tensor)) or not isinstance(word_ids, Sequence):
        raise TypeError(
            "The word_ids must be a list with a list of numbers or None for every sentence, got "
            f"{type(word_ids).__name__}. Give [encoding.word_ids(item) for item in range(batch size)]."
        )
    if len(word_ids) != batch:
        raise ValueError(f"The word_ids must be lists for {batch} sentences, got {len(word_ids)}.")
    rows = []
    for item, numbers in enumerate(word_ids):
        if not isinstance(numbers, Sequence) or isinstance(numbers, str):
            raise TypeError(
                f"The word_ids of sentence {item} must be a list, got {type(numbers).__name__}. A tokenizer without "
                "word_ids is not a fast one: give labels or mask instead."
            )
        if len(numbers) != positions:
            raise ValueError(
                f"The word_ids of sentence {item} must be {positions} numbers, one per position of the scores, got "
                f"{len(numbers)}. Pad both alike."
            )
        rows.append(_checked(numbers, item))
    return torch.tensor(rows, dtype=torch.long, device=scores.device).view(batch, positions)


def _checked(numbers: Sequence[Any], item: int) -> list[int]:
    """Return the numbers of one sentence with -1 for None, if they count words."""
    row, last, before = [], -1, None
    for position, number in enumerate(numbers):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
            raise TypeError(
                f"A word id must be a number of at least 0 or None, and position {position} of sentence {item} has "
                f"{number!r}."
            )
        if number is not None and number != before:
            if number != last + 1:
                reason = (
                    f"word {number} comes after word {last}, so that words in between have no piece (drop such words "
                    "before the tokenizer)"
                    if number > last
                    else f"word {number} begins a second time, as in a pair of sentences or an overflowing window"
                )
                raise ValueError(
                    f"The word_ids of sentence {item} cannot be words: at position {position}, {reason}. Words count "
                    "from 0, in order."
                )
            last = number
        before = number
        row.append(-1 if number is None else number)
    return row


def _labelled(labels: Any, scores: Tensor) -> Tensor:
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"The labels must be a LongTensor [B, S], got {kind}.")
    if labels.shape != scores.shape[:2]:
        raise ValueError(f"The labels must have shape {list(scores.shape[:2])}, got {list(labels.shape)}.")
    wrong = (labels != UNLABELLED) & ((labels < 0) | (labels >= scores.shape[2]))
    if wrong.any():
        item, position = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"The labels must be in 0..{scores.shape[2] - 1}, or -100 for no word, and position {position} of sentence "
            f"{item} has {int(labels[item, position])}."
        )
    return (labels != UNLABELLED).to(scores.device)


def _masked(mask: Any, shape: torch.Size, device: torch.device) -> Tensor:
    if not isinstance(mask, Tensor):
        raise TypeError(f"The mask must be a BoolTensor {list(shape)}, got {type(mask).__name__}.")
    if mask.shape != shape:
        raise ValueError(f"The mask must have shape {list(shape)}, got {list(mask.shape)}.")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("The mask must be of truth values, or of 0 and 1, and has other numbers.")
    return mask.bool().to(device)


def prefix_lengths(name: str, mask: Any, batch: int, words: int, device: torch.device) -> Tensor | None:
    """Return the lengths of a mask [B, N] whose words come first; None if all are words.

    Raises:
        TypeError or ValueError: for a wrong kind or shape, an empty sentence, or a word after padding.

    >>> prefix_lengths("mask", torch.tensor([[1, 1, 0]]), 1, 3, torch.device("cpu")).tolist()
    [2]
    """
    if mask is None:
        return None
    inside = _masked(mask, torch.Size([batch, words]), device)
    lengths = inside.sum(1)
    holes = inside != (torch.arange(words, device=device) < lengths.unsqueeze(1))
    if holes.any():
        item, position = holes.nonzero()[0].tolist()
        raise ValueError(
            f"The {name} of sentence {item} has padding before a word, at position {position}. The words of a sentence "
            "come first: pack scores with structkd.integrations.words_of."
        )
    return lengths
