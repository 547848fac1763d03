"""Column files: one word a line with its tag, blank lines between sentences (CoNLL-2000/2002/2003, Universal NER)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from os import PathLike

from structkd.data.formats.lines import check_length, line_of, numbered_lines, sharing, split_words
from structkd.data.formats.packed import SentenceList
from structkd.data.formats.slips import BLANK_WORDS, SentenceIds, check_option, choice, option, without_blank_words
from structkd.data.formats.tag_schemes import FileScheme
from structkd.tags import convert_tags

DOCUMENT_MARK = "-DOCSTART-"
CONLLU_COLUMNS = 10
COLUMN_OPTIONS: tuple[str, ...] = (
    *(
        "types",
        "token_column",
        "tag_column",
        "scheme",
        "separator",
        "widths",
        "delimiter",
        "comment",
        "replace",
        "repair",
    ),
    *("blank_words", "repeated_ids", "encoding"),
)
"""The options of `read_columns` that its messages offer."""

_DELIMITERS = {"tab": "\t", "\\t": "\t", "\\\\t": "\t", "blank": " ", "space": " "}
_KEY_VALUE = re.compile(r"[ \t]*[\w. -]+=")


@dataclass(frozen=True, slots=True)
class TaggedSentence:
    """The words and tags of one sentence, one tag per word.

    Attributes:
        id: ``# sent_id``, or the sentence's number in the file (from 1) if there is none.
        tokens: word forms.
        tags: tags in the scheme asked for.
        replaced: how many tags the reader replaced.
        line: line of the file on which the first word stands.
    """

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    replaced: int
    line: int


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
    separator: str = "-",
    target_scheme: str | None = None,
    replace: Mapping[str, str] | None = None,
    repair: bool = False,
    blank_words: str = "refuse",
    repeated_ids: str = "refuse",
    encoding: str = "utf-8",
    changes: Counter[str] | None = None,
    offers: Collection[str] = COLUMN_OPTIONS,
) -> Sequence[TaggedSentence]:
    """Read a column file, plain or compressed; the defaults are Universal NER's ``id token tag - annotator``.

    A sentence's first line that is nothing but ``-DOCSTART-`` and its columns, which marks a new document in files of
    CoNLL-2002 and 2003, is passed over.

    Args:
        path: the file.
        types: the span types that may occur, or the tags themselves if `scheme` is None; None: any.
        token_column: column of the word, from 0; negative counts from the right.
        tag_column: column of the tag, likewise.
        widths: the numbers of columns a line may have; None: as many as the file's first word.
        delimiter: the separator of columns, a character or its name, ``tab`` or ``blank``; None: any run of blanks and
            tabs, as in CoNLL-2000.
        comment: a line that begins so, before a sentence's first word, is a comment (``sent_id`` is read from it),
            unless it has the columns of a word, as a hashtag and its tag; None: no comments.
        scheme: the file's tag scheme, one of `FILE_SCHEMES`, see `FileScheme`; None: tags do not stand for spans.
        separator: the characters between the prefix and the type of a tag.
        target_scheme: the scheme wanted; None: the file's own, with our prefixes (that of IOE1 and IOE2: BIO).
        replace: tags of the file to read as other tags, before anything is checked.
        repair: read tags that are illegal in `scheme` as the scorer of CoNLL-2000 does (an I that continues no span
            begins one), instead of refusing them.
        blank_words: treatment of a word that is empty or nothing but white space: "refuse" the file, "skip" the
            sentence, or read the word as an "underscore".
        repeated_ids: treatment of a ``sent_id`` that occurs before: "refuse" the file, or "number" it. (One that
            occurs before in another document, ``newdoc id``, gets the document's name before it.)
        encoding: of the file.
        changes: a counter, if given, of the changes by `repair`, `blank_words` and `repeated_ids`; see `changes_note`.
        offers: the options that messages may offer, by name.

    Returns:
        A list, or another sequence if the file is large: see `structkd.data.formats.packed`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: unreadable, empty or cut-off file; a sentence of more than 100,000 words; a wrong number of columns;
            an empty word; a tag outside the inventory, which is printed; a tag sequence illegal in `scheme`; a repeated
            sentence id; words that are all numbered 1, 2, 3. The file and the line are named, and an option that helps.
    """
    spelling = FileScheme(scheme, separator) if scheme is not None else None
    check_option("blank_words", blank_words, BLANK_WORDS)
    changes = Counter() if changes is None else changes
    layout = _Layout(path, token_column, tag_column, widths, _delimiter(delimiter), comment, spelling, offers)
    replace = dict(replace or {})
    ids = SentenceIds(path, repeated_ids, changes, offers)
    known: set[str] = set()
    shared = sharing()
    sentences = SentenceList(TaggedSentence)
    offer = option("encoding", "latin-1") if "encoding" in offers else None
    for comments, rows in _blocks(path, layout.is_comment, comment, encoding, offer):
        if any(cell.startswith(DOCUMENT_MARK) for cell in layout.cells(rows[0][1])):
            rows = rows[1:]
        words, given, tags = [], [], []
        for number, line in rows:
            try:
                word, tag = layout.word_and_tag(number, line)
            except ValueError as error:
                raise _other_format(path, number, line, offers) or error from None
            given.append(tag)
            tag = replace.get(tag, tag)
            if types is not None and tag not in known:
                fault = _unknown(tag, types, spelling, offers)
                if fault:
                    raise ValueError(f"{path}, line {number}: {fault}")
                known.add(tag)
            words.append(word)
            tags.append(tag)
        kept = without_blank_words(words, partial(line_of, path, rows), blank_words, changes, offers=offers)
        if not kept:  # a sentence with a blank word, or a mark of a document
            continue
        if spelling is not None:
            tags = _read_tags(path, rows, given, tags, layout, spelling, repair, changes, offers)
            if target_scheme not in (None, spelling.scheme):
                tags = convert_tags(tags, spelling.scheme, str(target_scheme))
        line_number = rows[0][0]
        replaced = sum(tag in replace for tag in given)
        sentence_id = ids.next(comments.get("sent_id"), line_number, comments.get("newdoc id"))
        words_and_tags = tuple(map(shared, kept)), tuple(map(shared, tags))
        sentences.append(TaggedSentence(sentence_id, *words_and_tags, replaced, line_number))
    if not (content := sentences.content()):
        raise ValueError(f"{path}: The file holds no sentence.")
    if max(len(each.tokens) for each in content) > 2 and all(are_numbers(each.tokens) for each in content):
        remedy = f" Name that of the words, say {option('token_column', 1)}." if "token_column" in offers else ""
        raise ValueError(f"{path}: Column {token_column} (from 0) numbers the words (1 2 3 ...).{remedy}")
    return content


def are_numbers(words: Sequence[str]) -> bool:
    """Return whether the words of a sentence are their own numbers, as in a column that counts them."""
    return all(word == str(number) for number, word in enumerate(words, 1))


def tag_hint(
    tags: Sequence[str],
    spelling: FileScheme,
    offers: Collection[str],
    key: str = "file_scheme",
    columns: Sequence[int] = (),
) -> str:
    """Return the remedies for a sequence of tags that is illegal in a scheme, to follow the reason.

    Args:
        tags: of one sentence.
        spelling: the scheme.
        offers: the options that may be offered.
        key: the name of the scheme in the configuration.
        columns: other columns of the file that have tags of the scheme.
    """
    if columns and "tag_column" in offers:
        which = (
            f"Column {columns[-1]} (from 0) has"
            if len(columns) == 1
            else f"Columns {', '.join(map(str, columns))} have"
        )
        return f". {which} tags of {spelling.name}: {option('tag_column', columns[-1])}."
    question = f"; is the tag scheme really {spelling.name}?" if "scheme" in offers else "."
    hints = []
    other = spelling.others(tags) if "scheme" in offers else None
    if other is not None and other.separator != spelling.separator and "separator" not in offers:
        other = None
    if other is not None:
        named = [] if other.name == spelling.name else [option("scheme", other.name, key)]
        if other.separator != spelling.separator:
            named.append(option("separator", other.separator))
        hints.append(f"The sentence is legal with {' and '.join(named)}.")
    if "repair" in offers and all(spelling.tag(tag) is not None for tag in tags):
        repaired = "an I that continues nothing as B" if spelling.scheme == "BIO" else "illegal tags as conlleval does"
        hints.append(f"To read {repaired}, use {option('repair', True)}.")
    elif other is None and "tag_column" in offers and all(spelling.tag(tag) is None for tag in tags):
        hints.append("No tag of the sentence belongs to it: is another column (tag_column) that of the tags?")
    elif other is None and "replace" in offers:
        wrong = next(tag for tag in tags if spelling.tag(tag) is None)
        hints.append(f"Single tags are read as others with replace, say {option('replace', {wrong: 'O'})}.")
    return " ".join([question, *hints])


def _read_tags(
    path: str | PathLike[str],
    rows: Sequence[tuple[int, str]],
    given: Sequence[str],
    tags: Sequence[str],
    layout: _Layout,
    spelling: FileScheme,
    repair: bool,
    changes: Counter[str],
    offers: Collection[str],
) -> list[str]:
    """Return the tags of one sentence in the scheme of the spelling, or raise a ValueError with file and line."""
    try:
        read, changed = spelling.read(tags, repair)
    except ValueError:
        violation = spelling.violation(tags)
        if violation is None:
            raise
        at = min(violation[0], len(rows) - 1)
        number, line = rows[at]
        unknown = spelling.tag(tags[at]) is None
        if unknown and (other := _other_format(path, number, line, offers)):
            raise other from None
        before = max(at - 1, 0)
        read_as = f" (the {given[before]!r} before it was read so)" if given[before] != tags[before] else ""
        columns = layout.columns_of_tags(rows, spelling) if unknown else []
        hint = tag_hint(tags, spelling, offers, columns=columns)
        raise ValueError(f"{path}, line {number}: {violation[1]}{read_as}{hint}") from None
    changes["repaired"] += changed
    return read


def _other_format(path: str | PathLike[str], number: int, line: str, offers: Collection[str]) -> ValueError | None:
    """Return an error if a line that has no word and tag looks like one of another format."""
    if "delimiter" not in offers:  # a data set with a format of its own
        return None
    cells = line.split("\t")
    if len(cells) == CONLLU_COLUMNS and re.fullmatch(r"[0-9]+([-.][0-9]+)?", cells[0]):
        return ValueError(
            f"{path}, line {number}: The line looks like CoNLL-U (ten columns between tabs, the first a number): read "
            f"the file with {choice('conllu')}. If it is not, name the columns of the word and the tag (token_column, "
            "tag_column)."
        )
    if re.match(r"\s*[\[{]\s*(\"|\]|\}|$)", line):
        return ValueError(
            f"{path}, line {number}: The line looks like JSON, and a line of columns has one word and its tag. Write "
            "the words in columns; annotations of other programs in JSON lines can teach a student "
            "(teacher=annotations teacher.path=FILE)."
        )
    return None


def _unknown(tag: str, types: Sequence[str] | None, spelling: FileScheme | None, offers: Collection[str]) -> str | None:
    """Return the reason why a tag is outside the inventory, or None."""
    if types is None:
        return None
    name: str | None = tag
    if spelling is not None:
        own = spelling.tag(tag)
        if own == "O":
            return None
        name = own[2:] if own else None
    if name in types:
        return None
    inventory = list(types) if spelling is None else spelling.inventory(types)
    fault = f"Unknown label {tag!r}; the inventory is {' '.join(inventory)}."
    if name is not None and "types" in offers:
        fault += f" To admit it, name all types: {option('types', [*types, name])}."
    return fault


def _delimiter(given: str | None) -> str | None:
    if given is None:
        return None
    delimiter = _DELIMITERS.get(given, given)
    if not delimiter or delimiter.isalnum() or "\n" in delimiter:
        raise ValueError(
            f"delimiter={given!r} cannot separate columns. Give a character or its name: for tabs, "
            f"{option('delimiter', 'tab')}; for any run of blanks and tabs, {option('delimiter', None)}."
        )
    return delimiter


@dataclass
class _Layout:
    """The columns of the word and the tag in the lines of a file; the first word sets `widths`."""

    path: str | PathLike[str]
    token_column: int
    tag_column: int
    widths: Sequence[int] | None
    delimiter: str | None
    comment: str | None
    spelling: FileScheme | None
    offers: Collection[str]
    first: tuple[int, str] | None = None

    def cells(self, line: str) -> list[str]:
        return split_words(line) if self.delimiter is None else line.split(self.delimiter)

    def is_comment(self, line: str) -> bool:
        """Return whether a line before a sentence's first word is a comment, and not the row of a word."""
        if not self.comment or not line.startswith(self.comment):
            return False
        rest = line[len(self.comment) :]
        cells = self.cells(line)
        needed = max(2, *(column + 1 if column >= 0 else -column for column in (self.token_column, self.tag_column)))
        fits = len(cells) in self.widths if self.widths is not None else len(cells) >= needed
        if not fits or _KEY_VALUE.match(rest):
            return True
        is_tag = self.spelling is None or self.spelling.tag(cells[self.tag_column]) is not None
        prose = self.delimiter in (None, " ")  # "# text in blanks" may have as many columns as a word
        if rest[:1] not in (" ", ""):
            return prose and self.widths is None and not is_tag
        if not prose:
            return not is_tag and cells[self.token_column] != self.comment
        return not is_tag or self.widths is None or self.spelling is None or self.spelling.name == "IO"

    def columns_of_tags(self, rows: Sequence[tuple[int, str]], spelling: FileScheme) -> list[int]:
        """Return the columns of a sentence, other than that of the words, that hold legal tags of a scheme."""
        table = [self.cells(line) for _, line in rows]
        width = min(map(len, table))
        columns = [[cells[column] for cells in table] for column in range(width)]
        found = [column for column, tags in enumerate(columns) if spelling.violation(tags) is None]
        return [column for column in found if column not in (self.token_column, self.token_column + width)]

    def word_and_tag(self, number: int, line: str) -> tuple[str, str]:
        cells = split_words(line) if self.delimiter is None else line.split(self.delimiter)
        if self.widths is None:
            self.widths = (len(cells),)
            self.first = (number, line)
        if len(cells) in self.widths and self.tag_column - self.token_column not in (len(cells), -len(cells)):
            try:
                return cells[self.token_column], cells[self.tag_column]
            except IndexError:
                pass
        raise ValueError(f"{self.path}, line {number}: {self._fault(line, cells)}{self._remedy(line, cells)}")

    def _has_columns(self, count: int) -> bool:
        """Return whether a line of so many columns has a word and a tag in different ones."""
        word, tag = self.token_column, self.tag_column
        return -count <= min(word, tag) and max(word, tag) < count and word % count != tag % count

    def _other_delimiter(self, line: str) -> tuple[str, str | None] | None:
        """Return the name and the value of a delimiter by which the line has as many columns as the file's first."""
        lines = [line] if self.first is None else [self.first[1], line]
        for name, value in (("tabs", "tab"), ("blanks", None), ("commas", ","), ("semicolons", ";"), ("bars", "|")):
            delimiter = _delimiter(value)
            if delimiter == self.delimiter or not all((delimiter or " ") in each for each in lines):
                continue
            counts = {len(split_words(each) if delimiter is None else each.split(delimiter)) for each in lines}
            if len(counts) == 1 and self._has_columns(*counts):
                return name, value
        return None

    def _fault(self, line: str, cells: list[str]) -> str:
        """Return the fault of a line that has no word and tag."""
        count, columns = len(cells), (self.token_column, self.tag_column)
        if count not in (self.widths or ()):
            return f"{count} columns where {' or '.join(map(str, self.widths or ()))} were expected."
        missing = [column for column in columns if not -count <= column < count]
        if missing:
            return f"No column {missing[0]} (from 0) among {count} columns."
        return f"Columns {columns[0]} (the word) and {columns[1]} (the tag) are the same one of {count}."

    def _remedy(self, line: str, cells: list[str]) -> str:
        """Return the likely causes of a fault in the columns of a line, and the option that helps."""
        hints = []
        marked = [(number, text) for number, text in (self.first or (0, ""), (0, line)) if text.startswith("#")]
        if marked and not self.comment and "comment" in self.offers:
            where = f"Line {marked[0][0]}" if marked[0][0] else "The line"
            hints.append(f"{where} begins with '#': if that is a comment, read with {option('comment', '#')}.")
        elif self.comment and line.startswith(self.comment):
            hints.append("A comment may stand only before a sentence's first word: move it there.")
        widths = self.widths or ()
        if self.delimiter is not None and cells[-1] == "" and len(cells) - 1 in widths:
            hint = "The line ends with the delimiter: remove it"
            if "widths" in self.offers:
                taken = option("widths", sorted({*widths, len(cells)}))
                counted = "" if min(self.token_column, self.tag_column) >= 0 else ", columns counted from the left,"
                hint += f", or read with {taken}{counted} or with {option('delimiter', None)}"
            hints.append(f"{hint}.")
        elif "delimiter" in self.offers and (other := self._other_delimiter(line)) is not None:
            name, given = other
            hints.append(f"If {name} separate the columns, read with {option('delimiter', given)}.")
        elif "widths" in self.offers and not hints and len(cells) not in widths:
            counts = sorted({*widths, len(cells)})
            if all(map(self._has_columns, counts)):
                hints.append(f"If both are right, read with {option('widths', counts)}.")
        return f" {' '.join(hints)}" if hints else ""


def _blocks(
    path: str | PathLike[str],
    is_comment: Callable[[str], bool],
    comment: str | None,
    encoding: str,
    encoding_offer: str | None,
) -> Iterator[tuple[dict[str, str], list[tuple[int, str]]]]:
    """Yield (comments, [(line, text)]) of every sentence."""
    document: dict[str, str] = {}
    comments: dict[str, str] = {}
    rows: list[tuple[int, str]] = []
    for number, line in numbered_lines(path, encoding, encoding_offer):
        if not rows and is_comment(line):
            key, equals, value = line[len(comment or "") :].partition("=")
            if key.split()[:1] == ["newdoc"]:
                document = {"newdoc id": value.strip()} if equals else {}
            elif equals:
                comments[key.strip()] = value.strip()
        elif line.strip():
            check_length(path, rows)
            rows.append((number, line))
        else:
            if rows:
                yield comments | document, rows
            comments, rows = {}, []
    if rows:
        yield comments | document, rows
