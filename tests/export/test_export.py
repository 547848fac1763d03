"""Exported folders annotate as the models do, and need numpy and onnxruntime alone."""

import copy
import itertools
import json
import math
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from stand_ins import small_bert

from structkd.data import TagAnnotation, TreeAnnotation, legal_transitions
from structkd.distributions.kernels.arborescence import maximum_arborescence
from structkd.files import read_manifest
from structkd.models import (
    BiLSTMRecipe,
    HeadLabelerRecipe,
    SpanRecipe,
    StackedRecipe,
    TaggerRecipe,
    TransformerRecipe,
)

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

from structkd.export import annotate, export  # noqa: E402

SMALL = {"word_size": 4, "character_size": 3, "character_filters": 3, "hidden_size": 3}
ENCODER = BiLSTMRecipe(**SMALL, layers=1)
WORDS = [["Ana", "runs", "home"], ["Ben"], ["Cy", "sees", "Ana", "run"], ["so", "be", "it", "\u00c4b\u0130", "n\u00b0"]]
TREES = {
    "heads": [[2, 0, 2], [0], [2, 0, 2, 3], [3, 3, 0, 3, 4]],
    "relations": [[1, 0, 2], [0], [1, 0, 2, 1], [2, 1, 0, 1, 2]],
    "upos": [["N", "V", "N"], ["N"], ["N", "V", "N", "V"], ["X", "V", "N", "N", "X"]],
}
TEXT = Dataset.from_dict({"tokens": WORDS, **TREES})
TREE = TreeAnnotation(("root", "subj", "obj"))
SPANS = TagAnnotation.of_spans(["P", "L"], "BIO")


def stacked(folder: Path) -> StackedRecipe:
    parts = {"subwords": TransformerRecipe(name=str(folder)), "words": BiLSTMRecipe(**SMALL, layers=0)}
    return StackedRecipe(parts=parts, hidden_size=3, layers=1)


RECIPES = {
    **{
        f"{head}-{scheme}": (
            lambda _, head=head: TaggerRecipe(encoder=ENCODER, head=head),
            TagAnnotation.of_spans(["P", "L"], scheme),
        )
        for head in ("crf", "maxent")
        for scheme in ("BIO", "BIOES")
    },
    "upos": (
        lambda _: TaggerRecipe(encoder=BiLSTMRecipe(**SMALL, layers=2, character_window=5, lowercase=False)),
        TagAnnotation(("N", "V")),
    ),
    "legal crf": (lambda _: TaggerRecipe(encoder=ENCODER, legal=True, transition_scale=3.0), SPANS),
    "legal maxent": (lambda _: TaggerRecipe(encoder=ENCODER, head="maxent", legal=True), SPANS),
    "no characters": (
        lambda _: TaggerRecipe(encoder=BiLSTMRecipe(**SMALL | {"character_filters": 0}, layers=1)),
        SPANS,
    ),
    "offsets": (lambda _: HeadLabelerRecipe(encoder=ENCODER), TREE),
    "roots": (lambda _: HeadLabelerRecipe(encoder=ENCODER), TreeAnnotation(TREE.relations, multiroot=True)),
    "heads alone": (lambda _: HeadLabelerRecipe(encoder=ENCODER, relations=False), TREE),
    "positions": (lambda _: HeadLabelerRecipe(encoder=ENCODER, encoding="absolute_position"), TREE),
    "parts of speech": (lambda _: HeadLabelerRecipe(encoder=ENCODER, encoding="relative_pos"), TREE),
    "first subword": (lambda bert: TaggerRecipe(encoder=TransformerRecipe(name=str(bert))), SPANS),
    "mean of subwords": (
        lambda bert: TaggerRecipe(
            encoder=TransformerRecipe(name=str(bert), pooling="mean", long_sentences="split", limit=12)
        ),
        SPANS,
    ),
    "stacked": (lambda bert: TaggerRecipe(encoder=stacked(bert), head="maxent"), SPANS),
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return small_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, bert):
    """Models by name, each with its exported form; made when they are asked for."""
    made = {}

    def get(name):
        if name not in made:
            recipe, annotation = RECIPES[name]
            with torch.random.fork_rng():
                torch.manual_seed(3)
                model = recipe(bert).create(annotation, TEXT, TEXT).eval()
                for key, weight in model.named_parameters():
                    if "backbone" not in key:
                        weight.data.normal_(std=0.8)
                for module in model.modules():
                    if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                        module.weight.data[module.padding_idx] = 0.0
            folder = export(model, tmp_path_factory.mktemp("exported") / "model")
            made[name] = model, annotate.load(folder), folder
        return made[name]

    return get


def sentences(count, longest, seed=0):
    """Random sentences of words that are known, unknown, long, or of one character."""
    draw = random.Random(seed)
    words = [word for sentence in WORDS for word in sentence] + [
        "ANA",
        "\u03a3x\u03a3",
        "z" * 40,
        "\u4f60",
        "[SEP]",
        "-",
    ]
    lengths = [1, 1, *(draw.randint(1, longest) for _ in range(count - 2))]
    return [[draw.choice(words) for _ in range(length)] for length in lengths]


def same(found, expected):
    """Plain data are equal, numbers to 1e-4."""
    if isinstance(expected, float):
        return math.isclose(found, expected, abs_tol=1e-4)
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected


@pytest.mark.parametrize("name", RECIPES)
def test_annotates_as_the_model_does(name, exported) -> None:
    model, runner, _ = exported(name)
    given = [*sentences(40, 12), [], *sentences(3, 60, seed=1)]
    if name == "first subword":
        given = [sentence for sentence in given if len(sentence) < 30]
    if name == "parts of speech":
        from structkd.sentences import Sentence

        draw = random.Random(2)
        upos = [[draw.choice("NVX") for _ in sentence] for sentence in given]
        expected = model.annotate(
            [Sentence(*pair, upos=tags) for *pair, tags in zip(given, upos, strict=True)], scores=True
        )
        given = [{"words": words, "upos": tags} for words, tags in zip(given, upos, strict=True)]
    else:
        expected = model.annotate(given, scores=True)
        text = "Ana sees Ben. He runs!\nSo be it: \u201cBen\u201d"
        assert same(runner.annotate(text), model.annotate(text))
        assert same(runner.annotate([text, ""]), model.annotate([text, ""]))
    for result in expected:
        del result["log_prob"]
    for size in (1, 7):
        assert same(runner.annotate(given, batch_size=size, scores=True), expected)
    plain = [{key: value for key, value in result.items() if "scores" not in key} for result in expected]
    for result in plain:
        for span in result.get("spans", []):
            del span["score"]
    assert runner.annotate(given) == plain


def test_the_folder_stands_alone(exported, tmp_path) -> None:
    """A process that never loads torch, structkd or tokenizers prints what the model says of a file."""
    model, _, folder = exported("crf-BIOES")
    text = "Ana sees Ben. He runs!\r\n\nSo be it \U0001f600\nCy\n"
    (tmp_path / "text.txt").write_text(text, encoding="utf-8", newline="")
    code = (
        "import sys; folder = sys.argv.pop(1); sys.path.insert(0, folder); import annotate; "
        "annotate.main(sys.argv[1:]); print({'torch', 'structkd', 'tokenizers'} & set(sys.modules))"
    )
    command = [sys.executable, "-I", "-c", code, str(folder), "--scores", "text.txt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", check=True)
    *lines, loaded = done.stdout.splitlines()
    expected = model.annotate(text, scores=True)
    for result in expected:
        del result["log_prob"]
    assert same([json.loads(line) for line in lines], expected)
    assert loaded == "set()"
    manifest = read_manifest(folder)
    names = {"README.md", "annotate.py", "characters.npy", "model.onnx", "tables.json", "words.npy"}
    assert set(manifest["files"]) == names


def called(capfd, *arguments):
    """Call the command of an exported folder; return its status or message, and its lines."""
    status = 0
    try:
        annotate.main(list(arguments))
    except SystemExit as end:
        status = end.code
    return status, capfd.readouterr().out.splitlines()


def test_the_command_of_a_folder(exported, tmp_path, monkeypatch, capfd) -> None:
    """Words by white space, the standard input, harmless output, and a sentence for what cannot be read."""
    _, runner, _ = exported("crf-BIO")
    original = annotate.load
    monkeypatch.setattr(annotate, "load", lambda: runner)
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("Ana isn't\x9b2J home. So\u202e be\n\nBen\n", encoding="utf-8-sig")
    expected = runner.annotate([["Ana", "isn't\x9b2J", "home.", "So\u202e", "be"], [], ["Ben"]])
    for arguments in (["--format", "words", "a.txt"], ["--format=words"], ["--format=words", "-"]):
        with open("a.txt", encoding="ascii") as given:  # the command reads UTF-8, whatever the environment says
            monkeypatch.setattr("sys.stdin", given)
            status, lines = called(capfd, *arguments)
        assert status == 0
        assert all(line.isprintable() for line in lines)
        assert "\\u009b" in lines[0]
        found = [json.loads(line) for line in lines]
        assert [(each["words"], each["tags"]) for each in found] == [(each["words"], each["tags"]) for each in expected]
    assert len(called(capfd, "a.txt")[1]) == 3
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    Path("binary.txt").write_bytes(b"PK\0\3")
    for arguments, message in (
        (["none.txt"], "none.txt: No such file."),
        (["."], ". is a folder. Name a file."),
        (["latin.txt"], "latin.txt is not UTF-8 (invalid continuation byte). If it is in Latin-1: iconv -f latin1"),
        (["binary.txt"], "binary.txt is not a text file: it has a zero byte."),
        (["--scroes", "a.txt"], "There is no option --scroes.\nusage:"),
        (["--format", "columns", "a.txt"], "--format is text or words, got 'columns'."),
        (["a.txt", "b.txt"], "One FILE is read, got 2: a.txt b.txt."),
    ):
        status, lines = called(capfd, *arguments)
        assert str(status).startswith(message)
        assert lines == []
    assert called(capfd, "--help")[0] == 0
    monkeypatch.setattr(annotate, "load", lambda: original(tmp_path))
    assert str(called(capfd, "a.txt")[0]).startswith(f"{tmp_path} has no tables.json. Name a folder")


def test_the_readme_begins_with_the_folder(exported, tmp_path) -> None:
    """The Python that it prints works as it stands, and nothing in it loads the folder by structkd."""
    model, _, _ = exported("crf-BIO")
    model.save_pretrained(tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "structkd.load" in card
    text = (export(model, tmp_path / "small", card=card) / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\n")
    front, _, rest = text.removeprefix("---\n").partition("---\n")
    assert "library_name: structkd" in front
    assert rest.lstrip().startswith("# This folder\n")
    assert "structkd.load" not in text
    assert "structkd predict path" not in text
    assert "| parameters |" in text
    assert "from small.annotate import load" in text
    about = (export(model, tmp_path / "v-2") / "README.md").read_text(encoding="utf-8")
    assert "in the folder that holds it, renamed to `exported`:" in about


def test_an_export_tells_what_the_training_recorded(exported, tmp_path) -> None:
    """The card and the licence of the data come with the model, unless others are given."""
    model, _, _ = exported("maxent-BIO")
    data = {"name": "mine", "licence": "CC BY 4.0", "source": "my desk"}
    card = (export(model, tmp_path / "told") / "README.md").read_text(encoding="utf-8")
    assert "| parameters |" in card
    assert not (tmp_path / "told" / "LICENSE.txt").exists()
    try:
        model.about = {"run": {"data": data}}
        folder = export(model, tmp_path / "licensed", card="")
        own = export(model, tmp_path / "own", card="", licence="none")
    finally:
        model.about = {}
    licence = (folder / "LICENSE.txt").read_text(encoding="utf-8")
    assert licence == "The model was trained on mine (my desk).\nLicence of these data: CC BY 4.0\n"
    assert "| parameters |" not in (folder / "README.md").read_text(encoding="utf-8")
    assert (own / "LICENSE.txt").read_text(encoding="utf-8") == "none"


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_models_of_other_precision(kind, exported, tmp_path) -> None:
    """A model of 16 or 64 bits is exported with 32, and stays as it is."""
    model, _, _ = exported("offsets")
    other = copy.deepcopy(model).to(kind)
    runner = annotate.load(export(other, tmp_path / "other"))
    assert other.dtype == kind
    given = sentences(12, 6)
    assert same(runner.annotate(given), other.float().annotate(given))


def test_kept_words_change_nothing_and_are_few(exported, monkeypatch) -> None:
    """A text of many or of very long words is annotated in constant memory, with the same tags."""
    _, runner, folder = exported("crf-BIO")
    text = [["Ana", "sees", "x" * 300], ["Ben", "y" * 300, "sings"], ["Ana", "z" * 300, "Ben", "sees"]] * 2
    expected = runner.annotate(text, batch_size=1)
    monkeypatch.setattr(annotate, "KEPT_CHARACTERS", 250)
    runner = annotate.load(folder)
    for sentence, found in zip(text, expected, strict=True):
        assert runner.annotate([sentence]) == [found]
        assert sum(map(len, runner.features.kept)) == runner.features.kept.characters < 700
    # Three words are kept, and a sentence of more is annotated all the same.
    monkeypatch.setattr(annotate, "KEPT_CHARACTERS", 10**6)
    monkeypatch.setattr(annotate, "KEPT_NUMBERS", 3 * runner.features.size + 1)
    monkeypatch.setattr(annotate, "READ_WORDS", 2)
    runner = annotate.load(folder)
    for sentence, found in zip(text, expected, strict=True):
        assert runner.annotate([sentence]) == [found]
        assert len(runner.features.kept) <= 4


def test_threads_learn_words_together(exported) -> None:
    """Threads that meet the same new words at once give the tags of one thread."""
    _, _, folder = exported("crf-BIO")
    text = [[f"word{number % 97}", f"thing{number % 89}", "sees"] for number in range(300)]
    expected = annotate.load(folder).annotate(text, batch_size=1, scores=True)
    runner = annotate.load(folder)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: runner.annotate(text, batch_size=1, scores=True), range(8)):
            assert same(found, expected)


@pytest.mark.parametrize("scheme", ["BIO", "BIOES"])
def test_best_legal_tags_by_windows(scheme) -> None:
    """Tags that are mended where they are illegal are those that a search of the whole sentence finds."""
    labels = ["O", *(f"{kind}-{name}" for name in ("PER", "LOC", "ORG") for kind in scheme if kind != "O")]
    masks = legal_transitions(labels)
    legal = {name: mask.int().tolist() for name, mask in zip(("start", "transitions", "end"), masks, strict=True)}
    task = annotate._Tags({"labels": labels, "spans": True, "chain": None, "legal": legal, "conditioned": False})
    draw = np.random.default_rng(0)
    mended = 0
    for number in range(600):
        # Words that are hardly sure of a tag, and words that are.
        sure = draw.choice([0.5, 2.0, 8.0], size=(1 + number % 23, 1))
        emissions = (draw.normal(size=(len(sure), len(labels))) * sure).astype(np.float32)
        expected = annotate.viterbi(emissions, *task.best)
        mended += (expected != emissions.argmax(1)).any()
        assert task.best_legal(emissions).tolist() == expected.tolist()
    assert mended > 400


def test_windows_search_no_more_than_the_sentence_costs(monkeypatch) -> None:
    """If most tags are illegal, or one is that only a long window mends, the whole sentence is searched once."""
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    masks = legal_transitions(labels)
    legal = {name: mask.int().tolist() for name, mask in zip(("start", "transitions", "end"), masks, strict=True)}
    task = annotate._Tags({"labels": labels, "spans": True, "chain": None, "legal": legal, "conditioned": False})
    searched, search = [], annotate.viterbi

    def counting(emissions, *scores):
        searched.append(len(emissions))
        return search(emissions, *scores)

    monkeypatch.setattr(annotate, "viterbi", counting)
    unsure = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32)
    inside = np.tile(np.array([-30.0, -30.0, 1.0, 0.0, 0.999], np.float32), (500, 1))
    for emissions in (unsure, inside):
        searched.clear()
        assert task.best_legal(emissions).tolist() == search(emissions, *task.best).tolist()
        assert sum(searched) <= 3 * len(emissions)


def test_best_trees_by_enumeration() -> None:
    """The search finds the best tree, with one root or several, and few impossible arcs if it must."""
    draw = np.random.default_rng(0)
    for number in range(150):
        words = 1 + number % 4
        arcs = draw.normal(size=(words, words)).round(1)
        arcs[draw.random((words, words)) < draw.choice([0, 0.3, 0.6])] = -math.inf
        trees = [
            heads
            for heads in itertools.product(range(words), repeat=words)
            if all(_reaches_root(heads, word) for word in range(words))
        ]
        for multiroot in (False, True):
            allowed = [heads for heads in trees if multiroot or sum(h == w for w, h in enumerate(heads)) == 1]

            def value(heads, arcs=arcs):
                taken = [arcs[word, head] for word, head in enumerate(heads)]
                return -sum(score == -math.inf for score in taken), sum(s for s in taken if s > -math.inf)

            found = annotate.best_tree(arcs, multiroot)
            assert tuple(found) in allowed
            impossible, score = value(found)
            best = max(map(value, allowed))
            assert impossible == best[0]
            assert math.isclose(score, best[1], abs_tol=1e-9)
            powers = np.exp(arcs)
            found = annotate.likeliest_tree(powers, multiroot)
            if found is None:  # only if a tree needs an impossible arc
                assert impossible < 0
            else:
                assert tuple(found) in allowed
                assert value(found) == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("multiroot", [False, True])
def test_best_trees_of_long_sentences_are_the_librarys(multiroot: bool) -> None:
    """Sentences of up to 40 words with cycles inside cycles, many words that would be a root, or few wrong arcs."""
    draw, compared = np.random.default_rng(1), 0
    for number in range(80):
        words = 5 + number % 36
        arcs = draw.normal(size=(words, words)) * draw.choice([0.1, 1.0, 5.0])
        arcs[range(words), range(words)] += draw.choice([-5.0, 0.0, 5.0])
        arcs[draw.random((words, words)) < draw.choice([0, 0.5])] = -math.inf
        if number % 2:
            arcs[range(words), [draw.integers(max(word, 1)) for word in range(words)]] += draw.choice([2.0, 5.0])
        expected = maximum_arborescence(arcs.T, single_root=not multiroot)
        if expected is not None:
            compared += 1
            assert annotate.best_tree(arcs, multiroot) == expected.tolist()
            powers = np.exp(arcs)
            found = annotate.likeliest_tree(powers, multiroot)
            if found is None:  # only if the tree is far less likely than the best heads of all words
                assert arcs.max(1).sum() - arcs[range(words), expected].sum() >= annotate.MOST_LOSS
            else:
                assert found == expected.tolist()
    assert compared > 60


def _random_arcs(draw, words):
    """Logarithms of probabilities of arcs [N, N]: sure or unsure, with roots or without, with cycles in cycles."""
    arcs = draw.normal(size=(words, words)) * draw.choice([0.1, 1.0, 5.0])
    arcs[range(words), range(words)] += draw.choice([-5.0, 0.0, 5.0])
    arcs[draw.random((words, words)) < draw.choice([0, 0.5])] = -math.inf
    if draw.random() < 0.7:
        arcs[range(words), [draw.integers(max(word, 1)) for word in range(words)]] += draw.choice([2.0, 5.0])
    return arcs


def _probabilities(arcs):
    with np.errstate(invalid="ignore"):
        powers = np.exp(arcs - arcs.max(1, keepdims=True))
        return np.nan_to_num(powers / powers.sum(1, keepdims=True)).astype(np.float32)


def test_trees_of_many_sentences_are_those_of_each() -> None:
    """Trees that are searched together are the best ones; what is hard is left to the search of a sentence alone."""
    draw, decided, compared = np.random.default_rng(2), 0, 0
    for number in range(60):
        lengths = [1 + int(draw.integers(40 if number % 2 else 4)) for _ in range(int(draw.integers(1, 12)))]
        arcs = [_probabilities(_random_arcs(draw, words)) for words in lengths]
        symbols, namings = _named(arcs, draw)
        kept = symbols.copy()
        found = annotate.likeliest_trees(symbols, namings, lengths, root=3)
        assert np.array_equal(symbols, kept)
        with np.errstate(divide="ignore"):
            for own, tree in zip(arcs, found, strict=True):
                compared += 1
                best = annotate.best_tree(np.log(own, dtype=np.float64), False)
                if tree is not None:
                    decided += 1
                    assert tree == best
                assert annotate.likeliest_tree(own, False) in (None, best)
    assert decided > 0.6 * compared


def test_probabilities_that_are_too_small_decide_nothing() -> None:
    """Trees are right, or left to a search by logarithms, where 32 bits do not hold what decides."""
    draw, decided = np.random.default_rng(3), 0
    for _ in range(400):
        arcs = []
        for _ in range(3):
            words = int(draw.integers(2, 7))
            own = 10.0 ** draw.uniform(-18, -10, (words, words))
            own[np.arange(words), draw.permutation(words)] = 1.0
            arcs.append((own * 10.0 ** draw.uniform(-17, 0, (words, 1))).astype(np.float32))
        symbols, namings = _named(arcs, draw)
        found = annotate.likeliest_trees(symbols, namings, list(map(len, arcs)), root=3)
        for own, tree in zip(arcs, found, strict=True):
            logs = np.log(own, dtype=np.float64)
            best = annotate.best_tree(logs, False)
            for heads in (tree, annotate.likeliest_tree(own, False)):
                if heads is not None:
                    decided += 1
                    gap = logs[range(len(own)), best].sum() - logs[range(len(own)), heads].sum()
                    assert gap == pytest.approx(0.0, abs=1e-6)
    assert decided > 300


@pytest.mark.parametrize("count", [1, annotate.MANY - 1, annotate.MANY, annotate.MANY + 1])
def test_many_trees_are_searched_together(count, exported, monkeypatch) -> None:
    """The trees of a batch are those of its sentences, on both sides of the number from which they are many."""
    _, runner, _ = exported("offsets")
    given = [*sentences(count + 2, 9, seed=count)[2:], ["so", "be"] * 150]
    expected = runner.annotate(given, batch_size=1, scores=True)
    calls, search = [], annotate.likeliest_trees

    def counting(symbols, namings, lengths, root):
        calls.append(len(lengths))
        return search(symbols, namings, lengths, root)

    monkeypatch.setattr(annotate, "likeliest_trees", counting)
    assert same(runner.annotate(given, batch_size=100, scores=True), expected)
    assert calls == ([count] if count >= annotate.MANY else [])
    assert len(runner.task.kept.symbols) <= annotate.KEPT_LENGTH


def test_groups_are_bounded(monkeypatch) -> None:
    """A long sentence stands alone, and a group has few words."""
    monkeypatch.setattr(annotate, "KEPT_LENGTH", 5)
    monkeypatch.setattr(annotate, "GROUP_WORDS", 8)

    def groups(lengths):
        found = annotate._groups([{"words": ["a"] * length} for length in lengths])
        return [[len(sentence["words"]) for sentence in group] for group in found]

    assert groups([]) == []
    assert groups([9]) == [[9]]
    assert groups([1, 2, 6, 3, 5, 1, 1, 1, 5, 7, 7, 1]) == [[1, 2], [6], [3, 5], [1, 1, 1, 5], [7], [7], [1]]


@pytest.mark.parametrize("name", ["crf-BIO", "upos", "offsets", "parts of speech", "mean of subwords", "stacked"])
def test_networks_of_int8_are_those_of_the_model_but_for_bits(name, exported, tmp_path, monkeypatch) -> None:
    """They read each sentence in a row of its own; with the weights left as they are, they give the model's results."""
    model, runner, _ = exported(name)
    given = [{"words": words, "upos": ["N", "V"] * len(words)} for words in sentences(40, 9, seed=6)]
    for sentence in given:
        sentence["upos"] = sentence["upos"][: len(sentence["words"])]
    expected = runner.annotate(given, scores=True)
    kind = "labels" if "tags" in expected[0] else "heads"
    gold = [
        {"labels": result["tags"]} if kind == "labels" else {key: result[key] for key in ("heads", "relations")}
        for result in expected
    ]
    dev = [{"tokens": one["words"], "upos": one["upos"], "gold": other} for one, other in zip(given, gold, strict=True)]
    for part in ("_quantize", "_quantize_words"):
        monkeypatch.setattr(f"structkd.export.folder.{part}", lambda *_: None)
    folder = export(model, tmp_path / "padded", int8=True, dev=dev)
    padded = annotate.load(folder)
    assert not padded.separated
    for size in (1, 7, 64):
        assert same(padded.annotate(given, batch_size=size, scores=True), expected)


def _named(arcs, draw):
    """Probabilities of 82 symbols for arcs of several sentences, and what names heads; symbol 3 is the root.

    Symbols stand for offsets, in an order drawn at random. They have probabilities where they name no word, too.
    """
    numbers = draw.permutation(np.delete(np.arange(81), 3))
    of_offset = dict(zip([*range(-40, 0), *range(1, 41)], numbers.tolist(), strict=True)) | {0: 3}
    symbols, namings = [], []
    for own in arcs:
        words = len(own)
        size = words + int(draw.integers(3))  # the naming of a longer sentence
        table = np.array([[of_offset.get(head - word, 81) for head in range(size)] for word in range(size)])
        shares = draw.random((words, 82)).astype(np.float32)
        shares[:, 81] = 0.0
        shares[np.arange(words)[:, None], table[:words, :words]] = own
        symbols.append(shares)
        namings.append(annotate._Naming(table, 81))
    return np.concatenate(symbols), namings


def test_numbers_that_are_none_leave_other_sentences_alone() -> None:
    """A sentence with NaN, and one without any head, decide nothing about their neighbours."""
    draw = np.random.default_rng(0)
    for words in (1, 2, 3, 9):
        arcs = [_probabilities(draw.normal(size=(words, words)) * 3) for _ in range(5)]
        symbols, namings = _named(arcs, draw)
        alone = annotate.likeliest_trees(symbols, namings, [words] * 5, root=3)
        symbols[words] = math.nan
        symbols[3 * words : 4 * words] = 0.0
        found = annotate.likeliest_trees(symbols, namings, [words] * 5, root=3)
        assert found == [alone[0], None, alone[2], None, alone[4]]


@pytest.mark.parametrize("separated", [True, False])
@pytest.mark.parametrize("lengths", [[3], [1, 1], [2, 9, 1, 4, 4, 1, 1, 3, 2], [1] * 100, [60, *[1] * 20]], ids=str)
def test_sentences_stand_apart_in_a_grid(lengths, separated) -> None:
    """Every word has a cell, words of a sentence follow each other in a row, and a cell without a word ends them."""
    cells, grid = annotate._grid(lengths, separated)
    words = sum(lengths)
    assert grid.ravel()[cells].tolist() == list(range(words))
    assert (grid == words).sum() + words == grid.size
    rows = grid.shape[1]
    begin = 0
    for length in lengths:
        places = cells[begin : begin + length]
        assert (np.diff(places) == rows).all()
        for beside in (places[0] - rows, places[-1] + rows):
            assert not 0 <= beside < grid.size or grid.ravel()[beside] == words
        begin += length
    assert grid.size <= 2 * (words + len(lengths)) if separated else grid.shape == (max(lengths), len(lengths))


def _reaches_root(heads, word) -> bool:
    for _ in heads:
        word = heads[word]
    return heads[word] == word


def test_scores_that_lie_far_apart(exported) -> None:
    """Labels whose probability no number can hold still decide which tree is the best."""
    model, runner, _ = exported("offsets")
    kept = model.label.weight.data.clone()
    try:
        model.label.weight.data *= 400
        network = runner.network

        def scores(given):
            logits = network(given)[0] * 0 + _logits(model, runner, given)
            shares = np.exp(logits - logits.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            symbols = np.add.reduceat(shares, runner.task.begins, axis=1)
            assert (symbols == 0).any()
            return [logits, np.concatenate([symbols, symbols[:, :1] * 0], 1)]

        runner.network = scores
        given = sentences(30, 8, seed=5)
        for found, expected in zip(runner.annotate(given), model.annotate(given), strict=True):
            assert found == expected
    finally:
        model.label.weight.data = kept
        del runner.network


def _logits(model, runner, given):
    """The model's scores of labels of all words, in the order of the exported ones."""
    with torch.no_grad():
        logits = model(**model.encode([{"tokens": words} for words in given])).logits.numpy()
    place = {symbol: number for number, symbol in enumerate(model.config.symbols)}
    order = sorted(range(logits.shape[-1]), key=lambda label: (place[model.config.labels[label][0]], label))
    return np.concatenate([row[: len(words), order] for row, words in zip(logits, given, strict=True)])


@pytest.mark.parametrize("name", ["crf-BIO", "legal crf", "crf-BIOES", "maxent-BIOES", "upos", "no characters"])
def test_strings_in_and_tags_out(name, exported, tmp_path) -> None:
    """One file maps words to tags, alone; a capital sigma at the end of a word aside."""
    model, _, _ = exported(name)
    folder = export(model, tmp_path / name, single_file=True)
    session = onnxruntime.InferenceSession(folder / "strings.onnx", providers=["CPUExecutionProvider"])
    given = [*sentences(60, 9, seed=4), ["\u0130stanbul", "\u00c4b\u0130", "\u00c4B\u0130", "x" * 30, "\U0001f600"]]
    given = [[word.replace("\u03a3x\u03a3", "\u03a3x") for word in sentence] for sentence in given]
    for sentence, expected in zip(given, model.annotate(given), strict=True):
        assert session.run(None, {"words": np.array(sentence, object)})[0].tolist() == expected["tags"]
    assert "strings.onnx" in (folder / "README.md").read_text(encoding="utf-8")


def test_int8_is_compared_on_dev(exported, tmp_path, monkeypatch) -> None:
    model, _, _ = exported("maxent-BIO")
    dev = [{"tokens": each["words"], "gold": {"labels": each["tags"]}} for each in model.annotate(sentences(30, 9))]
    monkeypatch.setattr("structkd.export.folder.LARGEST_LOSS", 100.0)
    small = export(model, tmp_path / "small", int8=True, dev=dev)
    figures = read_manifest(small)["export"]["int8"]
    weights = onnx.load(small / "model.onnx").graph.initializer
    large = [each.name for each in weights if each.data_type == onnx.TensorProto.FLOAT and math.prod(each.dims) > 60]
    assert large == []
    found = annotate.load(small).annotate([each["tokens"] for each in dev])
    right = sum(one["tags"] == other["gold"]["labels"] for one, other in zip(found, dev, strict=True))
    assert right >= 0.5 * len(dev)
    assert figures["metric"] == "f1"
    assert figures["float32"] == 1.0
    assert figures["int8"] >= 0.5
    monkeypatch.setattr("structkd.export.folder.LARGEST_LOSS", -1.0)
    with pytest.raises(ValueError, match=r"int8 loses .* points of f1 on 30 development sentences"):
        export(model, tmp_path / "refused", int8=True, dev=dev)
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize("sharp", [1.0, 40.0])
def test_int8_sums_probabilities_in_32_bits(exported, tmp_path, monkeypatch, sharp) -> None:
    """Trees are found by probabilities, of which 8 bits would leave few."""
    model, _, _ = exported("offsets")
    monkeypatch.setattr("structkd.export.folder.LARGEST_LOSS", 100.0)
    kept = model.label.weight.data.clone()
    try:
        model.label.weight.data *= sharp
        text = sentences(20, 8, seed=2)
        dev = [
            {"tokens": result["words"], "gold": {"heads": result["heads"], "relations": result["relations"]}}
            for result in model.annotate(text)
        ]
        folder = export(model, tmp_path / "small", int8=True, dev=dev)
    finally:
        model.label.weight.data = kept
    runner = annotate.load(folder)
    logits, symbols = runner.network([dev[0]["tokens"]])
    shares = np.exp(logits - logits.max(1, keepdims=True), dtype=np.float64)
    expected = np.add.reduceat(shares / shares.sum(1, keepdims=True), runner.task.begins, axis=1)
    assert np.allclose(symbols[..., :-1], expected, rtol=1e-4, atol=1e-30)


def test_what_cannot_be_exported_is_refused(exported, tmp_path) -> None:
    model, runner, folder = exported("maxent-BIO")
    spans = SpanRecipe(encoder=ENCODER, size=3).create(SPANS, TEXT, TEXT)
    with pytest.raises(NotImplementedError, match="SpanModel cannot be exported: taggers and head labelers can"):
        export(spans, tmp_path / "spans")
    with pytest.raises(ValueError, match=r"int8 needs annotated sentences .* --dev FILE"):
        export(model, tmp_path / "int8", int8=True)
    with pytest.raises(NotImplementedError, match="this is a HeadLabeler on a BiLSTMEncoder"):
        export(exported("offsets")[0], tmp_path / "single", single_file=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else than an exported model"):
        export(model, tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(FileNotFoundError, match=r"has no tables\.json"):
        annotate.load(tmp_path / "mine")
    for given, message in ((b"Ana", "got bytes"), ([["Ana", 3]], "Sentence 0 .* must be a text or a list of words")):
        with pytest.raises(TypeError, match=message):
            runner.annotate(given)
    with pytest.raises(ValueError, match="position 2, a half of a surrogate pair"):
        runner.annotate("a \ud800")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        runner.annotate(["a"], batch_size=0)
    with pytest.raises(ValueError, match="reads parts of speech"):
        exported("parts of speech")[1].annotate([["Ana"]])
    with pytest.raises(ValueError, match="has 600 subwords; the model takes 510 at once"):
        exported("first subword")[1].annotate([["-"] * 600])
    tables = json.loads((folder / "tables.json").read_text(encoding="utf-8"))
    (tmp_path / "tables.json").write_text(json.dumps(tables | {"format": 9}))
    (tmp_path / "model.onnx").touch()
    with pytest.raises(ValueError, match=r"has format 9; this annotate\.py reads format 2"):
        annotate.load(tmp_path)
