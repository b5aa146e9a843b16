"""Attack lines: read, built, and written in one shortest form for all spellings."""

import inspect

import pytest

from spikeguard.attacks import (
    APGD,
    ASSG,
    HART,
    MTPGD,
    PGD,
    RFGSM,
    SAPGD,
    EoT,
    Linf,
    MeanField,
    MembraneReadout,
    SwapSurrogate,
    margin,
    targeted_dlr,
)
from spikeguard.attacks.attack_lines import PARTS, parse_line
from spikeguard.attacks.registry import ATTACKS, GRADIENTS
from spikeguard.neurons import ATan, Triangular

BALL = Linf(0.1)
BUILT = {
    "mtpgd steps=40 momentum=0.9 eot=3": MTPGD(
        BALL, steps=40, momentum=0.9, gradient=EoT(3, PGD(BALL).gradient)
    ),
    "rfgsm variant=stog": RFGSM(BALL, variant="stog"),
    "sapgd steps=300 gradient=assg gradient.A=0.45": SAPGD(BALL, steps=300, gradient=ASSG(0.45)),
    "pgd surrogate=triangular surrogate.width=0.5": PGD(
        BALL, gradient=SwapSurrogate(Triangular(0.5))
    ),
    "pgd surrogate=2.0": PGD(BALL, gradient=SwapSurrogate(2.0)),
    "pgd gradient.gamma=0.5 gradient=hart": PGD(BALL, gradient=HART(0.5)),
    "apgd gradient=membrane surrogate=atan": APGD(BALL, gradient=MembraneReadout(ATan())),
    "apgd loss=margin": APGD(BALL, loss=margin),
    "mtpgd loss=targeted_dlr": MTPGD(BALL, loss=targeted_dlr),
    "pgd step_size=2/255 random_start=false": PGD(BALL, step_size=2 / 255, random_start=False),
    "pgd step_size=0.01@0.2": PGD(BALL, step_size=0.01 / 0.2 * 0.1),
    "pgd steps= step_size=null": PGD(BALL),
}


@pytest.mark.parametrize("line", BUILT)
def test_a_line_is_the_attack_it_names(line):
    assert parse_line(line).build(BALL) == BUILT[line]


def test_the_line_decides_on_eot_before_the_evaluation():
    assert parse_line("pgd").build(BALL, 4) == PGD(BALL, gradient=EoT(4, PGD(BALL).gradient))
    assert parse_line("pgd eot=1").build(BALL, 4) == PGD(BALL)
    assert parse_line("pgd gradient=mean-field").build(BALL, 4) == PGD(BALL, gradient=MeanField())
    assert parse_line("square").build(BALL, 4) == ATTACKS["square"](BALL)


@pytest.mark.parametrize(
    ("line", "label"),
    [
        ("mtpgd eot=3  momentum=0.9 steps=40", "mtpgd steps=40 momentum=0.9"),
        ("mtpgd momentum=0.90 steps=40", "mtpgd steps=40 momentum=0.9"),
        ("pgd steps=10 loss=cross_entropy gradient=backprop random_start=true", "pgd"),
        ("pgd gradient=swap-surrogate gradient.surrogate=atan", "pgd surrogate=atan"),
        ("pgd surrogate=triangular surrogate.width=1.0", "pgd surrogate=triangular"),
        ("rfgsm variant=tramer", "rfgsm"),
        ("pgd step_size=0.00784313725490196", "pgd step_size=2/255"),
        ("pgd step_size=0.01@8/255", "pgd step_size=0.01@8/255"),
        ("fgsm gradient=membrane surrogate=2", "fgsm gradient=membrane gradient.surrogate=2"),
    ],
)
def test_spellings_of_one_attack_have_one_label(line, label):
    assert parse_line(line).label == label
    assert parse_line(label).build(BALL, 3) == parse_line(line).build(BALL, 3)


@pytest.mark.parametrize("line", BUILT)
def test_a_label_is_a_line_of_the_same_attack(line):
    parsed = parse_line(line)
    assert parse_line(parsed.label).build(BALL, parsed.eot or 1) == BUILT[line]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("", "an attack is a name and settings"),
        ("steps=4", "an attack is a name and settings"),
        ("pgd steps", "settings are key=value, such as steps=40; got 'steps'"),
        ("pgd steps=3 steps=4", "steps is given twice"),
        ("pgd eot=0", "eot counts gradients, >= 1, got 0"),
        ("pgd eot=2.5", "eot counts gradients, >= 1, got 2.5"),
        ("pgd gradient=eot gradient.draws=3", "write eot=K"),
        ("pgd gradient=membrane gradient.surrogate=atan surrogate=atan", "are the same"),
    ],
)
def test_a_line_that_cannot_be_read_is_rejected(line, says):
    with pytest.raises(ValueError, match=says):
        parse_line(line)


def test_the_options_of_a_part_are_told_apart_from_those_of_the_attack():
    """Dotted keys: surrogates and R+FGSM both have an alpha."""
    found = parse_line("rfgsm alpha=0.05 surrogate=atan surrogate.alpha=3").build(BALL)
    assert found == RFGSM(BALL, alpha=0.05, gradient=SwapSurrogate(ATan(3)))


@pytest.mark.parametrize("name", [*ATTACKS, *GRADIENTS])
def test_every_part_of_an_attack_is_a_key_of_the_line(name):
    """A field whose value is no plain number, word or part could not be written."""
    plain = (int, float, bool, str)
    factory = (ATTACKS | GRADIENTS)[name]
    for key, parameter in inspect.signature(factory, eval_str=True).parameters.items():
        written = isinstance(parameter.default, plain) or parameter.default is None
        assert written or key in (*PARTS, "threat", "loss", "draws"), key
