"""Suites of the data file: the settings they had as code, bit for bit, and those of the papers."""

import pytest

from spikeguard.attacks import APGD, FGSM, MTPGD, PGD, RFGSM, THREATS, UniformNoise, suite
from spikeguard.attacks.attack_lines import parse_line
from spikeguard.attacks.gradients.base import BACKPROP, EoT
from spikeguard.attacks.listed_suites import LISTED
from spikeguard.attacks.losses import cross_entropy, dlr
from spikeguard.attacks.registry import ATTACKS
from spikeguard.attacks.suite_definitions import SUITES
from spikeguard.config.attack_lines import build_attack

RADII = (0.0, 2 / 255, 8 / 255, 0.1, 1.0)
STABLE = {7: 2.55, 10: 2.0, 20: 1.0, 40: 0.5}


def as_code(name, threat, gradient):
    """The suites as they were written before the data file."""
    step, eps = 0.01 / (8 / 255), threat.eps
    if name == "baseline":
        return {"noise": UniformNoise(threat)}
    first = {"fgsm": FGSM(threat, gradient=gradient)}
    if name == "papers":
        first["rfgsm"] = RFGSM(threat, gradient=gradient)
        sizes = dict.fromkeys((7, 10, 20, 40), step * eps or None)
    else:
        sizes = {steps: size / 8 * eps or None for steps, size in STABLE.items()}
    for steps, size in sizes.items():
        first[f"pgd{steps}"] = PGD(threat, steps=steps, step_size=size, gradient=gradient)
    if name == "stable-snn":
        for short, loss in (("ce", cross_entropy), ("dlr", dlr)):
            first[f"apgd-{short}10"] = APGD(threat, steps=10, loss=loss, gradient=gradient)
    return first


@pytest.mark.parametrize("name", ["papers", "stable-snn", "baseline"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eot", [1, 4])
@pytest.mark.parametrize("eps", RADII)
def test_a_suite_that_was_code_has_the_same_attacks(name, norm, eot, eps):
    """Equal floats, not close ones: a stored result is refused if its settings differ."""
    gradient = BACKPROP if eot == 1 else EoT(eot, BACKPROP)
    expected = as_code(name, THREATS[norm](eps), gradient)
    found = suite(name, eps=eps, norm=norm, eot=eot)
    assert found == expected
    assert list(found) == list(expected)


def test_table_3_of_tgo_is_both_attacks_at_four_lengths():
    """Section 5.2: momentum 0.9, cross-entropy for APGD, EoT 3; step 0.01 as in section 5.1."""
    assert LISTED["tgo-table3"].eot == 3
    found = suite("tgo-table3", eps=8 / 255, eot=3)
    assert len(found) == 8
    for steps in (7, 10, 20, 40):
        mtpgd, apgd = found[f"mtpgd{steps}"], found[f"apgd-ce{steps}"]
        assert isinstance(mtpgd, MTPGD) and isinstance(apgd, APGD)
        assert (mtpgd.steps, mtpgd.momentum, mtpgd.targets) == (steps, 0.9, 0)
        assert mtpgd.step_size == pytest.approx(0.01)
        assert (apgd.steps, apgd.loss, apgd.targets) == (steps, cross_entropy, 0)
        assert mtpgd.gradient == apgd.gradient == EoT(3, BACKPROP)


def test_table_1_of_tgo_is_the_suite_of_the_papers_with_one_gradient_a_step():
    assert LISTED["tgo-table1"].eot == 1
    assert LISTED["tgo-table1"].attacks == LISTED["papers"].attacks


@pytest.mark.parametrize("name", LISTED)
def test_a_listed_suite_is_whole(name):
    """A line has no EoT of its own: that of the suite would be named in the result, not used."""
    listed = LISTED[name]
    assert listed.about and listed.source and SUITES[name] is listed
    for line in listed.attacks.values():
        assert parse_line(line).eot is None
        assert list(build_attack(line, eps=0.1, norm="linf").values()) == [
            parse_line(line).build(THREATS["linf"](0.1))
        ]


def test_no_suite_has_the_name_of_an_attack():
    """A name on the command line is one or the other."""
    assert not set(SUITES) & set(ATTACKS)
