"""Span models: scores, distribution, gold spans in and out, training, saving."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import structkd
from structkd.data import UNLABELLED, TagAnnotation, TreeAnnotation, spans, tag_spans
from structkd.models.bilstm import BiLSTMRecipe
from structkd.models.span_model import SpanConfig, SpanModel, SpanRecipe

TYPES = ("PER", "LOC")
SCHEMES = ["BIO", "BIOES"]
every_scheme = pytest.mark.parametrize("scheme", SCHEMES)
SENTENCES = [
    ("Ann Lee saw New York City .", [(0, 1, "PER"), (3, 5, "LOC")]),
    ("Bob", [(0, 0, "PER")]),
    ("It rained all day", []),
    ("Bob Ann Lee met", [(0, 0, "PER"), (1, 2, "PER")]),
]


def annotation(scheme: str) -> TagAnnotation:
    return TagAnnotation.of_spans(TYPES, scheme)


def example(tokens: list[str], found: list[tuple[int, int, str]], scheme: str) -> dict[str, Any]:
    tags = tag_spans(found, len(tokens), scheme)
    return {"id": tokens[0], "tokens": tokens, "labels": [annotation(scheme).index[tag] for tag in tags]}


def examples(scheme: str = "BIOES") -> list[dict[str, Any]]:
    return [example(text.split(), found, scheme) for text, found in SENTENCES]


def recipe(**options: Any) -> SpanRecipe:
    sizes = {"word_size": 12, "character_size": 5, "character_filters": 6, "hidden_size": 14, "layers": 1}
    encoder = BiLSTMRecipe(**sizes, word_dropout=0.0, locked_dropout=0.0)
    return SpanRecipe(**({"encoder": encoder, "size": 11, "dropout": 0.0} | options))


def untrained(scheme: str = "BIOES", **options: Any) -> SpanModel:
    torch.manual_seed(0)
    text: Any = {"tokens": [text.split() for text, _ in SENTENCES]}
    return recipe(**options).create(annotation(scheme), text, text)


def model_of(scheme: str = "BIOES", **options: Any) -> SpanModel:
    model = untrained(scheme, **options)
    with torch.no_grad():  # at first every score is 0
        torch.nn.init.normal_(model.weight, std=0.3)
    return model.eval()


def test_distribution() -> None:
    model = model_of()
    batch = model.encode(examples())
    output = model(**batch)
    assert output.spans.shape == (4, 7, 7, 2)
    distribution = model.distribution(output, batch["lengths"])
    assert isinstance(distribution, structkd.SpanCRF)
    assert distribution.types == list(TYPES)
    scores = model.scores(output)
    assert set(scores) == set(model.score_axes)
    torch.testing.assert_close(model.distribution(scores, batch["lengths"]).marginals, distribution.marginals)


def test_a_span_is_scored_by_its_first_and_last_word() -> None:
    model = model_of()
    batch = model.encode(examples()[:1])
    words = model.encoder(**batch)
    starts, ends, one = model.start(words)[0], model.end(words)[0], torch.ones(1)
    scores = model(**batch).spans[0]
    for i, j in itertools.combinations_with_replacement(range(7), 2):
        expected = torch.einsum("i,lij,j->l", torch.cat([starts[i], one]), model.weight, torch.cat([ends[j], one]))
        torch.testing.assert_close(scores[i, j], expected)


def test_spans_wider_than_the_bound_are_impossible() -> None:
    free, bounded = model_of(), model_of(max_width=2)
    batch = free.encode(examples())
    free_scores, scores = free(**batch).spans, bounded(**batch).spans
    width = torch.arange(7) - torch.arange(7).unsqueeze(1) + 1
    assert (scores[:, width > 2] == -torch.inf).all()
    torch.testing.assert_close(scores[:, width <= 2], free_scores[:, width <= 2])
    marginals = bounded.distribution({"spans": scores}, batch["lengths"]).marginals
    assert not marginals[:, width > 2].any()
    assert marginals[:, width == 2].any()


@every_scheme
def test_padding_changes_nothing(scheme: str) -> None:
    model = model_of(scheme)
    batch = model.encode(examples(scheme))
    scores = model.scores(model(**batch))
    marginals = model.distribution(scores, batch["lengths"]).marginals
    decoded = model.decode(scores, batch["lengths"])["labels"]
    for item, one in enumerate(examples(scheme)):
        alone, length = model.encode([one]), len(one["tokens"])
        mine = model.scores(model(**alone))
        torch.testing.assert_close(
            model.distribution(mine, alone["lengths"]).marginals[0], marginals[item, :length, :length]
        )
        stored = {"spans": scores["spans"][item : item + 1, :length, :length]}
        torch.testing.assert_close(mine["spans"], stored["spans"])
        assert model.decode(mine, alone["lengths"])["labels"][0].tolist() == decoded[item, :length].tolist()


@every_scheme
def test_gold_spans_become_events(scheme: str) -> None:
    model = model_of(scheme)
    hidden = {"tokens": ["a", "b"], "labels": [UNLABELLED] * 2}
    gold = model.encode_gold([*examples(scheme), hidden])
    assert gold.shape == (5, 7, 7, 2)
    assert [tuple(cell) for cell in gold.nonzero().tolist()] == [
        (0, 0, 1, 0), (0, 3, 5, 1), (1, 0, 0, 0), (3, 0, 0, 0), (3, 1, 2, 0),
    ]  # fmt: skip


@st.composite
def segmentations(draw: st.DrawFn) -> tuple[int, list[tuple[int, int, str]]]:
    words = draw(st.integers(1, 8))
    found, start = [], 0
    while start < words:
        end = draw(st.integers(start, words - 1))
        kind = draw(st.sampled_from([None, *TYPES]))
        if kind is not None:
            found.append((start, end, kind))
        start = end + 1
    return words, found


MODELS = {scheme: model_of(scheme) for scheme in SCHEMES}


@every_scheme
@settings(max_examples=40, deadline=None)
@given(drawn=st.lists(segmentations(), min_size=1, max_size=4))
def test_spans_are_encoded_and_decoded(scheme: str, drawn: list[tuple[int, list[tuple[int, int, str]]]]) -> None:
    """Scores of +50 at gold spans and -50 elsewhere: the gold tags come back, and their loss is 0."""
    model = MODELS[scheme]
    gold_examples = [example(["w"] * words, found, scheme) for words, found in drawn]
    gold = model.encode_gold(gold_examples)
    assert gold.sum().item() == sum(len(found) for _, found in drawn)
    lengths = torch.tensor([words for words, _ in drawn])
    scores = {"spans": 100.0 * gold - 50.0}
    for row, one in zip(model.decode(scores, lengths)["labels"].tolist(), gold_examples, strict=True):
        assert row == [*one["labels"], *[UNLABELLED] * (len(row) - len(one["labels"]))]
    assert structkd.supervised_loss(model.distribution(scores, lengths), gold).item() == pytest.approx(0, abs=1e-6)


def test_a_gold_span_wider_than_the_bound() -> None:
    model = model_of(max_width=2)
    with pytest.raises(ValueError, match="Sentence 'Ann' has a span of 3 words; max_width is 2"):
        model.encode_gold(examples())
    assert model.encode_gold(examples()[1:]).sum() == 3


@every_scheme
def test_decoding_gives_legal_tags(scheme: str) -> None:
    model = model_of(scheme)
    torch.manual_seed(5)
    lengths = torch.tensor([6, 1, 4])
    decoded = model.decode({"spans": 3 * torch.randn(3, 6, 6, 2)}, lengths)["labels"]
    for row, length in zip(decoded.tolist(), lengths.tolist(), strict=True):
        assert annotation(scheme).fault({"labels": row[:length]}) is None
        assert row[length:] == [UNLABELLED] * (6 - length)
    assert (decoded[0] > 0).any()


def test_a_few_sentences_are_learned() -> None:
    model = untrained()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    batch, gold = model.encode(examples()), model.encode_gold(examples())
    for _ in range(40):
        loss = structkd.supervised_loss(model.distribution(model(**batch), batch["lengths"]), gold)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    decoded = model.decode(model.scores(model(**batch)), batch["lengths"])["labels"]
    for row, (text, found) in zip(decoded.tolist(), SENTENCES, strict=True):
        tags = [model.annotation.labels[label] for label in row[: len(text.split())]]
        assert [tuple(span) for span in spans(tags, "BIOES")] == found


@pytest.mark.parametrize("max_width", [None, 3])
def test_every_parameter_gets_a_finite_gradient(max_width: int | None) -> None:
    model = model_of(max_width=max_width, dropout=0.2).train()
    batch = model.encode(examples())
    distribution = model.distribution(model(**batch), batch["lengths"])
    structkd.supervised_loss(distribution, model.encode_gold(examples())).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@every_scheme
def test_a_teacher_of_tags(scheme: str) -> None:
    """Case 4: the model's tag inventory is the one its targets are written in."""
    model = model_of(scheme)
    batch = model.encode(examples(scheme))
    labels = list(annotation(scheme).labels)
    logits = torch.zeros(4, 7, len(labels), requires_grad=True)
    student = structkd.MaxEnt(logits, batch["lengths"], labels=labels)
    structkd.structural_kd_loss(model.distribution(model(**batch), batch["lengths"]), student).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad.any()


@every_scheme
def test_saved_model_comes_back_exactly(scheme: str, tmp_path: Any) -> None:
    model = model_of(scheme, max_width=4)
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "model.safetensors",
        "vocabulary.json",
        "README.md",
        "structkd.json",
    }
    loaded = recipe().load(tmp_path).eval()
    assert isinstance(loaded, SpanModel)
    assert loaded.annotation == annotation(scheme)
    assert loaded.config.max_width == 4
    state = loaded.state_dict()
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    batch = model.encode(examples(scheme))
    torch.testing.assert_close(model(**batch).spans, loaded(**batch).spans)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must lie in 1"),
        ({"dropout": 1.0}, "dropout must lie in 0..0.99"),
        ({"max_width": 0}, "max_width must lie in 1"),
    ],
)
def test_bad_settings_are_refused_before_any_data_are_read(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**options)


def test_bad_inventories() -> None:
    with pytest.raises(ValueError, match=r"[Tt]ypes"):
        SpanConfig(types=[])
    with pytest.raises(ValueError, match="IOB1"):
        SpanConfig(types=["X"], scheme="IOB1")


@pytest.mark.parametrize("other", [TagAnnotation(("NOUN", "VERB")), TreeAnnotation(("root",))], ids=["upos", "trees"])
def test_annotation_without_spans(other: Any) -> None:
    with pytest.raises(ValueError, match="A span model predicts flat typed spans"):
        recipe().create(other, {"tokens": []}, None)  # type: ignore[arg-type]
