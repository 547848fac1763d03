"""The Triton kernel against float64 in log space, on the CPU and on a GPU where there is one."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import torch_struct
from families import FAMILIES, Family, seeded
from kernel_paths import require_interpreter
from torch import Tensor

import structkd
from structkd.distributions.kernels import engines
from structkd.distributions.kernels.arithmetic import NEG_INF
from structkd.distributions.kernels.chain import dense_expectations, factored_expectations, log_space_expectations
from structkd.distributions.kernels.engines import triton_for, using

pytestmark = pytest.mark.triton

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
everywhere = pytest.mark.parametrize(
    "device", [pytest.param("cpu", id="interpreter"), pytest.param("cuda", marks=needs_gpu)]
)
#: words, labels, scale, share of impossible transitions
CASES = [
    (1, 3, 1.0, 0.0),
    (2, 1, 1.0, 0.0),
    (9, 5, 3.0, 0.4),
    (12, 4, 300.0, 0.0),
    (12, 4, 300.0, 0.4),
    (500, 9, 3.0, 0.0),
    (500, 9, 3.0, 0.4),
    (33, 33, 3.0, 0.4),
]


@pytest.fixture(autouse=True)
def kernels() -> None:
    """These tests choose the path themselves."""


def require(device: str, words: int = 1, labels: int = 1) -> None:
    pytest.importorskip("triton")
    if device == "cpu":
        require_interpreter()
        if words * labels > 100:
            pytest.skip("too long for the interpreter")


def module() -> ModuleType:
    from structkd.distributions.kernels import triton_chain

    return triton_chain


def drawn(words: int, labels: int, scale: float, masked: float, batch: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Scores [2, B, N, C] and [2, C, C] of two sides, in float32, and lengths; half of the scores uniform in +-300."""
    generator = seeded(words * labels + int(100 * masked))
    shapes = (2, batch, words, labels), (2, labels, labels)
    if scale == 300.0:
        unary, transitions = (300 * (2 * torch.rand(shape, generator=generator) - 1) for shape in shapes)
    else:
        unary, transitions = (scale * torch.randn(shape, generator=generator) for shape in shapes)
    forbidden = torch.rand(labels, labels, generator=generator) < masked
    forbidden[:, 0] = forbidden[0] = False
    lengths = torch.randint(1, words + 1, (batch,), generator=generator)
    lengths[0], lengths[1] = words, 1
    return unary, transitions.masked_fill(forbidden, NEG_INF), lengths


def tolerance(precision: torch.dtype, words: int) -> float:
    return 1e-6 if precision == torch.float32 else 2e-12 if words > 100 else 2e-13


def close(got: Tensor, wanted: Tensor, allowed: float) -> bool:
    return torch.allclose(got.double().cpu(), wanted, rtol=allowed, atol=allowed)


@everywhere
@pytest.mark.parametrize(("words", "labels", "scale", "masked"), CASES, ids=str)
@pytest.mark.parametrize("precision", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_factored_chains(
    device: str, words: int, labels: int, scale: float, masked: float, precision: torch.dtype
) -> None:
    require(device, words, labels)
    unary, transitions, lengths = drawn(words, labels, scale, masked)
    unary, transitions = unary.double(), transitions.double()
    with using("triton"):
        log_partition, marginals, counts = factored_expectations(
            unary.to(device), transitions.to(device), lengths.to(device), precision
        )
    allowed = tolerance(precision, words)
    for group in range(2):
        shared = transitions[group].expand(len(lengths), -1, -1)
        wanted = log_space_expectations(unary[group], shared, lengths, per_bigram=False)
        assert close(log_partition[group], wanted[0], allowed)
        assert close(marginals[group], wanted[1], allowed)
        assert close(counts[group].dense(), wanted[2], allowed)
        assert not marginals[group].cpu()[wanted[1] == 0].any() or scale == 300.0
        assert not counts[group].dense()[:, (transitions[group] == NEG_INF).to(device)].any()


@everywhere
@pytest.mark.parametrize(("words", "labels", "scale", "masked"), CASES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_dense_chains(
    device: str, words: int, labels: int, scale: float, masked: float, dtype: torch.dtype, temperature: float
) -> None:
    require(device, words, labels)
    unary, transitions, lengths = drawn(words, labels, scale, masked)
    sides = [(unary[n, :, 1:, :, None] + transitions[n]).to(dtype) for n in range(2)]
    inner = (torch.arange(words - 1) < (lengths - 1).unsqueeze(1))[..., None, None]
    spoiled = [side.masked_fill(~inner, math.nan).to(device) for side in sides]
    with using("triton"):
        log_partition, marginals, bigrams = dense_expectations(spoiled, lengths.to(device), temperature, dtype)
    allowed = tolerance(dtype, words)
    for group, side in enumerate(sides):
        scores = side.double().div(temperature).masked_fill(~inner, 0.0)
        wanted = log_space_expectations(torch.zeros_like(unary[group].double()), scores, lengths, per_bigram=True)
        assert close(log_partition[group], wanted[0], allowed)
        assert close(marginals[group], wanted[1], allowed)
        assert close(bigrams[group], wanted[2], allowed)
        assert not bigrams[group].cpu()[(side == NEG_INF) | ~inner].any()


@everywhere
def test_ordinary_chains_are_certified(device: str) -> None:
    """Also where 40 % of the transitions are impossible, or finite and hopeless, sentences of 500 words included."""
    require(device)
    words = 500 if device != "cpu" else 24
    unary, transitions, lengths = drawn(words, 4, 3.0, 0.4)
    hopeless = transitions.masked_fill(transitions == NEG_INF, -1e9)
    for scores in (transitions, hopeless):
        both = unary.double().to(device), scores.double().to(device)
        assert module().factored(*both, lengths.to(device), torch.float32)[-1].all()
        sides = [(unary[n, :, 1:, :, None] + scores[n]).to(device) for n in range(2)]
        assert module().dense(sides, lengths.to(device), 1.0, torch.float32)[-1].all()


@everywhere
def test_garden_paths_go_to_log_space_sentence_by_sentence(device: str) -> None:
    """What is the worst at every word, by more than any number holds, is all that may come last."""
    require(device)
    words, gap = 6, 800.0
    unary = torch.zeros(1, 2, words, 2, dtype=torch.float64)
    unary[0, 0, :, 1] = -gap
    unary[0, 0, -1, 0] = NEG_INF
    transitions = torch.tensor([[[0.0, 0.0], [NEG_INF, 0.0]]], dtype=torch.float64)
    lengths = torch.tensor([words, words])
    arguments = unary.to(device), transitions.to(device), lengths.to(device)
    for precision in (torch.float32, torch.float64):
        assert module().factored(*arguments, precision)[-1].tolist() == [[False, True]]
    with using("triton"):
        log_partition, marginals, _ = factored_expectations(*arguments, torch.float32)
    assert float(log_partition[0, 0]) == pytest.approx(-gap * words)
    assert marginals[0, 0, :, 1].tolist() == pytest.approx([1.0] * words)


@everywhere
def test_float32_gradients_are_much_closer_than_torch_structs(device: str) -> None:
    require(device)
    batch, words, labels = (1, 32, 17) if device == "cpu" else (4, 64, 17)
    teacher, student = (3 * torch.randn(batch, words - 1, labels, labels, generator=seeded(n)) for n in range(2))

    def gradient(distribution: Any, scores: Tensor, target: Tensor) -> Tensor:
        scores = scores.clone().requires_grad_()
        p, t = distribution(scores), distribution(target.clone().requires_grad_())
        if distribution is structkd.LinearChainCRF:
            structkd.structural_kd_loss(t, p, reduction="sum").backward()
        else:
            (p.partition - (t.marginals.detach() * p.log_potentials).sum((1, 2, 3))).sum().backward()
        assert scores.grad is not None
        return scores.grad.double().cpu()

    with using("log"):
        exact = gradient(structkd.LinearChainCRF, student.double(), teacher.double())
    with using("triton"):
        ours = gradient(structkd.LinearChainCRF, student.to(device), teacher.to(device))
    theirs = gradient(torch_struct.LinearChainCRF, student, teacher)
    assert (ours - exact).abs().max() < 1e-6
    assert 20 * (ours - exact).abs().max() < (theirs - exact).abs().max()


@everywhere
@pytest.mark.parametrize("form", ["factored", "dense"])
def test_losses_and_marginals_take_the_path(device: str, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require(device)
    calls = []
    programme = getattr(module(), form)
    monkeypatch.setattr(module(), form, lambda *arguments: calls.append(form) or programme(*arguments))
    scores = torch.randn(2, 2, 3, 3).to(device)
    build = structkd.LinearChainCRF if form == "dense" else structkd.LinearChainCRF.from_scores
    arguments = (scores,) if form == "dense" else (scores[0], scores[0, 0])
    with using("triton"):
        structkd.structural_kd_loss(build(*arguments), build(*arguments))
        assert calls
        calls.clear()
        structkd.project(build(*arguments), structkd.MaxEnt(torch.zeros(2, 3, 3).to(device)))
        assert calls


def test_what_is_forced_and_impossible_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = structkd.LinearChainCRF(torch.zeros(1, 2, 129, 129))
    monkeypatch.setenv("STRUCTKD_KERNELS", "triton")
    monkeypatch.setitem(sys.modules, "structkd.distributions.kernels.triton_chain", None)
    monkeypatch.delattr("structkd.distributions.kernels.triton_chain", raising=False)
    with pytest.raises(ImportError, match="triton"):
        _ = chain.marginals
    monkeypatch.undo()
    pytest.importorskip("triton")
    from structkd.distributions.kernels import triton_chain

    with using("triton"), monkeypatch.context() as patch:
        patch.setattr(triton_chain, "runs_on", lambda scores: True)
        with pytest.raises(ValueError, match="128 labels in float32 and 64 in float64, got 129"):
            _ = chain.marginals
        patch.setattr(triton_chain, "runs_on", lambda scores: False)
        with pytest.raises(ValueError, match=r"scores on cpu\..*set TRITON_INTERPRET=1"):
            _ = chain.marginals


def test_the_choice_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def choice(labels: int, precision: torch.dtype = torch.float32) -> str | None:
        scores: Any = SimpleNamespace(is_cuda=True, shape=(2, 4, 7, labels), device="cuda")
        chosen = triton_for(scores, precision)
        return chosen and chosen.__name__.rsplit(".", 1)[-1]

    with using("auto"):
        if engines._triton_chain(required=False) is not None:
            assert [choice(n) for n in (2, 33, 128, 129)] == ["triton_chain"] * 3 + [None]
            assert [choice(n, torch.float64) for n in (64, 65)] == ["triton_chain", None]
        monkeypatch.setattr(engines, "_triton_chain", lambda required: None)
        assert choice(2) is None
        assert triton_for(torch.zeros(2, 3), torch.float32) is None
    for path in ("torch", "log", "compiled"):
        with using(path):
            assert choice(2) is None


COMPILE = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from structkd.distributions.kernels import triton_chain as chain

kinds = {torch.float32: "*fp32", torch.float64: "*fp64"}
for capability in (80, 90):
    for state, labels in ((torch.float32, 17), (torch.float64, 5)):
        types = dict.fromkeys(["forward", "teacher", "student", "marginals"], kinds[state])
        types |= dict.fromkeys(["unary", "transitions", "counts", "log_partition"], "*fp64")
        types |= dict.fromkeys(["batch", "words", "bigrams", "size"], "i32")
        types |= dict.fromkeys(["tolerance", "high_temperature", "low_temperature"], "fp32")
        types |= {"lengths": "*i64", "safe": "*i1"}
        for kernel, labels_are in ((chain._factored, "*fp64"), (chain._dense, kinds[state])):
            constants = chain._constants(state, state, labels)
            warps = constants.pop("num_warps")
            if kernel is chain._dense:
                constants["READ"] = constants["STATE"]
            types["labels"] = labels_are
            signature = {name: types.get(name, "constexpr") for name in kernel.arg_names}
            source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
            compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})
            assert compiled.asm["cubin"]
print("compiled")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton compiles on Linux")
def test_the_kernels_compile_without_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The interpreter takes what the compiler would not."""
    pytest.importorskip("triton")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False)
    assert done.stdout == "compiled\n", done.stderr


@needs_gpu
@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_every_distribution_on_a_gpu(family: Family) -> None:
    """The same numbers as on the CPU, and everything stays where the scores are."""
    scores = family.scores(seeded(1), len(family.lengths), max(family.lengths) + 1)
    lengths = torch.tensor(family.lengths)
    here = family.build(family.with_grad(scores), lengths)
    learning = family.with_grad({name: tensor.cuda() for name, tensor in scores.items()})
    there = family.build(learning, lengths.cuda())
    for name in ("partition", "marginals", "entropy"):
        values = getattr(there, name)
        assert values.is_cuda
        assert torch.allclose(values.cpu(), getattr(here, name), atol=1e-9)
    assert torch.equal(there.argmax.cpu(), here.argmax)
    assert there.sample((2,)).is_cuda
    if family.partition_is_sum:
        there.partition.sum().backward()
        structkd.structural_kd_loss(family.build({n: t.cuda() for n, t in scores.items()}, lengths.cuda()), there)
        assert all(learning[name].grad.is_cuda for name in family.floats(learning))
