"""Any token classifier of transformers as a teacher: independent words, over its own labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import AutoConfig, AutoModelForTokenClassification, AutoTokenizer

from structkd import MaxEnt
from structkd.configurable import configurable
from structkd.data import UNLABELLED, Annotation, TagAnnotation, legal_transitions
from structkd.models.foreign import check_foreign
from structkd.models.loading import check_index
from structkd.models.transformer import Subwords, pooled_words, subwords_of
from structkd.tags import convert_tags, spans
from structkd.teachers.given import GivenModel, GivenTeacher, folder_state, required_path
from structkd.teachers.label_map import LabelMap, read_scheme, scheme_inventory

__all__ = ["CharacterSubwords", "TokenClassification"]

ALIGNMENTS = ("words", "characters")


@configurable
class TokenClassification(GivenTeacher):
    """A stock ``AutoModelForTokenClassification``, from a folder or the Hugging Face hub, as MaxEnt over words.

    Args:
        path: the folder, or the name on the hub. Weights are read from safetensors.
        map: names of the data for entity types or labels of the classifier, null for outside; ``*`` is the rest.
        alignment: "words", which splits every word by itself (``is_split_into_words``), or "characters", which joins
            the words by blanks, splits the text, and gives a subword to the word that it begins in.
        pooling: the scores of a word are those of its "first" subword, or the "mean" over its subwords.
        scheme: the tag scheme of the classifier's labels by any tool's name; null reads it from the labels.
        long_sentences: "split" reads a sentence of too many subwords in overlapping windows, "error" refuses it.
        limit: subwords per window; null for all that the classifier takes.

    >>> from structkd.teachers import TokenClassification
    >>> TokenClassification("dslim/bert-base-NER", map={"MISC": None}).alignment
    'words'
    """

    def __init__(
        self,
        path: str | None = None,
        map: Mapping[str, str | None] | None = None,
        alignment: str = "words",
        pooling: str = "first",
        scheme: str | None = None,
        long_sentences: str = "split",
        limit: int | None = None,
    ) -> None:
        self.path = required_path(path, "token_classification")
        if alignment not in ALIGNMENTS:
            raise ValueError(f"Unknown alignment {alignment!r}: expected one of {', '.join(ALIGNMENTS)}.")
        self.map, self.alignment, self.pooling, self.scheme = map, alignment, pooling, scheme
        self.long_sentences, self.limit = long_sentences, limit

    def open(self, annotation: Annotation) -> GivenModel:
        """Load the classifier and compare its labels with those of the data; see :class:`GivenTeacher`."""
        config, tokenizer, classifier = _loaded(self.path)
        labels = [str(config.id2label[number]) for number in range(len(config.id2label))]
        if all(label == f"LABEL_{number}" for number, label in enumerate(labels)):
            raise ValueError(
                f"{self.path} does not say what its {len(labels)} labels mean ({', '.join(labels[:3])} ...). Write "
                "id2label into its config.json."
            )
        features = subwords_of(
            self.path,
            tokenizer,
            classifier,
            pooling=self.pooling,
            long_sentences=self.long_sentences,
            limit=self.limit,
            kind=Subwords if self.alignment == "words" else CharacterSubwords,
        )
        return _Classifier(self, annotation, classifier, features, labels)


class CharacterSubwords(Subwords):
    """Splits the text of a sentence, its words joined by blanks; a subword belongs to the word that it begins in."""

    def subwords(self, sentences: Sequence[Sequence[str]]) -> Iterator[tuple[list[int], list[int]]]:
        texts = [" ".join(tokens) for tokens in sentences]
        encoded = self.tokenizer.encode_batch(texts, add_special_tokens=False)
        for tokens, text, pieces in zip(sentences, texts, encoded, strict=True):
            # One pass over the characters: [c] is the word that character c is in, or that follows if it is a blank.
            owner = [place for place, token in enumerate(tokens) for _ in range(len(token) + 1)]
            numbers, places = [], []
            for number, (begin, end) in zip(pieces.ids, pieces.offsets, strict=True):
                first = begin + len(text[begin:end]) - len(text[begin:end].lstrip())
                if first < end:  # a subword of nothing but blanks is no word's
                    numbers.append(number)
                    places.append(owner[first])
            yield numbers, places


class _Classifier(GivenModel):
    """The classifier's logits over its own labels; the distribution is over those of the data."""

    def __init__(
        self, recipe: TokenClassification, annotation: Annotation, classifier: Any, features: Subwords, own: list[str]
    ) -> None:
        super().__init__(annotation)
        self.score_axes = {"emissions": 1}
        self.classifier = classifier.eval().requires_grad_(False)
        self.features = features
        if not isinstance(annotation, TagAnnotation):
            raise ValueError(
                f"A token classifier predicts one label per word; the data are annotated otherwise "
                f"({annotation.description()}). Choose task=spans or task=upos."
            )
        who = f"the token classifier {recipe.path}"
        given = dict(recipe.map or {})
        self.scheme: str | None = None
        if annotation.scheme is None:
            self.labels, place = own, {label: label for label in own}
            self.map = LabelMap.of(own, annotation, given, who)
        else:
            # Labels that are no tags, as [PAD], are read as O if the map says so.
            loose = [label for label in own if label in given and given[label] is None and "-" not in label]
            types_alone = all("-" not in label and "_" not in label for label in own)
            loose = [] if types_alone else loose
            self.scheme, place = read_scheme([label for label in own if label not in loose], recipe.scheme, who)
            place |= dict.fromkeys(loose, "O")
            types = list(dict.fromkeys(tag[2:] for tag in place.values() if tag != "O"))
            self.map = LabelMap.of(
                types, annotation, {name: to for name, to in given.items() if name not in loose}, who
            )
            self.labels = scheme_inventory(types, self.scheme)
        #: [C_own], the column of every label of the classifier in `labels`.
        self.register_buffer("columns", torch.tensor([self.labels.index(place[label]) for label in own]))
        if self.scheme == "IO" or self.scheme is None:
            self._legal = None
        else:
            self._legal = legal_transitions(self.labels)
        count = sum(parameter.numel() for parameter in classifier.parameters())
        self.identity = [*_identity(recipe.path, classifier), own]
        self.title = (
            f"the token classifier {recipe.path} ({classifier.config.model_type}, {count / 1e6:.1f} million "
            f"parameters, {len(own)} labels{f' in {self.scheme}' if self.scheme else ''}), read by {recipe.alignment}; "
            f"{self.map.describe()}"
        )

    def check(self, examples: Dataset) -> None:
        self.features.check(examples)

    def encode(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        return self.features.encode([example["tokens"] for example in examples])

    def forward(
        self, lengths: Tensor, subwords: Tensor, mask: Tensor, words: Tensor, pieces: Tensor
    ) -> dict[str, Tensor]:
        """Return ``emissions`` [B, N, C] over the classifier's own labels, in half precision on a GPU."""
        with torch.autocast(subwords.device.type, torch.float16, enabled=subwords.device.type == "cuda"):
            logits = self.classifier(input_ids=subwords, attention_mask=mask).logits
        return {"emissions": pooled_words(logits.float(), words, pieces)}

    def distribution(self, scores: Mapping[str, Tensor], lengths: Tensor) -> Any:
        return self.map.distribution(self._own(scores["emissions"], lengths), self.scheme)

    def _own(self, emissions: Tensor, lengths: Tensor) -> MaxEnt:
        columns: Tensor = self.columns.to(emissions.device)  # type: ignore[assignment]
        if columns.tolist() != list(range(len(self.labels))):
            # Labels that mean one tag add up; a tag that no label means is impossible.
            logits = emissions.new_full((*emissions.shape[:-1], len(self.labels)), -torch.inf)
            for column in columns.unique().tolist():
                logits[..., column] = emissions[..., columns == column].logsumexp(-1)
            emissions = logits
        return MaxEnt(emissions, lengths=lengths, labels=self.labels)

    def decode(self, scores: Mapping[str, Tensor], lengths: Tensor) -> dict[str, Tensor]:
        """Return the best legal sequence of the classifier's own tags, with its spans in the labels of the data."""
        best = self._own(scores["emissions"], lengths).decode(self._legal).tolist()
        labels = torch.full((len(best), int(lengths.max())), UNLABELLED)
        for row, numbers, length in zip(labels, best, lengths.tolist(), strict=True):
            tags = [self.labels[number] for number in numbers[:length]]
            if self.scheme is None:
                row[:length] = torch.tensor(self.map.numbers(tags))
            else:
                tags = convert_tags(tags, self.scheme, "BIO")
                row[:length] = torch.tensor(self.map.labels_of_spans(spans(tags, "BIO"), length))
        return {"labels": labels.to(lengths.device)}


def _loaded(path: str) -> tuple[Any, Any, Any]:
    """Return configuration, tokenizer and model of a token classifier.

    Raises:
        FileNotFoundError: it cannot be found.
        ValueError: it is something else than a token classifier.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        check_foreign(config, path)
        kinds = list(getattr(config, "architectures", None) or [])
        if str(config.model_type).startswith("structkd"):
            raise ValueError(f"{path} holds a model of structkd's ({config.model_type}): use teacher=trained.")
        if kinds and not any(kind.endswith("ForTokenClassification") for kind in kinds):
            raise ValueError(
                f"{path} is not a token classifier: it holds a {', '.join(kinds)}, whose head would be a random one "
                "here. Expected a model that was saved as AutoModelForTokenClassification."
            )
        check_index(Path(path))
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        model, about = AutoModelForTokenClassification.from_pretrained(
            path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except OSError as error:
        raise FileNotFoundError(
            f"The token classifier {path!r} cannot be loaded ({str(error).splitlines()[0]}). Expected a folder with "
            "config.json, a tokenizer and model.safetensors, or the name of such a model on the Hugging Face hub."
        ) from error
    missing = sorted(about["missing_keys"])
    if missing:
        raise ValueError(
            f"{path} is not a complete token classifier: it has no weights for {', '.join(missing[:4])}. Expected a "
            "model that was saved as AutoModelForTokenClassification."
        )
    return config, tokenizer, model


def _identity(path: str, model: Any) -> list[Any]:
    """Return plain data that change with the weights: the files of a folder, or the commit on the hub."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder_state(folder)
    return [path, getattr(model.config, "_commit_hash", None)]
