"""Mean field for second-order parsing (Wang et al., 2019): the equations are those of `MeanFieldDependency`.

Throughout, arcs are first-order scores [B, N, N] in working precision, cell [b, h, d], 0 in the padding; lengths are
LongTensor [B], 1..N. All functions are differentiable.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .arithmetic import NEG_INF, padding
from .engines import compiled_for

#: Factors of h, d and c, each [B, N, r]; cell [b, h, d, c] of the scores is the sum over r of their product.
Factors = tuple[Tensor, Tensor, Tensor]
#: From Q [B, N, N], 0 on the diagonal and in the padding, to what the second-order scores add to F [B, N, N], where the
#: diagonal means nothing.
Message = Callable[[Tensor], Tensor]


def field(
    arcs: Tensor, siblings: Tensor | None, grandparents: Tensor | None, lengths: Tensor, iterations: int
) -> Tensor:
    """Compute F after the last iteration, [B, N, N].

    Args:
        arcs: first-order scores [B, N, N] in working precision, 0 in the padding.
        siblings, grandparents: [B, N, N, N] or None, not both; 0 in cells with a repeated index and in the padding.
        lengths: LongTensor [B], 1..N.
        iterations: T.

    Costs O(T N^3) time a sentence.
    """
    messages = [] if siblings is None else [_expected("bhc,bhdc->bhd", siblings)]
    if grandparents is not None:
        messages += [_expected(equation, grandparents) for equation in ("bdc,bhdc->bhd", "bch,bchd->bhd")]
    return _iterated(arcs, lambda posterior: torch.stack([m(posterior) for m in messages]).sum(0), lengths, iterations)


def field_of_factors(
    arcs: Tensor, siblings: Factors | None, grandparents: Factors | None, lengths: Tensor, iterations: int
) -> Tensor:
    """Compute F after the last iteration, [B, N, N], from second-order scores of low rank.

    Args:
        arcs: first-order scores [B, N, N] in working precision, 0 in the padding.
        siblings, grandparents: three tensors [B, N, r] in working precision, 0 in the padding, or None.
        lengths: LongTensor [B], 1..N.
        iterations: T.

    Costs O(T N^2 r) time a sentence.
    """
    given = arcs, *(siblings or ()), *(grandparents or ())
    if not (torch.is_grad_enabled() and any(scores.requires_grad for scores in given)):
        compiled = compiled_for("mean_field", *given)
        found: Tensor | None = None
        if compiled is not None:
            found = compiled.field(arcs, siblings, grandparents, lengths, iterations)
        if found is not None:
            return found
    if siblings is None and grandparents is None:
        return arcs
    return _iterated(arcs, _message_of_factors(siblings, grandparents), lengths, iterations)


def _iterated(arcs: Tensor, message: Message, lengths: Tensor, iterations: int) -> Tensor:
    words = arcs.shape[1]
    second_order = ~torch.eye(words, dtype=torch.bool, device=arcs.device)
    beyond = padding(lengths, words)
    if beyond is not None:
        second_order = second_order & ~(beyond.unsqueeze(1) | beyond.unsqueeze(2))
    result = arcs
    for _ in range(iterations):
        scores = result if beyond is None else result.masked_fill(beyond.unsqueeze(2), NEG_INF)
        # A word may lose its last possible head during the iterations. `partition` reports that it has no posterior.
        impossible = scores.detach().amax(1, keepdim=True) == NEG_INF
        if impossible.any():
            posterior = scores.masked_fill(impossible, 0.0).softmax(1).masked_fill(impossible, 0.0)
        else:
            posterior = scores.softmax(1)
        result = torch.where(second_order, arcs + message(posterior * second_order), arcs)
    return result


def _expected(equation: str, scores: Tensor) -> Message:
    """Return a message that sums Q * score, with 0 * -inf = 0; -inf if an impossible pair has any probability."""
    impossible = scores == NEG_INF
    if not impossible.any():
        return lambda posterior: torch.einsum(equation, posterior, scores)
    finite, excluded = scores.masked_fill(impossible, 0.0), impossible.to(scores.dtype)

    def message(posterior: Tensor) -> Tensor:
        mass = torch.einsum(equation, posterior.detach(), excluded)
        return torch.einsum(equation, posterior, finite).masked_fill(mass > 0, NEG_INF)

    return message


def _message_of_factors(siblings: Factors | None, grandparents: Factors | None) -> Message:
    """Return the message of scores of low rank.

    Sums over c run over the whole sentence. Then the contributions of c = h and c = d are subtracted, which are Q times
    a matrix that does not depend on Q.
    """
    if siblings is not None:
        first, second, third = siblings
        same_head = first @ (second * third).mT
    if grandparents is not None:
        above, middle, below = grandparents
        outer = above * below
        same_line = outer @ middle.mT + middle @ outer.mT

    def message(posterior: Tensor) -> Tensor:
        heads, dependents, repeated = [], [], []  # A sum of matrix products is one product of concatenated factors.
        if siblings is not None:
            heads.append(first * (posterior @ third))
            dependents.append(second)
            repeated.append(posterior * same_head)
        if grandparents is not None:
            heads += [above, middle * (posterior.mT @ above)]
            dependents += [middle * (posterior @ below), below]
            repeated.append(posterior.mT * same_line)
        return torch.cat(heads, -1) @ torch.cat(dependents, -1).mT - sum(repeated)

    return message
