"""Decoding to dependency trees: maximum spanning arborescences over scores, and over the posteriors of labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from families import seeded
from oracles import is_single_root, is_tree, trees
from scipy.optimize import LinearConstraint, milp

import structkd
from structkd.distributions.kernels import eisner, head_labels
from structkd.distributions.kernels.arborescence import maximum_arborescence, maximum_arborescences
from structkd.distributions.kernels.engines import using
from structkd.distributions.semirings import Max

# -- maximum spanning arborescences -----------------------------------------------------------------------------------

root_modes = pytest.mark.parametrize("single_root", [True, False], ids=["single root", "multi root"])


def is_legal(heads: list[int], single_root: bool) -> bool:
    return is_tree(heads) and (not single_root or is_single_root(heads))


def score_of(scores: np.ndarray, heads: list[int]) -> float:
    return float(scores[heads, range(len(heads))].sum())


def random_scores(seed: int, n: int) -> np.ndarray:
    """Reals or small integers (ties), with some cells impossible, sometimes so many that there is no tree."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(n, n)) if seed % 3 else generator.integers(-2, 3, size=(n, n)).astype(float)
    scores[generator.random((n, n)) < (0.0, 0.3, 0.6, 0.8)[seed % 4]] = -np.inf
    return scores


@root_modes
def test_best_trees_are_those_of_enumeration(single_root: bool) -> None:
    """Alone and in ragged batches with rubbish in the padding."""
    outcomes = set()
    for start in range(0, 1200, 8):
        sentences = [random_scores(seed, 1 + seed % 5) for seed in range(start, start + 8)]
        batch = torch.full((8, 6, 6), math.nan, dtype=torch.float64)
        for item, scores in enumerate(sentences):
            batch[item, : len(scores), : len(scores)] = torch.from_numpy(scores)
        lengths = torch.tensor([len(scores) for scores in sentences])
        decoded = maximum_arborescences(batch, lengths, single_root)
        for item, scores in enumerate(sentences):
            n = len(scores)
            best = max(score_of(scores, list(heads)) for heads in trees(n, False, not single_root))
            together, alone = decoded[item].tolist(), maximum_arborescence(scores, single_root)
            assert together[n:] == [-1] * (6 - n)
            outcomes.add(best > -math.inf)
            if best == -math.inf:
                assert alone is None
                assert together[:n] == [-1] * n
                continue
            for heads in (together[:n], alone.tolist()):
                assert is_legal(heads, single_root)
                assert score_of(scores, heads) == pytest.approx(best, abs=1e-9)
    assert outcomes == {True, False}


def best_by_linear_programming(scores: np.ndarray, single_root: bool) -> float:
    """Score of the best tree as an integer programme: every word sinks one unit of a flow out of the root."""
    n = len(scores)
    nodes = range(n + 1)  # the root is n
    arcs = [(h, d) for h in nodes for d in range(n) if h != d]
    gain = np.array([scores[d, d] if h == n else scores[h, d] for h, d in arcs])
    count = len(arcs)
    rows, low, high = [], [], []
    for word in range(n):
        into, out = (np.array([float(arc[side] == word) for arc in arcs]) for side in (1, 0))
        rows += [np.concatenate([into, 0 * into]), np.concatenate([0 * into, into - out])]  # one head; one unit sunk
        low += [1, 1]
        high += [1, 1]
    for number in range(count):  # flow along chosen arcs only
        row = np.zeros(2 * count)
        row[number], row[count + number] = -n, 1
        rows.append(row)
        low.append(-np.inf)
        high.append(0)
    if single_root:
        rows.append(np.array([float(h == n) for h, _ in arcs] + [0.0] * count))
        low.append(1)
        high.append(1)
    found = milp(
        np.concatenate([-gain, np.zeros(count)]),
        integrality=np.repeat([1, 0], count),
        bounds=(0, np.repeat([1, n], count)),
        constraints=LinearConstraint(np.array(rows), low, high),
    )
    assert found.success
    return -found.fun


@root_modes
@pytest.mark.parametrize("words", [7, 12])
def test_best_trees_of_longer_sentences_are_those_of_an_integer_programme(words: int, single_root: bool) -> None:
    for seed in range(4):
        scores = np.random.default_rng(seed).normal(size=(words, words))
        scores[np.diag_indices(words)] += 0.7  # several roots pay
        if seed % 2:  # nested cycles: words in pairs, pairs in fours
            scores += 2.0 * (np.arange(words)[:, None] // 2 == np.arange(words) // 2)
            scores += 1.0 * (np.arange(words)[:, None] // 4 == np.arange(words) // 4)
        heads = maximum_arborescence(scores, single_root).tolist()
        assert is_legal(heads, single_root)
        assert score_of(scores, heads) == pytest.approx(best_by_linear_programming(scores, single_root), abs=1e-6)


@root_modes
def test_a_batch_of_long_sentences_is_decoded_as_one_by_one(single_root: bool) -> None:
    """Sentences whose best heads are trees already, and such as must be searched."""
    generator = seeded(3)
    scores = torch.randn(12, 40, 40, generator=generator, dtype=torch.float64)
    for item in range(0, 12, 2):
        order = torch.randperm(40, generator=generator).tolist()
        scores[item, order[0], order[0]] += 9
        for place, word in enumerate(order[1:], 1):
            scores[item, order[int(torch.randint(place, (1,), generator=generator))], word] += 9
    lengths = torch.tensor([40, 1, 33, 40, 2, 40, 17, 40, 39, 5, 40, 3])
    crf = structkd.NonProjectiveDependencyCRF(scores, lengths, multiroot=not single_root)
    decoded = crf.decode()
    for item, n in enumerate(lengths.tolist()):
        table = scores[item, :n, :n].numpy()
        expected = maximum_arborescence(table, single_root).tolist()
        assert decoded[item].tolist() == expected + [-1] * (40 - n)
        assert float(crf.max[item]) == pytest.approx(score_of(table, expected))


@root_modes
def test_trees_of_200_words_are_as_good_by_every_path(single_root: bool) -> None:
    """Many roots that pay, and cycles of cycles of cycles."""
    generator = np.random.default_rng(0)
    position = np.arange(200)
    scores = generator.normal(size=(3, 200, 200))
    for size in (2, 4, 8, 16):
        scores += 20.0 / size * (position[:, None] // size == position // size)
    scores[1, position, position] += 30.0
    scores[2, generator.random((200, 200)) < 0.9] = -np.inf
    lengths = torch.tensor([200, 200, 199])
    decoded = maximum_arborescences(torch.from_numpy(scores), lengths, single_root)
    with using("torch"):
        expected = maximum_arborescences(torch.from_numpy(scores), lengths, single_root)
    for table, n, mine, theirs in zip(scores, lengths.tolist(), decoded.tolist(), expected.tolist(), strict=True):
        assert is_legal(mine[:n], single_root)
        assert score_of(table[:n, :n], mine[:n]) == pytest.approx(score_of(table[:n, :n], theirs[:n]), rel=1e-12)


def test_one_root_even_where_every_word_would_be_one() -> None:
    """No penalty is large enough for scores this far apart; counting roots first needs none."""
    scores = torch.full((1, 30, 30), -1e15, dtype=torch.float64)
    scores[0].fill_diagonal_(1e15)
    heads = structkd.NonProjectiveDependencyCRF(scores).decode()[0].tolist()
    assert is_legal(heads, True)


# -- projective trees -------------------------------------------------------------------------------------------------


def is_projective(heads: list[int]) -> bool:
    """Of a tree: every word between the ends of an arc descends from its head."""

    def descends(word: int, head: int) -> bool:
        while word != head and heads[word] != word:
            word = heads[word]
        return word == head

    between = ((h, k) for d, h in enumerate(heads) for k in range(min(h, d) + 1, max(h, d)))
    return all(descends(k, h) for h, k in between)


@root_modes
def test_best_projective_trees_have_the_score_of_the_max_semiring(single_root: bool) -> None:
    """In ragged batches with NaN in the padding; enumeration judges short sentences."""
    outcomes = set()
    for start in range(0, 480, 12):
        longest = 6 if start % 60 else 24
        sentences = [random_scores(seed, 1 + (seed * 7) % longest) for seed in range(start, start + 12)]
        batch = torch.full((12, longest + 1, longest + 1), math.nan, dtype=torch.float64)
        for item, scores in enumerate(sentences):
            batch[item, : len(scores), : len(scores)] = torch.from_numpy(scores)
        lengths = torch.tensor([len(scores) for scores in sentences])
        values = eisner.inside(Max(), batch.nan_to_num(nan=0.0, neginf=-math.inf), lengths, not single_root).tolist()
        decoded = eisner.best_trees(batch, lengths, not single_root).tolist()
        for scores, heads, value in zip(sentences, decoded, values, strict=True):
            n = len(scores)
            if n < 6:
                assert value == pytest.approx(max(score_of(scores, list(t)) for t in trees(n, True, not single_root)))
            assert heads[n:] == [-1] * (longest + 1 - n)
            outcomes.add(value > -math.inf)
            if value == -math.inf:
                assert heads[:n] == [-1] * n
                continue
            assert is_legal(heads[:n], single_root)
            assert is_projective(heads[:n])
            assert score_of(scores, heads[:n]) == pytest.approx(value)
    assert outcomes == {True, False}


@root_modes
def test_long_projective_trees(single_root: bool) -> None:
    scores = 3 * torch.randn(9, 120, 120, generator=seeded(1))
    lengths = torch.tensor([120, 3, 119, 1, 2, 77, 120, 120, 64])
    crf = structkd.DependencyCRF(scores, lengths, multiroot=not single_root)
    values = eisner.inside(Max(), crf.parts()[0], lengths, not single_root)
    assert torch.allclose(crf.max.double(), values, rtol=1e-6)
    for heads, n in zip(crf.decode().tolist(), lengths.tolist(), strict=True):
        assert is_legal(heads[:n], single_root)
        assert is_projective(heads[:n])


def test_without_any_projective_tree_the_sentence_is_named() -> None:
    scores = torch.zeros(2, 4, 4)
    scores[1] = -math.inf
    for head, dependent in ((0, 0), (0, 2), (2, 1), (1, 3)):  # 1 -> 3 crosses 0 -> 2
        scores[1, head, dependent] = 0.0
    with pytest.raises(ValueError, match=r"\[1\]"):
        structkd.DependencyCRF(scores).decode()
    assert structkd.NonProjectiveDependencyCRF(scores).decode()[1].tolist() == [0, 2, 0, 1]


# -- trees out of labels ----------------------------------------------------------------------------------------------


def labelled_heads(seed: int, n: int, count: int = 7, relations: int | None = 3) -> structkd.HeadLabeling:
    """Labels that name random heads: some none, some beyond the sentence, several the same."""
    generator = seeded(seed)
    logits = torch.randn(1, n + 1, count, generator=generator, dtype=torch.float64) * 2
    heads = torch.randint(-1, n + 2, (1, n + 1, count), generator=generator)
    kinds = None if relations is None else torch.randint(-1, relations, (1, n + 1, count), generator=generator)
    return structkd.HeadLabeling(logits, heads, kinds, lengths=torch.tensor([n]))


def arc_probabilities(labels: structkd.HeadLabeling, n: int) -> np.ndarray:
    probabilities = np.zeros((n, n))
    posterior = labels.logits.softmax(-1)[0]
    for word in range(n):
        for label, head in enumerate(labels.heads[0, word].tolist()):
            if 0 <= head < n:
                probabilities[head, word] += float(posterior[word, label])
    return probabilities


@pytest.mark.parametrize("multiroot", [False, True])
def test_labels_give_the_best_tree_of_their_posteriors(multiroot: bool) -> None:
    """Fewest arcs that no label names, then the largest product of posteriors."""
    unnamed = set()
    for seed in range(150):
        n = 1 + seed % 5
        labels = labelled_heads(seed, n, count=1 + seed % 7)
        probabilities = arc_probabilities(labels, n)
        with np.errstate(divide="ignore"):
            scores = np.log(probabilities)

        def rank(heads: tuple[int, ...], scores: np.ndarray = scores) -> tuple[int, float]:
            arcs = scores[list(heads), range(len(heads))]
            return -int(np.isinf(arcs).sum()), float(arcs[~np.isinf(arcs)].sum())

        best = max(rank(heads) for heads in trees(n, False, multiroot))
        heads = labels.decode_heads(multiroot=multiroot)[0].tolist()
        assert heads[n:] == [-1]
        assert is_legal(heads[:n], not multiroot)
        assert rank(tuple(heads[:n])) == pytest.approx(best)
        unnamed.add(best[0])
    assert len(unnamed) > 2


def test_relations_of_the_tree_are_the_likeliest_of_each_arc() -> None:
    fallbacks = 0
    for seed in range(60):
        n = 1 + seed % 5
        labels = labelled_heads(seed, n)
        heads, relations = labels.decode_trees()
        assert torch.equal(heads, labels.decode_heads())
        posterior = labels.logits.softmax(-1)[0]
        for word in range(n):
            pairs = [
                (int(relation), float(posterior[word, label]), int(labels.heads[0, word, label]) == int(heads[0, word]))
                for label, relation in enumerate(labels.relations[0, word].tolist())
                if relation >= 0
            ]
            named = [pair for pair in pairs if pair[2]]
            fallbacks += not named
            mass: dict[int, float] = {}
            for relation, probability, _ in named or pairs:
                mass[relation] = mass.get(relation, 0.0) + probability
            assert int(relations[0, word]) == (max(mass, key=mass.__getitem__) if mass else -1)
        assert int(relations[0, n]) == -1
    assert fallbacks


def test_labels_in_batches_without_relations_and_far_below_zero() -> None:
    """Probabilities far below the smallest float still rank arcs; relations may be shared by all words."""
    heads = torch.tensor([[[0, 1, 1], [1, 0, 0]]])
    logits = torch.tensor([[[0.0, -2000.0, -3000.0], [0.0, -1500.0, -1400.0]]], dtype=torch.float64)
    labels = structkd.HeadLabeling(logits, heads)
    assert labels.decode_trees()[1] is None
    assert labels.decode_heads().tolist() == [[0, 0]]  # -1400 against -2000
    assert labels.decode_heads(multiroot=True).tolist() == [[0, 1]]
    shared = structkd.HeadLabeling(logits, heads, torch.tensor([2, 0, 1]))
    assert [tensor.tolist() for tensor in shared.decode_trees()] == [[[0, 0]], [[2, 1]]]
    one_by_one = [labelled_heads(seed, n) for seed, n in ((3, 4), (8, 4))]
    logits, heads = (torch.cat([getattr(one, name) for one in one_by_one]) for name in ("logits", "heads"))
    both = structkd.HeadLabeling(logits, heads, lengths=torch.tensor([4, 4])).decode_heads()
    assert both.tolist() == [one.decode_heads()[0].tolist() for one in one_by_one]
    with torch.inference_mode():
        assert labels.decode_heads().tolist() == [[0, 0]]
    impossible = torch.full((1, 2, 2), -math.inf)
    with pytest.raises(ValueError, match=r"\[0\]"):
        structkd.HeadLabeling(impossible, torch.zeros(1, 2, 2, dtype=torch.long)).decode_heads()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("shared", [True, False], ids=["relations of labels", "relations of labels of words"])
def test_labels_of_any_integers_in_ragged_batches(shared: bool, dtype: torch.dtype) -> None:
    """Some impossible, some far below others, anything in the padding: as one by one, and as every path has it."""
    generator = seeded(5)
    lengths = torch.tensor([1, 30, 17, 2, 30, 9])
    logits = 5 * torch.randn(6, 30, 80, generator=generator)
    logits[torch.rand(logits.shape, generator=generator) < 0.2] = -math.inf
    logits[4, 3, :70] = -math.inf
    logits[1, :, ::3] -= 900.0
    heads = torch.randint(-1, 32, (6, 30, 80), generator=generator).to(dtype)
    relations = torch.randint(-1, 12, (80,) if shared else (6, 30, 80), generator=generator)
    for item, n in enumerate(lengths.tolist()):
        logits[item, n:], heads[item, n:] = math.nan, -7
    labels = structkd.HeadLabeling(logits, heads, relations, lengths)
    decoded = labels.decode_trees()
    with using("torch"):
        arcs, others = head_labels.log_arcs(logits, heads, lengths), labels.decode_trees()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(decoded, others, strict=True))
    for item, n in enumerate(lengths.tolist()):
        assert torch.allclose(
            head_labels.log_arcs(logits, heads, lengths)[item, :n, :n], arcs[item, :n, :n], rtol=1e-12
        )
        one = structkd.HeadLabeling(
            logits[item : item + 1, :n],
            heads[item : item + 1, :n],
            relations if shared else relations[item : item + 1, :n],
        )
        for mine, alone in zip(decoded, one.decode_trees(), strict=True):
            assert mine[item].tolist() == [*alone[0].tolist(), *[-1] * (30 - n)]


@pytest.mark.above_kernels
@pytest.mark.parametrize("multiroot", [False, True])
@pytest.mark.parametrize("path", ["compiled", "torch"])
def test_labels_that_are_symbols_and_relations(path: str, multiroot: bool) -> None:
    """The trees of the posterior, and the best label of every arc; nothing if a tree needs logarithms or other arcs."""
    if path == "compiled":
        pytest.importorskip("numba")
    generator, outcomes = seeded(4), set()
    for batch in range(12):
        words, offsets, kinds = 2 + batch, 2 + batch % 4, 1 + batch % 3
        lengths = torch.randint(1, words + 1, (5,), generator=generator)
        place = torch.arange(words)
        named = torch.stack([place + step for step in range(-offsets, offsets + 1)], 1)  # offset 0 is the root
        named = torch.where((named < 0) | (named >= lengths.view(-1, 1, 1)), -1, named).to(torch.int16)
        symbols = torch.randint(0, named.shape[2], (60,), generator=generator)
        symbols[: named.shape[2]] = torch.arange(named.shape[2])
        rows = [(symbols == symbol).nonzero().flatten() for symbol in range(named.shape[2])]
        most = max(map(len, rows))
        labels_of = torch.stack([row[torch.arange(most).clamp(max=len(row) - 1)] for row in rows])
        logits = (1.0 + 8.0 * (batch % 2)) * torch.randn(5, words, 60, generator=generator)
        if batch == 11:
            logits[0, 0, 3] = -200.0
        groups = symbols, torch.nn.functional.one_hot(symbols).float(), labels_of
        with using(path):
            found = head_labels.trees_of_symbols(logits, named, *groups, lengths, multiroot)
        expected = structkd.HeadLabeling(logits, named[..., symbols], symbols % kinds, lengths)
        trees, _ = expected.decode_trees(multiroot=multiroot)
        own = named[..., symbols] == trees.unsqueeze(-1)
        inside = trees >= 0
        possible = bool((own.any(-1) | ~inside).all()) and batch != 11
        outcomes.add(possible)
        assert (found is not None) == possible
        if found is not None:
            assert torch.equal(found[0], trees)
            best = logits.masked_fill(~own, -math.inf).argmax(-1)
            assert torch.equal(found[1][inside], best[inside])
    assert outcomes == {True, False}


def test_an_arc_far_below_the_others_still_counts() -> None:
    """Labels of one arc are summed beside each other, not beside the word's best, which would swallow them."""
    logits = torch.zeros(1, 2, 4, dtype=torch.float64)
    logits[0, 0] = torch.tensor([0.0, -1e4, -1e4, -1e4 - 1])
    heads = torch.tensor([[[0, 1, 1, -1], [1, 0, -1, 0]]])
    arcs = head_labels.log_arcs(logits, heads, torch.tensor([2]))
    assert arcs[0].tolist() == [
        [pytest.approx(0.0), pytest.approx(math.log(0.5))],
        [pytest.approx(-1e4 + math.log(2), abs=1e-9), pytest.approx(math.log(0.25))],
    ]
