"""Taggers of other libraries: token classifiers of transformers, and the layer of pytorch-crf."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..distributions import LinearChainCRF, MaxEnt, check_scores
from .words import prefix_lengths, words_of


def from_hf(
    output: Any,
    config: Any,
    word_ids: Sequence[Sequence[int | None]] | None = None,
    labels: Tensor | None = None,
    mask: Tensor | None = None,
    pooling: str = "first",
) -> MaxEnt:
    """Return the distribution of a token classifier of transformers over the labels of words.

    Args:
        output: the model's output, or its logits [B, S, C].
        config: the model's configuration; its `id2label` is the inventory.
        word_ids, labels, mask, pooling: as in `words_of`. For batches of one tokenizer call, `word_ids` is
            `[encoding.word_ids(item) for item in range(batch size)]`.

    Returns:
        A MaxEnt over words, differentiable by the logits, with the inventory as `labels`. Costs O(B S C).

    Raises:
        TypeError or ValueError: if the output is not that of a token classifier, `id2label` does not number its labels,
            or, as in `words_of`, positions cannot be words.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> config = SimpleNamespace(id2label={0: "O", 1: "B-PER"})
    >>> logits = torch.tensor([[[0.0, 9.0], [0.0, 1.0], [2.0, 0.0]]])  # [CLS] Ada runs
    >>> tagger = from_hf(logits, config, word_ids=[[None, 0, 1]])
    >>> tagger.labels, tagger.decode().tolist()
    (['O', 'B-PER'], [[1, 0]])
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.dim() != 3:
        shape = list(logits.shape) if isinstance(logits, Tensor) else "none"
        raise ValueError(
            f"A token classifier's logits have shape [B, S, C], one row per position, got {shape} from "
            f"{type(output).__name__}. Load the model with AutoModelForTokenClassification."
        )
    inventory = inventory_of(config, logits.shape[-1])
    scores, lengths = words_of(logits, word_ids, labels, mask, pooling)
    return MaxEnt(scores, lengths, inventory)


def inventory_of(config: Any, size: int) -> list[str]:
    """Return the labels of a configuration of transformers in the order of its scores.

    Raises:
        ValueError: if `id2label` is missing or does not number 0..size-1.

    >>> from types import SimpleNamespace
    >>> inventory_of(SimpleNamespace(id2label={"1": "B-PER", "0": "O"}), 2)
    ['O', 'B-PER']
    """
    names = getattr(config, "id2label", None)
    if not isinstance(names, Mapping):
        raise ValueError(f"The configuration must have id2label, the names of labels, got {type(config).__name__}.")
    numbered = {int(number): str(name) for number, name in names.items()}
    if sorted(numbered) != list(range(size)):
        raise ValueError(
            f"The configuration's id2label must number the {size} labels of the scores, 0..{size - 1}, got "
            f"{sorted(numbered)}. Give the configuration of the model that computed the scores."
        )
    return [numbered[number] for number in range(size)]


def from_pytorch_crf(
    layer: Any, emissions: Tensor, mask: Tensor | None = None, labels: Sequence[str] | None = None
) -> LinearChainCRF:
    """Return the distribution of a `torchcrf.CRF` layer of the package pytorch-crf.

    The layer scores transitions as [previous, next]; ours are [next, previous].

    Args:
        layer: the layer, with `transitions`, `start_transitions` and `end_transitions`.
        emissions: as the layer takes them, [S, B, C], or [B, S, C] if the layer is `batch_first`.
        mask: [S, B], or [B, S] if `batch_first`, true at words; the words of a sentence come first. None means all.
        labels: the tag inventory in score order, C strings.

    Returns:
        A LinearChainCRF that is differentiable by the emissions and the layer's parameters. Its `log_prob` is the
        layer's log-likelihood and its `decode()` the layer's Viterbi sequence.

    Raises:
        TypeError or ValueError: if the layer is another one, or for a wrong shape or mask.

    >>> import torch
    >>> from types import SimpleNamespace
    >>> weights = torch.tensor([[0.0, 5.0], [0.0, 0.0]])  # label 0, then label 1
    >>> edges = {"start_transitions": torch.zeros(2), "end_transitions": torch.zeros(2)}
    >>> layer = SimpleNamespace(transitions=weights, batch_first=True, **edges)
    >>> from_pytorch_crf(layer, torch.zeros(1, 2, 2)).decode().tolist()
    [[0, 1]]
    """
    missing = [name for name in ("transitions", "start_transitions", "end_transitions") if not hasattr(layer, name)]
    if missing:
        raise TypeError(
            f"A layer of pytorch-crf (torchcrf.CRF) has the attributes {missing}, and {type(layer).__name__} lacks "
            "them. For another layer, give its scores to structkd.LinearChainCRF.from_scores."
        )
    first = bool(getattr(layer, "batch_first", False))
    check_scores("emissions", emissions, ("B", "S", "C") if first else ("S", "B", "C"))
    if not first:
        emissions = emissions.transpose(0, 1)
        mask = mask.transpose(0, 1) if isinstance(mask, Tensor) and mask.dim() == 2 else mask
    lengths = prefix_lengths("mask", mask, emissions.shape[0], emissions.shape[1], emissions.device)
    start, end = layer.start_transitions, layer.end_transitions
    return LinearChainCRF.from_scores(emissions, layer.transitions.transpose(0, 1), start, end, lengths, labels)
