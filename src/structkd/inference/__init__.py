"""Trained models at work: files annotated as a stream, evaluation on files, and speed."""

from structkd.inference.benchmark import Speed, benchmark, check_exported, checked_folder, sentences_of
from structkd.inference.formats import FORMATS, Format, Item, format_of
from structkd.inference.prediction import Progress, predict_files
from structkd.inference.scoring import Evaluation, evaluate_file

__all__ = [
    "FORMATS",
    "Evaluation",
    "Format",
    "Item",
    "Progress",
    "Speed",
    "benchmark",
    "check_exported",
    "checked_folder",
    "evaluate_file",
    "format_of",
    "predict_files",
    "sentences_of",
]
