"""Exported folders: a network in ONNX, its tables, the module that annotates with them, and a model card."""

from __future__ import annotations

import copy
import importlib.util
import json
import keyword
import logging
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from structkd.data import TagAnnotation, TreeAnnotation
from structkd.evaluation import compute_metrics, counts
from structkd.files import replacing, write_manifest, write_text
from structkd.models import StructuredModel
from structkd.models.card import exported_card, facts_of, model_card
from structkd.sentences import word_pattern

__all__ = ["LARGEST_LOSS", "export"]

#: How much worse than the exported model its int8 form may be on the development sentences, in points of the metric.
LARGEST_LOSS = 0.3
_FORMAT = 2
#: Names of the weights that sum up the probabilities of labels, see :mod:`structkd.export.models`.
_MEMBERSHIP = re.compile("membership_")
_SOURCE = Path(__file__).with_name("annotate.py")

Example = Mapping[str, Any]


def export(
    model: StructuredModel,
    folder: str | Path,
    *,
    int8: bool = False,
    single_file: bool = False,
    dev: Sequence[Example] | None = None,
    card: str | None = None,
    licence: str | None = None,
) -> Path:
    """Write a folder that annotates text without torch: ``from exported.annotate import load; load().annotate(text)``.

    It holds ``model.onnx``, ``tables.json`` and the arrays of a model on words, ``annotate.py`` (needs numpy and
    onnxruntime; a model on subwords also tokenizers), ``README.md`` and ``manifest.json``. It annotates as
    ``model.annotate`` does.

    Args:
        model: a :class:`~structkd.models.Tagger` or :class:`~structkd.models.HeadLabeler`, with its features.
        folder: to write; an older one of that name is replaced when the new one is complete.
        int8: quantize the weights to 8 bits (dynamically, per layer). The folder is a quarter of the size.
        single_file: add ``strings.onnx``, which maps the words of one sentence to its tags: strings in, strings out,
            for any language that has onnxruntime. For taggers on words.
        dev: annotated sentences, on which int8 is compared: ``tokens``, and ``gold``, the annotation by name, as files
            of predictions have them.
        card: text of ``README.md`` about the model, which follows the description of the files. None is the card that
            ``save_pretrained`` writes.
        licence: text about the data, written to ``LICENSE.txt``. None is what the training recorded, if anything.

    Returns:
        The folder.

    Raises:
        ImportError: if onnx or onnxruntime is missing; says how to install them.
        NotImplementedError: for another kind of model, encoder or encoding of heads.
        ValueError: if int8 loses more than :data:`LARGEST_LOSS` points on dev, or without dev.

    >>> import tempfile
    >>> from structkd.data import load_toy
    >>> from structkd.models import BiLSTMRecipe, TaggerRecipe
    >>> corpus = load_toy()
    >>> text = corpus.splits["train"]
    >>> model = TaggerRecipe(encoder=BiLSTMRecipe(hidden_size=8)).create(corpus.annotation, text, text)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     sorted(path.name for path in export(model, f"{place}/exported").iterdir())
    ['README.md', 'annotate.py', 'characters.npy', 'manifest.json', 'model.onnx', 'tables.json', 'words.npy']
    """
    _require("onnx", "onnxruntime")
    from .annotate import load
    from .graph import Graph
    from .models import model_graph

    folder = Path(folder)
    if folder.exists() and not (folder / "tables.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and holds something else than an exported model. Name a new folder.")
    if int8 and not dev:
        raise ValueError(
            "int8 needs annotated sentences to compare with, and none are known for this model. Name a file of them: "
            "--dev FILE."
        )
    if card is None:
        card = model_card({**model.about, **facts_of(model)})
    if licence is None:
        licence = _licence(model.about.get("run", {}).get("data", {}))
    if model.dtype != torch.float32:
        model = copy.deepcopy(model).float()
    graph = Graph(separated=not int8)
    tables = model_graph(model, graph) | {"separated": graph.separated}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as temporary:
        temporary.mkdir()
        network = graph.model("scores", {"producer": "structkd", "task": tables["task"]})
        (temporary / "model.onnx").write_bytes(network.SerializeToString())
        for name, content in _files(tables["features"]).items():
            if isinstance(content, str):
                (temporary / name).write_text(content, encoding="utf-8")
            else:
                np.save(temporary / name, content, allow_pickle=False)
        tables = {"format": _FORMAT, **tables, "word_pattern": word_pattern()}
        _write_tables(temporary, tables)
        shutil.copyfile(_SOURCE, temporary / "annotate.py")
        facts: dict[str, Any] = {}
        if int8:
            assert dev is not None
            before = _main_metric(model, load(temporary), dev)
            _quantize(temporary / "model.onnx")
            _quantize_words(temporary, tables["features"])
            _write_tables(temporary, tables)
            after = _main_metric(model, load(temporary), dev)
            facts["int8"] = {"metric": before[0], "float32": before[1], "int8": after[1], "sentences": len(dev)}
            loss = 100 * (before[1] - after[1])
            if loss > LARGEST_LOSS:
                raise ValueError(
                    f"int8 loses {loss:.2f} points of {before[0]} on {len(dev)} development sentences "
                    f"({100 * before[1]:.2f} to {100 * after[1]:.2f}); at most {LARGEST_LOSS} are allowed. Export the "
                    "model without int8."
                )
        if single_file:
            from .single_file import single_file_model

            (temporary / "strings.onnx").write_bytes(single_file_model(model).SerializeToString())
        about = _about_files(tables, facts, single_file, folder.name)
        write_text(temporary / "README.md", exported_card(card, about))
        if licence:
            write_text(temporary / "LICENSE.txt", licence)
        write_manifest(temporary, export={"format": _FORMAT, **facts})
    return folder


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(f"Exporting needs {' and '.join(missing)}: pip install 'structkd[export]'")


def _licence(data: Mapping[str, Any]) -> str | None:
    """Return the statement about the data of the training; None if nothing is recorded."""
    if not data.get("licence"):
        return None
    return (
        f"The model was trained on {data['name']} ({data.get('source', 'source not recorded')}).\n"
        f"Licence of these data: {data['licence']}\n{data.get('notes', '')}".rstrip()
        + "\n"
    )


def _write_tables(folder: Path, tables: Mapping[str, Any]) -> None:
    (folder / "tables.json").write_text(json.dumps(tables, ensure_ascii=False), encoding="utf-8")


def _files(features: dict[str, Any]) -> dict[str, Any]:
    """Take the files out of the tables of an encoder and its parts."""
    files: dict[str, Any] = features.pop("files", {})
    for part in features.get("parts", {}).values():
        files |= _files(part)
    return files


def _quantize(path: Path) -> None:
    """Replace a network by its int8 form: weights of 8 bits, activations quantized as they come."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Sums of probabilities stay as they are: of 8 bits, most probabilities would be 0.
    kept = [node.name for node in onnx.load(path).graph.node if any(map(_MEMBERSHIP.match, node.input))]
    # One scale for every column of the weights loses less than one for all.
    with _without_advice():
        quantize_dynamic(path, path, weight_type=QuantType.QInt8, per_channel=True, nodes_to_exclude=kept)


def _quantize_words(folder: Path, features: dict[str, Any]) -> None:
    """Replace the tables of words by numbers of 8 bits, and note the scale of every column."""
    for part in features.get("parts", {}).values():
        _quantize_words(folder, part)
    if "scale" in features:
        path = folder / features["arrays"][0]
        words = np.load(path, allow_pickle=False)
        scale = np.maximum(np.abs(words).max(0), np.finfo(np.float32).tiny) / 127
        np.save(path, np.round(words / scale).astype(np.int8), allow_pickle=False)
        features["scale"] = scale.tolist()


@contextmanager
def _without_advice() -> Iterator[None]:
    """Keep onnxruntime's advice to process the network in advance from the log: it gains nothing for these networks."""
    root = logging.getLogger()
    handlers = list(root.handlers)

    def is_wanted(record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()

    root.addFilter(is_wanted)
    try:
        yield
    finally:
        root.removeFilter(is_wanted)
        root.handlers[:] = handlers  # logging.warning adds one if there is none


def _main_metric(model: StructuredModel, annotator: Any, dev: Sequence[Example]) -> tuple[str, float]:
    """Return the name of the first metric of the model's annotation, and its value on some sentences."""
    annotation = model.annotation
    given = [
        {"words": list(example["tokens"]), **({"upos": example["upos"]} if example.get("upos") is not None else {})}
        for example in dev
    ]
    found = annotator.annotate(given)
    if isinstance(annotation, TagAnnotation):
        gold = [{"labels": [annotation.index[tag] for tag in example["gold"]["labels"]]} for example in dev]
        predicted = [{"labels": [annotation.index[tag] for tag in result["tags"]]} for result in found]
    else:
        assert isinstance(annotation, TreeAnnotation)
        gold, predicted = (
            [
                {"heads": tree["heads"], "relations": [annotation.index[name] for name in tree["relations"]]}
                for tree in trees
            ]
            for trees in ([example["gold"] for example in dev], found)
        )
    name, value = next(iter(compute_metrics(counts(annotation, gold, predicted)).items()))
    return name, value


def _about_files(tables: Mapping[str, Any], facts: Mapping[str, Any], single_file: bool, name: str) -> str:
    """Return the part of the model card that says how the folder, of this name, is used."""
    package = name if name.isidentifier() and not keyword.iskeyword(name) else "exported"
    called = "" if package == name else f", renamed to `{package}`"
    needs = "numpy and onnxruntime" + (", and tokenizers" if _reads_subwords(tables["features"]) else "")
    lines = [
        "# This folder",
        "",
        f"It annotates text in Python with {needs}. Start Python in the folder that holds it{called}:",
        "",
        "```python",
        f"from {package}.annotate import load",
        "",
        "model = load()",
        'model.annotate("Ana Lee lives in Oslo. She sings.", scores=True)',
        "```",
        "",
        f"From elsewhere, add the folder that holds `{package}` to `sys.path` first. "
        f"`{shlex.join(['python', f'{name}/annotate.py'])} FILE` prints one JSON object for each sentence of a text. "
        "`structkd predict` does not read this folder: it takes the model that was exported.",
        "",
        "| file | content |",
        "|---|---|",
        "| `model.onnx` | the network: from the vectors of words, or from subwords, to the scores of labels |",
        *(f"| `{name}` | what the vectors of words are made of |" for name in _arrays(tables["features"])),
        "| `tables.json` | vocabulary, labels, tags that may follow each other, pattern of a word |",
        "| `annotate.py` | reads text, runs the network, decodes |",
    ]
    if single_file:
        lines.append("| `strings.onnx` | one sentence's words in, their tags out, for any language with onnxruntime |")
    lines.append("| `manifest.json` | size and sha256 of every file |")
    if "int8" in facts:
        figures = facts["int8"]
        lines += [
            "",
            f"The weights have 8 bits. On {figures['sentences']} development sentences {figures['metric']} is "
            f"{100 * figures['int8']:.2f}; it is {100 * figures['float32']:.2f} with 32 bits.",
        ]
    return "\n".join(lines) + "\n"


def _arrays(features: Mapping[str, Any]) -> list[str]:
    """Return the names of the arrays of an encoder and its parts."""
    of_parts = [name for part in features.get("parts", {}).values() for name in _arrays(part)]
    return [*features.get("arrays", []), *of_parts]


def _reads_subwords(features: Mapping[str, Any]) -> bool:
    return features["kind"] == "subwords" or any(map(_reads_subwords, features.get("parts", {}).values()))
