"""Training: teacher targets, batches, and a subclass of transformers' Trainer that distils."""

from structkd.training.collate import Collator, training_text
from structkd.training.fit import FitResult, fit, main_figure, training_arguments
from structkd.training.measurement import divergence, words_per_second
from structkd.training.prediction import predict
from structkd.training.pseudo_labels import pseudo_label_loss
from structkd.training.regimes import Regime, draw_regime
from structkd.training.sampling import LengthBatches, SortedSampler, WordBatches
from structkd.training.target_store import TargetStore
from structkd.training.targets import LiveTargets, MixtureTargets, Targets, TeacherTargets
from structkd.training.trainer import DistillationTrainer

__all__ = [
    "Collator",
    "DistillationTrainer",
    "FitResult",
    "LengthBatches",
    "LiveTargets",
    "MixtureTargets",
    "Regime",
    "SortedSampler",
    "TargetStore",
    "Targets",
    "TeacherTargets",
    "WordBatches",
    "divergence",
    "draw_regime",
    "fit",
    "main_figure",
    "predict",
    "pseudo_label_loss",
    "training_arguments",
    "training_text",
    "words_per_second",
]
