"""A tagger as one ONNX file: the words of a sentence in, their tags out, as strings.

Everything is inside the graph: the numbers of words and characters, the network, and Viterbi's search. It runs wherever
onnxruntime runs, without code of its own in another language.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx

from structkd.data import legal_transitions
from structkd.models import BiLSTMEncoder, StructuredModel, Tagger

from .encoders import in_context, word_vectors
from .graph import Graph
from .models import chain_scores

__all__ = ["single_file_model"]

_PADDING, _UNKNOWN, _WORD_START, _WORD_END = 0, 1, 2, 3
#: A word is found by two hashes, polynomials in its characters modulo primes, which together fit into 62 bits.
_PRIMES, _BASES = (2_147_483_647, 2_147_483_629), (1_000_003, 999_983)
_OTHER = -1


def single_file_model(model: StructuredModel) -> onnx.ModelProto:
    """Return the model: input ``words``, strings [N], N at least 1 and none empty; output ``tags``, strings [N].

    Words are looked up as :class:`~structkd.models.Vocabulary` does. One difference remains: a capital sigma becomes
    the ordinary small one in lower case, at the end of a word, too.

    Args:
        model: a tagger on a BiLSTM encoder.

    Raises:
        NotImplementedError: for another model or encoder.
    """
    if not isinstance(model, Tagger) or not isinstance(model.encoder, BiLSTMEncoder):
        raise NotImplementedError(
            "A single file is made of taggers on words (BiLSTM encoders); "
            f"this is a {type(model).__name__} on a {type(model.encoder).__name__}. "
            "Leave out single_file (of the command: --single-file)."
        )
    graph = Graph()
    vocabulary: Any = model.encoder.features
    words = graph.input("words", "str", ["N"])
    characters = graph.add(
        "Tokenizer", words, domain="com.microsoft", mark=0, mincharnum=1, pad_value="", separators=[""]
    )
    counts = _counts(graph, characters)
    numbers = _word_numbers(graph, vocabulary, words, characters, counts)
    spelling = ""
    if model.encoder.characters is not None:
        border = model.encoder.config.character_window // 2
        spelling = _batch_of_one(graph, _spelling(graph, vocabulary, characters, counts, border))
    vectors = word_vectors(model.encoder, graph, _batch_of_one(graph, numbers), spelling)
    vectors = in_context(model.encoder, graph, graph.add("Transpose", vectors, perm=[1, 0, 2]))
    weight, bias = (each.detach().cpu().float().numpy() for each in (model.emission.weight, model.emission.bias))
    product = graph.add("MatMul", vectors, graph.constant(weight.T, "scores"))
    labels = _viterbi(graph, model, graph.add("Add", product, graph.constant(bias, "bias")))
    tags = graph.add(
        "LabelEncoder",
        labels,
        domain="ai.onnx.ml",
        keys_int64s=list(range(len(model.config.labels))),
        values_strings=list(model.config.labels),
    )
    graph.output(tags, "tags", "str", ["N"])
    return graph.model("tagger", {"producer": "structkd", "task": "tags"})


def _whole(graph: Graph, *values: int) -> str:
    return graph.constant(np.array(values, np.int64))


def _batch_of_one(graph: Graph, value: str) -> str:
    return str(graph.add("Unsqueeze", graph.add("Cast", value, to=onnx.TensorProto.INT32), _whole(graph, 0)))


def _encode(graph: Graph, values: str, table: dict[str, int], default: int) -> str:
    """Look strings up; "" (no character) is 0."""
    keys = ["", *table]
    numbers = [0, *table.values()]
    attributes: dict[str, Any] = {"keys_strings": keys, "values_int64s": numbers, "default_int64": default}
    return str(graph.add("LabelEncoder", values, domain="ai.onnx.ml", **attributes))


def _counts(graph: Graph, characters: str) -> str:
    """Return the number of every word's characters, int64 [N, 1]."""
    there = _encode(graph, characters, {}, 1)
    return str(graph.add("ReduceSum", there, _whole(graph, 1), keepdims=1))


def _word_numbers(graph: Graph, vocabulary: Any, words: str, characters: str, counts: str) -> str:
    """Return the number of every word, int64 [N]."""
    known = {word: number for number, word in enumerate(vocabulary.words, 2)}
    if not vocabulary.lowercase:
        return _encode(graph, words, known, _UNKNOWN)
    lower = _lower_case(known)
    longest = max(map(len, known), default=1)
    # Characters after the longest known word need not be read.
    read = graph.add("Slice", characters, _whole(graph, 0), _whole(graph, longest), _whole(graph, 1))
    sizes = _encode(graph, read, {character: len(text) for character, text in lower.items()}, 1)
    places = graph.add("CumSum", sizes, graph.constant(np.array(1, np.int64)), exclusive=1)
    places = graph.add("Min", places, _whole(graph, 2 * longest))
    combined = ""
    for prime, base in zip(_PRIMES, _BASES, strict=True):
        codes = _encode(graph, read, {character: _hash(text, prime, base) for character, text in lower.items()}, 0)
        powers = graph.constant(np.array([pow(base, place, prime) for place in range(2 * longest + 1)], np.int64))
        terms = graph.add("Mod", graph.add("Mul", codes, graph.add("Gather", powers, places)), _whole(graph, prime))
        value = graph.add("Mod", graph.add("ReduceSum", terms, _whole(graph, 1), keepdims=0), _whole(graph, prime))
        combined = graph.add("Add", graph.add("Mul", combined, _whole(graph, 1 << 31)), value) if combined else value
    keys = [(_hash(word, _PRIMES[0], _BASES[0]) << 31) + _hash(word, _PRIMES[1], _BASES[1]) for word in known]
    number = graph.add(
        "LabelEncoder",
        combined,
        domain="ai.onnx.ml",
        keys_int64s=keys,
        values_int64s=list(known.values()),
        default_int64=_UNKNOWN,
    )
    other = _encode(graph, read, dict.fromkeys(lower, 0), 1)
    strange = graph.add("Cast", graph.add("ReduceMax", other, axes=[1], keepdims=0), to=onnx.TensorProto.BOOL)
    long = graph.add("Greater", graph.add("Squeeze", counts, _whole(graph, 1)), _whole(graph, longest))
    return str(graph.add("Where", graph.add("Or", strange, long), _whole(graph, _UNKNOWN), number))


def _lower_case(words: Iterable[str]) -> dict[str, str]:
    """Return the characters that lower case turns into characters of the words, with their lower case."""
    known = {character for word in words for character in word}
    every = (chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    return {character: character.lower() for character in every if known.issuperset(character.lower())}


def _hash(text: str, prime: int, base: int) -> int:
    """Return the polynomial of a text, the first character at the power 0; equal for the parts of a text if shifted."""
    return sum((ord(character) + 1) * pow(base, place, prime) for place, character in enumerate(text)) % prime


def _spelling(graph: Graph, vocabulary: Any, characters: str, counts: str, border: int) -> str:
    """Return the numbers of every word's characters between its boundaries, int64 [N, W]."""
    table = {character: number for number, character in enumerate(vocabulary.characters, 4)}
    numbers = _encode(graph, characters, table, _UNKNOWN)
    longest, half = vocabulary.max_characters, vocabulary.max_characters // 2
    # A long word loses its middle: its last characters move to the left.
    width = graph.add("Min", graph.add("ReduceMax", counts, keepdims=0), graph.constant(np.array(longest, np.int64)))
    zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
    place = graph.add("Range", zero, width, one)
    excess = graph.add("Max", graph.add("Sub", counts, _whole(graph, longest)), _whole(graph, 0))
    behind = graph.add(
        "Cast", graph.add("GreaterOrEqual", place, _whole(graph, longest - half)), to=onnx.TensorProto.INT64
    )
    numbers = graph.add("GatherElements", numbers, graph.add("Add", place, graph.add("Mul", behind, excess)), axis=1)
    start = graph.add("Add", graph.add("Mul", counts, _whole(graph, 0)), _whole(graph, _WORD_START))
    none = graph.add("Mul", counts, _whole(graph, _PADDING))
    spelled = graph.add("Concat", start, numbers, none, axis=1)
    position = graph.add("Range", zero, graph.add("Add", width, graph.constant(np.array(2, np.int64))), one)
    last = graph.add("Add", graph.add("Min", counts, _whole(graph, longest)), _whole(graph, 1))
    spelled = graph.add("Where", graph.add("Equal", position, last), _whole(graph, _WORD_END), spelled)
    return str(graph.add("Pad", spelled, _whole(graph, 0, border, 0, border)))


def _viterbi(graph: Graph, model: Tagger, emissions: str) -> str:
    """Return the best legal sequence of labels, int64 [N], for emissions float [N, C].

    Before the first word stands a label of its own, number C, so that a sentence of one word takes one step, too.
    """
    labels = model.config.labels
    size = len(labels)
    scores: Sequence[Any] = [np.zeros(size), np.zeros((size, size)), np.zeros(size)]
    if model.config.head == "crf":
        scores = list(chain_scores(model).values())
    if model.config.scheme:
        masks = [mask.numpy() for mask in legal_transitions(labels)]
        scores = [np.where(mask, own, -np.inf) for mask, own in zip(masks, scores, strict=True)]
    start, transitions, end = scores
    steps = np.full((size + 1, size + 1), -np.inf, np.float32)
    steps[:size, :size], steps[:size, size] = transitions, start
    ahead = Graph("ahead.")
    before, own = (ahead.input(name, "float", [size + 1]) for name in ("before", "emission"))
    arrivals = ahead.add("Add", before, graph.constant(steps, "transitions"))
    best = ahead.add("Add", ahead.add("ReduceMax", arrivals, axes=[1], keepdims=0), own)
    ahead.output(best, "reached", "float", [size + 1])
    ahead.output(ahead.add("ArgMax", arrivals, axis=1, keepdims=0), "from", "int64", [size + 1])
    first = np.full(size + 1, -np.inf, np.float32)
    first[size] = 0.0
    widened = graph.add("Pad", emissions, _whole(graph, 0, 0, 0, 1))
    reached, origins = graph.add(
        "Scan", graph.constant(first), widened, outputs=2, body=ahead.body("ahead"), num_scan_inputs=1
    )
    closing = graph.constant(np.append(end, -np.inf).astype(np.float32))
    last = graph.add("ArgMax", graph.add("Add", reached, closing), axis=0, keepdims=1)
    back = Graph("back.")
    label, origin = back.input("label", "int64", [1]), back.input("origin", "int64", [size + 1])
    back.output(back.add("Gather", origin, label), "label_before", "int64", [1])
    back.output(label, "label_here", "int64", [1])
    _, path = graph.add(
        "Scan",
        last,
        origins,
        outputs=2,
        body=back.body("back"),
        num_scan_inputs=1,
        scan_input_directions=[1],
        scan_output_directions=[1],
    )
    return str(graph.add("Squeeze", path, _whole(graph, 1)))
