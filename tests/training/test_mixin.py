"""Distillation in a Trainer of one's own: its loss, the division of it, and where the teacher comes from."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from datasets import Dataset
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from transformers import BertConfig, BertForTokenClassification, TrainingArguments, set_seed

import structkd
from structkd import KDObjective, StructuralKDLoss
from structkd.integrations import from_hf
from structkd.training import DistillationMixin, StoredColumns

LABELS = ["O", "B-X", "I-X"]
#: Words of one or two pieces between 1 ([CLS]) and 2 ([SEP]); the first piece has the label, and one is unlabelled.
SENTENCES = [
    ([1, 5, 6, 7, 2], [-100, 0, 1, -100, -100]),
    ([1, 8, 2], [-100, 2, -100]),
    ([1, 9, 9, 9, 5, 2], [-100, 1, 2, -100, 0, -100]),
    ([1, 7, 6, 2], [-100, 0, 0, -100]),
]


class Tagging(DistillationMixin, transformers.Trainer):
    def distribution(self, outputs: Any, inputs: Any) -> Any:
        return from_hf(outputs, self.model.config, labels=inputs["labels"])


class Chains(DistillationMixin, transformers.Trainer):
    """Transitions belong to the model, and its outputs do not depend on them."""

    def distribution(self, outputs: Any, inputs: Any) -> Any:
        words = from_hf(outputs, self.model.config, labels=inputs["labels"])
        return structkd.LinearChainCRF.from_scores(words.logits, self.model.transitions, lengths=words.lengths)


def classifier(seed: int) -> Any:
    set_seed(seed)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    names = dict(enumerate(LABELS))
    config = BertConfig(vocab_size=10, id2label=names, label2id={n: i for i, n in names.items()}, **sizes)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    model = BertForTokenClassification(config)
    model.transitions = nn.Parameter(torch.eye(3))
    return model


def collate(examples: list[dict[str, Any]], left: bool = False) -> dict[str, torch.Tensor]:
    width = max(len(one["input_ids"]) for one in examples)

    def column(name: str, value: int) -> torch.Tensor:
        padding = [[value] * (width - len(one[name])) for one in examples]
        rows = zip(examples, padding, strict=True)
        return torch.tensor([pad + one[name] if left else one[name] + pad for one, pad in rows])

    return {
        "input_ids": column("input_ids", 0),
        "attention_mask": column("attention_mask", 0),
        "labels": column("labels", -100),
    }


def text(teacher: Any = None) -> Dataset:
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels} for ids, labels in SENTENCES]
    if teacher is not None:
        with torch.no_grad():
            for row in rows:
                inputs = {name: torch.tensor([row[name]]) for name in ("input_ids", "attention_mask")}
                row["teacher_logits"] = teacher.eval()(**inputs).logits[0].tolist()
    return Dataset.from_list(rows)


def trainer(folder: Path, kind: Any = Tagging, data: Dataset | None = None, **options: Any) -> Any:
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, **options.pop("settings", {})}
    arguments = TrainingArguments(
        output_dir=str(folder), optim="sgd", learning_rate=1.0, max_grad_norm=0.0, use_cpu=True, report_to=[],
        disable_tqdm=True, save_strategy="no", logging_strategy="no", lr_scheduler_type="constant", **settings,
    )  # fmt: skip
    options.setdefault("objective", KDObjective(StructuralKDLoss(temperature=2.0), interpolation=0.7))
    student = options.pop("model", None) or classifier(1)
    data = text() if data is None else data
    return kind(student, arguments, train_dataset=data, data_collator=options.pop("collator", collate), **options)


def trained(*arguments: Any, **options: Any) -> dict[str, torch.Tensor]:
    made = trainer(*arguments, **options)
    made.train()
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def test_loss_is_the_objective_over_words(tmp_path: Path) -> None:
    """Of the batch as a whole, divided by its sentences, whichever way a Trainer walks over it."""
    teacher = classifier(9)
    made = trainer(tmp_path, teacher=teacher)
    batch = collate(list(text()))
    loss, outputs = made.compute_loss(made.model, batch, return_outputs=True)
    objective = KDObjective(StructuralKDLoss(temperature=2.0), interpolation=0.7)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    sides = [from_hf(m(**inputs), m.config, labels=batch["labels"]) for m in (teacher.eval(), made.model)]
    gold = torch.full((4, 3), -100)
    for item, (_, labels) in enumerate(SENTENCES):
        words = [label for label in labels if label != -100]
        gold[item, : len(words)] = torch.tensor(words)
    torch.testing.assert_close(loss, objective(*sides, gold))
    assert outputs.logits.shape == (4, 6, 3)


@pytest.mark.parametrize("kind", [Tagging, Chains])
def test_accumulation_and_stored_outputs_change_nothing(tmp_path: Path, kind: Any) -> None:
    """Batches of 3 and 1 sentences as one of 4; and a teacher's outputs from columns as from the teacher."""
    teacher = classifier(9)
    expected = trained(tmp_path, kind, teacher=teacher)
    small = {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    stored = text(teacher) if kind is Tagging else None
    if kind is Tagging:
        found = [
            trained(tmp_path, kind, stored, collator=StoredColumns(collate)),
            trained(tmp_path, kind, stored, collator=StoredColumns(collate), settings=small),
        ]
    else:
        found = [trained(tmp_path, kind, teacher=teacher, settings=small)]
    for weights in found:
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-6)
    moved = (expected["transitions"] - torch.eye(3)).abs().max()
    assert (moved > 1e-3) == (kind is Chains)


def test_the_teacher_is_frozen_and_in_no_checkpoint(tmp_path: Path) -> None:
    teacher = classifier(9).train()
    made = trainer(tmp_path, teacher=teacher)
    made.train()
    made.save_model(str(tmp_path / "saved"))
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert made.model.training
    saved = BertForTokenClassification.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(saved.classifier.weight, made.model.classifier.weight)


def test_a_function_is_a_teacher_and_autocast_changes_little(tmp_path: Path) -> None:
    def annotators(inputs: Any) -> Any:
        words = (inputs["labels"] != -100).sum(1)
        return structkd.Empirical.from_labels(torch.ones(4, 2, 3, dtype=torch.long), lengths=words)

    made = trainer(tmp_path, teacher=annotators)
    batch = collate(list(text()))
    plain = made.compute_loss(made.model, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = made.compute_loss(made.model, batch)
    assert cast.dtype == torch.float32
    torch.testing.assert_close(cast, plain, rtol=0.05, atol=0.05)
    made.train()


def test_evaluation_without_teacher_columns_reports_supervision(tmp_path: Path) -> None:
    teacher = classifier(9)
    settings = {"eval_strategy": "no"}
    made = trainer(tmp_path, Tagging, text(teacher), collator=StoredColumns(collate), settings=settings)
    batch = collate(list(text()))
    metrics = made.evaluate(text())
    made.model.eval()
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    student = from_hf(made.model(**inputs), made.model.config, labels=batch["labels"])
    gold, labelled = made.gold(batch, student)
    assert labelled is None
    assert metrics["eval_loss"] == pytest.approx(float(structkd.supervised_loss(student, gold).detach()), rel=1e-5)
    made.model.train()
    with pytest.raises(ValueError, match="no teacher was given"):
        made.compute_loss(made.model, batch)


@pytest.mark.parametrize("left", [False, True])
def test_stored_columns_have_the_padding_of_the_others(left: bool) -> None:
    batch = StoredColumns(partial(collate, left=left))(list(text(classifier(9))))
    known = batch["teacher_logits"].abs().sum(-1) > 0
    assert torch.equal(known, batch["attention_mask"] == 1)
    own = classifier(9).eval()(input_ids=torch.tensor([SENTENCES[1][0]])).logits
    torch.testing.assert_close(batch["teacher_logits"][1][known[1]], own[0])


def test_gradients_of_transitions_under_ddp(tmp_path: Path) -> None:
    """They come from no output of the module: DDP must see the loss, or it takes them for unused."""
    teacher = classifier(9)
    expected = trainer(tmp_path, Chains, teacher=teacher)
    batch = collate(list(text()))
    expected.compute_loss(expected.model.train(), batch).backward()
    made = trainer(tmp_path, Chains, teacher=teacher)
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(made.model.train(), find_unused_parameters=True)
        for _ in range(2):  # a parameter that was taken for unused would fail now
            wrapped.zero_grad()
            made.compute_loss(wrapped, batch).backward()
        for one, other in zip(made.model.parameters(), expected.model.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad)
    finally:
        torch.distributed.destroy_process_group()


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="KDObjective, got str"):
        trainer(tmp_path, objective="structural")
    with pytest.raises(TypeError, match="teacher must be a module"):
        trainer(tmp_path, teacher="folder")

    class Unwritten(DistillationMixin, transformers.Trainer):
        pass

    made = trainer(tmp_path, Unwritten, teacher=classifier(9))
    with pytest.raises(NotImplementedError, match="Unwritten needs a method distribution"):
        made.compute_loss(made.model, collate(list(text())))
    student = structkd.MaxEnt(torch.zeros(4, 2, 3))
    with pytest.raises(ValueError, match=r"mark \[2, 1, 3, 2\] words"):
        made.gold(collate(list(text())), student)
    with pytest.raises(ValueError, match="has 9 positions in an example of 3"):
        StoredColumns(collate)([{**text()[1], "teacher_logits": torch.zeros(9, 3)}])
