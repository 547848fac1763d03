"""Inside-outside for flat typed spans: forward-backward over prefixes and suffixes (Sarawagi and Cohen, 2004)."""

from __future__ import annotations

import torch
from torch import Tensor

from .arithmetic import logsumexp
from .engines import compiled_for


def expectations(spans: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute log Z [B], span marginals [B, N, N, L] and marginals [B, N] of words in no span, without a graph.

    Args:
        spans: [B, N, N, L] in working precision; cell [b, i, j, l] is the log-odds of words i..j being a span of type l
            against no span, -inf if it is impossible, if j < i and in the padding.
        lengths: LongTensor [B], 1..N.

    Costs O(N^2 L) time a sentence.
    """
    compiled = compiled_for("spans", spans)
    if compiled is not None:
        value, marginals, alone, safe = compiled.expectations(spans, lengths)
        if safe.all():
            return value, marginals, alone
    untyped = logsumexp(spans)
    words = spans.shape[1]
    prefix = spans.new_zeros(len(spans), 1)
    for end in range(words):
        closed = torch.cat([prefix + untyped[:, : end + 1, end], prefix[:, -1:]], -1)
        prefix = torch.cat([prefix, logsumexp(closed).unsqueeze(-1)], -1)
    value = prefix.gather(1, lengths.unsqueeze(1))
    # suffix[:, s] is the log sum over the words from s on. No span includes a word beyond the sentence.
    suffix = spans.new_zeros(len(spans), 1)
    for start in range(words - 1, -1, -1):
        opened = torch.cat([suffix[:, :1], untyped[:, start, start:] + suffix], -1)
        suffix = torch.cat([logsumexp(opened).unsqueeze(-1), suffix], -1)
    around = prefix[:, :-1, None] + suffix[:, None, 1:] - value.unsqueeze(-1)
    marginals = (spans + around.unsqueeze(-1)).exp()
    padding = torch.arange(words, device=lengths.device) >= lengths.unsqueeze(1)
    alone = (prefix[:, :-1] + suffix[:, 1:] - value).exp().masked_fill(padding, 0.0)
    return value.squeeze(1), marginals, alone
