"""Contract of the attacks on events; the tests run on each with each threat set it is defined for.

The attacks on images that take these threat sets too, FGSM, PGD and noise, are among them.
"""

from functools import cache

import pytest
import torch
from torch import nn

from spikeguard.attacks import (
    ASSG,
    ATTACKS,
    FGSM,
    HART,
    PGD,
    RGA,
    SDA,
    AttackError,
    Counts,
    Edits,
    EoT,
    EventGreedy,
    Flips,
    Linf,
    RawEvents,
    Retiming,
    SpikeCompatible,
    SpikeFool,
    SpikeRetiming,
    SwapSurrogate,
    UniformNoise,
)
from spikeguard.attacks.searches.stepwise import can_step
from spikeguard.neurons import LIF, NoisyLIF, Triangular
from spikeguard.rng import RandomSource, SampleStreams, randomness, stream
from tests.toys.event_networks import EventNet, LinearEvents, event_grids
from tests.toys.untouched import assert_untouched, state

DENSE = ("flips", "edits", "counts", "retiming")
BUILD = {
    "fgsm": FGSM,
    "pgd": lambda threat: PGD(threat, steps=3, restarts=2),
    "noise": UniformNoise,
    "greedy": EventGreedy,
    "greedy/two": lambda threat: EventGreedy(threat, per_step=2),
    "greedy/assg": lambda threat: EventGreedy(threat, gradient=ASSG()),
    "greedy/rga": lambda threat: EventGreedy(threat, gradient=RGA()),
    "greedy/width": lambda threat: EventGreedy(threat, gradient=SwapSurrogate(Triangular(2.0))),
    "spike-compatible": lambda threat: SpikeCompatible(threat, steps=6),
    "spike-compatible/hart": lambda threat: SpikeCompatible(threat, steps=4, gradient=HART()),
    "sda": lambda threat: SDA(threat, steps=4, growth=3),
    "sda/assg": lambda threat: SDA(threat, steps=3, growth=3, gradient=ASSG()),
    "spikefool": lambda threat: SpikeFool(threat, steps=3, boundary_steps=3, targets=2),
    "raw-events": lambda threat: RawEvents(threat, steps=3, samples=2),
    "raw-events/eot": lambda threat: RawEvents(threat, steps=2, samples=2, gradient=EoT(2)),
    "retiming": lambda threat: SpikeRetiming(threat, steps=4),
    "retiming/assg": lambda threat: SpikeRetiming(threat, steps=3, gradient=ASSG()),
}
THREATS = {
    "flips": Flips(5),
    "edits": Edits(5),
    "counts": Counts(5),
    "retiming": Retiming(1),
    "retiming total=6 moved=4": Retiming(2, total=6, moved=4),
}
NONE = [Flips(0), Edits(0), Counts(0), Retiming(0), Retiming(2, total=0), Retiming(2, moved=0)]
SPIKING_ONLY = {
    name for name in BUILD if name.partition("/")[2] in {"assg", "rga", "width", "hart"}
}


def defined(name, threat):
    known = getattr(ATTACKS[name.partition("/")[0]], "norms", DENSE)
    return threat.norm.partition(" ")[0] in known


PAIRS = [(n, t) for n in sorted(BUILD) for t in THREATS.values() if defined(n, t)]
every_pair = pytest.mark.parametrize(
    ("name", "threat"), PAIRS, ids=[f"{name}-{threat.norm}" for name, threat in PAIRS]
)
FIRST = [next((n, t) for n, t in PAIRS if n == name) for name in sorted(BUILD)]
every_attack = pytest.mark.parametrize(("name", "threat"), FIRST, ids=[n for n, _ in FIRST])
quiet_attacks = pytest.mark.parametrize(
    ("name", "threat"), [p for p in PAIRS if p[0] not in SPIKING_ONLY]
)

SHAPE, LABELS = (3, 2, 4, 4), torch.tensor([0, 1, 2, 1])


def network(sigma=0.0):
    """Return a network with one part in evaluation mode and one constant parameter."""
    neuron = NoisyLIF(0.5, sigma, v_th=0.3) if sigma else LIF(0.5, v_th=0.3)
    model = EventNet(neuron=neuron)
    model.classifier.eval()
    model.features.bias.requires_grad_(False)
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    return model


@pytest.fixture(params=[0.0, 0.2], ids=["quiet", "noisy"])
def model(request):
    return network(request.param)


@pytest.fixture
def x():
    return event_grids(4, SHAPE)


@pytest.fixture
def y():
    return LABELS.clone()


def test_every_attack_on_events_is_here():
    registered = {name for name, attack in ATTACKS.items() if hasattr(attack, "norms")}
    assert registered <= {name.partition("/")[0] for name in BUILD}


@every_pair
def test_stays_in_its_threat_set(name, threat, model, x, y):
    before = x.clone()
    x_adv = BUILD[name](threat)(model, x, y, generator=stream(1, "attack"))
    threat.check(x_adv, x)
    assert not x_adv.requires_grad
    assert torch.equal(x, before)


@pytest.mark.parametrize("threat", NONE, ids=str)
@pytest.mark.parametrize("name", sorted(BUILD))
def test_budget_zero_is_the_identity(name, threat, x, y):
    if defined(name, threat):
        found = BUILD[name](threat)(network(), x, y, generator=stream(1, "attack"))
        assert torch.equal(found, x)


@pytest.mark.parametrize("threat", [Linf(0.1), *THREATS.values()], ids=lambda each: each.norm)
@pytest.mark.parametrize("name", sorted(BUILD))
def test_other_threat_sets_are_rejected_in_one_line(name, threat):
    if not hasattr(ATTACKS[name.partition("/")[0]], "norms") or defined(name, threat):
        BUILD[name](threat)
        return
    with pytest.raises(ValueError, match=r"defined for .*--threat") as error:
        BUILD[name](threat)
    assert "\n" not in str(error.value)


@cache
def draws(name, threat):
    """Whether the search itself draws random numbers: counted on a network without noise."""
    drawn = []
    advance = SampleStreams._advance

    def counting(self, count):
        drawn.append(count)
        return advance(self, count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SampleStreams, "_advance", counting)
        BUILD[name](threat)(network(), event_grids(4, SHAPE), LABELS)
    return sum(drawn) > 0


@pytest.mark.parametrize(
    ("name", "random"), [("greedy", False), ("raw-events", True), ("sda", True), ("pgd", True)]
)
def test_an_attack_that_draws_is_found(name, random):
    assert draws(name, Flips(5)) == random


@every_pair
def test_same_generator_same_bits(name, threat, model, x, y):
    attack = BUILD[name](threat)
    first, again = (attack(model, x, y, generator=stream(1, "attack")) for _ in range(2))
    assert torch.equal(first, again)


@every_pair
def test_a_sample_does_not_depend_on_its_batch(name, threat, model, x, y):
    model, x = model.double(), x.double()  # so that no sum depends on the batch size
    attack = BUILD[name](threat)

    def attacked(index):
        ids = torch.tensor([40, 7, 23, 8])[index]
        return attack(model, x[index], y[index], generator=SampleStreams(5, ids))

    together = attacked([0, 1, 2, 3])
    assert torch.equal(attacked([2, 0, 3, 1]), together[[2, 0, 3, 1]])
    assert torch.equal(torch.cat([attacked([i]) for i in range(4)]), together)


@every_attack
def test_the_model_and_the_global_generator_are_untouched(
    name, threat, model, x, y, untouched_global_generator
):
    before = state(model)
    BUILD[name](threat)(model, x, y, generator=stream(1, "attack"))
    assert_untouched(model, before)


@every_attack
def test_the_model_is_untouched_when_the_attack_is_interrupted(
    name, threat, model, x, y, untouched_global_generator
):
    before = state(model)

    def interrupt(module, inputs):
        assert not model.training, "the search runs in evaluation mode"
        raise KeyboardInterrupt

    handle = model.classifier.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        BUILD[name](threat)(model, x, y, generator=stream(1, "attack"))
    handle.remove()
    assert_untouched(model, before)


class Deaf(nn.Module):
    """Ignores its input; with noise, each prediction is correct with probability 3/4."""

    def __init__(self, stochastic):
        super().__init__()
        self.stochastic = stochastic
        self.random = RandomSource()

    def forward(self, x):
        draw = self.random.uniform(x[:, 0, 0, 0, 0], dim=0) if self.stochastic else 0
        own = torch.as_tensor(draw < 0.75, dtype=x.dtype).expand(len(x)) + 0 * x.flatten(1).sum(1)
        return torch.stack([own, 1 - own], 1)


@pytest.mark.parametrize("stochastic", [False, True], ids=["quiet", "noisy"])
@quiet_attacks
def test_a_model_that_ignores_its_input_is_not_fooled(name, threat, stochastic):
    model, x = Deaf(stochastic), event_grids(20, SHAPE)
    y = torch.zeros(20, dtype=torch.int64)
    x_adv = BUILD[name](threat)(model, x, y, generator=stream(1, "attack"))

    def right(inputs):
        with randomness(model, stream(2, "score")):
            return torch.stack([model(inputs).argmax(1) == y for _ in range(20)])

    assert torch.equal(right(x_adv), right(x))


@quiet_attacks
def test_linear_optimum(name, threat):
    """No attack exceeds max <w, x'> over the set, and those that claim to reach it do."""
    x = event_grids(3, SHAPE)
    w = torch.randn(SHAPE, generator=stream(3, "w"))
    best = (threat.project(x + threat.steepest(w.expand_as(x)), x) * w).flatten(1).sum(1)
    attack = BUILD[name](threat)
    model = LinearEvents(w, shift=25.0)  # never fooled, so that no search stops early
    found = (attack(model, x, torch.zeros(3, dtype=torch.int64)) * w).flatten(1).sum(1)
    assert (found <= best + 1e-4).all()
    exact = "linear_optimum" not in getattr(attack, "exempt_from", ())
    if exact or (name == "greedy" and threat.norm in ("flips", "counts")):
        torch.testing.assert_close(found, best)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x: x.index_fill(0, torch.tensor([1]), torch.nan), "NaN"),
        (lambda x: x - 0.01, r"\[0, "),
        (lambda x: x.to(torch.uint8), "floating point"),
        (lambda x: x[:0], "not empty"),
    ],
    ids=["nan", "below", "bytes", "empty"],
)
@every_attack
def test_inputs_that_cannot_be_attacked_are_rejected_in_one_line(name, threat, spoil, says, x, y):
    x = spoil(x)
    with pytest.raises(ValueError, match=says) as error:
        BUILD[name](threat)(network(), x, y[: len(x)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "spoil",
    [lambda y: y[:2], lambda y: y.float(), lambda y: y.int(), lambda y: y - 1, lambda y: y + 5],
    ids=["few", "float", "int32", "negative", "too large"],
)
@every_attack
def test_labels_that_do_not_fit_are_rejected_in_one_line(name, threat, spoil, x, y):
    with pytest.raises(ValueError, match="labels") as error:
        BUILD[name](threat)(network(), x, spoil(y))
    assert "\n" not in str(error.value)


@every_attack
def test_a_model_with_a_nan_weight_is_an_error(name, threat, x, y):
    model = network()
    with torch.no_grad():
        model.features.weight[0] = torch.nan
    with pytest.raises(AttackError, match=r"features\.weight") as error:
        BUILD[name](threat)(model, x, y)
    assert "\n" not in str(error.value)


@every_attack
def test_logits_that_are_not_finite_are_an_error(name, threat, x, y):
    model = network()
    model.classifier.register_forward_hook(lambda module, inputs, out: out / 0)
    with pytest.raises(AttackError, match="not finite"):
        BUILD[name](threat)(model, x, y)


@every_pair
def test_the_plain_call_and_the_step_by_step_run_agree(name, threat, x, y):
    """What ``until_fooled`` finds in a batch, each sample finds in a batch of another size."""
    model, attack = network().double(), BUILD[name](threat)
    if not can_step(attack, model) or not hasattr(attack, "norms"):
        return
    x, streams = x.double(), SampleStreams(5, [40, 7, 23, 8])
    found = attack(model, x, y, generator=streams)
    wrong = model(found).argmax(1) != y
    again = attack(model, x[1:], y[1:], generator=SampleStreams(5, [7, 23, 8]))
    assert torch.equal(again, found[1:]) and wrong.shape == (4,)
