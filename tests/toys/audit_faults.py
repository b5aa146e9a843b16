"""Planted faults for the checks of attack, state and score: one builder of a context per fault."""

from dataclasses import dataclass

import torch
from torch import nn

from spikeguard.attacks import APGD, PGD, EoT, Linf, cross_entropy
from spikeguard.auditing import CHECKS, Attacked, Context, Provenance
from spikeguard.auditing.tolerances import looks
from spikeguard.data.datasets import load
from spikeguard.models import CNN
from spikeguard.neurons import LIF, NoisyLIF, Triangular
from spikeguard.rng import RandomSource, stream
from tests.toys.audit_wrappers import Detached, Loud, TrainingBatchNorm, Wrapper

DIGITS = load("digits", train_limit=600)

X, Y = DIGITS.test.batch(slice(60))

STEPS = 10

LARGE = Linf(0.25)  # breaks every plainly trained network

SMALL = Linf(0.05)


def network(neuron=None):
    return CNN(
        1, 10, T=3, width=6, hidden=24, image_size=8, neuron=neuron, mean=(0.3,), std=(0.37,)
    )


def context(model, threat=LARGE, **options):
    return Context(model, X, Y, threat, **{"steps": STEPS, "budget": "quick", **options})


def larger(model, threat=LARGE, **options):
    """Eight times as many images, for checks that 60 cannot decide."""
    x, y = DIGITS.test.batch(slice(480))
    options = {"steps": STEPS, "budget": "quick", "looks": 3, **options}
    return Context(model, x, y, threat, **options)


def decided(code, subject):
    """The finding of a check that looks at 120, 240 and 480 images, as an audit does."""
    return CHECKS[code].decide([subject.first(n) for n in looks(2 * len(X), len(subject))])


def with_surrogate(weights, width):
    """The sound network with another width of its surrogate."""
    model = network(LIF(0.5, surrogate=Triangular(width)))
    model.load_state_dict(weights)
    return model.eval()


def healthy(weights):
    return with_surrogate(weights, 1.0)


def noisy(weights):
    """The sound network with declared noise on the membrane."""
    model = network(NoisyLIF(0.5, sigma=0.1))
    model.load_state_dict(weights)
    return model.eval()


class LeakySum(Wrapper):
    """Keeps state from one call to the next, of a shape that fits every batch."""

    state = 0.0

    def forward(self, x):
        logits = self.model(x + 0.3 * self.state)
        self.state = 0.5 * self.state + x.detach().mean(0, keepdim=True)
        return logits


class LeakyMembranes(Wrapper):
    """Keeps a potential per sample, which fits batches of one size only."""

    state = 0.0

    def forward(self, x):
        logits = self.model(x) + self.state
        self.state = 0.5 * logits.detach()
        return logits


class UndeclaredNoise(Wrapper):
    """Shifts all logits of a sample equally: the logits change and no class does."""

    def forward(self, x):
        return self.model(x) + 0.5 * torch.randn(len(x), 1)


class SparseView(nn.Module):
    """Uses a random 6 % of the pixels at each call, as does the gradient of one draw.

    Class 1 is signed light of +0.035 a pixel, class 0 of -0.035. A used pixel moves by
    0.025 against its class: in 10 steps by 0.015 on average with one draw, by 0.055 with four.
    """

    stochastic = True

    def __init__(self):
        super().__init__()
        self.random = RandomSource()
        self.register_buffer("sign", torch.tensor([1.0, -1.0]).repeat(512))

    def forward(self, x):
        seen = (self.random.uniform(x.flatten(1), dim=0) < 0.06).to(x)
        score = ((x.flatten(1) - 0.5) * seen) @ self.sign
        return torch.stack([-score, score], 1)


def sparse_view():
    model, y = SparseView(), torch.arange(40) % 2
    x = 0.5 + 0.035 * (2 * y - 1).view(-1, 1, 1, 1) * model.sign.view(1, 1, 32, 32)
    return Context(model, x, y, Linf(0.1), steps=10)


class Turned(torch.autograd.Function):
    """The identity; the gradient of some samples has the wrong sign."""

    @staticmethod
    def forward(ctx, x, wrong):
        ctx.save_for_backward(wrong)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        (wrong,) = ctx.saved_tensors
        return torch.where(wrong.view(-1, 1, 1, 1), -grad, grad), None


class WrongWay(Wrapper):
    """The gradient has the wrong sign everywhere."""

    def forward(self, x):
        return self.model(Turned.apply(x, torch.ones(len(x), dtype=torch.bool)))


class WrongWayOffTheGrid(Wrapper):
    """The gradient is right at clean images (pixels are multiples of 1/16), wrong elsewhere."""

    def forward(self, x):
        off = (16 * x).detach()
        return self.model(Turned.apply(x, ((off - off.round()).abs() > 1e-3).flatten(1).any(1)))


class WrongWayFarOff(Wrapper):
    """The gradient has the wrong sign beyond a distance from every clean image."""

    def __init__(self, model, distance):
        super().__init__(model)
        self.distance = distance

    def forward(self, x):
        nearest = torch.cdist(x.detach().flatten(1), X.flatten(1), p=torch.inf).amin(1)
        return self.model(Turned.apply(x, nearest > self.distance))


class Lottery(nn.Module):
    """Has gradient zero, and is wrong on one point in 15 at random."""

    def forward(self, x):
        light = x.flatten(1).sum(1)
        won = ((997 * light.detach()) % 1 < 1 / 15).float()
        score = 0.5 - won + 0 * light
        return torch.stack([score, -score], 1)


def lottery(weights):
    x = torch.rand(150, 1, 4, 4, generator=stream(0, "lottery"))
    attack = PGD(LARGE, steps=1)
    return Context(Lottery(), x, torch.zeros(150, dtype=torch.int64), LARGE, attack=attack)


def turned_round(weights):
    """PGD minimises the loss; APGD, which stores the best point, is harder to mislead."""
    threat = Linf(0.35)
    return context(WrongWay(healthy(weights)), threat, attack=PGD(threat, steps=STEPS))


def hesitant(threat, **options):
    """PGD with steps that are much too short to reach the edge of the ball."""
    options = {"steps": 10, "step_size": threat.eps / 60, "random_start": False, **options}
    return PGD(threat, **options)


class LeastOfMeans(Context):
    """Reports the accuracy under the best single attack."""

    def upper_bound(self):
        return min(outcome.accuracy for outcome in self.reported())


def least_of_means(weights):
    subject = LeastOfMeans(healthy(weights), X, Y, SMALL, steps=STEPS, budget="quick")
    for attack in (subject.fgsm(), subject.pgd(), subject.pgd(surrogate=2.0)):
        subject.attacked(attack)
    return subject


def against_others(weights, attack):
    """A context with the reported attack and PGD."""
    subject = context(healthy(weights), attack.threat, attack=attack)
    subject.attacked(subject.pgd())
    return subject


def recorded(model, outcome):
    """A context whose reported attack has a given outcome."""
    subject = context(model)
    subject.made[subject.reference()] = outcome
    return subject


def repaired(weights):
    """An attack that returns clean images with a wrong label and counts them as correct."""
    subject = Context(healthy(weights), X, (Y + (torch.arange(len(Y)) < 3)) % 10, LARGE)
    subject.made[subject.reference()] = Attacked(torch.ones(len(Y), dtype=torch.float64), X)
    return subject


class Counting(Wrapper):
    """Counts its calls in a buffer, as running statistics do."""

    def __init__(self, model):
        super().__init__(model)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return self.model(x)


def nan_weight(weights):
    """A NaN weight before a spiking layer: no spike, so the logits stay finite."""
    model = healthy(weights)
    with torch.no_grad():
        model.features[0].weight[0, 0, 0, 0] = torch.nan
    assert torch.isfinite(model(X[:2])).all()
    return model


@dataclass(frozen=True)
class Unprojected:
    """A threat set whose projection ignores the ball; ``check`` does not."""

    eps: float
    norm = "linf"

    def __getattr__(self, name):
        return getattr(Linf(self.eps), name)

    def project(self, x_adv, x):
        return x_adv.clamp(0, 1)


FAULTS = {
    "S1": {
        "batch norm in training mode": lambda w: context(TrainingBatchNorm(healthy(w))),
        "state that leaks": lambda w: context(LeakySum(healthy(w))),
        "state of one batch size": lambda w: context(LeakyMembranes(healthy(w))),
    },
    "G19": {
        "undeclared noise": lambda w: context(UndeclaredNoise(healthy(w))),
        "state that leaks": lambda w: context(LeakySum(healthy(w))),
        "noise that hides the gradient": lambda w: sparse_view(),
    },
    "G15": {
        "surrogate too narrow": lambda w: context(with_surrogate(w, 1e-3)),
        "no_grad encoder": lambda w: context(Detached(healthy(w))),
    },
    "G1": {"gradient wrong after a step": lambda w: context(WrongWayOffTheGrid(healthy(w)))},
    "G4": {"gradient turned round": lambda w: context(WrongWay(healthy(w)), Linf(0.45))},
    "G2": {"gradient turned round": lambda w: turned_round(w)},
    "G3": {
        "gradient turned round": lambda w: turned_round(w),
        "a better substitute": lambda w: context(
            with_surrogate(w, 1e-3), substitutes={"the same, wider": healthy(w)}
        ),
    },
    "G25": {
        "steps too short": lambda w: context(
            healthy(w), attack=hesitant(LARGE), undefended=healthy(w)
        )
    },
    "G6": {"surrogate too narrow": lambda w: context(with_surrogate(w, 0.02))},
    "G7": {
        "gradient wrong far off": lambda w: context(WrongWayFarOff(healthy(w), 0.11), Linf(0.1))
    },
    "G8": {"steps too short": lambda w: context(healthy(w), attack=hesitant(LARGE))},
    "G9": {"luck alone": lottery},
    "G10": {
        "steps too short": lambda w: context(healthy(w), SMALL, attack=hesitant(SMALL, steps=20)),
        "steps too short under noise": lambda w: context(
            noisy(w), SMALL, attack=hesitant(SMALL, steps=20, gradient=EoT(4))
        ),
        "stopped after a few steps under noise": lambda w: larger(
            noisy(w), SMALL, attack=APGD(SMALL, steps=3, gradient=EoT(4))
        ),
    },
    "G11": {
        "the last point is kept": lambda w: larger(healthy(w), SMALL, attack=PGD(SMALL, steps=30)),
        "the last point of large steps is kept": lambda w: larger(
            healthy(w), SMALL, attack=PGD(SMALL, steps=30, step_size=SMALL.eps)
        ),
    },
    "G12": {"steps too short": lambda w: context(healthy(w), attack=hesitant(LARGE))},
    "G13": {"saturated loss": lambda w: context(Loud(healthy(w)))},
    "G14": {
        "saturated loss": lambda w: context(
            Loud(healthy(w)), attack=APGD(LARGE, steps=20, loss=cross_entropy)
        )
    },
    "G28": {
        "another answer in a fresh process": lambda w: context(
            healthy(w), rescore=lambda x, y: torch.ones(len(y))
        ),
        "inputs that do not give the number": lambda w: recorded(
            healthy(w), Attacked(torch.ones(len(Y), dtype=torch.float64), 1 - X)
        ),
    },
    "G30": {
        "least of the means": least_of_means,
        "an attack that hardly moves": lambda w: against_others(w, hesitant(LARGE)),
    },
    "G31": {"errors repaired": repaired},
    "G32": {
        "chosen on the test": lambda w: context(healthy(w), tuned=Provenance("test", trials=12))
    },
    "G5": {"surrogate too narrow": lambda w: context(with_surrogate(w, 0.02))},
    "S4": {"surrogate narrowed after training": lambda w: context(with_surrogate(w, 0.02))},
    "G29": {
        "forward writes to a buffer": lambda w: context(Counting(healthy(w))),
        "batch norm in training mode": lambda w: context(TrainingBatchNorm(healthy(w))),
    },
    "G27": {
        "NaN weight": lambda w: context(nan_weight(w)),
        "attack without projection": lambda w: context(healthy(w), Unprojected(0.1)),
    },
}
