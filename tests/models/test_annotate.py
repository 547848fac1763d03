"""Annotating raw text and words: the results in plain data, at every batch size, and exact confidences."""

import itertools
import math
import re
from types import GeneratorType

import numpy as np
import pytest
import torch
from datasets import Dataset

from structkd.data import TagAnnotation, TreeAnnotation
from structkd.data.annotation import tree_fault
from structkd.models import (
    BiLSTMRecipe,
    HeadLabelerRecipe,
    ParserRecipe,
    SecondOrderRecipe,
    SpanRecipe,
    TaggerRecipe,
)
from structkd.sentences import SPACE, Sentence, split_sentences, split_words, word_pattern
from structkd.tags import spans, tag_spans

ENCODER = BiLSTMRecipe(word_size=4, character_size=3, character_filters=3, hidden_size=3, layers=1)
WORDS = [["Ana", "runs", "home"], ["Ben"], [], ["Cy", "sees", "Ana", "run"], ["so", "be", "it"]]
TREES = {"heads": [[2, 0, 2], [0], [2, 0, 2, 3], [3, 3, 0]], "relations": [[1, 0, 2], [0], [1, 0, 2, 1], [2, 1, 0]]}
TEXT = Dataset.from_dict({"tokens": [words for words in WORDS if words], **TREES})
TREE = TreeAnnotation(("root", "subj", "obj"))
RECIPES = {
    **{
        f"{head}-{scheme}": (TaggerRecipe(encoder=ENCODER, head=head), TagAnnotation.of_spans(["P", "L"], scheme))
        for head in ("crf", "maxent")
        for scheme in ("BIO", "BIOES")
    },
    **{
        f"legal-{head}": (
            TaggerRecipe(encoder=ENCODER, head=head, legal=True),
            TagAnnotation.of_spans(["P", "L"], "BIO"),
        )
        for head in ("crf", "maxent")
    },
    "upos": (TaggerRecipe(encoder=ENCODER, head="crf"), TagAnnotation(("N", "V"))),
    "spans": (SpanRecipe(encoder=ENCODER, size=3), TagAnnotation.of_spans(["P", "L"], "BIO")),
    "head_selection": (ParserRecipe(encoder=ENCODER, arc_size=3, relation_size=2), TREE),
    "projective": (ParserRecipe(encoder=ENCODER, arc_size=3, relation_size=2, structure="projective"), TREE),
    "nonprojective": (ParserRecipe(encoder=ENCODER, arc_size=3, relation_size=2, structure="nonprojective"), TREE),
    "second_order": (SecondOrderRecipe(encoder=ENCODER, arc_size=3, relation_size=2, rank=2), TREE),
    "head_labels": (HeadLabelerRecipe(encoder=ENCODER), TREE),
}


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    made = {name: recipe.create(annotation, TEXT, TEXT) for name, (recipe, annotation) in RECIPES.items()}
    for model in made.values():
        for weight in model.parameters():
            weight.data.normal_(std=0.8)
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight.data[module.padding_idx] = 0.0
    return made


def flat(value):
    """The numbers of some plain data in order, and the rest of them."""
    if isinstance(value, dict):
        value = [part for item in value.items() for part in item]
    if isinstance(value, (list, tuple)):
        parts = [flat(each) for each in value]
        return [n for numbers, _ in parts for n in numbers], [r for _, rest in parts for r in rest]
    return ([value], []) if isinstance(value, float) else ([], [value])


@pytest.mark.parametrize("name", RECIPES)
def test_every_batch_size_gives_the_same(name, models) -> None:
    model = models[name].train()
    expected = flat(model.annotate(WORDS, batch_size=1, scores=True))
    for size in (2, 32):
        numbers, rest = flat(model.annotate(WORDS, batch_size=size, scores=True))
        assert rest == expected[1]
        np.testing.assert_allclose(numbers, expected[0], rtol=1e-4, atol=1e-6)
    assert model.training
    plain = model.annotate(WORDS)
    assert [each["words"] for each in plain] == WORDS
    assert model.annotate([]) == model.annotate("") == model.annotate(" \n\n") == []
    endless = model.annotate_stream(itertools.cycle(WORDS), batch_size=2)
    assert isinstance(endless, GeneratorType)
    assert [next(endless) for _ in range(17)] == (plain * 4)[:17]


@pytest.mark.parametrize("name", RECIPES)
def test_raw_text_keeps_its_places(name, models) -> None:
    text = "Ana  runs.\n\n\u201cBen\u00a0isn't here\u201d"
    found = models[name].annotate(text)
    assert [each["words"] for each in found] == [["Ana", "runs", "."], ["\u201c", "Ben", "is", "n't", "here", "\u201d"]]
    for sentence in found:
        assert [text[start:end] for start, end in sentence["offsets"]] == sentence["words"]
        for span in sentence.get("spans", []):
            assert text[span["start_char"] : span["end_char"]] == span["text"]
            assert span["text"].startswith(sentence["words"][span["start"]])
    one_each = models[name].annotate(["Ana runs. Ben sits.", ""])
    assert [len(each["words"]) for each in one_each] == [6, 0]
    assert one_each[1]["offsets"] == []
    by_words = models[name].annotate([each["words"] for each in found])
    assert all("offsets" not in each for each in by_words)
    for one, other in zip(found, by_words, strict=True):
        assert [one.get(key) for key in ("tags", "heads", "relations")] == [
            other.get(key) for key in ("tags", "heads", "relations")
        ]


@pytest.mark.parametrize("name", RECIPES)
def test_confidences_are_exact(name, models) -> None:
    """Every score is the sum of the probabilities of the structures that it speaks of."""
    model = models[name].eval()
    for result in model.annotate(WORDS, scores=True):
        words = result["words"]
        if not words:
            assert result["log_prob"] == 0
            assert result.get("tag_scores", result.get("head_scores")) == []
            continue
        if "tags" in result:
            _check_tags(model, result)
        else:
            _check_tree(model, result)


@pytest.mark.parametrize("head", ["crf", "maxent"])
def test_a_step_without_probability_leaves_other_spans_alone(head) -> None:
    """Spans keep their scores if a tag elsewhere in the sentence has a probability that is too small for a number."""
    recipe = TaggerRecipe(encoder=ENCODER, head=head)
    model = recipe.create(TagAnnotation.of_spans(["P"], "BIO"), TEXT, TEXT).eval()
    for weight in model.parameters():
        weight.data.zero_()
    emissions = torch.zeros(1, 5, 3)
    for place, label, score in ((0, "O", 1700.0), (1, "I-P", 1200.0), (2, "O", 9.0), (3, "B-P", 9.0), (4, "O", 9.0)):
        emissions[0, place, model.config.labels.index(label)] = score
    scores = {**model.scores(model(**model.encode([{"tokens": ["a"] * 5}]))), "emissions": emissions}
    lengths = torch.tensor([5])
    structure = model.decode(scores, lengths)
    assert [model.config.labels[label] for label in structure["labels"][0]] == ["O", "O", "O", "B-P", "O"]
    found = model.confidences(scores, lengths, structure)["span_scores"][0, 3].item()
    assert found == pytest.approx(0.9996, abs=2e-4)


def _distribution(model, words):
    with torch.no_grad():
        batch = model.encode([{"tokens": words}])
        scores = model.scores(model(**batch))
        return scores, model.distribution(scores, batch["lengths"])


def _projective(heads) -> bool:
    arcs = [sorted((d, h)) for d, h in enumerate(heads, 1)]
    return not any(a < c < b < d for (a, b), (c, d) in itertools.permutations(arcs, 2))


def _check_tags(model, result) -> None:
    words, annotation = result["words"], model.annotation
    _, distribution = _distribution(model, words)
    if hasattr(model, "weight"):  # a span model: its structures are sets of spans
        cells = [(i, j, k) for i in range(len(words)) for j in range(i, len(words)) for k in range(2)]
        chosen = [
            some
            for count in range(len(words) + 1)
            for some in itertools.combinations(cells, count)
            if all(one[1] < other[0] for one, other in itertools.pairwise(sorted(some)))
        ]
        given = [{(i, j, annotation.types[k]) for i, j, k in some} for some in chosen]
        weights = [distribution.log_prob([list(some)]).exp().item() for some in chosen]
        sequences = [tag_spans(some, len(words), "BIO") for some in given]
    else:
        numbers = list(itertools.product(range(len(annotation.labels)), repeat=len(words)))
        weights = distribution.log_prob(torch.tensor(numbers).unsqueeze(1)).exp().flatten().tolist()
        sequences = [[annotation.labels[number] for number in each] for each in numbers]
        given = None
    assert math.isclose(sum(weights), 1, abs_tol=1e-4)
    total = {tuple(tags): weight for tags, weight in zip(sequences, weights, strict=True)}
    assert math.isclose(result["log_prob"], math.log(total[tuple(result["tags"])]), abs_tol=1e-4)
    for place, (tag, score) in enumerate(zip(result["tags"], result["tag_scores"], strict=True)):
        expected = sum(weight for tags, weight in zip(sequences, weights, strict=True) if tags[place] == tag)
        assert math.isclose(score, expected, abs_tol=1e-5)
    if annotation.scheme is None:
        assert "spans" not in result
        return
    assert [(s["start"], s["end"] - 1, s["label"]) for s in result["spans"]] == spans(result["tags"], annotation.scheme)
    for span in result["spans"]:
        start, end, label = span["start"], span["end"], span["label"]
        if given is not None:
            expected = sum(w for some, w in zip(given, weights, strict=True) if (start, end - 1, label) in some)
        else:
            own = result["tags"][start:end]
            goes_on = annotation.scheme == "BIO" and f"I-{label}"
            expected = sum(
                weight
                for tags, weight in zip(sequences, weights, strict=True)
                if tags[start:end] == own and (end == len(words) or tags[end] != goes_on)
            )
        assert math.isclose(span["score"], expected, abs_tol=1e-5)


def _check_tree(model, result) -> None:
    words, annotation = result["words"], model.annotation
    scores, distribution = _distribution(model, words)
    relations = [annotation.relations.index(name) for name in result["relations"]]
    own = [place if head == 0 else head - 1 for place, head in enumerate(result["heads"])]
    if "logits" in scores:  # words choose labels that name a head and a relation
        share = scores["logits"][0].double().softmax(-1)
        named = distribution.heads[0].tolist()
        kinds = [annotation.relations.index(relation) for _, relation in model.config.labels]
        arc = [
            sum(p for p, h in zip(share[d].tolist(), named[d], strict=True) if h == own[d]) for d in range(len(words))
        ]
        both = [
            sum(
                p
                for p, h, r in zip(share[d].tolist(), named[d], kinds, strict=True)
                if (h, r) == (own[d], relations[d])
            )
            for d in range(len(words))
        ]
        log_prob = sum(math.log(each) for each in both)
    else:
        marginals = distribution.marginals[0]
        arc = [marginals[own[d], d].sum().item() for d in range(len(words))]
        both = [marginals[own[d], d, relations[d]].item() for d in range(len(words))]
        event = torch.zeros_like(marginals)
        for d in range(len(words)):
            event[own[d], d, relations[d]] = 1
        log_prob = distribution.log_prob(event.unsqueeze(0)).item()
    np.testing.assert_allclose(result["head_scores"], arc, atol=1e-5)
    np.testing.assert_allclose(result["relation_scores"], both, atol=1e-5)
    assert math.isclose(result["log_prob"], log_prob, abs_tol=1e-4)


def test_two_engines_find_the_same_words() -> None:
    """The pattern means the same to the tokenizers library and to Python; no character but white space is lost."""
    generator = np.random.default_rng(0)
    pattern = re.compile(word_pattern())
    alphabet = [*"aAbnNtsSI'\u2019.,:;!?\u2026-@#/\\ \t\n\u00a0\u200b019_()[]{}\"<=>^`|~&", *"\u3002\u0939\u093f\0\x1c"]
    alphabet += ["\U0001f600", "\u200d", "\ufe0f", "www.", "http://", "n't", "'re", "Mr.", "U.S.", "x@y.z"]
    for _ in range(2000):
        text = "".join(generator.choice(alphabet, size=generator.integers(0, 25)))
        words = split_words(text)
        assert words == [(match.group(), match.span()) for match in pattern.finditer(text)], text
        assert all(text[start:end] == word for word, (start, end) in words)
        assert "".join(word for word, _ in words) == re.sub(f"[{SPACE}]", "", text)
        assert [word for sentence in split_sentences(text) for word in sentence] == words


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("He left. She said: no!", ["He left .", "She said : no !"]),
        ("Mr. J. Smith of the U.S. left. So", ["Mr. J. Smith of the U.S. left .", "So"]),
        ("It costs 3.5 etc. and 1,000. yes", ["It costs 3.5 etc. and 1,000 . yes"]),
        ('"Who?" he asked. (Me.) So', ['" Who ? " he asked .', "( Me . )", "So"]),
        ("one line\nanother\r\n\nthird", ["one line", "another", "third"]),
        ("Wait... What?! Yes", ["Wait ...", "What ? !", "Yes"]),
        ("\u4f60\u597d\u3002\u518d\u89c1\uff01", ["\u4f60\u597d \u3002", "\u518d\u89c1 \uff01"]),
        ("a.b C", ["a . b C"]),
        ("can't O'Brien's l'homme don\u2019t", ["ca n't O'Brien 's l'homme do n\u2019t"]),
        ("see https://x.org/a?b=1, or me@x.org!", ["see https://x.org/a?b=1 , or me@x.org !"]),
    ],
)
def test_the_rule_of_words_and_sentences(text, sentences) -> None:
    assert [" ".join(word for word, _ in sentence) for sentence in split_sentences(text)] == sentences


def test_other_input_is_refused(models) -> None:
    model = models["upos"]
    for given, message in (
        (b"Ana", "a list of lists of words; got bytes"),
        (7, "got int"),
        ({"words": ["Ana"]}, "got dict"),
        ({"Ana"}, "got set"),
        ([["Ana", 3]], r"Sentence 0 \(from 0\) must be a text or a list of words, and holds 3 of type int"),
        (["Ana", None], r"Sentence 1 .* holds None of type NoneType"),
    ):
        with pytest.raises(TypeError, match=message):
            model.annotate(given)
    with pytest.raises(ValueError, match="position 2, a half of a surrogate pair"):
        model.annotate("a \ud800")
    for size in (0, True, 1.5):
        with pytest.raises(ValueError, match=f"batch_size must be a whole number of at least 1, got {size}"):
            model.annotate(["Ana"], batch_size=size)


def test_parts_of_speech_are_passed_on(models) -> None:
    encoder = HeadLabelerRecipe(encoder=ENCODER, encoding="relative_pos")
    text = TEXT.add_column("upos", [["NOUN", "VERB", "NOUN"], ["NOUN"], ["NOUN", "VERB", "NOUN", "VERB"], ["X"] * 3])
    model = encoder.create(TREE, text, text)
    with pytest.raises(ValueError, match="has no parts of speech"):
        model.annotate([["Ana", "runs"]])
    assert len(model.annotate([Sentence(["Ana", "runs"], upos=["NOUN", "VERB"])])[0]["heads"]) == 2


@pytest.mark.parametrize("name", RECIPES)
def test_the_best_structures_are_the_most_probable_legal_ones(name, models) -> None:
    model = models[name].eval()
    for result in model.annotate(WORDS, scores=True, best=4):
        best = result["best"]
        keys = [key for key in ("tags", "heads", "relations") if key in result]
        assert [best[0][key] for key in keys] == [result[key] for key in keys]
        assert math.isclose(best[0]["log_prob"], result["log_prob"], abs_tol=1e-4)
        if "tags" in result:
            assert [each["log_prob"] for each in best] == sorted((each["log_prob"] for each in best), reverse=True)
        elif name != "head_labels" and result["words"]:  # trees are ranked by their arcs
            scores, _ = _distribution(model, result["words"])
            arcs = model.arc_scores(scores, torch.tensor([len(result["words"])]))[0]

            def total(heads, arcs=arcs):
                return sum(arcs[h - 1 if h else d, d].item() for d, h in enumerate(heads))

            several = itertools.product(range(len(result["words"]) + 1), repeat=len(result["words"]))
            trees = [t for t in several if tree_fault(t) is None and (name != "projective" or _projective(t))]
            expected = sorted(map(total, trees), reverse=True)[:4]
            np.testing.assert_allclose([total(each["heads"]) for each in best], expected, atol=1e-4)
        assert len({str([each[key] for key in keys]) for each in best}) == len(best)
        if "tags" in result and name != "spans" and result["words"]:
            annotation, (_, distribution) = model.annotation, _distribution(model, result["words"])
            numbers = list(itertools.product(range(len(annotation.labels)), repeat=len(result["words"])))
            legal = [each for each in numbers if annotation.fault({"labels": each}) is None]
            values = distribution.log_prob(torch.tensor(legal).unsqueeze(1)).flatten()
            expected = values.topk(min(4, len(legal))).values.tolist()
            np.testing.assert_allclose([each["log_prob"] for each in best], expected, atol=1e-4)
    for sentence in (["Ana", "runs"], ["Ben"]):
        if "heads" in keys and name != "head_labels":  # trees of two words: two; of one: one
            assert len(model.annotate([sentence], best=4)[0]["best"]) == len(sentence)
    with pytest.raises(ValueError, match="best must be a whole number of at least 1, got 0"):
        model.annotate([["a"]], best=0)
