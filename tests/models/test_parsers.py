"""Parsers: scores, distributions, gold trees in and out, training, saving."""

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import structkd
from structkd.data import UNLABELLED, TagAnnotation, TreeAnnotation
from structkd.models.biaffine import ArcScorer, biaffine
from structkd.models.bilstm import BiLSTMRecipe
from structkd.models.parser import STRUCTURES, BiaffineParser, ParserConfig, ParserRecipe, lift
from structkd.models.second_order import SecondOrderParser, SecondOrderRecipe

RELATIONS = ("root", "det", "nsubj", "obj", "advmod", "punct")
ANNOTATION = TreeAnnotation(RELATIONS)


def words(text: str) -> list[str]:
    return text.split()


EXAMPLES: list[dict[str, Any]] = [
    {"tokens": words("A hearing is scheduled on the issue today ."), "heads": [2, 4, 4, 0, 2, 7, 5, 4, 4],
     "relations": [1, 2, 4, 0, 3, 1, 3, 4, 5]},  # "on the issue" belongs to "hearing": non-projective
    {"tokens": words("The cat sat ."), "heads": [2, 3, 0, 3], "relations": [1, 2, 0, 5]},
    {"tokens": ["Dogs"], "heads": [0], "relations": [0]},
    {"tokens": words("It saw the cat today"), "heads": [2, 0, 4, 2, 2], "relations": [2, 0, 1, 3, 4]},
]  # fmt: skip
PROJECTIVE = EXAMPLES[1:]
KINDS = [*STRUCTURES, "second_order"]
every_kind = pytest.mark.parametrize("kind", KINDS)


def recipe(kind: str, **options: Any) -> ParserRecipe:
    sizes = {"word_size": 12, "character_size": 5, "character_filters": 6, "hidden_size": 14, "layers": 1}
    encoder = BiLSTMRecipe(**sizes, word_dropout=0.0, locked_dropout=0.0)
    shape = {"encoder": encoder, "arc_size": 16, "relation_size": 9, "dropout": 0.0} | options
    if kind == "second_order":
        return SecondOrderRecipe(**{"rank": 5, "second_order_size": 7, **shape})
    return ParserRecipe(structure=kind, **shape)


def parser(kind: str, annotation: TreeAnnotation = ANNOTATION, **options: Any) -> BiaffineParser:
    torch.manual_seed(0)
    text: Any = {"tokens": [example["tokens"] for example in EXAMPLES]}
    model = recipe(kind, **options).create(annotation, text, text)
    with torch.no_grad():  # at first every score is 0
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def alone(model: BiaffineParser, scores: Mapping[str, Tensor], item: int, length: int) -> dict[str, Tensor]:
    """The scores of one sentence as they are stored: without the padding."""
    return {
        name: value if axes == 0 else value[item : item + 1][(slice(None), *[slice(length)] * axes)]
        for name, value in scores.items()
        for axes in [model.score_axes[name]]
    }


@every_kind
def test_distribution(kind: str) -> None:
    model = parser(kind)
    batch = model.encode(EXAMPLES)
    output = model(**batch)
    distribution = model.distribution(output, batch["lengths"])
    kinds = {
        "head_selection": structkd.HeadSelection,
        "projective": structkd.DependencyCRF,
        "nonprojective": structkd.NonProjectiveDependencyCRF,
        "second_order": structkd.MeanFieldDependency,
    }
    assert isinstance(distribution, kinds[kind])
    assert distribution.labelled
    assert distribution.event_shape == (9, 9, len(RELATIONS))
    stored = model.scores(output)
    assert set(stored) == set(model.score_axes)
    marginals = distribution.marginals
    torch.testing.assert_close(model.distribution(stored, batch["lengths"]).marginals, marginals)
    for item, length in enumerate(batch["lengths"].tolist()):
        one = model.distribution(alone(model, stored, item, length), torch.tensor([length]))
        torch.testing.assert_close(one.marginals[0], marginals[item, :length, :length])


@pytest.mark.parametrize("kind", STRUCTURES)
def test_the_arcs_are_distributed_as_their_scores_say(kind: str) -> None:
    model = parser(kind)
    batch = model.encode(EXAMPLES)
    output = model(**batch)
    arcs = type(model.distribution(output, batch["lengths"]))(output.arcs, batch["lengths"])
    torch.testing.assert_close(model.distribution(output, batch["lengths"]).marginals.sum(-1), arcs.marginals)


def test_second_order_scores_are_the_products_of_their_factors() -> None:
    model = parser("second_order", iterations=2)
    batch = model.encode(EXAMPLES)
    output = model(**batch)
    siblings = torch.einsum(
        "bhk,bdk,bck->bhdc", output.sibling_heads, output.sibling_dependents, output.sibling_dependents
    )
    grandparents = torch.einsum(
        "bhk,bdk,bck->bhdc", output.grandparent_heads, output.grandparent_dependents, output.grandparent_children
    )
    assert siblings.abs().max() > 0.1
    assert grandparents.abs().max() > 0.1
    expected = structkd.MeanFieldDependency(output.arcs, siblings, grandparents, batch["lengths"], iterations=2)
    actual = model.distribution(output, batch["lengths"]).marginals.sum(-1)
    torch.testing.assert_close(actual, expected.marginals, rtol=1e-4, atol=1e-5)
    first_order = structkd.HeadSelection(output.arcs, batch["lengths"]).marginals
    assert not torch.allclose(actual, first_order, atol=1e-3)


@pytest.mark.parametrize("part", ["siblings", "grandparents"])
def test_a_second_order_parser_with_one_kind_of_score(part: str) -> None:
    model = parser("second_order", **{part: False})
    batch = model.encode(EXAMPLES)
    scores = model.scores(model(**batch))
    assert not any(name.startswith(part[:-1]) for name in scores)
    distribution = model.distribution(scores, batch["lengths"])
    assert getattr(distribution, part) is None
    assert distribution.marginals.isfinite().all()


def test_a_new_second_order_parser_is_a_first_order_one() -> None:
    torch.manual_seed(1)
    text: Any = {"tokens": [example["tokens"] for example in EXAMPLES]}
    model = recipe("second_order").create(ANNOTATION, text, text)
    assert isinstance(model, SecondOrderParser)
    scores = model.scores(model(**model.encode(EXAMPLES)))
    assert not scores["sibling_heads"].any()
    assert not scores["grandparent_heads"].any()
    assert scores["sibling_dependents"].any()


def test_biaffine_form() -> None:
    generator = torch.Generator().manual_seed(2)
    first, second = torch.randn(2, 3, 4, generator=generator), torch.randn(2, 5, 6, generator=generator)
    weight = torch.randn(7, 5, 7, generator=generator)
    scores = biaffine(first, second, weight)
    assert scores.shape == (2, 3, 5, 7)
    one = torch.ones(1)
    for b, i, j, label in itertools.product(range(2), range(3), range(5), range(7)):
        expected = torch.cat([first[b, i], one]) @ weight[label] @ torch.cat([second[b, j], one])
        torch.testing.assert_close(scores[b, i, j, label], expected)


def test_arc_scorer_puts_the_root_on_the_diagonal() -> None:
    torch.manual_seed(3)
    scorer = ArcScorer(4, 5, 0.0)
    torch.nn.init.normal_(scorer.root)
    words = torch.randn(2, 3, 4)
    scores = scorer(words)
    heads, dependents = scorer.head(words), scorer.dependent(words)
    weight, bias = scorer.wanted.weight, scorer.wanted.bias
    for b, h, d in itertools.product(range(2), range(3), range(3)):
        head = scorer.root if h == d else heads[b, h]
        torch.testing.assert_close(scores[b, h, d], head @ weight @ dependents[b, d] + head @ bias)


def test_relation_scores_put_the_root_on_the_diagonal() -> None:
    model = parser("head_selection")
    output = model(**model.encode(EXAMPLES[1:2]))
    relations = model.relation_scores(output)
    scores, one = relations.everywhere(), torch.ones(1)
    for h, d in itertools.product(range(4), range(4)):
        head = output.relation_root if h == d else output.relation_heads[0, h]
        vectors = torch.cat([head, one]), torch.cat([output.relation_dependents[0, d], one])
        expected = torch.einsum("i,lij,j->l", vectors[0], output.relation_weight, vectors[1])
        torch.testing.assert_close(scores[0, h, d], expected)
    for heads in itertools.product(range(4), repeat=4):
        along = relations.along(torch.tensor([heads]))
        torch.testing.assert_close(along[0], scores[0, heads, range(4)])


# -- gold trees -------------------------------------------------------------------------------------------------------


def test_gold_trees_become_events() -> None:
    model = parser("nonprojective")
    hidden = {"tokens": ["a", "b"], "heads": [UNLABELLED] * 2, "relations": [UNLABELLED] * 2}
    gold = model.encode_gold([*EXAMPLES, hidden])
    assert gold.shape == (5, 9, 9, len(RELATIONS))
    assert gold.sum((1, 2, 3)).tolist() == [9, 4, 1, 5, 0]
    assert {tuple(cell) for cell in gold[1].nonzero().tolist()} == {(1, 0, 1), (2, 1, 2), (2, 2, 0), (2, 3, 5)}


def certain_scores(model: BiaffineParser, gold: Tensor) -> dict[str, Tensor]:
    """Scores of 60 at the gold arcs and, whatever its head, at a word's gold relation."""
    batch, words, _, count = gold.shape
    size = model.config.relation_size
    weight = torch.zeros(count, size + 1, size + 1)
    weight[range(count), -1, range(count)] = 60.0
    dependents = torch.nn.functional.pad(gold.any(1).float(), (0, size - count))
    scores = {
        "arcs": 60.0 * gold.any(-1),
        "relation_heads": torch.zeros(batch, words, size),
        "relation_dependents": dependents,
        "relation_root": torch.zeros(size),
        "relation_weight": weight,
    }
    if isinstance(model, SecondOrderParser):
        names = [name for name in model.score_axes if name not in scores]
        scores |= {name: torch.zeros(batch, words, model.config.rank) for name in names}
    return scores


@st.composite
def trees(draw: st.DrawFn, projective: bool = False) -> dict[str, Any]:
    """A sentence with a single-rooted tree: every word hangs from one that came before it in a random order."""
    words = draw(st.integers(1, 7))
    heads = [0] * words
    if projective:

        def attach(start: int, end: int, head: int) -> None:
            while start < end:  # children's subtrees tile the words
                cut = end if head == 0 else draw(st.integers(start + 1, end))
                child = draw(st.integers(start, cut - 1))
                heads[child] = head
                attach(start, child, child + 1)
                attach(child + 1, cut, child + 1)
                start = cut

        attach(0, words, 0)
    else:
        order = draw(st.permutations(range(words)))
        for place, word in enumerate(order[1:], start=1):
            heads[word] = order[draw(st.integers(0, place - 1))] + 1
    relations = draw(st.lists(st.integers(0, len(RELATIONS) - 1), min_size=words, max_size=words))
    return {"tokens": ["w"] * words, "heads": heads, "relations": relations}


def check_round_trip(kind: str, examples: list[dict[str, Any]]) -> None:
    model = MODELS[kind]
    gold = model.encode_gold(examples)
    lengths = torch.tensor([len(example["tokens"]) for example in examples])
    scores = certain_scores(model, gold)
    decoded = model.decode(scores, lengths)
    assert set(decoded) == {"heads", "relations"}
    for column, values in decoded.items():
        for row, example in zip(values.tolist(), examples, strict=True):
            assert row == [*example[column], *[UNLABELLED] * (len(row) - len(example[column]))]
    loss = structkd.supervised_loss(model.distribution(scores, lengths), gold, reduction="none")
    assert (loss.abs() < 1e-6).all()


MODELS = {kind: parser(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", ["head_selection", "nonprojective", "second_order"])
@settings(max_examples=30, deadline=None)
@given(examples=st.lists(trees(), min_size=1, max_size=4))
def test_any_tree_is_encoded_and_decoded(kind: str, examples: list[dict[str, Any]]) -> None:
    check_round_trip(kind, examples)


@settings(max_examples=40, deadline=None)
@given(examples=st.lists(trees(projective=True), min_size=1, max_size=4))
def test_projective_trees_are_encoded_and_decoded(examples: list[dict[str, Any]]) -> None:
    check_round_trip("projective", examples)


@every_kind
def test_decoding_keeps_to_trees_with_a_single_root(kind: str) -> None:
    model = parser(kind)
    lengths = torch.tensor([4, 2])
    scores = certain_scores(model, torch.zeros(2, 4, 4, len(RELATIONS), dtype=torch.bool))
    scores["arcs"] = scores["arcs"].float()
    scores["arcs"][0, [0, 1, 3, 2], [0, 1, 2, 3]] = 9.0  # two roots and a cycle, word by word
    scores["arcs"][0, 1, 2] = 1.0
    scores["arcs"][0, 0, 1] = 0.5
    scores["arcs"][1, [1, 0], [0, 1]] = 9.0
    heads = model.decode(scores, lengths)["heads"].tolist()
    for row, length in zip(heads, lengths.tolist(), strict=True):
        assert ANNOTATION.fault({"heads": row[:length], "relations": [0] * length}) is None
        assert row[length:] == [UNLABELLED] * (4 - length)


def test_several_roots_where_the_annotation_has_them() -> None:
    annotation = TreeAnnotation(RELATIONS, multiroot=True)
    example = {"tokens": ["a", "b"], "heads": [0, 0], "relations": [0, 0]}
    for kind in KINDS:
        model = parser(kind, annotation)
        assert model.annotation == annotation
        gold = model.encode_gold([example])
        scores = certain_scores(model, gold)
        assert model.decode(scores, torch.tensor([2]))["heads"].tolist() == [[0, 0]]
        loss = structkd.supervised_loss(model.distribution(scores, torch.tensor([2])), gold)
        assert loss.item() == pytest.approx(0, abs=1e-6)


# -- projective trees for a projective model --------------------------------------------------------------------------


def projective(heads: list[int]) -> bool:
    arcs = [sorted((head, word)) for word, head in enumerate(heads, start=1)]
    return not any(a < c < b < d for (a, b), (c, d) in itertools.permutations(arcs, 2))


@settings(max_examples=200, deadline=None)
@given(examples=st.lists(trees(), min_size=1, max_size=4))
def test_lifted_trees_are_projective_trees(examples: list[dict[str, Any]]) -> None:
    longest = max(len(example["heads"]) for example in examples)
    rows = torch.tensor([[*e["heads"], *[UNLABELLED] * (longest - len(e["heads"]))] for e in examples])
    for example, row in zip(examples, lift(rows).tolist(), strict=True):
        heads, lifted = example["heads"], row[: len(example["heads"])]
        assert row[len(heads) :] == [UNLABELLED] * (longest - len(heads))
        assert ANNOTATION.fault({"heads": lifted, "relations": [0] * len(heads)}) is None
        assert projective(lifted)
        if projective(heads):
            assert lifted == heads
        for word, head in enumerate(heads):
            above = [head]
            while above[-1]:
                above.append(heads[above[-1] - 1])
            assert lifted[word] in above


def test_a_lifted_sentence() -> None:
    """ "on" hangs from "hearing", past the root "scheduled": it comes to hang from the root."""
    model = parser("projective")
    gold = model.encode_gold(EXAMPLES[:1])[0]
    assert gold.any(-1).int().argmax(0).tolist() == [1, 3, 3, 3, 3, 6, 4, 3, 3]
    assert gold.any(0).int().argmax(-1).tolist() == EXAMPLES[0]["relations"]


# -- training, saving, refusing ---------------------------------------------------------------------------------------


@every_kind
def test_every_parameter_gets_a_finite_gradient(kind: str) -> None:
    model = parser(kind, dropout=0.2).train()
    batch = model.encode(EXAMPLES)
    loss = structkd.supervised_loss(model.distribution(model(**batch), batch["lengths"]), model.encode_gold(EXAMPLES))
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_kind
def test_a_few_sentences_are_learned(kind: str) -> None:
    examples = PROJECTIVE if kind == "projective" else EXAMPLES
    torch.manual_seed(4)
    text: Any = {"tokens": [example["tokens"] for example in examples]}
    model = recipe(kind).create(ANNOTATION, text, text)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    batch, gold = model.encode(examples), model.encode_gold(examples)
    for _ in range(60):
        loss = structkd.supervised_loss(model.distribution(model(**batch), batch["lengths"]), gold)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    decoded = model.decode(model.scores(model(**batch)), batch["lengths"])
    for column in ANNOTATION.columns:
        for row, example in zip(decoded[column].tolist(), examples, strict=True):
            assert row[: len(example[column])] == example[column]


@every_kind
def test_a_teacher_of_head_labels(kind: str) -> None:
    """Cases 1b and 2b: relations reach a student whose labels are (head, relation)."""
    model = parser(kind)
    batch = model.encode(EXAMPLES)
    teacher = model.distribution(model(**batch), batch["lengths"])
    size, count = 9, len(RELATIONS)
    heads = torch.arange(size).repeat_interleave(count).expand(len(EXAMPLES), size, -1)
    logits = torch.zeros(heads.shape, requires_grad=True)
    student = structkd.HeadLabeling(logits, heads, torch.arange(count).repeat(size), batch["lengths"])
    structkd.structural_kd_loss(teacher, student, temperature=2.0).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.any()
    targets = structkd.project(teacher, student)
    torch.testing.assert_close(targets, teacher.marginals.transpose(1, 2).flatten(2))


@every_kind
def test_saved_model_comes_back_exactly(kind: str, tmp_path: Any) -> None:
    model = parser(kind)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "vocabulary.json",
        "README.md",
        "structkd.json",
    }
    loaded = recipe(kind).load(tmp_path).eval()
    assert type(loaded) is type(model)
    assert loaded.annotation == ANNOTATION
    assert loaded.config.to_dict() == model.config.to_dict() | {
        key: value for key, value in loaded.config.to_dict().items() if key == "_name_or_path"
    }
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    batch = model.encode(EXAMPLES)
    with torch.no_grad():
        expected, actual = model.scores(model(**batch)), loaded.scores(loaded(**batch))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value)


@every_kind
def test_padding_changes_nothing(kind: str) -> None:
    model = parser(kind)
    batch = model.encode(EXAMPLES)
    together = model.decode(model.scores(model(**batch)), batch["lengths"])
    marginals = model.distribution(model(**batch), batch["lengths"]).marginals
    for item, example in enumerate(EXAMPLES):
        one, length = model.encode([example]), len(example["tokens"])
        output = model(**one)
        mine = model.distribution(output, one["lengths"]).marginals[0]
        torch.testing.assert_close(mine, marginals[item, :length, :length], rtol=1e-4, atol=1e-6)
        for column, values in model.decode(model.scores(output), one["lengths"]).items():
            assert values[0].tolist() == together[column][item, :length].tolist()


def test_a_batch_that_cannot_fit_is_refused() -> None:
    model = parser("second_order", memory_limit=1e-4)
    batch = model.encode(EXAMPLES)
    scores = model.scores(model(**batch))
    with pytest.raises(ValueError, match=r"4 sentences padded to 9 words needs about .* GiB .* Lower the batch size"):
        _ = model.distribution(scores, batch["lengths"]).marginals
    gold = model.encode_gold(EXAMPLES)
    structkd.supervised_loss(model.distribution(scores, batch["lengths"]), gold).backward()
    short = model.encode(EXAMPLES[2:3])
    assert model.distribution(model(**short), short["lengths"]).marginals.isfinite().all()
    model.config.memory_limit = None
    assert model.distribution(scores, batch["lengths"]).marginals.isfinite().all()


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("tree", {}, "Unknown structure 'tree': expected one of head_selection"),
        ("head_selection", {"arc_size": 0}, "arc_size must lie in 1"),
        ("head_selection", {"relation_size": 0}, "relation_size"),
        ("head_selection", {"dropout": 1.0}, "dropout must lie in 0..0.99"),
        ("head_selection", {"memory_limit": -1.0}, "memory_limit"),
        ("second_order", {"rank": 0}, "rank"),
        ("second_order", {"iterations": 0}, "iterations"),
        ("second_order", {"structure": "projective"}, "posterior over the head of every word"),
        ("second_order", {"siblings": False, "grandparents": False}, "both are switched off"),
    ],
)
def test_bad_settings_are_refused_before_any_data_are_read(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(kind, **options)


def test_a_configuration_needs_relations() -> None:
    with pytest.raises(ValueError, match="at least one relation"):
        ParserConfig(relations=[])


@every_kind
def test_tags_are_no_trees(kind: str) -> None:
    with pytest.raises(ValueError, match="A parser predicts dependency trees"):
        recipe(kind).create(TagAnnotation(("A", "B")), {"tokens": []}, None)  # type: ignore[arg-type]
