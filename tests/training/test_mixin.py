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
from structkd.training import DistillationMixin, StoredColumns, TokenCollator, encode_words

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

    def teacher_distribution(self, inputs: Any) -> Any:
        words = from_hf(self.teacher_outputs(inputs), self.teacher.config, labels=inputs["labels"])
        return structkd.LinearChainCRF.from_scores(words.logits, self.teacher.transitions, lengths=words.lengths)


class Masked(DistillationMixin, transformers.Trainer):
    """Words by `word_mask`; evaluation of decoded words."""

    decode_predictions = True

    def distribution(self, outputs: Any, inputs: Any) -> Any:
        return from_hf(outputs, self.model.config, mask=inputs["word_mask"])


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
    for size in (9, 1):  # more than positions, and as many as words
        with pytest.raises(ValueError, match=rf"has {size} positions in an example of 3.*not per word"):
            StoredColumns(collate)([{**text()[1], "teacher_logits": torch.zeros(size, 3)}])
    with pytest.raises(TypeError, match=r"class Second\(DistillationMixin, transformers.Trainer\)"):

        class Second(transformers.Trainer, DistillationMixin):  # type: ignore[misc]
            pass

    with pytest.raises(TypeError, match="got the class StructuralKDLoss"):
        trainer(tmp_path, objective=StructuralKDLoss)


def test_a_loss_alone_is_an_objective_of_distillation_alone(tmp_path: Path) -> None:
    batch = collate(list(text()))
    losses = []
    for objective in (StructuralKDLoss(), structkd.structural_kd_loss, KDObjective(StructuralKDLoss(), None, 1.0)):
        made = trainer(tmp_path, teacher=classifier(9), objective=objective)
        losses.append(made.compute_loss(made.model, batch))
    assert losses[0] == losses[1] == losses[2] > 0


def test_a_teacher_with_names_or_parameters_of_its_own(tmp_path: Path) -> None:
    """One method for both outputs would give the teacher the student's names and transitions."""
    teacher, batch = classifier(9), collate(list(text()))
    teacher.config.id2label = dict(enumerate(["O", "I-X", "B-X"]))
    made = trainer(tmp_path, teacher=teacher)
    with pytest.raises(ValueError, match=r"\['O', 'I-X', 'B-X'\].*Write Tagging.teacher_distribution"):
        made.compute_loss(made.model, batch)

    class Named(Tagging):
        def teacher_distribution(self, inputs: Any) -> Any:
            own = from_hf(self.teacher_outputs(inputs), self.teacher.config, labels=inputs["labels"])
            return structkd.relabel(own, {}, labels=LABELS)

    made = trainer(tmp_path, Named, teacher=teacher)
    same = classifier(9)
    with torch.no_grad():  # the same teacher in the student's order
        for tensor in (same.classifier.weight, same.classifier.bias):
            tensor[:] = tensor[[0, 2, 1]]
    expected = trainer(tmp_path, teacher=same)
    torch.testing.assert_close(made.compute_loss(made.model, batch), expected.compute_loss(expected.model, batch))

    class Shared(Chains):
        teacher_distribution = DistillationMixin.teacher_distribution

    made = trainer(tmp_path, Shared, teacher=classifier(9))
    with pytest.warns(UserWarning, match="student's parameter 'transitions'"):
        made.compute_loss(made.model, batch)
    broken = trainer(tmp_path, teacher=nn.Identity())
    broken.teacher_outputs = lambda inputs: torch.zeros(4, 6, 2)
    with pytest.raises(ValueError, match="id2label") as raised:
        broken.compute_loss(broken.model, batch)
    assert "while the teacher's distribution was built" in raised.value.__notes__[0]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ana", "lee", "sing", "##s", "well"]
    return transformers.BertTokenizer({piece: number for number, piece in enumerate(pieces)})


def rows(tokenizer: Any) -> list[dict[str, Any]]:
    """A labelled sentence, an unlabelled one, and one of which a word's label is not known."""
    return [
        encode_words(tokenizer, ["ana", "sings"], [1, 0]),
        encode_words(tokenizer, ["lee", "sings", "well"]),
        encode_words(tokenizer, ["ana", "lee", "sings"], [1, -100, 0]),
    ]


def test_labelled_and_unlabelled_sentences_in_one_training(tmp_path: Path, tokenizer: Any) -> None:
    """From words to batches, with the Trainer's own removal of columns, and no edit of the mixin's hooks."""
    data, teacher = Dataset.from_list(rows(tokenizer)), classifier(9)
    made = trainer(tmp_path, Masked, data, collator=TokenCollator(tokenizer), teacher=teacher)
    (batch,) = made.get_train_dataloader()
    assert set(batch) >= {"word_mask", "labels", "token_type_ids"}
    batch = TokenCollator(tokenizer)(rows(tokenizer))
    loss = made.compute_loss(made.model, batch)
    inputs = {name: value for name, value in batch.items() if name not in ("labels", "word_mask")}
    sides = [from_hf(m(**inputs), m.config, mask=batch["word_mask"]) for m in (teacher.eval(), made.model)]
    gold = torch.tensor([[1, 0, 0], [-100, -100, -100], [1, -100, 0]])
    objective = KDObjective(StructuralKDLoss(temperature=2.0), interpolation=0.7)
    torch.testing.assert_close(loss, objective(*sides, gold, labelled=torch.tensor([True, False, True])))
    made.train()


def test_metrics_of_decoded_words(tmp_path: Path, tokenizer: Any) -> None:
    seen: list[Any] = []

    def keep(evaluation: Any) -> dict[str, float]:
        seen.append(evaluation)
        return {}

    made = trainer(
        tmp_path, Masked, Dataset.from_list(rows(tokenizer)), collator=TokenCollator(tokenizer), compute_metrics=keep,
        settings={"per_device_eval_batch_size": 2},
    )  # fmt: skip
    made.evaluate(Dataset.from_list(rows(tokenizer)))
    batch = TokenCollator(tokenizer)(rows(tokenizer))
    best = made.distribution(made.model.eval()(**made.model_inputs(batch)), batch).decode()
    found = torch.from_numpy(seen[0].predictions)
    assert torch.equal(found.clamp_min(-1), best)
    assert seen[0].label_ids.tolist() == [[1, 0, -100], [-100, -100, -100], [1, -100, 0]]
    unlabelled = Dataset.from_list(rows(tokenizer)).remove_columns("labels")
    assert made.predict(unlabelled).predictions.shape == (3, 3)


def test_a_teacher_may_have_a_tokenizer_of_its_own(tmp_path: Path, tokenizer: Any) -> None:
    class Own(Masked):
        def teacher_distribution(self, inputs: Any) -> Any:
            return from_hf(self.teacher_outputs(inputs), self.teacher.config, mask=inputs["teacher_word_mask"])

    pairs = rows(tokenizer)
    for row, words in zip(pairs, (["ana", "sing"], ["lee", "sings", "well"], ["well", "lee", "sing"]), strict=True):
        own = encode_words(tokenizer, words)
        row.update({f"teacher_{name}": own[name] for name in ("input_ids", "attention_mask", "word_mask")})
    batch = TokenCollator(tokenizer)(pairs)
    sizes = [len(row["teacher_input_ids"]) for row in pairs]
    assert batch["teacher_attention_mask"].sum(1).tolist() == sizes
    assert batch["teacher_input_ids"].shape == (3, max(sizes))
    teacher = classifier(9)
    made = trainer(tmp_path, Own, Dataset.from_list(pairs), collator=TokenCollator(tokenizer), teacher=teacher)
    outputs = teacher.eval()(batch["teacher_input_ids"], attention_mask=batch["teacher_attention_mask"])
    torch.testing.assert_close(made.teacher_outputs(batch).logits, outputs.logits)
    made.train()
    made = trainer(tmp_path, teacher=teacher)
    with pytest.raises(ValueError, match=r"\['teacher_logits'\].*Give teacher=None"):
        made.teacher_outputs({**collate(list(text())), "teacher_logits": torch.zeros(4, 6, 3)})


def test_rows_and_columns_that_cannot_be_words(tokenizer: Any) -> None:
    with pytest.raises(TypeError, match="list of strings"):
        encode_words(tokenizer, "ana sings")
    with pytest.raises(ValueError, match="2 words and 1 labels"):
        encode_words(tokenizer, ["ana", "sings"], [1])
    with pytest.raises(ValueError, match=r"no piece of the word\(s\) \[' '\]"):
        encode_words(tokenizer, ["ana", " "], [1, 0])
    cut = encode_words(tokenizer, ["ana", "sings"], [1, 0], truncation=True, max_length=3)
    assert cut["labels"] == [-100, 1, -100]
    collator = TokenCollator(tokenizer)
    with pytest.raises(ValueError, match=r"\['tokens'\].*remove_columns"):
        collator([{**row, "tokens": ["a"]} for row in rows(tokenizer)])
    with pytest.raises(ValueError, match="'labels' must have one entry per position, and has 2 entries"):
        collator([{**rows(tokenizer)[0], "labels": [1, 0]}])
    plain = [{name: value for name, value in row.items() if name != "labels"} for row in rows(tokenizer)]
    mixed = collator([rows(tokenizer)[0], *plain[1:]])
    assert mixed["labels"][1:].eq(-100).all()
    numbers = [{**row, "word_ids": [None] * len(row["input_ids"])} for row in rows(tokenizer)]
    assert [len(row) for row in collator(numbers)["word_ids"]] == [mixed["input_ids"].shape[1]] * 3
