"""A pytest plugin that puts our classes in the place of torch-struct's and of pytorch-crf's."""

from __future__ import annotations

import torch
import torch_struct
import torchcrf
from torch import Tensor

import structkd

for _name in ("LinearChainCRF", "DependencyCRF", "NonProjectiveDependencyCRF"):
    setattr(torch_struct, _name, getattr(structkd, _name))


class ChainLayer(torchcrf.CRF):
    """pytorch-crf's layer: its parameters, checks and reductions, with the likelihood and decoding of our chain."""

    def forward(self, emissions: Tensor, tags: Tensor, mask: Tensor | None = None, reduction: str = "sum") -> Tensor:
        if reduction not in ("none", "sum", "mean", "token_mean"):
            raise ValueError(f"invalid reduction: {reduction}")
        self._validate(emissions, tags=tags, mask=mask if mask is None else mask.bool())
        chain, lengths = self._chain(emissions, mask)
        tags = tags if self.batch_first else tags.transpose(0, 1)
        likelihood: Tensor = chain.log_prob(tags)
        if reduction == "none":
            return likelihood
        if reduction == "mean":
            return likelihood.mean()
        return likelihood.sum() if reduction == "sum" else likelihood.sum() / lengths.sum()

    def decode(self, emissions: Tensor, mask: Tensor | None = None) -> list[list[int]]:
        self._validate(emissions, mask=mask if mask is None else mask.bool())
        chain, lengths = self._chain(emissions, mask)
        return [row[:length] for row, length in zip(chain.decode().tolist(), lengths.tolist(), strict=True)]

    def _chain(self, emissions: Tensor, mask: Tensor | None) -> tuple[structkd.LinearChainCRF, Tensor]:
        if not self.batch_first:
            emissions, mask = emissions.transpose(0, 1), None if mask is None else mask.transpose(0, 1)
        batch, width = emissions.shape[:2]
        lengths = torch.full((batch,), width) if mask is None else mask.long().sum(1)
        chain = structkd.LinearChainCRF.from_scores(
            emissions, self.transitions.T, self.start_transitions, self.end_transitions, lengths=lengths
        )
        return chain, lengths


ChainLayer.__name__ = ChainLayer.__qualname__ = "CRF"  # in its repr
torchcrf.CRF = ChainLayer
