"""Evaluation: decoding to legal tag sequences, figures of predictions, and statistics."""

from structkd.evaluation.attachment import attachment_counts
from structkd.evaluation.decoding import Legality, viterbi
from structkd.evaluation.figures import counts, figure_rule, figure_title, figures, precision_recall_f1
from structkd.evaluation.spans import span_counts, strict_spans, tag_counts
from structkd.evaluation.statistics import Interval, holm, paired_bootstrap, sign_flip_test, smallest_p

__all__ = [
    "Interval",
    "Legality",
    "attachment_counts",
    "counts",
    "figure_rule",
    "figure_title",
    "figures",
    "holm",
    "paired_bootstrap",
    "precision_recall_f1",
    "sign_flip_test",
    "smallest_p",
    "span_counts",
    "strict_spans",
    "tag_counts",
    "viterbi",
]
