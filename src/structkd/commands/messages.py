"""User errors in one paragraph: what was given, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from structkd.spelling import did_you_mean

__all__ = ["explain", "is_user_error"]

#: Groups that can be chosen on the command line although they are not keys of the schema.
_GROUPS = ("data", "teacher", "student", "kd", "scenario", "debug")


def is_user_error(error: BaseException) -> bool:
    """Whether the error says what is wrong with the input, so that no traceback is needed."""
    return isinstance(
        error,
        HydraException | OmegaConfBaseException | ValueError | TypeError | NotImplementedError | FileNotFoundError,
    )


def explain(error: BaseException) -> str:
    """The error as one paragraph, with the closest existing name where something was misspelt."""
    cause = next((each for each in _chain(error) if isinstance(each, OmegaConfBaseException)), None)
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, choice = str(error.missing_cfg_file or "").rpartition("/")
        options = sorted(error.options)
        return (
            f"There is no {choice!r} in group {group!r}.{did_you_mean(choice, options)} It has: {', '.join(options)}."
        )
    if isinstance(error, OverrideParseException):
        return _one_paragraph(str(error))
    if isinstance(error, ConfigCompositionException | OmegaConfBaseException) and cause is not None:
        keys = _keys(cause.parent_node)
        if cause.key is not None and keys and str(cause.key) not in keys:
            full = str(cause.full_key or cause.key)
            known = [*keys, *_GROUPS] if "." not in full else keys
            where = f" in {full.rpartition('.')[0]}" if "." in full else ""
            return (
                f"There is no key {str(cause.key)!r}{where}.{did_you_mean(str(cause.key), known)} "
                f"Known keys: {', '.join(keys)}."
            )
        return _one_paragraph(f"{error}\n{cause}" if cause is not error else str(error))
    return str(error) if isinstance(error, ValueError | TypeError) else _one_paragraph(str(error))


def _keys(node: Any) -> list[str]:
    try:
        return sorted(str(key) for key in node)
    except (TypeError, OmegaConfBaseException):
        return []


def _chain(error: BaseException) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__  # type: ignore[assignment]


def _one_paragraph(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    return " ".join(dict.fromkeys(line for line in lines if line))
