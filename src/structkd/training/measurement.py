"""Measurements of trained models: their divergence from the teacher, and their speed."""

from __future__ import annotations

import time
from collections.abc import Mapping

import torch
from datasets import Dataset

from structkd import Mixture, structural_kd_loss
from structkd.models import StructuredModel
from structkd.training.prediction import predict
from structkd.training.sampling import SortedSampler
from structkd.training.teacher_scores import Teacher, sentence_lengths

__all__ = ["divergence", "words_per_second"]


def divergence(student: StructuredModel, teacher: Teacher, text: Dataset, batch_size: int = 64) -> dict[str, float]:
    """Compute KL(teacher || student) over the structures of every sentence, in nats, at temperature 1.

    It is the structural distillation loss less the teacher's entropy, both exact (Wang et al., 2021, eq. 2). If the
    student cannot express some of the teacher's structures (a head that no label names), the loss conditions the
    teacher on the others; the entropy that is subtracted stays that of the whole teacher.

    Args:
        student: a trained model, on the CPU.
        teacher: of the sentences of ``text``.
        text: the columns that the student reads.
        batch_size: sentences in a batch.

    Returns:
        ``kl``, the mean over sentences, and ``kl_per_word``.

    Raises:
        NotImplementedError: the teacher's entropy is not tractable, as that of a mixture.
    """
    lengths = sentence_lengths(text).tolist()
    order = list(SortedSampler(lengths))
    total, was_training = 0.0, student.training
    student.eval()
    try:
        for cut in range(0, len(order), batch_size):
            rows = order[cut : cut + batch_size]
            batch = {
                name: value.to(student.device) for name, value in student.encode([text[row] for row in rows]).items()
            }
            with torch.no_grad():
                given = teacher.distribution(teacher.batch(rows), batch["lengths"])
                if isinstance(given, Mixture):
                    raise NotImplementedError(
                        "The entropy of a mixture of structured distributions is not tractable. Measure against one "
                        "teacher."
                    )
                learner = student.distribution(student.scores(student(**batch)), batch["lengths"])
                loss = structural_kd_loss(given, learner, reduction="none")
                total += float((loss.double() - given.entropy.double()).sum())
    finally:
        student.train(was_training)
    return {"kl": total / len(lengths), "kl_per_word": total / sum(lengths)}


def words_per_second(models: Mapping[str, StructuredModel], text: Dataset, rounds: int = 2) -> dict[str, float]:
    """Measure how many words per second of one core's time each model annotates.

    The time runs from prepared inputs to decoded structures. The models take turns, so that other work on the machine
    disturbs all of them equally; CPU time is counted, and the fastest round counts. An uncounted round comes first: in
    it sentences are prepared (models cache them) and kernels compiled. torch uses one thread meanwhile.

    Args:
        models: by name, on the CPU.
        text: to be annotated.
        rounds: that count, for every model.
    """
    words = sum(len(tokens) for tokens in text["tokens"])
    best = dict.fromkeys(models, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for turn in range(1 + rounds):
            for name, model in models.items():
                begun = time.process_time()
                predict(model, text)
                if turn > 0:
                    best[name] = min(best[name], time.process_time() - begun)
    finally:
        torch.set_num_threads(threads)
    return {name: words / seconds for name, seconds in best.items()}
