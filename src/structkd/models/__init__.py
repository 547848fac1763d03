"""Models: encoders, heads and their vocabularies, as transformers ``PreTrainedModel``s."""

from structkd.models.bilstm import BiLSTMEncoder, BiLSTMRecipe, BiLSTMTagger, BiLSTMTaggerConfig
from structkd.models.tagger import ModelRecipe, Tagger, TaggerConfig, TaggerOutput, tag_distribution
from structkd.models.vocabulary import Vocabulary

__all__ = [
    "BiLSTMEncoder",
    "BiLSTMRecipe",
    "BiLSTMTagger",
    "BiLSTMTaggerConfig",
    "ModelRecipe",
    "Tagger",
    "TaggerConfig",
    "TaggerOutput",
    "Vocabulary",
    "tag_distribution",
]
