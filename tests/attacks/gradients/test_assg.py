"""ASSG without the path through time or the reset, and its state when the batch changes."""

import math

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import ASSG, NES, SAPGD, Backprop, EoT, Linf, cross_entropy, margin
from spikeguard.attacks.searches.active_set import active_set
from spikeguard.attacks.searches.stepwise import can_step
from spikeguard.kernels.selection import use_kernel
from spikeguard.models import CNN, MLP
from spikeguard.neurons import LIF
from spikeguard.rng import SampleStreams, stream
from tests.toys.fitting import drawn, twin
from tests.toys.foreign_networks import LIFNode
from tests.toys.stepping_attacks import spiking

A = 2 / math.pi * math.tan(0.4 * math.pi)


class Neuron(nn.Module):
    """A classifier that is one layer: currents [B, T, 1] in, logits 0 and a weighted sum of s."""

    def __init__(self, weights):
        super().__init__()
        self.neuron, self.weights = LIF(0.5), weights

    def forward(self, x):
        score = (self.neuron(x.transpose(0, 1)) * self.weights).sum((0, 2))
        return torch.stack([torch.zeros_like(score), score], 1)


def slope(M, D, u):
    """Return the new M and D and h for one distance u, as in the formula."""
    M = 0.9 * M + 0.1 * u
    D = 0.9 * D + 0.1 * abs(u - M)
    alpha = A / (M + 1.5 * D + 1e-4)
    return M, D, alpha / (2 * (1 + (math.pi / 2 * alpha * u) ** 2))


@pytest.mark.parametrize("kernel", ["cpu", "reference"])
def test_without_the_path_through_time_a_step_gets_its_own_slope_alone(kernel):
    """dz/dI[t] = w[t] h(v[t]), for one neuron, two time steps and three attack steps."""
    weights = torch.tensor([1.0, -2.0]).view(2, 1, 1)
    model, search = Neuron(weights), ASSG(0.4, temporal=False).begin()
    moments = [(1.0, 0.0), (1.0, 0.0)]
    for now in (0.7, 0.9, 1.3):
        v = [now, 0.8 + (0.5 * now if now < 1 else 0)]
        wanted = []
        for t in range(2):
            M, D, h = slope(*moments[t], abs(v[t] - 1))
            moments[t] = M, D
            wanted.append(float(weights[t]) * h)
        x = torch.tensor([now, 0.8]).view(1, 2, 1)
        with use_kernel(kernel):
            _, grad = search(model, x, torch.zeros(1, dtype=torch.int64), margin)
        torch.testing.assert_close(grad.flatten(), torch.tensor(wanted))


def test_the_path_through_time_makes_a_difference():
    model, x = Neuron(torch.ones(2, 1, 1)), torch.tensor([0.7, 0.8]).view(1, 2, 1)
    y = torch.zeros(1, dtype=torch.int64)
    whole, cut = (ASSG(0.4, temporal)(model, x, y, margin)[1] for temporal in (True, False))
    assert torch.equal(whole[0, 1], cut[0, 1])  # nothing follows the last step
    assert not torch.isclose(whole[0, 0], cut[0, 0])


@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("kernel", ["cpu", "reference"])
def test_without_the_reset_the_gradient_is_that_of_a_layer_that_detaches_it(kernel, reset):
    x, y = torch.rand(5, 16, generator=stream(0, "x")), torch.arange(5) % 3

    def found(gradient, detach_reset):
        neuron = LIF(0.5, reset=reset, detach_reset=detach_reset)
        model = MLP(16, 3, T=4, hidden=(9,), neuron=neuron, generator=stream(0, "w"))
        with use_kernel(kernel):
            return gradient(model, x, y, cross_entropy)[1]

    leak = found(ASSG(0.4, reset=False), False)
    assert torch.equal(leak, found(ASSG(0.4), True)) and leak.abs().amax() > 0
    assert torch.equal(leak, found(ASSG(0.4, reset=False), True))
    assert not torch.allclose(leak, found(ASSG(0.4), False), rtol=1e-3)
    assert not torch.allclose(leak, found(ASSG(0.4, temporal=False), False), rtol=1e-3)


def test_without_the_reset_a_foreign_network_has_the_gradient_of_our_twin():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), LIFNode(), nn.Linear(12, 3))
    net = drawn(net, 0.8, stream(0, "net"))
    x, y = torch.rand(4, 1, 4, 4, generator=stream(0, "x")), torch.arange(4) % 3
    foreign = sg.foreign(net, T=4).eval()
    same = twin(net, LIF(0.5), T=4, hidden=(12,), in_shape=(1, 4, 4))
    found, wanted, attached = (
        gradient(model, x, y, cross_entropy)[1]
        for model, gradient in (
            (foreign, ASSG(0.4, reset=False)),
            (same, ASSG(0.4, reset=False)),
            (foreign, ASSG(0.4)),
        )
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(found, attached, rtol=1e-2)


# --- samples that leave and join


def convolutional():
    """A network whose potentials are channels last in memory."""
    model = CNN(2, 3, T=3, width=4, hidden=6, image_size=8, neuron=LIF(0.5, 0.3))
    model(torch.rand(16, 2, 8, 8, generator=stream(0, "statistics")))
    return model.eval().double()


def order(x):
    """Return the axes longer than 1 in the order of memory."""
    return sorted((a for a in range(x.ndim) if x.shape[a] > 1), key=lambda a: -x.stride(a))


def images(n=6):
    return torch.rand(n, 2, 8, 8, generator=stream(0, "x"), dtype=torch.float64)


def test_a_sample_that_stays_keeps_its_moments_and_a_new_one_starts_at_1_and_0():
    model, x, y = convolutional(), images(), torch.arange(6) % 3
    search = ASSG(0.4).begin()
    for _ in range(2):
        search(model, x[:4], y[:4], cross_entropy)
    before = {place: (M.clone(), D.clone()) for place, (M, D) in search.moments.items()}
    assert [0, 1, 3, 4, 2] in [order(M) for M, _ in before.values()], "channels last"
    search.rearrange(torch.tensor([3, -1, 0]))
    for place, (M, D) in search.moments.items():
        for new, old, start in zip((M, D), before[place], (1.0, 0.0), strict=True):
            assert torch.equal(new[:, 0], old[:, 3]) and torch.equal(new[:, 2], old[:, 0])
            assert (new[:, 1] == start).all() and order(new) == order(old)
    assert search.moments.keys() == before.keys() and len(before) >= 2


def test_after_samples_left_the_gradient_is_that_of_a_search_on_them_alone():
    model, x, y = convolutional(), images(), torch.arange(6) % 3
    together, alone = ASSG(0.4).begin(), ASSG(0.4).begin()
    keep = torch.tensor([5, 0, 2])
    for search, rows in ((together, slice(None)), (alone, keep)):
        search(model, x[rows], y[rows], cross_entropy)
    together.rearrange(keep)
    _, grad = together(model, x[keep], y[keep], cross_entropy)
    _, wanted = alone(model, x[keep], y[keep], cross_entropy)
    torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-12)
    assert wanted.abs().amax() > 0


def vectors(n=30):
    x = torch.rand(n, 16, generator=stream(0, "x"))
    with torch.no_grad():
        return x, spiking()(x).argmax(1)


def searched(attack, model, x, y, batch_size):
    def judge(points, rows):
        with torch.no_grad():
            return (model(points).argmax(1) == y[rows]).double()

    streams = SampleStreams(3, torch.arange(len(x)))
    return active_set(attack, model, x, y, streams=streams, batch_size=batch_size, judge=judge)


@pytest.mark.parametrize("temporal", [True, False])
@pytest.mark.parametrize("restarts", [1, 2])
def test_the_active_set_is_the_plain_search_and_does_not_depend_on_the_batch(temporal, restarts):
    """Survivors end at the same point bit for bit; the same samples are fooled."""
    attack = SAPGD(Linf(0.08), steps=9, restarts=restarts, gradient=ASSG(0.4, temporal))
    model, (x, y) = spiking(), vectors()
    assert can_step(attack, model)
    plain = attack(model, x, y, generator=SampleStreams(3, torch.arange(len(x))))
    with torch.no_grad():
        right = model(plain).argmax(1) == y
    assert 0 < right.sum() < len(x)
    found, shares = searched(attack, model, x, y, len(x))
    assert torch.equal(shares.bool(), right)
    if restarts == 1:
        assert torch.equal(found[right], plain[right])
    for batch_size in (1, 3, 7):
        again, same = searched(attack, model, x, y, batch_size)
        assert torch.equal(again, found) and torch.equal(same, shares)


def test_moments_that_do_not_follow_their_samples_are_noticed(monkeypatch):
    """The comparison above fails if samples get the moments of others."""
    attack = SAPGD(Linf(0.08), steps=9, gradient=ASSG(0.4))
    model, (x, y) = spiking(), vectors()
    found, _ = searched(attack, model, x, y, 3)
    kind = type(ASSG().begin())
    whole = kind.rearrange
    wrong = lambda self, rows: whole(self, torch.where(rows < 0, 0, rows.flip(0)))  # noqa: E731
    monkeypatch.setattr(kind, "rearrange", wrong)
    other, _ = searched(attack, model, x, y, 3)
    assert not torch.equal(found, other)


def test_which_adaptive_gradients_can_follow_a_changing_batch():
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), LIFNode(), nn.Linear(12, 3))
    foreign = sg.foreign(drawn(net, 0.8, stream(0, "net")), T=4).eval()
    for gradient in (ASSG(), ASSG(temporal=False), ASSG(reset=False)):
        attack = SAPGD(Linf(0.1), steps=2, gradient=gradient)
        assert can_step(attack, spiking()) and not can_step(attack, foreign)
    assert can_step(SAPGD(Linf(0.1), steps=2, gradient=Backprop()), foreign)
    for gradient in (NES(), EoT(2, ASSG())):
        assert not can_step(SAPGD(Linf(0.1), steps=2, gradient=gradient), spiking())
