"""The same attack in foolbox: the same adversarial inputs, and never a stronger search."""

import warnings

import pytest
import torch

from spikeguard.attacks import APGD, FGSM, L2, PGD, Linf, cross_entropy
from spikeguard.rng import stream
from tests.peers.digits import EPS, NETWORKS, still_right, trained

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    foolbox = pytest.importorskip("foolbox", reason="foolbox is missing: make bench-peers")

THREATS = {"linf": Linf(EPS["linf"]), "l2": L2(EPS["l2"])}
ONE_STEP = {"linf": "LinfFastGradientAttack", "l2": "L2FastGradientAttack"}
MANY = {"linf": "LinfProjectedGradientDescentAttack", "l2": "L2ProjectedGradientDescentAttack"}


def theirs(attack, model, x, y, eps):
    """Return the result of foolbox's attack."""
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    found, _, _ = attack(wrapped, x, foolbox.criteria.Misclassification(y), epsilons=eps)
    return found.detach()


def fgsm(norm, **options):
    return getattr(foolbox.attacks, ONE_STEP[norm])(random_start=False, **options)


def pgd(norm, steps, step_size, random_start=False):
    kind = getattr(foolbox.attacks, MANY[norm])
    return kind(abs_stepsize=step_size, steps=steps, random_start=random_start)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", THREATS)
def test_fgsm_finds_the_same_inputs(norm, name):
    model, x, y = trained(name)
    ours = FGSM(THREATS[norm])(model, x, y)
    torch.testing.assert_close(ours, theirs(fgsm(norm), model, x, y, EPS[norm]), rtol=0, atol=1e-5)
    assert not torch.equal(ours, x)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", THREATS)
def test_pgd_without_a_random_start_finds_the_same_inputs(norm, name):
    model, x, y = trained(name)
    step = EPS[norm] / 4
    ours = PGD(THREATS[norm], steps=10, step_size=step, random_start=False)(model, x, y)
    found = theirs(pgd(norm, 10, step), model, x, y, EPS[norm])
    torch.testing.assert_close(ours, found, rtol=0, atol=1e-5)


def test_the_comparison_is_sensitive():
    """A step more, or a step 1 % longer, would be seen."""
    model, x, y = trained("spiking")
    found = theirs(pgd("linf", 10, 0.025), model, x, y, EPS["linf"])
    for other in ({"steps": 11, "step_size": 0.025}, {"steps": 10, "step_size": 0.02525}):
        ours = PGD(THREATS["linf"], random_start=False, **other)(model, x, y)
        assert (ours - found).abs().max() > 1e-3


@pytest.mark.parametrize("norm", THREATS)
def test_our_searches_leave_no_more_than_theirs(norm):
    """From random starts: PGD-40 within two points of theirs, APGD of 40 steps not above it."""
    model, x, y = trained("spiking")
    threat, eps, step = THREATS[norm], EPS[norm], EPS[norm] / 10
    with torch.random.fork_rng():
        torch.manual_seed(0)
        left = still_right(model, theirs(pgd(norm, 40, step, True), model, x, y, eps), y)
    assert 0 < left < 0.9
    for attack, room in (
        (PGD(threat, steps=40, step_size=step), 0.02),
        (APGD(threat, steps=40, loss=cross_entropy), 0.0),
    ):
        found = attack(model, x, y, generator=stream(0, "attack"))
        threat.check(found, x)
        assert still_right(model, found, y) <= left + room
