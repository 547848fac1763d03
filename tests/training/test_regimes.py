"""Who sees what: disjoint, nested, reproducible."""

import pytest

from structkd.data.toy import load_toy
from structkd.training import draw_regime


def test_the_student_learns_from_what_the_teacher_has_not_seen() -> None:
    corpus = load_toy()
    regime = draw_regime(corpus, teacher=70, labelled=15, unlabelled=40, seed=3)
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
        regime = draw_regime(corpus, teacher=70, labelled=15, unlabelled=40, **seeds)
        return regime.teacher["id"][:], regime.labelled["id"][:], regime.unlabelled["id"][:]

    assert names(seed=1) == names(seed=1)
    one, other = names(seed=1), names(seed=2)
    assert one[0] == other[0], "all students have the same teacher"
    assert one[1] != other[1]
    assert one[2] != other[2]
    assert names(teacher_seed=1)[0] != names(teacher_seed=2)[0]


def test_a_teacher_may_take_everything_if_the_student_needs_no_more() -> None:
    corpus = load_toy()
    regime = draw_regime(corpus, teacher=None, labelled=5, unlabelled=0)
    assert (len(regime.teacher), len(regime.labelled), len(regime.unlabelled)) == (120, 5, 0)
    with pytest.raises(ValueError, match="leaves 0"):
        draw_regime(corpus, teacher=None, labelled=5, unlabelled=1)
    with pytest.raises(ValueError, match=r"student\.labelled=71"):
        draw_regime(corpus, teacher=70, labelled=71, unlabelled=1)
    with pytest.raises(ValueError, match=r"teacher\.labelled=0"):
        draw_regime(corpus, teacher=0, labelled=1, unlabelled=1)
