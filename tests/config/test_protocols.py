"""Protocols of printed numbers: the papers' settings, and what is said to differ from them."""

import pytest

from spikeguard.attacks import APGD, FGSM, L2, MTPGD, PGD, EoT, Linf, SwapSurrogate, cross_entropy
from spikeguard.attacks.attack_lines import parse_line
from spikeguard.attacks.base import describe
from spikeguard.config.protocols import EPS, differences, protocol_of, size_differences
from spikeguard.config.published import row, rows
from spikeguard.config.schema import load_recipe
from spikeguard.neurons import Triangular

TABLE_1 = row("tgo/1/cifar10/wrn16-4/at+tgo")
PGD10 = PGD(Linf(EPS), steps=10, step_size=0.01)


def told(attack):
    return describe(attack)


def test_the_attacks_of_the_papers():
    """Step sizes by hand: 0.01 at every length in TGO, 2/255 for ten steps in stable-snn."""
    found = protocol_of(TABLE_1, "pgd10")
    assert (found.eot, differences(found.settings, told(PGD10), stochastic=True)) == (1, ())
    stable = protocol_of(row("stable-snn/1/cifar10/vgg11/at dlif rho=1.0"), "pgd10")
    ours = PGD(Linf(EPS), steps=10, step_size=2 / 255)
    assert differences(stable.settings, told(ours), stochastic=True) == ()
    third = protocol_of(row("tgo/3/cifar100/wrn16-4/at+tgo (eot 3)"), "apgd-ce10")
    ours = APGD(Linf(EPS), steps=10, loss=cross_entropy, gradient=EoT(3, PGD10.gradient))
    assert (third.eot, differences(third.settings, told(ours), stochastic=True)) == (3, ())


def test_the_line_of_a_protocol_is_its_attack():
    for printed in rows().values():
        for attack in printed.accuracies.keys() - {"clean"}:
            found = protocol_of(printed, attack)
            if found is not None:
                built = parse_line(f"{found.line} eot={found.eot}").build(Linf(EPS))
                assert describe(built) == found.settings


def test_an_attack_that_a_paper_does_not_define_has_no_protocol():
    assert protocol_of(TABLE_1, "rfgsm") is None
    assert protocol_of(row("tgo/5/cifar10-dvs/wrn16-4/at"), "pgd30") is None


@pytest.mark.parametrize(
    ("ours", "differing"),
    [
        (
            PGD(Linf(EPS), steps=10, step_size=0.01, gradient=EoT(4, PGD10.gradient)),
            ["EoT 4, not 1"],
        ),
        (PGD(Linf(EPS), steps=20, step_size=0.01), ["steps 20, not 10"]),
        (PGD(Linf(EPS), steps=10), ["step_size default, not 0.01"]),
        (PGD(Linf(4 / 255), steps=10, step_size=0.01), ["eps 4/255, not 8/255"]),
        (PGD(L2(EPS), steps=10, step_size=0.01), ["threat L2, not Linf"]),
        (PGD(Linf(EPS), steps=10, step_size=0.01, restarts=2), ["restarts 2, not 1"]),
        (
            PGD(Linf(EPS), steps=10, step_size=0.01, gradient=SwapSurrogate(Triangular(1))),
            ["gradient SwapSurrogate, not Backprop"],
        ),
        (FGSM(Linf(EPS)), ["attack FGSM, not PGD"]),
        (PGD(Linf(EPS), steps=10, step_size=0.01 * (1 + 1e-12)), []),
    ],
)
def test_every_difference_is_named(ours, differing):
    wanted = protocol_of(TABLE_1, "pgd10").settings
    assert list(differences(wanted, told(ours), stochastic=True)) == differing


def test_a_setting_that_only_one_of_the_two_has_is_a_difference():
    """Settings that were added to an attack are stored only where they are not the default."""
    wanted = protocol_of(row("tgo/3/cifar100/wrn16-4/at"), "mtpgd7").settings
    ours = told(MTPGD(Linf(EPS), steps=7, step_size=0.01))
    assert differences(wanted, ours, stochastic=False) == ("momentum default, not 0.9",)
    assert differences(ours, wanted, stochastic=False) == ("momentum 0.9, not default",)


def test_eot_changes_nothing_without_noise():
    ours = told(PGD(Linf(EPS), steps=10, step_size=0.01, gradient=EoT(4, PGD10.gradient)))
    wanted = protocol_of(TABLE_1, "pgd10").settings
    assert differences(wanted, ours, stochastic=False) == ()


@pytest.mark.parametrize(
    ("changes", "samples", "differing"),
    [
        ([], 10_000, []),
        (["seed=3", "train.lr=0.05"], None, []),
        ([], 500, ["500 test images, not 10,000"]),
        (["train.epochs=25"], 10_000, ["epochs 25, not 300"]),
        (["data.train_limit=10000"], 10_000, ["10,000 training images, not all"]),
        (
            ["data.val_fraction=0.2"],
            10_000,
            ["held-out share of the training images 0.2, not 0"],
        ),
        (["model.width=0.25"], 10_000, ["width 0.25, not 1"]),
        (["model.T=2"], 10_000, ["T 2, not 4"]),
        (["data.name=digits"], 10_000, ["data digits, not cifar10"]),
        (["model.name=vgg5"], 10_000, ["network vgg5, not wrn16_4"]),
    ],
)
def test_what_is_not_of_the_papers_size_is_named(changes, samples, differing):
    recipe = load_recipe("tgo/cifar10-wrn16_4-at-tgo", changes)
    assert list(size_differences(recipe, TABLE_1, samples)) == differing
