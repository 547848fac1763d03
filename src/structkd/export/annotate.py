"""Annotate text with an exported model: tags and spans of words, or dependency trees.

    from exported.annotate import load                      # in the folder that holds the exported folder
    model = load()
    model.annotate("Ana Lee lives in Oslo. She sings.")     # a text, split into sentences
    model.annotate([["Ana", "Lee", "sings"]], scores=True)  # lists of words, with exact probabilities

    python exported/annotate.py FILE    # raw text; prints one JSON object a sentence; "-" is standard input

With `--format words`, white space separates the words of the file, and every line is a sentence.

The module needs numpy and onnxruntime, and for models that read subwords tokenizers. It lies beside ``model.onnx``,
which scores the words of a sentence, ``words.npy`` and ``characters.npy``, of which the vectors of words are made (or
``tokenizer.json``), and ``tables.json``, which holds everything else: the vocabulary, the labels, the tags that may
follow each other, and the pattern of a word. Shapes: T words of all sentences of a batch, one behind the other, N words
of a sentence, C tags, K labels, H symbols of heads.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import shlex
import sys
import threading
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path

import numpy as np
import onnxruntime

__all__ = ["Annotator", "load"]

FORMAT = 2

PADDING, UNKNOWN, WORD_START, WORD_END = 0, 1, 2, 3
#: About how many numbers the vectors of kept words have, four bytes each, and how many characters these words.
KEPT_NUMBERS, KEPT_CHARACTERS = 4_000_000, 5_000_000
#: New words whose vectors are computed at once.
READ_WORDS = 256
#: Words of the vocabulary that are learned when a model is loaded, and again with a capital, in about 50 ms.
FIRST_WORDS = 10_000
#: If a network pads: batches whose sentences are sorted by length together, so that they have little padding.
POOL = 16
#: Rows in which an LSTM reads the sentences of a batch, one behind the other. More rows are fewer steps, each of which
#: computes more at once; a row should have the room of two long sentences, so that all are equally full.
MOST_ROWS = 16
#: Words that are tried as the only root, before the number of roots is minimized in a slower search.
TRIED_ROOTS = 3
#: Trees are searched together if a batch has at least this many sentences. For fewer, one search each is faster.
MANY = 12
#: Trees are searched together if heads have at most this many symbols, all of which are read for every word.
MANY_SYMBOLS = 160
#: A longer sentence, in words, is searched alone, and the names of its heads are not kept.
KEPT_LENGTH = 256
#: Sentences that are searched together have at most this many words, which bounds the memory.
GROUP_WORDS = 4_096
#: The number of a head that stands for no word.
NOWHERE = 2**30
#: Trees are found by probabilities in 32 bits if the best head of every word is at least e^-40, and the tree at least
#: e^-40 times as likely as the best heads. A better tree has then no arc below e^-80, and numbers of 32 bits are exact
#: down to e^-87.
MOST_LOSS = 40.0
SMALLEST = math.exp(-MOST_LOSS)
#: Smaller odds count as this number, whose logarithm is finite. No tree that needs them is decided in 32 bits.
TINY = 1e-300

LINE_ENDS = "\n\r\u2028\u2029"
#: Characters that a terminal obeys or that change the direction of text; JSON's own escapes cover those before a blank.
CONTROL = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
USAGE = """\
usage: python annotate.py [--scores] [--format text|words] [FILE]

Prints one JSON object for each sentence of a file in UTF-8, or of the standard input (no FILE, or -).

  --scores         add exact probabilities
  --format words   white space separates words, and a line is a sentence (text: both are found by rules)"""

_STRINGS = frozenset([str])
EDITABLE = ("README.md", "LICENSE.txt", "annotate.py")
STOPS = frozenset(".!?\u2026")
WIDE_STOPS = frozenset("\u3002\uff01\uff1f")
CLOSING = frozenset("\"'\u2019\u201d\u00bb\u203a)]}\u300d\u300f\uff09")


def load(folder=None, threads=1):
    """Return the model in an exported folder.

    Args:
        folder: that `structkd export` wrote; None means the folder of this file.
        threads: processor cores that one call may use.

    Raises:
        FileNotFoundError: if a file of the folder is missing.
        ValueError: if the folder was written in another format, or a file is not as it was written.
    """
    folder = Path(__file__).parent if folder is None else Path(folder)
    for name in ("tables.json", "model.onnx"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}. Name a folder that `structkd export MODEL FOLDER` wrote.")
    _check_files(folder)
    try:
        tables = json.loads((folder / "tables.json").read_text(encoding="utf-8"))
        if not isinstance(tables, dict):
            raise ValueError("it holds something else than an object")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{folder / 'tables.json'} cannot be read ({error}). Export the model again.") from error
    if tables.get("format") != FORMAT:
        raise ValueError(
            f"{folder / 'tables.json'} has format {tables.get('format')}; this annotate.py reads format {FORMAT}. Use "
            "the annotate.py of that folder, or export the model again."
        )
    return Annotator(folder, tables, threads)


def _check_files(folder):
    """Compare the files with manifest.json, which lists size and sha256 of each; texts and code may be edited."""
    path = folder / "manifest.json"
    if not path.is_file():
        return
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        seal = manifest.pop("seal", None)
        written = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
        if (seal is None) != (manifest["format"] == 1) or seal not in (
            None,
            hashlib.sha256(written.encode()).hexdigest(),
        ):
            raise ValueError("its seal does not match")
        files = {name: facts["sha256"] for name, facts in manifest["files"].items() if name not in EDITABLE}
        if any(os.path.isabs(name) or ".." in name.split("/") for name in files):
            raise ValueError("it names files outside of the folder")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is not as it was written ({error!r}). Export the model again.") from error
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}. Export the model again.")
        found = hashlib.sha256()
        with open(folder / name, "rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
        if found.hexdigest() != digest:
            raise ValueError(f"{folder / name} is not as it was written: it is damaged. Export the model again.")


class Annotator:
    """A model that annotates text. It may be used by several threads at once.

    Attributes:
        labels: the tags, or the relations of trees, in the order of their numbers.
    """

    def __init__(self, folder, tables, threads=1):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.features, self.separated = _features(tables["features"], folder), tables["separated"]
        self.pads = self.features.pads or not self.separated  # a sentence costs as much as the longest one of its batch
        self.pattern = re.compile(tables["word_pattern"])
        self.task = (_Tags if tables["task"] == "tags" else _Trees)(tables)
        self.labels = tables["labels"] if tables["task"] == "tags" else tables["relations"]
        self._inputs = [each.name for each in self.session.get_inputs()]
        self._outputs = [each.name for each in self.session.get_outputs()]

    def annotate(self, sentences, batch_size=32, scores=False):
        """Annotate raw text, or sentences.

        Args:
            sentences: a text, of one or more sentences; a list of texts, each one sentence; or a list of sentences that
                are lists of words, or dictionaries with `words` and, for models that read them, `upos`.
            batch_size: sentences in a batch. The result does not depend on it, but for a folder with 8 bits, in which
                one scale holds for all words of a batch.
            scores: whether to add exact marginal probabilities.

        Returns:
            A list with one dictionary per sentence: `words`; `offsets` if the sentence is text; `tags` and, if they
            stand for spans, `spans` (`start` and `end` in words, the end exclusive, `label`, `text`, and for text
            `start_char` and `end_char`); or `heads` (from 1, 0 is the root) and `relations`. Scores are `tag_scores`,
            the `score` of every span (the probability that exactly this span is one of its type), or `head_scores`
            and `relation_scores`.

        Raises:
            TypeError, ValueError: if something else is given, or a sentence that the model cannot take.
        """
        return list(self.annotate_stream(sentences, batch_size, scores))

    def annotate_stream(self, sentences, batch_size=32, scores=False):
        """Annotate an iterable of sentences, of any length, in constant memory; see `annotate`."""
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}.")
        return self._stream(self._read(sentences), batch_size, scores)

    def _stream(self, sentences, batch_size, scores):
        pool = batch_size * POOL if batch_size > 1 and self.pads else batch_size
        while window := list(islice(sentences, pool)):
            batch = [sentence for sentence in window if sentence["words"]]
            for some in _of_like_length(batch, batch_size) if self.pads else [batch]:
                if some:
                    found = self.network([sentence["words"] for sentence in some])
                    self.task.annotate(some, *found, scores=scores)
            for sentence in window:
                if not sentence["words"]:
                    self.task.annotate_nothing(sentence, scores)
                sentence.pop("upos", None)
                sentence.pop("source", None)
                yield sentence

    def network(self, sentences):
        """Return the scores of tags [T, C], or of labels [T, K] and the probabilities of symbols [T, H + 1].

        No sentence is empty. The last symbol stands for heads that no symbol names, with probability 0.
        """
        lengths = list(map(len, sentences))
        cells, grid = _grid(lengths, self.separated)
        inputs = {"cells": cells, "grid": grid, **self.features(sentences, grid)}
        if not self.separated:
            inputs["lengths"] = np.array(lengths, np.int32)
        return self.session.run(self._outputs, {name: inputs[name] for name in self._inputs})

    def _read(self, given):
        """Yield a new dictionary for every sentence: its words and, of raw text, their places and the text."""
        if isinstance(given, str):
            for words in self.split_sentences(given):
                yield _of_text(words, given)
            return
        if isinstance(given, (bytes, bytearray, dict, set, frozenset)) or not hasattr(given, "__iter__"):
            raise TypeError(
                f"Sentences are a text, a list of texts, or a list of lists of words; got {type(given).__name__}."
            )
        for number, sentence in enumerate(given):
            if isinstance(sentence, str):
                yield _of_text(self.split_words(sentence), sentence)
                continue
            upos = None
            if isinstance(sentence, dict):
                sentence, upos = sentence.get("words"), sentence.get("upos")
            if not isinstance(sentence, (list, tuple)) or not (
                _STRINGS.issuperset(map(type, sentence)) or all(isinstance(word, str) for word in sentence)
            ):
                raise TypeError(f"Sentence {number} (from 0) must be a text or a list of words, got {sentence!r:.60}.")
            result = {"words": list(sentence)}
            if upos is not None:
                result["upos"] = upos
            yield result

    def split_words(self, text):
        """Return the words of a text and their places, (start, end)."""
        if half := re.search("[\ud800-\udfff]", text):
            raise ValueError(
                f"The text has {half.group()!r} at position {half.start()}, a half of a surrogate pair, which is not a "
                "character. Read the file as UTF-8, or remove it."
            )
        return [(match.group(), match.span()) for match in self.pattern.finditer(text)]

    def split_sentences(self, text):
        """Return the sentences of a text, each as `split_words` returns words.

        A sentence ends at the end of a line. It also ends after . ! ? or an ellipsis, with the quotes and brackets that
        close behind it, if white space follows and the next word does not begin with a lower-case letter; and after
        the full stops of Chinese and Japanese.
        """
        sentences, current = [], []
        stopped = None  # the stop before, if nothing but closing characters came after it
        for word, (start, end) in self.split_words(text):
            if current:
                gap = text[current[-1][1][1] : start]
                closes = stopped is not None and not gap and word[0] in CLOSING
                ended = any(each in gap for each in LINE_ENDS)
                if stopped is not None and not closes:
                    ended = ended or stopped in WIDE_STOPS or bool(gap and not word[0].islower())
                if ended:
                    sentences.append(current)
                    current, stopped = [], None
                elif not closes:
                    stopped = None
            current.append((word, (start, end)))
            if word[0] in STOPS or word[0] in WIDE_STOPS:
                stopped = word[0]
        return [*sentences, current] if current else sentences


def _of_text(words, text, before=0):
    """Return a sentence of a text, whose places count from `before` characters before it."""
    offsets = [(start + before, end + before) for _, (start, end) in words]
    return {"words": [word for word, _ in words], "offsets": offsets, "source": (text, before)}


# Words as numbers -------------------------------------------------------------------------------------------------


def _features(tables, folder, prefix=""):
    """Return a function from sentences, and the words in the cells of a grid, to the inputs of the network.

    Its attribute `pads` says whether these have padding.
    """
    if tables["kind"] == "words":
        return _Words(tables, folder, prefix)
    if tables["kind"] == "subwords":
        return _Subwords(tables, folder, prefix)
    return _Parts([_features(part, folder, f"{prefix}{name}.") for name, part in tables["parts"].items()])


def _of_like_length(sentences, most):
    """Yield the sentences in batches of at most `most`, of like lengths."""
    batch = []
    for sentence in sorted(sentences, key=lambda sentence: len(sentence["words"])):
        # A padded word costs as much as a word, and a call of the network as much as a few words.
        if batch and (len(batch) == most or len(sentence["words"]) > 1.25 * len(batch[0]["words"]) + 2):
            yield batch
            batch = []
        batch.append(sentence)
    yield batch


def _grid(lengths, separated):
    """Return the cell [T] of every word in a grid [S, R] of S steps and R rows, and the word in every cell, or T.

    Each sentence has a row of its own, or sentences stand one behind the other, with a cell between them that holds no
    word. Then the longest come first, each in the row that has the fewest words, so that rows are equally full.
    """
    if len(lengths) == 1:
        cells = np.arange(lengths[0])
        return cells, cells[:, None]
    count, total, steps = len(lengths), sum(lengths), max(lengths)
    rows, firsts = count, np.arange(count)
    if separated:
        rows = min(MOST_ROWS, max(1, (total + count) // (2 * steps)))
        ends = [0] * rows
        for place in sorted(range(count), key=lengths.__getitem__, reverse=True):
            end = min(ends)
            row = ends.index(end)
            firsts[place] = end * rows + row
            ends[row] = end + lengths[place] + 1
        steps = max(ends) - 1
    words = np.arange(total)
    begins = np.cumsum(lengths) - lengths
    cells = np.repeat(firsts - rows * begins, lengths) + rows * words
    grid = np.full(steps * rows, total)
    grid[cells] = words
    return cells, grid.reshape(-1, rows)


class _Parts:
    """The inputs of several encoders, whose vectors are concatenated."""

    def __init__(self, parts):
        self.parts, self.pads = parts, any(part.pads for part in parts)

    def __call__(self, sentences, grid):
        return {name: value for part in self.parts for name, value in part(sentences, grid).items()}


class _Words:
    """The vectors of words without their context. They are kept, as most words come again.

    A vector is a row of a table, and the maximum over a convolution of the word's characters. The convolution adds up
    what each character of its window contributes, by another table [C, window * filters]. If vectors stand in a grid
    with separators, they have one number more, which marks these.
    """

    pads = False

    def __init__(self, tables, folder, prefix):
        self.prefix = prefix
        self.table, *characters = (np.load(folder / name, allow_pickle=False) for name in tables["arrays"])
        if tables["scale"] is not None:
            self.table = self.table * np.array(tables["scale"], np.float32)
        self.number = {word: number for number, word in enumerate(tables["words"], 2)}
        self.characters = characters[0] if characters else None
        self.character = {character: number for number, character in enumerate(tables["characters"] or (), 4)}
        self.lowercase, self.longest, self.window = tables["lowercase"], tables["max_characters"], tables["window"]
        self.filters = self.characters.shape[1] // self.window if characters else 0
        self.size, self.grid, self.marked = self.table.shape[1] + self.filters, tables["grid"], tables["marked"]
        self.most = KEPT_NUMBERS // self.size
        self.kept, self.lock = _Vectors(self.most, self.size, self.marked), threading.Lock()
        # Vocabularies usually begin with the most frequent words of the text that the model was trained on.
        frequent = tables["words"][: min(FIRST_WORDS, self.most // 4)]
        self.learn([frequent, [word.capitalize() for word in frequent] if self.lowercase else []])

    def __call__(self, sentences, grid):
        words = sentences[0] if len(sentences) == 1 else list(chain.from_iterable(sentences))
        kept = self.kept
        rows = list(map(kept.get, words))
        if None in rows:
            kept = self.learn(sentences)
            rows = list(map(kept.get, words))
        if not self.grid:
            vectors = kept.vectors.take(rows, 0)
        elif len(sentences) == 1:
            vectors = kept.vectors.take(rows, 0)[:, None]
        else:
            vectors = kept.vectors.take(np.array([*rows, 0]).take(grid), 0)
        return {f"{self.prefix}vectors": vectors}

    def learn(self, sentences):
        """Return the kept words, with all words of some sentences among them."""
        with self.lock:
            kept = self.kept
            new = _distinct(sentences, kept)
            if len(kept) + len(new) > self.most or kept.characters > KEPT_CHARACTERS:
                new = _distinct(sentences, ())
                kept = self.kept = _Vectors(max(self.most, len(new)), self.size, self.marked)
            for begin in range(0, len(new), READ_WORDS):
                some = new[begin : begin + READ_WORDS]
                kept.add(some, self.read(some))
            return kept

    def read(self, words):
        """Return the vectors [M, D] of words."""
        number = self.number.get
        vectors = self.table.take([number(word.lower() if self.lowercase else word, UNKNOWN) for word in words], 0)
        if self.characters is None:
            return vectors
        # All words in one row, with padding between them: there the convolution is -inf.
        border = [PADDING] * (self.window // 2)
        spelled, begins, known = [*border], [], self.character.get
        for word in words:
            begins.append(len(spelled) - len(border))
            if len(word) > self.longest:  # without its middle, prefix and suffix remain
                half = self.longest // 2
                word = word[: self.longest - half] + word[-half:]
            spelled += [WORD_START, *[known(character, UNKNOWN) for character in word], WORD_END, *border]
        rows = self.characters.take(spelled, 0)
        count, filters = len(spelled) - self.window + 1, self.filters
        summed = rows[:count, :filters].copy()
        for place in range(1, self.window):
            summed += rows[place : place + count, place * filters : (place + 1) * filters]
        spellings = np.maximum.reduceat(summed, begins, 0)
        return np.concatenate([vectors, np.maximum(spellings, 0.0, out=spellings)], 1)


def _distinct(sentences, known):
    """Return the words of sentences that are not known, each of them once."""
    return list({word: None for words in sentences for word in words if word not in known})


class _Vectors(dict):
    """Words and the rows of their vectors in a table. Row 0 stands for no word; if rows have a mark, its mark is 1."""

    def __init__(self, rows, size, marked):
        super().__init__()
        self.characters, self.size = 0, size
        # The system gives memory to rows when they are written.
        self.vectors = np.zeros((rows + 1, size + marked), np.float32)
        self.vectors[0, size:] = 1.0

    def add(self, words, vectors):
        """Add new words. A thread that finds a word here also finds its vector."""
        begin = len(self) + 1
        end = begin + len(words)
        self.vectors[begin:end, : self.size] = vectors
        self.characters += sum(map(len, words))
        self.update(zip(words, range(begin, end), strict=True))


class _Subwords:
    """The subwords of words, in windows if a sentence is long, and the words that subwords count for."""

    pads = True

    def __init__(self, tables, folder, prefix):
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ImportError("This model reads subwords: pip install tokenizers") from error
        self.prefix = prefix
        self.tokenizer = Tokenizer.from_file(str(folder / tables["tokenizer"]))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.tokenizer.encode_special_tokens = True  # words may be spelled "[SEP]" or "</s>"
        self.unknown, self.padding, self.room = tables["unknown"], tables["padding"], tables["room"]
        self.before, self.after, self.space = tables["before"], tables["after"], tables["space"]
        self.mean, self.split = tables["pooling"] == "mean", tables["long_sentences"] == "split"

    def __call__(self, sentences, grid):
        nothing = sum(map(len, sentences))
        rows, marks, pieces, before = [], [], np.zeros(nothing, np.int64), 0
        for words in sentences:
            numbers, places = self._split(words)
            if len(numbers) > self.room and not self.split:
                raise ValueError(
                    f"The sentence that begins with {' '.join(words[:6])!r} has {len(numbers)} subwords; the model "
                    f"takes {self.room} at once. Leave it out or cut it in two."
                )
            counts = [
                self.mean or place != previous for place, previous in zip(places, [-1, *places[:-1]], strict=True)
            ]
            np.add.at(pieces[before : before + len(words)], places, counts)
            for begin, end, first, last in self._windows(len(numbers)):
                rows.append([*self.before, *numbers[begin:end], *self.after])
                marked = [
                    before + places[each] if first <= each < last and counts[each] else nothing
                    for each in range(begin, end)
                ]
                marks.append([nothing] * len(self.before) + marked + [nothing] * len(self.after))
            before += len(words)
        return {
            f"{self.prefix}subwords": _filled(rows, self.padding),
            f"{self.prefix}mask": _filled([[1] * len(row) for row in rows], 0),
            f"{self.prefix}words": _filled(marks, nothing),
            f"{self.prefix}pieces": pieces,
        }

    def _split(self, words):
        """Return the numbers of a sentence's subwords and the positions of their words; every word has one."""
        spaced = [self.space + word for word in words]
        encoded = self.tokenizer.encode(spaced, is_pretokenized=True, add_special_tokens=False)
        numbers, places = encoded.ids, encoded.word_ids
        absent = set(range(len(words))).difference(places)
        if absent:
            pairs = [*zip(places, numbers, strict=True), *((place, self.unknown) for place in absent)]
            pairs.sort(key=lambda pair: pair[0])
            places, numbers = [place for place, _ in pairs], [number for _, number in pairs]
        return numbers, places

    def _windows(self, count):
        """Return the windows over a sentence's subwords: (begin, end, first that counts, end of those that count)."""
        if count <= self.room:
            return [(0, count, 0, count)]
        begins = [*range(0, count - self.room, self.room - self.room // 4), count - self.room]
        cuts = [(left + self.room + right) // 2 for left, right in pairwise(begins)]
        return [
            (begin, begin + self.room, first, last)
            for begin, first, last in zip(begins, [0, *cuts], [*cuts, count], strict=True)
        ]


def _filled(rows, filling):
    longest = max(map(len, rows))
    return np.array([[*row, *[filling] * (longest - len(row))] for row in rows], np.int64)


# Tags -------------------------------------------------------------------------------------------------------------


class _Tags:
    """A tag for every word: the best legal sequence (Viterbi, 1967), and exact marginals.

    Scores of a CRF are `transitions` [C, C] as [next, previous], `start` [C] and `end` [C]. `legal` holds the tags that
    may follow each other, start and end in the same layout, and restricts decoding; `conditioned` says whether the
    probabilities are those of legal sequences, too.
    """

    def __init__(self, tables):
        self.labels, self.spans = tables["labels"], tables["spans"]
        count = len(self.labels)
        self.chain = tables["chain"] is not None
        crf = tables["chain"] or {"transitions": np.zeros((count, count)), "start": [0] * count, "end": [0] * count}
        # In 64 bits: the sums over a long sentence decide between sequences that hardly differ.
        self.scores = [np.array(crf[name], np.float64) for name in ("start", "transitions", "end")]
        self.legal = None
        self.best = self.scores
        if tables["legal"] is not None:
            self.legal = [np.array(tables["legal"][name], bool) for name in ("start", "transitions", "end")]
            self.best = [np.where(may, own, -np.inf) for may, own in zip(self.legal, self.scores, strict=True)]
            if tables["conditioned"]:
                self.scores = self.best
        self.free = np.zeros(count)  # scores where a window neither starts nor ends the sentence
        self.coupled = self.chain or tables["conditioned"]
        # of every tag: whether it begins a span, whether it ends one by itself, and the type
        self.parts = [(label[:1] in "BS", label[:1] in "SE", label[2:]) for label in self.labels]
        self.outside = self.labels.index("O") if self.spans else None

    def annotate(self, sentences, emissions, scores):
        """Add the tags and spans of sentences, for emissions [T, C]."""
        end = 0
        for sentence in sentences:
            begin, end = end, end + len(sentence["words"])
            self.annotate_one(sentence, emissions[begin:end], scores)

    def annotate_one(self, sentence, emissions, scores):
        best = viterbi(emissions, *self.best) if self.chain else self.best_legal(emissions)
        tags = best.tolist()
        sentence["tags"] = [self.labels[tag] for tag in tags]
        if scores:
            of_labels, following = self.marginals(emissions, best)
            own = of_labels[np.arange(len(best)), best]
        if self.spans:
            sentence["spans"] = self.read_spans(sentence, tags)
            if scores:
                for span in sentence["spans"]:
                    span["score"] = self.span_score(span, tags, own, following)
        if scores:
            sentence["tag_scores"] = own.tolist()

    def annotate_nothing(self, sentence, scores):
        sentence["tags"] = []
        if self.spans:
            sentence["spans"] = []
        if scores:
            sentence["tag_scores"] = []

    def best_legal(self, emissions):
        """Return the best legal sequence of tags [N], if nothing but legality couples the words.

        Where the best tags of all words are illegal, the best legal tags of a window around the place are found. The
        window grows until the tags at its ends are the best ones of their words. Then no legal sequence is better: none
        has a better window, and none has better tags outside of it.
        """
        best = emissions.argmax(1)
        if self.legal is None:
            return best
        start, transitions, end = self.legal
        last = len(best) - 1
        places = np.flatnonzero(~transitions[best[1:], best[:-1]]).tolist()  # between a word and the next
        illegal = [(place, place + 1) for place in places]
        if not start[best[0]]:
            illegal.insert(0, (0, 0))
        if not end[best[last]]:
            illegal.append((last, last))
        found, searched = [], 0  # windows that share no word
        for first, final in illegal:
            while True:
                first, final = max(first - 1, 0), min(final + 1, last)
                while found and found[-1][1] >= first:
                    before = found.pop()
                    first, final = min(first, before[0]), max(final, before[1])
                searched += final - first + 1
                if searched > 2 * len(best):  # windows pay if few tags are illegal
                    return viterbi(emissions, *self.best)
                tags = viterbi(
                    emissions[first : final + 1],
                    self.best[0] if first == 0 else self.free,
                    self.best[1],
                    self.best[2] if final == last else self.free,
                )
                if (first == 0 or tags[0] == best[first]) and (final == last or tags[-1] == best[final]):
                    break
            found.append((first, final, tags))
        for first, final, tags in found:
            best[first : final + 1] = tags
        return best

    def read_spans(self, sentence, tags):
        """Return the spans of a legal sequence."""
        found, first = [], None
        for place, tag in enumerate(tags):
            if tag == self.outside:
                if first is not None:
                    found.append((first, place))
                    first = None
                continue
            begins, ends, _ = self.parts[tag]
            if begins:
                if first is not None:
                    found.append((first, place))
                first = place
            if ends:
                found.append((first, place + 1))
                first = None
        if first is not None:
            found.append((first, len(tags)))
        return [self.span(sentence, tags, *span) for span in found]

    def span(self, sentence, tags, start, end):
        span = {"start": start, "end": end, "label": self.parts[tags[start]][2]}
        if "offsets" in sentence:
            begin, close = sentence["offsets"][start][0], sentence["offsets"][end - 1][1]
            text, before = sentence["source"]
            return span | {"text": text[begin - before : close - before], "start_char": begin, "end_char": close}
        return span | {"text": " ".join(sentence["words"][start:end])}

    def marginals(self, emissions, tags):
        """Return P(tag of a word) [N, C], and P(next tag | the word has the given tag) [N-1, C]."""
        if not self.coupled:
            powers = np.exp(emissions.astype(np.float64) - emissions.max(1, keepdims=True))
            found = powers / powers.sum(1, keepdims=True)
            return found, found[1:]
        start, transitions, end = self.scores
        unary = emissions.astype(np.float64)
        forward, backward = np.empty_like(unary), np.empty_like(unary)
        forward[0], backward[-1] = unary[0] + start, end
        for n in range(1, len(unary)):
            forward[n] = _log_sum(transitions + forward[n - 1], 1) + unary[n]
        for n in range(len(unary) - 1, 0, -1):
            backward[n - 1] = _log_sum(transitions + (unary[n] + backward[n])[:, None], 0)
        total = _log_sum(forward[-1] + end, 0)
        steps = transitions[:, tags[:-1]].T + unary[1:] + backward[1:]
        return np.exp(forward + backward - total), np.exp(steps - _log_sum(steps, 1)[:, None])

    def span_score(self, span, tags, own, following):
        """Return the probability that exactly this span is one of its type: of its tags, and that none continues it."""
        first, last = span["start"], span["end"] - 1
        score = own[first] * following[np.arange(first, last), tags[first + 1 : last + 1]].prod()
        if last + 1 < len(tags) and not self.parts[tags[last]][1]:
            goes_on = [n for n, (begins, _, kind) in enumerate(self.parts) if not begins and kind == span["label"]]
            score *= 1.0 - following[last, goes_on].sum()
        return float(score)


def _log_sum(values, axis):
    with np.errstate(divide="ignore"):
        top = values.max(axis, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        return np.log(np.exp(values - top).sum(axis)) + top.squeeze(axis)


def viterbi(emissions, start, transitions, end):
    """Return the best sequence of tags [N] for emissions [N, C]; -inf excludes tags. It takes O(N C^2) time."""
    reached = np.empty(emissions.shape)
    reached[0] = best = emissions[0] + start
    steps = np.empty_like(transitions)
    for n in range(1, len(emissions)):
        np.add(transitions, best, out=steps)
        best = steps.max(1)
        best += emissions[n]
        reached[n] = best
    tag = int((best + end).argmax())
    path = [tag]
    for n in range(len(emissions) - 1, 0, -1):
        tag = int((transitions[tag] + reached[n - 1]).argmax())
        path.append(tag)
    return np.array(path[::-1])


# Trees ------------------------------------------------------------------------------------------------------------


class _Trees:
    """A dependency tree out of labels, each of which names a head (by a symbol) and a relation.

    The network's labels are ordered by symbol, so that the labels of a symbol are neighbours. A symbol's probability is
    the sum over its labels, and the tree is the best by the sum of its arcs' log probabilities.
    """

    def __init__(self, tables):
        self.relations, self.multiroot, self.encoding = tables["relations"], tables["multiroot"], tables["encoding"]
        self.symbols, counts = tables["symbols"], tables["labels_of_symbols"]
        self.begins = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self.relation = tables["label_relations"]
        self.names = [self.relations[number] for number in self.relation]  # of the relations of labels
        self.ranges = [(end - count, end) for end, count in zip(np.cumsum(counts).tolist(), counts, strict=True)]
        self.symbol = [symbol for symbol, count in enumerate(counts) for _ in range(count)]  # of every label
        self.number = {symbol: number for number, symbol in enumerate(self.symbols)}
        self.none = len(self.symbols)
        self.root = self.number.get("root", self.none)
        self.together = not self.multiroot and self.none <= MANY_SYMBOLS
        self.kept = None  # the naming of the longest sentence so far, which holds those of shorter ones

    def annotate(self, sentences, logits, symbols, scores):
        """Add the trees of sentences, for the scores of labels [T, K] and the probabilities of symbols [T, H + 1]."""
        labels = logits.argmax(1).tolist()
        end = 0
        for group in _groups(sentences):
            namings = [self.naming(sentence) for sentence in group]
            lengths = [len(sentence["words"]) for sentence in group]
            trees = [None] * len(group)
            if self.together and len(group) >= MANY:
                trees = likeliest_trees(symbols[end : end + sum(lengths)], namings, lengths, self.root)
            for sentence, naming, words, heads in zip(group, namings, lengths, trees, strict=True):
                begin, end = end, end + words
                if heads is None:
                    heads = self.heads(naming.cells[:words, :words], logits[begin:end], symbols[begin:end])
                self.annotate_one(sentence, heads, labels[begin:end], naming.symbols, logits[begin:end], scores)

    def heads(self, cells, logits, symbols):
        """Return the heads of one sentence, for the cells of its arcs; the root is its own head."""
        if len(cells) == 1:
            return [0]
        heads = likeliest_tree(symbols.take(cells), self.multiroot)
        return best_tree(self.log_shares(logits).take(cells), self.multiroot) if heads is None else heads

    def annotate_one(self, sentence, heads, labels, naming, logits, scores):
        """Add the tree with these heads to a sentence; labels are the best ones of its words."""
        symbol_of, names, relations = self.symbol, self.names, []
        for word, (head, label, row) in enumerate(zip(heads, labels, naming, strict=False)):
            symbol = row[head]
            if symbol_of[label] == symbol:  # the best label of most words names their head
                relations.append(names[label])
            elif symbol < self.none:
                begin, end = self.ranges[symbol]
                labels[word] = label = begin + int(logits[word, begin:end].argmax())
                relations.append(names[label])
            else:  # rare: a tree needs an arc that no label names
                powers = np.exp(logits[word].astype(np.float64) - logits[word].max())
                relations.append(self.relations[np.bincount(self.relation, powers).argmax()])
        sentence["heads"] = [0 if head == word else head + 1 for word, head in enumerate(heads)]
        sentence["relations"] = relations
        if scores:
            shares = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            totals = np.add.reduceat(shares, self.begins, axis=1)
            rows = np.arange(len(heads))
            chosen = np.array([row[head] for row, head in zip(naming, heads, strict=False)])
            named = chosen < self.none
            sentence["head_scores"] = np.where(named, totals[rows, np.minimum(chosen, self.none - 1)], 0.0).tolist()
            sentence["relation_scores"] = np.where(named, shares[rows, labels], 0.0).tolist()

    def annotate_nothing(self, sentence, scores):
        for name in ("heads", "relations", *(("head_scores", "relation_scores") if scores else ())):
            sentence[name] = []

    def log_shares(self, logits):
        """Return log P(symbol) [N, H + 1] by logarithms of sums, for scores that lie far apart."""
        logits = logits.astype(np.float64)
        counts = np.diff([*self.begins, logits.shape[1]])
        top = np.maximum.reduceat(logits, self.begins, axis=1)
        sums = np.log(np.add.reduceat(np.exp(logits - np.repeat(top, counts, axis=1)), self.begins, axis=1)) + top
        sums -= _log_sum(sums, 1)[:, None]
        return np.concatenate([sums, np.full((len(sums), 1), -np.inf)], 1)

    def naming(self, sentence):
        """Return the names of the heads of a sentence, or of a longer one that begins with them."""
        words = len(sentence["words"])
        if self.encoding == "relative_pos":
            upos = sentence.get("upos")
            if upos is None or len(upos) != words:
                raise ValueError(
                    "This parser reads parts of speech. Give sentences as dictionaries with `words` and `upos`, one "
                    "part of speech for every word."
                )
            return _Naming(self.by_part_of_speech(upos), self.none)
        kept = self.kept
        if kept is None or len(kept.symbols) < words:
            kept = _Naming(self.by_position(max(words, 64)), self.none)
            if words <= KEPT_LENGTH:
                self.kept = kept
        return kept

    def by_position(self, words):
        place = np.arange(words)
        if self.encoding == "absolute_position":
            row = [self.number.get(str(head + 1), self.none) for head in range(words)]
            table = np.repeat(np.array([row]), words, axis=0)
        else:
            row = [self.number.get(f"{offset:+d}", self.none) for offset in range(1 - words, words)]
            table = np.array(row)[place - place[:, None] + words - 1]
        table[place, place] = self.number.get("root", self.none)
        return table

    def by_part_of_speech(self, upos):
        """The symbol of a head is its part of speech, and the number of words with this tag on the way to it."""
        table = np.full((len(upos), len(upos)), self.number.get("root", self.none))
        for dependent in range(len(upos)):
            for sign, heads in (("-", range(dependent - 1, -1, -1)), ("+", range(dependent + 1, len(upos)))):
                seen = {}
                for head in heads:
                    tag = upos[head]
                    seen[tag] = seen.get(tag, 0) + 1
                    table[dependent, head] = self.number.get(f"{sign}{seen[tag]}@{tag}", self.none)
        return table


class _Naming:
    """The symbols that name the heads of a sentence's words. The root is its own head.

    Attributes:
        symbols: lists [N] of lists [N], the symbol that names each head of each dependent; H if none does.
        cells: array [N, N], the place of this symbol's probability in a flat array [N, H + 1]. That of symbol H is 0.
    """

    def __init__(self, table, none):
        self.table, self.none = table, none
        self.symbols = table.tolist()
        self.cells = table + np.arange(len(table))[:, None] * (none + 1)

    @cached_property
    def heads(self):
        """The head that each symbol names, an array [N, H + 1], or `NOWHERE`."""
        words = np.arange(len(self.table))
        heads = np.full((len(words), self.none + 1), NOWHERE, np.int32)
        heads[words[:, None], self.table] = words
        heads[:, self.none] = NOWHERE
        return heads


def _groups(sentences):
    """Yield the sentences in groups whose trees are searched together; a long one stands alone."""
    group, words = [], 0
    for sentence in sentences:
        length = len(sentence["words"])
        words += length
        if group and (words > GROUP_WORDS or length > KEPT_LENGTH):
            yield group
            group, words = [], length
        group.append(sentence)
        if length > KEPT_LENGTH:
            yield group
            group, words = [], 0
    if group:
        yield group


def likeliest_trees(symbols, namings, lengths, root):
    """Return the heads of the likeliest trees with one root of many sentences, as `likeliest_tree` does for one.

    The tree of a sentence is None if the bounds do not decide which word is its root, or if numbers of 32 bits are too
    coarse. Of trees that are equally likely, any may be found.

    Args:
        symbols: array [T, H + 1] of probabilities of the symbols of heads.
        namings: of the sentences, see `_Naming`; they may be those of longer ones.
        lengths: of the sentences.
        root: the symbol of the root.
    """
    forest = _Forest(symbols, namings, lengths, root)
    cycle = forest.cycles(forest.best)
    words, heads, cycles, log_odds = forest.ways_out(cycle)
    bounds = forest.bounds(cycle, words, cycles, log_odds)
    begins, sentence = forest.begins, forest.sentence
    highest = np.maximum.reduceat(bounds, begins)
    equal = np.flatnonzero(bounds == highest[sentence])[::-1]
    roots = begins.copy()
    roots[sentence[equal]] = equal  # the first of equals, which is written last
    decided = forest.precise & (highest > forest.lowest)
    # The root and the ways out of cycles in which it does not lie are taken.
    found = forest.best.copy()
    found[roots] = roots
    taken = cycle[roots][sentence[words]] != cycles
    found[words[taken]] = heads[taken]
    # These are trees if no cycle is left but that of the root with itself.
    cycle = forest.cycles(found)
    cycle[roots] = -1
    cyclic = np.maximum.reduceat(cycle, begins) >= 0
    trees = forest.by_sentence(found, decided & ~cyclic)
    bounds[roots] = -math.inf
    least = np.maximum(np.maximum.reduceat(bounds, begins), forest.lowest)
    for place in np.flatnonzero(decided & cyclic).tolist():
        trees[place] = forest.search(place, roots.item(place), least.item(place))
    return trees


class _Forest:
    """The words of many sentences as flat arrays, and what the search of their trees with one root asks of them.

    No tree with a given root is likelier than the root's arc and the best heads of all other words, times the best odds
    of a way out of each cycle of best heads in which the root does not lie. This is the bound of a root.

    Attributes:
        begins: the first words of sentences.
        sentence: of every word.
        arcs: probabilities [T, H + 1] of heads, by symbol; 0 for the root, and for symbols that name no word.
        heads: the words [T, H + 1] that symbols name.
        best: the best heads [T] but for the root. A word without any is its own head.
        taken: their probabilities [T].
        of_roots: log P(root) - log P(best head) [T].
        precise: whether the best heads of a sentence are likely enough for numbers of 32 bits.
        lowest: a tree is likely enough for numbers of 32 bits if its log odds against the best heads are above this
            number. It counts from the likeliest heads of all words, roots among them, which `MOST_LOSS` refers to.
    """

    def __init__(self, symbols, namings, lengths, root):
        self.namings, self.lengths = namings, np.array(lengths)
        self.begins = np.cumsum(self.lengths) - self.lengths
        self.sentence = np.repeat(np.arange(len(lengths)), self.lengths)
        words = np.arange(len(symbols))
        heads = np.concatenate([naming.heads[:length] for naming, length in zip(namings, lengths, strict=True)])
        self.arcs = symbols * (heads < self.lengths[self.sentence, None])
        self.heads = heads
        roots = self.arcs[:, root].astype(np.float64)
        self.arcs[:, root] = 0.0
        places = self.arcs.argmax(1)
        taken = self.arcs[words, places]
        self.best = np.where(taken > 0.0, heads[words, places] + self.begins[self.sentence], words)
        self.precise = np.minimum.reduceat(taken, self.begins) > SMALLEST
        self.taken = np.maximum(taken, np.float32(SMALLEST)).astype(np.float64)
        self.of_roots = np.log(np.maximum(roots / self.taken, TINY))
        self.lowest = np.add.reduceat(np.maximum(self.of_roots, 0.0), self.begins) - MOST_LOSS
        self.doublings = max(lengths).bit_length()

    def cycles(self, heads):
        """Return for every word the first word of the cycle on which it lies, or -1.

        Each step doubles the length of the paths that have been followed from all words.
        """
        first = np.arange(len(heads))
        path = heads
        for _ in range(self.doublings):
            first = np.minimum(first, first[path])
            path = path[path]
        cycle = np.full(len(heads), -1)
        cycle[path] = first[path]
        return cycle

    def ways_out(self, cycle):
        """Return the best way out of each cycle: the word, its new head, the cycle, and the log odds of the change."""
        inside = np.flatnonzero(cycle >= 0)
        own = cycle[inside]
        heads = np.minimum(self.heads[inside] + self.begins[self.sentence[inside], None], len(cycle) - 1)
        leaving = self.arcs[inside] * (cycle[heads] != own[:, None])
        places = leaving.argmax(1)
        rows = np.arange(len(inside))
        odds = leaving[rows, places] / self.taken[inside]
        order = np.lexsort((odds, own))
        ways = order[np.flatnonzero(np.diff(own[order], append=-1))]  # the best one is the last of its cycle
        return inside[ways], heads[ways, places[ways]], own[ways], np.log(np.maximum(odds[ways], TINY))

    def bounds(self, cycle, words, cycles, log_odds):
        """Return the bound of each word as the root, in log odds against the best heads of all words."""
        of_cycle = np.zeros(len(cycle) + 1)  # the last one is of words on no cycle
        of_cycle[cycles] = log_odds
        total = np.bincount(self.sentence[words], log_odds, len(self.lengths))
        return self.of_roots + total[self.sentence] - of_cycle[cycle]

    def search(self, place, root, least):
        """Return the heads of the best tree of a sentence with a given root, if its log odds are above the least."""
        begin, size = self.begins.item(place), self.lengths.item(place)
        words = slice(begin, begin + size)
        shares = self.arcs[words].take(self.namings[place].cells[:size, :size])
        losses = np.full((size, size + 1), math.inf)
        losses[:, :size] = -np.log(np.maximum(shares / self.taken[words, None], TINY))
        heads = (self.best[words] - begin).tolist()
        heads[root - begin] = size
        found = arborescence(losses, heads, most=self.of_roots.item(root) - least)
        return None if found is None else found[0]

    def by_sentence(self, heads, wanted):
        """Return the heads of each sentence, counted from its first word, or None if they are not wanted."""
        heads = (heads - self.begins[self.sentence]).tolist()
        rows = zip(self.begins.tolist(), self.lengths.tolist(), wanted.tolist(), strict=True)
        return [heads[begin : begin + length] if is_wanted else None for begin, length, is_wanted in rows]


def likeliest_tree(arcs, multiroot):
    """Return the heads of the likeliest tree, a list; a root is its own head.

    Return None if numbers of 32 bits are too coarse to decide.

    Args:
        arcs: array [N, N] of probabilities by dependent and head, root arcs on the diagonal.
        multiroot: as in `best_tree`, which finds the same trees.
    """
    best, taken = arcs.argmax(1).tolist(), arcs.max(1)
    if not taken.min() > SMALLEST:
        return None
    cycles = _cycles(best)
    if all(len(cycle) == 1 for cycle in cycles) and (multiroot or len(cycles) == 1):
        return best
    found = None if multiroot else _near_tree(arcs, best, taken, cycles)
    if found is not None:
        return found
    with np.errstate(divide="ignore"):
        logs = np.log(arcs, dtype=np.float64)
    found = best_tree(logs, multiroot)
    loss = sum(logs.item(word, best[word]) - logs.item(word, head) for word, head in enumerate(found))
    return found if loss < MOST_LOSS else None


def _near_tree(arcs, best, taken, cycles):
    """Return the likeliest tree with one root if it is near to the likeliest heads of all words, or None.

    No tree with a given root is likelier than the root's arc and the best heads of all other words, times the best odds
    of a way out of each cycle in which the root does not lie. If these ways out give a tree, it is the likeliest one.
    """
    size, heads = len(best), best
    likelier = 1.0  # the odds of the likeliest heads, roots among them, against those below
    roots = [cycle[0] for cycle in cycles if len(cycle) == 1]
    if roots:  # which become words with other heads
        heads, taken = list(best), taken.copy()
        for word in roots:
            row = arcs[word].copy()
            row[word] = 0.0
            heads[word] = head = int(row.argmax())
            if not row[head] > SMALLEST:
                return None
            likelier *= taken.item(word) / row.item(head)
            taken[word] = row[head]
        cycles = _cycles(heads)
    odds, exits = arcs.diagonal() / taken.astype(np.float64), []
    for cycle in cycles:
        rows = arcs[cycle].astype(np.float64)
        rows[:, cycle] = 0.0
        rows /= taken[cycle][:, None]
        place = int(rows.argmax())
        own = odds[cycle]
        odds *= rows.item(place)
        odds[cycle] = own
        exits.append((cycle[place // size], place % size))
    root = int(odds.argmax())
    if not odds[root] > SMALLEST * likelier:
        return None
    found = list(heads)
    found[root] = root
    left = []
    for cycle, (word, head) in zip(cycles, exits, strict=True):
        if root not in cycle:
            found[word] = head
            left.append(word)
    for word in left:  # a new cycle would hold a word whose head has changed
        for _ in range(size):
            word = found[word]
            if word == root:
                break
        else:
            return None
    return found


def best_tree(arcs, multiroot):
    """Return the heads of the best tree, a list; a root is its own head.

    Args:
        arcs: array [N, N] of scores by dependent and head, root arcs on the diagonal, -inf for impossible.
        multiroot: whether a tree may have several roots. If not, arcs of -inf are taken only if no tree has none.
    """
    search = _best_of_any if multiroot else _best_of_one_root
    found = search(arcs)
    if found is None:  # as few impossible arcs as possible, each cheaper than any number of possible ones
        possible = arcs > -math.inf
        worst = float(arcs[possible].min(initial=0.0))
        found = search(np.where(possible, arcs, len(arcs) * worst - 1.0))
    return found


def _best_of_any(arcs):
    """Return the best tree of any number of roots, or None."""
    heads = arcs.argmax(1)
    best = arcs[range(len(arcs)), heads]
    if not best.min() > -math.inf:
        return None
    losses = _losses(arcs, best)
    found = arborescence(losses, np.where(heads == range(len(arcs)), len(arcs), heads).tolist())
    return None if found is None else found[0]


def _losses(arcs, best):
    """Return what every head costs beyond the best one of its word, [N, N + 1], the root last."""
    size = len(arcs)
    losses = np.empty((size, size + 1))
    np.subtract(best[:, None], arcs, out=losses[:, :size])
    losses[:, size] = losses.diagonal()
    np.fill_diagonal(losses, math.inf)
    return losses


def _best_of_one_root(arcs):
    """Return the best tree with one root, or None."""
    size = len(arcs)
    between = arcs.copy()
    np.fill_diagonal(between, -math.inf)
    heads = between.argmax(1).tolist()
    best = between[range(size), heads]
    if size == 1 or not best.min() > -math.inf:
        return _of_fewest_roots(arcs, heads, best)
    losses = _losses(arcs, best)
    # A tree with a given root costs at least what the root's arc costs beyond its best head, and the least that it
    # costs to leave each cycle of best heads, but for one in which the root lies.
    bounds = losses[:, size].copy()
    losses[:, size] = math.inf
    for cycle in _cycles(heads):
        rows = losses[cycle]
        rows[:, cycle] = math.inf
        own = bounds[cycle]
        bounds += rows.min()
        bounds[cycle] = own
    likeliest = np.argsort(bounds)[: TRIED_ROOTS + 1].tolist()
    tree, lowest = None, math.inf
    for rank, root in enumerate(likeliest):
        if lowest <= bounds[root]:
            return tree
        if rank == TRIED_ROOTS:
            break
        rest = losses.copy()
        rest[root] = math.inf
        others = list(heads)
        others[root] = size
        loss = arcs.item(root, heads[root]) - arcs.item(root, root)
        found = arborescence(rest, others, most=lowest - loss)
        if found is not None:
            tree, lowest = found[0], found[1] + loss
    else:  # all roots were tried
        return tree
    return _of_fewest_roots(arcs, heads, best)


def _of_fewest_roots(arcs, heads, best):
    """Return the best of the trees with the fewest roots if these have one, or None."""
    size = len(heads)
    possible = best > -math.inf
    losses = _losses(arcs, np.where(possible, best, 0.0))
    start = [head if may else size for head, may in zip(heads, possible.tolist(), strict=True)]
    if not losses[~possible, size].max(initial=0.0) < math.inf:
        return None
    found = arborescence(losses, start, reluctant_root=True)
    return found[0] if found is not None and sum(head == word for word, head in enumerate(found[0])) == 1 else None


def _cycles(heads):
    """Return the cycles of heads, each a list of words."""
    seen, found = [-1] * len(heads), []  # of every word: the word from which it was reached first
    for start in range(len(heads)):
        word = start
        while seen[word] < 0:
            seen[word] = start
            word = heads[word]
        if seen[word] == start:
            cycle = [word]
            while heads[cycle[-1]] != word:
                cycle.append(heads[cycle[-1]])
            found.append(cycle)
    return found


def arborescence(losses, heads, reluctant_root=False, most=math.inf):
    """Return the best tree by Edmonds' algorithm (1967) in O(N^2) time, a list of heads, and its loss.

    Args:
        losses: array [N, N + 1] by dependent and head, the root last; inf for impossible.
        heads: list [N] of heads, one for every word, from which the search starts. They are the best ones, of loss 0.
        reluctant_root: whether to find the best of the trees with the fewest roots, rather than the best tree.
        most: a loss. The search stops when the contracted cycles cost this or more. The result is None then, and if
            no tree exists.

    A component is a word or a contracted cycle. Each takes its best arc from outside; cycles are contracted until there
    are none, and each is opened again at the child that the arc from outside enters. A component has a row of losses:
    for every head that of its best arc into the component, beyond the loss of the arc taken. An arc into a child
    replaces the arc that the child has taken, so that the row of a cycle is the least of its children's rows. Root arcs
    that enter a cycle replace an arc between words, so that taking them last minimizes their number before the loss.
    """
    size = len(heads)
    rows = np.empty((2 * size, size + 1))  # of components, words first
    rows[:size] = losses
    head_of, children, words_of = list(heads), [None] * size, [[word] for word in range(size)]
    component = list(range(size + 1))  # of every word and the root: the outermost component that it lies in
    unseen, on_path, done = 0, 1, 2
    state = [unseen] * size
    paid = 0.0
    for start in range(size):
        current = component[start]
        if state[current] != unseen:
            continue
        path = [current]  # of components, each taking its arc from the next
        while True:
            state[current] = on_path
            head = head_of[current]
            if head == size:
                break
            target = component[head]
            if state[target] == unseen:
                current = target
                path.append(current)
                continue
            if state[target] == done:
                break
            cycle = [path.pop()]
            while cycle[-1] != target:
                cycle.append(path.pop())
            current = len(head_of)
            row = rows[cycle].min(0, out=rows[current])
            words = [word for child in cycle for word in words_of[child]]
            row[words] = math.inf
            head = int((row[:size] if reluctant_root else row).argmin())
            loss = row.item(head)
            if reluctant_root and loss == math.inf:
                head, loss = size, row.item(size)
            paid += loss
            if not paid < most:
                return None
            row -= loss
            for word in words:
                component[word] = current
            head_of.append(head)
            children.append(cycle)
            words_of.append(words)
            state.append(on_path)
            path.append(current)
        for passed in path:
            state[passed] = done
    # What enters a component enters the child with the best arc from there; the others keep their arcs.
    for outer in range(len(head_of) - 1, size - 1, -1):
        head = head_of[outer]
        offered = [rows.item(child, head) for child in children[outer]]
        head_of[children[outer][offered.index(min(offered))]] = head
    return [word if head == size else head for word, head in enumerate(head_of[:size])], paid


# The command ------------------------------------------------------------------------------------------------------


def _of_file(model, file, name, words=False):
    """Yield the sentences of a text, which end with its lines; places count from the begin of the file."""
    before = 0
    for line in file:
        if "\0" in line:
            sys.exit(f"{name} is not a text file: it has a zero byte.")
        if words:
            sentences = [[(match.group(), match.span()) for match in re.finditer("[^ \t\r\n]+", line)]]
        else:
            sentences = model.split_sentences(line)
        for sentence in sentences:
            yield _of_text(sentence, line, before)
        before += len(line)


def _json(result):
    """Return a result as a line of JSON, in which no character is left that a terminal obeys."""
    return CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", json.dumps(result, ensure_ascii=False))


def _print(*text, **options):
    """Print, or end with a sentence about the output if it cannot be written."""
    try:
        print(*text, **options)
    except BrokenPipeError:
        raise
    except OSError as error:  # as on a full disk
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"The output cannot be written ({error.strerror or error}).")


def _options(arguments):
    """Return the file, whether scores are wanted, and whether white space separates words."""
    names, scores, words = [], False, False
    rest = list(arguments)
    while rest:
        each = rest.pop(0)
        if each in ("-h", "--help"):
            print(USAGE)
            sys.exit(0)
        option, equals, value = each.partition("=")
        if option == "--format":
            value = value if equals else rest.pop(0) if rest else ""
            if value not in ("text", "words"):
                sys.exit(f"--format is text or words, got {value!r}. Convert other formats, or use `structkd predict`.")
            words = value == "words"
        elif each == "--scores":
            scores = True
        elif each.startswith("-") and each != "-":
            sys.exit(f"There is no option {each}.\n{USAGE}")
        else:
            names.append(each)
    if len(names) > 1:
        sys.exit(f"One FILE is read, got {len(names)}: {' '.join(names)}.\n{USAGE}")
    if not names and sys.stdin.isatty():
        sys.exit(USAGE)
    return names[0] if names else "-", scores, words


def main(arguments):
    """Print the annotation of a file's sentences, one JSON object a line."""
    name, scores, words = _options(arguments)
    if name != "-" and not os.path.exists(name):
        sys.exit(f"{name}: No such file.")
    if os.path.isdir(name):
        sys.exit(f"{name} is a folder. Name a file.")
    try:
        model = load()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    shown = "The standard input" if name == "-" else name
    try:
        # The encoding of the standard input goes by the environment; text is UTF-8.
        binary = sys.stdin.buffer if name == "-" else open(name, "rb")  # noqa: SIM115
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as file:
            for result in model._stream(_of_file(model, file, shown, words), 32, scores):
                _print(_json(result))
        _print("", end="", flush=True)
    except BrokenPipeError:  # nobody reads the output any more, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UnicodeDecodeError as error:
        remedy = f"iconv -f latin1 -t utf-8 {shlex.quote(name)}" if name != "-" else "iconv -f latin1 -t utf-8"
        sys.exit(f"{shown} is not UTF-8 ({error.reason}). If it is in Latin-1: {remedy}")
    except ValueError as error:  # a sentence that the model cannot take
        sys.exit(f"{shown}: {error}")
    except OSError as error:
        sys.exit(f"{shown} cannot be read ({error.strerror or error}).")


if __name__ == "__main__":
    main(sys.argv[1:])
