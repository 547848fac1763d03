"""Encoders as ONNX graphs: words in, their vectors out.

Every encoder class has one function here, found by the class. A function for an encoder of your own is registered by
``@encoder_graph.register``.

The words of a batch are one list of T words, sentence after sentence: no padding is computed. An LSTM reads a grid
[S, R] of S steps and R rows, in which sentences stand one behind the other, with a separator between them that shuts
the gates, so that every sentence begins with an empty memory. Its result equals that of the sentence alone. If weights
have 8 bits, the large one of the separator would leave no precision to the others: each sentence has a row then, and
padding behind it.
"""

from __future__ import annotations

import tempfile
import warnings
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from structkd.models import BiLSTMEncoder, StackedEncoder, TransformerEncoder, WordEncoder

from .graph import OPSET, Graph

__all__ = ["encoder_graph", "in_context", "word_vectors"]

#: What a separator adds to the input of a gate: the sigmoid of the sum is 0 then, whatever the other weights are.
_SHUT = -1e30


@singledispatch
def encoder_graph(encoder: WordEncoder, graph: Graph, prefix: str) -> tuple[str, dict[str, Any]]:
    """Add an encoder to a graph, with inputs of its own.

    Encoders share inputs, which ``annotate.py`` gives to every graph that declares them: ``grid`` int64 [S, R], the
    word in every cell of a grid, T for a separator or padding; ``cells`` int64 [T], the cell of every word in the
    flat grid; and, if ``graph.separated`` is false, ``lengths`` int32 [R] of sentences.

    Args:
        encoder: with weights and features.
        graph: receives the operators.
        prefix: begin of the names of its own inputs; empty, or the name of a part with a dot.

    Returns:
        The name of the vectors, float [T, D], and the plain data from which ``annotate.py`` makes its inputs. The key
        ``files`` holds further files by name, texts and arrays.

    Raises:
        NotImplementedError: if the class has no function here.
    """
    raise NotImplementedError(
        f"{type(encoder).__name__} cannot be exported. Write a function that adds it to an ONNX graph, and register it "
        "by @structkd.export.encoders.encoder_graph.register."
    )


@encoder_graph.register
def _(encoder: BiLSTMEncoder, graph: Graph, prefix: str) -> tuple[str, dict[str, Any]]:
    arrays = {f"{prefix}words.npy": _array(encoder.embedding.weight)}
    if encoder.characters is not None:
        window, _, filters = (tables := character_tables(encoder.characters)).shape
        arrays[f"{prefix}characters.npy"] = tables.transpose(1, 0, 2).reshape(-1, window * filters)
    size = encoder.embedding.embedding_dim + encoder.config.character_filters
    name = f"{prefix}vectors"
    if encoder.lstm is None:
        vectors = graph.input(name, "float", ["T", size])
    else:
        vectors = _of_words(encoder.lstm, graph, graph.input(name, "float", ["S", "R", size + graph.separated]))
    vocabulary: Any = encoder.features
    return vectors, {
        "kind": "words",
        "grid": encoder.lstm is not None,
        "marked": encoder.lstm is not None and graph.separated,
        "arrays": list(arrays),
        "scale": None,
        "words": vocabulary.words,
        "characters": vocabulary.characters if encoder.characters is not None else None,
        "lowercase": vocabulary.lowercase,
        "max_characters": vocabulary.max_characters,
        "window": encoder.config.character_window,
        "files": arrays,
    }


def word_vectors(encoder: BiLSTMEncoder, graph: Graph, words: str, characters: str) -> str:
    """Add the vectors of words without context: words int32 [B, N] and characters int32 [B, N, W] -> float [B, N, D].

    Characters have a border of padding, half the convolution's window, on both sides. They are not read if the encoder
    does not spell words.
    """
    vectors = graph.add("Gather", graph.constant(_array(encoder.embedding.weight), "words"), words)
    if encoder.characters is not None:
        vectors = graph.add("Concat", vectors, _spelling(encoder.characters, graph, characters), axis=2)
    return str(vectors)


def in_context(encoder: BiLSTMEncoder, graph: Graph, vectors: str) -> str:
    """Add the layers of a BiLSTM encoder for a sentence alone: float [N, 1, D] -> float [N, D]."""
    if encoder.lstm is None:
        return str(graph.add("Reshape", vectors, graph.constant(np.array([-1, encoder.dimension]))))
    return lstm(encoder.lstm, graph, vectors)


@encoder_graph.register
def _(encoder: StackedEncoder, graph: Graph, prefix: str) -> tuple[str, dict[str, Any]]:
    vectors, tables = [], {}
    part: Any
    for name, part in encoder.parts.items():
        value, tables[name] = encoder_graph(part, graph, f"{prefix}{name}.")
        vectors.append(value)
    stacked = graph.add("Concat", *vectors, axis=1) if len(vectors) > 1 else vectors[0]
    if encoder.lstm is not None:
        # The last row is that of cells without a word. Separators have a mark, in a column of its own.
        last = np.zeros((1, encoder.lstm.input_size + graph.separated))
        if graph.separated:
            stacked = graph.add("Pad", stacked, graph.constant(np.array([0, 0, 0, 1])))
            last[0, -1] = 1.0
        rows = graph.add("Concat", stacked, graph.constant(last, "no_word"), axis=0)
        grid = graph.add("Gather", rows, graph.input("grid", "int64", ["S", "R"]))
        stacked = _of_words(encoder.lstm, graph, grid)
    return stacked, {"kind": "parts", "parts": tables}


@encoder_graph.register
def _(encoder: TransformerEncoder, graph: Graph, prefix: str) -> tuple[str, dict[str, Any]]:
    subwords, mask, words = (
        graph.input(f"{prefix}{name}", "int64", [f"{prefix}R", f"{prefix}L"]) for name in ("subwords", "mask", "words")
    )
    pieces = graph.input(f"{prefix}pieces", "int64", ["T"])
    hidden = graph.graft(_traced(encoder.backbone), prefix, {"subwords": subwords, "mask": mask})
    # Subwords that count for no word are added to an additional row, as in TransformerEncoder.forward.
    size = graph.constant(np.array([encoder.dimension]))
    count = graph.add("Unsqueeze", graph.add("Size", pieces), graph.constant(np.array([0])))
    rows = graph.add("Concat", graph.add("Add", count, graph.constant(np.array([1]))), size, axis=0)
    empty = graph.add("ConstantOfShape", rows, value=onnx.numpy_helper.from_array(np.zeros(1, np.float32)))
    place = graph.add("Reshape", words, graph.constant(np.array([-1, 1])))
    updates = graph.add("Reshape", hidden, graph.constant(np.array([-1, encoder.dimension])))
    sums = graph.add("ScatterND", empty, place, updates, reduction="add")
    zero = graph.constant(np.array([0]))
    sums = graph.add("Slice", sums, zero, count, zero)
    divisor = graph.add("Cast", graph.add("Max", pieces, graph.constant(np.array([1]))), to=onnx.TensorProto.FLOAT)
    vectors = graph.add("Div", sums, graph.add("Unsqueeze", divisor, graph.constant(np.array([1]))))
    features: Any = encoder.features
    name = f"{prefix}tokenizer.json"
    return vectors, {
        "kind": "subwords",
        "tokenizer": name,
        "files": {name: features.tokenizer.to_str()},
        **{key: getattr(features, key) for key in ("unknown", "padding", "room", "before", "after", "space")},
        **{key: getattr(features, key) for key in ("pooling", "long_sentences")},
    }


def _traced(backbone: Any) -> onnx.ModelProto:
    """Return a model of transformers as a graph: subwords and mask int64 [R, L] -> hidden states [R, L, D].

    Raises:
        NotImplementedError: if torch's exporter cannot read the model.
    """

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone

        def forward(self, subwords: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.backbone(input_ids=subwords, attention_mask=mask).last_hidden_state
            return hidden

    example = torch.ones(2, 3, dtype=torch.long, device=backbone.device)
    kept = backbone.config._attn_implementation
    was_training = backbone.training
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "backbone.onnx"
    try:
        backbone.eval().set_attn_implementation("eager")  # plain matrix products, which every runtime has
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the tracer follows one path, and that it is the older exporter
            torch.onnx.export(
                Hidden(),
                (example, example),
                file,
                input_names=["subwords", "mask"],
                output_names=["hidden"],
                dynamic_axes={name: {0: "R", 1: "L"} for name in ("subwords", "mask", "hidden")},
                opset_version=OPSET[""],
                dynamo=False,
            )
    except Exception as error:
        raise NotImplementedError(
            f"torch cannot export {type(backbone).__name__} to ONNX ({error!r:.200}). Distil a student with another "
            "encoder from the model."
        ) from error
    finally:
        backbone.set_attn_implementation(kept)
        backbone.train(was_training)
    with folder:
        return onnx.load(file)


def character_tables(layer: Any) -> NDArray[np.float32]:
    """Return what every character adds to the convolution around it, [window, characters, filters].

    An embedding followed by a convolution is linear in every character. Its product with each column of the window is
    therefore a table, and the convolution a sum of rows: filters * window additions a character rather than
    filters * window * size multiplications.
    """
    embedding, kernel = layer.embedding.weight.double(), layer.convolution.weight.double()
    tables: Any = torch.einsum("cs,fsk->kcf", embedding, kernel)
    middle = kernel.shape[2] // 2
    tables[middle] += layer.convolution.bias.double()
    tables[middle, 0] = -torch.inf  # the maximum ignores places without a character
    found: NDArray[np.float32] = _array(tables.float())
    return found


def _spelling(layer: Any, graph: Graph, characters: str) -> str:
    """Add the character CNN: characters int32 [B, N, W] -> float [B, N, filters]."""
    tables = character_tables(layer)
    width = len(tables)
    summed = ""
    for offset, table in enumerate(tables):
        end = offset - width + 1
        part = graph.add(
            "Slice",
            characters,
            graph.constant(np.array([offset])),
            graph.constant(np.array([end if end else np.iinfo(np.int64).max])),
            graph.constant(np.array([2])),
        )
        rows = graph.add("Gather", graph.constant(table, "characters"), part)
        summed = graph.add("Add", summed, rows) if summed else rows
    return str(graph.add("Relu", graph.add("ReduceMax", summed, axes=[2], keepdims=0)))


def _of_words(layer: nn.LSTM, graph: Graph, grid: str) -> str:
    """Add a BiLSTM, and take its results for words out of the grid: float [S, R, D] -> float [T, 2 * hidden_size]."""
    if graph.separated:
        found = lstm(layer, graph, grid, separated=True)
    else:
        found = lstm(layer, graph, grid, graph.input("lengths", "int32", ["R"]))
    return str(graph.add("Gather", found, graph.input("cells", "int64", ["T"])))


def lstm(layer: nn.LSTM, graph: Graph, vectors: str, lengths: str = "", separated: bool = False) -> str:
    """Add a BiLSTM of any number of layers: float [S, R, D] -> float [S * R, 2 * hidden_size].

    Rows may have lengths, int32 [R]. With separators, the last of the D numbers marks them. The result of a separator
    and of padding is 0.
    """
    size = layer.hidden_size

    def gates(name: str, number: int) -> Any:
        """Return the weights of both directions; ONNX orders gates as input, output, forget, cell."""
        both = []
        for suffix in ("", "_reverse"):
            i, f, g, o = _array(getattr(layer, f"{name}_l{number}{suffix}")).reshape(4, size, -1)
            both.append(np.concatenate([i, o, f, g]))
        return np.stack(both)

    value, mark = vectors, ""
    for number in range(layer.num_layers):
        weights = graph.constant(gates("weight_ih", number), "input")
        if separated:
            shut = np.repeat(np.array([_SHUT, _SHUT, _SHUT, 0.0], np.float32), size)
            weights = graph.add("Concat", weights, graph.constant(np.stack([shut, shut])[..., None], "shut"), axis=2)
        if number:
            value = graph.add("Reshape", value, graph.constant(np.array([0, 0, 2 * size])))
            if separated:
                last = (graph.constant(np.array([place])) for place in (-1, np.iinfo(np.int64).max, 2))
                mark = mark or graph.add("Slice", vectors, *last)
                value = graph.add("Concat", value, mark, axis=2)
        found = graph.add(
            "LSTM",
            value,
            weights,
            graph.constant(gates("weight_hh", number), "recurrent"),
            graph.constant(np.concatenate([gates("bias_ih", number), gates("bias_hh", number)], 1)[..., 0], "bias"),
            lengths,
            hidden_size=size,
            direction="bidirectional",
        )
        value = graph.add("Transpose", found, perm=[0, 2, 1, 3])  # [S, 2, R, H] -> [S, R, 2, H]
    return str(graph.add("Reshape", value, graph.constant(np.array([-1, 2 * size]))))


def _array(tensor: Any) -> Any:
    return tensor.detach().cpu().float().numpy()
