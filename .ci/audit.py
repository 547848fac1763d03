"""Look for risky code (bandit) and for known holes of the tested versions (pip-audit); `make audit` runs it.

A tool that is missing, or that cannot reach its data, is skipped with a printed reason. The findings of bandit that
are accepted are listed here by test and file, each with the reason. An accepted finding that no longer occurs is an
error, so that the list stays short.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
#: What pip-audit can ask, in this order.
SERVICES = ("pypi", "osv")
#: A version with known holes, which tells whether a service has data.
PROBE = "requests==2.19.1"

_NARROWED = "It narrows a type for mypy; the code before it has refused or handled the other case."
_ARGUMENTS = "The command is a list, without a shell; {}."
_NO_CODE = (
    "Nothing that is fetched is run: trust_remote_code is off and weights are safetensors. A user who needs a fixed "
    "version names a folder."
)
#: Reasons by the number of the test and the file, relative to src/structkd.
ACCEPTED: dict[tuple[str, str], str] = {
    **{
        ("B101", file): _NARROWED
        for file in (
            "commands/sweep.py",
            "distributions/arcs.py",
            "distributions/kernels/engines.py",
            "distributions/legality.py",
            "distributions/relabelled.py",
            "distributions/transition_counts.py",
            "export/folder.py",
            "inference/benchmark.py",
            "losses/objective.py",
            "losses/structural.py",
            "models/head_labeler.py",
            "projections/dependencies.py",
            "projections/empirical.py",
            "projections/spans.py",
            "projections/weighted_structures.py",
            "runs/demonstration.py",
            "teachers/label_map.py",
            "teachers/trained.py",
        )
    },
    ("B101", "testing/conformance.py"): "These are tests, which pytest runs.",
    ("B105", "inference/scoring.py"): "The token is a word of a text, and the string the name of an option.",
    ("B301", "distributions/kernels/compiled/disk.py"): (
        "numba describes compiled code by pickles, and machine code deserves no less trust. A file is read only if "
        "it belongs to the user, to root or to the owner of the cache folder."
    ),
    ("B311", "data/corpora/toy.py"): "Sentences are drawn, not secrets, and must be the same for the same seed.",
    ("B403", "distributions/kernels/compiled/disk.py"): "See B301.",
    ("B404", "data/wheels.py"): "See B603.",
    ("B404", "inference/benchmark.py"): "See B603.",
    ("B603", "data/wheels.py"): _ARGUMENTS.format(
        "the requirement is a name and a version by pattern, and stands behind --"
    ),
    ("B603", "inference/benchmark.py"): _ARGUMENTS.format("it starts a file of this package"),
    ("B615", "data/corpora/hub.py"): (
        "The revision is passed on if the configuration names one. It is the user's choice: data are tables, not code."
    ),
    ("B615", "models/loading.py"): (
        "The caller's revision is among the arguments that are passed on. Weights are safetensors, compared with the "
        "sha256 in structkd.json."
    ),
    ("B615", "models/transformer.py"): _NO_CODE,
    ("B615", "teachers/token_classification.py"): _NO_CODE,
    ("B704", "reporting/page.py"): "It marks SVG that matplotlib wrote, which escapes the text in it.",
}


def audited(findings: Iterable[Mapping[str, Any]], accepted: Mapping[tuple[str, str], str]) -> tuple[int, list[str]]:
    """Return the number of accepted findings, and the faults.

    Faults are findings that are not accepted, and acceptances without a finding.
    """
    counts: Counter[tuple[str, str]] = Counter()
    faults = []
    for finding in findings:
        path = Path(finding["filename"]).as_posix().partition("src/structkd/")[2]
        key = finding["test_id"], path
        if key in accepted:
            counts[key] += 1
        else:
            faults.append(f"src/structkd/{path}:{finding['line_number']}: {key[0]} {finding['issue_text']}")
    stale = sorted(accepted.keys() - counts)
    faults += [f"{test} is accepted in src/structkd/{path} and does not occur. Remove it." for test, path in stale]
    return counts.total(), faults


def code() -> list[str]:
    """Run bandit over the package and return the faults."""
    if importlib.util.find_spec("bandit") is None:
        print("bandit: skipped, because it is not installed. It needs a package index in reach.")
        return []
    command = [sys.executable, "-m", "bandit", "--quiet", "--recursive", "src/structkd", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        return [f"bandit: {done.stderr.strip()[-500:]}"]
    number, faults = audited(report["results"], ACCEPTED)
    lines = report["metrics"]["_totals"]["loc"]
    print(f"bandit: {lines:,} lines; {number} findings are accepted, for {len(ACCEPTED)} reasons in .ci/audit.py.")
    return faults + [f"bandit cannot read {error['filename']}: {error['reason']}" for error in report["errors"]]


def asked(service: str, *requirements: str) -> list[dict[str, Any]] | str:
    """Return the answer of a service about the versions of files or requirements; a string if there is none."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    command += ["--format", "json", "--timeout", "10", "--vulnerability-service", service]
    command += [part for each in requirements for part in ("--requirement", each)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        answer: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return "no answer in 5 minutes"
    except ValueError:
        return (done.stderr.strip().splitlines() or ["no output"])[-1].partition(": ")[0]
    return answer


def holes(answer: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for every known hole."""
    return [
        f"{each['name']} {each['version']}: {hole['id']}; mended in {', '.join(hole['fix_versions']) or 'no version'}."
        for each in answer
        for hole in each.get("vulns", ())
    ]


def versions() -> list[str]:
    """Run pip-audit over the tested versions and return the faults."""
    if importlib.util.find_spec("pip_audit") is None:
        print("pip-audit: skipped, because it is not installed. It needs a package index in reach.")
        return []
    reasons = []
    for service in SERVICES:
        # One version with known holes comes first: an index without such data calls every version unknown.
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as probe:
            probe.write(PROBE)
            probe.flush()
            answer = asked(service, probe.name)
        if isinstance(answer, list) and holes(answer):
            answer = asked(service, "constraints.txt")
            if isinstance(answer, str):
                return [f"pip-audit: {service} has data, but the audit of constraints.txt ended with {answer}."]
            unknown = [each["name"] for each in answer if "skip_reason" in each]
            named = f", {len(unknown)} of them unknown to it ({', '.join(unknown)})" if unknown else ""
            print(f"pip-audit: {len(answer)} versions compared with {service}{named}.")
            return holes(answer)
        reasons.append(f"{service}: {answer if isinstance(answer, str) else f'no data on {PROBE}'}")
    print(f"pip-audit: skipped, because no service has data within reach ({'; '.join(reasons)}).")
    return []


def main() -> int:
    faults = code() + versions()
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
