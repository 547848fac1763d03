"""The model card: README.md beside a saved model, with the metadata that the Hugging Face hub reads."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from structkd import __version__
from structkd.data import Annotation, TagAnnotation
from structkd.files import write_text

__all__ = ["exported_card", "facts_of", "model_card", "write_card"]

_MARK = "<!-- Written by structkd. Remove this line, and the file is kept as it is when the model is saved again. -->"
#: Names of licences on the hub, by the beginning of our statements.
_LICENCES = {
    "CC BY-SA 4.0": "cc-by-sa-4.0",
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "CC BY-NC 4.0": "cc-by-nc-4.0",
    "CC BY-SA 3.0": "cc-by-sa-3.0",
    "CC BY 4.0": "cc-by-4.0",
    "CC0": "cc0-1.0",
    "MIT": "mit",
    "Apache": "apache-2.0",
}
_METRICS = {"f1": "span F1", "precision": "precision", "recall": "recall", "accuracy": "accuracy"}
_CITATION = """\
@inproceedings{wang-etal-2021-structural,
  title = {Structural Knowledge Distillation: Tractably Distilling Information for Structured Predictor},
  author = {Wang, Xinyu and Jiang, Yong and Yan, Zhaohui and Jia, Zixia and Bach, Nguyen and Wang, Tao and
            Huang, Zhongqiang and Huang, Fei and Tu, Kewei},
  booktitle = {Proceedings of ACL-IJCNLP 2021},
  pages = {550--564},
  url = {https://aclanthology.org/2021.acl-long.46},
  year = {2021}
}"""


#: The part of a card that an exported folder, which structkd does not load, has no use for.
_USAGE = """\
```python
import structkd

model = structkd.load("path/to/this/folder")  # or its name on the hub
print(model.annotate("One sentence. Another one.", scores=True))
```

On the command line: `structkd predict path/to/this/folder text.txt`"""
#: The block of metadata at the begin of a card.
_FRONT = re.compile(r"\A---\n.*?^---\n", re.DOTALL | re.MULTILINE)


def facts_of(model: Any) -> dict[str, Any]:
    """Return the facts for the card that a model has in itself: its class, labels and size."""
    return {
        "class": type(model).__name__,
        "encoder": type(model.encoder).__name__,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "bytes": sum(weight.numel() * weight.element_size() for weight in model.state_dict().values()),
        "annotation": _described(model.annotation),
    }


def _described(annotation: Annotation) -> dict[str, Any]:
    described = annotation.description()
    if isinstance(annotation, TagAnnotation) and annotation.types is not None:
        described["types"] = list(annotation.types)
    return described


def write_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write README.md, unless someone else wrote the one that is there."""
    path = folder / "README.md"
    if not path.exists() or _MARK in path.read_text(encoding="utf-8", errors="replace"):
        write_text(path, model_card(facts))


def model_card(facts: Mapping[str, Any]) -> str:
    """Return the card as Markdown with a block of metadata.

    Args:
        facts: :func:`facts_of` the model and, under ``run``, those of the run that trained it.
    """
    return "\n".join([*_metadata(facts), _MARK, "", *_body(facts)])


def exported_card(card: str, about: str) -> str:
    """Return the card of an exported model.

    Args:
        card: of the model that was exported. How structkd loads it is left out; a card that someone else wrote is kept.
        about: a section on the exported folder, which comes first.

    >>> print(exported_card("---\\ntags: []\\n---\\n# Mine\\n", "# This folder\\n"))
    ---
    tags: []
    ---
    # This folder
    <BLANKLINE>
    # Mine
    <BLANKLINE>
    """
    front = found[0] if (found := _FRONT.match(card)) else ""
    rest = card[len(front) :].replace(f"{_USAGE}\n\n", "").lstrip("\n")
    return f"{front}{about}\n{rest}" if rest else f"{front}{about}"


def _metadata(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the block that the hub reads. JSON is YAML, and no name breaks it."""
    run = facts.get("run", {})
    yield "---"
    yield "library_name: structkd"
    if facts["annotation"]["kind"] == "tags":
        yield "pipeline_tag: token-classification"
    licence = str(run.get("data", {}).get("licence", ""))
    name = next((name for begin, name in _LICENCES.items() if licence.startswith(begin)), "other")
    if licence:
        yield f"license: {name}"
    yield f"tags: {json.dumps(['structkd', 'structural-knowledge-distillation', _task(facts)])}"
    seeds = run.get("seeds", [])
    if seeds:
        metrics = [
            {"type": key, "name": f"test {_METRICS.get(key, key.upper())}", "value": round(value, 6)}
            for key, value in seeds[0]["test"].items()
        ]
        result = {
            "task": {"type": "token-classification", "name": _task(facts)},
            "dataset": {"type": run["data"]["name"], "name": run["data"]["name"], "split": "test"},
            "metrics": metrics,
        }
        yield f"model-index: {json.dumps([{'name': _title(facts), 'results': [result]}], ensure_ascii=False)}"
    yield "---"


def _task(facts: Mapping[str, Any]) -> str:
    annotation = facts["annotation"]
    if annotation["kind"] == "tree":
        return "dependency-parsing"
    return "span-tagging" if annotation.get("scheme") else "tagging"


def _title(facts: Mapping[str, Any]) -> str:
    run = facts.get("run")
    return f"{run['scenario']}, {run['role']} {run['method']}" if run else facts["class"]


def _body(facts: Mapping[str, Any]) -> Iterator[str]:
    run, annotation = facts.get("run", {}), facts["annotation"]
    yield f"# {_title(facts)}"
    yield ""
    yield f"{_sentence(facts)} It was made with [structkd](https://aclanthology.org/2021.acl-long.46) {__version__}."
    yield ""
    yield _USAGE
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield f"| class | {facts['class']} on {facts['encoder']} |"
    yield f"| parameters | {facts['parameters']:,} ({facts['bytes'] / 1e6:.1f} MB) |"
    kind = "relations" if annotation["kind"] == "tree" else "span types" if annotation.get("types") else "labels"
    names = annotation.get("relations") or annotation.get("types") or annotation.get("labels") or []
    scheme = f", in {annotation['scheme']}" if annotation.get("scheme") else ""
    yield f"| {kind} | {_cell(', '.join(map(str, names)))}{scheme} |"
    if run:
        yield from _training(run)
        yield from _figures(run)
        yield from _origin(run)
    yield "## Citation"
    yield ""
    yield "```bibtex"
    yield _CITATION
    yield "```"
    yield ""


def _sentence(facts: Mapping[str, Any]) -> str:
    task = {
        "dependency-parsing": "A dependency parser",
        "span-tagging": "A tagger of spans",
        "tagging": "A tagger",
    }[_task(facts)]
    run = facts.get("run")
    if not run:
        return f"{task}."
    if run["role"] == "teacher" or not run["teachers"]:
        return f"{task}, trained on the labels of {run['data']['name']}."
    return (
        f"{task} for {run['data']['name']}, distilled from {', '.join(run['teachers'])} by the method {run['method']}."
    )


def _training(run: Mapping[str, Any]) -> Iterator[str]:
    data = run["data"]
    yield f"| scenario | {_cell(run['scenario'])} |"
    yield f"| data | {_cell(data['name'])}, task {_cell(data['task'])} |"
    yield f"| source | {_cell(data['source'])} |"
    yield f"| licence of the data | {_cell(data['licence'])} |"
    yield f"| trained on | {run['labelled']:,} sentences with labels, {run['unlabelled']:,} without |"
    for name, value in run["teachers"].items():
        yield f"| teacher {_cell(name)} | {_cell(value)} |"
    if run.get("temperature") is not None:
        yield f"| temperature | {run['temperature']:g} |"
    if run.get("words_per_second"):
        speed = f"{run['words_per_second']:,.0f} words per CPU second"
        yield f"| speed of decoding | {speed}, in batches of 64 sentences, on one thread |"
    yield ""
    if data.get("notes"):
        yield _line(data["notes"])
        yield ""


def _figures(run: Mapping[str, Any]) -> Iterator[str]:
    seeds = run["seeds"]
    names = list(seeds[0]["test"])
    yield f"## Figures on the {run['data']['sentences']['test']:,} test sentences, in percent"
    yield ""
    yield f"| seed | {' | '.join(_METRICS.get(name, name.upper()) for name in names)} | 95 % interval |"
    yield "|---" + "|---:" * (len(names) + 1) + "|"
    for each in seeds:
        cells = " | ".join(f"{100 * each['test'][name]:.2f}" for name in names)
        ends = each.get("interval")
        interval = f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}" if ends else ""
        yield f"| {each['seed']} | {cells} | {interval} |"
    yield ""
    metric = _METRICS.get(run["metric"], run["metric"].upper())
    yield f"The interval is that of {metric}, a bootstrap over test sentences. This folder has the model of seed "
    yield f"{seeds[0]['seed']}."
    yield ""


def _origin(run: Mapping[str, Any]) -> Iterator[str]:
    yield "## How it was made"
    yield ""
    yield f"    {_line(run['command'])}"
    yield ""
    yield "With " + ", ".join(f"{name} {version}" for name, version in run["versions"].items()) + "."
    yield ""


def _line(text: Any) -> str:
    return " ".join(str(text).split())


def _cell(text: Any) -> str:
    return re.sub(r"[\\|<>*`]", r"\\\g<0>", _line(text))
