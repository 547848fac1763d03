"""The ``transformers`` pipeline "structkd": any model of this library by transformers' own way to run models.

    import structkd.models.pipeline  # registers it
    from transformers import pipeline
    annotate = pipeline("structkd", model="structkd-runs/student-0123456789abcdef/model")
    annotate("Ana Lee lives in Oslo. She sings.", scores=True)

It is a module of its own, because transformers' pipelines take a second to import.
"""

# transformers declares these flags as None, and methods of any arguments.
# mypy: disable-error-code="assignment,override,operator"

from __future__ import annotations

from typing import Any

from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY, Pipeline

__all__ = ["AnnotationPipeline"]


class AnnotationPipeline(Pipeline):
    """Gives what :meth:`structkd.models.StructuredModel.annotate` gives.

    A text, a list of texts and a list of lists of words are taken as they are there. The model reads text by its own
    features, so that no tokenizer is loaded beside it.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, inputs: Any, batch_size: int | None = None, scores: bool | None = None) -> Any:
        """Annotate text; ``batch_size`` and ``scores`` may be given here or to ``pipeline``."""
        if scores is None:
            scores = self._forward_params.get("scores", False)
        return self.model.annotate(inputs, batch_size or self._batch_size or 32, scores)

    def _sanitize_parameters(self, scores: bool = False, **others: Any) -> tuple[dict, dict, dict]:
        if others:
            raise TypeError(f"The pipeline structkd has no argument {min(others)!r}; it takes batch_size and scores.")
        return {}, {"scores": scores}, {}

    def preprocess(self, inputs: Any) -> Any:
        """Return the text as it is."""
        return inputs

    def _forward(self, inputs: Any, scores: bool = False) -> Any:
        return self.model.annotate(inputs, scores=scores)

    def postprocess(self, outputs: Any) -> Any:
        """Return the annotation as it is."""
        return outputs


PIPELINE_REGISTRY.register_pipeline("structkd", pipeline_class=AnnotationPipeline, pt_model=AutoModel)
