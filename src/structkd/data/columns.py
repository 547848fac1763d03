"""Column files: one word a line with its tag, blank lines between sentences (CoNLL-2000/2002/2003, Universal NER)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

from structkd.data.tagging import convert_tags, find_violation, repair_bio, tag_inventory
from structkd.data.text_files import numbered_lines

DOCUMENT_MARK = "-DOCSTART-"

_BLANKS = re.compile(r"[ \t]+")


@dataclass(frozen=True)
class TaggedSentence:
    """The words and tags of one sentence, one tag per word.

    Attributes:
        id: ``# sent_id``, or the sentence's number in the file (from 1) where there is none.
        tokens: word forms.
        tags: tags in the scheme asked for.
        replaced: how many tags the reader replaced.
        repaired: how many tags it read as B where they were I.
        line: line of the file on which the first word stands.
    """

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    replaced: int
    line: int
    repaired: int = 0


def read_columns(
    path: str | PathLike[str],
    types: Sequence[str] | None,
    *,
    token_column: int = 1,
    tag_column: int = 2,
    widths: Sequence[int] | None = None,
    delimiter: str | None = "\t",
    comment: str | None = "#",
    scheme: str | None = "BIO",
    target_scheme: str | None = None,
    replace: Mapping[str, str] | None = None,
    repair: bool = False,
    encoding: str = "utf-8",
) -> list[TaggedSentence]:
    """Read a column file, plain or gzip; the defaults are Universal NER's ``id token tag - annotator``.

    Args:
        path: the file.
        types: the span types that may occur, or the tags themselves where `scheme` is None; None: any.
        token_column: column of the word, from 0; negative counts from the right.
        tag_column: column of the tag, likewise.
        widths: the numbers of columns a line may have; None: as many as the file's first word.
        delimiter: what separates columns; None: any run of blanks and tabs, as in CoNLL-2000.
        comment: a line that begins so, before a sentence's first word, is a comment (``sent_id`` is read from it);
            None: no comments.
        scheme: the file's tag scheme, BIO, IOB1 or BIOES; None: tags are no spans.
        target_scheme: the scheme wanted; None: the file's own.
        replace: tags of the file to read as other tags, before anything is checked.
        repair: read as B an I of BIO that continues no span of its type, instead of refusing it.
        encoding: of the file.

    A sentence that is nothing but ``-DOCSTART-``, which marks a new document in files of CoNLL-2002 and 2003, is
    passed over.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, empty or cut-off file; a wrong number of columns; an empty word; a tag outside the
            inventory, which is printed; a tag sequence illegal in `scheme`; a repeated sentence id. The file and the
            line are named.
    """
    inventory: Sequence[str] = types or ()
    if types is not None and scheme is not None:
        inventory = tag_inventory(types, "BIO" if scheme == "IOB1" else scheme)
    known = frozenset(inventory)
    replace = dict(replace or {})
    allowed = tuple(widths) if widths is not None else ()
    sentences: list[TaggedSentence] = []
    seen: dict[str, int] = {}
    for comments, rows in _blocks(path, comment, encoding):
        tokens, tags, replaced = [], [], 0
        if len(rows) == 1 and DOCUMENT_MARK in _cells(rows[0][1], delimiter):
            continue
        for number, line in rows:
            cells = _cells(line, delimiter)
            allowed = allowed or (len(cells),)
            if len(cells) not in allowed:
                expected = " or ".join(map(str, allowed))
                raise ValueError(
                    f"{path}, line {number}: {len(cells)} columns where {expected} were expected: {line!r}"
                )
            token, tag = _cell(path, number, cells, token_column), _cell(path, number, cells, tag_column)
            if not token.strip():
                raise ValueError(f"{path}, line {number}: the word is empty")
            if tag in replace:
                tag, replaced = replace[tag], replaced + 1
            if types is not None and tag not in known:
                raise ValueError(
                    f"{path}, line {number}: unknown label {tag!r}; the inventory is {' '.join(inventory)}"
                )
            tokens.append(token)
            tags.append(tag)
        tags, repaired = repair_bio(tags) if repair and scheme == "BIO" else (tags, 0)
        line_number = rows[0][0]
        violation = find_violation(tags, scheme) if scheme is not None else None
        if violation is not None:
            at = rows[min(violation[0], len(rows) - 1)][0]
            raise ValueError(f"{path}, line {at}: {violation[1]}; {tag_hint(scheme)}")
        sentence_id = comments.get("sent_id") or str(len(sentences) + 1)
        if sentence_id in seen:
            raise ValueError(
                f"{path}, line {line_number}: sentence id {sentence_id!r} occurs before, at line {seen[sentence_id]}"
            )
        seen[sentence_id] = line_number
        if scheme is not None and target_scheme not in (None, scheme):
            tags = convert_tags(tags, scheme, str(target_scheme))
        sentences.append(TaggedSentence(sentence_id, tuple(tokens), tuple(tags), replaced, line_number, repaired))
    if not sentences:
        raise ValueError(f"{path}: the file holds no sentence")
    return sentences


def tag_hint(scheme: str | None) -> str:
    """What to do about an illegal sequence of tags."""
    hint = f"is the tag scheme really {scheme}?"
    return f"{hint} (repair=True reads an I that continues nothing as B)" if scheme == "BIO" else hint


def _cells(line: str, delimiter: str | None) -> list[str]:
    return _BLANKS.split(line.strip(" \t")) if delimiter is None else line.split(delimiter)


def _cell(path: str | PathLike[str], number: int, cells: list[str], column: int) -> str:
    try:
        return cells[column]
    except IndexError:
        raise ValueError(f"{path}, line {number}: no column {column} (from 0) among {len(cells)} columns") from None


def _blocks(
    path: str | PathLike[str], comment: str | None, encoding: str
) -> Iterator[tuple[dict[str, str], list[tuple[int, str]]]]:
    """Yield (comments, [(line, text)]) of every sentence."""
    comments: dict[str, str] = {}
    rows: list[tuple[int, str]] = []
    for number, line in numbered_lines(path, encoding):
        if comment and not rows and line.startswith(comment):
            key, equals, value = line[len(comment) :].partition("=")
            if equals:
                comments[key.strip()] = value.strip()
        elif line.strip():
            rows.append((number, line))
        else:
            if rows:
                yield comments, rows
            comments, rows = {}, []
    if rows:
        yield comments, rows
