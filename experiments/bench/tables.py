"""The report of a benchmark: bench.md, bench.json and bench.png."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from contenders import AUTOGRAD, CHECKED, COMPILED, LOG, PYTORCH_CRF, TORCH, TORCH_STRUCT
from training_step import BILSTM, DISTILLED, MINILM, MIXED, SUPERVISED

from structkd.files import replacing, write_json, write_text

NOTHING = "-"
#: With value checks on, ours should keep this share of the pure torch goals.
CHECKED_SHARE = 0.6
#: How much longer than without a mask a chain may take whose illegal transitions score -inf.
MASKED_GOAL = 1.1
#: How much closer to float64 than torch-struct's the gradient should be.
CLOSER_GOAL = 20
#: How much longer than a supervised step a distillation step may take.
OVERHEAD_GOALS = {BILSTM: 1.15, MINILM: 1.05}


def write(results: dict[str, Any], output: Path) -> list[Path]:
    """Write the three files; each is complete or not there."""
    output.mkdir(parents=True, exist_ok=True)
    paths = [output / f"bench.{ending}" for ending in ("md", "json", "png")]
    write_json(paths[1], results)
    if results["scaling"]:
        with replacing(paths[2]) as temporary:
            plot(results["scaling"], temporary)
    else:
        paths.pop()
    write_text(paths[0], markdown(results))
    return paths


def environment(results: Mapping[str, Any]) -> str:
    """Where and with what it was measured."""
    about = results["environment"]
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number)
    load = ", ".join(f"{value:.2f}" for value in about["load_average"])
    lines = [
        f"Measured on {about['processor']} ({about['cores']} cores), {about['threads']} thread; load average at the "
        f"start {load} (1, 5 and 15 minutes). {versions}.",
        *results["left_out"],
    ]
    return "\n\n".join(lines)


def markdown(results: Mapping[str, Any]) -> str:
    """The tables; those of parts that were not measured are left out."""
    parts = [f"# Speed and memory\n\n{environment(results)}"]
    if results["quick"]:
        parts.append("A quick run on few and small sizes, to see whether everything works: its figures say little.")
    if results["losses"]:
        parts += [_ratios(results["losses"]), _times(results["losses"])]
    if results["projections"]:
        parts.append(_projections(results["projections"]))
    if results["masks"]:
        parts.append(_masks(results["masks"]))
    if results["accuracy"]:
        parts.append(_accuracy(results["accuracy"]))
    if results["memory"]:
        parts.append(_memory(results["memory"]))
    if results["scaling"]:
        parts.append(_exponents(results["scaling"]))
    if results["training"]:
        parts.append(_training(results["training"]))
    if results["checking"]:
        parts.append(_checking(results["checking"]))
    if results["gpu"]:
        parts.append(_gpu(results["gpu"]))
    parts.append(f"Made by `experiments/bench/run.py` in {results['seconds'] / 60:.1f} minutes.")
    return "\n\n".join(parts) + "\n"


def _checking(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ["weights", "load unchecked", "checked", "ratio", "first", "seal a training", "check a training"]
    cells = [
        [
            f"{row['bytes'] / 1e6:.1f} MB",
            f"{row['unchecked_ms']:.0f} ms",
            f"{row['checked_ms']:.0f} ms",
            f"{row['checked_ms'] / row['unchecked_ms']:.2f}",
            f"{row['first_ms']:.0f} ms",
            f"{row['seal_ms']:.0f} ms",
            f"{row['check_ms']:.0f} ms",
        ]
        for row in rows
    ]
    return (
        "## Sealing and checking\n\nModels and finished trainings are compared with the sha256 of the files when used. "
        "A large file is read for that once, as long as size, times and number stay the same: the column `first` has "
        "that time. The goal is a ratio of at most 1.2.\n\n" + _table(header, cells)
    )


def _gpu(cases: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for case in cases for name in case["wall_ms"]))
    rows = [
        [*_name(case), *(_figure(case["wall_ms"][name]) if name in case["wall_ms"] else NOTHING for name in names)]
        for case in cases
    ]
    return (
        "## On a GPU\n\nMilliseconds that pass for forward and backward of the loss of chains in float32, until the "
        f"device is done.\n\n{_table(['structure', 'B', 'N', 'C', *names], rows)}"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(value: float) -> str:
    """Three digits or so."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(held: int | str) -> str:
    """Bytes as MB; words, which say why there are no bytes, as they are."""
    return held if isinstance(held, str) else f"{held / 1e6:.0f}"


def _against_goal(value: float | None, goal: float | None) -> tuple[str, str]:
    """The figure, bold where it reaches the goal, and the goal."""
    wanted = NOTHING if goal is None else f"{goal:g}"
    if value is None:
        return NOTHING, wanted
    return (f"**{_figure(value)}**" if goal is not None and value >= goal else _figure(value)), wanted


def _name(case: Mapping[str, Any]) -> list[str]:
    return [case["structure"], str(case["batch"]), str(case["words"]), str(case["labels"] or NOTHING)]


def _ratios(losses: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for case in losses:
        cpu = {name: times["cpu_ms"] for name, times in case["times"].items()}
        ratio = {name: cpu[TORCH_STRUCT] / value for name, value in cpu.items()}
        goal = case["torch_goal"]
        rows.append(
            [
                *_name(case),
                *_against_goal(ratio.get(COMPILED), case["compiled_goal"]),
                _against_goal(ratio.get(COMPILED + CHECKED), None)[0],
                *_against_goal(ratio[TORCH], goal),
                *_against_goal(ratio[TORCH + CHECKED], None if goal is None else CHECKED_SHARE * goal),
                _against_goal(ratio.get(LOG), None)[0],
                _against_goal(ratio.get(AUTOGRAD), None)[0],
                _against_goal(ratio.get(PYTORCH_CRF), None)[0],
            ]
        )
    header = ["structure", "B", "N", "C", "compiled", "goal", "checks on", "torch", "goal", "checks on", "goal"]
    return (
        "## How many times faster than torch-struct\n\n"
        "CPU time of the same loss on plain torch-struct over CPU time of the implementation: forward and backward of "
        "the structural distillation loss from float32 scores, value checks off where not said otherwise. Medians over "
        "rounds in which all implementations take turns. Bold figures reach their goals. The goal of "
        "non-projective trees is that of one LU factorisation in torch. Log space is the way structkd takes where "
        "probability space could underflow. log-space autograd is the textbook's forward recursion differentiated by "
        "torch, on [C, C] transitions where the chain is factored. pytorch-crf's figure is its negative "
        "log-likelihood, which is strictly less work: one chain instead of two.\n\n"
        + _table([*header, "log space", "log-space autograd", "pytorch-crf"], rows)
    )


def _times(losses: Sequence[Mapping[str, Any]]) -> str:
    names = [COMPILED, COMPILED + CHECKED, TORCH, TORCH + CHECKED, LOG, TORCH_STRUCT, AUTOGRAD, PYTORCH_CRF]
    rows = []
    for case in losses:
        times = case["times"]
        cells = [
            f"{_figure(times[name]['cpu_ms'])} ({_figure(times[name]['wall_ms'])})" if name in times else NOTHING
            for name in names
        ]
        rows.append([*_name(case), *cells])
    difference = max(case["largest_difference_of_losses"] for case in losses)
    return (
        "## Milliseconds\n\nMedian CPU time and, in brackets, wall time of forward and backward. All values of the "
        f"loss agree to {difference:.0e} (pytorch-crf's is another loss).\n\n"
        + _table(["structure", "B", "N", "C", *names], rows)
    )


def _projections(measured: Mapping[str, Any]) -> str:
    times = measured["times"]
    reference = next(iter(times.values()))["cpu_ms"]
    rows = [[name, f"{line['cpu_ms']:.2f}", f"{line['cpu_ms'] / reference:.1f}"] for name, line in times.items()]
    return (
        "## Teachers of other families\n\n"
        f"Milliseconds of processor time for the loss of {measured['batch']} sentences of {measured['words']} words, "
        "forward and backward, with four entity types (9 tags in BIO, 17 in BIOES); scores in float32, value checks "
        "off.\n\n" + _table(["teacher -> student", "ms", "times the reference"], rows)
    )


def _masks(cases: Sequence[Mapping[str, Any]]) -> str:
    paths = list(cases[0]["ratios"])
    rows = []
    for case in cases:
        ratios = (f"{ratio:.2f}" for ratio in case["ratios"].values())
        reached = [f"**{ratio}**" if float(ratio) <= MASKED_GOAL else ratio for ratio in ratios]
        rows.append([*_name(case), *reached, f"{MASKED_GOAL:g}"])
    return (
        "## Masked chains\n\nCPU time of a factored chain whose start and transitions score -inf where BIO forbids "
        "them, over that of the same chain without the mask: forward and backward, by path. Bold figures reach the "
        "goal.\n\n" + _table(["structure", "B", "N", "C", *paths, "goal"], rows)
    )


def _accuracy(accuracy: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for case in accuracy:
        theirs = case["errors"][TORCH_STRUCT]
        for name, error in case["errors"].items():
            closer = ("", "") if name == TORCH_STRUCT else _against_goal(theirs / error, CLOSER_GOAL)
            rows.append([case["structure"], name, f"{error:.1e}", *closer])
    case = accuracy[0]
    return (
        "## Error of float32 gradients\n\n"
        f"The largest error of any cell of the summed loss's gradient (a probability, or for [C, C] transitions an "
        f"expected count) at B={case['batch']}, N={case['words']}, C={case['labels']}, scores of standard deviation "
        f"{case['scale']:g}, over {case['draws']} draw{'s' * (case['draws'] > 1)}. The reference is a log-space "
        "forward recursion in float64 under autograd.\n\n"
        + _table(["structure", "implementation", "largest error", "times closer than torch-struct", "goal"], rows)
    )


def _memory(memory: Sequence[Mapping[str, Any]]) -> str:
    names = (COMPILED, TORCH, TORCH_STRUCT)
    rows, notes = [], []
    for case in memory:
        cells = [megabytes(case["bytes"][name]) if name in case["bytes"] else NOTHING for name in names]
        if TORCH_STRUCT not in case["bytes"]:
            cells[-1] = "cannot hold it"
            notes.append(
                f"torch-struct cannot hold B={case['batch']}, N={case['words']}, C={case['labels']} and was not run. "
                f"Its scores [B, N-1, C, C] take 4 * {case['batch']} * {case['words'] - 1} * {case['labels']}^2 bytes "
                f"= {case['potentials_bytes'] / 1e9:.1f} GB for the teacher and as much for the student, and its "
                f"first step multiplies neighbouring bigrams in one tensor [B, N/2, C, C, C], "
                f"{case['torch_struct_bytes'] / 1e9:.0f} GB."
            )
        rows.append([*_name(case), *cells])
    return "\n\n".join(
        [
            "## Peak memory\n\nMB that forward and backward add to the peak of a process that imports everything, has "
            "run a small batch, and builds the same scores; every figure is from a fresh process, allowed 8 GB of "
            "address space. Gradients are included.",
            _table(["structure", "B", "N", "C", *names], rows),
            *notes,
        ]
    )


def _exponents(scaling: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for growth in scaling:
        for name, line in growth["lines"].items():
            sizes = f"{line['sizes'][0]} to {line['sizes'][-1]}"
            rows.append(
                [
                    f"{growth['title']}, B={growth['batch']}",
                    name,
                    f"{growth['growing']} = {sizes}",
                    f"{_figure(line['cpu_ms'][0])} to {_figure(line['cpu_ms'][-1])}",
                    f"{growth['growing']}^{line['exponent']:.2f}",
                    f"{growth['growing']}^{line['last_exponent']:.2f}",
                ]
            )
    return (
        "## How time grows\n\nCPU time as a power of the size, fitted by least squares to the logarithms. Small sizes "
        "cost what calling costs, so exponents are below those of the algorithms; the last doubling comes closer."
        "\n\n![CPU time by size](bench.png)\n\n"
        + _table(["structure", "implementation", "sizes", "ms", "time grows as", "over the last doubling"], rows)
    )


def _training(training: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for row in training:
        name = f"{row['encoder']}, {row['head']}"
        if row["times"] is None:
            rows.append([f"{name} (left out: the encoder could not be fetched)", *["-"] * 6])
            continue
        cpu = {name: times["cpu_ms"] for name, times in row["times"].items()}
        ratios = {name: cpu[name] / cpu[SUPERVISED] for name in (DISTILLED, MIXED)}
        goal = OVERHEAD_GOALS[row["encoder"]]
        reached = ratios[DISTILLED] <= goal
        distilled = f"{ratios[DISTILLED]:.3f}"
        rows.append(
            [
                name,
                *(_figure(cpu[name]) for name in (SUPERVISED, DISTILLED, MIXED)),
                f"**{distilled}**" if reached else distilled,
                f"{goal:g}",
                f"{ratios[MIXED]:.3f}",
            ]
        )
    header = ["student", f"{SUPERVISED}, ms", f"{DISTILLED}, ms", f"{MIXED}, ms", f"{DISTILLED} over {SUPERVISED}"]
    return (
        "## What distillation adds to a training step\n\n"
        "CPU time of a step (forward, loss, backward, AdamW) of a tagger with 17 labels on 16 sentences of 25 words or "
        "so, the teacher's scores at hand; the default path and value checks on. The encoder is a BiLSTM with hidden "
        "size 64, or the pretrained all-MiniLM-L6-v2. Students with head labels parse 32 sentences of 28 words with "
        "several hundred labels and 37 relations, hidden size 128. Bold figures reach the goal, which is an upper "
        "limit.\n\n" + _table([*header, "goal", "half and half over it"], rows)
    )


def plot(scaling: Sequence[Mapping[str, Any]], path: Path) -> None:
    """CPU time over size, both logarithmic; a panel for each structure and size that grows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    styles = {
        COMPILED: ("tab:blue", "o"),
        TORCH: ("tab:cyan", "s"),
        TORCH_STRUCT: ("0.45", "^"),
    }
    figure = Figure(figsize=(3.6 * len(scaling), 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(scaling), squeeze=False, sharey=True)[0]
    for panel, growth in zip(panels, scaling, strict=True):
        symbol = growth["growing"]
        for name, line in growth["lines"].items():
            colour, marker = styles[name]
            label = f"{name}: ${symbol}^{{{line['exponent']:.2f}}}$"
            panel.plot(line["sizes"], line["cpu_ms"], color=colour, marker=marker, markersize=4, label=label)
        sizes = sorted({size for line in growth["lines"].values() for size in line["sizes"]})
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xlabel(f"{symbol} ({'words' if symbol == 'N' else 'labels'})")
        panel.set_title(f"{growth['title']}, B={growth['batch']}", fontsize=10)
        panel.grid(True, which="major", color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(fontsize=8, frameon=False, loc="upper left")
    panels[0].set_ylim(top=12 * panels[0].get_ylim()[1])  # room for the legends
    panels[0].set_ylabel("CPU time of forward and backward, ms")
    figure.savefig(path, dpi=150, format="png")
