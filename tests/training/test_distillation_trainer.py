"""The Trainer subclass: its loss, its accumulation, its determinism, and what it leaves on disk."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import TrainingArguments, set_seed

from structkd import ConstantInterpolation, KDObjective, LinearAnnealing, structural_kd_loss, supervised_loss
from structkd.data import TagAnnotation
from structkd.evaluation import compute_metrics, counts
from structkd.models import BiLSTMRecipe, Tagger, TaggerRecipe
from structkd.training import (
    DistillationTrainer,
    TeacherScores,
    fit,
    predict,
    pseudo_label_loss,
    training_arguments,
    training_text,
)

LABELS = ("O", "B-X", "I-X", "E-X", "S-X")
ANNOTATION = TagAnnotation(LABELS)
WORDS = ["ab", "abc", "ba", "cab", "bca", "cc", "a"]


def text(count: int, seed: int, labelled: bool = True) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    tokens, labels = [], []
    for _ in range(count):
        length = int(torch.randint(1, 9, (), generator=generator))
        numbers = torch.randint(len(WORDS), (length,), generator=generator).tolist()
        tokens.append([WORDS[number] for number in numbers])
        labels.append([number % len(LABELS) if labelled else -100 for number in numbers])
    return Dataset.from_dict({"id": [f"s{seed}-{row}" for row in range(count)], "tokens": tokens, "labels": labels})


def tagger(head: str, seed: int = 0, annotation: TagAnnotation = ANNOTATION, **settings) -> Tagger:
    set_seed(seed)
    sizes = {"word_size": 6, "character_size": 4, "character_filters": 4, "hidden_size": 6, "layers": 1} | settings
    return TaggerRecipe(head=head, encoder=BiLSTMRecipe(**sizes)).create(annotation, text(20, 0), text(20, 0))


def arguments(folder: Path, **settings) -> TrainingArguments:
    defaults = {"max_steps": 2, "report_to": "none", "learning_rate": 0.1, "eval_steps": 2, "logging_steps": 1}
    return training_arguments(defaults | settings, folder, seed=3, metric="accuracy")


STRUCTURAL = KDObjective(structural_kd_loss, supervised_loss, LinearAnnealing(1.0, 0.5))
SUPERVISED = KDObjective(None, supervised_loss, ConstantInterpolation(0.0))


def distilling(folder: Path, head: str = "maxent", count: int = 24, **settings) -> DistillationTrainer:
    train = training_text(ANNOTATION, text(count // 2, 1), text(count - count // 2, 2, labelled=False))
    scores = TeacherScores.compute(tagger("crf", seed=9), train, progress=False)
    student = tagger(head, locked_dropout=0.0, word_dropout=0.0)
    return DistillationTrainer(
        student, arguments(folder, **settings), train, text(6, 3), objective=STRUCTURAL, teacher=scores
    )


@pytest.mark.parametrize("head", ["crf", "maxent"])
def test_accumulated_small_batches_give_the_gradient_of_one_large_batch(head: str, tmp_path: Path) -> None:
    """2 x 4 sentences, labelled and unlabelled, of different lengths, against 8 at once."""
    weights = []
    for name, settings in (
        ("large", {"per_device_train_batch_size": 8}),
        ("small", {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}),
    ):
        trainer = distilling(
            tmp_path / name, head, count=8, optim="sgd", max_grad_norm=0.0, max_steps=1, eval_steps=1, **settings
        )
        before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
        trainer.train()
        weights.append({name: value - before[name] for name, value in trainer.model.state_dict().items()})
    assert any(step.abs().max() > 1e-3 for step in weights[0].values())
    for name, step in weights[0].items():
        torch.testing.assert_close(step, weights[1][name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("head", ["crf", "maxent"])
def test_loss_is_the_objective_of_live_distributions(head: str, tmp_path: Path) -> None:
    trainer = distilling(tmp_path, head)
    trainer.state.max_steps, trainer.state.global_step = 10, 4
    rows = [trainer.train_dataset[row] for row in (0, 20, 5, 13)]
    batch = trainer.data_collator(rows)
    loss = trainer.compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(10))
    teacher, student = tagger("crf", seed=9).eval(), trainer.model
    inputs = student.encode(rows)
    lengths = inputs["lengths"]
    with torch.no_grad():
        target = teacher.distribution(teacher(**inputs), lengths)
    prediction = student.distribution(student(**inputs), lengths)
    weight = 1.0 - 0.5 * 0.4
    expected = weight * structural_kd_loss(target, prediction, reduction="none").sum()
    for item, row in enumerate(rows):
        if row["labelled"]:
            gold = torch.tensor([row["labels"]])
            alone = student.distribution(student(**student.encode([row])), lengths[item : item + 1])
            expected = expected + (1 - weight) * supervised_loss(alone, gold, reduction="sum")
    torch.testing.assert_close(loss, expected / 10)


def test_schedule_follows_the_global_step(tmp_path: Path) -> None:
    seen = []

    def schedule(progress: float) -> float:
        seen.append(progress)
        return 0.5

    train = training_text(ANNOTATION, text(16, 1))
    trainer = DistillationTrainer(
        tagger("maxent"),
        arguments(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2, max_steps=4, eval_steps=4),
        train,
        text(4, 3),
        objective=KDObjective(structural_kd_loss, supervised_loss, schedule),
        teacher=TeacherScores.compute(tagger("crf", seed=9), train, progress=False),
    )
    trainer.train()
    assert seen == [0.0, 0.0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]


def test_teacher_is_in_no_checkpoint(tmp_path: Path) -> None:
    trainer = distilling(tmp_path)
    trainer.train()
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    weights = load_file(checkpoint / "model.safetensors")
    assert weights.keys() == trainer.model.state_dict().keys()
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    assert size < 10 * sum(value.numel() * 4 for value in weights.values()) + 60_000
    assert Tagger.from_pretrained(checkpoint).features == trainer.model.features


def test_same_seed_same_weights_and_best_model_is_restored(tmp_path: Path) -> None:
    results = []
    for name in ("first", "second"):
        train = training_text(ANNOTATION, text(24, 1))
        model = tagger("crf")
        result = fit(
            model,
            train,
            text(12, 3),
            objective=SUPERVISED,
            settings={
                "max_steps": 12,
                "eval_steps": 3,
                "per_device_train_batch_size": 8,
                "learning_rate": 0.3,
                "report_to": "none",
            },
            folder=tmp_path / name,
            seed=5,
        )
        results.append((model, result))
    (one, first), (two, second) = results
    assert first.history == second.history
    assert len(first.history) == 4
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
    assert first.best_dev == max(entry["accuracy"] for entry in first.history)
    dev = text(12, 3)
    predicted = [columns["labels"] for columns in predict(one, dev)]
    gold = dev["labels"][:]
    right = sum(a == b for x, y in zip(gold, predicted, strict=True) for a, b in zip(x, y, strict=True))
    assert right / sum(map(len, gold)) == pytest.approx(first.best_dev)


def test_the_last_model_is_kept_where_dev_must_not_choose(tmp_path: Path) -> None:
    settings = {"eval_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 0.3, "report_to": "none"}
    common = {"objective": SUPERVISED, "seed": 5, "select": "last"}
    model = tagger("crf")
    train, dev = training_text(ANNOTATION, text(24, 1)), text(12, 3)
    result = fit(model, train, dev, settings=settings | {"max_steps": 12}, folder=tmp_path / "12", **common)
    assert (result.best_step, result.best_dev, len(result.history)) == (12, None, 4)
    right = compute_metrics(counts(ANNOTATION, [{"labels": labels} for labels in dev["labels"]], predict(model, dev)))
    assert right["accuracy"] == pytest.approx(result.history[-1]["accuracy"])
    with pytest.raises(ValueError, match="patience"):
        fit(model, train, dev, settings=settings, folder=tmp_path / "p", patience=2, **common)
    with pytest.raises(ValueError, match=r"'first'.*best, last"):
        training_arguments(settings, tmp_path, 0, "accuracy", select="first")


def test_evaluation_counts_every_sentence_once_and_obeys_legality(tmp_path: Path) -> None:
    model = tagger("maxent", annotation=TagAnnotation(LABELS, "BIOES"))
    with torch.no_grad():
        model.emission.weight.zero_()
        model.emission.bias.copy_(torch.tensor([1.0, 0.0, 9.0, 0.0, 0.0]))  # I-X everywhere, were it legal
    train = training_text(ANNOTATION, text(8, 1))
    dev = text(13, 3)
    trainer = DistillationTrainer(model, arguments(tmp_path), train, dev, objective=SUPERVISED)
    decoded = [columns["labels"] for columns in predict(model, dev)]
    for labels in decoded:
        expected = [0] * len(labels) if len(labels) < 3 else [1, *[2] * (len(labels) - 2), 3]
        assert labels == expected
    metrics = trainer.evaluate()
    pairs = [pair for gold, guess in zip(dev["labels"], decoded, strict=True) for pair in zip(gold, guess, strict=True)]
    assert metrics["eval_accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / len(pairs))
    assert {"eval_f1", "eval_precision", "eval_recall"} <= metrics.keys()


def test_refused_before_training(tmp_path: Path) -> None:
    train = training_text(ANNOTATION, text(8, 1))
    scores = TeacherScores.compute(tagger("crf", seed=9), train, progress=False)
    with pytest.raises(ValueError, match="8 sentences, and the training text has 7"):
        DistillationTrainer(
            tagger("crf"), arguments(tmp_path), train.select(range(7)), None, objective=STRUCTURAL, teacher=scores
        )
    with pytest.raises(TypeError, match="Unknown trainer setting 'lerning_rate'"):
        arguments(tmp_path, lerning_rate=1.0)
    with pytest.raises(TypeError, match="'save_total_limit' is fixed"):
        arguments(tmp_path, save_total_limit=1)


def test_training_text_names_the_sentence_that_is_half_labelled() -> None:
    half = text(3, 1).to_dict()
    half["tokens"][1], half["labels"][1] = ["ab", "ab"], [0, -100]
    with pytest.raises(ValueError, match="'s1-1' has 1 labels for 2 words"):
        training_text(ANNOTATION, Dataset.from_dict(half))
    with pytest.raises(ValueError, match=r"'s2-0'.*expected none"):
        training_text(ANNOTATION, text(3, 1), text(1, 2))
    with pytest.raises(ValueError, match="no training text"):
        training_text(ANNOTATION, text(0, 1))


class TestTargets:
    @pytest.mark.parametrize("head", ["crf", "maxent"])
    def test_rebuild_the_live_distribution(self, head: str) -> None:
        teacher = tagger(head, seed=9)
        with torch.no_grad():
            for parameter in teacher.parameters():
                parameter.add_(torch.randn_like(parameter))
        sentences = text(17, 4)
        teacher.train()
        scores = TeacherScores.compute(teacher, sentences, batch_size=5, progress=False)
        assert teacher.training
        assert all(parameter.requires_grad and parameter.grad is None for parameter in teacher.parameters())
        teacher.eval()
        rows = [16, 0, 3, 3, 8]
        batch = teacher.encode([sentences[row] for row in rows])
        with torch.no_grad():
            live = teacher.distribution(teacher(**batch), batch["lengths"])
        stored = scores.distribution(scores.batch(rows), batch["lengths"])
        torch.testing.assert_close(stored.marginals, live.marginals)
        torch.testing.assert_close(stored.partition, live.partition)
        assert not stored.partition.requires_grad
        assert tuple(stored.labels) == LABELS

    def test_are_small(self) -> None:
        teacher = tagger("crf", seed=9)
        sentences = text(10, 4)
        scores = TeacherScores.compute(teacher, sentences, progress=False)
        emissions = scores.shards[0]["emissions"]
        assert emissions.shape == (sum(map(len, sentences["tokens"])), len(LABELS))
        assert emissions.dtype == torch.float32
        assert {name: tuple(value.shape) for name, value in scores.shared.items()} == {
            "transitions": (5, 5),
            "start": (5,),
            "end": (5,),
        }


@pytest.mark.parametrize("head", ["crf", "maxent"])
def test_pseudo_labels_are_the_teachers_one_best(head: str) -> None:
    teacher, student = tagger("crf", seed=9).eval(), tagger(head).eval()
    batch = teacher.encode(list(text(6, 4)))
    target = teacher.distribution(teacher(**batch), batch["lengths"])
    prediction = student.distribution(student(**batch), batch["lengths"])
    loss = pseudo_label_loss(target, prediction, reduction="none")
    best = target.decode().clamp(min=0)
    torch.testing.assert_close(loss, supervised_loss(prediction, best, reduction="none"))
    assert loss.shape == (6,)
