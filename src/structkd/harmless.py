"""Text of other people: names that are safe as names of files, and text that does nothing to a terminal or spreadsheet.

Configurations, corpora and results may come from anybody. A name in them becomes a part of a path, a cell of a table
and a line on a terminal.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any

__all__ = [
    "NAME_RULE",
    "cell",
    "check_name",
    "check_text",
    "is_file_name",
    "is_name",
    "printable",
    "printable_data",
    "printable_json",
    "without_folders",
    "without_places",
]

#: What a name may look like, for messages.
NAME_RULE = "letters, digits and . _ - + , = ( ) and blanks, at most 100 bytes; it begins with a letter, a digit or _"
_NAME = re.compile(r"\w(?:[\w .,+=()\-]*[\w+=)\-])?")
_LONGEST_NAME = 100
#: Characters that a terminal obeys, that change the direction of what follows, or that no file can hold: C0 and C1
#: controls but for the tab and the line end, line and paragraph separators, marks of direction, halves of surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def is_name(text: object) -> bool:
    """Return whether a text can be a name: of one part of a path, and harmless wherever it is printed.

    >>> is_name("structural"), is_name("top-k (k=3)"), is_name("../../x"), is_name(".ssh"), is_name("a/b")
    (True, True, False, False, False)
    """
    if not isinstance(text, str) or _CONTROL.search(text):
        return False
    return len(text) <= _LONGEST_NAME >= len(text.encode()) and _NAME.fullmatch(text) is not None


def is_file_name(text: str) -> bool:
    """Return whether a text can be a part of a path; laxer than :func:`is_name`, for names that others gave."""
    return 0 < len(text) <= 200 >= len(text.encode()) and not set(text) & set("/\\\0") and text not in (".", "..")


def check_name(where: str, text: object) -> None:
    """Refuse a text that cannot be a name.

    Raises:
        ValueError: naming the key, the value and the rule.
    """
    if not is_name(text):
        raise ValueError(f"{where}={_short(text)}: A name consists of {NAME_RULE}.")


def check_text(content: Any, where: str = "") -> None:
    """Refuse plain data with a key or a text that a terminal would obey or that no file can hold.

    Raises:
        ValueError: naming the key.
    """
    if isinstance(content, str):
        if found := _CONTROL.search(content):
            raise ValueError(f"{where or 'The configuration'}: The text has the character {found[0]!r}. Leave it out.")
    elif isinstance(content, Mapping):
        for name, value in content.items():
            if isinstance(name, str) and _CONTROL.search(name):
                raise ValueError(
                    f"{where or 'The configuration'} has the key {_short(name)}. Leave out its characters."
                )
            check_text(value, f"{where}.{name}" if where else str(name))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            check_text(value, f"{where}[{number}]")


def printable(text: str) -> str:
    r"""Return a text in which control characters are written as escapes, so that a terminal prints them.

    Tabs and line ends stay.

    >>> printable("\x1b[2Jgone")
    '\\x1b[2Jgone'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_json(content: Any, **options: Any) -> str:
    r"""Return plain data as JSON in which control characters are JSON's own escapes: it is read back as it was.

    Args:
        content: the data.
        options: those of ``json.dumps``.

    >>> printable_json({"words": ["\x9b2Jgone"]})
    '{"words": ["\\u009b2Jgone"]}'
    """
    text = json.dumps(content, ensure_ascii=False, **options)
    # Those below a blank, which are not line ends of an indented text, are escaped already.
    return _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def printable_data(content: Any) -> Any:
    """Return plain data in which every text is :func:`printable`, keys included."""
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, Mapping):
        return {
            printable(key) if isinstance(key, str) else key: printable_data(value) for key, value in content.items()
        }
    if isinstance(content, list):
        return [printable_data(value) for value in content]
    return content


def cell(value: Any) -> Any:
    """Return a cell of a CSV file that no spreadsheet takes for a formula: text that begins like one gets a quote.

    >>> cell("=HYPERLINK(1)"), cell("structural"), cell(-0.5)
    ("'=HYPERLINK(1)", 'structural', -0.5)
    """
    if not isinstance(value, str):
        return value
    value = printable(value)
    return f"'{value}" if value.lstrip(" ").startswith(_FORMULA) and not _NUMBER.fullmatch(value) else value


def without_folders(text: str) -> str:
    """Return a text for a record, in which paths are relative to the current folder or to the home folder.

    Records are published with results, and absolute paths hold the names of people and machines.
    """
    for folder, short in ((os.getcwd(), "."), (os.path.expanduser("~"), "~")):
        if folder.count(os.sep) > 1 or len(folder) > 5:
            text = re.sub(rf"(?<![\w.~/-]){re.escape(folder)}(?=[/\\\s'\",:;)\]]|$)", short, text)
    return text


def without_places(content: Any, distinct: bool = False) -> Any:
    """Return plain data for a record that may be published, in which no text has an absolute path.

    Paths below the current folder or the home folder are relative to these, as in :func:`without_folders`; those of
    installed packages begin with the package; of any other path the name alone is left.

    Args:
        content: texts, numbers, mappings and lists.
        distinct: add four digits of the sha256 of its folder to a path, so that paths of the same name stay distinct;
            always so below the key ``settings``, by which results are compared.

    >>> without_places({"path": "/corpora/of/ana/train.conll", "text": "https://example.org/a/b and/or 1/2"})
    {'path': '.../train.conll', 'text': 'https://example.org/a/b and/or 1/2'}
    """
    if isinstance(content, Mapping):
        return {
            without_places(key, distinct): without_places(value, distinct or key == "settings")
            for key, value in content.items()
        }
    if isinstance(content, list | tuple):
        return [without_places(value, distinct) for value in content]
    if not isinstance(content, str):
        return content
    text = _PACKAGES.sub("", without_folders(content))
    if "\n" not in text and _WHOLE_PATH.fullmatch(text):
        *folders, name = re.split(_SLASH, text.rstrip("/\\"))
        mark = hashlib.sha256("/".join(folders).encode(errors="surrogatepass")).hexdigest()[:4]
        return f".../{mark}/{name}" if distinct else f".../{name}"
    return _PATH.sub(".../", text)


_SLASH = r"[/\\]"
_PART = r"[^\s/\\'\"<>|;,()\[\]{}=]+"
#: The begin of an absolute path of at least two parts, without the last one; not that of an address or a fraction.
_PATH = re.compile(rf"(?:(?<=file://)|(?<![\w.~/\\-]))(?:[A-Za-z]:)?{_SLASH}(?:{_PART}{_SLASH})+(?={_PART})")
_WHOLE_PATH = re.compile(rf"(?:[A-Za-z]:)?{_SLASH}[^/\\]+(?:{_SLASH}[^/\\]+)+{_SLASH}?")
#: The folder of installed packages, and that of this one.
_PACKAGES = re.compile(
    rf"(?<![\w.-])(?:~?(?:{_SLASH}{_PART})*{_SLASH}(?:site|dist)-packages|{re.escape(os.path.dirname(os.path.dirname(__file__)))}){_SLASH}"
)


def _short(text: object) -> str:
    shown = repr(text)
    return shown if len(shown) <= 120 else f"{shown[:120]}..."
