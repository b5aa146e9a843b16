"""Suites: their attacks, the settings of these, and the description of settings."""

import json
from functools import partial

import numpy as np
import pytest
from torch import nn

from spikeguard.attacks import (
    ATTACKS,
    CASCADES,
    FGSM,
    L2,
    PGD,
    RFGSM,
    SUITES,
    Backprop,
    Converging,
    EoT,
    Linf,
    Square,
    SwapSurrogate,
    UniformNoise,
    cost,
    cross_entropy,
    dlr,
    margin,
    suitable,
    suite,
    threat_of,
)
from spikeguard.attacks.base import describe
from spikeguard.attacks.suites import attack_by_name
from spikeguard.models import MLP
from spikeguard.neurons import Triangular

NAMES = {
    "papers": ["fgsm", "rfgsm", "pgd7", "pgd10", "pgd20", "pgd40"],
    "stable-snn": ["fgsm", "pgd7", "pgd10", "pgd20", "pgd40", "apgd-ce10", "apgd-dlr10"],
    "compare": [
        *("fgsm", "rfgsm", "pgd7", "pgd10", "pgd20", "pgd40"),
        *(f"pgd20/width{w}" for w in ("0.5", "1", "2", "4")),
    ],
    "quick": ["fgsm", "pgd10", *(f"pgd10/width{w}" for w in ("0.5", "1", "2", "4"))],
    "surrogates": ["pgd40", *(f"pgd40/width{w}" for w in ("0.5", "1", "2", "4"))],
    "baseline": ["noise"],
    "standard": ["apgd-ce", "apgd-t", "fab-t", "square"],
    "snn": ["snn"],
    "snn-short": ["snn"],
    "snn-cascade": [
        *("noise", "fgsm", "pgd10", *(f"pgd10/width{w}" for w in ("0.5", "1", "2", "4"))),
        *(f"apgd-ce/width{w}" for w in ("0.5", "1", "2", "4")),
        *("apgd-ce/rga", "apgd-ce/hart", "apgd-ce/assg", "sapgd/assg", "apgd-margin/membrane"),
        *("apgd-t/width0.5", "apgd-t/assg", "apgd-ce", "apgd-t", "fab-t", "square"),
    ],
    "every": [
        *("noise", "fgsm", "rfgsm", "pgd20", "mifgsm20", "apgd20", "sapgd20", "mtpgd20", "fab20"),
        *("square", "pgd20/margin", "pgd20/dlr", "pgd20/bptr", "pgd20/rga", "pgd20/hart"),
        *("pgd20/assg", "pgd20/pdsg", "pgd20/ann-twin", "pgd20/nes", "pgd20/membrane"),
        *(f"pgd20/width{w}" for w in ("0.5", "1", "2", "4")),
    ],
    "tgo-table1": ["fgsm", "rfgsm", "pgd7", "pgd10", "pgd20", "pgd40"],
    "tgo-table3": [
        *("mtpgd7", "apgd-ce7", "mtpgd10", "apgd-ce10"),
        *("mtpgd20", "apgd-ce20", "mtpgd40", "apgd-ce40"),
    ],
    "tgo-table5": ["fgsm", "rfgsm", "pgd7", "pgd10", "pgd30", "pgd50"],
    "events-papers": ["fgsm", "rfgsm", "pgd7", "pgd10", "pgd30", "pgd50"],  # on frames
    "events": [
        *("noise", "fgsm", "rfgsm", "pgd7", "pgd10", "pgd30", "pgd50", "sapgd/assg"),
        *(f"pgd20/width{w}" for w in ("0.5", "1", "2", "4")),
    ],
    "demo": [
        *("noise", "fgsm", "pgd10", "pgd40", "sapgd/assg"),
        *(f"pgd20/width{w}" for w in ("0.5", "1", "2", "4")),
    ],
}


def test_every_suite_is_listed_here():
    assert set(NAMES) == set(SUITES)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_suite_holds_its_attacks_on_one_threat_set(name, norm):
    attacks = suite(name, eps=0.1, norm=norm)
    assert sorted(attacks) == sorted(NAMES[name])
    assert {(a.threat.norm, a.threat.eps) for a in attacks.values()} == {(norm, 0.1)}


@pytest.mark.parametrize(("eps", "step"), [(8 / 255, 0.01), (4 / 255, 0.005), (0.1, 0.31875 * 0.1)])
def test_the_papers_step_is_their_alpha_scaled_with_eps(eps, step):
    """0.01 at 8/255, whatever the number of steps."""
    attacks = suite("papers", eps=eps)
    assert isinstance(attacks["fgsm"], FGSM)
    assert attacks["rfgsm"] == RFGSM(Linf(eps), variant="tramer")
    for steps in (7, 10, 20, 40):
        pgd = attacks[f"pgd{steps}"]
        assert (pgd.steps, pgd.step_size) == (steps, pytest.approx(step))


def test_widths_are_the_attackers_triangles():
    attacks = suite("surrogates", eps=0.1, widths=(0.25, 3), steps=5)
    assert list(attacks) == ["pgd5", "pgd5/width0.25", "pgd5/width3"]
    assert attacks["pgd5"].gradient == Backprop()
    assert attacks["pgd5/width3"].gradient == SwapSurrogate(Triangular(3))
    assert all(attack.steps == 5 for attack in attacks.values())


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"baseline", "snn", "snn-short"}))
def test_eot_wraps_every_gradient(name):
    plain, averaged = suite(name, eps=0.1), suite(name, eps=0.1, eot=8)
    for key, attack in averaged.items():
        if not isinstance(attack, UniformNoise | Square) and not key.endswith("/mean-field"):
            assert attack.gradient == EoT(8, plain[key].gradient)


def test_standard_has_the_budget_of_autoattack():
    attacks = suite("standard", eps=0.1)
    assert (attacks["apgd-ce"].steps, attacks["apgd-ce"].loss) == (100, cross_entropy)
    assert (attacks["apgd-t"].steps, attacks["apgd-t"].targets) == (100, 9)
    assert (attacks["fab-t"].steps, attacks["fab-t"].targets) == (100, 9)
    assert attacks["square"].queries == 5000
    assert suite("snn-cascade", eps=0.1).items() >= attacks.items()


def test_snn_is_the_converging_search_with_its_usual_budget():
    assert suite("snn", eps=0.1, norm="l2") == {"snn": Converging(L2(0.1), budget=100_000)}
    assert suite("snn-short", eps=0.1) == {"snn": Converging(Linf(0.1), budget=600)}


def test_square_is_not_defined_in_l1():
    assert "square" not in suite("standard", eps=1.0, norm="l1")


def test_every_attack_of_a_cascade_declares_its_cost():
    for name in CASCADES:
        assert all(0 < cost(attack) <= 100_000 for attack in suite(name, eps=0.1).values())


def test_gradients_that_a_model_cannot_be_given_are_left_out():
    attacks = suite("snn-cascade", eps=0.1, eot=2)
    spiking = MLP(4, 2, T=2, readout="rate")
    assert suitable(attacks, spiking) == (attacks, ())
    plain, left_out = suitable(attacks, nn.Linear(4, 2))
    assert set(plain) == {"noise", "fgsm", "pgd10", "apgd-ce", "apgd-t", "fab-t", "square"}
    assert {*plain, *left_out} == set(attacks)


def test_radius_zero_is_a_suite_too():
    assert {attack.threat.eps for attack in suite("demo", eps=0).values()} == {0}
    assert suite("papers", eps=0)["pgd7"].threat.eps == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "paper"}, "Did you mean 'papers'"),
        ({"name": "strong"}, "Known: papers, stable-snn, baseline"),
        ({"name": "snnn"}, "Did you mean 'snn'"),
        ({"name": "fgsm"}, "It is an attack: write --attack 'fgsm'"),
        ({"norm": "l7"}, "linf, l2, l1"),
        ({"eot": 0}, "eot"),
        ({"eps": -1}, "eps"),
        ({"steps": 0, "name": "surrogates"}, "steps"),
        ({"widths": (1, 1.0)}, "widths"),
        ({"widths": (0,)}, "width"),
    ],
    ids=str,
)
def test_a_wrong_suite_is_rejected_in_one_line(arguments, says):
    with pytest.raises(ValueError, match=says) as error:
        suite(**{"name": "quick", "eps": 0.1, **arguments})
    assert "\n" not in str(error.value)


def test_settings_are_described_completely_as_plain_data():
    attack = PGD(
        Linf(0.1), steps=3, loss=margin, gradient=EoT(4, SwapSurrogate(Triangular(width=2.0)))
    )
    told = describe(attack)
    assert told == {
        "kind": "PGD",
        "threat": {"kind": "Linf", "eps": 0.1},
        "steps": 3,
        "step_size": None,
        "restarts": 1,
        "random_start": True,
        "loss": "margin",
        "gradient": {
            "kind": "EoT",
            "draws": 4,
            "inner": {"kind": "SwapSurrogate", "surrogate": {"kind": "Triangular", "width": 2.0}},
        },
    }


@pytest.mark.parametrize("name", sorted(NAMES))
def test_settings_survive_json_and_distinguish_attacks(name):
    told = {key: describe(attack) for key, attack in suite(name, eps=0.1, eot=2).items()}
    assert json.loads(json.dumps(told)) == told
    assert len({json.dumps(settings) for settings in told.values()}) == len(told)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_every_registered_attack_needs_a_threat_set_only(name):
    norms = getattr(ATTACKS[name], "norms", ["linf"])  # of the attacks on events: their own
    threat = threat_of(norms[0], 0.1 if norms == ["linf"] else 2)
    attack = ATTACKS[name](threat)
    assert attack.threat == threat
    assert hash(attack) == hash(ATTACKS[name](threat))


def test_one_attack_is_found_by_the_name_its_suite_gives_it():
    assert attack_by_name("pgd40", eps=0.1) == suite("papers", eps=0.1)["pgd40"]
    assert suite("demo", eps=0.1)["pgd40"] == suite("papers", eps=0.1)["pgd40"]
    assert (
        attack_by_name("sapgd/assg", eps=0.5, norm="l2")
        == suite("snn-cascade", eps=0.5, norm="l2")["sapgd/assg"]
    )
    assert attack_by_name("apgd-ce", eps=0.1, eot=3).gradient == EoT(3, Backprop())
    with pytest.raises(ValueError, match=r"unknown attack 'pdg40'\. Did you mean 'pgd40'\?"):
        attack_by_name("pdg40", eps=0.1)
    with pytest.raises(ValueError, match="unknown attack 'snn'"):
        attack_by_name("snn", eps=0.1)


def test_the_steps_of_the_stable_snn_paper_shrink_with_their_number():
    attacks = suite("stable-snn", eps=8 / 255)
    sizes = {name: 255 * a.step_size for name, a in attacks.items() if name.startswith("pgd")}
    assert sizes == pytest.approx({"pgd7": 2.55, "pgd10": 2.0, "pgd20": 1.0, "pgd40": 0.5})
    apgd = {name: (attacks[name].steps, attacks[name].loss) for name in ("apgd-ce10", "apgd-dlr10")}
    assert apgd == {"apgd-ce10": (10, cross_entropy), "apgd-dlr10": (10, dlr)}


def test_settings_are_described_by_their_values_also_those_of_numpy_and_partial():
    """Two attacks with other settings have other descriptions, so results are not mixed up."""
    assert describe(PGD(Linf(0.1), steps=np.int64(3))) == describe(PGD(Linf(0.1), steps=3))
    first, second = (describe(partial(cross_entropy, weight=w)) for w in (1.0, np.float64(2.0)))
    assert first["of"] == "cross_entropy" and (first["weight"], second["weight"]) == (1.0, 2.0)
