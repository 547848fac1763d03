"""What distillation adds to a training step of a small tagger."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch

import structkd
from structkd.models import BiLSTMRecipe

LABELS = ["O", *(f"{place}-{kind}" for kind in ("LOC", "MISC", "ORG", "PER") for place in "BIES")]
BATCH = 16

SUPERVISED, DISTILLED, MIXED = "supervised", "distilled", "half distilled, half supervised"


def steps(head: str) -> dict[str, Callable[[], Any]]:
    """Training steps of one BiLSTM tagger on one batch: zero_grad, forward, loss, backward, optimiser.

    16 sentences of 18 to 32 words; the teacher's scores for them are at hand. The losses are made as the trainer makes
    them, value checks and all.
    """
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 10))) for _ in range(2000)]
    sentences = [draw.choices(vocabulary, k=draw.randint(18, 32)) for _ in range(BATCH)]
    torch.manual_seed(0)
    student = BiLSTMRecipe(head=head, hidden_size=64).create(LABELS, sentences)
    student.train()
    assert student.features is not None
    batch = student.features.encode(sentences)
    lengths = batch["lengths"]
    size, words = len(LABELS), int(lengths.max())
    teacher_scores = {"emissions": torch.randn(BATCH, words, size)}
    if head == "crf":
        teacher_scores |= {"transitions": torch.randn(size, size), "start": torch.randn(size), "end": torch.randn(size)}
    gold = torch.randint(size, (BATCH, words))
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3)

    def training_step(objective: structkd.KDObjective, distils: bool) -> Callable[[], Any]:
        def run() -> None:
            optimiser.zero_grad()
            given = student.distribution(student(**batch), lengths)
            teacher = student.distribution(teacher_scores, lengths) if distils else None
            objective(teacher, given, gold).backward()
            optimiser.step()

        return run

    distillation = structkd.structural_kd_loss
    return {
        SUPERVISED: training_step(structkd.KDObjective(None, structkd.supervised_loss), False),
        DISTILLED: training_step(structkd.KDObjective(distillation, interpolation=1.0), True),
        MIXED: training_step(structkd.KDObjective(distillation, structkd.supervised_loss, 0.5), True),
    }
