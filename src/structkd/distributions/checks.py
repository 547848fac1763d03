"""Checks of arguments: scores, lengths, numbers, inventories and labels. They raise, or return the cleaned value."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ..numbering import UNLABELLED

#: The largest score, and log Z, of which a loss is taken: beyond, sums of float64 lose the differences it is made of.
LARGEST = 5e9

#: Beyond this score, recursions that multiply probabilities by scores lose digits: of a probability 1e-16 times the
#: score is lost, and of the product that times the score again.
LARGE = 1e4


def check_scores(name: str, scores: Any, shape: Sequence[str]) -> Tensor:
    """Return `scores` if they are a floating-point tensor with as many axes as `shape` names.

    Raises:
        TypeError: if `scores` are not a tensor, or not of a floating-point type.
        ValueError: if the number of axes differs.

    Example:
        >>> check_scores("logits", torch.zeros(1, 2, 3), ("B", "N", "C")).shape
        torch.Size([1, 2, 3])
        >>> check_scores("logits", torch.zeros(2, 3), ("B", "N", "C"))
        Traceback (most recent call last):
        ValueError: logits must have shape [B, N, C], got [2, 3].
    """
    if not isinstance(scores, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor of shape [{', '.join(shape)}], got {type(scores).__name__}.")
    if not scores.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {scores.dtype}. Convert it with .float().")
    if scores.dim() != len(shape):
        raise ValueError(f"{name} must have shape [{', '.join(shape)}], got {list(scores.shape)}.")
    return scores


def check_lengths(lengths: Any, batch: int, words: int, device: torch.device) -> tuple[Tensor, bool]:
    """Return `lengths` as a LongTensor [B] on `device`, and whether any is less than `words`."""
    if not isinstance(lengths, Tensor):
        try:
            lengths = torch.as_tensor(lengths)
        except (TypeError, ValueError, RuntimeError) as error:
            names = isinstance(lengths, Sequence) and any(isinstance(entry, str) for entry in lengths)
            raise TypeError(
                f"The lengths must be a LongTensor [B], got {type(lengths).__name__}."
                + (" Names of labels are a keyword: labels=[...]." if names else "")
            ) from error
    if lengths.shape == (batch, words):
        raise ValueError(
            f"The lengths must have shape [{batch}], one number of words per sentence, got {list(lengths.shape)}. If "
            "this is a mask over words whose padding comes last, give mask.sum(1)."
        )
    if lengths.is_complex() or lengths.dtype == torch.bool:
        raise TypeError(f"The lengths must be a LongTensor [B], got {lengths.dtype}.")
    if lengths.shape != (batch,):
        raise ValueError(f"The lengths must have shape [{batch}], one per sentence, got {list(lengths.shape)}.")
    ragged = False
    for item, length in enumerate(lengths.tolist()):
        if isinstance(length, float) and not length.is_integer():
            raise ValueError(f"The lengths must be whole numbers, and batch item {item} has {length}.")
        if not 1 <= length <= words:
            raise ValueError(
                f"The lengths must lie in 1..{words} (the scores' number of words), and batch item {item} has "
                f"{length}. Drop empty sentences, and give scores for every word."
            )
        ragged |= length < words
    lengths = lengths.detach().to(device=device, dtype=torch.long)
    if lengths.is_inference():  # autograd saves lengths as indices, and refuses those of inference mode
        with torch.inference_mode(False):
            lengths = lengths.clone()
    return lengths, ragged


def check_number(name: str, value: Any) -> float:
    """Return a real number of Python or numpy, or a one-element tensor without a gradient, as a float."""
    if type(value) is float:  # most are, and the questions below take a while
        return value
    if isinstance(value, Tensor) and value.requires_grad:
        raise TypeError(
            f"{name} is not differentiated, got a tensor that requires a gradient. Give a number, such as "
            f"float({name})."
        )
    number = value.item() if getattr(value, "ndim", None) == 0 and hasattr(value, "item") else value
    if not isinstance(number, Real) or isinstance(number, bool):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}.")
    return float(number)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return a whole number of Python or numpy, or a one-element tensor, as an int of at least `least`."""
    try:
        if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
            raise TypeError
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {type(value).__name__}.") from None
    if count < least:
        raise ValueError(f"{name} must be at least {least}, got {count}.")
    return count


class TooLargeError(ValueError):
    """An error: the scores are so large that differences between structures are lost in rounding."""

    def __init__(self, name: str, size: float) -> None:
        super().__init__(
            f"The scores of {name} are too large: sums reach {size:.3g}, and beyond {LARGEST:g} working precision no "
            "longer shows the differences that a loss is made of. Expected scores of the size of log-probabilities. "
            "Scale them down, or give -inf for impossible parts; in a training, lower the learning rate."
        )


def check_temperature(temperature: Any) -> float:
    """Refuse a temperature that is not a positive, finite number."""
    temperature = check_number("temperature", temperature)
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"The temperature must be positive and finite, got {temperature}.")
    return temperature


def check_inventory(name: str, inventory: Any, size: int) -> list[str] | None:
    """Return a tag, type or relation inventory as a list of `size` different strings; None stays None.

    A mapping from 0..size-1 to strings, as `config.id2label` is one, is taken in the order of its numbers.

    Raises:
        TypeError: if `inventory` is not a sequence of strings.
        ValueError: if the number of entries is not `size`, or an entry occurs twice.

    Example:
        >>> check_inventory("labels", ("O", "B-PER"), 2)
        ['O', 'B-PER']
        >>> check_inventory("labels", ("O", "O"), 2)
        Traceback (most recent call last):
        ValueError: labels must be distinct, but 'O' occurs more than once: ['O', 'O'].
    """
    if inventory is None:
        return None
    if isinstance(inventory, Mapping) and inventory:
        inventory = _in_order(name, inventory)
    if isinstance(inventory, str) or not isinstance(inventory, Sequence):
        raise TypeError(f"{name} must be a list of strings in score order, got {type(inventory).__name__}.")
    wrong = [label for label in inventory if not isinstance(label, str)]
    if wrong:
        raise TypeError(f"{name} must be strings, got {wrong[0]!r}.")
    if len(inventory) != size:
        raise ValueError(f"{name} must list {size} entries, one per score, got {len(inventory)}: {list(inventory)}.")
    repeated = [label for n, label in enumerate(inventory) if label in inventory[:n]]
    if repeated:
        raise ValueError(f"{name} must be distinct, but {repeated[0]!r} occurs more than once: {list(inventory)}.")
    return list(inventory)


def _in_order(name: str, numbered: Mapping[Any, Any]) -> list[Any]:
    """Return the entries of a mapping from 0, 1, ... (numbers, or strings of numbers as in JSON) in that order."""
    entries = {str(number): entry for number, entry in numbered.items()}
    if set(entries) != {str(number) for number in range(len(numbered))}:
        raise ValueError(
            f"{name} must be a list of strings in score order, or a mapping from 0..{len(numbered) - 1} to strings "
            f"such as config.id2label, got the keys {list(numbered)}."
        )
    return [entries[str(number)] for number in range(len(entries))]


def check_labels(labels: Any, mask: Tensor, size: int, name: str = "labels") -> Tensor:
    """Return labels as a LongTensor [B, N].

    Args:
        labels: an integer tensor [B, N]; -100 marks labels that are not known, and padding may hold anything.
        mask: BoolTensor [B, N], the words of the sentences.
        size: the number of labels.
        name: the name of the argument in error messages.

    Raises:
        TypeError: if `labels` are not an integer tensor.
        ValueError: if the shape differs from the mask's, or a label inside a sentence is neither in 0..size-1 nor -100.

    Example:
        >>> mask = torch.tensor([[True, True, False]])
        >>> check_labels(torch.tensor([[1, -100, 7]]), mask, 2).tolist()
        [[1, -100, 7]]
    """
    if (
        not isinstance(labels, Tensor)
        or labels.is_floating_point()
        or labels.is_complex()
        or labels.dtype == torch.bool
    ):
        raise TypeError(f"{name} must be a LongTensor [B, N], got {getattr(labels, 'dtype', type(labels).__name__)}.")
    if labels.shape != mask.shape:
        raise ValueError(f"{name} must have shape {list(mask.shape)}, got {list(labels.shape)}.")
    labels = labels.long()
    strange = ((labels < 0) | (labels >= size)) & mask
    if strange.any():
        wrong = (strange & (labels != UNLABELLED)).nonzero().tolist()
        if wrong:
            item, word = wrong[0]
            raise ValueError(
                f"{name} must lie in 0..{size - 1}, or be {UNLABELLED} if they are not known; word {word} of batch "
                f"item {item} has {int(labels[item, word])}."
            )
    return labels
