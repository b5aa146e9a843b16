"""MS-MPPD and the spike distances: closed forms, the true gain of the recursion, both readings."""

import math

import pytest
import torch
from torch import nn

from spikeguard.config.errors import ConfigError
from spikeguard.config.instantiate import instantiate
from spikeguard.defences import AT, DEFENCES, MPPD, TGO, GaussianNoise, Objective, Vanilla
from spikeguard.defences.mppd import perturbation_dynamics
from spikeguard.defences.piece import Pass, Step
from spikeguard.kernels.selection import use_kernel, why_not
from spikeguard.models import CNN, MLP
from spikeguard.neurons import DLIF, LIF, LayerTrace, NoisyLIF, Triangular, record
from spikeguard.rng import randomness, stream

X = torch.rand(6, 1, 8, 8, generator=stream(0, "x"))
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def draw(*shape, name="draw"):
    return torch.randn(shape, generator=stream(0, "mppd", name))


def layer(current, spikes=None):
    """A trace made by hand; only currents and spikes matter here."""
    spikes = torch.zeros_like(current) if spikes is None else spikes
    return LayerTrace(current, current, spikes, None, 1.0, Triangular(), "hard")


def trains(rows):
    """A trace of spike trains of one sample: one row a neuron."""
    spikes = torch.tensor(rows, dtype=torch.float32).T[:, None]  # [T, 1, neurons]
    return layer(torch.zeros_like(spikes), spikes)


def small_cnn(neuron=None):
    neuron = LIF(0.9, v_th=0.3) if neuron is None else neuron
    return CNN(1, 3, T=3, width=2, hidden=4, image_size=8, neuron=neuron).train()


def run(objective, model):
    with randomness(model, stream(1, "noise")):
        return Objective.of(objective)(model, X, Y, progress=0.5, generator=stream(1, "o"))


def toeplitz(decay, T):
    """The matrix from drive to perturbation: the recursion applied to unit vectors."""
    return perturbation_dynamics(torch.eye(T, dtype=torch.float64), decay)


@pytest.mark.parametrize(
    ("gate", "last"), [("leak", 0.5 * 3.0 * 1.0 + 2.0), ("input", 0.5 * 2.0 * 1.0 + 3.0 * 2.0)]
)
def test_gated_recursion_is_that_of_the_dlif_neuron(gate, last):
    """lambda 1/2, a = (2, 3), drive (1, 2): eps[1] is 1 (leak) or 2 (input), eps[2] = last."""
    neuron = DLIF(2, gate, decay=0.5, v_th=100.0)
    neuron.a.data = torch.tensor([2.0, 3.0])
    traces = []
    for current in ([3.0, 5.0], [2.0, 3.0]):
        with record(neuron) as trace:
            neuron(torch.tensor(current).view(2, 1, 1))
        traces.append(next(iter(trace.values())))
    first = 1.0 if gate == "leak" else 2.0
    found = MPPD(gated=True).measure(*traces)
    assert found.item() == pytest.approx((first**2 + last**2) / 2)
    assert MPPD(decay=0.5).measure(*traces).item() == 3.625  # as if there were no gates
    (grad,) = torch.autograd.grad(found, neuron.a)
    assert grad.abs().sum() > 0


def test_gated_with_all_gates_1_is_the_recursion_with_the_neurons_own_leak():
    drive = draw(3, 4, 5)
    for neuron in (LIF(0.7), DLIF(3, decay=0.7)):
        traces = []
        for current in (drive, torch.zeros_like(drive)):
            with record(neuron) as trace:
                neuron(current)
            traces.append(next(iter(trace.values())))
        expected = MPPD(decay=0.7).measure(*traces)
        torch.testing.assert_close(MPPD(decay=0.1, gated=True).measure(*traces), expected)


def test_gated_is_rejected_where_it_has_no_meaning():
    with pytest.raises(ValueError, match="gated belongs to distance 'ms-mppd', got 'std'"):
        MPPD(distance="std", gated=True)
    with pytest.raises(ValueError, match="leak factor of the layer, which is not known"):
        MPPD(gated=True).measure(layer(draw(2, 1, 1)), layer(draw(2, 1, 1)))


def test_by_hand():
    """decay 1/2, drive 1, 2: eps = 1, 2.5; mean of squares (1 + 6.25) / 2, sum 7.25."""
    clean = layer(torch.tensor([3.0, 5.0]).view(2, 1, 1))
    perturbed = layer(torch.tensor([2.0, 3.0]).view(2, 1, 1))
    assert MPPD(decay=0.5).measure(clean, perturbed).item() == 3.625
    assert MPPD(decay=0.5, reduction="sum").measure(clean, perturbed).item() == 7.25


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.99])
def test_constant_drive_has_the_closed_form_of_the_paper(decay):
    J, T = 0.7, 20
    t = torch.arange(1, T + 1, dtype=torch.float64)
    expected = J * (1 - decay**t) / (1 - decay)
    torch.testing.assert_close(
        perturbation_dynamics(torch.full((T,), J, dtype=torch.float64), decay), expected
    )


def test_without_a_leak_it_is_the_running_sum():
    drive = draw(7, 2, 3)
    torch.testing.assert_close(perturbation_dynamics(drive, 1.0), drive.cumsum(0))


@pytest.mark.parametrize("decay", [0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("T", [1, 3, 8, 20])
def test_the_gain_is_at_most_the_sum_of_the_powers_of_the_leak(decay, T):
    """Young's inequality; no drive exceeds the largest singular value, and one reaches it."""
    matrix = toeplitz(decay, T)
    lags = torch.arange(T)[:, None] - torch.arange(T)
    wanted = torch.where(lags >= 0, decay ** lags.clamp_min(0).double(), 0.0)
    torch.testing.assert_close(matrix, wanted)
    _, gains, right = torch.linalg.svd(matrix)
    assert gains[0] <= (1 - decay**T) / (1 - decay) * (1 + 1e-12)
    drives = draw(T, 100, name=f"{T}").double()
    reached = perturbation_dynamics(drives, decay).norm(dim=0) / drives.norm(dim=0)
    assert (reached <= gains[0] * (1 + 1e-12)).all()
    torch.testing.assert_close(perturbation_dynamics(right[0], decay).norm(), gains[0])


@pytest.mark.parametrize(
    ("decay", "T", "gain", "holds"),
    [(0.5, 3, 1.467, False), (0.9, 8, 4.111, False), (0.99, 20, 12.09, False), (0.99, 8, 5.26, 1)],
)
def test_the_papers_bound_on_the_gain_fails_where_it_is_known_to_fail(decay, T, gain, holds):
    found = torch.linalg.matrix_norm(toeplitz(decay, T), 2).item()
    assert found == pytest.approx(gain, rel=5e-3)
    assert (found <= math.sqrt(1 / (1 - decay))) == bool(holds)


def test_rate_distance_by_hand():
    """Spike counts 2 and 1 against 1 and 1 in T = 2: rates differ by 1/2 and 0."""
    clean, perturbed = trains([[1, 1], [1, 0]]), trains([[1, 0], [0, 1]])
    assert MPPD(distance="tasad", reduction="sum").measure(clean, perturbed).item() == 0.5
    assert MPPD(distance="tasad").measure(clean, perturbed).item() == 0.25 / 2


def test_spike_train_distance_by_hand():
    """Three spikes differ: the distance is sqrt(3), the mean square 3/4."""
    clean, perturbed = trains([[1, 1], [1, 0]]), trains([[1, 0], [0, 1]])
    expected = pytest.approx(math.sqrt(3))
    assert MPPD(distance="std", reduction="sum").measure(clean, perturbed).item() == expected
    assert MPPD(distance="std").measure(clean, perturbed).item() == 0.75


def test_a_spike_that_only_moves_in_time_is_seen_by_std_and_not_by_tasad():
    clean, perturbed = trains([[1, 0, 0]]), trains([[0, 0, 1]])
    assert MPPD(distance="tasad").measure(clean, perturbed) == 0
    assert MPPD(distance="std").measure(clean, perturbed) > 0


def test_rates_are_never_further_apart_than_trains():
    """Jensen: T TASAD^2 <= STD^2."""
    clean, perturbed = (layer(s, (s > 0).float()) for s in (draw(5, 1, 9), draw(5, 1, 9, name="b")))
    near, far = (
        MPPD(distance=d, reduction="sum").measure(clean, perturbed) for d in ("tasad", "std")
    )
    assert 0 < 5 * near**2 <= far**2


def test_sum_is_the_formula_of_each_sample_and_mean_over_the_batch():
    clean, perturbed = layer(draw(3, 4, 2, 5)), layer(draw(3, 4, 2, 5, name="b"))
    mean, total = (MPPD(reduction=r).measure(clean, perturbed) for r in ("mean", "sum"))
    torch.testing.assert_close(total, mean * 3 * 2 * 5)


@pytest.mark.parametrize("distance", ["ms-mppd", "tasad", "std"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_equal_passes_are_at_distance_0_with_gradient_0(distance, reduction):
    current = draw(3, 2, 4).requires_grad_()
    same = layer(current, current * 2)
    value = MPPD(distance=distance, reduction=reduction, detach_clean=True).measure(same, same)
    (grad,) = torch.autograd.grad(value, current)
    assert value == 0
    assert (grad == 0).all()


def test_the_clean_pass_is_a_constant_by_default():
    clean, perturbed = draw(3, 2, 4).requires_grad_(), draw(3, 2, 4, name="b").requires_grad_()
    MPPD().measure(layer(clean), layer(perturbed)).backward()
    assert clean.grad is None
    pulled, perturbed.grad = perturbed.grad, None
    MPPD(detach_clean=False).measure(layer(clean), layer(perturbed)).backward()
    torch.testing.assert_close(perturbed.grad, pulled, rtol=0, atol=0)
    torch.testing.assert_close(clean.grad, -pulled, rtol=0, atol=0)


@pytest.mark.parametrize("neuron", [LIF(0.9), DLIF(4), NoisyLIF(0.5, sigma=0.7)])
def test_value_and_gradient_of_one_layer_under_direct_coding(neuron):
    """The drive is J = W (x - x') at every step, whatever the neuron's gates and noise:

    L = c mean(J^2) with c the mean over t of ((1 - decay^t) / (1 - decay))^2, and the gradient,
    through the perturbed pass alone, is -2 c J x' / (B N).
    """
    model = MLP(6, 3, T=4, hidden=(5,), neuron=neuron, mean=(0.0,), std=(1.0,))
    first = next(m for m in model.modules() if isinstance(m, nn.Linear))
    for module in model.modules():
        if isinstance(module, DLIF):
            module.a.data = draw(4)
    x, moved = (torch.rand(7, 6, generator=stream(0, name)) for name in ("x", "moved"))
    passes = []
    for images in (x, moved):
        with record(model) as trace:
            passes.append(Pass(images, model(images), trace))
    step = Step(model, *passes, torch.zeros(7), 0.5, stream(0, "step"))
    term = MPPD(rho=0.5, decay=0.8).term(step)
    J = (x - moved) @ first.weight.T
    c = sum(((1 - 0.8**t) / 0.2) ** 2 for t in range(1, 5)) / 4
    torch.testing.assert_close(term, 0.5 * c * J.square().mean())
    (grad,) = torch.autograd.grad(term, first.weight)
    torch.testing.assert_close(grad, 0.5 * -2 * c * J.T @ moved / J.numel())


@pytest.mark.skipif(why_not("cpu") is not None, reason=f"cpu: {why_not('cpu')}")
@pytest.mark.parametrize("place", [0, 1, "last"])
def test_currents_behind_a_fused_batch_normalisation_are_the_plain_ones(place):
    """The fused kernel does not store the normalised current; its reconstruction is equal."""
    found = {}
    for kernel in ("reference", "cpu"):
        model = small_cnn()
        with use_kernel(kernel):
            outcome = run(GaussianNoise(0.1) | MPPD(layer=place), model)
            term = outcome.losses["mppd"]
            names, weights = zip(*model.named_parameters(), strict=True)
            grads = torch.autograd.grad(term, weights, allow_unused=True)
        found[kernel] = {"term": term.detach()} | dict(zip(names, grads, strict=True))
    assert found["cpu"]["term"] > 0
    assert any(g is not None and g.abs().sum() > 0 for g in found["cpu"].values())
    unused = [{n for n, g in f.items() if g is None} for f in found.values()]
    assert unused[0] == unused[1]
    for name in set(found["cpu"]) - unused[0]:
        torch.testing.assert_close(
            found["cpu"][name], found["reference"][name], rtol=2e-4, atol=1e-5, msg=name
        )


def test_the_layer_is_chosen_by_word_name_or_index():
    model = small_cnn()
    with record(model) as trace:
        model(X)
    names = list(trace)
    perturbation = GaussianNoise(0.2)
    by_place = [run(perturbation | MPPD(layer=i), model).losses["mppd"] for i in range(len(names))]
    assert len(names) == 4
    assert len({value.item() for value in by_place}) == 4
    by_name = [run(perturbation | MPPD(layer=n), model).losses["mppd"] for n in names]
    assert by_name == by_place
    last = [run(perturbation | MPPD(layer=w), model).losses["mppd"] for w in ("last", -1)]
    assert last == [by_place[-1]] * 2


@pytest.mark.parametrize("wrong", ["features.99", 4, -5])
def test_a_layer_that_is_not_there_is_rejected_before_the_training(wrong):
    objective = AT(eps=0.1) | MPPD(layer=wrong)
    with pytest.raises(ValueError, match=r"MPPD: no spiking layer .*'last', an index below 4, or"):
        objective.require(small_cnn(), None)
    with pytest.raises(ValueError, match="no spiking layer to compare"):
        objective.require(nn.Linear(2, 2), None)
    (AT(eps=0.1) | MPPD()).require(small_cnn(), None)


def test_nothing_to_compare_with_is_rejected():
    for objective in (Objective.of(MPPD()), MPPD() | TGO(), Objective.of(MPPD(rho=0.0))):
        with pytest.raises(ValueError, match="mppd needs a perturbed batch besides the clean one"):
            objective.require(small_cnn(), None)


def test_weight_0_is_the_perturbation_alone_bit_for_bit():
    """No second pass changes the batch normalisation statistics or the draws of the neurons."""
    ends = []
    for objective in (AT(eps=0.1), AT(eps=0.1) | MPPD(rho=0.0)):
        model = small_cnn(NoisyLIF(0.5, sigma=0.2, v_th=0.3))
        outcome = run(objective, model)
        outcome.total.backward()
        ends.append([outcome.total, *(p.grad for p in model.parameters()), *model.buffers()])
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=0)
    moved = small_cnn()
    run(AT(eps=0.1) | MPPD(), moved)
    counts = [b for n, b in moved.named_buffers() if n.endswith("num_batches_tracked")]
    assert counts
    assert all(count == 2 for count in counts)


def test_weight_scales_the_term_and_joins_what_it_is_added_to():
    one, two = (run(AT(eps=0.1) | MPPD(rho=r), small_cnn()).losses for r in (1.0, 2.0))
    assert list(one) == ["cross_entropy", "mppd"]
    torch.testing.assert_close(two["mppd"], 2 * one["mppd"])
    assert one["cross_entropy"] == two["cross_entropy"]


def test_an_unperturbed_twin_is_at_distance_0():
    assert run(AT(eps=0.0) | MPPD(), small_cnn()).losses["mppd"] == 0
    assert run(GaussianNoise(0.1) | MPPD(), small_cnn()).losses["mppd"] > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rho": -0.1}, "rho is a weight >= 0, got -0.1"),
        ({"rho": math.nan}, "rho is a weight >= 0, got nan"),
        ({"decay": 1.5}, r"decay is a leak factor in \[0, 1\], got 1.5"),
        ({"distance": "l2"}, "distance is one of ms-mppd, tasad, std; got 'l2'"),
        ({"reduction": "max"}, "reduction is 'mean' or 'sum', got 'max'"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        MPPD(**wrong)


def test_repr_builds_it_again():
    assert eval(repr(MPPD(rho=2.0, layer=-1))) == MPPD(rho=2.0, layer=-1)
    assert Vanilla() | MPPD() == Objective.of(MPPD())


def test_a_recipe_can_write_every_option():
    spec = {"name": "mppd", "rho": 1, "distance": "std", "detach_clean": False, "reduction": "sum"}
    for layer in ("last", "features.2", 0, -1):
        piece = instantiate(DEFENCES, {**spec, "layer": layer}, "objective.1")
        assert piece == MPPD(1.0, 0.99, "std", layer, detach_clean=False, reduction="sum")
    with pytest.raises(ConfigError, match=r"objective\.1\.distance: .*'l2'"):
        instantiate(DEFENCES, {"name": "mppd", "distance": "l2"}, "objective.1")
