"""The tests that every distribution passes."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import torch
from torch import Tensor

from structkd.testing.enumeration import Enumeration, cross_entropy
from structkd.testing.family import Family, agrees, lengths_tensor, seeded

__all__ = ["ConformanceTests", "Sample", "everything", "same_results"]

#: The precision of the scores, and whether some cells are impossible.
SETTINGS = ((torch.float64, True), (torch.float32, False))


class Sample:
    """Random scores of a family, the distribution built from them, and its enumeration."""

    def __init__(
        self,
        family: Family,
        seed: int,
        dtype: torch.dtype = torch.float64,
        masked: bool = False,
        other: Sample | None = None,
    ) -> None:
        generator = seeded(seed)
        self.family, self.lengths = family, family.lengths
        self.width = max(self.lengths) + 1
        self.scores = family.scores(generator, len(self.lengths), self.width, dtype)
        if other is not None:
            self.scores |= {name: other.scores[name] for name in family.shared}
        if masked:
            self.scores, _ = family.masked(self.scores, self.lengths, generator)
        self.enumerations = family.enumerate(self.scores, self.lengths)
        self.distribution = self.build()

    def build(self, **changed: Any) -> Any:
        return self.family.build(self.scores | changed, lengths_tensor(self.lengths))

    @property
    def marginals(self) -> Tensor:
        return self.family.events(self.enumerations, self.width)


def events_of(family: Family, enumerations: list[Enumeration], lengths: tuple[int, ...], width: int) -> Any:
    """Return some structures of every item as events [S, B, *event], and their log probabilities [S, B]."""
    choices = [sorted(e.scores)[:: max(1, len(e.scores) // 12)] for e in enumerations]
    rounds = [[choice[r % len(choice)] for choice in choices] for r in range(12)]
    events = torch.stack([torch.stack([family.event(y, width) for y in row]) for row in rounds])
    log_probs = [[e.log_prob(y) for e, y in zip(enumerations, row, strict=True)] for row in rounds]
    unclear = [n == 1 and not family.one_word_events for n in lengths]
    return events, torch.tensor(log_probs, dtype=torch.float64), torch.tensor(unclear)


def everything(distribution: Any, other: Any) -> dict[str, Any]:
    """Compute every deterministic quantity of a distribution."""
    return {
        "partition": distribution.partition,
        "marginals": distribution.marginals,
        "entropy": distribution.entropy,
        "argmax": distribution.argmax,
        "topk": distribution.topk(3),
        "log_prob": distribution.log_prob(distribution.argmax),
        "cross_entropy": distribution.cross_entropy(other),
        "kl": distribution.kl(other),
        "decode": distribution.decode(),
    }


def same_results(first: dict[str, Any], second: dict[str, Any], dtype: torch.dtype = torch.float64) -> bool:
    for name, value in first.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            assert value.dtype == second[name].dtype, name
            assert agrees(value, second[name], dtype), name
        elif isinstance(value, Tensor):
            assert value.equal(second[name]), name
        else:
            assert value == second[name], name
    return True


class ConformanceTests:
    """The tests of one distribution class. Inherit from this class, name it `Test...` and set `family`.

    pytest finds the tests by their names. Without pytest, call the methods.
    """

    family: Family

    def test_partition(self) -> None:
        family = self.family
        for dtype, masked in SETTINGS:
            sample = Sample(family, 1, dtype, masked)
            partition = sample.distribution.partition
            assert partition.shape == (len(sample.lengths),)
            assert partition.dtype == dtype
            assert partition.isfinite().all()
            if family.partition_is_sum:
                assert agrees(partition, [e.partition for e in sample.enumerations])

    def test_marginals(self) -> None:
        family = self.family
        for dtype, masked in SETTINGS:
            sample = Sample(family, 2, dtype, masked)
            marginals = sample.distribution.marginals
            assert marginals.dtype == dtype
            assert marginals.shape == sample.marginals.shape
            assert agrees(marginals, sample.marginals)
            assert (marginals[sample.marginals == 0].abs() < 1e-6).all()

    def test_marginals_are_exactly_zero_in_the_padding(self) -> None:
        family = self.family
        sample = Sample(family, 3)
        used = torch.zeros_like(sample.marginals, dtype=torch.bool)
        for item, n in enumerate(sample.lengths):
            for structure in family.structures(n):
                for index in family.event_cells(structure):
                    used[(item, *index)] = True
        assert (sample.distribution.marginals[~used] == 0).all()

    def test_log_prob_of_events(self) -> None:
        family = self.family
        for dtype, masked in SETTINGS:
            sample = Sample(family, 4, dtype, masked)
            events, expected, unclear = events_of(family, sample.enumerations, sample.lengths, sample.width)
            actual = sample.distribution.log_prob(events.to(dtype))
            assert actual.shape == expected.shape
            assert agrees(actual[:, ~unclear], expected[:, ~unclear])
            assert agrees(sample.distribution.log_prob(events[0].to(dtype))[~unclear], expected[0, ~unclear])

    def test_entropy(self) -> None:
        family = self.family
        for dtype, masked in SETTINGS:
            sample = Sample(family, 5, dtype, masked)
            assert agrees(sample.distribution.entropy, [e.entropy for e in sample.enumerations])

    def test_argmax_and_decode(self) -> None:
        family = self.family
        for dtype, masked in SETTINGS:
            sample = Sample(family, 6, dtype, masked)
            best = [e.ranked()[0] for e in sample.enumerations]
            assert agrees(sample.distribution.argmax, torch.stack([family.event(y, sample.width) for y in best]))
            decoded = sample.distribution.decode()
            if isinstance(decoded, Tensor):
                assert decoded.dtype == torch.long
                rows = decoded.tolist()
            else:
                rows = [[tuple(part) for part in row] for row in decoded]
            for row, enumeration, y in zip(rows, sample.enumerations, best, strict=True):
                ties = [z for z, score in enumeration.scores.items() if score == enumeration.scores[y]]
                assert row in [family.decoded(z, sample.width) for z in ties]

    def test_topk(self) -> None:
        family = self.family
        for dtype, masked, k in ((torch.float64, True, 7), (torch.float64, False, 2), (torch.float32, False, 1)):
            sample = Sample(family, 7, dtype, masked)
            events = sample.distribution.topk(k)
            assert events.shape == (k, *sample.marginals.shape)
            for item, (n, enumeration) in enumerate(zip(sample.lengths, sample.enumerations, strict=True)):
                if n == 1 and not family.one_word_events:
                    assert not events[:, item].any()
                    continue
                best = enumeration.ranked()[:k]
                found = [family.structure_of(event, n) for event in events[: len(best), item]]
                assert len(set(found)) == len(found)
                scores = [enumeration.scores[y] for y in found if y is not None]
                assert agrees(torch.tensor(scores, dtype=torch.float64), [enumeration.scores[y] for y in best], dtype)
                assert not events[len(best) :, item].any()

    def test_samples_are_legal_and_follow_the_distribution(self) -> None:
        family = self.family
        draws, sample = 1500, Sample(family, 8, masked=True)
        events = sample.distribution.sample((draws,))
        assert events.shape == (draws, *sample.marginals.shape)
        assert not events.requires_grad
        for item, (n, enumeration) in enumerate(zip(sample.lengths, sample.enumerations, strict=True)):
            distinct, counts = torch.unique(events[:, item].reshape(draws, -1), dim=0, return_counts=True)
            frequency = {}
            for event, count in zip(distinct, counts.tolist(), strict=True):
                structure = family.structure_of(event.reshape(events.shape[2:]), n)
                assert structure is not None
                if n == 1 and not family.one_word_events:
                    continue
                assert enumeration.log_prob(structure) > -math.inf
                frequency[structure] = count / draws
            if frequency:
                for structure, p in enumeration.probabilities.items():
                    # Five standard deviations: a right sampler fails once in a million cells.
                    tolerance = 5 * math.sqrt(p * (1 - p) / draws) + 2 / draws
                    assert abs(frequency.get(structure, 0.0) - p) <= tolerance, structure

    def test_cross_entropy_and_kl(self) -> None:
        family = self.family
        for dtype, masked in SETTINGS:
            p = Sample(family, 9, dtype, masked)
            q = Sample(family, 10, dtype, other=p)
            other = q.build()
            expected = [cross_entropy(a, b) for a, b in zip(p.enumerations, q.enumerations, strict=True)]
            assert agrees(p.distribution.cross_entropy(other), expected)
            divergence = [value - e.entropy for value, e in zip(expected, p.enumerations, strict=True)]
            assert agrees(p.distribution.kl(other), divergence)
            assert agrees(p.distribution.kl(p.build()), [0.0] * len(p.lengths))

    def test_cross_entropy_with_a_distribution_that_forbids_structures(self) -> None:
        family = self.family
        p = Sample(family, 11)
        q = Sample(family, 12, masked=True, other=p)
        other = q.build()
        expected = [cross_entropy(a, b) for a, b in zip(p.enumerations, q.enumerations, strict=True)]
        assert agrees(p.distribution.cross_entropy(other), expected)
        assert agrees(p.distribution.kl(other), [v - e.entropy for v, e in zip(expected, p.enumerations, strict=True)])

    def test_values_in_the_padding_do_not_matter(self) -> None:
        family = self.family
        for value in (math.nan, -math.inf):
            clean = Sample(family, 13, masked=True)
            other = Sample(family, 14, other=clean)
            dirty = family.build(family.poisoned(clean.scores, clean.lengths, value), lengths_tensor(clean.lengths))
            noise = family.build(family.poisoned(other.scores, clean.lengths, value), lengths_tensor(clean.lengths))
            assert same_results(everything(clean.distribution, other.build()), everything(dirty, noise))
            assert not dirty.sample((3,)).isnan().any()

    def test_the_width_of_the_batch_does_not_matter(self) -> None:
        """A sentence gives the same results in a batch of one, without padding."""
        family = self.family
        sample = Sample(family, 15)
        for item, n in enumerate(sample.lengths):
            scores = family.permuted(sample.scores, torch.tensor([item]))
            narrow = family.scores(seeded(0), 1, n)
            for name in scores:
                if name in family.batched:
                    scores[name] = scores[name][tuple(slice(size) for size in narrow[name].shape)]
            if n < family.shortest:
                continue
            alone = family.build(scores)
            assert agrees(alone.partition, sample.distribution.partition[item : item + 1])
            assert agrees(alone.entropy, sample.distribution.entropy[item : item + 1])
            cut = tuple(slice(size) for size in alone.marginals.shape[1:])
            assert agrees(alone.marginals[0], sample.distribution.marginals[(item, *cut)])

    def test_permuting_the_batch_permutes_the_results(self) -> None:
        family = self.family
        sample = Sample(family, 16)
        order = torch.randperm(len(sample.lengths), generator=seeded(1))
        lengths = lengths_tensor(sample.lengths)[order]
        permuted = family.build(family.permuted(sample.scores, order), lengths)
        for name in ("partition", "marginals", "entropy", "argmax"):
            assert agrees(getattr(permuted, name), getattr(sample.distribution, name)[order]), name
        assert agrees(permuted.topk(3), sample.distribution.topk(3)[:, order])
        decoded = sample.distribution.decode()
        assert [list(row) for row in permuted.decode()] == [list(decoded[i]) for i in order.tolist()]

    def test_a_constant_added_to_all_scores_changes_nothing(self) -> None:
        family = self.family
        for constant in (-10.0, 88.0) if family.shiftable else ():
            sample = Sample(family, 17)
            shifted = family.build(family.shifted(sample.scores, constant), lengths_tensor(sample.lengths))
            assert agrees(shifted.marginals, sample.marginals)
            assert agrees(shifted.entropy, [e.entropy for e in sample.enumerations])

    def test_scores_of_hundreds(self) -> None:
        """Scores of either sign up to several hundred, in both precisions."""
        family = self.family
        sample = Sample(family, 18)
        scores = family.map(sample.scores, lambda tensor: (tensor * 300).round())
        enumerations = family.enumerate(scores, sample.lengths)
        for dtype in (torch.float64, torch.float32):
            distribution = family.build(family.to(scores, dtype), lengths_tensor(sample.lengths))
            tolerance = 1e-6 if dtype == torch.float64 else 1e-3
            if family.partition_is_sum:
                expected = torch.tensor([e.partition for e in enumerations], dtype=torch.float64)
                assert torch.allclose(distribution.partition.double(), expected, rtol=1e-6, atol=tolerance)
            marginals = family.events(enumerations, sample.width)
            assert torch.allclose(distribution.marginals.double(), marginals, atol=tolerance)
            entropy = torch.tensor([e.entropy for e in enumerations], dtype=torch.float64)
            assert torch.allclose(distribution.entropy.double(), entropy, atol=tolerance)

    def test_minus_a_billion_is_a_finite_score(self) -> None:
        """A sentence whose only structure costs 1e9 has partition -1e9; its structure space is not empty."""
        family = self.family
        for dtype in (torch.float64, torch.float32):
            sample = Sample(family, 19, dtype)
            if not all(family.cells(y) for y in family.structures(1)):
                return  # the structure without parts is always possible
            _, kept = family.masked(sample.scores, sample.lengths, seeded(2))
            scores = family.only(sample.scores, sample.lengths, kept)
            name = family.maskable[0]
            count = len(family.cells(kept[0]))
            assert count >= 1
            item = 0
            placed = [family.place(cell, item) for cell in family.cells(kept[item])]
            index = next(index for where, index in placed if where == name)
            scores[name] = scores[name].clone()
            scores[name][index] = -1e9
            if family.batched == ("emissions",):  # transitions are shared, so other sentences gain structures
                kept_scores = family.enumerate(scores, sample.lengths)
                kept = [e.ranked()[0] for e in kept_scores]
            distribution = family.build(scores, lengths_tensor(sample.lengths))
            if family.partition_is_sum:
                assert abs(float(distribution.partition[0]) + 1e9) <= 1e3
            expected = family.events(family.enumerate(scores, sample.lengths), sample.width)
            assert agrees(distribution.marginals, expected)
            assert agrees(distribution.argmax[0], family.event(kept[0], sample.width))

    def test_without_lengths_every_sentence_is_full(self) -> None:
        family = self.family
        n = max(family.lengths)
        scores = family.scores(seeded(20), 2, n)
        implicit, explicit = family.build(scores), family.build(scores, lengths_tensor([n, n]))
        assert implicit.lengths.tolist() == explicit.lengths.tolist() == [n, n]
        assert implicit.lengths.dtype == torch.long
        assert same_results(everything(implicit, explicit), everything(explicit, implicit))

    def test_shapes_and_kinds(self) -> None:
        family = self.family
        sample = Sample(family, 21)
        distribution = sample.distribution
        assert issubclass(type(distribution), torch.distributions.Distribution)
        if family.torch_struct_class is not None:
            assert isinstance(distribution, family.torch_struct_class)
        assert distribution.batch_shape == (len(sample.lengths),)
        assert distribution.event_shape == family.event_shape(sample.width)
        assert distribution.lengths.tolist() == list(sample.lengths)

    def test_half_precision(self) -> None:
        """Computed in float32, returned in the dtype of the input."""
        family = self.family
        for dtype in (torch.float16, torch.bfloat16):
            sample = Sample(family, 22)
            scores = family.to(sample.scores, dtype)
            enumerations = family.enumerate(scores, sample.lengths)
            distribution = family.build(scores, lengths_tensor(sample.lengths))
            other = family.build(family.shifted(scores, 0.0), lengths_tensor(sample.lengths))
            for name, value in everything(distribution, other).items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    assert value.dtype == dtype, name
            if family.partition_is_sum:
                assert agrees(distribution.partition, [e.partition for e in enumerations])
            assert agrees(distribution.marginals, family.events(enumerations, sample.width))
            assert agrees(distribution.entropy, [e.entropy for e in enumerations])
            best = [family.event(e.ranked()[0], sample.width) for e in enumerations]
            assert agrees(distribution.argmax, torch.stack(best))
            assert distribution.sample((2,)).dtype == dtype

    def test_results_carry_no_graph_unless_the_scores_do(self) -> None:
        family = self.family
        sample = Sample(family, 24)
        for name, value in everything(sample.distribution, sample.build()).items():
            if isinstance(value, Tensor):
                assert not value.requires_grad, name
        learning = family.build(family.with_grad(sample.scores), lengths_tensor(sample.lengths))
        for name in ("partition", "marginals", "entropy"):
            assert getattr(learning, name).requires_grad, name
        decoded = learning.decode()
        assert not (isinstance(decoded, Tensor) and decoded.requires_grad)

    def test_the_callers_tensors_are_left_alone(self) -> None:
        family = self.family
        sample = Sample(family, 25, masked=True)
        before = {name: tensor.clone() for name, tensor in sample.scores.items()}
        everything(sample.distribution, sample.build())
        sample.distribution.sample((2,))
        for name, tensor in sample.scores.items():
            assert tensor.equal(before[name])
            assert not tensor.requires_grad
            assert tensor.grad is None
        scores = family.with_grad(sample.scores)
        learning = family.build(scores, lengths_tensor(sample.lengths))
        everything(learning, sample.distribution)
        for name in family.floats(scores):
            assert scores[name].requires_grad
            assert scores[name].is_leaf
            assert scores[name].grad is None

    def test_without_gradients_and_then_with(self) -> None:
        """Under no_grad or inference_mode values are the same, and a later backward pass is not disturbed."""
        family = self.family
        for mode in (torch.no_grad, torch.inference_mode):
            sample = Sample(family, 26, masked=True)
            other = Sample(family, 27, other=sample)
            expected = everything(sample.distribution, other.build())
            with mode():
                inside = sample.build()
                assert same_results(everything(inside, other.build()), expected)
                inside.sample((2,))
            assert agrees(inside.marginals + 0, expected["marginals"])

            scores = family.with_grad(sample.scores)
            learning = family.build(scores, lengths_tensor(sample.lengths))
            with mode():
                everything(learning, other.build())
                learning.sample((2,))
            reference = family.with_grad(sample.scores)
            untouched = family.build(reference, lengths_tensor(sample.lengths))
            for distribution in (learning, untouched):
                total = distribution.partition.sum() + (distribution.marginals**2).sum() + distribution.entropy.sum()
                total.backward()
            for name in family.floats(scores):
                found, expected_gradient = scores[name].grad, reference[name].grad
                assert found is not None
                assert expected_gradient is not None
                assert agrees(found, expected_gradient)

    def test_autocast_changes_nothing(self) -> None:
        family = self.family
        sample = Sample(family, 28, torch.float32)
        outside = everything(sample.distribution, sample.build())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = everything(sample.build(), sample.build())
        assert same_results(inside, outside)

    def test_threads(self) -> None:
        family = self.family
        samples = [Sample(family, seed) for seed in (29, 30)]
        shared = [sample.build() for sample in samples]

        def read(task: int) -> tuple[Tensor, Tensor, Tensor]:
            sample = samples[task % 2]
            distribution = shared[task % 2] if task % 4 < 2 else sample.build()
            return distribution.partition, distribution.marginals, distribution.argmax

        contexts = [copy_context() for _ in range(8)]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda task: contexts[task].run(read, task), range(8)))
        for task, result in enumerate(results):
            fresh = samples[task % 2].build()
            for actual, expected in zip(result, (fresh.partition, fresh.marginals, fresh.argmax), strict=True):
                assert actual.equal(expected)
