"""The Lightning recipe of docs/model.md trains: with Lightning itself if it is installed, else with a stand-in."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

PAGE = Path(__file__).resolve().parents[2] / "docs" / "model.md"


class StandIn(torch.nn.Module):
    """The part of a LightningModule that the recipe uses."""

    global_step = 0
    device = torch.device("cpu")

    def log(self, name: str, value: torch.Tensor, **options: Any) -> None:
        assert value.isfinite()


def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    if importlib.util.find_spec("lightning") is None:
        module, package = ModuleType("lightning.pytorch"), ModuleType("lightning")
        module.LightningModule = StandIn  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "lightning", package)
        monkeypatch.setitem(sys.modules, "lightning.pytorch", module)
    names: dict[str, Any] = {}
    (block,) = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.S | re.M)
    exec(compile(block, "recipe", "exec"), names)
    return names["Distilled"]


def test_the_recipe_trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher, student = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    module = recipe(monkeypatch)(teacher, student, steps=20)
    lengths = torch.tensor([5, 2, 1, 4])
    batch = torch.randn(4, 5, 4), lengths, torch.randint(3, (4, 5))
    before = float(module.training_step(batch, 0).detach()) if isinstance(module, StandIn) else None
    weight = student.weight.detach().clone()
    if isinstance(module, StandIn):
        optimizer = module.configure_optimizers()
        for module.global_step in range(20):
            optimizer.zero_grad()
            module.training_step(batch, module.global_step).backward()
            optimizer.step()
        module.global_step = 0
        assert before is not None
        assert float(module.training_step(batch, 0).detach()) < before
    else:
        import lightning.pytorch as lightning

        loader = DataLoader(TensorDataset(*batch), batch_size=2)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        lightning.Trainer(max_steps=4, accelerator="cpu", default_root_dir=tmp_path, **options).fit(module, loader)
    assert not torch.equal(student.weight, weight)
    assert module.transitions.grad is not None
    assert not any(name.startswith("teacher") for name in module.state_dict())
