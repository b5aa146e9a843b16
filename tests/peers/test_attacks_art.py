"""The same attack in the Adversarial Robustness Toolbox: the same inputs, or at least as strong.

Its AutoPGD is another algorithm, so that only strength is compared: the first step is ``eps_step``
and not 2 eps; a step counts as a success if the loss is the highest so far, not if it rose; after a
halving the momentum comes from the predecessor of the best point; it hands in the last point, or
the random start where that does not fool, and never the best one. Its L2 attacks clip to the box
before they shrink to the ball, ours and foolbox's after, so that inputs are compared where the box
does not bind. Its Square begins at the clean input where the stripes are no better, draws one
window for the whole batch, never at the last row or column, and keeps a change only if the margin
shrinks.
"""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.attacks import APGD, FGSM, L2, PGD, Linf, Square, cross_entropy
from spikeguard.rng import stream
from tests.peers.digits import EPS, NETWORKS, still_right, trained

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    missing = "adversarial-robustness-toolbox is missing: make bench-peers"
    evasion = pytest.importorskip("art.attacks.evasion", reason=missing)
    estimators = pytest.importorskip("art.estimators.classification", reason=missing)

THREATS = {"linf": Linf(EPS["linf"]), "l2": L2(EPS["l2"])}
NORM = {"linf": np.inf, "l2": 2}


@pytest.fixture(autouse=True)
def seeded():
    """Seed NumPy's global generator, from which ART draws, and restore it."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    yield
    np.random.set_state(before)  # noqa: NPY002


def theirs(kind, model, x, y, **options):
    """Return the result of ART's attack."""
    classifier = estimators.PyTorchClassifier(
        model=model,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=10,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    attack = getattr(evasion, kind)(classifier, batch_size=len(x), **options)
    return torch.from_numpy(attack.generate(x.numpy().copy(), y.numpy())).to(x.dtype)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", THREATS)
def test_fgsm_finds_the_same_inputs(norm, name):
    model, x, y = trained(name)
    found = theirs("FastGradientMethod", model, x, y, norm=NORM[norm], eps=EPS[norm])
    torch.testing.assert_close(FGSM(THREATS[norm])(model, x, y), found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("norm", THREATS)
def test_pgd_without_a_random_start_finds_the_same_inputs(norm, name):
    model, x, y = trained(name)
    threat = THREATS[norm]
    if norm == "l2":
        threat, x = L2(0.25), 0.35 + 0.3 * x  # no pixel gets to 0 or 1
    step = threat.eps / 4
    ours = PGD(threat, steps=10, step_size=step, random_start=False)(model, x, y)
    assert threat.distance(ours, x).mean() > 0.9 * threat.eps
    options = {"norm": NORM[norm], "eps": threat.eps, "eps_step": step, "max_iter": 10}
    found = theirs("ProjectedGradientDescent", model, x, y, verbose=False, **options)
    torch.testing.assert_close(ours, found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm", THREATS)
def test_apgd_leaves_no_more_than_their_auto_pgd(norm):
    """One random start, 40 steps, cross-entropy; their first step set to 2 eps, as in the paper.

    In L2 their projection is worth up to three points: it leaves more of the radius to use.
    """
    model, x, y = trained("spiking")
    options = {"norm": NORM[norm], "eps": EPS[norm], "eps_step": 2 * EPS[norm], "max_iter": 40}
    found = theirs(
        *("AutoProjectedGradientDescent", model, x, y),
        **(options | {"nb_random_init": 1, "loss_type": "cross_entropy", "verbose": False}),
    )
    left = still_right(model, found, y)
    assert 0 < left < 0.9
    room = 0.03 if norm == "l2" else 0.0
    attack = APGD(THREATS[norm], steps=40, loss=cross_entropy)
    assert still_right(model, attack(model, x, y, generator=stream(0, "attack")), y) <= left + room


def test_square_leaves_no_more_than_theirs():
    """200 queries each, one schedule of patch sizes stretched over them."""
    model, x, y = trained("spiking")
    options = {"norm": np.inf, "eps": EPS["linf"], "max_iter": 200, "verbose": False}
    left = still_right(model, theirs("SquareAttack", model, x, y, **options), y)
    attack = Square(THREATS["linf"], queries=200, rescale=True)
    ours = still_right(model, attack(model, x, y, generator=stream(0, "attack")), y)
    assert left < 0.9
    assert ours <= left
