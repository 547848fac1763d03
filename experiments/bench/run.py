"""Measure what the structural loss costs and write experiments/results/bench.md: what `make bench` calls.

    python experiments/bench/run.py [--quick] [--rounds 15] [--output DIR]

Forward and backward of the loss are timed on one thread, all implementations in turns: structkd's compiled kernels,
torch and log-space paths, plain torch-struct, a log-space forward recursion under autograd and, where it can be
imported, pytorch-crf. Then come teachers of other families, the cost of scores of -inf for illegal transitions, the
error of float32 gradients, the peak memory of fresh processes, how time grows with the size, what distillation adds
to a training step and, where there is a GPU, the loss of chains on it. About 3 minutes on a quiet core.
"""

from __future__ import annotations

import os

# before torch is imported, which reads it once
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import checking
import gpu
import projections
import tables
import torch
import training_step
from contenders import (
    CHECKED,
    COMPILED,
    DENSE,
    FACTORED,
    NON_PROJECTIVE,
    PROJECTIVE,
    TORCH,
    TORCH_STRUCT,
    Case,
    check_agreement,
    compiled_kernels,
    contenders,
    gradient_errors,
    masked_and_plain,
    torchcrf,
)
from measuring import Times, exponent, interleaved, peak_of_fresh_process
from training_step import BILSTM, MINILM, PARSING

HERE = Path(__file__).resolve().parent

CASES = [
    Case(FACTORED, 32, 32, 9, compiled_goal=50, torch_goal=18),
    Case(FACTORED, 32, 32, 17, compiled_goal=150, torch_goal=64),
    Case(FACTORED, 8, 32, 33, compiled_goal=400, torch_goal=120),
    Case(DENSE, 32, 64, 9, compiled_goal=33, torch_goal=10),
    Case(DENSE, 32, 64, 17, compiled_goal=75, torch_goal=20),
    Case(DENSE, 8, 64, 33, compiled_goal=230, torch_goal=54),
    Case(PROJECTIVE, 32, 8, compiled_goal=43),
    Case(PROJECTIVE, 32, 16, compiled_goal=30),
    Case(PROJECTIVE, 32, 32, compiled_goal=20),
    Case(PROJECTIVE, 32, 64, compiled_goal=16),
    Case(NON_PROJECTIVE, 32, 8, torch_goal=1.7),
    Case(NON_PROJECTIVE, 32, 32, torch_goal=1.5),
    Case(NON_PROJECTIVE, 32, 64, torch_goal=1.4),
]
MASKED = [case for case in CASES if case.structure == FACTORED]
QUICK_CASES = [Case(FACTORED, 2, 8, 5), Case(DENSE, 2, 8, 5), Case(PROJECTIVE, 2, 6), Case(NON_PROJECTIVE, 2, 6)]

MEMORY = [Case(FACTORED, 32, 512, 512), Case(DENSE, 32, 64, 33), Case(PROJECTIVE, 32, 64), Case(NON_PROJECTIVE, 32, 64)]
#: torch-struct is not asked to hold a tensor of more bytes.
LARGEST_TENSOR = 10**9

#: What grows, the cases in order of size, and the largest size for implementations that take long.
SCALING: list[tuple[str, str, list[Case], dict[str, int]]] = [
    ("words", "chain, C=17", [Case(FACTORED, 16, n, 17) for n in (16, 32, 64, 128, 256, 512)], {TORCH_STRUCT: 64}),
    ("labels", "chain, N=32", [Case(FACTORED, 16, 32, c) for c in (8, 16, 32, 64, 128)], {TORCH_STRUCT: 32}),
    (
        "words",
        "projective trees",
        [Case(PROJECTIVE, 16, n) for n in (8, 16, 32, 64, 128)],
        {TORCH: 64, TORCH_STRUCT: 64},
    ),
    ("words", "non-projective trees", [Case(NON_PROJECTIVE, 16, n) for n in (8, 16, 32, 64, 128)], {}),
]

#: Head and encoder of the students whose training steps are timed.
TRAINING = [("crf", BILSTM), ("maxent", BILSTM), ("crf", MINILM), (PARSING[0], BILSTM), (PARSING[1], BILSTM)]

BEGUN = time.monotonic()
PARTS = ("losses", "projections", "masks", "accuracy", "memory", "scaling", "training", "checking", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small sizes, to see whether everything works")
    parser.add_argument("--rounds", type=int, help="turns of every implementation (default: 15, quick: 3)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    parser.add_argument("--output", type=Path, default=HERE.parent / "results", help="where the report goes")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        sys.exit(f"--rounds must be at least 1, got {options.rounds}.")
    torch.set_num_threads(1)
    # torch-struct's classes declare no constraints, which torch reports for each
    warnings.filterwarnings("ignore", message=".*does not define `arg_constraints`")
    warnings.filterwarnings("ignore", message="where received a uint8 condition tensor")  # pytorch-crf

    results: dict[str, Any] = {"quick": options.quick, "environment": _environment(), "left_out": _left_out()}
    print(tables.environment(results), flush=True)
    rounds = options.rounds or (3 if options.quick else 15)
    measure: dict[str, Callable[[], Any]] = {
        "memory": lambda: [_memory(case, options.quick) for case in (QUICK_CASES[3:] if options.quick else MEMORY)],
        "losses": lambda: [_losses(case, rounds) for case in (QUICK_CASES if options.quick else CASES)],
        "projections": lambda: _projections(rounds, options.quick),
        "masks": lambda: [_masks(case, rounds) for case in (QUICK_CASES[:1] if options.quick else MASKED)],
        "accuracy": lambda: [_accuracy(structure, 1 if options.quick else 5) for structure in (FACTORED, DENSE)],
        "scaling": lambda: [
            _scaling(*growing, rounds, options.quick) for growing in (SCALING[:1] if options.quick else SCALING)
        ],
        "training": lambda: [
            _training(head, encoder, rounds, options.quick)
            for head, encoder in (TRAINING[:1] if options.quick else TRAINING)
        ],
        "checking": lambda: _checking(rounds, options.quick),
        "gpu": lambda: gpu.measure(rounds, options.quick) if torch.cuda.is_available() else [],
    }
    for part, run in measure.items():
        results[part] = run() if part in options.parts else []
    results["seconds"] = time.monotonic() - BEGUN
    paths = tables.write(results, options.output)
    print("\n" + paths[0].read_text(encoding="utf-8"))
    for path in paths:
        print(f"written: {path}")


def _checking(rounds: int, quick: bool) -> list[dict[str, Any]]:
    rows = checking.measure(rounds, quick)
    for row in rows:
        _say(
            f"loading {row['bytes'] / 1e6:.1f} MB checked: {row['checked_ms'] / row['unchecked_ms']:.2f} times as long"
        )
    return rows


def _say(text: str) -> None:
    seconds = int(time.monotonic() - BEGUN)
    print(f"{seconds // 60}:{seconds % 60:02d}  {text}", flush=True)


def _environment() -> dict[str, Any]:
    """Machine, versions, threads and load, as they are at the start."""

    def installed(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    processor = platform.processor()
    described = Path("/proc/cpuinfo")
    if described.exists():
        names = [line.split(":", 1)[1].strip() for line in described.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    packages = ("structkd", "torch", "torch-struct", "numba", "numpy", "pytorch-crf")
    return {
        "machine": platform.machine(),
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
        "versions": {"python": platform.python_version(), **{package: installed(package) for package in packages}},
    }


def _left_out() -> list[str]:
    notes = []
    if not compiled_kernels():
        notes.append("The compiled kernels are left out: they need `pip install structkd[fast]`.")
    if torchcrf is None:
        notes.append(
            "pytorch-crf is left out: it cannot be imported. `make bench` installs it into a folder of its own; it is "
            "no dependency."
        )
    return notes


def _losses(case: Case, rounds: int) -> dict[str, Any]:
    functions = contenders(case)
    difference = check_agreement(case, functions)
    times = interleaved(functions, rounds, seconds=7.0)
    shown = ", ".join(f"{name} {measured.median_cpu:.2f}" for name, measured in times.items() if CHECKED not in name)
    _say(f"{case.title}, ms of CPU: {shown}")
    return {
        **asdict(case),
        "largest_difference_of_losses": difference,
        "times": {name: measured.as_json() for name, measured in times.items()},
    }


def _projections(rounds: int, quick: bool) -> dict[str, Any]:
    batch, words = (4, 8) if quick else (32, 32)
    times = interleaved(projections.pairs(batch, words), min(rounds, 7), seconds=1.0 if quick else 10.0)
    for name, measured in times.items():
        _say(f"{name}, ms of CPU: {measured.median_cpu:.2f}")
    return {"batch": batch, "words": words, "times": {name: measured.as_json() for name, measured in times.items()}}


def _masks(case: Case, rounds: int) -> dict[str, Any]:
    times: dict[tuple[str, bool], Times] = interleaved(masked_and_plain(case), rounds, seconds=5.0)
    paths = list(dict.fromkeys(path for path, _ in times))
    ratios = {path: times[path, True].median_cpu / times[path, False].median_cpu for path in paths}
    _say(f"{case.title}, masked over plain: " + ", ".join(f"{path} {ratio:.2f}" for path, ratio in ratios.items()))
    return {**asdict(case), "ratios": ratios}


def _accuracy(structure: str, seeds: int) -> dict[str, Any]:
    case, scale = Case(structure, 4, 64, 17), 3.0
    errors = gradient_errors(case, scale, seeds)
    _say(f"{case.title}, error of the gradient: " + ", ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    return {**asdict(case), "scale": scale, "draws": seeds, "errors": errors}


def _memory(case: Case, quick: bool) -> dict[str, Any]:
    names = [COMPILED] if compiled_kernels() and not quick else []
    names += [TORCH]
    potentials = 4 * case.batch * (case.words - 1) * case.labels**2
    # its first step multiplies pairs of neighbouring bigrams in log space
    product = potentials * case.labels // 2
    if product <= LARGEST_TENSOR:
        names.append(TORCH_STRUCT)

    def peak(name: str) -> int | str:
        return peak_of_fresh_process([str(HERE / "peak.py"), json.dumps(asdict(case)), name])

    inputs, *rest = map(peak, ["none", *names])
    if isinstance(inputs, str):
        raise RuntimeError(f"The scores of {case.title} cannot be built: {inputs}.")
    peaks = {
        name: held if isinstance(held, str) else max(0, held - inputs) for name, held in zip(names, rest, strict=True)
    }
    _say(
        f"{case.title}, MB beyond the inputs: "
        + ", ".join(f"{name} {tables.megabytes(held)}" for name, held in peaks.items())
    )
    return {
        **asdict(case),
        "bytes_before": inputs,
        "bytes": peaks,
        "potentials_bytes": potentials,
        "torch_struct_bytes": product,
    }


def _scaling(
    growing: str, title: str, cases: list[Case], limits: dict[str, int], rounds: int, quick: bool
) -> dict[str, Any]:
    if quick:
        cases = [replace(case, batch=2, words=max(4, case.words // 4)) for case in cases[:3]]
    functions = {}
    for case in cases:
        for name, run in contenders(case, only=(COMPILED, TORCH, TORCH_STRUCT)).items():
            if getattr(case, growing) <= limits.get(name, 10**9):
                functions[name, getattr(case, growing)] = run
    times: dict[tuple[str, int], Times] = interleaved(functions, min(rounds, 7), seconds=1.0 if quick else 6.0)
    lines: dict[str, Any] = {}
    for (name, size), measured in times.items():
        line = lines.setdefault(name, {"sizes": [], "cpu_ms": []})
        line["sizes"].append(size)
        line["cpu_ms"].append(measured.median_cpu)
    for line in lines.values():
        line["exponent"] = exponent(line["sizes"], line["cpu_ms"])
        line["last_exponent"] = exponent(line["sizes"][-2:], line["cpu_ms"][-2:])
    shown = ", ".join(f"{name} {line['exponent']:.2f}" for name, line in lines.items())
    symbol = "N" if growing == "words" else "C"
    _say(f"{title}, B={cases[0].batch}, exponent of {symbol}: {shown}")
    return {"growing": symbol, "title": title, "batch": cases[0].batch, "lines": lines}


def _training(head: str, encoder: str, rounds: int, quick: bool) -> dict[str, Any]:
    row = {"head": head, "encoder": encoder}
    try:
        functions = training_step.parsing_steps(head) if head in PARSING else training_step.steps(head, encoder)
    except FileNotFoundError as error:
        _say(f"training step, {encoder}, {head}: left out. {error}")
        return row | {"times": None}
    times = interleaved(functions, 2 * rounds, seconds=1.0 if quick else 8.0 if encoder == BILSTM else 30.0)
    shown = ", ".join(f"{name} {t.median_cpu:.2f}" for name, t in times.items())
    _say(f"training step, {encoder}, {head}, ms of CPU: {shown}")
    return row | {"times": {name: measured.as_json() for name, measured in times.items()}}


if __name__ == "__main__":
    main()
