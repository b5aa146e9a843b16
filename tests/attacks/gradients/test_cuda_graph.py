"""Graphed gradients without a GPU: calls without a graph, and the replay with a fake graph.

tests/gpu/test_graphs.py checks the same properties with real graphs.
"""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn.modules.module import register_module_full_backward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from spikeguard.attacks import (
    ASSG,
    PGD,
    AttackError,
    Backprop,
    EoT,
    Linf,
    SwapSurrogate,
    cross_entropy,
    frozen,
)
from spikeguard.attacks.base import describe
from spikeguard.attacks.gradients import cuda_graph as graphs
from spikeguard.attacks.gradients.cuda_graph import KEPT, LARGEST, Graphed
from spikeguard.neurons import ATan, Rectangular, record
from spikeguard.rng import stream


def gradient(of, model, x, y):
    with frozen(model):
        return of(model, x, y, cross_entropy)


def both(of, model, x, y):
    """Return losses and gradients of Graphed and of its inner gradient, for two calls."""
    return gradient(of, model, x, y) + gradient(of.inner, model, x, y)


def equal(losses, grad, expected_losses, expected_grad):
    return torch.equal(losses, expected_losses) and torch.equal(grad, expected_grad)


class StandIn:
    """A fake of torch's graph: one recorded pass, with output and gradient in static memory."""

    def __init__(self, model, x):
        self.surrogates = [getattr(m, "surrogate", None) for m in model.modules()]
        with torch.no_grad():
            self.output = torch.empty_like(model(x))
        self.grad, self.replays = torch.empty_like(x), 0
        stand_in = self

        class Replay(torch.autograd.Function):
            @staticmethod
            def forward(ctx, image):
                with torch.enable_grad():
                    ctx.image = image.detach().requires_grad_()
                    ctx.out = model(ctx.image)
                stand_in.output.copy_(ctx.out.detach())
                return stand_in.output.detach()

            @staticmethod
            def backward(ctx, d):
                with torch.enable_grad():
                    stand_in.grad.copy_(torch.autograd.grad(ctx.out, ctx.image, d)[0])
                return stand_in.grad.detach()

        self.function = Replay

    def __call__(self, image):
        self.replays += 1
        return self.function.apply(image)


@pytest.fixture
def recorded(monkeypatch):
    """Record fake graphs on the CPU; the list of recorded graphs."""
    made = []

    def record_(model, x):
        made.append(StandIn(model, x))
        return made[-1]

    monkeypatch.setattr(graphs, "_record", record_)
    monkeypatch.setattr(graphs, "_can_record", lambda model, x: True)
    return made


# ----------------------------------------------------------------------------- without a graph


@pytest.mark.parametrize("inner", [Backprop(), SwapSurrogate(ATan()), SwapSurrogate(2.0)])
def test_on_the_cpu_it_is_its_inner_gradient(inner, snn, x, y, monkeypatch):
    monkeypatch.setattr(graphs, "_record", None)  # would fail if it were called
    assert equal(*both(Graphed(inner), snn, x, y))


def test_an_attack_takes_it_and_names_it(snn, x, y):
    plain = PGD(Linf(0.1), steps=3)
    graphed = replace(plain, gradient=Graphed())
    found, expected = (
        attack(snn, x, y, generator=stream(0, "attack")) for attack in (graphed, plain)
    )
    assert torch.equal(found, expected)
    kind = {"kind": "Graphed", "inner": {"kind": "Backprop"}}
    assert describe(graphed)["gradient"] == kind


class OnGPU:
    """The attributes of an input that _can_record reads."""

    is_cuda = True

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n


def test_passes_that_are_never_recorded(snn, monkeypatch):
    assert graphs._can_record(snn.eval(), OnGPU(LARGEST))
    assert not graphs._can_record(snn, OnGPU(LARGEST + 1))
    assert not graphs._can_record(snn, torch.zeros(1))
    assert not graphs._can_record(copy.deepcopy(snn).train(), OnGPU(1))
    with record(snn):
        assert not graphs._can_record(snn, OnGPU(1))
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    assert not graphs._can_record(snn, OnGPU(1))
    monkeypatch.undo()
    layer = next(snn.children())
    for register in (layer.register_forward_hook, register_module_full_backward_pre_hook):
        handle = register(lambda *_: None)
        assert not graphs._can_record(snn, OnGPU(1))
        handle.remove()
    noisy = copy.deepcopy(snn)
    next(noisy.children()).stochastic = True
    assert not graphs._can_record(noisy, OnGPU(1))
    assert graphs._can_record(snn, OnGPU(1))


@pytest.mark.parametrize("inner", [ASSG(), EoT(2, ASSG())])
def test_an_adaptive_gradient_is_rejected_in_one_line(inner):
    with pytest.raises(ValueError, match=r"Graphed: .* learns from step to step.*write") as caught:
        Graphed(inner)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------ replay


def test_it_is_recorded_once_and_replayed(recorded, snn, x, y):
    graphed = Graphed()
    for shift in (0.0, 0.1, 0.2):
        assert equal(*both(graphed, snn, x * (1 - shift), y))
    assert len(recorded) == 1 and recorded[0].replays == 3


def test_results_are_not_overwritten_by_the_next_replay(recorded, snn, x, y):
    graphed = Graphed()
    losses, grad = gradient(graphed, snn, x, y)
    kept = losses.clone(), grad.clone()
    gradient(graphed, snn, 1 - x, y)
    assert recorded[0].replays == 2 and equal(losses, grad, *kept)
    assert equal(*gradient(EoT(3, graphed), snn, x, y), *gradient(EoT(3), snn, x, y))


def test_another_shape_model_or_setting_is_recorded_anew(recorded, snn, x, y):
    graphed = Graphed()
    other = copy.deepcopy(snn)
    gradient(graphed, snn, x, y)
    for count, (model, rows) in enumerate([(snn, 3), (other, 5)], start=2):
        assert equal(*both(graphed, model, x[:rows], y[:rows]))
        assert len(recorded) == count
    neuron = next(m for m in snn.modules() if hasattr(m, "v_th"))
    neuron.v_th = 0.6
    assert equal(*both(graphed, snn, x, y)) and len(recorded) == 4
    neuron.detach_reset = True
    assert equal(*both(graphed, snn, x, y)) and len(recorded) == 5


def test_a_swapped_surrogate_is_recorded_anew(recorded, snn, x, y):
    graphed = Graphed()
    graphs_of_swap = Graphed(SwapSurrogate(Rectangular(0.4)))
    for of in (graphed, graphs_of_swap, graphed, graphs_of_swap):
        assert equal(*both(of, snn, x, y))
    assert len(recorded) == 2
    assert {type(s).__name__ for s in recorded[1].surrogates if s} == {"Rectangular"}
    for neuron in snn.modules():
        if hasattr(neuron, "surrogate"):
            neuron.surrogate = ATan()
    assert equal(*both(graphed, snn, x, y)) and len(recorded) == 3


def test_weights_in_another_place_are_recorded_anew_and_changed_in_place_are_not(
    recorded, snn, x, y
):
    graphed = Graphed()
    gradient(graphed, snn, x, y)
    weight = next(snn.parameters())
    with torch.no_grad():
        weight.mul_(1.1)
    assert equal(*both(graphed, snn, x, y)) and len(recorded) == 1
    weight.data = weight.data.clone()
    assert equal(*both(graphed, snn, x, y)) and len(recorded) == 2


def test_few_graphs_are_kept(recorded, snn, x, y):
    graphed = Graphed()
    for rows in (*range(1, 6), *range(5, 0, -1)):
        gradient(graphed, snn, x[:rows], y[:rows])
    assert len(recorded) == 5
    for height in range(KEPT):
        neuron = next(m for m in snn.modules() if hasattr(m, "v_th"))
        neuron.v_th = 1.5 + height
        gradient(graphed, snn, x, y)
    assert len(recorded) == 5 + KEPT and len(graphed._graphs) == KEPT


def test_the_checks_run_after_every_replay(recorded, snn, x, y):
    graphed = Graphed()
    gradient(graphed, snn, x, y)
    with pytest.raises(ValueError, match="labels go up to 3, but the model has 3 classes"):
        gradient(graphed, snn, x, y + 1)
    last = list(snn.parameters())[-1]
    with torch.no_grad():
        last.fill_(torch.inf)
    with pytest.raises(AttackError, match="logits are not finite"):
        gradient(graphed, snn, x, y)


def test_without_a_gradient_the_model_itself_is_called(recorded, snn, x):
    with torch.no_grad():
        assert torch.equal(graphs._Replayed(snn, [])(x), snn(x))
    assert recorded == []


def test_a_pass_that_cannot_be_recorded_is_rejected_in_one_line(monkeypatch, snn, x, y):
    def reject(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", reject)
    monkeypatch.setattr(graphs, "_can_record", lambda model, x: True)
    with pytest.raises(AttackError, match=r"cannot be recorded .*\(operation .*\); use") as caught:
        gradient(Graphed(), snn, x, y)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------- no operation that prevents a recording


class OnTheHost(TorchDispatchMode):
    """Collects the operations that read a tensor's value on the host, which no graph can record."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.found.append(function)
        return function(*args, **(kwargs or {}))


class FromTheHost(TorchFunctionMode):
    """Collects the calls that make a tensor of host numbers, a copy that no graph can record."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], torch.Tensor):
            self.found.append(function)
        return function(*args, **(kwargs or {}))


def stops(model, x):
    """Return the operations in a forward and backward pass that prevent its recording."""
    with OnTheHost() as reads, FromTheHost() as copies, frozen(model):
        x = x.clone().requires_grad_()
        torch.autograd.grad(model(x).sum(), x)
    return reads.found + copies.found


def test_a_pass_of_our_networks_reads_nothing_on_the_host(snn, x):
    assert stops(snn, x) == []


def test_such_a_read_would_be_seen(snn, x):
    class Reads(torch.nn.Module):
        def forward(self, x):
            return x * float(x.detach().max()) * torch.tensor(2.0)

    assert len(stops(Reads(), x)) == 2
