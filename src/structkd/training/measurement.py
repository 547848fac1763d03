"""Measurements of trained models and of teachers: divergences, the quality of targets, and speed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from structkd import HeadLabeling, LinearChainCRF, Mixture, structural_kd_loss
from structkd.evaluation import compute_metrics, counts
from structkd.models import StructuredModel
from structkd.training.prediction import predict
from structkd.training.sampling import SortedSampler
from structkd.training.teacher_scores import Teacher, sentence_lengths

__all__ = ["divergence", "share_of_illegal", "targets_metric", "transition_kl", "words_per_second"]

#: Teachers whose legal tag sequences have a smaller probability are warned of.
_LEAST_LEGAL = math.log(1e-6)


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
        NotImplementedError: the teacher's entropy is not tractable, as that of a mixture or of mapped labels.
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
                given = student.conditioned(teacher.distribution(teacher.batch(rows), batch["lengths"]))
                entropy = getattr(given, "entropy", None)
                if not isinstance(entropy, Tensor):  # a mixture, or a teacher whose labels are mapped to the data's
                    raise NotImplementedError(
                        f"The entropy of a {type(given).__name__} of structured distributions is not tractable."
                    )
                learner = student.distribution(student.scores(student(**batch)), batch["lengths"])
                loss = structural_kd_loss(given, learner, reduction="none")
                total += float((loss.double() - entropy.double()).sum())
    finally:
        student.train(was_training)
    return {"kl": total / len(lengths), "kl_per_word": total / sum(lengths)}


def transition_kl(teacher: Teacher, text: Dataset, batch_size: int = 64) -> float | None:
    """Compute KL(marginals || softmaxed emissions) of a CRF teacher, in nats a word.

    It says how much transitions contribute to the teacher's distributions of words. If it is near 0, the teacher is a
    CRF in name only, and structural distillation has little to add to that of words. If the teacher is conditioned on
    legal sequences, so are its emissions.

    Args:
        teacher: of the sentences of ``text``.
        text: the column ``tokens``.
        batch_size: sentences in a batch.

    Returns:
        The mean over words; None for a teacher without transitions.
    """
    total, words = 0.0, 0
    for rows, lengths in _batches(text, batch_size):
        given = teacher.distribution(teacher.batch(rows), lengths)
        if not isinstance(given, LinearChainCRF) or not given.factored or given.over_words:
            return None
        emissions: Any = given.alone()
        total += float(given.posterior().kl(emissions.posterior()).sum())
        words += int(lengths.sum())
    return total / words if words else None


def share_of_illegal(
    student: StructuredModel, teacher: Teacher, text: Dataset, batch_size: int = 64, most: int = 2000
) -> float:
    """Return the share of sentences in which a teacher gives the student's structures less than 1e-6 of probability.

    Args:
        student: conditions its teacher (:meth:`~structkd.models.StructuredModel.conditioned`), or the share is 0.
        teacher: of the sentences of ``text``.
        text: the column ``tokens``.
        batch_size: sentences in a batch.
        most: sentences that are looked at, from the whole text.
    """
    low = seen = 0
    for rows, lengths in _batches(text, batch_size, most):
        given = teacher.distribution(teacher.batch(rows), lengths)
        several = isinstance(given, Mixture)
        parts = given.components if several else [given]
        weights = given.weights if several else [1.0]
        legal = torch.zeros(len(rows), dtype=torch.float64)
        changed = False
        for weight, part in zip(weights, parts, strict=True):
            kept = student.conditioned(part)
            changed |= kept is not part
            if kept is part or not hasattr(part, "partition"):
                legal += weight
            else:
                legal += weight * (kept.partition.double() - part.partition.double()).exp()
        if not changed:
            return 0.0
        low += int((legal.log() < _LEAST_LEGAL).sum())
        seen += len(rows)
    return low / seen if seen else 0.0


def targets_metric(
    student: StructuredModel,
    loss: Callable[..., Tensor],
    teacher: Teacher,
    text: Dataset,
    batch_size: int = 64,
) -> float | None:
    """Decode the targets of a method by the student's decoder, and return their figure on annotated text.

    The targets are the teacher's probabilities of the labels of every word, as the loss presents them to the student.
    They are read off its gradient: of a cross-entropy at temperature T, that is T (P_s - P_t) for every word and label
    (Wang et al., 2021, section 3). A student that imitated them exactly would decode as they do, so that the figure
    predicts which method has more to teach.

    Args:
        student: gives inputs, decoder and annotation; its weights do not matter.
        loss: callable (teacher, student, reduction="none") -> [B]; its temperature is the keyword ``temperature``.
        teacher: of the sentences of ``text``.
        text: annotated sentences.
        batch_size: sentences in a batch.

    Returns:
        The main metric, 0 to 1; None if the student does not score labels of words, or the loss is not a cross-entropy
        of their probabilities (logit matching, posteriors of a CRF over legal tags).
    """
    temperature = float(getattr(loss, "keywords", {}).get("temperature", 1.0))
    predicted: list[dict[str, list[int]]] = [{} for _ in range(len(text))]
    for rows, _ in _batches(text, batch_size):
        batch = {name: value.to(student.device) for name, value in student.encode([text[row] for row in rows]).items()}
        lengths = batch["lengths"]
        with torch.no_grad():
            scores = student.scores(student(**batch))
        words = [name for name, axes in student.score_axes.items() if axes == 1 and scores[name].is_floating_point()]
        if len(words) != 1 or any(axes > 1 for axes in student.score_axes.values()):
            return None
        given = student.conditioned(teacher.distribution(teacher.batch(rows), lengths))
        found = _targets(student, loss, given, scores, words[0], lengths, temperature)
        if found is None:
            return None
        decoded = student.decode(found, lengths)
        for column, values in decoded.items():
            for row, padded, length in zip(rows, values.tolist(), lengths.tolist(), strict=True):
                predicted[row][column] = padded[:length]
    content = text.to_dict()
    gold = [{column: content[column][row] for column in student.annotation.columns} for row in range(len(text))]
    return next(iter(compute_metrics(counts(student.annotation, gold, predicted)).values()))


def _targets(
    student: StructuredModel,
    loss: Callable[..., Tensor],
    teacher: Any,
    scores: Mapping[str, Tensor],
    name: str,
    lengths: Tensor,
    temperature: float,
) -> dict[str, Tensor] | None:
    """Return the student's scores that give the logarithms of the targets, or None if they are not probabilities."""
    flat = {
        key: torch.zeros_like(value, dtype=torch.float64) if value.is_floating_point() else value
        for key, value in scores.items()
    }
    with torch.enable_grad():
        leaf = flat[name].requires_grad_()
        learner = student.distribution(flat, lengths)
        (own,) = torch.autograd.grad(learner.partition.sum(), leaf)
        values = loss(teacher, student.distribution(flat, lengths), reduction="none")
        (gap,) = torch.autograd.grad(values.sum(), leaf)
    targets = own - gap / temperature
    # If all scores are 0, a cross-entropy is log Z whatever the targets; words that no label serves have no loss.
    entropy = isinstance(learner, HeadLabeling) or torch.allclose(
        values.double(), temperature**2 * learner.partition.double(), rtol=1e-4
    )
    least = torch.finfo(torch.float64).tiny
    return {**flat, name: targets.detach().clamp_min(least).log()} if entropy and targets.min() > -1e-4 else None


def _batches(text: Dataset, batch_size: int, most: int | None = None) -> Iterator[tuple[list[int], Tensor]]:
    """Yield rows of a text, of similar lengths, and these lengths; at most so many rows, spread over the text."""
    lengths = sentence_lengths(text)
    chosen = np.arange(0, len(lengths), 1 if most is None else max(1, math.ceil(len(lengths) / most)))
    chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
    for cut in range(0, len(chosen), batch_size):
        some = chosen[cut : cut + batch_size]
        yield some.tolist(), torch.from_numpy(lengths[some])


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
