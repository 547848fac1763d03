"""CoNLL-U, the format of Universal Dependencies (https://universaldependencies.org/format.html), and CoNLL-X before it.

Both have ten columns, of which the same ones hold word, part of speech, head and relation.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from os import PathLike

from structkd.data.annotation import tree_fault
from structkd.data.formats.lines import check_length, line_of, numbered_lines, sharing
from structkd.data.formats.packed import SentenceList
from structkd.data.formats.slips import BLANK_WORDS, SentenceIds, check_option, option, without_blank_words

UPOS: tuple[str, ...] = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)
"""The 17 universal part-of-speech tags, in alphabetical order."""

UNIVERSAL_RELATIONS: tuple[str, ...] = (
    *("acl", "advcl", "advmod", "amod", "appos", "aux", "case", "cc", "ccomp", "clf", "compound", "conj", "cop"),
    *("csubj", "dep", "det", "discourse", "dislocated", "expl", "fixed", "flat", "goeswith", "iobj", "list", "mark"),
    *("nmod", "nsubj", "nummod", "obj", "obl", "orphan", "parataxis", "punct", "reparandum", "root", "vocative"),
    "xcomp",
)
"""The 37 universal dependency relations, in alphabetical order; a treebank may add subtypes, as ``aux:pass``."""

TREE_OPTIONS: tuple[str, ...] = ("relations", "subtypes", "multiroot", "replace", "blank_words", "repeated_ids")
"""The options of treebank readers that their messages offer."""

_RANGE_OR_EMPTY = re.compile(r"[0-9]+(-[0-9]+|\.[0-9]+)")
_COLUMNS = ["ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC"]
_NO_TAG = "_"


@dataclass(frozen=True, slots=True)
class DependencySentence:
    """The syntactic words of one CoNLL-U sentence; all tuples have one entry per word.

    Attributes:
        id: ``# sent_id``, or the sentence's number in the file (from 1) if there is none.
        document: ``# newdoc id`` in force, or None.
        tokens: word forms.
        upos: part-of-speech tags as the file has them, ``_`` for none.
        heads: the file's own numbering, kept as it is: 1-based, 0 for the root. None if not read.
        relations: dependency relations, as ``aux:pass``. None if heads is None.
        line: line of the file on which the first word stands.
    """

    id: str
    document: str | None
    tokens: tuple[str, ...]
    upos: tuple[str, ...]
    heads: tuple[int, ...] | None
    relations: tuple[str, ...] | None
    line: int


@dataclass(frozen=True)
class RelationRule:
    """The rule by which the relations of a file are read.

    Attributes:
        known: the relations that may occur, as they are after `subtypes` and `replace`; None: any.
        subtypes: False drops the subtypes of relations: ``aux:pass`` is read as ``aux``.
        replace: relations of the file to read as other relations, before anything is checked.
        open: whether a relation may also have a subtype that `known` lacks.
        offers: the options that messages may offer, by name.
    """

    known: Collection[str] | None = None
    subtypes: bool = True
    replace: Mapping[str, str] = field(default_factory=dict)
    open: bool = False
    offers: Collection[str] = TREE_OPTIONS

    def read(self, relation: str) -> str:
        """Return the relation of the corpus for a relation of the file.

        Raises:
            ValueError: an unknown relation; the message names it and an option that helps, but neither file nor line.
        """
        name = self.replace.get(relation, relation)
        universal = name.partition(":")[0]
        name = name if self.subtypes else universal
        if self.known is None or name in self.known or (self.open and universal in self.known):
            return name
        hints = []
        if self.subtypes and universal in self.known and "subtypes" in self.offers:
            hints.append(f"To drop subtypes, read with {option('subtypes', False)}.")
        if "relations" in self.offers:
            hints.append(f"To take the relations of the files as they are, read with {option('relations', None)}.")
        if "replace" in self.offers:
            known = "dep" if "dep" in self.known else next(iter(self.known))
            hints.append(f"To read single ones as others, use replace, say {option('replace', {relation: known})}.")
        fault = f"Unknown relation {name!r}; known: {' '.join(self.known)}."
        raise ValueError(" ".join([fault, *hints]))


def read_conllu(
    path: str | PathLike[str],
    *,
    heads: bool = True,
    upos: bool = False,
    multiroot: bool = False,
    subtypes: bool = True,
    relations: Collection[str] | None = None,
    replace: Mapping[str, str] | None = None,
    blank_words: str = "refuse",
    repeated_ids: str = "refuse",
    changes: Counter[str] | None = None,
    rule: RelationRule | None = None,
) -> Sequence[DependencySentence]:
    """Read a CoNLL-U or CoNLL-X file, plain or compressed.

    Lines of multiword tokens (``9-10``) and of empty nodes (``8.1``) are passed over: the words are the syntactic
    words. Comments other than ``sent_id`` and ``newdoc`` are passed over.

    Args:
        path: the file.
        heads: False reads no heads and relations, for files that carry ``_`` there.
        upos: whether every word must have one of the 17 universal parts of speech; False takes the column as it is.
        multiroot: whether a sentence may have several roots.
        subtypes: False drops the subtypes of relations: ``aux:pass`` is read as ``aux``.
        relations: the relations that may occur, as they are after that; None: any.
        replace: relations of the file to read as other relations, before anything is checked.
        blank_words: treatment of a form that is empty or nothing but white space: "refuse" the file, "skip" the
            sentence, or read the form as an "underscore".
        repeated_ids: treatment of a ``sent_id`` that occurs before: "refuse" the file, or "number" it. (One that
            occurs before in another document, ``newdoc id``, gets the document's name before it.)
        changes: a counter, if given, of the changes by `blank_words` and `repeated_ids`; see `changes_note`.
        rule: in place of `subtypes`, `relations` and `replace`.

    Returns:
        A list, or another sequence if the file is large: see `structkd.data.formats.packed`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, empty or cut-off file; a sentence of more than 100,000 words; CoNLL-U Plus; not ten
            tab-separated columns; words not numbered 1, 2, ...; an empty form; an unknown part of speech; a relation
            that is not among `relations`; a head that is not a word of the sentence (file and line named); no root,
            several roots or a cycle (file, line and sentence named); a repeated sentence id.
    """
    rule = rule or RelationRule(relations, subtypes, replace or {})
    check_option("blank_words", blank_words, BLANK_WORDS)
    changes = Counter() if changes is None else changes
    ids = SentenceIds(path, repeated_ids, changes, rule.offers)
    shared = sharing()
    sentences = SentenceList(DependencySentence)
    for line, comments, rows in _blocks(path):
        if upos:
            for number, columns in rows:
                fault = upos_fault(columns[3])
                if fault:
                    raise ValueError(f"{path}, line {number}: {fault}")
        arcs = [_arc(path, number, columns, len(rows), rule) for number, columns in rows] if heads else None
        forms = [columns[1] for _, columns in rows]
        words = without_blank_words(forms, partial(line_of, path, rows), blank_words, changes, offers=rule.offers)
        if words is None:
            continue
        document = comments.get("newdoc id")
        sentence_id = ids.next(comments.get("sent_id"), line, document)
        fault = tree_fault([head for head, _ in arcs], multiroot=multiroot) if arcs is not None else None
        if fault:
            raise ValueError(
                f"{path}, line {line}: Sentence {sentence_id!r} is not a tree: {fault}.{root_hint(arcs, rule.offers)}"
            )
        sentences.append(
            DependencySentence(
                id=sentence_id,
                document=document,
                tokens=tuple(map(shared, words)),
                upos=tuple(shared(columns[3] or _NO_TAG) for _, columns in rows),
                heads=tuple(head for head, _ in arcs) if arcs is not None else None,
                relations=tuple(shared(relation) for _, relation in arcs) if arcs is not None else None,
                line=line,
            )
        )
    if not (content := sentences.content()):
        raise ValueError(f"{path}: The file holds no sentence.")
    return content


def upos_fault(tag: str) -> str | None:
    """Return the reason why a tag is not a universal part of speech and a remedy, or None if it is one."""
    if tag in UPOS:
        return None
    return (
        f"Unknown part of speech {tag!r}; known: {' '.join(UPOS)}. The tasks upos and spans (base phrases) need these, "
        "trees (task=dependencies) do not. Tags of another set are learnt from column files: data=columns task=upos "
        "data.token_column=1 data.tag_column=3 data.delimiter=tab."
    )


def has_upos(sentences: Iterable[DependencySentence]) -> bool:
    """Return whether every word has a part of speech, of whatever set."""
    return all(tag != _NO_TAG for sentence in sentences for tag in sentence.upos)


def root_hint(arcs: Sequence[tuple[int, str]] | None, offers: Collection[str]) -> str:
    """Return the option that helps if a sentence has several roots, else nothing."""
    several = sum(head == 0 for head, _ in arcs or ()) > 1
    return (
        f" To allow several roots, read with {option('multiroot', True)}." if several and "multiroot" in offers else ""
    )


def _blocks(path: str | PathLike[str]) -> Iterator[tuple[int, dict[str, str], list[tuple[int, list[str]]]]]:
    """Yield (first line, comments in force, [(line, columns)]) of every sentence."""
    document: str | None = None
    comments: dict[str, str] = {}
    rows: list[tuple[int, list[str]]] = []
    for number, line in numbered_lines(path):
        if line.startswith("#") and not rows:
            key, equals, value = line[1:].partition("=")
            if key.strip() == "global.columns":
                _check_plus(path, number, value.split())
            elif key.split() == ["newdoc", "id"] and equals:
                document = value.strip()
            elif key.split() == ["newdoc"]:
                document = None
            elif equals:
                comments[key.strip()] = value.strip()
        elif line.strip():
            columns = line.split("\t")
            if len(columns) != 10:
                raise ValueError(
                    f"{path}, line {number}: {len(columns)} tab-separated columns where CoNLL-U has 10."
                    f"{_column_hint(line, columns)}"
                )
            if not _RANGE_OR_EMPTY.fullmatch(columns[0]):
                _check_word(path, number, columns, len(rows) + 1)
                check_length(path, rows)
                rows.append((number, columns))
        else:
            if rows:
                yield rows[0][0], comments | ({"newdoc id": document} if document else {}), rows
            comments, rows = {}, []
    if rows:
        yield rows[0][0], comments | ({"newdoc id": document} if document else {}), rows


def _check_plus(path: str | PathLike[str], number: int, columns: list[str]) -> None:
    if columns != _COLUMNS:
        cut = "" if columns[:10] != _COLUMNS else "; the first ten are those of CoNLL-U: keep them with `cut -f1-10`"
        raise ValueError(
            f"{path}, line {number}: The file is CoNLL-U Plus, with the columns {' '.join(columns)}. Only the ten "
            f"columns of CoNLL-U are read, {' '.join(_COLUMNS)}{cut}."
        )


def _column_hint(line: str, columns: list[str]) -> str:
    """Return the likely cause of a fault in the columns of a line."""
    if columns[-1] == "" and len(columns) == 11:
        return " The line ends with a tab: remove it."
    if line.startswith("#"):
        return " A comment may stand only before a sentence's first word: move it there."
    if len(columns) == 1 and len(line.split()) == 10:
        return " Blanks separate the columns: turn them into tabs."
    if len(columns) > 10:
        return " In a file of CoNLL-U Plus, CoNLL-2008 or 2009, keep the columns that CoNLL-U has."
    return ""


def _check_word(path: str | PathLike[str], number: int, columns: list[str], expected: int) -> None:
    if columns[0] != str(expected):
        raise ValueError(
            f"{path}, line {number}: Word number {columns[0]!r} where {expected} was expected."
            + (" A blank line may be missing before it." if columns[0] == "1" else "")
        )


def _arc(
    path: str | PathLike[str], number: int, columns: list[str], length: int, rule: RelationRule
) -> tuple[int, str]:
    head, relation = columns[6:8]
    if head == "_":
        remedy = " Files without trees serve task=upos; in Python, read them with heads=False." if rule.offers else ""
        raise ValueError(f"{path}, line {number}: The word has no head.{remedy}")
    if not head.isascii() or not head.isdigit() or len(head) > 9 or int(head) > length:
        raise ValueError(f"{path}, line {number}: Head {head[:20]!r} where 0 (root) to {length} was expected.")
    if int(head) == int(columns[0]):
        raise ValueError(f"{path}, line {number}: Word {head} is its own head; the root has head 0.")
    try:
        return int(head), rule.read(relation)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: {error}") from None
