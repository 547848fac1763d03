"""pytorch-crf's layer beside the distribution that structkd.integrations reads from it, on random scores in float64."""

from __future__ import annotations

import pytest
import torch
import torchcrf

from structkd.integrations import from_pytorch_crf

LENGTHS = torch.tensor([6, 1, 4, 3])
MASK = torch.arange(6) < LENGTHS.unsqueeze(1)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "time-first"])
def test_the_adaptor_reads_the_layer(seed: int, batch_first: bool) -> None:
    torch.manual_seed(seed)
    layer = torchcrf.CRF(5, batch_first=batch_first).double()
    torch.nn.init.normal_(layer.transitions)
    emissions, gold = torch.randn(4, 6, 5, dtype=torch.float64, requires_grad=True), torch.randint(5, (4, 6))
    given = [tensor if batch_first else tensor.transpose(0, 1) for tensor in (emissions, gold, MASK)]
    chain = from_pytorch_crf(layer, given[0], given[2])
    likelihoods = chain.log_prob(gold), layer(given[0], given[1], mask=given[2], reduction="none")
    torch.testing.assert_close(*likelihoods, rtol=1e-10, atol=1e-10)
    leaves = (emissions, *layer.parameters())
    for ours, theirs in zip(*(torch.autograd.grad(each.sum(), leaves) for each in likelihoods), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    rows = [row[:length] for row, length in zip(chain.decode().tolist(), LENGTHS.tolist(), strict=True)]
    assert rows == layer.decode(given[0], mask=given[2])
