"""Models: encoders, what scores structures on top of them, and vocabularies, as transformers ``PreTrainedModel``s."""

from structkd.models.bilstm import BiLSTMConfig, BiLSTMEncoder, BiLSTMRecipe
from structkd.models.structured import (
    EncoderRecipe,
    Features,
    ModelRecipe,
    StructuredConfig,
    StructuredModel,
    WordEncoder,
)
from structkd.models.tagger import Tagger, TaggerConfig, TaggerOutput, TaggerRecipe
from structkd.models.transformer import Subwords, TransformerEncoder, TransformerEncoderConfig, TransformerRecipe
from structkd.models.vectors import WordVectors, read_vectors
from structkd.models.vocabulary import Vocabulary

__all__ = [
    "BiLSTMConfig",
    "BiLSTMEncoder",
    "BiLSTMRecipe",
    "EncoderRecipe",
    "Features",
    "ModelRecipe",
    "StructuredConfig",
    "StructuredModel",
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
    "read_vectors",
]
