"""Training: teacher targets, batches, and a subclass of transformers' Trainer that distils."""

from structkd.training.collate import TaggingCollator, training_text
from structkd.training.fit import FitResult, fit, training_arguments
from structkd.training.prediction import predict
from structkd.training.pseudo_labels import pseudo_label_loss
from structkd.training.regimes import Regime, draw_regime
from structkd.training.sampling import LengthBucketSampler, SortedSampler
from structkd.training.targets import TeacherTargets
from structkd.training.trainer import DistillationTrainer

__all__ = [
    "DistillationTrainer",
    "FitResult",
    "LengthBucketSampler",
    "Regime",
    "SortedSampler",
    "TaggingCollator",
    "TeacherTargets",
    "draw_regime",
    "fit",
    "predict",
    "pseudo_label_loss",
    "training_arguments",
    "training_text",
]
