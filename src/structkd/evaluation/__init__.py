"""Evaluation: figures of predictions."""

from structkd.evaluation.attachment import attachment_counts
from structkd.evaluation.figures import counts, figure_rule, figure_title, figures, precision_recall_f1
from structkd.evaluation.spans import span_counts, strict_spans, tag_counts

__all__ = [
    "attachment_counts",
    "counts",
    "figure_rule",
    "figure_title",
    "figures",
    "precision_recall_f1",
    "span_counts",
    "strict_spans",
    "tag_counts",
]
