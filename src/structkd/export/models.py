"""Models as ONNX graphs, and the plain data that ``annotate.py`` needs beside them.

Every model class has one function here, found by the class. It adds the model's scores to a graph, and returns the
tables.
"""

from __future__ import annotations

from collections import Counter
from functools import singledispatch
from typing import Any

import numpy as np
from torch import nn

from structkd.data import legal_transitions
from structkd.models import HeadLabeler, StructuredModel, Tagger

from .encoders import encoder_graph
from .graph import Graph

__all__ = ["Tables", "chain_scores", "model_graph"]

Tables = dict[str, Any]
#: The encodings of heads that annotate.py reads.
_ENCODINGS = ("relative_offset", "relative_pos", "absolute_position")


@singledispatch
def model_graph(model: StructuredModel, graph: Graph) -> Tables:
    """Add a model to a graph, with the outputs that ``annotate.py`` reads: scores [T, C] of all words first.

    Args:
        model: on the CPU, with features.
        graph: an empty graph, which receives inputs, operators and outputs.

    Returns:
        Plain data for ``tables.json``: ``task``, ``features`` and the rest by the task.

    Raises:
        NotImplementedError: if the class has no function here.
    """
    raise NotImplementedError(
        f"{type(model).__name__} cannot be exported: taggers and head labelers can. Distil a student of one of these "
        "kinds from it, or use structkd.load(...).annotate."
    )


@model_graph.register
def _(model: Tagger, graph: Graph) -> Tables:
    labels = list(model.config.labels)
    _, features = _scores(model, model.emission, None, graph)
    chain = legal = None
    if model.config.head == "crf":
        chain = {name: scores.tolist() for name, scores in chain_scores(model).items()}
    if model.config.scheme:
        masks = legal_transitions(labels)
        legal = {name: mask.int().tolist() for name, mask in zip(("start", "transitions", "end"), masks, strict=True)}
    return {
        "task": "tags",
        "features": features,
        "labels": labels,
        "spans": model.config.scheme is not None,
        "chain": chain,
        "legal": legal,
        "conditioned": model.config.legal,
    }


@model_graph.register
def _(model: HeadLabeler, graph: Graph) -> Tables:
    config = model.config
    if config.encoding not in _ENCODINGS:
        raise NotImplementedError(
            f"The head encoding {config.encoding!r} cannot be exported; annotate.py reads {', '.join(_ENCODINGS)}."
        )
    repeated = [label for label, count in Counter(map(tuple, config.labels)).items() if count > 1]
    if repeated:
        raise ValueError(f"The labels of a head labeler must be distinct, but {repeated[:3]} occur more than once.")
    symbols = config.symbols
    place = {symbol: number for number, symbol in enumerate(symbols)}
    order = sorted(range(len(config.labels)), key=lambda label: (place[config.labels[label][0]], label))
    counts = Counter(symbol for symbol, _ in config.labels)
    relations = list(config.relations)
    scores, features = _scores(model, model.label, order, graph)
    # The probability of a symbol is the sum over its labels. The last column, of no symbol, is 0.
    membership = np.zeros((len(order), len(symbols) + 1), np.float32)
    membership[np.arange(len(order)), [place[config.labels[label][0]] for label in order]] = 1.0
    of_symbols = graph.add("MatMul", graph.add("Softmax", scores, axis=1), graph.constant(membership, "membership"))
    graph.output(of_symbols, "symbols", "float", ["T", len(symbols) + 1])
    return {
        "task": "trees",
        "features": features,
        "encoding": config.encoding,
        "symbols": symbols,
        "labels_of_symbols": [counts[symbol] for symbol in symbols],
        "label_relations": [relations.index(config.labels[label][1]) for label in order],
        "relations": relations,
        "multiroot": config.multiroot,
    }


def _scores(model: StructuredModel, layer: nn.Linear, order: list[int] | None, graph: Graph) -> tuple[str, Tables]:
    """Add the encoder and a linear layer, its outputs in some order; return the scores and the features' tables."""
    _ = model.features  # raises an error for a model that cannot read text
    vectors, features = encoder_graph(model.encoder, graph, "")
    weight, bias = (each.detach().cpu().float().numpy() for each in (layer.weight, layer.bias))
    if order is not None:
        weight, bias = weight[order], bias[order]
    product = graph.add("MatMul", vectors, graph.constant(np.ascontiguousarray(weight.T), "scores"))
    scores = graph.add("Add", product, graph.constant(bias, "bias"))
    return graph.output(scores, "scores", "float", ["T", len(bias)]), features


def chain_scores(model: Tagger) -> dict[str, Any]:
    """Return the scores of a CRF's start [C], transitions [C, C] as [next, previous] and end [C], arrays of float32."""
    scale = model.config.transition_scale
    return {
        name: (getattr(model, name).detach() * scale).cpu().float().numpy() for name in ("start", "transitions", "end")
    }
