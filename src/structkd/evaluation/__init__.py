"""Evaluation: decoding to legal tag sequences, span F1, statistics and reports."""

from structkd.evaluation.decoding import Legality, viterbi
from structkd.evaluation.spans import (
    precision_recall_f1,
    span_counts,
    strict_spans,
    tag_counts,
    tagging_metrics,
)
from structkd.evaluation.statistics import Interval, paired_bootstrap, sign_flip_test, smallest_p

__all__ = [
    "Interval",
    "Legality",
    "paired_bootstrap",
    "precision_recall_f1",
    "sign_flip_test",
    "smallest_p",
    "span_counts",
    "strict_spans",
    "tag_counts",
    "tagging_metrics",
    "viterbi",
]
