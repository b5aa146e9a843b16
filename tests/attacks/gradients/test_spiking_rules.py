"""Gradients for spiking networks: each against numbers computed by hand."""

import math

import pytest
import torch
from torch import nn

from spikeguard.attacks import (
    ASSG,
    BPTR,
    FGSM,
    FORWARD,
    HART,
    NES,
    PDSG,
    PGD,
    RFGSM,
    RGA,
    ANNTwin,
    AttackError,
    Backprop,
    EoT,
    Graphed,
    Linf,
    SwapSurrogate,
    cost,
    cross_entropy,
    gradient_cost,
    margin,
)
from spikeguard.attacks.base import describe
from spikeguard.attacks.gradients.base import is_adaptive, start_search, without_learning
from spikeguard.attacks.searches.stepwise import Watch, can_step
from spikeguard.kernels.selection import KERNELS, use_kernel, why_not
from spikeguard.models import CNN, MLP
from spikeguard.neurons import (
    DLIF,
    IF,
    LIF,
    PLIF,
    ATan,
    EvolutionaryLIF,
    Fired,
    NoisyLIF,
    StoG,
    record,
)
from spikeguard.rng import RandomSource, SampleStreams, randomness, stream

RULED = {
    "bptr": BPTR(),
    "rga": RGA(),
    "hart": HART(1.2),
    "assg": ASSG(),
    "pdsg": PDSG(),
    "twin": ANNTwin(),
}
GRADIENTS = {**RULED, "nes": NES(4, 0.2)}
NEURONS = {
    "if": lambda: IF(v_th=0.1),
    "lif": lambda: LIF(0.7, 0.1),
    "lif/soft": lambda: LIF(0.7, 0.2, reset="soft", input_scale=0.9),
    "plif": lambda: PLIF(v_th=0.1),
    "noisy_lif": lambda: NoisyLIF(0.5, 0.2, v_th=0.1),
    "dlif": lambda: DLIF(3, v_th=0.1),
    "dlif/leak": lambda: DLIF(3, "leak", v_th=0.1),
    "stog": lambda: StoG(0.8, 0.7, v_th=0.1),
    "evolutionary_lif": lambda: EvolutionaryLIF(3, v_th=0.1),
}
KERNEL = [name for name in KERNELS if name != "triton" and why_not(name) is None]
X = torch.rand(4, 1, 8, 8, generator=stream(0, "x"))
Y = torch.tensor([0, 2, 1, 1])

every_gradient = pytest.mark.parametrize("name", sorted(GRADIENTS))
every_rule = pytest.mark.parametrize("name", sorted(RULED))


def network(neuron=None, T=3):
    model = CNN(1, 3, T=T, width=4, hidden=6, image_size=8, neuron=neuron or LIF(0.5, 0.3))
    model(torch.rand(16, 1, 8, 8, generator=stream(0, "statistics")))
    return model.eval()


def streams(ids=(5, 1, 9, 4)):
    return SampleStreams(3, list(ids))


def taken(gradient, model, index=(0, 1, 2, 3), loss=cross_entropy):
    index = list(index)
    with randomness(model, streams((torch.tensor([5, 1, 9, 4])[index]).tolist())):
        return gradient(model, X.to(model.mean)[index], Y[index], loss)


class Neuron(nn.Module):
    """A classifier that is one layer: currents [B, T, N] in, logits 0 and a weighted sum of s."""

    def __init__(self, neuron, weights):
        super().__init__()
        self.neuron = neuron
        self.weights = weights  # [T, 1, N]

    def forward(self, x):
        score = (self.neuron(x.transpose(0, 1)) * self.weights).sum((0, 2))
        return torch.stack([torch.zeros_like(score), score], 1)


def one_layer(neuron, x, weights, gradient):
    """Return ds[t]/dI[t], weighted and summed as in the gradient, [T, B, N]."""
    model, y = Neuron(neuron, weights), torch.zeros(x.shape[1], dtype=torch.int64)
    _, grad = gradient(model, x.transpose(0, 1), y, margin)  # margin = the score
    return grad.transpose(0, 1)


# --------------------------------------------------------------------- properties of every rule


@pytest.mark.parametrize("neuron", sorted(NEURONS))
@every_gradient
def test_every_gradient_works_with_every_neuron_and_changes_nothing(name, neuron):
    model = network(NEURONS[neuron]())
    with randomness(model, streams()):
        logits = model(X).detach()
    losses, grad = taken(GRADIENTS[name], model)
    assert grad.shape == X.shape and torch.isfinite(grad).all()
    assert (grad.flatten(1).abs().amax(1) > 0).any(), "no gradient at all"
    assert all(m.rule is None for m in model.modules() if hasattr(m, "rule"))
    with randomness(model, streams()):
        assert torch.equal(model(X), logits)
    if not model.stochastic:
        torch.testing.assert_close(losses, cross_entropy(logits, Y), rtol=0, atol=0)


@every_rule
def test_the_gradient_is_another_one_than_backprops(name):
    model = network()
    assert not torch.allclose(taken(RULED[name], model)[1], taken(Backprop(), model)[1], rtol=1e-2)


@every_gradient
def test_a_sample_does_not_depend_on_its_batch(name):
    model = network(NoisyLIF(0.5, 0.2, v_th=0.3)).double()
    losses, grad = taken(GRADIENTS[name], model)
    for index in ([2, 0, 3, 1], [1], [3, 2]):
        one_loss, one_grad = taken(GRADIENTS[name], model, index)
        torch.testing.assert_close(one_grad, grad[index], rtol=0, atol=1e-9)
        torch.testing.assert_close(one_loss, losses[index], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["assg", "nes"])
def test_a_search_that_learns_does_not_depend_on_its_batch(name):
    model = network().double()
    x, y = X.double(), Y
    attack = PGD(Linf(0.1), steps=3, gradient=GRADIENTS[name])

    def attacked(index):
        return attack(model, x[index], y[index], generator=streams([5, 1, 9, 4][i] for i in index))

    together = attacked([0, 1, 2, 3])
    alone = torch.cat([attacked([i]) for i in range(4)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNEL)
@every_rule
def test_the_kernel_makes_no_difference(name, kernel):
    model = network()
    with use_kernel("reference"):
        losses, grad = taken(RULED[name], model)
    with use_kernel(kernel):
        same_losses, same = taken(RULED[name], model)
    torch.testing.assert_close(same_losses, losses)
    torch.testing.assert_close(same, grad, rtol=1e-4, atol=1e-6)


@every_rule
def test_rules_are_taken_off_when_the_loss_fails(name):
    model = network()
    with pytest.raises(ZeroDivisionError):
        RULED[name](model, X, Y, lambda logits, y: 1 / 0)
    assert all(m.rule is None for m in model.modules() if isinstance(m, LIF))


@every_rule
def test_a_model_without_spiking_layers_is_named(name):
    with pytest.raises(ValueError, match="no spiking layer") as error:
        RULED[name](nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), X, Y, cross_entropy)
    assert str(error.value).startswith(type(RULED[name]).__name__) and "\n" not in str(error.value)


@every_gradient
def test_the_last_logits_a_loss_sees_are_the_models_own_at_x(name):
    model, seen = network(), []

    def loss(logits, y):
        seen.append(logits.detach())
        return cross_entropy(logits, y)

    GRADIENTS[name](model, X, Y, loss)
    assert torch.equal(seen[-1], model(X).detach())


@pytest.mark.parametrize("gradient", [BPTR(), RGA(), HART(), PDSG(), ANNTwin()], ids=repr)
def test_searches_run_step_by_step_where_nothing_is_learned(gradient):
    attack = PGD(Linf(0.1), gradient=gradient)
    assert can_step(attack, network())
    watch = Watch(cross_entropy)
    gradient(network(), X, Y, watch)
    assert torch.equal(watch.outcome(Y), network()(X).argmax(1) != Y)


@pytest.mark.parametrize(
    "build",
    [
        lambda: RGA(-0.1),
        lambda: RGA(1.1),
        lambda: HART(0.0),
        lambda: HART(math.nan),
        lambda: ASSG(0.5),
        lambda: ASSG(0.0),
        lambda: ANNTwin(0),
        lambda: NES(0),
        lambda: NES(4, 0.0),
    ],
)
def test_settings_out_of_range_are_rejected_in_one_line(build):
    with pytest.raises(ValueError, match="got") as error:
        build()
    assert "\n" not in str(error.value)


# -------------------------------------------------------------------------------- rate gradients


def test_bptr_passes_on_what_reaches_a_neuron_that_fires():
    x = torch.tensor([[0.1, 0.5, 1.4], [0.1, 0.8, 0.0]])[
        :, None
    ]  # fires never, at the second step, at the first
    weights = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])[:, None]
    found = one_layer(LIF(0.5), x, weights, BPTR())[:, 0]
    assert found.tolist() == [[0, 2, 3], [0, 5, 6]]


@pytest.mark.parametrize(
    ("mean", "slope"),
    [(-0.1, 0), (0.0, 0.2), (0.39, 0.2), (0.41, 0.55), (1.0, 0.55), (1.99, 0.55), (2.01, 0)],
)
def test_rga_slope_table(mean, slope):
    """lambda = 0.6, g = 0.2: (1 - 0.2 + 0.12) / 1.6 = 0.575; the breakpoint is at 0.4."""
    slope = 0.575 if slope == 0.55 else slope
    x = torch.tensor([mean - 0.3, mean + 0.3]).view(2, 1, 1)
    weights = torch.tensor([1.0, -2.0]).view(2, 1, 1)
    found = one_layer(LIF(0.6), x, weights, RGA())
    torch.testing.assert_close(found, slope * weights)


def test_rga_at_the_bend_takes_the_upper_slope_alone():
    """1 - 0.5 and the mean are exact; the public code adds both slopes there."""
    found = one_layer(LIF(0.5), torch.full((2, 1, 1), 0.5), torch.ones(2, 1, 1), RGA())
    torch.testing.assert_close(found, torch.full((2, 1, 1), 0.9 / 1.5))


@pytest.mark.parametrize(
    ("neuron", "slope"),
    [
        (IF(), 1 / 2),
        (PLIF(0.25), (0.8 + 0.05) / 1.25),
        (LIF(0.5, v_th=0.5), 2 * 0.9 / 1.5),
    ],
    ids=["if", "plif", "threshold"],
)
def test_rga_takes_leak_and_threshold_from_the_neuron(neuron, slope):
    x = torch.full((2, 1, 1), 0.8)
    torch.testing.assert_close(
        one_layer(neuron, x, torch.ones(2, 1, 1), RGA()), torch.full((2, 1, 1), slope)
    )


def test_rga_takes_the_mean_of_leaks_and_the_gated_current():
    leaky, gated = DLIF(2, "leak", 1.0), DLIF(2, decay=0.5)
    with torch.no_grad():
        leaky.a.copy_(torch.tensor([0.25, 0.75]))
        gated.a.copy_(torch.tensor([0.5, 1.5]))
    x, ones = torch.tensor([1.8, 0.2]).view(2, 1, 1), torch.ones(2, 1, 1)
    torch.testing.assert_close(one_layer(leaky, x, ones, RGA()), 0.9 / 1.5 * ones)
    # mean of 0.9 and 0.3 is above the breakpoint; slope by current = slope by v times the gate
    torch.testing.assert_close(
        one_layer(gated, x, ones, RGA()), 0.9 / 1.5 * gated.a.detach().view(2, 1, 1)
    )


@pytest.mark.parametrize("gradient", [BPTR(), RGA(), ANNTwin()], ids=repr)
def test_rates_do_not_depend_on_the_unit_of_the_membrane(gradient):
    """Doubling a layer's input weights and its threshold gives the same network."""
    model = MLP(6, 3, T=4, hidden=(8, 7), neuron=LIF(0.5, 0.5), generator=stream(0, "w"))
    twice = MLP(6, 3, T=4, hidden=(8, 7), neuron=LIF(0.5, 1.0), generator=stream(0, "w"))
    twice.load_state_dict(model.state_dict())
    with torch.no_grad():
        for layer in list(twice.classifier)[:-1]:
            for weight in layer.parameters():
                weight.mul_(2)
    x = torch.rand(4, 6, generator=stream(0, "x"))
    assert torch.equal(model(x), twice(x))
    one, other = (gradient(m, x, Y, cross_entropy)[1] for m in (model, twice))
    torch.testing.assert_close(one, other)
    assert one.abs().max() > 0


# ------------------------------------------------------------------------------ HART, PDSG, ASSG


def test_hart_is_the_mean_over_time_of_triangles_of_its_own_width():
    """Potentials 0.6, 0.9, 1.05, computed by hand; the neuron's own surrogate is not used."""
    x, weights = torch.full((3, 1, 1), 0.6), torch.tensor([1.0, 2.0, -3.0]).view(3, 1, 1)
    found = one_layer(LIF(0.5, surrogate=ATan()), x, weights, HART(0.5))
    slopes = [(0.5 - gap) / 0.25 for gap in (0.4, 0.1, 0.05)]
    mean = (slopes[0] + 2 * slopes[1] - 3 * slopes[2]) / 3
    torch.testing.assert_close(found, torch.full((3, 1, 1), mean))


def bell(v, sigma, v_th):
    x = v - v_th - sigma / 2
    return math.exp(-x * x / (2 * sigma * sigma)) / (math.sqrt(2 * math.pi) * sigma)


def test_pdsg_bell_of_two_neurons_worked_by_hand():
    """v[0] = 0.2, 0.6: sigma^2 = 0.08. With v[1] = 0.3, 1.1: mean 0.55, sigma^2 = 0.49 / 3."""
    x = torch.tensor([[0.2, 0.6], [0.2, 0.8]])[:, None]
    weights = torch.tensor([[1.0, -2.0], [3.0, 4.0]])[:, None]
    found = one_layer(LIF(0.5), x, weights, PDSG())[:, 0]
    sigmas = math.sqrt(0.08), math.sqrt((0.1225 + 0.0025 + 0.0625 + 0.3025) / 3)
    late = [3 * bell(0.3, sigmas[1], 1.0), 4 * bell(1.1, sigmas[1], 1.0)]
    early = []
    for weight, v, du in zip((1, -2), (0.2, 0.6), (0.5 * d for d in late), strict=True):
        early.append(bell(v, sigmas[0], 1.0) * (weight - v * du) + du)
    torch.testing.assert_close(found, torch.tensor([early, late]))


def test_pdsg_pools_a_feature_map_over_its_positions_by_channel():
    x = torch.rand(3, 2, 4, 5, 5, generator=stream(0, "maps"))
    fired = Fired(IF(), lambda: x, x, (x >= 1).float(), torch.tensor(1.0), v_th=1.0)
    slope = PDSG().prescribe(fired).slope
    for t in range(3):
        for b in range(2):
            for c in range(4):
                sigma = x[: t + 1, b, c].std()
                z = (x[t, b, c] - 1 - sigma / 2) / sigma
                expected = torch.exp(-0.5 * z.square()) / (math.sqrt(2 * math.pi) * sigma)
                torch.testing.assert_close(slope[t, b, c], expected)


def test_pdsg_of_equal_potentials_takes_one_for_their_spread():
    found = one_layer(IF(), torch.zeros(1, 1, 3), torch.ones(1, 1, 3), PDSG())
    torch.testing.assert_close(found, torch.full((1, 1, 3), bell(0.0, 1.0, 1.0)))
    alone = one_layer(IF(), torch.full((1, 1, 1), 0.7), torch.ones(1, 1, 1), PDSG())
    torch.testing.assert_close(alone, torch.full((1, 1, 1), bell(0.7, 1.0, 1.0)))


def test_pdsg_as_published_depends_on_the_batch():
    model = network().double()
    _, grad = taken(PDSG(batch=True), model)
    _, alone = taken(PDSG(batch=True), model, [1])
    assert not torch.allclose(alone, grad[[1]], rtol=1e-3)
    torch.testing.assert_close(alone, taken(PDSG(), model, [1])[1])  # a batch of one


def test_assg_recursion_by_a_plain_loop():
    neuron, weights = LIF(0.5), torch.tensor([1.0, -2.0]).view(2, 1, 1)
    search, M, D = ASSG(0.4).begin(), [1.0, 1.0], [0.0, 0.0]
    a = 2 / math.pi * math.tan(0.4 * math.pi)
    for now in (0.7, 0.9, 0.2, 1.3):
        x = torch.tensor([now, 0.8]).view(2, 1, 1)
        first = x[0].item()
        v = [first, 0.8 + (0.5 * first if first < 1 else 0)]
        h = []
        for t in range(2):
            u = abs(v[t] - 1)
            M[t] = 0.9 * M[t] + 0.1 * u
            D[t] = 0.9 * D[t] + 0.1 * abs(u - M[t])
            alpha = a / (M[t] + 1.5 * D[t] + 1e-4)
            h.append(alpha / (2 * (1 + (math.pi / 2 * alpha * u) ** 2)))
        late = -2 * h[1]
        early = h[0] * (1 - v[0] * 0.5 * late) + (0.5 * late if first < 1 else 0)
        found = one_layer(neuron, x, weights, search)
        torch.testing.assert_close(found.flatten(), torch.tensor([early, late]))


def test_assg_by_itself_takes_a_first_step_each_time():
    model = network()
    first, second = (taken(ASSG(), model)[1] for _ in range(2))
    assert torch.equal(first, second)
    search = start_search(ASSG())
    assert torch.equal(taken(search, model)[1], first)
    assert not torch.equal(taken(search, model)[1], first)
    assert torch.equal(taken(start_search(ASSG()), model)[1], first)


def test_eot_lets_assg_learn_from_its_first_draw_alone():
    model = network(NoisyLIF(0.5, 0.3, v_th=0.3))
    once, often = ASSG().begin(), ASSG().begin()
    with randomness(model, streams()):
        once(model, X, Y, cross_entropy)
    with randomness(model, streams()):
        _, grad = EoT(3, often)(model, X, Y, cross_entropy)
    assert often.moments.keys() == once.moments.keys() and once.moments
    for place, moments in once.moments.items():
        assert all(map(torch.equal, moments, often.moments[place]))
    with randomness(model, streams()):  # the same draws, each with the moments of the first
        still = without_learning(once)
        each = torch.stack([still(model, X, Y, cross_entropy)[1] for _ in range(3)])
    torch.testing.assert_close(grad, each.mean(0))


def test_assg_learns_in_nested_eot_once_a_step():
    model, search = network(), ASSG().begin()
    EoT(2, EoT(2, search))(model, X, Y, cross_entropy)
    once = ASSG().begin()
    once(model, X, Y, cross_entropy)
    assert all(torch.equal(search.moments[place][0], M) for place, (M, _) in once.moments.items())


def test_assg_rejects_another_batch_in_the_same_search():
    model, search = network(), ASSG().begin()
    taken(search, model)
    with pytest.raises(ValueError, match="another batch") as error:
        taken(search, model, [0, 1])
    assert "\n" not in str(error.value)


def test_assg_keeps_a_layers_calls_apart():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = LIF(0.5, 0.3)

        def forward(self, x):
            return self.neuron(self.neuron(1.5 * x[None]) + 0.3 * x[None])[0, :, :3]

    model, search = Twice(), ASSG().begin()
    for _ in range(2):
        search(model, X.flatten(1), Y, margin)
    (first, _), (second, _) = (search.moments[model.neuron, call] for call in (1, 2))
    assert len(search.moments) == 2 and not torch.equal(first, second)


# --------------------------------------------------------------------------------- twin and NES


def test_the_twins_gradient_and_the_models_loss():
    """One hidden layer: z = W2 q(W1 x + b); below 1 and above 0 the gradient is W1^T W2^T."""
    model = MLP(6, 2, T=4, hidden=(5,), neuron=LIF(0.5), generator=stream(0, "w")).eval()
    first, second = model.classifier[1], model.classifier[3]
    with torch.no_grad():
        first.weight.mul_(0.5)
        first.bias.fill_(0.5)
    x = torch.rand(4, 6, generator=stream(0, "x"))
    current = first(x).detach()
    assert current.min() > 0 and current.max() < 1
    y = torch.zeros(4, dtype=torch.int64)
    losses, grad = ANNTwin()(model, x, y, margin)
    towards = (second.weight[1] - second.weight[0]) @ first.weight
    torch.testing.assert_close(grad, towards.detach().expand(4, 6))
    torch.testing.assert_close(losses, margin(model(x), y).detach(), rtol=0, atol=0)


def test_the_twins_losses_are_not_the_twins():
    model = network()
    seen = []
    losses, _ = ANNTwin()(model, X, Y, lambda z, y: seen.append(z) or cross_entropy(z, y))
    assert len(seen) == 2 and not torch.allclose(seen[0], seen[1])
    torch.testing.assert_close(losses, cross_entropy(seen[1], Y))


class Linear(nn.Module):
    """Logits 0 and <w, x>."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(64, generator=stream(0, "linear")))

    def forward(self, x):
        score = x.flatten(1) @ self.w
        return torch.stack([torch.zeros_like(score), score], 1)


def test_nes_of_a_linear_model_is_the_closed_form():
    """f(x + su) - f(x - su) = 2 s <w, u>: g = mean of <w, u> u, whatever x and s are."""
    model, y = Linear().double(), torch.zeros(4, dtype=torch.int64)
    search = NES(5, 0.1, seed=7).begin()
    for call in range(2):
        _, grad = search(model, X.double(), y, margin)
        source = stream(7, "nes", call)
        u = torch.stack([torch.randn(1, 8, 8, generator=source) for _ in range(5)]).double()
        expected = ((u.flatten(1) @ model.w.detach())[:, None] * u.flatten(1)).mean(0)
        torch.testing.assert_close(grad, expected.view(1, 1, 8, 8).expand(4, 1, 8, 8))


def test_nes_of_many_directions_approaches_the_gradient():
    model, y = Linear(), torch.zeros(4, dtype=torch.int64)
    _, grad = NES(3000)(model, X, y, margin)
    cosine = nn.functional.cosine_similarity(grad[0].flatten(), model.w.detach(), dim=0)
    assert cosine > 0.97  # about 1 / sqrt(1 + 64 / 3000) = 0.989


class Noise(nn.Module):
    """Logits 0 and <1, x> + n; a difference is exact if the noise n is the same at both points."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.random = RandomSource()
        self.drawn = []

    def forward(self, x):
        noise = self.random.normal(x[:, 0, 0, 0], dim=0)
        self.drawn.append(noise)
        score = x.flatten(1).sum(1) + noise
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("bound", ["streams", "generator", "nothing"])
def test_nes_answers_both_points_of_a_pair_with_the_same_noise(bound):
    model, y = Noise(), torch.zeros(4, dtype=torch.int64)
    source = {"streams": streams(), "generator": stream(0, "noise")}.get(bound)
    if source is None:
        _, grad = NES(2)(model, X, y, margin)
    else:
        with randomness(model, source):
            _, grad = NES(2)(model, X, y, margin)
    directions = stream(0, "nes", 0)
    u = torch.stack([torch.randn(1, 8, 8, generator=directions) for _ in range(2)])
    expected = (u.flatten(1).sum(1).view(-1, 1, 1, 1) * u).mean(0)
    torch.testing.assert_close(grad, expected.expand(4, 1, 8, 8), rtol=1e-2, atol=1e-2)
    first, same, second, again, _ = model.drawn
    assert torch.equal(first, same) and torch.equal(second, again)
    assert not torch.equal(first, second)


def test_nes_takes_no_derivative():
    model = network()
    with torch.no_grad():
        _, grad = NES(2, 0.1)(model, X, Y, cross_entropy)
    assert grad.abs().max() > 0 and not grad.requires_grad

    class Cut(Linear):
        def forward(self, x):
            return super().forward(x.detach())

    assert NES(2)(Cut(), X, torch.zeros_like(Y), margin)[1].abs().max() > 0


def test_nes_whose_loss_overflows_is_an_error():
    with pytest.raises(AttackError, match="not finite"):
        NES(1)(network(), X, Y, lambda logits, y: logits.sum(1) / 0)


def test_every_step_of_a_search_draws_new_directions():
    search = NES(2, 0.1).begin()
    model, y = Linear(), torch.zeros(4, dtype=torch.int64)
    one, other = (search(model, X, y, margin)[1] for _ in range(2))
    assert not torch.allclose(one, other)


def test_the_ten_step_rfgsm_begins_one_search():
    model = Linear()
    moved = RFGSM(Linf(0.1), variant="torchattacks-3.4", gradient=NES(1))
    seen = []
    model.register_forward_hook(lambda m, i, out: seen.append(i[0]))
    moved(model, X, torch.zeros_like(Y), generator=stream(1, "attack"))
    above, below = seen[0::3], seen[1::3]
    directions = [(a - b)[0].flatten() for a, b in zip(above, below, strict=True)]
    assert len(directions) == 10
    assert torch.linalg.matrix_rank(torch.stack(directions)) == 10


# ----------------------------------------------------------------------------------------- costs


def test_what_a_gradient_costs():
    assert gradient_cost(Backprop()) == gradient_cost(RGA()) == gradient_cost(ASSG()) == 1
    assert gradient_cost(SwapSurrogate(2.0)) == gradient_cost(Graphed(SwapSurrogate(2.0))) == 1
    assert gradient_cost(EoT(4, EoT(2))) == 8
    assert gradient_cost(ANNTwin()) == 1 + FORWARD
    assert gradient_cost(NES(10)) == pytest.approx(21 / 3)
    assert gradient_cost(EoT(3, NES(10))) == pytest.approx(21)
    assert cost(FGSM(Linf(0.1), gradient=NES(10))) == pytest.approx(7)
    assert cost(PGD(Linf(0.1), steps=5, gradient=EoT(2, ANNTwin()))) == pytest.approx(40 / 3)


def test_what_learns_says_so():
    assert [name for name, g in GRADIENTS.items() if is_adaptive(g)] == ["assg", "nes"]
    assert not any(is_adaptive(start_search(GRADIENTS[name])) for name in ("assg", "nes"))


def test_settings_are_described_as_plain_data():
    assert describe(HART(0.3)) == {"kind": "HART", "gamma": 0.3}
    assert describe(ASSG()) == {"kind": "ASSG", "A": 0.425, "temporal": True, "reset": True}
    assert describe(EoT(2, ANNTwin(8)))["inner"] == {"kind": "ANNTwin", "levels": 8}


def test_potentials_can_be_recorded_under_a_rule():
    model = network()
    with record(model) as trace:
        RGA()(model, X, Y, cross_entropy)
    under = {name: layer.v for name, layer in trace.items()}
    with record(model) as trace:
        model(X)
    assert all(torch.equal(under[name], layer.v) for name, layer in trace.items())
