"""The interface of all models: an encoder of words, scores of structures, and conversions from and to annotated text.

A model has an encoder (words -> vectors), which any file may add. Its scores define one of structkd's distributions.
Training, prediction and the storage of teachers' scores use nothing but this interface.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel, initialization
from transformers.utils import ModelOutput

from structkd.data import UNLABELLED, Annotation
from structkd.models.annotating import annotate_stream
from structkd.models.card import facts_of, write_card
from structkd.models.foreign import check_foreign
from structkd.models.loading import HUB_ARGUMENTS, check_files, describe_files, described, model_folder

__all__ = ["Features", "StructuredConfig", "StructuredModel", "WordEncoder", "padded"]

Example = Mapping[str, Any]
"""A sentence: ``tokens``, and the columns of its annotation and further inputs (``upos``) that a model asks for."""


def padded(rows: Sequence[Sequence[int]], filling: int = UNLABELLED) -> Tensor:
    """Return rows of any length as one LongTensor [B, N], filled up with ``filling``."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[filling] * (longest - len(row))] for row in rows])


class Features(Protocol):
    """Converts tokenised sentences into an encoder's inputs, e.g. :class:`~structkd.models.Vocabulary`."""

    def encode(self, sentences: Sequence[Sequence[str]]) -> dict[str, Tensor]:
        """Return the padded inputs of ``WordEncoder.forward``, ``lengths`` [B] among them."""

    def save_pretrained(self, folder: str | Path) -> Any:
        """Write everything needed to rebuild the object into ``folder``."""


class WordEncoder(PreTrainedModel):
    """Base of the encoders, which give every word of a batch a vector in its context.

    A subclass has a configuration class with a ``model_type`` of its own. Its file registers both with transformers
    (``AutoConfig.register`` and ``AutoModel.register``), so that models can rebuild it from their configuration.

    Attributes:
        features: converts sentences into the inputs of ``forward``; it is saved beside the weights.
        dimension: D, the size of a word's vector.
    """

    base_model_prefix = ""
    main_input_name = "lengths"
    features_class: ClassVar[Any] = None

    features: Features | None
    dimension: int

    def forward(self, lengths: Tensor, **inputs: Tensor) -> Tensor:
        """Return the words' vectors [B, N, D]; the padding may hold anything.

        Args:
            lengths: LongTensor [B].
            inputs: the other tensors that ``features.encode`` returns.
        """
        raise NotImplementedError

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse sentences that the encoder cannot take, before any work is done; the message names the sentence."""

    def load_features(self, folder: str | os.PathLike) -> None:
        """Read the features that were saved beside the weights."""
        self.features = self.features_class.from_pretrained(folder)


class StructuredConfig(PreTrainedConfig):
    """Base of the models' configurations.

    Args:
        encoder: the encoder's configuration, or a mapping with its ``model_type``.
    """

    model_type = "structkd"

    encoder: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if isinstance(self.encoder, Mapping):
            self.encoder = AutoConfig.for_model(**self.encoder)

    @staticmethod
    def check_range(**values: tuple[float, float, float]) -> None:
        """Refuse settings outside their range; each is (value, least, largest)."""
        for name, (value, least, largest) in values.items():
            if not least <= value <= largest:
                raise ValueError(f"{name} must lie in {least:g}..{largest:g}, got {value}.")


class StructuredModel(PreTrainedModel):
    """Base of the models: an encoder, and scores that define a distribution over structures.

    A subclass adds its layers after ``super().__init__`` and calls ``post_init``. It defines ``score_axes``,
    ``annotation``, ``forward``, ``distribution``, ``encode_gold`` and ``decode``; for scores of its annotation
    ``confidences``, and for several structures ``k_best``. Shapes: B sentences, N words.

    Args:
        config: sizes and inventories.
        encoder: an encoder with its features and weights; None builds one from ``config.encoder``.

    Attributes:
        about: facts for the model card, see :mod:`structkd.models.card`; empty for a model that no run has made.
    """

    config_class = StructuredConfig
    base_model_prefix = ""
    main_input_name = "lengths"

    #: The number of word axes that follow the batch axis, for every score that :meth:`scores` returns. 0 marks a score
    #: that belongs to the model, not to a sentence; it has no batch axis either.
    score_axes: ClassVar[Mapping[str, int]] = {}

    config: StructuredConfig
    encoder: WordEncoder

    def __init__(self, config: StructuredConfig, encoder: WordEncoder | None = None) -> None:
        super().__init__(config)
        self.about: dict[str, Any] = {}
        self.encoder = cast(WordEncoder, AutoModel.from_config(config.encoder)) if encoder is None else encoder

    @property
    def annotation(self) -> Annotation:
        """The kind of annotation that the model predicts."""
        raise NotImplementedError

    @property
    def features(self) -> Features:
        """The converter of tokenised sentences into the encoder's inputs.

        Raises:
            ValueError: if the model has none and so cannot read text.
        """
        features: Features | None = getattr(self.encoder, "features", None)
        if features is None:
            raise ValueError("The model has no vocabulary and cannot read text: create it by its recipe or load it.")
        return features

    def encode(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return the padded inputs of ``forward`` for some sentences, ``lengths`` LongTensor [B] among them."""
        return self.features.encode([example["tokens"] for example in examples])

    def encode_gold(self, examples: Sequence[Example]) -> Tensor:
        """Return the annotation of some sentences in the form that :func:`structkd.supervised_loss` takes.

        A sentence whose annotation is hidden (-100) gets an arbitrary structure, which the objective ignores.
        """
        raise NotImplementedError

    def forward(self, lengths: Tensor, **inputs: Tensor) -> ModelOutput:
        """Score the structures of a batch.

        Args:
            lengths: LongTensor [B].
            inputs: the other tensors that :meth:`encode` returns.
        """
        raise NotImplementedError

    def scores(self, output: ModelOutput) -> dict[str, Tensor]:
        """Return the scores that define the distribution, at any temperature, in the layout of :attr:`score_axes`."""
        return {name: output[name] for name in self.score_axes if output.get(name) is not None}

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        """Return the distribution over the structures of a batch.

        Args:
            scores: :meth:`scores` of the batch (or the output itself).
            lengths: LongTensor [B].
        """
        raise NotImplementedError

    def conditioned(self, teacher: Any) -> Any:
        """Return a teacher's distribution conditioned on the structures that this model is trained to build.

        By default the teacher as it is, because projections condition on the structures of the student's class.
        """
        return teacher

    def check_gold(self, examples: Iterable[Example]) -> None:
        """Refuse annotation that the model gives no probability, before any work; the message names the sentence."""

    def decode_published(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor] | None:
        """Return the best structure of every sentence, legal or not, as published work decodes; see :meth:`decode`.

        None if the model has no other way to decode than :meth:`decode`.
        """
        return None

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Return the best legal structure of every sentence, in the columns of its annotation.

        Returns:
            For every column of ``annotation``, a LongTensor [B, N]; -100 in the padding.
        """
        raise NotImplementedError

    def confidences(
        self, scores: Mapping[str, Tensor], lengths: Tensor, structure: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Return exact marginals of the parts of one structure per sentence, and the structure's probability.

        They are those of :meth:`distribution`, in working precision; the padding holds anything.

        Args:
            scores: :meth:`scores` of the batch.
            lengths: LongTensor [B].
            structure: a structure of every sentence, as :meth:`decode` returns them.

        Returns:
            ``log_prob`` [B], and by the kind of annotation: ``tag_scores`` [B, N], with ``span_scores`` [B, N], which
            hold for the first word of every span the probability that exactly this span is one of its type; or
            ``head_scores`` [B, N], P(arc), and ``relation_scores`` [B, N], P(arc and relation).

        Raises:
            NotImplementedError: if the class does not define it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} gives no confidences. Write its method confidences, or annotate without scores."
        )

    def k_best(self, scores: Mapping[str, Tensor], lengths: Tensor, k: int) -> list[tuple[dict[str, Tensor], Tensor]]:
        """Return the k best legal structures of every sentence, the best first.

        Args:
            scores: :meth:`scores` of the batch.
            lengths: LongTensor [B].
            k: at least 1.

        Returns:
            k pairs: structures as :meth:`decode` returns them, and a BoolTensor [B] that says which sentences have so
            many.

        Raises:
            NotImplementedError: if the class does not define it.
        """
        raise NotImplementedError(
            f"{type(self).__name__} gives its best structure only. Write its method k_best, or annotate without best."
        )

    def annotate(
        self, sentences: Any, batch_size: int = 32, scores: bool = False, best: int | None = None
    ) -> list[dict[str, Any]]:
        """Annotate raw text, or sentences, with the best legal structure.

        Args:
            sentences: a text, of one or more sentences; a list of texts, each one sentence; or a list of lists of
                words. :mod:`structkd.sentences` states how raw text is split into words and sentences.
            batch_size: sentences in a batch; the result does not depend on it.
            scores: whether to add exact marginals, see :meth:`confidences`.
            best: add the key ``best``, a list of so many structures (fewer if there are no more), the best first, each
                with its ``log_prob``.

        Returns:
            For every sentence a dictionary of plain data, see :func:`structkd.sentences.tagged` and
            :func:`structkd.sentences.parsed`. Lists of a sentence without words are empty.

        Raises:
            TypeError, ValueError: if something else is given, or a sentence that the encoder cannot take.

        >>> from structkd.data import load_toy
        >>> from structkd.models import BiLSTMRecipe, TaggerRecipe
        >>> corpus = load_toy()
        >>> text = corpus.splits["train"]
        >>> model = TaggerRecipe(encoder=BiLSTMRecipe(hidden_size=8)).create(corpus.annotation, text, text)
        >>> [sorted(found) for found in model.annotate("Ana runs. Ben sits.")]
        [['offsets', 'spans', 'tags', 'words'], ['offsets', 'spans', 'tags', 'words']]
        """
        return list(self.annotate_stream(sentences, batch_size, scores, best))

    def annotate_stream(
        self, sentences: Any, batch_size: int = 32, scores: bool = False, best: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Annotate an iterable of sentences, of any length, in constant memory; see :meth:`annotate`.

        Sentences are taken from the iterable for some batches at a time, and their annotation is given in order.
        """
        return annotate_stream(self, sentences, batch_size, scores, best)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # `initialization` skips tensors that from_pretrained has already filled; plain torch.nn.init would not.
        if isinstance(module, nn.Linear):
            initialization.xavier_uniform_(module.weight)
            if module.bias is not None:
                initialization.zeros_(module.bias)
        else:
            super()._init_weights(module)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs: Any) -> None:  # type: ignore[override]
        """Save the model as transformers does, with its features, ``structkd.json`` and a model card.

        ``structkd.json`` holds the sha256 of these files, and the facts for the card: those of the run that trained the
        model are kept when it is loaded and saved again. A README.md that someone else wrote is not replaced.

        Args:
            save_directory: a folder, which is made.
            kwargs: as transformers takes them; ``push_to_hub=True`` calls :meth:`push_to_hub` afterwards, with those of
                its arguments that are among them.
        """
        pushed, repository = kwargs.pop("push_to_hub", False), kwargs.pop("repo_id", None)
        names = ("commit_message", "private", "revision", "create_pr")
        hub = {name: kwargs.pop(name) for name in names if name in kwargs}
        folder = Path(save_directory)
        super().save_pretrained(folder, **kwargs)
        if kwargs.get("is_main_process", True):
            if getattr(self.encoder, "features", None) is not None:
                self.features.save_pretrained(folder)
            facts = {**self.about, **facts_of(self)}
            describe_files(folder, facts)
            write_card(folder, facts)
        if pushed:
            self.push_to_hub(repository or folder.absolute().name, token=kwargs.get("token"), **hub)

    def push_to_hub(  # type: ignore[override]
        self,
        repo_id: str,
        *,
        commit_message: str = "Upload a model of structkd",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload everything that :meth:`save_pretrained` writes to the Hugging Face hub, in one commit.

        Args:
            repo_id: name of the model, ``me/my-model``; it is created if there is none.
            commit_message, private, token, revision, create_pr: as huggingface_hub takes them.

        Returns:
            The address of the commit.
        """
        from huggingface_hub import HfApi

        api = HfApi(token=token)
        name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            info = api.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=commit_message,
                revision=revision,
                create_pr=create_pr,
            )
        return str(info.commit_url)

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Load a model and its features; weights are read from safetensors alone, never from a pickle.

        Args:
            folder: a folder written by :meth:`save_pretrained`, or a name on the Hugging Face hub.
            args, kwargs: as transformers takes them.

        Raises:
            ValueError: if a model of another type was saved there, or one of its files is not as it was written.
            FileNotFoundError: if there is no such folder, and no such model on the hub.
        """
        hub = {name: kwargs.pop(name) for name in HUB_ARGUMENTS if name in kwargs}
        local = model_folder(folder, **hub)
        config = kwargs.get("config")
        if isinstance(config, PreTrainedConfig):
            saved: dict[str, Any] = {"model_type": config.model_type}
            check_foreign(config, str(folder))
        else:
            saved, _ = PreTrainedConfig.get_config_dict(local, **kwargs)
        found = saved.get("model_type")
        if found != cls.config_class.model_type:
            raise ValueError(
                f"{folder} holds a model of type {found!r}; {cls.__name__} loads the type "
                f"{cls.config_class.model_type!r}. structkd.load finds the class of a model."
            )
        check_foreign(saved, str(folder))
        check_files(local)
        loaded = super().from_pretrained(local, *args, **({"use_safetensors": True} | kwargs))
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.encoder.load_features(local)
        model.about = described(local)
        return loaded
