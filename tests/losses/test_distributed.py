"""Under DistributedDataParallel a loss has the value and the gradient it has without."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.parallel import DistributedDataParallel

import structkd


def test_loss_under_ddp(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        lengths = torch.tensor([4, 1, 3])
        inputs = torch.randn(3, 4, 6, dtype=torch.float64)
        teacher = structkd.LinearChainCRF.from_scores(
            torch.randn(3, 4, 5, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64), lengths=lengths
        )
        plain = torch.nn.Linear(6, 5, dtype=torch.float64)
        wrapped = DistributedDataParallel(plain)
        results = []
        for model in (plain, wrapped):
            plain.zero_grad()
            loss = structkd.structural_kd_loss(teacher, structkd.MaxEnt(model(inputs), lengths), temperature=2.0)
            loss.backward()
            results.append((loss.detach(), plain.weight.grad.clone()))
        for alone, parallel in zip(*results, strict=True):
            assert torch.allclose(alone, parallel, rtol=1e-12)
        assert results[0][1].abs().max() > 0
    finally:
        torch.distributed.destroy_process_group()
