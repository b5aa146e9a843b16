"""Contract of every attack; the tests run on each entry of ATTACKS.

An attack is built by its ``example(threat)`` where it has one, and from its threat otherwise.
An attack declares the tests that it cannot pass: see ``exempt_from`` of ``Attack``.
"""

from functools import cache
from typing import get_args

import pytest
import torch
from torch import nn

from spikeguard.attacks import (
    APGD,
    ATTACKS,
    FAB,
    L1,
    L2,
    MTPGD,
    PGD,
    RFGSM,
    SAPGD,
    AttackError,
    EoT,
    Linf,
    Square,
    SwapSurrogate,
    cross_entropy,
)
from spikeguard.attacks.searches.pgd import RFGSMVariant
from spikeguard.models import CNN
from spikeguard.neurons import NoisyLIF, Triangular
from spikeguard.rng import RandomSource, SampleStreams, randomness, stream
from tests.toys.untouched import assert_untouched, state

BUILD = {
    name: getattr(attack, "example", attack)
    for name, attack in ATTACKS.items()
    if not hasattr(attack, "norms")  # attacks on events: test_event_attacks.py
}
for _variant in get_args(RFGSMVariant):
    BUILD[f"rfgsm/{_variant}"] = lambda threat, v=_variant: RFGSM(threat, variant=v)
BUILD["pgd/restarts"] = lambda threat: PGD(threat, steps=3, restarts=3)
BUILD["pgd/width"] = lambda threat: PGD(threat, steps=3, gradient=SwapSurrogate(Triangular(2.0)))
BUILD["pgd/eot"] = lambda threat: PGD(threat, steps=3, restarts=2, gradient=EoT(2))
BUILD["apgd"] = lambda threat: APGD(threat, steps=15)  # not 100: time
BUILD["apgd/restarts"] = lambda threat: APGD(threat, steps=5, restarts=2, loss=cross_entropy)
BUILD["apgd/targets"] = lambda threat: APGD(threat, steps=5, targets=2)
BUILD["sapgd"] = lambda threat: SAPGD(threat, steps=12)
BUILD["sapgd/restarts"] = lambda threat: SAPGD(threat, steps=8, restarts=2, gradient=EoT(2))
BUILD["mtpgd"] = lambda threat: MTPGD(threat, steps=3)
BUILD["fab"] = lambda threat: FAB(threat, steps=2)
BUILD["square"] = lambda threat: Square(threat, queries=15)
BUILD["apgd/eot"] = lambda threat: APGD(threat, steps=5, restarts=2, gradient=EoT(2))

SPIKING_ONLY = {"pgd/width"}
EXEMPTIONS = {"linear_optimum", "moves_far", "moves_in_l1", "l2", "l1"}
# An L1 step moves one pixel, be it one that is black or white already: few of them may do nothing.

every_attack = pytest.mark.parametrize("name", sorted(BUILD))
every_threat = pytest.mark.parametrize(
    "threat", [Linf(0.1), L2(0.6), L1(2.0)], ids=["linf", "l2", "l1"]
)


def network(sigma=0.0):
    """Return a CNN whose input gradients are not zero, in train mode with one part in eval mode."""
    neuron = NoisyLIF(0.5, sigma, v_th=0.3)
    model = CNN(1, 3, T=2, width=4, hidden=6, image_size=8, neuron=neuron, generator=stream(0, "w"))
    model(torch.rand(16, 1, 8, 8, generator=stream(0, "statistics")))
    model.features[1].eval()
    model.features[0].bias.requires_grad_(False)
    model.classifier[1].weight.grad = torch.ones_like(model.classifier[1].weight)
    return model


@pytest.fixture(autouse=True)
def only_where_it_is_defined(request):
    """Skip a test of a norm that the attack declares to reject; none may reject Linf."""
    asked = getattr(request.node, "callspec", None)
    asked = {} if asked is None else asked.params
    name, threat = asked.get("name"), asked.get("threat")
    if name in BUILD and threat is not None and exempt(name, threat.norm):
        with pytest.raises(ValueError, match="defined for"):
            BUILD[name](threat)
        pytest.skip(f"{name} is not defined for {threat.norm}")


def exempt(name, what):
    return what in exemptions(name)


def exemptions(name):
    return getattr(BUILD[name](Linf(0.1)), "exempt_from", frozenset())


@pytest.fixture(params=[0.0, 0.2], ids=["quiet", "noisy"])
def model(request):
    return network(request.param)


@pytest.fixture
def quiet():
    return network()


LABELS = torch.tensor([0, 1, 2, 1])


def images():
    """Pixels on both sides of the box included."""
    x = torch.rand(4, 1, 8, 8, generator=stream(0, "x"))
    x[:, :, :2], x[:, :, 2:4] = 0, 1
    return x


@pytest.fixture
def x():
    return images()


@pytest.fixture
def y():
    return LABELS.clone()


class Linear(nn.Module):
    """Two logits 0 and <w, x>; class 0 is attacked along +w."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        score = (x.flatten(1) * self.weight).sum(1)
        return torch.stack([torch.zeros_like(score), score], 1)


class Deaf(nn.Module):
    """Ignores its input; with noise, each prediction is correct with probability 3/4."""

    def __init__(self, stochastic):
        super().__init__()
        self.stochastic = stochastic
        self.random = RandomSource()

    def forward(self, x):
        draw = self.random.uniform(x[:, 0, 0, 0], dim=0) if self.stochastic else 0
        own = torch.as_tensor(draw < 0.75, dtype=x.dtype).expand(len(x)) + 0 * x.flatten(1).sum(1)
        return torch.stack([own, 1 - own], 1)


def weights(size=12):
    w = torch.randn(size, generator=stream(0, "linear"))
    return torch.where(w.abs() < 0.1, 0.1, w)


@every_threat
@every_attack
def test_stays_in_its_threat_set(name, threat, model, x, y):
    before = x.clone()
    x_adv = BUILD[name](threat)(model, x, y, generator=stream(1, "attack"))
    threat.check(x_adv, x)
    assert not x_adv.requires_grad
    assert torch.equal(x, before)
    if not exempt(name, "moves_far") and not (threat.norm == "l1" and exempt(name, "moves_in_l1")):
        assert threat.distance(x_adv, x).min() > 0.1 * threat.eps, "the attack did nothing"


@pytest.mark.slow
@every_attack
def test_inputs_that_carry_gradients_give_results_that_do_not(name, model, x, y):
    inputs = x.clone().requires_grad_()
    x_adv = BUILD[name](Linf(0.1))(model, inputs, y, generator=stream(1, "attack"))
    assert not x_adv.requires_grad
    assert inputs.grad is None


@pytest.mark.slow
@pytest.mark.parametrize("threat", [Linf(0.0), L2(0.0), L1(0.0)], ids=["linf", "l2", "l1"])
@every_attack
def test_radius_zero_is_the_identity(name, threat, model, x, y):
    assert torch.equal(BUILD[name](threat)(model, x, y, generator=stream(1, "attack")), x)


@every_attack
def test_what_an_attack_is_exempt_from_is_known(name):
    assert exemptions(name) <= EXEMPTIONS


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
        BUILD[name](threat)(network(), images(), LABELS, generator=stream(1, "attack"))
    return sum(drawn) > 0


@pytest.mark.parametrize(("name", "random"), [("pgd", True), ("noise", True), ("fgsm", False)])
def test_an_attack_that_draws_is_found(name, random):
    assert draws(name, Linf(0.1)) == random


@pytest.mark.slow
@every_threat
@every_attack
def test_same_generator_same_bits(name, threat, model, x, y):
    """And another generator, other bits, if the search draws at all."""
    attack = BUILD[name](threat)
    first, again = (attack(model, x, y, generator=stream(1, "attack")) for _ in range(2))
    assert torch.equal(first, again)
    if draws(name, threat):
        assert not torch.equal(first, attack(model, x, y, generator=stream(2, "attack")))


@pytest.mark.slow
@every_threat
@every_attack
def test_a_sample_does_not_depend_on_its_batch(name, threat, model, x, y):
    model, x = model.double(), x.double()  # so that no sum depends on the batch size
    attack = BUILD[name](threat)

    def attacked(index):
        ids = torch.tensor([40, 7, 23, 8])[index]
        return attack(model, x[index], y[index], generator=SampleStreams(5, ids))

    together = attacked([0, 1, 2, 3])
    torch.testing.assert_close(attacked([2, 0, 3, 1]), together[[2, 0, 3, 1]], rtol=0, atol=1e-9)
    alone = torch.cat([attacked([i]) for i in range(4)])
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-9)


@every_attack
def test_the_model_and_the_global_generator_are_untouched(
    name, model, x, y, untouched_global_generator
):
    before = state(model)
    BUILD[name](Linf(0.1))(model, x, y, generator=stream(1, "attack"))
    assert_untouched(model, before)


@every_attack
def test_the_model_is_untouched_when_the_attack_is_interrupted(
    name, model, x, y, untouched_global_generator
):
    before = state(model)

    def interrupt(module, inputs):
        assert not model.training, "the search runs in evaluation mode"
        raise KeyboardInterrupt

    handle = model.classifier[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        BUILD[name](Linf(0.1))(model, x, y, generator=stream(1, "attack"))
    handle.remove()
    assert_untouched(model, before)


@pytest.mark.parametrize("name", sorted(set(BUILD) - SPIKING_ONLY))
def test_linf_optimum_of_a_linear_model(name):
    """max <w, x'> over the ball is <w, x> + eps ||w||_1, at x + eps sign(w)."""
    w, x = weights(), torch.full((2, 12), 0.5)
    x_adv = BUILD[name](Linf(0.125))(
        Linear(w), x, torch.tensor([0, 0]), generator=stream(1, "attack")
    )
    shift = (x_adv - x) @ w
    best = 0.125 * w.abs().sum()
    if exempt(name, "linear_optimum"):
        assert (shift <= best * (1 + 1e-6)).all()
    else:
        torch.testing.assert_close(x_adv, x + 0.125 * w.sign())
        torch.testing.assert_close(shift, best.expand(2))


@pytest.mark.parametrize("name", sorted(set(BUILD) - SPIKING_ONLY))
def test_l2_optimum_of_a_linear_model(name):
    """max <w, x'> over the ball is <w, x> + eps ||w||_2; a start elsewhere comes near it."""
    w, x = weights(), torch.full((2, 12), 0.5)
    x_adv = BUILD[name](L2(0.25))(Linear(w), x, torch.tensor([0, 0]), generator=stream(1, "attack"))
    shift, best = (x_adv - x) @ w, 0.25 * w.norm()
    assert (shift <= best * (1 + 1e-6)).all()
    if not exempt(name, "linear_optimum"):
        assert (shift >= 0.95 * best).all()


@pytest.mark.parametrize("stochastic", [False, True], ids=["quiet", "noisy"])
@pytest.mark.parametrize("name", sorted(set(BUILD) - SPIKING_ONLY))
def test_a_model_that_ignores_its_input_is_not_fooled(name, stochastic):
    """Under the same noise the adversarial input gets the same prediction as the clean one."""
    model, x = Deaf(stochastic), torch.rand(50, 1, 2, 2, generator=stream(0, "x"))
    y = torch.zeros(50, dtype=torch.int64)
    x_adv = BUILD[name](Linf(0.1))(model, x, y, generator=stream(1, "attack"))

    def right(inputs):
        with randomness(model, stream(2, "score")):
            return torch.stack([model(inputs).argmax(1) == y for _ in range(20)])

    assert torch.equal(right(x_adv), right(x))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda x: x.index_fill(0, torch.tensor([1]), torch.nan), "NaN"),
        (lambda x: x + 0.01, r"\[0, 1\]"),
        (lambda x: x - 0.01, r"\[0, 1\]"),
        (lambda x: (x * 255).to(torch.uint8), "floating point"),
        (lambda x: x[:0], "not empty"),
    ],
    ids=["nan", "above", "below", "bytes", "empty"],
)
@every_attack
def test_inputs_that_cannot_be_attacked_are_rejected_in_one_line(name, spoil, says, quiet, x, y):
    x = spoil(x)
    with pytest.raises(ValueError, match=says) as error:
        BUILD[name](Linf(0.1))(quiet, x, y[: len(x)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "spoil",
    [lambda y: y[:2], lambda y: y.float(), lambda y: y.int(), lambda y: y - 1, lambda y: y + 5],
    ids=["few", "float", "int32", "negative", "too large"],
)
@every_attack
def test_labels_that_do_not_fit_are_rejected_in_one_line(name, spoil, quiet, x, y):
    with pytest.raises(ValueError, match="labels") as error:
        BUILD[name](Linf(0.1))(quiet, x, spoil(y))
    assert "\n" not in str(error.value)


@every_attack
def test_a_model_with_a_nan_weight_is_an_error(name, quiet, x, y):
    """The first layer's potentials are NaN, so it never fires and the logits are finite."""
    with torch.no_grad():
        quiet.features[0].weight[0] = torch.nan
    before = {name: module.training for name, module in quiet.named_modules()}
    with pytest.raises(AttackError, match=r"features\.0\.weight") as error:
        BUILD[name](Linf(0.1))(quiet, x, y)
    assert "\n" not in str(error.value)
    assert before == {name: module.training for name, module in quiet.named_modules()}


@every_attack
def test_logits_that_are_not_finite_are_an_error(name, quiet, x, y):
    quiet.classifier.register_forward_hook(lambda module, inputs, out: out / 0)
    with pytest.raises(AttackError, match="not finite"):
        BUILD[name](Linf(0.1))(quiet, x, y)


@every_attack
def test_logits_of_another_shape_are_rejected(name, quiet, x, y):
    quiet.classifier.register_forward_hook(lambda module, inputs, out: out[..., 0])
    with pytest.raises(ValueError, match="logits"):
        BUILD[name](Linf(0.1))(quiet, x, y)
