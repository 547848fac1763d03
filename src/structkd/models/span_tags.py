"""The spans that sequences of tags stand for, found for a whole batch at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from structkd.tags import CONTINUING, OPENING

__all__ = ["TagPrefixes"]


class TagPrefixes:
    """The prefixes of an inventory of tags of BIO or BIOES, as masks.

    Args:
        labels: the inventory, C tags.
        device: of the masks.

    Attributes:
        opens, continues: BoolTensors [C]; whether a tag begins a span, or continues one.
        continued_by: BoolTensor [C, C]; cell [i, j] says whether tag j continues a span after tag i.
    """

    def __init__(self, labels: Sequence[str], device: torch.device | None = None) -> None:
        prefixes = [label[0] for label in labels]
        self.opens = torch.tensor([prefix in OPENING for prefix in prefixes], device=device)
        self.continues = torch.tensor([prefix in CONTINUING for prefix in prefixes], device=device)
        unfinished = torch.tensor([prefix in "BI" for prefix in prefixes], device=device)
        types = list(dict.fromkeys(label[1:] for label in labels))
        kind = torch.tensor([types.index(label[1:]) for label in labels], device=device)
        self.continued_by = unfinished.unsqueeze(1) & self.continues & (kind.unsqueeze(1) == kind)

    def ends(self, tags: Tensor, lengths: Tensor) -> Tensor:
        """Return the last word of the span that each word is in, LongTensor [B, N]; a word outside of spans itself.

        Args:
            tags: LongTensor [B, N], legal sequences of tags; anything in the padding.
            lengths: LongTensor [B].
        """
        position = torch.arange(tags.shape[1], device=tags.device)
        goes_on = self.continues[tags[:, 1:]] & (position[1:] < lengths.unsqueeze(1))
        last = torch.nn.functional.pad(~goes_on, (0, 1), value=True)
        ends = torch.where(last, position, tags.shape[1])
        return ends.flip(1).cummin(1).values.flip(1)
