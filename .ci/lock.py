"""Write constraints.lock: the versions of constraints.txt with the sha256 of every file that the index offers.

    python .ci/lock.py               write constraints.lock (`make lock`)
    python .ci/lock.py NAME ...      print the entries of these packages

The indexes, extra indexes and folders are those of pip's configuration. Hashes that are there for a version stay, so
that machines with other builds (torch's for CUDA or ROCm) can add theirs one after the other. This needs pip alone.
"""

from __future__ import annotations

import ast
import configparser
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin, urlsplit
from urllib.request import url2pathname

from pip._vendor import requests
from pip._vendor.packaging.requirements import InvalidRequirement, Requirement
from pip._vendor.packaging.specifiers import SpecifierSet
from pip._vendor.packaging.utils import (
    canonicalize_name,
    parse_sdist_filename,
)
from pip._vendor.packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS, LOCK, SETUP = (ROOT / name for name in ("constraints.txt", "constraints.lock", "setup.cfg"))
HEAD = """\
# Written by `make lock`: the versions of constraints.txt, and the sha256 of every file that package indexes offer for
# them. `make install-locked` installs these files and no others.
# torch has builds by hardware, under the same version and with other hashes. Those here are for the CPU where the index
# had one. To add those of your index, name it in pip's configuration (say PIP_EXTRA_INDEX_URL) and run `make lock`: it
# adds hashes, and keeps those that are here.
"""
#: What index servers are asked for: the JSON of PEP 691, or else HTML.
ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"

#: A file that is offered: its name, its sha256 ("" if the index names none), and its address or path.
File = tuple[str, str, str]


def pinned() -> dict[str, str]:
    """Return the versions of constraints.txt by the names that stand there."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def locked(text: str) -> dict[str, tuple[str, set[str]]]:
    """Return version and hashes by name of a lock's text."""
    entries = {}
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if line.strip() and not line.startswith("#"):
            match = re.match(r"([\w.-]+)==([^\s;]+)", line)
            if match is None:
                raise ValueError(f"{LOCK.name} has a line without name==version: {line[:80]}. Run `make lock`.")
            entries[match[1]] = match[2], set(re.findall(r"--hash=sha256:([0-9a-f]{64})(?!\S)", line))
    return entries


def markers() -> dict[str, str]:
    """Return the environment markers of setup.cfg by package: elsewhere the package is not installed."""
    setup = configparser.ConfigParser()
    setup.read(SETUP)
    found = {}
    for line in "\n".join(
        [setup["options"]["install_requires"], *setup["options.extras_require"].values()]
    ).splitlines():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker:
            found[canonicalize_name(requirement.name)] = str(requirement.marker)
    return found


def configured(listing: str) -> dict[str, list[str]]:
    """Return the addresses and folders of the output of `pip config list`, by option.

    As in pip, the command's section outdoes the global one, and variables of the environment outdo both.
    """
    found: dict[str, tuple[int, list[str]]] = {"index-url": (-1, ["https://pypi.org/simple"])}
    for line in listing.splitlines():
        match = re.match(r"(global|install|:env:)\.(index-url|extra-index-url|find-links|cert|no-index)=(.*)", line)
        if match:
            rank = ("global", "install", ":env:").index(match[1])
            if rank >= found.get(match[2], (-1,))[0]:
                found[match[2]] = rank, str(ast.literal_eval(match[3])).split()
    return {option: values for option, (_, values) in found.items()}


def configuration() -> dict[str, list[str]]:
    """Return the settings of pip on this machine, by option."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    return configured(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


class _Links(HTMLParser):
    """The addresses that an HTML page links to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attributes if tag == "a" and name == "href" and value]


def parse_page(content: str, address: str) -> list[File]:
    """Return the files of an index's page, in JSON or HTML."""
    if content.lstrip().startswith("{"):
        files = json.loads(content)["files"]
        return [(each["filename"], each["hashes"].get("sha256", ""), urljoin(address, each["url"])) for each in files]
    links = _Links()
    links.feed(content)
    found = []
    for link in links.found:
        place, fragment = urldefrag(urljoin(address, link))
        digest = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else ""
        found.append((unquote(place.rpartition("/")[2]), digest, place))
    return found


def page(address: str, cert: str | bool) -> list[File]:
    """Return the files that a page of the index, or a folder, lists. The list is empty if the page does not exist."""
    path = Path(url2pathname(urlsplit(address).path)) if address.startswith("file:") else Path(address)
    if "://" in address and not address.startswith("file:"):
        answer = requests.get(address, headers={"Accept": ACCEPT}, verify=cert, timeout=60)
        if answer.status_code == 404:
            return []
        answer.raise_for_status()
        return parse_page(answer.text, answer.url)
    index = path / "index.html" if path.is_dir() else path
    if index.is_file():
        return parse_page(index.read_text(encoding="utf-8"), index.as_uri())
    return [(each.name, "", str(each)) for each in path.iterdir()] if path.is_dir() else []


def version_of(name: str, file: str) -> Version | None:
    """Return the version of a wheel or source distribution; None for other files and other packages."""
    try:
        if file.endswith(".whl"):
            found, number = file.split("-")[:2]
            version = Version(number)
        else:
            found, version = parse_sdist_filename(file)
    except ValueError:
        return None
    return version if canonicalize_name(found) == canonicalize_name(name) else None


def hashes(name: str, version: str, files: Iterable[File]) -> set[str]:
    """Return the sha256 of the files of a version.

    Builds of it, such as 2.13.0+cpu, belong to it. A build replaces the file without one for the same Python and
    platform: that file of torch needs CUDA packages, which are not among the tested versions.
    """
    wanted = SpecifierSet(f"=={version}", prereleases=True)
    offered: dict[tuple[str, bool], set[str]] = {}
    for file, digest, place in files:
        found = version_of(name, file)
        if found is None or found not in wanted:
            continue
        path = Path(url2pathname(urlsplit(place).path)) if place.startswith("file:") else Path(place)
        if not digest and path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest:
            target = file.split("-", 2)[2] if file.endswith(".whl") else "source"
            offered.setdefault((target, found.local is not None), set()).add(digest)
        else:
            print(f"lock: {place} has no sha256 in its index, and was left out.", file=sys.stderr)
    kept = (digests for (target, built), digests in offered.items() if built or (target, True) not in offered)
    return set().union(*kept)


def written(entries: Mapping[str, tuple[str, set[str]]], conditions: Mapping[str, str]) -> str:
    """Return entries as pip reads them."""
    lines = []
    for name, (version, digests) in entries.items():
        condition = conditions.get(canonicalize_name(name))
        first = f"{name}=={version}" + (f" ; {condition}" if condition else "")
        lines.append(" \\\n".join([first, *(f"    --hash=sha256:{digest}" for digest in sorted(digests))]))
    return "\n".join(lines) + "\n"


def main(*names: str) -> str | None:
    """Write the lock, or print entries of it; return an error."""
    old = locked(LOCK.read_text(encoding="utf-8")) if LOCK.exists() else {}
    if names:
        missing = sorted(set(names) - old.keys())
        if missing:
            return f"{LOCK.name} has no entry {missing[0]}. Run `make lock`."
        print(written({name: old[name] for name in names}, markers()), end="")
        return None
    options = configuration()
    cert: str | bool = options.get("cert", [""])[0] or True
    indexes = [] if "no-index" in options else options["index-url"] + options.get("extra-index-url", [])
    folders = [file for place in options.get("find-links", []) for file in page(place, cert)]

    def digests(name: str, version: str) -> set[str]:
        pages = (page(f"{index.rstrip('/')}/{canonicalize_name(name)}/", cert) for index in indexes)
        kept = old[name][1] if name in old and old[name][0] == version else set()
        return kept | hashes(name, version, [file for files in pages for file in files] + folders)

    versions = pinned()
    with ThreadPoolExecutor(8) as pool:
        found = dict(zip(versions, pool.map(digests, versions, versions.values()), strict=True))
    missing = [f"{name}=={versions[name]}" for name, each in found.items() if not each]
    if missing:
        return f"The index ({', '.join(indexes)}) offers no file for {', '.join(missing)}. Correct {CONSTRAINTS.name}."
    entries = {name: (version, found[name]) for name, version in versions.items()}
    LOCK.write_text(HEAD + written(entries, markers()), encoding="utf-8")
    print(f"{LOCK.name}: {len(entries)} versions, {sum(map(len, found.values()))} files.")
    return None


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
