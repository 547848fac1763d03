"""A spaCy pipeline as a teacher: its entities or its parse, the one best or those of a beam."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from structkd.configurable import configurable
from structkd.data import Annotation, TagAnnotation, TreeAnnotation
from structkd.data.annotation import tree_fault
from structkd.plugins import plugins
from structkd.teachers.given import GivenModel, GivenTeacher, folder_state, required_path
from structkd.teachers.label_map import LabelMap
from structkd.teachers.spacy_folders import REMEDY, pipeline_folder
from structkd.teachers.structures import StructureModel, Weighted, merged

__all__ = ["SpacyPipeline"]

#: Parts of a pipeline that neither entities nor parses depend on.
_NOT_NEEDED = ("lemmatizer", "senter", "sentencizer", "textcat", "textcat_multilabel")
_ROOT = "ROOT"
#: The least share of the best structure's probability in the beam of a part that was not trained with one.
_DENSITY = 0.01


@configurable
class SpacyPipeline(GivenTeacher):
    """A spaCy pipeline, which reads the words of the data as its tokens; needs ``pip install 'structkd[spacy]'``.

    Args:
        path: the name of an installed pipeline (``en_core_web_sm``) or its folder. Code of its own is not run, unless
            you trust the package by name (``+trust=package``).
        map: names of the data for entity types, parts of speech or relations of the pipeline, null for outside; ``*``
            is the rest.
        beam: 1 takes the pipeline's one best structure; K takes the structures that a beam of that width ends with,
            weighted by their probability among them, whether or not the part was trained with a beam (``beam_ner``,
            ``beam_parser``). Parts of speech have no beam.
        beam_density: the share of the best structure's probability that a structure needs, at every word, to stay in
            the beam. By default that of a part that was trained with a beam, and 0.01 for the others: their scores are
            not probabilities, and a beam without this limit fills with structures that most words contradict.
        relations: false takes the heads of a parse alone; its relations are ClearNLP's in some pipelines.

    >>> from structkd.teachers import SpacyPipeline
    >>> SpacyPipeline("en_core_web_sm", map={"PERSON": "PER", "*": None}, beam=8).beam
    8
    """

    def __init__(
        self,
        path: str | None = None,
        map: Mapping[str, str | None] | None = None,
        beam: int = 1,
        beam_density: float | None = None,
        relations: bool = True,
    ) -> None:
        self.path = required_path(path, "spacy")
        if isinstance(beam, bool) or not isinstance(beam, int) or beam < 1:
            raise ValueError(f"beam must be a whole number from 1, got {beam!r}.")
        if beam_density is not None:
            if (
                isinstance(beam_density, bool)
                or not isinstance(beam_density, (int, float))
                or not 0 <= beam_density < 1
            ):
                raise ValueError(f"beam_density must be a number from 0 and below 1, got {beam_density!r}.")
            if beam == 1:
                raise ValueError(f"beam_density={beam_density} needs a beam; set beam to 2 or more.")
        self.map, self.beam, self.beam_density, self.relations = map, beam, beam_density, relations

    def open(self, annotation: Annotation) -> GivenModel:
        """Load the pipeline and compare its labels with those of the data; see :class:`GivenTeacher`."""
        return _Pipeline(self, annotation)


class _Pipeline(StructureModel):
    """The pipeline, run over the words of the data; one sentence is one document."""

    def __init__(self, recipe: SpacyPipeline, annotation: Annotation) -> None:
        super().__init__(annotation, recipe.beam, recipe.relations)
        trees = isinstance(annotation, TreeAnnotation)
        spans = isinstance(annotation, TagAnnotation) and annotation.types is not None
        self.task = "parser" if trees else "ner" if spans else "tagger"
        if self.task == "tagger" and recipe.beam > 1:
            raise ValueError(f"beam={recipe.beam}: spaCy tags every word alone, and has no beam for it. Leave it out.")
        others = {
            "ner": ("parser", "beam_parser", "tagger", "morphologizer", "attribute_ruler"),
            "parser": ("ner", "beam_ner", "tagger", "morphologizer", "attribute_ruler"),
            "tagger": ("ner", "beam_ner", "parser", "beam_parser"),  # the attribute ruler gives parts of speech
        }
        unneeded = (*others[self.task], *_NOT_NEEDED)
        self.pipeline = _loaded(recipe.path, unneeded)
        pipeline = self.pipeline
        who = f"the spaCy pipeline {recipe.path}"
        if self.task == "tagger":
            if not {"tagger", "morphologizer"} & set(pipeline.pipe_names):
                raise ValueError(f"T{who[1:]} has no tagger; its parts are {_parts(pipeline)}.")
            own = list(_UPOS)
        else:
            part = _part(pipeline, self.task)
            if part is None:
                raise ValueError(
                    f"T{who[1:]} has no part {self.task!r}, which this task needs; its parts are {_parts(pipeline)}."
                )
            self.part: str = part
            own = list(pipeline.get_pipe(part).labels)
            if trees:
                own = list(dict.fromkeys([*(label.partition("||")[0] for label in own), _ROOT]))
        given: dict[str, str | None] = dict(recipe.map or {})
        if trees and "root" in annotation.relations:  # type: ignore[attr-defined]
            given = {_ROOT: "root", **given}
        if trees and not self.has_relations:
            own, given = [], {}
        self.map = LabelMap.of(own, annotation, given, who)
        self.beam, self.density = recipe.beam, recipe.beam_density
        if self.density is None and self.task != "tagger":
            trained = pipeline.get_pipe(self.part).cfg
            self.density = trained["beam_density"] if trained.get("beam_width", 1) > 1 else _DENSITY
        meta = pipeline.meta
        folder = Path(recipe.path).expanduser()
        self.identity = [
            recipe.path,
            *(str(meta.get(name)) for name in ("lang", "name", "version", "spacy_version")),
            _version(),
            folder_state(folder) if folder.is_dir() else None,
        ]
        found = "one best" if recipe.beam == 1 else f"beam of {recipe.beam}"
        self.title = (
            f"the spaCy pipeline {recipe.path} {meta.get('version', '')} ({self.task}, {found}), on the words of the "
            f"data; {self.map.describe() if own else 'heads without relations'}"
        )

    def structures(self, examples: Sequence[Mapping[str, Any]]) -> list[list[Weighted]]:
        from spacy.tokens import Doc

        pipeline = self.pipeline
        sentences = [list(example["tokens"]) for example in examples]
        docs = [
            Doc(pipeline.vocab, words=words, sent_starts=[n == 0 for n in range(len(words))]) for words in sentences
        ]
        if self.beam == 1:
            return [[self._best(doc)] for doc in pipeline.pipe(docs)]
        part = pipeline.get_pipe(self.part)
        with pipeline.select_pipes(disable=[self.part]):
            docs = list(pipeline.pipe(docs))
        beams = part.beam_parse(docs, beam_width=self.beam, beam_density=self.density)
        found = []
        for doc, beam in zip(docs, beams, strict=True):
            # spaCy lists a tree once for each of its arcs; these are one object
            parses = {id(parse): (weight, parse) for weight, parse in part.moves.get_beam_parses(beam)}.values()
            structures = [Weighted(float(weight), *self._structure(doc, parse)) for weight, parse in parses]
            found.append(merged(structures) or [self._best(part(doc))])
        return found

    def _best(self, doc: Any) -> Weighted:
        if self.task == "tagger":
            return Weighted(1.0, tuple(self.map.numbers(token.pos_ for token in doc)))
        if self.task == "ner":
            return Weighted(1.0, *self._structure(doc, [(ent.start, ent.end, ent.label_) for ent in doc.ents]))
        arcs = [(token.head.i, token.i, token.dep_) for token in doc if token.head.i != token.i]
        return Weighted(1.0, *self._structure(doc, arcs))

    def _structure(self, doc: Any, parts: list[tuple[int, int, str]]) -> tuple[tuple[int, ...], tuple[int, ...] | None]:
        """Return entities (start, end, type), end exclusive, or arcs (head, dependent, relation), as a structure."""
        if self.task == "ner":
            spans = [(start, end - 1, kind) for start, end, kind in parts]
            return tuple(self.map.labels_of_spans(spans, len(doc))), None
        heads, names = list(range(len(doc))), [_ROOT] * len(doc)
        for head, dependent, relation in parts:
            heads[dependent], names[dependent] = head, relation.partition("||")[0]
        roots = [word for word, head in enumerate(heads) if head == word]
        for word in roots[1:]:  # spaCy may end a sentence inside of ours: the data have one root
            heads[word] = roots[0]
        fault = tree_fault([0 if head == word else head + 1 for word, head in enumerate(heads)])
        if fault:
            raise ValueError(f"spaCy's parse of {' '.join(token.text for token in doc)[:60]!r} is not a tree: {fault}.")
        return tuple(heads), tuple(self.map.numbers(names)) if self.has_relations else None


_UPOS = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM", "PART", "PRON", "PROPN", "PUNCT", "SCONJ"),
    *("SYM", "VERB", "X"),
)


def _loaded(path: str, unneeded: Sequence[str]) -> Any:
    """Return a pipeline without the parts that are not needed. Its data are read, and no module is imported for it.

    Raises:
        ValueError: if spaCy is not installed, the pipeline has code of its own, or its configuration asks for other
            code.
        FileNotFoundError: if no such pipeline is installed, and no folder has that name.
    """
    if importlib.util.find_spec("spacy") is None:
        raise ValueError("teacher=spacy needs spaCy, which is not installed. Run: pip install 'structkd[spacy]'.")
    if path in plugins():
        source: Any = path  # the user trusts the module, so that it may be imported
    else:
        source = pipeline_folder(path)
    import spacy

    try:
        return spacy.load(source, exclude=list(unneeded))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"The spaCy pipeline {path!r} cannot be loaded ({str(error).splitlines()[0][:160]}). {REMEDY}"
        ) from error


def _part(pipeline: Any, task: str) -> str | None:
    """Return the name of the part that does a task, which may have been trained with a beam; None if there is none."""
    factories = {name: pipeline.get_pipe_meta(name).factory for name in pipeline.pipe_names}
    return next((name for name, factory in factories.items() if factory in (task, f"beam_{task}")), None)


def _version() -> str:
    import spacy

    return str(spacy.__version__)


def _parts(pipeline: Any) -> str:
    return ", ".join(pipeline.pipe_names)
