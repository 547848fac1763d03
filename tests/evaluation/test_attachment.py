"""UAS and LAS against the official scorer of the CoNLL 2018 shared task, on gold tokens."""

import gzip
import importlib.util
import io
import os
import random
from pathlib import Path
from types import ModuleType

import pytest

from structkd.data import PackageFile, TreeAnnotation, cached_package_file
from structkd.data.formats.conllu import read_conllu
from structkd.evaluation import compute_metrics, counts

RELATIONS = (
    "root", "nsubj", "nsubj:pass", "nsubj:outer", "obj", "punct", "aux", "aux:pass", "acl", "acl:relcl", "flat", "dep",
)  # fmt: skip
Tree = dict[str, list[int]]


# The script of the shared task (MPL 2.0), as a package of the index carries it; nothing of the package is installed.
SCORER = PackageFile(
    requirement="stanza==1.3.0",
    wheel_sha256="2508642043470d7c80fb646c46fee8cc85ba9170e099b93a4226e0b3037faf2b",
    member="stanza/utils/conll18_ud_eval.py",
    member_sha256="e4cbacb234bb9b538f88d0e94e225aa66882ab363bf22e666c9b49a0fa7f72a8",
    megabytes=1,
)


@pytest.fixture(scope="module")
def scorer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("conll18_ud_eval", cached_package_file(SCORER))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_tree(generator: random.Random, words: int, relations: int) -> Tree:
    """Any tree with one root, crossing arcs included: every word in a random order hangs from an earlier one."""
    order = generator.sample(range(1, words + 1), words)
    heads = [0] * words
    for place, word in enumerate(order[1:], 1):
        heads[word - 1] = generator.choice(order[:place])
    return {"heads": heads, "relations": [generator.randrange(relations) for _ in range(words)]}


def perturbed(generator: random.Random, tree: Tree, relations: int) -> Tree:
    """Mostly the same tree: a share of the relations drawn anew, and leaves moved to where they make no cycle."""
    heads = list(tree["heads"])
    for word in range(1, len(heads) + 1):
        if heads[word - 1] and word not in heads and generator.random() < 0.4:
            heads[word - 1] = generator.choice([head for head in range(1, len(heads) + 1) if head != word])
    drawn = [generator.randrange(relations) if generator.random() < 0.4 else one for one in tree["relations"]]
    return {"heads": heads, "relations": drawn}


def conllu(trees: list[Tree], relations: tuple[str, ...]) -> io.StringIO:
    lines = []
    for tree in trees:
        for word, (head, relation) in enumerate(zip(tree["heads"], tree["relations"], strict=True), 1):
            lines.append(f"{word}\tw{word}\t_\tX\t_\t_\t{head}\t{relations[relation]}\t_\t_")
        lines.append("")
    return io.StringIO("\n".join(lines) + "\n")


def official(scorer: ModuleType, gold: list[Tree], predicted: list[Tree], relations: tuple[str, ...]) -> dict:
    both = [scorer.load_conllu(conllu(trees, relations)) for trees in (gold, predicted)]
    return scorer.evaluate(*both)


def test_single_sentences_are_the_official_scorers(scorer: ModuleType) -> None:
    """Counts, sentence by sentence; one-word sentences, subtypes and crossing arcs among them."""
    generator = random.Random(5)
    annotation = TreeAnnotation(RELATIONS)
    gold, predicted = [], []
    for _ in range(3000):
        tree = random_tree(generator, generator.choice([1, 2, 3, 5, 9, 14]), len(RELATIONS))
        gold.append(tree)
        unrelated = generator.random() < 0.3
        predicted.append(
            random_tree(generator, len(tree["heads"]), len(RELATIONS))
            if unrelated
            else perturbed(generator, tree, len(RELATIONS))
        )
    found = counts(annotation, gold, predicted)
    seen = set()
    for number, (truth, guess) in enumerate(zip(gold, predicted, strict=True)):
        wanted = official(scorer, [truth], [guess], RELATIONS)
        for name in ("las", "uas"):
            score = wanted[name.upper()]
            assert found[name][number].tolist() == [score.correct, score.system_total, score.gold_total]
            seen.add((name, score.correct == score.gold_total))
    assert len(seen) == 4, "the cases include perfect and imperfect ones"


def test_figures_of_texts_are_the_official_scorers(scorer: ModuleType) -> None:
    generator = random.Random(6)
    annotation = TreeAnnotation(RELATIONS)
    for _ in range(150):
        gold = [
            random_tree(generator, generator.randint(1, 12), len(RELATIONS)) for _ in range(generator.randint(1, 8))
        ]
        predicted = [perturbed(generator, tree, len(RELATIONS)) for tree in gold]
        wanted = official(scorer, gold, predicted, RELATIONS)
        assert compute_metrics(counts(annotation, gold, predicted)) == pytest.approx(
            {"las": wanted["LAS"].f1, "uas": wanted["UAS"].f1}, abs=1e-12
        )


def test_a_treebank_with_punctuation_and_subtypes(scorer: ModuleType) -> None:
    """The file itself, multiword tokens and comments included, with heads and relations replaced."""
    root = os.environ.get("STRUCTKD_DATA")
    if root is None:
        pytest.skip("STRUCTKD_DATA is not set: no treebank to read")
    path = Path(root) / "ud_ewt" / "en_ewt-ud-dev.conllu.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    assert all(f"\t{relation}\t" in text for relation in ("nsubj:pass", "punct"))
    index: dict[str, int] = {}
    gold = [
        {"heads": list(each.heads), "relations": [index.setdefault(name, len(index)) for name in each.relations]}
        for each in read_conllu(path)
    ]
    relations = tuple(index)
    generator = random.Random(7)
    predicted = [perturbed(generator, tree, len(relations)) for tree in gold]
    values = iter([pair for tree in predicted for pair in zip(tree["heads"], tree["relations"], strict=True)])
    lines = []
    for line in text.splitlines():
        columns = line.split("\t")
        if columns[0].isdigit():
            head, relation = next(values)
            columns[6:8] = str(head), relations[relation]
        lines.append("\t".join(columns))
    both = [scorer.load_conllu(io.StringIO(content)) for content in (text, "\n".join(lines) + "\n")]
    wanted = scorer.evaluate(*both)
    found = counts(TreeAnnotation(relations), gold, predicted)
    for name in ("las", "uas"):
        score = wanted[name.upper()]
        assert found[name].sum(0).tolist() == [score.correct, score.system_total, score.gold_total]
        assert 0.4 < score.f1 < 0.9
