"""Training: teacher targets, batches, and a subclass of transformers' Trainer that distils."""

from structkd.training.collate import Collator, training_text
from structkd.training.fit import FitResult, fit, main_figure, training_arguments
from structkd.training.prediction import predict
from structkd.training.pseudo_labels import pseudo_label_loss
from structkd.training.regimes import Regime, draw_regime
from structkd.training.sampling import LengthBatches, SortedSampler, WordBatches
from structkd.training.targets import MixtureTargets, Targets, TeacherTargets
from structkd.training.trainer import DistillationTrainer

__all__ = [
    "Collator",
    "DistillationTrainer",
    "FitResult",
    "LengthBatches",
    "MixtureTargets",
    "Regime",
    "SortedSampler",
    "Targets",
    "TeacherTargets",
    "WordBatches",
    "draw_regime",
    "fit",
    "main_figure",
    "predict",
    "pseudo_label_loss",
    "training_arguments",
    "training_text",
]
