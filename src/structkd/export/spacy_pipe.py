"""A spaCy component that annotates documents with an exported model.

    nlp = spacy.blank("en")
    nlp.add_pipe("structkd", config={"model": "exported"})

The factory ``structkd`` is found through the entry points of this package. A model of spans sets ``doc.ents`` and
``doc.spans[spans_key]`` with ``attrs["scores"]``, the exact probability of every span; a model of other tags sets
``token.tag_`` and, if its tags are the universal parts of speech, ``token.pos_``; a parser sets heads and relations.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from spacy.attrs import DEP, HEAD
from spacy.language import Language
from spacy.tokens import Doc, Span, SpanGroup, Token

from . import annotate

__all__ = ["StructkdPipe", "create"]

_NAMES = "ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"
_UPOS = frozenset(_NAMES.split())


class StructkdPipe:
    """Annotates the sentences of documents.

    Sentences are those of the document, if a component before has set them, or else found by the rule of
    :mod:`structkd.sentences`. White space tokens are not words of a sentence.

    Args:
        nlp: the pipeline.
        name: of the component.
        model: folder that ``structkd export`` wrote.
        spans_key: of ``doc.spans``; None leaves ``doc.spans`` alone.
        batch_size: sentences in a batch.
        threads: processor cores that the network may use.
    """

    def __init__(
        self, nlp: Language, name: str, model: str, spans_key: str | None, batch_size: int, threads: int
    ) -> None:
        self.name, self.folder = name, Path(model)
        self.spans_key, self.batch_size, self.threads = spans_key, batch_size, threads

    @cached_property
    def model(self) -> Any:
        """The exported model, loaded when it is first used: a pipeline read from the disk brings its own folder."""
        return annotate.load(self.folder, self.threads)

    def __call__(self, document: Doc) -> Doc:
        """Annotate a document."""
        return next(self.pipe([document]))

    def pipe(self, documents: Iterable[Doc], batch_size: int | None = None) -> Iterator[Doc]:
        """Annotate a stream of documents, some at a time; see spaCy's ``Language.pipe``."""
        stream = iter(documents)
        while some := list(islice(stream, batch_size or self.batch_size)):
            sentences = [(document, tokens) for document in some for tokens in self._sentences(document)]
            found = self.model.annotate([self._given(tokens) for _, tokens in sentences], self.batch_size, scores=True)
            for document in some:
                pairs = zip(sentences, found, strict=True)
                own = [(tokens, result) for (other, tokens), result in pairs if other is document]
                self._write(document, own)
                yield document

    def _given(self, tokens: Sequence[Token]) -> dict[str, Any]:
        given: dict[str, Any] = {"words": [token.text for token in tokens]}
        if all(token.pos for token in tokens):
            given["upos"] = [token.pos_ for token in tokens]
        return given

    def _sentences(self, document: Doc) -> Iterator[list[Token]]:
        if document.has_annotation("SENT_START"):
            for sentence in document.sents:
                if tokens := [token for token in sentence if not token.is_space]:
                    yield tokens
            return
        starts = [words[0][1][0] for words in self.model.split_sentences(document.text)]
        current: list[Token] = []
        for token in document:
            if token.is_space:
                continue
            while starts and starts[0] <= token.idx:
                starts.pop(0)
                if current:
                    yield current
                    current = []
            current.append(token)
        if current:
            yield current

    def _write(self, document: Doc, annotated: list[tuple[list[Token], dict[str, Any]]]) -> None:
        if not annotated:
            return
        if "heads" in annotated[0][1]:
            self._write_trees(document, annotated)
        elif "spans" in annotated[0][1]:
            self._write_spans(document, annotated)
        else:
            universal = _UPOS.issuperset(self.model.labels)
            for tokens, result in annotated:
                for token, tag in zip(tokens, result["tags"], strict=True):
                    token.tag_ = tag
                    if universal:
                        token.pos_ = tag

    def _write_spans(self, document: Doc, annotated: list[tuple[list[Token], dict[str, Any]]]) -> None:
        spans, scores = [], []
        for tokens, result in annotated:
            for found in result["spans"]:
                first, last = tokens[found["start"]].i, tokens[found["end"] - 1].i
                spans.append(Span(document, first, last + 1, label=found["label"]))
                scores.append(found["score"])
        document.set_ents(spans)
        if self.spans_key is not None:
            attributes = {"scores": np.array(scores, dtype="float32")}
            document.spans[self.spans_key] = SpanGroup(document, name=self.spans_key, attrs=attributes, spans=spans)

    def _write_trees(self, document: Doc, annotated: list[tuple[list[Token], dict[str, Any]]]) -> None:
        heads = np.zeros(len(document), dtype="int64")  # relative to the token; white space hangs on the word before
        heads[[token.i for token in document if token.is_space and token.i]] = -1
        relations = np.zeros(len(document), dtype="uint64")
        for tokens, result in annotated:
            for token, head, relation in zip(tokens, result["heads"], result["relations"], strict=True):
                heads[token.i] = tokens[head - 1].i - token.i if head else 0
                relations[token.i] = document.vocab.strings.add("ROOT" if relation == "root" else relation)
        document.from_array([HEAD, DEP], np.stack([heads.astype("uint64"), relations], 1))

    def to_disk(self, path: str | Path, exclude: Iterable[str] = ()) -> None:
        """Copy the exported folder into a saved pipeline."""
        shutil.copytree(self.folder, path, dirs_exist_ok=True)

    def from_disk(self, path: str | Path, exclude: Iterable[str] = ()) -> StructkdPipe:
        """Use the exported folder of a saved pipeline."""
        self.folder = Path(path)
        self.__dict__.pop("model", None)
        return self


@Language.factory(
    "structkd",
    assigns=["doc.ents", "doc.spans", "token.tag", "token.pos", "token.head", "token.dep"],
    default_config={"model": None, "spans_key": "structkd", "batch_size": 32, "threads": 1},
)
def create(
    nlp: Language, name: str, model: str | None, spans_key: str | None, batch_size: int, threads: int
) -> StructkdPipe:
    """Return the component; spaCy calls this function.

    Raises:
        ValueError: if no model is named.
    """
    if model is None:
        raise ValueError(
            "The component structkd needs an exported model. Name the folder that `structkd export` wrote: "
            'nlp.add_pipe("structkd", config={"model": FOLDER})'
        )
    return StructkdPipe(nlp, name, model, spans_key, batch_size, threads)
