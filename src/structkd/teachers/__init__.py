"""Teachers that train nothing: models from elsewhere, and annotations by anything that annotates."""

from structkd.teachers.annotations import Annotations, load_annotated_text
from structkd.teachers.answers import Asked, Parsed, agreement, ask, mentions, parse_answers, weigh
from structkd.teachers.given import GivenModel, GivenTeacher, Opened
from structkd.teachers.label_map import LabelMap
from structkd.teachers.spacy_pipeline import SpacyPipeline
from structkd.teachers.token_classification import TokenClassification
from structkd.teachers.trained import Trained
from structkd.teachers.written_scores import Scores

__all__ = [
    "Annotations",
    "Asked",
    "GivenModel",
    "GivenTeacher",
    "LabelMap",
    "Opened",
    "Parsed",
    "Scores",
    "SpacyPipeline",
    "TokenClassification",
    "Trained",
    "agreement",
    "ask",
    "load_annotated_text",
    "mentions",
    "parse_answers",
    "weigh",
]
