"""Run folders as the command writes them (format 3), of made-up models whose figures follow from predictions."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SENTENCES = 120
TAGS = {
    "name": "made-up",
    "task": "entities",
    "annotation": {"kind": "tags", "labels": ["O", "B-X", "I-X"], "scheme": "BIO"},
    "fingerprint": "f00d",
    "licence": "CC0",
    "source": "here",
    "notes": "Invented.",
    "sentences": {"train": 900, "dev": 60, "test": SENTENCES},
}
TREES = TAGS | {
    "name": "made-up trees",
    "task": "dependencies",
    "annotation": {"kind": "tree", "relations": ["root"], "multiroot": False},
    "fingerprint": "7733",
}
ENVIRONMENT = {"python": "3.11.7", "structkd": "0.1.0", "torch": "2.13.0"}
COMPARISONS = (("structural", "token"), ("structural", "none"))
#: How good a model is: the share of what it finds.
QUALITY = {"teacher": 0.92, "none": 0.70, "token": 0.80, "structural": 0.88}


def counted(quality: float, seed: int, sentences: int = SENTENCES) -> np.ndarray:
    """Correct, predicted and gold of every test sentence, [sentences, 3]. Sentences are the same for every seed."""
    gold = np.random.default_rng(7).integers(0, 6, size=sentences)
    generator = np.random.default_rng([seed, int(1e6 * quality)])
    correct = generator.binomial(gold, min(quality, 1.0))
    return np.stack([correct, gold, gold], axis=1)


def f1(table: np.ndarray) -> float:
    correct, predicted, gold = (int(total) for total in table.sum(axis=0))
    return 2 * correct / (predicted + gold)


def model(
    role: str,
    method: str,
    seed: int,
    *,
    metric: str = "f1",
    quality: float | None = None,
    temperature: float = 1.0,
    unlabelled: int = 1500,
    sentences: int = SENTENCES,
    **settings: Any,
) -> dict[str, Any]:
    """A result of a run, and under "counts" what its predictions count."""
    quality = QUALITY.get(method, 0.8) if quality is None else quality
    tables = {metric: counted(quality, seed, sentences)}
    if metric in ("f1", "las"):
        tables |= {{"f1": "accuracy", "las": "uas"}[metric]: counted(min(1.0, quality + 0.04), seed, sentences)}
    test = {name: f1(table) for name, table in tables.items()}
    dev = {name: value - 0.01 for name, value in test.items()}
    steps = 800 if role == "teacher" else 600
    history = [
        {"step": step, **{name: value * (1 - 0.6 * np.exp(-5 * step / steps)) for name, value in dev.items()}}
        for step in range(100, steps + 1, 100)
    ]
    student, distilled = role == "student", role == "student" and method != "none"
    loss = {"temperature": temperature} if distilled else None
    method_settings = {"name": method, "loss": loss, "interpolation": None}
    chosen = {
        "model": {"_target_": "structkd.models.CRFRecipe" if role == "teacher" else "structkd.models.MaxEntRecipe"},
        "trainer": {"max_steps": steps},
        "patience": None,
        "batch_words": None,
        "select": "best",
        "labelled": 100 if student else 4000,
        "unlabelled": unlabelled if distilled else 0,
        "method": method_settings if student else None,
        **settings,
    }
    folder = f"{role}-{abs(hash((method, seed, json.dumps(chosen)))):x}"
    kl = None if not student else {"kl": 20 * (0.95 - quality) + 0.1 * (seed % 3), "kl_per_word": 0.95 - quality}
    return {
        "role": role,
        "method": method,
        "seed": seed,
        "folder": folder,
        "labelled": chosen["labelled"],
        "unlabelled": chosen["unlabelled"],
        "parameters": 1_700_000 if role == "teacher" else 400_000,
        "steps": steps,
        "best_step": steps - 100,
        "settings": chosen,
        "history": history,
        "dev": dev,
        "test": test,
        "divergence": kl,
        "counts": tables,
    }


def save_run(
    folder: Path,
    results: Sequence[Mapping[str, Any]],
    *,
    scenario: str = "case1a",
    seed: int = 0,
    metric: str = "f1",
    data: Mapping[str, Any] = TAGS,
    comparisons: Sequence[Sequence[str]] = COMPARISONS,
    overrides: Sequence[str] | None = None,
    command: str | None = None,
    finished: str = "2026-01-01T00:00:00+00:00",
    elsewhere: Sequence[Sequence[str]] = (),
) -> Path:
    """Write a finished run."""
    (folder / "predictions").mkdir(parents=True)
    save_configuration(folder)
    overrides = [f"scenario={scenario}", f"seed={seed}"] if overrides is None else list(overrides)
    for result in results:
        with gzip.open(folder / "predictions" / f"{result['method']}.jsonl.gz", "wt", encoding="utf-8") as lines:
            for row in range(len(next(iter(result["counts"].values())))):
                # what the sentences are is not the report's business
                counts = {name: table[row].tolist() for name, table in result["counts"].items()}
                line = {"id": str(row), "tokens": ["w"], "gold": {}, "predicted": {}, "counts": counts}
                lines.write(json.dumps(line) + "\n")
    speeds = {
        result["method"]: {
            "seconds": 12.5,
            "resumed_from": None,
            "words_per_second": (4000.0 if result["role"] == "teacher" else 18000.0) + 100 * seed,
        }
        for result in results
    }
    write(
        folder / "run.json",
        {
            "format": 1,
            "command": command or f"structkd {' '.join(overrides)}",
            "overrides": overrides,
            "work_dir": "/somewhere",
            "environment": ENVIRONMENT,
            "finished": finished,
            "results": speeds,
        },
    )
    write(
        folder / "metrics.json",
        {
            "format": 3,
            "scenario": scenario,
            "method": "structural",
            "seed": seed,
            "metric": metric,
            "data": {
                **data,
                "sentences": {**data["sentences"], "test": len(next(iter(results[0]["counts"].values())))},
            },
            "comparisons": [list(pair) for pair in comparisons],
            **({"elsewhere": [list(pair) for pair in elsewhere]} if elsewhere else {}),
            "fingerprint": "abc",
            "results": [{name: value for name, value in result.items() if name != "counts"} for result in results],
        },
    )
    return folder


def save_failure(folder: Path, message: str, overrides: Sequence[str], error: str = "ValueError") -> None:
    """Write what a failed run leaves."""
    save_configuration(folder)
    failure = {
        "error": error,
        "message": message,
        "traceback": f"Traceback (most recent call last):\n  ...\n{error}: {message}\n",
        "overrides": list(overrides),
        "sweep": None,
        "time": "2026-01-01T00:00:00+00:00",
    }
    write(folder / "failed.json", failure)


def save_configuration(folder: Path) -> None:
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text("seed: 0\n")


def write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def save_everything(root: Path, seeds: int = 10, sentences: int = SENTENCES) -> None:
    """Sweeps as people run them: seeds, temperatures, amounts of text, two teachers, few seeds, failures."""
    size = {"sentences": sentences}
    for seed in range(seeds):
        save_run(
            root / f"runs/scenario=case1a,seed={seed}",
            [
                model("teacher", "teacher", 0, **size),
                model("student", "none", seed, **size),
                model("student", "token", seed, **size),
                model("student", "structural", seed, **size),
            ],
            seed=seed,
            command=f"structkd -m scenario=case1a seed=range({seeds})",
        )
    for seed in range(2):
        for structure, quality in (("head_selection", 0.88), ("nonprojective", 0.9)):
            chosen = {"metric": "las", **size}
            save_run(
                root / f"runs/scenario=case1b,seed={seed},teacher.model.structure={structure}",
                [
                    model("teacher", "teacher", 0, quality=quality, model={"structure": structure}, **chosen),
                    model("student", "none", seed, quality=0.55, **chosen),
                    model("student", "token", seed, quality=0.61, **chosen),
                    model("student", "structural", seed, quality=0.62, **chosen),
                ],
                scenario="case1b",
                seed=seed,
                metric="las",
                data=TREES,
                command="structkd -m scenario=case1b seed=0,1 teacher.model.structure=head_selection,nonprojective",
            )
    for seed in range(2):
        for temperature in (1.0, 2.0, 4.0):
            for unlabelled in (500, 5000):
                at = {"temperature": temperature, "unlabelled": unlabelled, **size}
                better = 0.02 * np.log(unlabelled / 500) - 0.01 * abs(temperature - 2)
                save_run(
                    root / f"runs/scenario=case2a,seed={seed},student.unlabelled={unlabelled},T={temperature:g}",
                    [
                        model("teacher", "teacher", 0, **size),
                        model("student", "none", seed, **size),
                        model("student", "token", seed, quality=0.8 + 0.02 * np.log(unlabelled / 500),
                              unlabelled=unlabelled, **size),
                        model("student", "structural", seed, quality=0.82 + better, **at),
                    ],
                    scenario="case2a",
                    seed=seed,
                    comparisons=[("structural", "token")],
                    command="structkd -m scenario=case2a seed=0,1 student.unlabelled=500,5000 "
                    "kd.loss.temperature=1,2,4",
                )  # fmt: skip
    for seed in range(3):
        for unlabelled in (0, 1000, 4000):
            save_run(
                root / f"runs/scenario=case4,seed={seed},student.unlabelled={unlabelled}",
                [
                    model("teacher", "teacher", 0, **size),
                    model("student", "none", seed, **size),
                    *(
                        model("student", name, seed, quality=base + 0.00002 * unlabelled, unlabelled=unlabelled, **size)
                        for name, base in (("token", 0.74), ("posterior", 0.75), ("pseudo_labels", 0.73),
                                           ("topk", 0.76), ("structural", 0.77))
                    ),
                ],
                scenario="case4",
                seed=seed,
                comparisons=[("structural", "token")],
                command="structkd -m scenario=case4 seed=0,1,2 student.unlabelled=0,1000,4000",
            )  # fmt: skip
    save_failure(
        root / "runs/scenario=case2b,seed=0",
        "kd.loss: StructuralKDLoss takes no local temperature here: use temperature_mode=global.",
        ["scenario=case2b", "seed=0"],
    )
    save_configuration(root / "runs/scenario=case3,seed=7")
    training = root / "student-53fe"
    training.mkdir()
    write(training / "metrics.json", {"role": "student"})


if __name__ == "__main__":
    import sys

    save_everything(Path(sys.argv[1]), sentences=int(sys.argv[2]) if len(sys.argv) > 2 else SENTENCES)
