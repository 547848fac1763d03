"""The best label sequence of every sentence of a batch (Viterbi, 1967), among the legal ones if they are given."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .arithmetic import NEG_INF
from .engines import compiled_for

#: Which labels may start a sentence [C], follow each other [C, C] as [next, previous], and end a sentence [C].
Legality = tuple[Tensor, Tensor, Tensor]

# Number of bigram scores to hold at once (4 MiB in float64). With hundreds of labels, a step takes sentences in groups.
_HELD_CELLS = 1 << 19


def viterbi(
    unary: Tensor,
    pairwise: Tensor,
    lengths: Tensor,
    start: Tensor | None = None,
    end: Tensor | None = None,
    legal: Legality | None = None,
    items: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the highest-scoring label sequence of every sentence.

    O(N C^2) time for a sentence, O(B N C + C^2) memory. In torch, the Python loops run over words, for all sentences
    together.

    Args:
        unary: [B, N, C] in working precision; cell [b, n, i] scores label i at word n. The padding may hold anything.
        pairwise: [C, C] or [B, N-1, C, C]; cell [.., j, i] scores label i followed by label j.
        lengths: LongTensor [B], 1..N.
        start, end: [C], scores of the first and the last word's label; None stands for zeros.
        legal: BoolTensors (start [C], transitions [C, C] as [next, previous], end [C]); None allows everything.
        items: LongTensor [B], the sentences' numbers for messages; None stands for 0, 1, ...

    Returns:
        The scores of the best sequences [B], and the sequences, LongTensor [B, N] with -1 in the padding.

    Raises:
        ValueError: if a sentence has no possible sequence, decided on the support (a sum of finite scores may reach
            -inf on its own); if the masks are not boolean or not of these shapes.
    """
    zeros = unary.new_zeros(unary.shape[-1])
    first, last = (zeros if scores is None else scores.to(unary) for scores in (start, end))
    pairwise = pairwise.to(unary)
    if legal is not None:
        check_legality(legal, len(zeros))
        first, pairwise, last = (
            scores.masked_fill(~mask.to(scores.device), NEG_INF)
            for scores, mask in zip((first, pairwise, last), legal, strict=True)
        )
    values, labels = _best(unary, pairwise, lengths, first, last)
    suspects = values == NEG_INF
    if suspects.any():
        support = [scores.new_zeros(()).where(scores > NEG_INF, NEG_INF) for scores in (unary, pairwise, first, last)]
        possible, others = _best(support[0], support[1], lengths, *support[2:])
        impossible = (possible == NEG_INF).nonzero().flatten()
        if len(impossible):
            named = (impossible if items is None else items[impossible]).tolist()
            raise ValueError(
                f"No {'' if legal is None else 'legal '}label sequence is possible for batch item(s) {named}: scores "
                "of -inf exclude them all. Use a finite score where something must remain possible."
            )
        labels = torch.where(suspects.unsqueeze(1), others, labels)
    return values, labels


def _best(unary: Tensor, pairwise: Tensor, lengths: Tensor, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `viterbi` of checked scores; -inf for a sentence without any possible sequence.

    Backpointers are not stored, because a maximum without its index is faster. The backward pass finds the previous
    label by one maximum over C scores.
    """
    batch, words, size = unary.shape
    compiled = compiled_for("viterbi", unary) if pairwise.dim() == 2 and words else None
    if compiled is not None:
        found: tuple[Tensor, Tensor] | None = compiled.best(unary.detach(), pairwise.detach(), lengths, first, last)
        if found is not None:
            return found
    if batch == 1 and pairwise.dim() == 2 and unary.device.type == "cpu":
        return _best_of_one(unary, pairwise, int(lengths), first, last)
    shortest = int(lengths.min()) if batch else words
    inside = torch.arange(words, device=lengths.device).unsqueeze(1) < lengths  # [N, B]
    together = max(1, _HELD_CELLS // size**2)
    arrivals = unary.new_empty(min(batch, together), size, size)
    reached = [unary[:, 0] + first]
    for n in range(1, words):
        steps = pairwise[:, n - 1] if pairwise.dim() == 4 else pairwise
        if batch <= together:
            best = torch.add(steps, reached[-1].unsqueeze(1), out=arrivals).amax(-1)
        else:
            best = torch.empty_like(reached[-1])
            for item in range(0, batch, together):
                group = slice(item, item + together)
                before = reached[-1][group].unsqueeze(1)
                step = steps[group] if steps.dim() == 3 else steps
                torch.amax(torch.add(step, before, out=arrivals[: len(before)]), -1, out=best[group])
        best.add_(unary[:, n])
        # Past its end a sentence keeps its scores.
        reached.append(best if n < shortest else torch.where(inside[n].unsqueeze(1), best, reached[-1]))
    values, label = (reached[-1] + last).max(-1)
    path = [label]
    for n in range(words - 1, 0, -1):
        if pairwise.dim() == 4:
            step = pairwise[:, n - 1].take_along_dim(label.view(-1, 1, 1), 1).squeeze(1)
        else:
            step = pairwise.index_select(0, label)
        previous = step.add_(reached[n - 1]).argmax(-1)
        label = previous if n < shortest else torch.where(inside[n], previous, label)
        path.append(label)
    return values, torch.stack(path[::-1], 1).masked_fill_(~inside.mT, -1)


@np.errstate(over="ignore")  # a sum of finite scores may reach -inf on its own
def _best_of_one(unary: Tensor, pairwise: Tensor, length: int, first: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Compute `_best` of one sentence by numpy, whose calls take a fraction of torch's time on so few cells."""
    scores, steps = unary.detach()[0, :length].numpy(), pairwise.detach().numpy()
    reached, arrivals = np.empty_like(scores), np.empty_like(steps)
    np.add(scores[0], first.detach().numpy(), out=reached[0])
    for n in range(1, length):
        np.add(steps, reached[n - 1], out=arrivals)
        np.maximum.reduce(arrivals, axis=1, out=reached[n])
        reached[n] += scores[n]
    final = reached[-1] + last.detach().numpy()
    label = int(final.argmax())
    path = [-1] * unary.shape[1]
    path[length - 1] = label
    for n in range(length - 1, 0, -1):
        label = int((steps[label] + reached[n - 1]).argmax())
        path[n - 1] = label
    return torch.from_numpy(final.max(keepdims=True)), torch.tensor([path])


def check_legality(legal: Legality, size: int) -> None:
    """Refuse masks that are not boolean, or not of the shapes for so many labels."""
    shapes = [list(mask.shape) for mask in legal]
    if shapes != [[size], [size, size], [size]] or any(mask.dtype != torch.bool for mask in legal):
        raise ValueError(
            f"Legal labels must be BoolTensors (start, transitions, end) of shapes [{size}], [{size}, {size}] and "
            f"[{size}], got {', '.join(f'{list(mask.shape)} of {mask.dtype}' for mask in legal)}. "
            "Build them from the labels of a tag scheme with structkd.data.legal_transitions."
        )
