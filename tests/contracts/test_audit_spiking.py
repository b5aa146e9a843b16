"""The checks of forward pass, spiking gradients and records: planted faults and healthy twins."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikeguard.attacks import APGD, ASSG, HART, L1, PGD, SAPGD, Linf, Square, dlr, margin
from spikeguard.auditing import Attacked, Context, Provenance
from spikeguard.auditing.registry import CHECKS
from spikeguard.data.datasets import load
from spikeguard.encoders.coding import Poisson
from spikeguard.models import CNN
from spikeguard.neurons import LIF, NoisyLIF, Triangular
from spikeguard.rng import RandomSource, stream

pytestmark = pytest.mark.slow

DIGITS = load("digits", train_limit=400, test_limit=40)
X, Y = DIGITS.test.batch(slice(None))
LARGE, SMALL = Linf(0.25), Linf(0.05)
SHAPE = {"T": 3, "width": 6, "hidden": 24, "image_size": 8}


def network(neuron=None, **options):
    return CNN(1, 10, **SHAPE, neuron=neuron, **{"mean": (0.3,), "std": (0.37,), **options})


@pytest.fixture(scope="module")
def weights():
    """Those of a plainly trained network."""
    model = network()
    optimiser = torch.optim.Adam(model.parameters(), lr=6e-3)
    x, y = DIGITS.train.batch(slice(None))
    for epoch in range(8):
        for index in torch.randperm(len(x), generator=stream(0, "order", epoch)).split(50):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[index]), y[index]).backward()
            optimiser.step()
    return model.eval().state_dict()


def healthy(weights, neuron=None, **options):
    model = network(neuron, **options)
    model.load_state_dict({k: v.clone() for k, v in weights.items()})
    return model.eval()


def narrow(weights, width):
    return healthy(weights, LIF(0.5, surrogate=Triangular(width)))


def context(model, threat=LARGE, **options):
    settings = {"steps": 5, "budget": "quick", "attack": PGD(threat, steps=5), **options}
    return Context(model, X, Y, threat, **settings)


# --- planted faults


class Wrapper(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)


class Detached(Wrapper):
    """An encoder under no_grad."""

    def forward(self, x):
        with torch.no_grad():
            x = x * 1.0
        return self.model(x)


class ThroughNumpy(Wrapper):
    """Raises as soon as somebody wants a gradient."""

    def forward(self, x):
        return self.model(torch.from_numpy(x.numpy() * 1.0))


class Jitter(Wrapper):
    """Rugged: the logits shake with the least change of a pixel."""

    def forward(self, x):
        shake = 50 * torch.sin(1e4 * x.flatten(1).sum(1, keepdim=True))
        return self.model(x) + functional.pad(shake, (0, 9))


class Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return -grad


class WrongWay(Wrapper):
    def forward(self, x):
        return self.model(Turned.apply(x))


class Softmax(Wrapper):
    def forward(self, x):
        return self.model(x).softmax(1)


class Loud(Wrapper):
    def forward(self, x):
        return 1000 * self.model(x)


class Purifier(Wrapper):
    """Takes a gradient step on its input before it answers."""

    how = staticmethod(torch.autograd.grad)

    def forward(self, x):
        with torch.enable_grad():
            z = x.detach().clone().requires_grad_()
            (grad,) = self.how(self.model(z).logsumexp(1).sum(), z)
        return self.model(x + 0.01 * grad.sign())


class Optimiser(Wrapper):
    """Steps an optimiser in forward, on a gradient that it makes up."""

    def forward(self, x):
        shift = nn.Parameter(torch.zeros_like(x))
        shift.grad = torch.ones_like(x)
        torch.optim.SGD([shift], lr=1e-3).step()
        return self.model(x + shift.detach())


class UntilBright(Wrapper):
    """Adds light until the image is bright enough: how often depends on the image."""

    def __init__(self, model):
        super().__init__(model)
        self.lighten = nn.Identity()

    def forward(self, x):
        light = x
        while bool(light.mean() < 0.6):
            light = self.lighten(light) + 0.1
        return self.model(x)


class Leaky(Wrapper):
    """Keeps a membrane potential from call to call."""

    v = 0.0

    def forward(self, x):
        logits = self.model(x) + self.v
        self.v = 0.5 * logits.detach()
        return logits


class LeakyMean(Leaky):
    """Keeps what fits a batch of any size."""

    def forward(self, x):
        logits = self.model(x) + self.v
        self.v = 0.5 * logits.detach().mean(0, keepdim=True)
        return logits


class LeakySilent(Wrapper):
    """Keeps a potential that stays below every threshold: no logit shows it."""

    v = 0.0

    def forward(self, x):
        self.v = 0.5 * self.v + x.detach().flatten(1)
        return self.model(x)


class Resetting(Leaky):
    """Keeps the potential too, and clears it first."""

    def forward(self, x):
        self.v = 0.0
        return super().forward(x)


class KeepsNoise(Wrapper):
    """Keeps its last noise, which is no state: the next call never reads it."""

    def forward(self, x):
        self.last = 0.1 * torch.randn(len(x), 10)
        return self.model(x) + self.last


class Hurried(Wrapper):
    """Runs one step where a gradient is wanted."""

    def forward(self, x):
        before, self.model.T = self.model.T, 1 if x.requires_grad else self.model.T
        try:
            return self.model(x)
        finally:
            self.model.T = before


class BlindStep(nn.Module):
    """A stage behind which the last step has no gradient."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def forward(self, x, T):
        y = self.stage(x, T)
        return torch.cat([y[:-1], y[-1:].detach()])


def blind_at_the_last_step(weights):
    model = healthy(weights)
    model.features = BlindStep(model.features)
    return model


def dead_layer(weights):
    model = healthy(weights)
    with torch.no_grad():
        model.features[4].weight.zero_()
        model.features[4].bias.fill_(-100)
    return model


class TwoArms(nn.Module):
    """One arm carries no gradient."""

    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x):
        return self.one(x) + self.other(x).detach()


class Rounded(Wrapper):
    """Coarse logits, as counts are; the gradient passes straight through."""

    def forward(self, x):
        z = self.model(x)
        return z + (5 * (z / 5).round() - z).detach()


def rates(bias):
    """A network that is read out in rates."""
    model = network(LIF(0.5, surrogate=Triangular(4.0)), readout="rate").eval()
    with torch.no_grad():
        model.classifier[3].bias.fill_(bias)
    return model


class BackwardPoisson(Poisson):
    """A coder whose straight-through pass has the wrong sign."""

    def forward(self, x, T):
        spikes = super().forward(x, T)
        return 2 * spikes.detach() - spikes


class SparseView(nn.Module):
    """Sees a random 2 % of the pixels at each call: so does the gradient of one draw."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.random = RandomSource()
        self.register_buffer("sign", torch.tensor([1.0, -1.0]).repeat(512))

    def forward(self, x):
        seen = (self.random.uniform(x.flatten(1), dim=0) < 0.02).to(x)
        score = 50 * ((x.flatten(1) - 0.5) * seen) @ self.sign
        return torch.stack([-score, score], 1)


def sparse_view(light):
    """Class 1 is signed light, class 0 its opposite; PGD moves a pixel where it was seen."""
    model, y = SparseView(), torch.arange(40) % 2
    x = 0.5 + light * (2 * y - 1).view(-1, 1, 1, 1) * model.sign.view(1, 1, 32, 32)
    return Context(model, x, y, Linf(0.1), steps=10)


class NaNOffGrid(Wrapper):
    """Divides by nothing away from clean images (pixels are multiples of 1/16)."""

    def forward(self, x):
        off = (16 * x - (16 * x).round()).abs().flatten(1).amax(1) > 1e-3
        return self.model(torch.where(off.view(-1, 1, 1, 1), x / 0.0 - x / 0.0, x))


class TrainingBatchNorm(Wrapper):
    def forward(self, x):
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
        return self.model(x)


@dataclass(frozen=True)
class Events:
    """At most eps cells of a binary grid change; ``whole`` is whether it keeps to that."""

    eps: float
    whole: bool = True
    norm = "flips"
    events = True

    def sample(self, x, streams):
        return x

    def steepest(self, grad):
        return grad.sign()

    def project(self, x_adv, x):
        first = torch.zeros_like(x).flatten(1).index_fill(1, torch.arange(int(self.eps)), 1)
        wanted = torch.where(first.view_as(x) > 0, x_adv, x).clamp(0, 1)
        return wanted.round() if self.whole else wanted.clamp(0, 0.5)

    def check(self, x_adv, x):
        pass


def on_events(weights, whole):
    model, threat = healthy(weights), Events(4, whole)
    return Context(model, (X > 0.5).float(), Y, threat, steps=2)


def with_record(subject, attack, **wrong):
    """Put an attack's outcome among those made, with something wrong about it."""
    made = subject.attacked(attack)
    subject.made[attack] = Attacked(**{"right": made.right, "x_adv": made.x_adv, **wrong})
    return subject


def counted_elsewhere(weights):
    subject = context(healthy(weights), SMALL)
    return with_record(subject, subject.fgsm(), right=torch.zeros(len(X)))


def lucky_record(weights):
    subject = noisy(weights)
    return with_record(subject, subject.pgd(), right=torch.zeros(len(X)))


def nan_input(weights):
    subject = context(healthy(weights))
    return with_record(subject, subject.fgsm(), x_adv=torch.full_like(X, torch.nan))


def two_classes(loss):
    """A linear model of two classes, attacked with a loss."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    return Context(model, X, Y % 2, SMALL, attack=PGD(SMALL, steps=2, loss=loss))


def tuned(weights, gamma, **options):
    subject = context(healthy(weights), **options)
    subject.attacked(PGD(LARGE, steps=2, gradient=HART(gamma)))
    return subject


def said(weights, surrogate):
    return context(healthy(weights), trained_with=surrogate)


def poisson(weights, kind):
    return context(healthy(weights, encoder=kind()))


def noisy(weights):
    return context(healthy(weights, NoisyLIF(0.5, sigma=0.1)), SMALL, steps=2)


def search(weights, width=1.0):
    attack = APGD(LARGE, steps=20)
    return context(narrow(weights, width), attack=attack)


FAULTS = {
    "G16": {
        "no_grad encoder": lambda w: context(Detached(healthy(w))),
        "NumPy inside": lambda w: context(ThroughNumpy(healthy(w))),
    },
    "G17": {"rugged logits": lambda w: context(Jitter(healthy(w)))},
    "G18": {"gradient turned round": lambda w: context(WrongWay(healthy(w)))},
    "S17": {"gradient turned round": lambda w: context(WrongWay(healthy(w)))},
    "G20": {
        "softmax": lambda w: context(Softmax(healthy(w))),
        "saturated logits": lambda w: context(Loud(healthy(w))),
    },
    "G21": {"purifies its input": lambda w: context(Purifier(healthy(w)))},
    "G22": {
        "loop that stops by the input": lambda w: context(UntilBright(healthy(w))),
        "gradients turned on": lambda w: context(Purifier(healthy(w))),
        "optimiser": lambda w: context(Optimiser(healthy(w))),
    },
    "G23": {"DLR of two classes": lambda w: two_classes(dlr)},
    "G24": {"success counted elsewhere": counted_elsewhere},
    "G26": {"surrogate too narrow": lambda w: search(w, 1e-3)},
    "S2": {
        "state of one batch size": lambda w: context(Leaky(healthy(w))),
        "state of any size": lambda w: context(LeakyMean(healthy(w))),
        "state that no logit shows yet": lambda w: context(LeakySilent(healthy(w))),
    },
    "S3": {"fewer steps under attack": lambda w: context(Hurried(healthy(w)))},
    "S5": {"surrogate narrowed after training": lambda w: context(narrow(w, 0.01))},
    "S6": {
        "surrogate too narrow": lambda w: context(narrow(w, 1e-3)),
        "no_grad encoder": lambda w: context(Detached(healthy(w))),
        "last step detached": lambda w: context(blind_at_the_last_step(w)),
    },
    "S7": {
        "dead layer": lambda w: context(dead_layer(w)),
        "surrogate too narrow": lambda w: context(narrow(w, 1e-3)),
    },
    "S8": {"surrogate with a tiny peak": lambda w: context(narrow(w, 300.0))},
    "S9": {"rounded logits": lambda w: context(Rounded(healthy(w)))},
    "S10": {"output neurons always on": lambda w: context(rates(100.0))},
    "S11": {
        "noise that hides the gradient": lambda w: sparse_view(0.03),
        "chance errors counted": lucky_record,
    },
    "S12": {"one arm detached": lambda w: context(TwoArms(healthy(w), healthy(w)))},
    "S13": {"straight-through of the wrong sign": lambda w: poisson(w, BackwardPoisson)},
    "S14": {"surrogate too narrow": lambda w: context(narrow(w, 1e-3))},
    "S15": {"surrogate too narrow": lambda w: context(narrow(w, 1e-3))},
    "S16": {"gradient turned round": lambda w: context(WrongWay(healthy(w)))},
    "S18": {
        "NaN off the clean images": lambda w: context(NaNOffGrid(healthy(w))),
        "NaN in an input": nan_input,
    },
    "S19": {"fractions of events": lambda w: on_events(w, whole=False)},
    "S20": {"batch norm in training mode": lambda w: context(TrainingBatchNorm(healthy(w)))},
    "S21": {
        "nobody says where from": lambda w: tuned(w, 0.3),
        "chosen on the test set": lambda w: tuned(w, 0.3, tuned=Provenance("test", 48)),
    },
    "S22": {"narrowed after training": lambda w: said(w, Triangular(2.0))},
}

TWINS = {code: {"plain": lambda w: context(healthy(w))} for code in FAULTS}
TWINS |= {
    "G23": {"margin of two classes": lambda w: two_classes(margin)},
    "G26": {"strong attack": search},
    "S2": {
        "plain": lambda w: context(healthy(w)),
        "undeclared noise": lambda w: context(KeepsNoise(healthy(w))),
        "state that is cleared": lambda w: context(Resetting(healthy(w))),
    },
    "S10": {"rates": lambda w: context(rates(0.0))},
    "S11": {"noisy": noisy},
    "S12": {
        "plain": lambda w: context(healthy(w)),
        "detached reset": lambda w: context(healthy(w, LIF(0.5, detach_reset=True))),
    },
    "S13": {"Poisson": lambda w: poisson(w, Poisson)},
    "S19": {"whole events": lambda w: on_events(w, whole=True)},
    "S21": {
        "usual": lambda w: tuned(w, 1.0),
        "chosen on validation data": lambda w: tuned(w, 0.3, tuned=Provenance("validation", 48)),
    },
    "S22": {"as trained": lambda w: said(w, Triangular(1.0))},
}


# --- the contract


def pairs(cases):
    return [(code, name) for code, named in cases.items() for name in named]


def test_every_check_has_a_planted_fault():
    assert set(FAULTS) == set(TWINS) <= set(CHECKS)


@pytest.mark.parametrize("code", FAULTS)
def test_every_check_has_a_page(code):
    page = Path(__file__).parents[2] / "docs" / "audit" / f"{code}.md"
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"# {code}: ")
    for part in ("Measured", "Passes", "A failure means", "Remedy", "Cost", "Cannot see", "Source"):
        assert f"* **{part}**: " in text


@pytest.mark.parametrize(("code", "fault"), pairs(FAULTS))
def test_a_check_fires_on_its_planted_fault(code, fault, weights):
    finding = CHECKS[code](FAULTS[code][fault](weights))
    assert finding.status == "fail", finding.measured
    assert finding.code == code
    assert finding.meaning
    assert finding.remedy
    assert finding.threshold


@pytest.mark.parametrize(("code", "twin"), pairs(TWINS))
def test_a_check_is_silent_on_a_healthy_twin(code, twin, weights):
    finding = CHECKS[code](TWINS[code][twin](weights))
    assert finding.status == "pass", (finding.measured, finding.meaning)
    assert finding.code == code
    assert finding.meaning
    assert not finding.remedy


@pytest.mark.parametrize(
    "code", ["S2", "S3", "G16", "G20", "G21", "G22", "S6", "S7", "S8", "S9", "S12", "G24", "S18"]
)
def test_a_check_is_silent_on_a_declared_noisy_network(code, weights):
    finding = CHECKS[code](noisy(weights))
    assert finding.status == "pass", finding.measured


# --- what does not apply says so


class Plain(nn.Module):
    """No spiking layer, no time, no last linear layer."""

    def forward(self, x):
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize(
    "code",
    ["G26", "S12", "S3", "S5", "S6", "S7", "S8", "S10", "S11", "S13", "S14", "S16", "S19", "S22"],
)
def test_a_check_without_a_question_does_not_pass(code):
    finding = CHECKS[code](context(Plain()))
    assert finding.status == "does not apply", finding.measured
    assert finding.measured


@pytest.mark.parametrize("code", ["S16", "S17"])
def test_what_cannot_be_asked_under_l1_is_not_run(code, weights):
    assert CHECKS[code](context(healthy(weights), L1(5.0))).status == "not run"


@pytest.mark.parametrize(("code", "checks"), [("G2", CHECKS), ("S15", CHECKS)])
def test_under_l1_differences_of_the_loss_take_the_place_of_square(code, checks, weights):
    sound = checks[code](context(healthy(weights), L1(5.0)))
    hidden = checks[code](context(narrow(weights, 1e-3), L1(5.0)))
    assert (sound.status, hidden.status) == ("pass", "fail"), (sound.measured, hidden.measured)
    assert "NES" in sound.measured and "Square" not in sound.measured


@pytest.mark.parametrize("code", [*CHECKS])
def test_a_check_leaves_a_model_in_training_as_it_was(code, weights):
    """Statistics of normalisation move with one forward pass in training mode."""
    model = healthy(weights).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    CHECKS[code](Context(model, X[:12], Y[:12], SMALL, steps=2, budget="quick"))
    assert all(module.training for module in model.modules())
    assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(getattr(module, "attacked", False) for module in model.modules())


def test_a_model_without_parts_has_no_calls_to_count():
    assert CHECKS["G22"](context(Plain())).status == "not run"


def test_a_network_that_does_not_say_how_it_was_trained_leaves_the_question_open(weights):
    assert CHECKS["S22"](context(healthy(weights))).status == "not run"


# --- known answers


class OnGradient(nn.Module):
    """A linear model: the gradient is exact, so that correlations are 1."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, 64))

    def forward(self, x):
        score = 0.01 * (x.flatten(1) @ self.w)
        return torch.stack([-score, score], 1)


def test_a_linear_model_agrees_with_its_finite_differences_entirely():
    subject = Context(OnGradient(), 0.3 + 0.4 * X, Y % 2, Linf(0.05))
    found = CHECKS["G18"](subject)
    assert found.evidence["median"] == pytest.approx(1, abs=1e-3)
    assert found.evidence["positive"] == len(X)
    steps = CHECKS["S17"](subject).evidence
    assert steps["guided"] > 0
    assert abs(steps["random"]) < steps["guided"]


def test_the_readout_of_the_active_test_has_its_adversarial_example_by_construction(weights):
    from spikeguard.auditing.checks.binarisation import Hook, binarised

    subject = search(weights)
    index = torch.arange(len(X))
    model, works = binarised(subject, Hook.on(subject.model, X[:1]), index)
    assert float(works.double().mean()) > 0.8
    with torch.no_grad():
        assert (model.take(works)(X[works]).argmax(1) == 0).all()
        turned = model.take(works)(X[works].flip(0)).argmax(1)
    assert (turned == 0).all()  # rows find their own readout in any order


def test_autograd_is_left_as_it_was(weights):
    before = torch.autograd.grad, torch.autograd.backward, vars(torch.autograd).copy()
    CHECKS["G21"](context(Purifier(healthy(weights))))
    assert (torch.autograd.grad, torch.autograd.backward, vars(torch.autograd)) == before


@pytest.mark.parametrize("code", ["S3", "S6", "S13", "G22", "S12"])
def test_a_check_leaves_the_model_as_it_was(code, weights):
    model = network(LIF(0.5, detach_reset=True), encoder=Poisson()).eval()
    before = str(model)
    CHECKS[code](context(model))
    assert str(model) == before
    assert model.T == 3
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Blinking(nn.Module):
    """An encoder that shows every second draw black, so that no gradient comes through it."""

    stochastic, normalised, constant = True, True, False

    def __init__(self):
        super().__init__()
        self.random = RandomSource()
        self.calls = 0

    def forward(self, x, T):
        self.calls += 1
        light = self.calls % 2
        return (x + 0 * self.random.uniform(x, dim=0)).mul(light).expand(T, *x.shape)


def test_a_gradient_on_one_of_the_draws_is_enough_under_noise(weights):
    """Every second draw is black: of such a one alone every sample would be called blind."""
    model = healthy(weights)
    model.encoder = Blinking()
    found = CHECKS["S6"](context(model))
    assert found.status == "pass" and found.evidence["samples"] == 0
    assert model.encoder.calls >= 4


def test_layers_are_named(weights):
    assert "features.6" in CHECKS["S7"](context(dead_layer(weights))).remedy
    cut = CHECKS["S12"](context(TwoArms(healthy(weights), healthy(weights)))).evidence["cut"]
    assert all(name.startswith("other.") for name in cut)
    assert CHECKS["S6"](context(blind_at_the_last_step(weights))).evidence["blind_steps"] == [2]


@pytest.mark.parametrize(("budget", "asked"), [("quick", ("BPTR",)), ("full", ())])
def test_s5_asks_sa_pgd_with_assg_in_both_budgets_and_the_other_rules_in_the_full_one(
    budget, asked, weights
):
    found = CHECKS["S5"](context(healthy(weights), budget=budget))
    assert "SA-PGD with ASSG" in found.measured
    assert all(name not in found.measured for name in asked)


def test_s5_says_whether_the_gradient_or_the_search_is_the_weaker_one(weights):
    """With a hidden gradient SA-PGD finds no more than the others, and with ASSG it does."""
    found = CHECKS["S5"](context(narrow(weights, 0.01)))
    own, other = found.evidence["own"], found.evidence["accuracy"]["SA-PGD with ASSG"]
    searched = float(re.search(r"SA-PGD with the own gradient ([\d.]+) %", found.meaning)[1]) / 100
    assert other < searched - 0.2 and abs(searched - own) < 0.2, found.meaning


def test_s5_calls_own_only_what_follows_the_own_gradient(weights):
    """With ASSG's attack handed over it must not stand on both sides."""
    handed = SAPGD(LARGE, steps=30, gradient=ASSG())
    found = CHECKS["S5"](context(narrow(weights, 0.01), attack=handed))
    plain = CHECKS["S5"](context(narrow(weights, 0.01), attack=APGD(LARGE, steps=50)))
    assert found.evidence["own"] == pytest.approx(plain.evidence["own"], abs=0.1)
    assert found.status == "fail"


_SEARCH, _SHARP = Square(LARGE, queries=200), SAPGD(LARGE, steps=30, gradient=ASSG())


@pytest.mark.parametrize(
    ("code", "handed"), [("G2", _SEARCH), ("S15", _SEARCH), ("S15", _SHARP)]
)  # G2 asks what any gradient finds, and ASSG's is not hidden
def test_a_search_without_gradients_is_compared_with_gradients(code, handed, weights):
    """Whatever is handed over, hidden gradients are found hidden, and healthy ones are not."""
    check = CHECKS[code]
    hidden = check(context(narrow(weights, 1e-3), attack=handed))
    sound = check(context(healthy(weights), attack=handed))
    assert (sound.status, hidden.status) == ("pass", "fail"), (sound.measured, hidden.measured)
