"""The best legal tag sequence, for a whole batch at once."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Legality", "viterbi"]

#: Which labels may start a sentence [C], follow each other [C, C] as [next, previous], and end a sentence [C].
Legality = tuple[Tensor, Tensor, Tensor]


@torch.no_grad()
def viterbi(
    emissions: Tensor,
    lengths: Tensor,
    transitions: Tensor | None = None,
    start: Tensor | None = None,
    end: Tensor | None = None,
    legal: Legality | None = None,
) -> Tensor:
    """Decode the highest-scoring tag sequence, among the legal ones if ``legal`` is given.

    Without transitions the words score alone (MaxEnt) and only legality ties them together.
    O(N C^2) time, O(B N C) memory; the one Python loop runs over words, for all sentences together.

    Args:
        emissions: [B, N, C]; cells beyond a sentence's length are ignored.
        lengths: LongTensor [B], 1..N.
        transitions: [C, C]; cell [j, i] scores label i followed by label j.
        start, end: [C], scores of the first and last word's label.
        legal: boolean masks (start [C], transition [C, C] as [next, previous], end [C]).

    Returns:
        LongTensor [B, N]; -1 in the padding.

    Raises:
        ValueError: if a sentence has no legal tag sequence at all.
    """
    batch, words, count = emissions.shape
    device = emissions.device
    scores = emissions.float() if emissions.dtype in (torch.float16, torch.bfloat16) else emissions

    def combined(values: Tensor | None, mask: Tensor | None, shape: tuple[int, ...]) -> Tensor:
        result = scores.new_zeros(shape) if values is None else values.to(scores)
        return result if mask is None else result.masked_fill(~mask.to(device), -torch.inf)

    legal_start, legal_step, legal_end = legal if legal is not None else (None, None, None)
    first = combined(start, legal_start, (count,))
    step = combined(transitions, legal_step, (count, count))
    last = combined(end, legal_end, (count,))

    best = first + scores[:, 0]
    own = torch.arange(count, device=device).expand(batch, count)
    pointers = []
    for word in range(1, words):
        arriving, pointer = (step + best.unsqueeze(1)).max(dim=-1)
        inside = (word < lengths.to(device)).unsqueeze(1)
        # Past its end a sentence stands still: its scores stay, and every label points at itself.
        best = torch.where(inside, arriving + scores[:, word], best)
        pointers.append(torch.where(inside, pointer, own))
    total, label = (best + last).max(dim=-1)
    if torch.isneginf(total).any():
        items = torch.isneginf(total).nonzero().flatten().tolist()
        raise ValueError(f"No legal tag sequence exists for batch items {items}: every one has score -inf.")
    path = [label]
    for pointer in reversed(pointers):
        path.append(pointer.gather(1, path[-1].unsqueeze(1)).squeeze(1))
    decoded = torch.stack(path[::-1], dim=1)
    padding = torch.arange(words, device=device) >= lengths.to(device).unsqueeze(1)
    return decoded.masked_fill(padding, -1)
