"""Evaluation: metrics of predictions."""

from structkd.evaluation.attachment import attachment_counts
from structkd.evaluation.metrics import (
    compute_metrics,
    counts,
    lenient_counts,
    metric_rule,
    metric_title,
    precision_recall_f1,
)
from structkd.evaluation.spans import span_counts, strict_spans, tag_counts

__all__ = [
    "attachment_counts",
    "compute_metrics",
    "counts",
    "lenient_counts",
    "metric_rule",
    "metric_title",
    "precision_recall_f1",
    "span_counts",
    "strict_spans",
    "tag_counts",
]
