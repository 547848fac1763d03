"""The folder of the user's for what can be fetched or compiled again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from structkd.cache import cache_folder


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "~/.cache/structkd"),
        ("linux", {"XDG_CACHE_HOME": "/of/the/user"}, "/of/the/user/structkd"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "~/.cache/structkd"),
        ("darwin", {"XDG_CACHE_HOME": "/of/the/user"}, "~/Library/Caches/structkd"),
        ("win32", {"LOCALAPPDATA": "/of/windows"}, "/of/windows/structkd"),
        ("win32", {}, "~/AppData/Local/structkd"),
        ("linux", {"STRUCTKD_CACHE": "~/elsewhere", "XDG_CACHE_HOME": "/of/the/user"}, "~/elsewhere"),
        ("darwin", {"STRUCTKD_CACHE": "/elsewhere"}, "/elsewhere"),
    ],
)
def test_the_cache_folder(
    platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    for name in ("STRUCTKD_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected).expanduser()
