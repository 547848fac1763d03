"""Errors that a user can mend, in one paragraph: the value given, the value expected and the remedy."""

from __future__ import annotations

import errno
import os
import re
import select
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from .hints import about_choice, about_grammar, about_key, about_value

__all__ = ["explain", "is_closed", "is_closed_pipe", "is_read_only", "is_user_error", "silence_output"]

#: Errors of the system that mean a full disk, and those of a place where nothing can be written.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EROFS, errno.EACCES, errno.EPERM)
#: The setting that chooses another place for results.
_WORK_DIR = "work_dir=... (or STRUCTKD_WORK)"


def is_user_error(error: BaseException) -> bool:
    """Whether the message of an error is enough to mend it, so that no traceback is needed."""
    mendable = HydraException | OmegaConfBaseException | ValueError | TypeError | NotImplementedError | OSError
    return isinstance(error, mendable) or _is_writers(error) or _is_out_of_memory(error)


def explain(error: BaseException, place: str = _WORK_DIR) -> str:
    """Return the error as one paragraph, with the closest existing name if something was misspelt.

    A message of more than 2,000 characters, which quotes a long word or name, is shortened in the middle.

    Args:
        error: the error; the user need not be able to mend it.
        place: the setting by which the results of this command go elsewhere.
    """
    text = _explained(error, place)
    return text if len(text) <= 2000 else f"{text[:1300]} [...] {text[-600:]}"


def _explained(error: BaseException, place: str) -> str:
    cause = next((each for each in _chain(error) if isinstance(each, OmegaConfBaseException)), None)
    if isinstance(error, MissingConfigException) and error.options is not None:
        return about_choice(str(error.missing_cfg_file or ""), sorted(error.options))
    if isinstance(error, OverrideParseException):
        return about_grammar(error.override)
    if isinstance(error, HydraException | OmegaConfBaseException):
        text = _one_paragraph(str(error) if cause in (None, error) else f"{error}\n{cause}")
        keys = None if cause is None else _keys(cause.parent_node)
        if cause is not None and cause.key is not None and keys and str(cause.key) not in keys:
            return about_key(str(error), str(cause.full_key or cause.key), keys, _root(cause.parent_node))
        return about_value(str(error), text)
    system = next((each for each in _chain(error) if isinstance(each, OSError) and each.errno), None)
    # The logging module hides why its file cannot be opened.
    if system is not None and (system is error or str(error).startswith("Unable to configure handler")):
        return _of_system(system, place)
    if _is_writers(error):
        first = _one_paragraph(str(error)).removeprefix("Error while serializing: ")
        return f"Model weights could not be written or read ({first}). The disk may be full. {_room(place)}"
    if _is_out_of_memory(error):
        return (
            f"Out of memory ({_one_paragraph(str(error)) or type(error).__name__}). Lower "
            "student.trainer.per_device_train_batch_size (teacher likewise, and per_device_eval_batch_size), "
            "or leave the longest sentences out."
        )
    return str(error) if isinstance(error, ValueError | TypeError) else _one_paragraph(str(error))


def is_read_only(error: BaseException) -> bool:
    """Return whether an error means that a file system is read-only, or a folder not to be written by this user."""
    numbers = (errno.EROFS, errno.EACCES, errno.EPERM)
    return any(isinstance(each, OSError) and each.errno in numbers for each in _chain(error))


def is_closed_pipe(error: BaseException) -> bool:
    """Return whether an error means that nobody reads the output of this command any more, as after ``| head``."""
    return isinstance(error, BrokenPipeError) and any(map(is_closed, (sys.stdout, sys.stderr)))


def silence_output(stream: Any) -> None:
    """Drop the output that is not printed yet, so that the interpreter does not fail on it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def is_closed(stream: Any) -> bool:
    """Return whether a stream is a pipe that nobody reads any more."""
    try:
        if hasattr(select, "poll"):
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            return any(event & select.POLLERR for _, event in poll.poll(0))
        stream.flush()
    except BrokenPipeError:
        return True
    except (OSError, ValueError, AttributeError):  # a stream of other kinds
        pass
    return False


def _room(place: str) -> str:
    return f"Make room, or let results go to another disk with {place}. The same command continues where it stopped."


def _of_system(error: OSError, place: str) -> str:
    what = error.strerror or str(error)
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    if not names:
        return f"{what}. {_room(place)}" if error.errno in _FULL else f"{what}."
    elsewhere = f"If results are to be written there, choose a folder that can be written with {place}."
    path = Path(os.path.abspath(names[-1]))
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        blocking = next((each for each in (path, *path.parents) if each.is_file()), None)
        if blocking is not None:
            return f"{blocking} is a file, and a folder is needed there. {elsewhere}"
    advice = _room(place) if error.errno in _FULL else elsewhere if error.errno in _NO_FOLDER else ""
    return f"{what}: {path}. {advice}".strip()


def _is_writers(error: BaseException) -> bool:
    """Whether torch's or safetensors' writer, which raise no OSError, could not do its work."""
    if type(error).__name__ == "SafetensorError":
        return True
    return isinstance(error, RuntimeError) and bool(
        re.search(r"inline_container\.cc|PytorchStream|basic_ios", str(error))
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _keys(node: Any) -> list[str]:
    try:
        return sorted(str(key) for key in node)
    except (TypeError, OmegaConfBaseException):
        return []


def _root(node: Any) -> Any:
    while node is not None and node._get_parent() is not None:
        node = node._get_parent()
    return node


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def _one_paragraph(text: str) -> str:
    lines: Iterable[str] = (line.strip() for line in text.splitlines())
    return " ".join(dict.fromkeys(line for line in lines if line))
