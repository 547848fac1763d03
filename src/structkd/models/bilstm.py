"""A word-level encoder: word embeddings and a character CNN, locked dropout, and a packed BiLSTM."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import AutoConfig, AutoModel, PreTrainedConfig, initialization

from structkd.configurable import configurable
from structkd.models.recipe import ConfigRecipe
from structkd.models.structured import WordEncoder
from structkd.models.vectors import WordVectors, read_vectors
from structkd.models.vocabulary import PADDING, UNKNOWN, Vocabulary

__all__ = ["BiLSTMConfig", "BiLSTMEncoder", "BiLSTMRecipe", "CharacterCNN", "LockedDropout", "PackedBiLSTM"]


# Odd, and its powers modulo 2^64 have no pattern (the golden ratio's digits, Knuth 1998, section 6.4).
_MULTIPLIER = 0x9E3779B97F4A7C15 - (1 << 64)

#: Words of a batch that are read one by one, whether or not some are equal.
_FEW_WORDS = 64


class BiLSTMConfig(PreTrainedConfig):
    """Sizes and dropout rates of a :class:`BiLSTMEncoder`.

    Args:
        word_count, character_count: rows of the embeddings (sizes of the vocabulary).
        word_size, character_size: columns of the embeddings.
        character_filters: channels of the character CNN; 0 disables it.
        character_window: width of its convolution in characters, odd.
        hidden_size: units of the LSTM in one direction.
        layers: stacked BiLSTM layers; 0 leaves words without context, as a part of a
            :class:`~structkd.models.StackedEncoder`.
        word_dropout: share of words replaced by the unknown word in training, which trains its embedding.
        locked_dropout: share of embedding and LSTM channels dropped for a whole sentence at once in training.
        freeze_vectors: do not train the word embeddings.
    """

    model_type = "structkd_bilstm"

    word_count: int = 2
    character_count: int = 4
    word_size: int = 100
    character_size: int = 25
    character_filters: int = 50
    character_window: int = 3
    hidden_size: int = 128
    layers: int = 2
    word_dropout: float = 0.05
    locked_dropout: float = 0.3
    freeze_vectors: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        for name, least in (("word_size", 1), ("hidden_size", 1), ("layers", 0), ("character_filters", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        for name in ("word_dropout", "locked_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share in [0, 1), got {getattr(self, name)}.")
        if self.character_window % 2 == 0:
            raise ValueError(f"character_window must be odd (a word keeps its width), got {self.character_window}.")


class LockedDropout(nn.Module):
    """Drops channels of a sentence, with one mask for all of its words (Gal & Ghahramani 2016)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, vectors: Tensor) -> Tensor:
        """Return vectors [B, N, D] with channels dropped."""
        if not self.training or self.rate == 0:
            return vectors
        keep = torch.empty_like(vectors[:, :1]).bernoulli_(1 - self.rate)
        return vectors * keep / (1 - self.rate)


class CharacterCNN(nn.Module):
    """A vector of every word's spelling: embedding, convolution, and maximum over the positions."""

    def __init__(self, count: int, size: int, filters: int, window: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(count, size, padding_idx=PADDING)
        self.convolution = nn.Conv1d(size, filters, window, padding=window // 2)

    def forward(self, characters: Tensor) -> Tensor:
        """Return [B, N, filters] for characters LongTensor [B, N, W]; padded words get 0.

        On the CPU every distinct word is read once. In running text about a third of a batch's words are distinct.
        """
        batch, words, width = characters.shape
        spelled = characters.reshape(batch * words, width)
        # On a GPU, and for few words, the search takes longer than it saves.
        if characters.device.type != "cpu" or batch * words <= _FEW_WORDS:
            return self._read(spelled).view(batch, words, -1)
        distinct, place = _distinct_rows(spelled)
        return self._read(distinct).index_select(0, place).view(batch, words, -1)

    def _read(self, spelled: Tensor) -> Tensor:
        """Return [M, filters] for characters LongTensor [M, W]."""
        if torch.is_grad_enabled() or spelled.device.type != "cpu":
            features = self.convolution(self.embedding(spelled).transpose(1, 2)).transpose(1, 2)
        elif self.embedding.num_embeddings <= spelled.numel():
            return self._read_by_table(spelled)
        else:
            # The CPU's convolution prepares for every new shape, which takes longer than this product.
            kernel, half = self.convolution.weight.flatten(1), self.convolution.kernel_size[0] // 2
            windows = self.embedding(nn.functional.pad(spelled, (half, half), value=PADDING)).unfold(1, 2 * half + 1, 1)
            features = nn.functional.linear(windows.flatten(2), kernel, self.convolution.bias)
        features = features.masked_fill((spelled == PADDING).unsqueeze(2), -torch.inf).amax(dim=1)
        # A padded word has no characters: its maximum, -inf, becomes 0.
        return torch.relu(features)

    def _read_by_table(self, spelled: Tensor) -> Tensor:
        """Return what `_read` does, without gradients.

        A character adds to the convolution the product of its embedding with the weights at its place in the window. If
        the vocabulary has fewer characters than the batch, a table of these products costs less than the convolution.
        """
        kernel, bias = self.convolution.weight, self.convolution.bias
        assert bias is not None
        filters, _, window = kernel.shape
        table = (self.embedding.weight @ kernel.permute(1, 2, 0).flatten(1)).view(-1, filters)
        half, width = window // 2, spelled.shape[1]
        # The maximum ignores places without a character.
        table[PADDING * window + half].fill_(-torch.inf)
        # Rows of the table, by place [W], word [M] and place in the window.
        places = nn.functional.pad(spelled.T * window, (0, 0, half, half)).unfold(0, window, 1) + torch.arange(window)
        begins = torch.arange(0, places.numel(), window)
        features = torch.embedding_bag(table, places.flatten(), begins)[0]  # sums of as many rows as the window is wide
        maximum = features.view(width, -1, filters).amax(0)
        return torch.relu_(maximum.add_(bias))


def _distinct_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct rows [U, W] of a LongTensor [M, W], and the number of every row among them, [M]."""
    # Sorting one number for each row takes a fraction of the time that sorting rows takes.
    keys = (rows * torch.full((rows.shape[1],), _MULTIPLIER).cumprod(0)).sum(1)
    distinct, place = keys.unique(return_inverse=True)
    example = torch.empty_like(distinct).scatter_(0, place, torch.arange(len(rows)))
    found = rows[example]
    if not torch.equal(found[place], rows):  # different rows have the same number
        found, place = rows.unique(dim=0, return_inverse=True)
    return found, place


class PackedBiLSTM(nn.LSTM):
    """A BiLSTM over sentences of different lengths, without their padding.

    Args:
        size: size of a word's vector.
        hidden_size: units in one direction.
        layers: number of layers, at least 1.
        dropout: share of channels dropped between layers.
    """

    def __init__(self, size: int, hidden_size: int, layers: int, dropout: float) -> None:
        dropout = dropout if layers > 1 else 0.0
        super().__init__(size, hidden_size, layers, dropout=dropout, bidirectional=True, batch_first=True)

    def forward(self, vectors: Tensor, lengths: Tensor) -> Tensor:  # type: ignore[override]
        """Return [B, N, 2 * hidden_size] for vectors [B, N, size] and lengths LongTensor [B]; padding gets 0."""
        if not self.training and not torch.is_grad_enabled() and vectors.device.type == "cpu":
            return self._one_way_each(vectors, lengths)
        packed = pack_padded_sequence(vectors, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=vectors.shape[1])[0]

    def _one_way_each(self, vectors: Tensor, lengths: Tensor) -> Tensor:
        """Return what `forward` does, without gradients: each direction over padded sentences, the second one reversed.

        torch has a faster LSTM for the CPU, which takes neither packed sequences nor gradients.
        """
        batch, words, _ = vectors.shape
        reversed_place = beyond = None
        if int(lengths.min()) < words:
            place, ends = torch.arange(words), lengths.unsqueeze(1)
            reversed_place, beyond = (ends - 1 - place).clamp_(min=0).unsqueeze(-1), (place >= ends).unsqueeze(-1)

        def turn(vectors: Tensor) -> Tensor:
            return vectors.flip(1) if reversed_place is None else vectors.gather(1, reversed_place.expand_as(vectors))

        zeros = vectors.new_zeros(1, batch, self.hidden_size)
        weights: list[Any] = list(self._flat_weights)
        each = len(weights) // (2 * self.num_layers)
        for layer in range(self.num_layers):
            ahead, back = (weights[(2 * layer + way) * each : (2 * layer + way + 1) * each] for way in (0, 1))
            settings = (self.bias, 1, 0.0, False, False, True)
            first = torch.lstm(vectors, (zeros, zeros), ahead, *settings)[0]
            second = torch.lstm(turn(vectors), (zeros, zeros), back, *settings)[0]
            vectors = torch.cat([first, turn(second)], -1)
        return vectors if beyond is None else vectors.masked_fill(beyond, 0.0)

    @torch.no_grad()
    def initialize(self) -> None:
        """Initialize the weights that were not loaded."""
        for name, parameter in self.named_parameters():
            if name.startswith("weight"):
                initialization.xavier_uniform_(parameter)
            elif not getattr(parameter, "_is_hf_initialized", False):
                parameter.zero_()
                if name.startswith("bias_ih"):
                    # Gates come in the order input, forget, cell, output; an open forget gate lets early gradients
                    # through (Jozefowicz et al. 2015).
                    parameter[self.hidden_size : 2 * self.hidden_size] = 1.0


class BiLSTMEncoder(WordEncoder):
    """Words [B, N] and characters [B, N, W] -> context vectors [B, N, 2 * hidden_size].

    Without layers, these are vectors of the words without context, [B, N, word_size + character_filters].

    Args:
        config: sizes and dropout rates.
        features: the vocabulary, which is needed to encode text.
    """

    config_class = BiLSTMConfig
    main_input_name = "words"
    features_class = Vocabulary

    config: BiLSTMConfig

    def __init__(self, config: BiLSTMConfig, features: Vocabulary | None = None) -> None:
        super().__init__(config)
        self.features = features
        self.word_dropout = config.word_dropout
        self.embedding = nn.Embedding(config.word_count, config.word_size, padding_idx=PADDING)
        self.characters = (
            CharacterCNN(
                config.character_count, config.character_size, config.character_filters, config.character_window
            )
            if config.character_filters
            else None
        )
        self.dropout = LockedDropout(config.locked_dropout)
        size = config.word_size + config.character_filters
        self.lstm = (
            PackedBiLSTM(size, config.hidden_size, config.layers, config.locked_dropout) if config.layers else None
        )
        self.dimension = 2 * config.hidden_size if config.layers else size
        self.post_init()
        self.train()

    def train(self, mode: bool = True) -> BiLSTMEncoder:
        """Set the mode as torch does; frozen vectors take no gradient."""
        super().train(mode)
        if self.config.freeze_vectors:
            # Set here and not only at construction, because from_pretrained makes all loaded weights trainable.
            self.embedding.requires_grad_(False)
        return self

    def forward(self, lengths: Tensor, words: Tensor, characters: Tensor) -> Tensor:  # type: ignore[override]
        """Return [B, N, D]; padding gets 0.

        Args:
            lengths: LongTensor [B].
            words: LongTensor [B, N].
            characters: LongTensor [B, N, W], with word boundaries.
        """
        if self.training and self.word_dropout > 0:
            dropped = torch.rand(words.shape, device=words.device) < self.word_dropout
            words = words.masked_fill(dropped & (words != PADDING), UNKNOWN)
        vectors: Tensor = self.embedding(words)
        if self.characters is not None:
            vectors = torch.cat([vectors, self.characters(characters)], dim=-1)
        vectors = self.dropout(vectors)
        if self.lstm is not None:
            vectors = self.dropout(self.lstm(vectors, lengths))
        return vectors

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Embedding):
            bound = math.sqrt(3 / module.embedding_dim)  # unit length in expectation (He et al. 2015)
            initialization.uniform_(module.weight, -bound, bound)
            if not getattr(module.weight, "_is_hf_initialized", False):
                module.weight[PADDING].zero_()
        elif isinstance(module, nn.Conv1d):
            initialization.kaiming_uniform_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                initialization.zeros_(module.bias)
        elif isinstance(module, PackedBiLSTM):
            module.initialize()
        else:
            super()._init_weights(module)


AutoConfig.register(BiLSTMConfig.model_type, BiLSTMConfig)
AutoModel.register(BiLSTMConfig, BiLSTMEncoder)


@configurable
class BiLSTMRecipe(ConfigRecipe):
    """Builds a :class:`BiLSTMEncoder` and its vocabulary from the text it will be trained on.

    With pretrained vectors, every word of the text that has one is known, however rare. Words of the text without one
    start from random vectors and are trained with the rest; if the vectors are frozen, they are unknown words, and
    the unknown word's vector is the mean of all. A saved encoder holds its vectors: no file is needed to load it.

    Args:
        minimum_count: words seen less often are unknown words.
        lowercase: look words up in lower case (characters keep their case).
        vectors: file of pretrained word vectors, see :func:`~structkd.models.read_vectors`; each has ``word_size``
            numbers.
        frequent_vectors: how many of the file's first words are known even if they are not in the text.
        settings: those of :class:`BiLSTMConfig`, but for the counts of words and characters.
    """

    config_class = BiLSTMConfig
    derived = frozenset({"word_count", "character_count"})

    def __init__(
        self,
        *,
        minimum_count: int = 1,
        lowercase: bool = True,
        vectors: str | None = None,
        frequent_vectors: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.minimum_count, self.lowercase = minimum_count, lowercase
        self.vectors, self.frequent_vectors = vectors, frequent_vectors
        self.freeze_vectors, self.word_size = self.settings["freeze_vectors"], self.settings["word_size"]
        if vectors is None and (self.freeze_vectors or frequent_vectors):
            raise ValueError("freeze_vectors and frequent_vectors need vectors: name a file of word vectors.")

    def create(self, sentences: Iterable[Sequence[str]]) -> BiLSTMEncoder:
        """Return an untrained encoder; torch's global generator draws all weights that are not pretrained."""
        if not isinstance(sentences, Sequence):  # a column of a data set is a sequence, and may be too large for a list
            sentences = list(sentences)
        vocabulary = Vocabulary.build(sentences, minimum_count=self.minimum_count, lowercase=self.lowercase)
        vectors = None if self.vectors is None else self._read_vectors(sentences)
        if vectors is not None:
            words = [*([] if self.freeze_vectors else vocabulary.words), *vectors.words]
            vocabulary = Vocabulary(
                list(dict.fromkeys(words)),
                vocabulary.characters,
                lowercase=vocabulary.lowercase,
                max_characters=vocabulary.max_characters,
            )
        config = self.configuration(word_count=vocabulary.word_count, character_count=vocabulary.character_count)
        encoder = BiLSTMEncoder(config, features=vocabulary)
        if vectors is not None:
            with torch.no_grad():
                encoder.embedding.weight[[vocabulary.number(word) for word in vectors.words]] = vectors.values
                if self.freeze_vectors:
                    encoder.embedding.weight[UNKNOWN] = vectors.values.mean(0)
        return encoder

    def _read_vectors(self, sentences: Iterable[Sequence[str]]) -> WordVectors:
        path = str(self.vectors)
        words = {token.lower() if self.lowercase else token for tokens in sentences for token in tokens}
        vectors = read_vectors(path, words, lowercase=self.lowercase, most_frequent=self.frequent_vectors)
        size = vectors.values.shape[1]
        if size != self.word_size:
            raise ValueError(
                f"{path} has vectors of {size} numbers, word_size is {self.word_size}: set word_size={size}."
            )
        return vectors
