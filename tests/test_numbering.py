"""Roots, words without gold and padding by the numbers of `structkd.numbering`, and nowhere else."""

from __future__ import annotations

import ast
import doctest
from pathlib import Path

import torch

from structkd import numbering
from structkd.numbering import NOWHERE, UNLABELLED, to_conllu, to_own_index

SOURCE = Path(numbering.__file__).parent


def test_the_examples_hold() -> None:
    assert doctest.testmod(numbering).failed == 0


def test_there_and_back() -> None:
    heads = torch.tensor([[2, 0, 2, 5, 3], [0, 1, NOWHERE, UNLABELLED, UNLABELLED]])
    own = to_own_index(heads)
    assert own.tolist() == [[1, 1, 1, 4, 2], [0, 0, NOWHERE, UNLABELLED, UNLABELLED]]
    assert torch.equal(to_conllu(own), heads)
    assert to_own_index(torch.empty(0, dtype=torch.long)).tolist() == []


def test_the_number_of_unknown_gold_is_written_once() -> None:
    written = [
        path.name
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
        and node.operand.value == -UNLABELLED
    ]
    assert written == ["numbering.py"]
