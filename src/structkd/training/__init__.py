"""Training: teachers, batches, and a subclass of transformers' Trainer that distils."""

from structkd.training.collate import Collator, training_text
from structkd.training.fit import FitResult, fit, main_metric, trainer_settings, training_arguments
from structkd.training.measurement import divergence, share_of_illegal, targets_metric, transition_kl, words_per_second
from structkd.training.mixin import DistillationMixin
from structkd.training.prediction import predict, predict_by
from structkd.training.pseudo_labels import pseudo_label_loss
from structkd.training.sampling import LengthBatches, SortedSampler, WordBatches
from structkd.training.score_store import ScoreStore
from structkd.training.score_writer import ScoreWriter, WrittenScores
from structkd.training.splits import Coverage, Splits, draw_splits
from structkd.training.teacher_scores import LiveTeacher, Teacher, TeacherMixture, TeacherScores
from structkd.training.token_columns import StoredColumns, TokenCollator, encode_words
from structkd.training.trainer import DistillationTrainer

__all__ = [
    "Collator",
    "Coverage",
    "DistillationMixin",
    "DistillationTrainer",
    "FitResult",
    "LengthBatches",
    "LiveTeacher",
    "ScoreStore",
    "ScoreWriter",
    "SortedSampler",
    "Splits",
    "StoredColumns",
    "Teacher",
    "TeacherMixture",
    "TeacherScores",
    "TokenCollator",
    "WordBatches",
    "WrittenScores",
    "divergence",
    "draw_splits",
    "encode_words",
    "fit",
    "main_metric",
    "predict",
    "predict_by",
    "pseudo_label_loss",
    "share_of_illegal",
    "targets_metric",
    "trainer_settings",
    "training_arguments",
    "training_text",
    "transition_kl",
    "words_per_second",
]
