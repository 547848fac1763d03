"""Links between pages, to files, and to headings lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pages import _FENCE, PAGES, ROOT

#: Places of the web that pages may point at; anything else is a slip.
HOSTS = {
    *(
        "arxiv.org",
        "github.com",
        "hydra.cc",
        "pytorch.org",
        "keepachangelog.com",
        "semver.org",
        "universaldependencies.org",
    ),
    *("huggingface.co", "onnxruntime.ai", "spacy.io", "aclanthology.org", "doi.org"),
}


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown's toc makes them."""
    text = _FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    named = {name for heading in headings for name in re.findall(r"\{ *#([\w-]+)", heading)}
    plain = [re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading)).strip().lower() for heading in headings]
    return named | {re.sub(r"[-\s]+", "-", each) for each in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("http"):
            assert target.split("/")[2].removeprefix("www.") in HOSTS, f"{page.name}: {target}"
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{page.name} points at {target}, which is not there"
        if page.is_relative_to(ROOT / "docs"):
            assert place.is_relative_to(ROOT / "docs"), f"{page.name}: {target} is outside of the site"
        if anchor:
            assert anchor in anchors(place), f"{page.name}: {place.name} has no heading #{anchor}"


def test_every_page_is_in_the_navigation() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix)
    site = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)

    def pages(items: list) -> list[str]:
        found = []
        for item in items:
            value = next(iter(item.values())) if isinstance(item, dict) else item
            found += pages(value) if isinstance(value, list) else [value]
        return found

    there = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert there == set(pages(site["nav"]))
