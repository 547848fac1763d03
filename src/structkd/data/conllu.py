"""CoNLL-U, the format of Universal Dependencies (https://universaldependencies.org/format.html)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

from structkd.data.text_files import numbered_lines

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

_RANGE_OR_EMPTY = re.compile(r"[0-9]+(-[0-9]+|\.[0-9]+)")


@dataclass(frozen=True)
class DependencySentence:
    """The syntactic words of one CoNLL-U sentence; all tuples have one entry per word.

    Attributes:
        id: ``# sent_id``, or the sentence's number in the file (from 1) where there is none.
        document: ``# newdoc id`` in force, or None.
        tokens: word forms.
        upos: universal part-of-speech tags.
        heads: the file's own numbering, kept as it is: 1-based, 0 for the root. (Distributions number words
            from 0 and give the root itself as head: ``h - 1 if h else own_index``.) None where not read.
        relations: dependency relations, as ``aux:pass``. None where heads is None.
        line: line of the file on which the first word stands.
    """

    id: str
    document: str | None
    tokens: tuple[str, ...]
    upos: tuple[str, ...]
    heads: tuple[int, ...] | None
    relations: tuple[str, ...] | None
    line: int


def read_conllu(
    path: str | PathLike[str],
    *,
    heads: bool = True,
    multiroot: bool = False,
    subtypes: bool = True,
    relations: Collection[str] | None = None,
    replace: Mapping[str, str] | None = None,
) -> list[DependencySentence]:
    """Read a CoNLL-U file, plain or gzip.

    Lines of multiword tokens (``9-10``) and of empty nodes (``8.1``) are passed over: the words are the syntactic
    words. Comments other than ``sent_id`` and ``newdoc`` are passed over.

    Args:
        path: the file.
        heads: False reads no heads and relations, for files that carry ``_`` there.
        multiroot: whether a sentence may have several roots.
        subtypes: False drops the subtypes of relations: ``aux:pass`` is read as ``aux``.
        relations: the relations that may occur, as they are after that; None: any.
        replace: relations of the file to read as other relations, before anything is checked.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, empty or cut-off file; not ten tab-separated columns; words not numbered 1, 2, ...;
            an empty form; an unknown part of speech; a relation that is not among `relations`; a head that is no word
            of the sentence (file and line named); no root, several roots or a cycle (file, line and sentence named);
            a repeated sentence id.
    """
    replace = dict(replace or {})
    sentences: list[DependencySentence] = []
    seen: dict[str, int] = {}
    for line, comments, rows in _blocks(path):
        sentence_id = comments.get("sent_id") or str(len(sentences) + 1)
        if sentence_id in seen:
            raise ValueError(
                f"{path}, line {line}: sentence id {sentence_id!r} occurs before, at line {seen[sentence_id]}"
            )
        seen[sentence_id] = line
        arcs = [_arc(path, number, columns, len(rows)) for number, columns in rows] if heads else None
        if arcs is not None:
            for row, (head, relation) in enumerate(arcs):
                name = replace.get(relation, relation)
                name = name if subtypes else name.partition(":")[0]
                if relations is not None and name not in relations:
                    raise ValueError(
                        f"{path}, line {rows[row][0]}: unknown relation {name!r}; known: {' '.join(relations)}"
                    )
                arcs[row] = head, name
            fault = tree_fault([head for head, _ in arcs], multiroot=multiroot)
            if fault:
                raise ValueError(f"{path}, line {line}: sentence {sentence_id!r} is not a tree: {fault}")
        sentences.append(
            DependencySentence(
                id=sentence_id,
                document=comments.get("newdoc id"),
                tokens=tuple(columns[1] for _, columns in rows),
                upos=tuple(columns[3] for _, columns in rows),
                heads=tuple(head for head, _ in arcs) if arcs is not None else None,
                relations=tuple(relation for _, relation in arcs) if arcs is not None else None,
                line=line,
            )
        )
    if not sentences:
        raise ValueError(f"{path}: the file holds no sentence")
    return sentences


def tree_fault(heads: Sequence[int], *, multiroot: bool = False) -> str | None:
    """Why 1-based heads (0 = root) are no tree, or None where they are one. O(n) time."""
    roots = [word for word, head in enumerate(heads, 1) if head == 0]
    if not roots:
        return "it has no root (no head is 0)"
    if len(roots) > 1 and not multiroot:
        return f"it has {len(roots)} roots, words {', '.join(map(str, roots))}, where one is allowed"
    settled = [False] * (len(heads) + 1)
    settled[0] = True
    for word in range(1, len(heads) + 1):
        path, ancestor = [], word
        while not settled[ancestor]:
            settled[ancestor] = True
            path.append(ancestor)
            ancestor = heads[ancestor - 1]
        # Either the walk met a word settled before it began, or it bit its own tail.
        if ancestor in path:
            return f"words {' -> '.join(map(str, [*path[path.index(ancestor) :], ancestor]))} are a cycle"
    return None


def _blocks(path: str | PathLike[str]) -> Iterator[tuple[int, dict[str, str], list[tuple[int, list[str]]]]]:
    """Yield (first line, comments in force, [(line, columns)]) of every sentence."""
    document: str | None = None
    comments: dict[str, str] = {}
    rows: list[tuple[int, list[str]]] = []
    for number, line in numbered_lines(path):
        if line.startswith("#") and not rows:
            key, equals, value = line[1:].partition("=")
            if key.split() == ["newdoc", "id"] and equals:
                document = value.strip()
            elif key.split() == ["newdoc"]:
                document = None
            elif equals:
                comments[key.strip()] = value.strip()
        elif line.strip():
            columns = line.split("\t")
            if len(columns) != 10:
                raise ValueError(f"{path}, line {number}: {len(columns)} tab-separated columns where CoNLL-U has 10")
            if not _RANGE_OR_EMPTY.fullmatch(columns[0]):
                _check_word(path, number, columns, len(rows) + 1)
                rows.append((number, columns))
        else:
            if rows:
                yield rows[0][0], comments | ({"newdoc id": document} if document else {}), rows
            comments, rows = {}, []
    if rows:
        yield rows[0][0], comments | ({"newdoc id": document} if document else {}), rows


def _check_word(path: str | PathLike[str], number: int, columns: list[str], expected: int) -> None:
    if columns[0] != str(expected):
        raise ValueError(f"{path}, line {number}: word number {columns[0]!r} where {expected} was expected")
    if not columns[1].strip():
        raise ValueError(f"{path}, line {number}: the word form is empty")
    if columns[3] not in UPOS:
        raise ValueError(f"{path}, line {number}: unknown part of speech {columns[3]!r}; known: {' '.join(UPOS)}")


def _arc(path: str | PathLike[str], number: int, columns: list[str], length: int) -> tuple[int, str]:
    head, relation = columns[6:8]
    if head == "_":
        raise ValueError(f"{path}, line {number}: the word has no head; read files without trees with heads=False")
    if not head.isascii() or not head.isdigit() or int(head) > length:
        raise ValueError(f"{path}, line {number}: head {head!r} where 0 (root) to {length} was expected")
    if int(head) == int(columns[0]):
        raise ValueError(f"{path}, line {number}: word {head} is its own head; the root has head 0")
    return int(head), relation
