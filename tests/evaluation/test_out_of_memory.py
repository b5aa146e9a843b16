"""An evaluation that runs out of memory halves its batches; its result is the same."""

import warnings

import pytest
import torch
from torch import nn

from spikeguard.attacks import PGD, Linf, UniformNoise
from spikeguard.evaluation.batch_size import MemoryShortage
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.plan import plan_evaluation
from spikeguard.rng import stream
from spikeguard.system.out_of_memory import OutOfMemory, is_out_of_memory
from tests.toys.small_evaluations import same, spiking

SAID = "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried"


class Small(nn.Module):
    """A network on a machine that holds at most ``room`` images at once."""

    def __init__(self, inner, room):
        super().__init__()
        self.inner, self.room, self.largest, self.failures = inner, room, 0, 0
        self.T, self.num_classes = inner.T, 3

    def forward(self, x):
        if len(x) > self.room:
            self.failures += 1
            raise RuntimeError(SAID)
        self.largest = max(self.largest, len(x))
        return self.inner(x)


def network(noisy=False):
    return spiking(sigma=0.3 if noisy else 0.0)


def images():
    x = torch.rand(24, 1, 8, 8, generator=stream(0, "x"))
    with torch.no_grad():
        return x, network()(x).argmax(1)


ATTACKS = {"noise": UniformNoise(Linf(0.1)), "pgd": PGD(Linf(0.1), steps=4)}


@pytest.mark.parametrize(
    ("noisy", "cascade", "stored"),
    [
        *[(False, False, False), (False, True, True), (True, False, True), (True, True, False)],
        *[pytest.param(a, b, a == b, marks=pytest.mark.long) for a in (0, 1) for b in (0, 1)],
    ],
)
def test_batches_are_halved_and_the_result_is_the_same(noisy, cascade, stored, tmp_path):
    how = {"cascade": cascade, "batch_size": 20, "check": False}
    whole = evaluate(network(noisy), images(), ATTACKS, **how)
    small = Small(network(noisy), room=6)
    out = tmp_path / "out" if stored else None
    with pytest.warns(MemoryShortage) as caught:
        found = evaluate(small, images(), ATTACKS, **how, out=out)
    same(found, whole)
    said = [str(each.message) for each in caught]
    assert said == [
        "out of memory with 20 images at once; continuing with 10. Results do not depend on it.",
        "out of memory with 10 images at once; continuing with 5. Results do not depend on it.",
    ]
    assert (small.largest, small.failures) == (5, 2)  # later shards begin with 5


def test_one_image_that_does_not_fit_is_one_line():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MemoryShortage)
        with pytest.raises(
            OutOfMemory, match="out of memory with a single image at once"
        ) as caught:
            evaluate(Small(network(), room=0), images(), ATTACKS, check=False, batch_size=4)
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_mistaken_for_a_shortage():
    class Broken(Small):
        def forward(self, x):
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        evaluate(Broken(network(), 1), images(), ATTACKS, check=False)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError(SAID))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("index out of range"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_torch_itself_says_what_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_samples_of_an_audit_are_halved_too():
    plan = plan_evaluation(Small(network(), 6), images(), ATTACKS, EvaluationOptions())
    with pytest.warns(MemoryShortage):
        rows = plan.rows(torch.arange(20))
    assert len(rows["right:pgd"]) == 20
