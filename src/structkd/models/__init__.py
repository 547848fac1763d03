"""Encoders, the models that score structures on top of them, and vocabularies, on transformers' ``PreTrainedModel``."""

from structkd.models.biaffine import BilinearRelations
from structkd.models.bilstm import BiLSTMConfig, BiLSTMEncoder, BiLSTMRecipe
from structkd.models.head_encodings import HeadEncoding, head_encoding, register_head_encoding
from structkd.models.head_labeler import HeadLabeler, HeadLabelerConfig, HeadLabelerOutput, HeadLabelerRecipe
from structkd.models.loading import load
from structkd.models.parser import BiaffineParser, ParserConfig, ParserOutput, ParserRecipe
from structkd.models.recipe import ConfigRecipe, EncoderRecipe, ModelRecipe, StructuredModelRecipe
from structkd.models.second_order import SecondOrderConfig, SecondOrderOutput, SecondOrderParser, SecondOrderRecipe
from structkd.models.span_model import SpanConfig, SpanModel, SpanOutput, SpanRecipe
from structkd.models.stacked import StackedConfig, StackedEncoder, StackedFeatures, StackedRecipe
from structkd.models.structured import (
    Features,
    StructuredConfig,
    StructuredModel,
    WordEncoder,
    padded,
)
from structkd.models.tagger import Tagger, TaggerConfig, TaggerOutput, TaggerRecipe
from structkd.models.transformer import Subwords, TransformerEncoder, TransformerEncoderConfig, TransformerRecipe
from structkd.models.vectors import WordVectors, read_vectors
from structkd.models.vocabulary import Vocabulary

__all__ = [
    "BiLSTMConfig",
    "BiLSTMEncoder",
    "BiLSTMRecipe",
    "BiaffineParser",
    "BilinearRelations",
    "ConfigRecipe",
    "EncoderRecipe",
    "Features",
    "HeadEncoding",
    "HeadLabeler",
    "HeadLabelerConfig",
    "HeadLabelerOutput",
    "HeadLabelerRecipe",
    "ModelRecipe",
    "ParserConfig",
    "ParserOutput",
    "ParserRecipe",
    "SecondOrderConfig",
    "SecondOrderOutput",
    "SecondOrderParser",
    "SecondOrderRecipe",
    "SpanConfig",
    "SpanModel",
    "SpanOutput",
    "SpanRecipe",
    "StackedConfig",
    "StackedEncoder",
    "StackedFeatures",
    "StackedRecipe",
    "StructuredConfig",
    "StructuredModel",
    "StructuredModelRecipe",
    "Subwords",
    "Tagger",
    "TaggerConfig",
    "TaggerOutput",
    "TaggerRecipe",
    "TransformerEncoder",
    "TransformerEncoderConfig",
    "TransformerRecipe",
    "Vocabulary",
    "WordEncoder",
    "WordVectors",
    "head_encoding",
    "load",
    "padded",
    "read_vectors",
    "register_head_encoding",
]
