"""The distance to the teacher against enumeration and against the distributions' own KL; speed of what was loaded."""

import pytest
import torch

from structkd import Mixture
from structkd.data import load_toy
from structkd.models import BiLSTMRecipe, SpanRecipe, TaggerRecipe
from structkd.teachers import Trained
from structkd.training import TeacherMixture, TeacherScores, divergence, predict, words_per_second
from structkd.training.measurement import share_of_illegal

TINY = BiLSTMRecipe(word_size=8, character_size=4, character_filters=4, hidden_size=8, layers=1)


@pytest.fixture(scope="module")
def corpus():
    return load_toy(train=30)


def create(corpus, recipe, seed: int):
    torch.manual_seed(seed)
    model = recipe.create(corpus.annotation, corpus.splits["train"], corpus.splits["train"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)
    return model.eval()


@pytest.mark.parametrize("head", ["crf", "maxent"])
def test_divergence_is_the_mean_kl_of_the_distributions(corpus, head: str) -> None:
    text = corpus.splits["dev"].select(range(11))
    teacher, student = (create(corpus, TaggerRecipe(encoder=TINY, head=head), seed) for seed in (1, 2))
    found = divergence(student, TeacherScores.compute(teacher, text), text, batch_size=4)
    total = 0.0
    for row in range(len(text)):
        batch = student.encode([text[row]])
        with torch.no_grad():
            both = [model.distribution(model.scores(model(**batch)), batch["lengths"]) for model in (teacher, student)]
        total += both[0].kl(both[1]).item()
    words = sum(len(tokens) for tokens in text["tokens"])
    assert found["kl"] == pytest.approx(total / 11, rel=1e-4)
    assert found["kl_per_word"] == pytest.approx(total / words, rel=1e-4)
    same = divergence(teacher, TeacherScores.compute(teacher, text), text)
    assert same["kl"] == pytest.approx(0.0, abs=1e-4)


def test_divergence_of_incompatible_factorizations_is_not_negative(corpus) -> None:
    """A chain against independent words, and spans against tags: KL between distributions over the same structures."""
    text = corpus.splits["dev"].select(range(11))
    student = create(corpus, TaggerRecipe(encoder=TINY, head="maxent"), 2)
    for recipe in (TaggerRecipe(encoder=TINY, head="crf"), SpanRecipe(encoder=TINY)):
        found = divergence(student, TeacherScores.compute(create(corpus, recipe, 1), text), text)
        assert found["kl"] > 0.01


def test_a_mixture_is_refused(corpus) -> None:
    text = corpus.splits["dev"].select(range(3))
    model = create(corpus, TaggerRecipe(encoder=TINY), 1)
    mixture = TeacherMixture([TeacherScores.compute(model, text)] * 2, [1, 1])
    assert isinstance(mixture.distribution(mixture.batch([0]), torch.tensor([len(text[0]["tokens"])])), Mixture)
    with pytest.raises(NotImplementedError, match="Mixture"):
        divergence(model, mixture, text)


def test_a_teacher_of_another_tag_scheme_is_refused(corpus, tmp_path) -> None:
    create(corpus, TaggerRecipe(encoder=TINY), 1).save_pretrained(tmp_path)
    other = load_toy(train=30, scheme="BIO")
    text = other.splits["dev"].select(range(3))
    given = Trained(str(tmp_path)).open(other.annotation)
    with pytest.raises(NotImplementedError, match="Relabelled"):
        divergence(create(other, TaggerRecipe(encoder=TINY), 2), TeacherScores.compute(given, text), text)


def test_the_share_of_sentences_without_legal_probability(corpus) -> None:
    """A teacher that is certain of I- tags from the first word on, the same at random, and a mixture of both."""
    text = corpus.splits["dev"].select(range(11))
    students = [create(corpus, TaggerRecipe(encoder=TINY, head="maxent", legal=legal), 2) for legal in (True, False)]
    teachers = []
    for strength in (0.0, 1000.0):
        model = create(corpus, TaggerRecipe(encoder=TINY, head="maxent"), 1)
        with torch.no_grad():
            model.emission.bias += strength * torch.tensor([tag.startswith("I-") for tag in model.config.labels])
        teachers.append(TeacherScores.compute(model, text))
    both = TeacherMixture(teachers, [0.5, 0.5])
    assert [share_of_illegal(students[0], teacher, text) for teacher in (*teachers, both)] == [0.0, 1.0, 0.0]
    assert share_of_illegal(students[1], teachers[1], text) == 0.0, "a student of free tags asks for nothing"


def test_models_that_were_loaded_annotate_and_are_timed(corpus, tmp_path) -> None:
    text = corpus.splits["dev"]
    recipes = {head: TaggerRecipe(encoder=TINY, head=head) for head in ("crf", "maxent")}
    models = {}
    for name, recipe in recipes.items():
        made = create(corpus, recipe, 1)
        made.save_pretrained(tmp_path / name)
        models[name] = recipe.load(tmp_path / name)
        assert predict(models[name], text) == predict(made, text)
    threads = torch.get_num_threads()
    speed = words_per_second(models, text)
    assert speed.keys() == models.keys()
    assert all(value > 100 for value in speed.values())
    assert torch.get_num_threads() == threads
