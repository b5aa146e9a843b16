"""Planted faults and sound twins for the checks of forward pass, spiking gradients and records."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from spikeguard.attacks import APGD, HART, PGD, Edits, Flips, Linf, Retiming, dlr, margin
from spikeguard.auditing import Attacked, Context, Provenance
from spikeguard.data.datasets import load
from spikeguard.encoders.coding import Poisson
from spikeguard.encoders.input_space import InputSpace
from spikeguard.models import CNN
from spikeguard.neurons import LIF, NoisyLIF, Triangular
from spikeguard.rng import RandomSource
from tests.toys.audit_wrappers import Detached, Loud, TrainingBatchNorm, Wrapper
from tests.toys.event_networks import EventNet, event_grids

DIGITS = load("digits", train_limit=400)

X, Y = DIGITS.test.batch(slice(40))

LARGE, SMALL = Linf(0.25), Linf(0.05)

SHAPE = {"T": 3, "width": 6, "hidden": 24, "image_size": 8}


def network(neuron=None, **options):
    return CNN(1, 10, **SHAPE, neuron=neuron, **{"mean": (0.3,), "std": (0.37,), **options})


def healthy(weights, neuron=None, **options):
    model = network(neuron, **options)
    model.load_state_dict({k: v.clone() for k, v in weights.items()})
    return model.eval()


def narrow(weights, width):
    return healthy(weights, LIF(0.5, surrogate=Triangular(width)))


def context(model, threat=LARGE, images=40, **options):
    x, y = DIGITS.test.batch(slice(images))
    settings = {"steps": 5, "budget": "quick", "attack": PGD(threat, steps=5), **options}
    return Context(model, x, y, threat, **settings)


class ThroughNumpy(Wrapper):
    """Raises when a gradient is required."""

    def forward(self, x):
        return self.model(torch.from_numpy(x.numpy() * 1.0))


class Jitter(Wrapper):
    """The logits oscillate with the smallest change of a pixel."""

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


class Purifier(Wrapper):
    """Takes a gradient step on its input before the forward pass."""

    how = staticmethod(torch.autograd.grad)

    def forward(self, x):
        with torch.enable_grad():
            z = x.detach().clone().requires_grad_()
            (grad,) = self.how(self.model(z).logsumexp(1).sum(), z)
        return self.model(x + 0.01 * grad.sign())


class Optimiser(Wrapper):
    """Steps an optimiser in forward, on an invented gradient."""

    def forward(self, x):
        shift = nn.Parameter(torch.zeros_like(x))
        shift.grad = torch.ones_like(x)
        torch.optim.SGD([shift], lr=1e-3).step()
        return self.model(x + shift.detach())


class UntilBright(Wrapper):
    """Brightens the image until it is bright enough: the number of calls depends on it."""

    def __init__(self, model):
        super().__init__(model)
        self.lighten = nn.Identity()

    def forward(self, x):
        light = x
        while bool(light.mean() < 0.6):
            light = self.lighten(light) + 0.1
        return self.model(x)


class Leaky(Wrapper):
    """Holds a potential from call to call."""

    v = 0.0

    def forward(self, x):
        logits = self.model(x) + self.v
        self.v = 0.5 * logits.detach()
        return logits


class LeakyMean(Leaky):
    """Holds a potential that fits a batch of any size."""

    def forward(self, x):
        logits = self.model(x) + self.v
        self.v = 0.5 * logits.detach().mean(0, keepdim=True)
        return logits


class LeakySilent(Wrapper):
    """Holds a potential that stays below the threshold and changes no logit."""

    v = 0.0

    def forward(self, x):
        self.v = 0.5 * self.v + x.detach().flatten(1)
        return self.model(x)


class Resetting(Leaky):
    """Holds a potential, and clears it at the start of forward."""

    def forward(self, x):
        self.v = 0.0
        return super().forward(x)


class KeepsNoise(Wrapper):
    """Holds its last noise, which is no state: the next call does not read it."""

    def forward(self, x):
        self.last = 0.1 * torch.randn(len(x), 10)
        return self.model(x) + self.last


class Hurried(Wrapper):
    """Runs one step if a gradient is required."""

    def forward(self, x):
        before, self.model.T = self.model.T, 1 if x.requires_grad else self.model.T
        try:
            return self.model(x)
        finally:
            self.model.T = before


class BlindStep(nn.Module):
    """A stage that detaches the last step."""

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
    """One arm passes no gradient."""

    def __init__(self, one, other):
        super().__init__()
        self.one, self.other = one, other

    def forward(self, x):
        return self.one(x) + self.other(x).detach()


class Rounded(Wrapper):
    """Rounded logits with a straight-through gradient."""

    def forward(self, x):
        z = self.model(x)
        return z + (5 * (z / 5).round() - z).detach()


def rates(bias):
    """A network with a rate readout."""
    model = network(LIF(0.5, surrogate=Triangular(4.0)), readout="rate").eval()
    with torch.no_grad():
        model.classifier[3].bias.fill_(bias)
    return model


class BackwardPoisson(Poisson):
    """An encoder whose straight-through gradient has the wrong sign."""

    def forward(self, x, T):
        spikes = super().forward(x, T)
        return 2 * spikes.detach() - spikes


class SparseView(nn.Module):
    """Uses a random 2 % of the pixels at each call, as does the gradient of one draw."""

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
    """Class 1 has signed light, class 0 its opposite; PGD moves the pixels of a draw."""
    model, y = SparseView(), torch.arange(40) % 2
    x = 0.5 + light * (2 * y - 1).view(-1, 1, 1, 1) * model.sign.view(1, 1, 32, 32)
    return Context(model, x, y, Linf(0.1), steps=10)


class NaNOffGrid(Wrapper):
    """Divides by zero except at clean images (pixels are multiples of 1/16)."""

    def forward(self, x):
        off = (16 * x - (16 * x).round()).abs().flatten(1).amax(1) > 1e-3
        return self.model(torch.where(off.view(-1, 1, 1, 1), x / 0.0 - x / 0.0, x))


@dataclass(frozen=True)
class Events:
    """At most eps cells of a binary grid change; ``whole`` keeps the grid binary."""

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


def on_grids(threat, spoil=None):
    """Attack a network on event grids; ``spoil`` replaces the adversarial grids."""
    model, x = EventNet().eval(), event_grids(20, (3, 2, 4, 4))
    model.input_space = InputSpace(whole=True, temporal=True)
    subject = Context(model, x, model(x).argmax(1), threat, steps=2)
    return subject if spoil is None else with_record(subject, subject.pgd(), x_adv=spoil(x))


def second_polarity(x):
    """Insert an event of the other polarity in one filled cell of each grid."""
    first = x[:, :, :1].flatten(1).argmax(1)
    spoilt = x.transpose(1, 2).flatten(2).clone()
    spoilt[torch.arange(len(x)), 1, first] = 1
    return spoilt.unflatten(2, (x.shape[1], *x.shape[3:])).transpose(1, 2)


def with_record(subject, attack, **wrong):
    """Store an attack's outcome in the context, with one field replaced."""
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
    "S19": {
        "fractions of events": lambda w: on_events(w, whole=False),
        "both polarities in a cell": lambda w: on_grids(Edits(5), second_polarity),
        "two events in a cell": lambda w: on_grids(Flips(500), lambda x: 2 * x),
        "more changes than the budget": lambda w: on_grids(Flips(3), lambda x: 1 - x),
        "bins left out": lambda w: on_grids(Flips(500), lambda x: x[:, :2]),
        "events that vanish": lambda w: on_grids(Retiming(1), torch.zeros_like),
        "events that move too far": lambda w: on_grids(Retiming(1), lambda x: x.roll(1, 1)),
    },
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
    "S19": {
        "whole events": lambda w: on_events(w, whole=True),
        "flips": lambda w: on_grids(Flips(3)),
        "edits": lambda w: on_grids(Edits(3)),
        "retiming": lambda w: on_grids(Retiming(1)),
        "retiming by as far as a roll": lambda w: on_grids(Retiming(2), lambda x: x.roll(1, 1)),
    },
    "S21": {
        "usual": lambda w: tuned(w, 1.0),
        "chosen on validation data": lambda w: tuned(w, 0.3, tuned=Provenance("validation", 48)),
    },
    "S22": {"as trained": lambda w: said(w, Triangular(1.0))},
}
