"""What names a training: equal for equal content, another for whatever a model reads."""

from datasets import Dataset

from structkd.runs.fingerprint import text_fingerprint
from structkd.runs.identity import canonical, digest

ROWS = {"id": ["a", "b"], "tokens": [["one"], ["two", "words"]], "upos": [["NUM"], ["NUM", "NOUN"]]}


def test_text_is_known_by_what_models_read() -> None:
    known = text_fingerprint(Dataset.from_dict(ROWS))
    assert text_fingerprint(Dataset.from_dict(ROWS | {"labels": [[0], [0, 1]]})) == known
    assert text_fingerprint(Dataset.from_dict(ROWS).select([1, 0]).select([1, 0])) == known
    others = [
        ROWS | {"id": ["a", "c"]},
        ROWS | {"tokens": [["one"], ["two", "Words"]]},
        ROWS | {"upos": [["NUM"], ["NUM", "VERB"]]},
        {name: ROWS[name] for name in ("id", "tokens")},
        {name: values[:1] for name, values in ROWS.items()},
    ]
    found = [text_fingerprint(Dataset.from_dict(other)) for other in others]
    assert len({known, *found}) == 6


def test_whole_numbers_are_of_one_kind() -> None:
    settings = {"temperature": 1.0, "layers": [2, 2.5, True, None], "name": "1.0"}
    assert digest(canonical(settings)) == digest(canonical(settings | {"temperature": 1}))
    assert canonical(settings) == {"temperature": 1, "layers": [2, 2.5, True, None], "name": "1.0"}
    assert digest(canonical(settings)) != digest(canonical(settings | {"temperature": 1.5}))
