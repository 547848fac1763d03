"""The numbers that stand for something else: no gold, no word, the root of a sentence.

Distributions number the words of a sentence from 0, and the head of a root is the root itself. Files, annotations and
the results of models have the heads of CoNLL-U: words are numbered from 1, and the head of a root is 0. The two
functions of this module lead from one numbering to the other.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["NOWHERE", "UNLABELLED", "to_conllu", "to_own_index"]

UNLABELLED = -100
"""A label, head or relation that is not known; PyTorch's ignore index."""
NOWHERE = -1
"""No word or label: the padding of structures, and a label of a head that names no word of the sentence."""


def to_own_index(heads: Tensor) -> Tensor:
    """Return heads of CoNLL-U as positions from 0, a root's own position for the root.

    Args:
        heads: LongTensor [..., N], 1-based, 0 for the root; negative values stay.

    >>> to_own_index(torch.tensor([2, 0, 2, UNLABELLED])).tolist()
    [1, 1, 1, -100]
    """
    position = torch.arange(heads.shape[-1], device=heads.device)
    return torch.where(heads > 0, heads - 1, torch.where(heads == 0, position, heads))


def to_conllu(heads: Tensor) -> Tensor:
    """Return heads that are positions from 0 in the numbering of CoNLL-U; the inverse of `to_own_index`.

    Args:
        heads: LongTensor [..., N], a root's own position for the root; negative values stay.

    >>> to_conllu(torch.tensor([1, 1, 1, NOWHERE])).tolist()
    [2, 0, 2, -1]
    """
    position = torch.arange(heads.shape[-1], device=heads.device)
    return (heads + (heads >= 0)).masked_fill_(heads == position, 0)
