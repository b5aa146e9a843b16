"""The fused kernels run the surrogates that they contain; all others run in torch."""

from dataclasses import dataclass

import pytest
import torch

from spikeguard.kernels.cpu.backend import CPUBackend
from spikeguard.kernels.dispatch import integrate_and_fire
from spikeguard.kernels.selection import KERNELS, use_kernel, why_not
from spikeguard.kernels.surrogates import PARAMETER, compiled_as
from spikeguard.kernels.triton.backend import TritonBackend
from spikeguard.models import CNN
from spikeguard.neurons import LIF, SURROGATES, Triangular
from spikeguard.rng import stream

compiled = pytest.mark.skipif(why_not("cpu") is not None, reason=f"cpu: {why_not('cpu')}")


@dataclass(frozen=True)
class Doubled(Triangular):
    """A subclass with another derivative than its base."""

    def __call__(self, x):
        return 2 * super().__call__(x)


class Ones:
    """A surrogate that is not derived from one of the package."""

    half_width = 1.0

    def __call__(self, x):
        return torch.ones_like(x)

    def widened(self, factor):
        return self


class Misnamed(Ones):
    """Declares a derivative that no kernel contains."""

    compiled_as = "Ones"


OWN = [Doubled(), Ones(), Misnamed()]


@pytest.fixture
def fused_calls(monkeypatch):
    """The surrogates of the calls that the CPU kernel runs."""
    taken, kernel = [], KERNELS["cpu"]

    def spy(current, decay, gate, noise, v_th, reset, detach, surrogate, **options):
        taken.append(surrogate)
        return kernel(current, decay, gate, noise, v_th, reset, detach, surrogate, **options)

    monkeypatch.setitem(KERNELS, "cpu", spy)
    return taken


def gradient(kernel, surrogate):
    x = torch.rand(4, 6, generator=stream(0, "x"), dtype=torch.float64).requires_grad_()
    out = integrate_and_fire(x, decay=0.5, surrogate=surrogate, kernel=kernel)
    weights = torch.rand(4, 6, generator=stream(0, "w"), dtype=torch.float64)
    return torch.autograd.grad((out.spikes * weights).sum(), x)[0]


def test_every_surrogate_of_the_package_is_declared_and_has_its_parameter():
    assert len(SURROGATES) == 7
    names = [compiled_as(kind()) for kind in SURROGATES.values()]
    assert names == [kind.__name__ for kind in SURROGATES.values()]
    assert sorted(names) == sorted(PARAMETER)
    for kind, name in zip(SURROGATES.values(), names, strict=True):
        assert PARAMETER[name] is None or hasattr(kind(), PARAMETER[name])


@compiled
@pytest.mark.parametrize("name", SURROGATES)
def test_the_cpu_kernel_computes_every_surrogate_of_the_package(name, fused_calls):
    surrogate = SURROGATES[name]()
    torch.testing.assert_close(gradient("cpu", surrogate), gradient("reference", surrogate))
    assert fused_calls == [surrogate]


@compiled
@pytest.mark.parametrize("surrogate", OWN, ids=lambda s: type(s).__name__)
def test_a_surrogate_of_the_user_is_not_run_by_the_compiled_kernel(surrogate, fused_calls):
    found, expected = gradient("cpu", surrogate), gradient("reference", surrogate)
    assert not fused_calls
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    assert not torch.allclose(found, gradient("reference", Triangular()))


@pytest.mark.parametrize("surrogate", OWN, ids=lambda s: type(s).__name__)
def test_no_backend_supports_it(surrogate, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    x = torch.zeros(2, 3)
    for backend in (CPUBackend(), TritonBackend()):
        assert backend.supports(x, Triangular()) and not backend.supports(x, surrogate)


@compiled
@pytest.mark.parametrize("surrogate", OWN, ids=lambda s: type(s).__name__)
def test_a_network_with_average_pooling_runs_with_it(surrogate):
    """Pooling in the membrane's pass needs a surrogate that the kernel contains."""
    model = CNN(T=3, width=4, hidden=8, neuron=LIF(v_th=0.3, surrogate=surrogate)).double().train()
    x = torch.rand(3, 1, 28, 28, generator=stream(0, "x"), dtype=torch.float64)
    found = []
    for kernel in ("reference", "cpu"):
        leaf = x.clone().requires_grad_()
        with use_kernel(kernel):
            found.append(torch.autograd.grad(model(leaf).square().sum(), leaf)[0])
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[1], found[0], rtol=1e-9, atol=1e-12)
