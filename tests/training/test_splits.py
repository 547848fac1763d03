"""Who sees what: disjoint, nested, reproducible."""

import pytest
from datasets import Dataset

from structkd.data import Transfer, load_toy
from structkd.training import draw_splits


def test_the_student_learns_from_what_the_teacher_has_not_seen() -> None:
    corpus = load_toy()
    regime = draw_splits(corpus, teacher=70, labelled=15, unlabelled=40, seed=3)
    teacher, labelled, unlabelled = (set(part["id"]) for part in (regime.teacher, regime.labelled, regime.unlabelled))
    assert (len(teacher), len(labelled), len(unlabelled)) == (70, 15, 40)
    assert labelled < teacher
    assert not unlabelled & teacher
    assert {label for labels in regime.unlabelled["labels"] for label in labels} == {-100}
    assert -100 not in {label for labels in regime.labelled["labels"] for label in labels}
    train = dict(zip(corpus.splits["train"]["id"], corpus.splits["train"]["tokens"], strict=True))
    assert all(
        train[name] == tokens for name, tokens in zip(regime.unlabelled["id"], regime.unlabelled["tokens"], strict=True)
    )


def test_draws_follow_their_seeds() -> None:
    corpus = load_toy()

    def names(**seeds: int) -> tuple[list[str], list[str], list[str]]:
        regime = draw_splits(corpus, teacher=70, labelled=15, unlabelled=40, **seeds)
        return regime.teacher["id"][:], regime.labelled["id"][:], regime.unlabelled["id"][:]

    assert names(seed=1) == names(seed=1)
    one, other = names(seed=1), names(seed=2)
    assert one[0] == other[0], "all students have the same teacher"
    assert one[1] != other[1]
    assert one[2] != other[2]
    assert names(teacher_seed=1)[0] != names(teacher_seed=2)[0]


def test_a_teacher_may_take_everything_if_the_student_needs_no_more() -> None:
    corpus = load_toy()
    regime = draw_splits(corpus, teacher=None, labelled=5, unlabelled=0)
    assert (len(regime.teacher), len(regime.labelled), len(regime.unlabelled)) == (120, 5, 0)
    with pytest.raises(ValueError, match="less the teacher's 120, has 0 sentences"):
        draw_splits(corpus, teacher=None, labelled=5, unlabelled=1)
    with pytest.raises(ValueError, match=r"student\.labelled=71"):
        draw_splits(corpus, teacher=70, labelled=71, unlabelled=1)
    with pytest.raises(ValueError, match=r"teacher\.labelled=0"):
        draw_splits(corpus, teacher=0, labelled=1, unlabelled=1)


def test_a_student_may_share_all_labels_or_have_none() -> None:
    corpus = load_toy()
    assert (
        draw_splits(corpus, teacher=70, labelled=None, unlabelled=3).labelled["id"][:]
        == (draw_splits(corpus, teacher=70, labelled=70, unlabelled=3).teacher["id"][:])
    )
    regime = draw_splits(corpus, teacher=70, labelled=0, unlabelled=3)
    assert (len(regime.labelled), len(regime.unlabelled)) == (0, 3)
    with pytest.raises(ValueError, match="nothing to learn from"):
        draw_splits(corpus, teacher=70, labelled=0, unlabelled=0)


def test_the_text_of_another_domain_is_the_targets_without_its_labels() -> None:
    # another seed is another text; the loader of a transfer sees to it that none of it is the test's
    source, target = load_toy(seed=1), load_toy(train=60, seed=2)
    repeated = {tuple(tokens) for tokens in target.splits["test"]["tokens"]}
    assert not repeated & {tuple(tokens) for tokens in source.splits["train"]["tokens"]}
    regime = draw_splits(Transfer(source, target), teacher=None, labelled=10, unlabelled=60)
    assert set(regime.teacher["id"]) == set(source.splits["train"]["id"])
    assert sorted(regime.unlabelled["tokens"]) == sorted(target.splits["train"]["tokens"])
    assert {label for labels in regime.unlabelled["labels"] for label in labels} == {-100}
    with pytest.raises(ValueError, match=r"student\.unlabelled=61: the training split of toy, has 60"):
        draw_splits(Transfer(source, target), teacher=None, labelled=10, unlabelled=61)


def test_plain_text_loses_what_occurs_in_test() -> None:
    corpus = load_toy()
    sentences = [["a", "b"], corpus.splits["test"][3]["tokens"], ["c"]]
    text = Dataset.from_dict({"id": ["0", "1", "2"], "tokens": sentences})
    regime = draw_splits(corpus, teacher=None, labelled=10, unlabelled=2, text=text)
    assert regime.unlabelled["tokens"][:] == [["a", "b"], ["c"]]
    assert regime.unlabelled["labels"][:] == [[-100, -100], [-100]]
    assert regime.note.startswith("1 sentences of the unlabelled text occur in test")
    with pytest.raises(ValueError, match="the text given, has 2"):
        draw_splits(corpus, teacher=None, labelled=10, unlabelled=3, text=text)
    with pytest.raises(ValueError, match=r"student\.unlabelled=null takes the whole text"):
        draw_splits(corpus, teacher=None, labelled=10, unlabelled=0, text=text)
    everything = draw_splits(corpus, teacher=None, labelled=10, unlabelled=None, text=text)
    assert everything.unlabelled["tokens"][:] == regime.unlabelled["tokens"][:]


def test_null_takes_all_there_are() -> None:
    corpus = load_toy()
    assert len(draw_splits(corpus, teacher=70, labelled=None, unlabelled=None).unlabelled) == 50
    whole = draw_splits(corpus, teacher=None, labelled=None, unlabelled=None)
    assert (len(whole.teacher), len(whole.labelled), len(whole.unlabelled)) == (120, 120, 0)
