"""Checks of the reported attack use its own starts, restarts and steps, and its own words."""

import pytest
import torch
from torch import nn

import spikeguard as sg
from spikeguard.attacks import MIFGSM, MTPGD, PGD, Linf
from spikeguard.auditing.check import Check
from spikeguard.auditing.context import Context
from spikeguard.auditing.registry import CHECKS
from spikeguard.auditing.subject import Provenance
from spikeguard.models import MLP
from spikeguard.rng import stream

THREAT = Linf(0.1)


def context(attack, **more):
    model = MLP(num_classes=3, T=2, hidden=(8,), in_shape=(1, 2, 2), generator=stream(0, "init"))
    x, y = torch.rand(12, 1, 2, 2, generator=stream(0, "x")), torch.arange(12) % 3
    return Context(model.eval(), x, y, THREAT, attack=attack, budget="quick", **more)


@pytest.mark.parametrize("code", ["G2", "G3", "S5", "S15"])
def test_an_attack_without_a_random_start_is_compared_with_the_others(code):
    asked = context(PGD(THREAT, steps=3, random_start=False))
    assert asked.strongest() == asked.attack
    assert CHECKS["G9"](asked).status == "does not apply"
    assert CHECKS[code](asked).status != "not run"


def test_the_strongest_attack_keeps_its_restarts():
    asked = context(PGD(THREAT, steps=2, restarts=12))
    assert asked.strongest().restarts == 12 > asked.tries
    assert "after 12, " in CHECKS["G9"](asked).measured
    assert CHECKS["G9"](asked).evidence["tries"] == 12
    assert context(PGD(THREAT, steps=2)).strongest().restarts == asked.tries


@pytest.mark.parametrize(
    ("attack", "length"),
    [
        (MIFGSM(THREAT, steps=5), 0.02),
        (MTPGD(THREAT, steps=5), 0.1),
        (PGD(THREAT, steps=5), 0.05),
        (PGD(THREAT, steps=5, step_size=0.03), 0.03),
    ],
)
def test_steps_are_compared_with_those_that_the_attack_takes(attack, length):
    """The sources' defaults: eps / steps, 5 eps / steps and 2.5 eps / steps."""
    assert CHECKS["G12"](context(attack)).evidence["step"] == pytest.approx(length)


@pytest.mark.parametrize(
    ("split", "status"),
    [
        *[(name, "fail") for name in ("test", "the test set", "CIFAR-10 test images")],
        *[(name, "fail") for name in ("test_set", "test1", "testing images", "not val but test")],
        *[(name, "pass") for name in ("latest validation", "contest-val", "validation (not test)")],
        *[(name, "pass") for name in ("val, never the test set", "training, not on test images")],
    ],
)
def test_a_split_is_the_test_set_if_its_words_say_so(split, status):
    asked = context(PGD(THREAT, steps=2), tuned=Provenance(split, 5))
    assert CHECKS["G32"](asked).status == status


class OwnError(Exception):
    """An error that no library raises."""


class Least(nn.Module):
    """A model that takes no batch below a size, and says so with one kind of error."""

    def __init__(self, error, least=6):
        super().__init__()
        self.layer, self.error, self.least = nn.Linear(4, 3), error, least

    def forward(self, x):
        if len(x) < self.least:
            raise self.error("six images")
        return self.layer(x.flatten(1))


ERRORS = [AssertionError, KeyError, AttributeError, ZeroDivisionError, OSError, OwnError]


def six(error):
    x, y = torch.rand(6, 1, 2, 2, generator=stream(0, "x")), torch.arange(6) % 3
    return Least(error), (x, y)


@pytest.mark.parametrize("error", ERRORS)
def test_a_model_that_rejects_a_batch_fails_a_check_and_ends_no_audit(error):
    verdict = sg.audit(*six(error), threat=THREAT, limit=6, budget="quick", check=False)
    assert verdict.status == "faulty"
    status = {each.code: each.status for each in verdict.findings}
    assert (status["S1"], status["S2"]) == ("fail", "fail")


@pytest.mark.parametrize("error", ERRORS)
def test_the_quick_check_names_whatever_a_model_raises(error):
    """Also if it raises for a single image alone, and if it rejects the images themselves."""
    model, data = six(error)
    with pytest.raises(ValueError, match=r"batch of 6 images but raises for the first 2 .*six im"):
        sg.evaluate(model, data, {}, progress=None)
    with pytest.raises(ValueError, match=r"batch of 6 images but raises for one image .*six im"):
        sg.evaluate(Least(error, least=2), data, {}, progress=None)
    with pytest.raises(error, match="six images"):
        sg.evaluate(Least(error, least=99), data, {}, progress=None)


def test_an_error_of_a_check_or_a_lack_of_memory_ends_the_audit(monkeypatch):
    """An assertion outside a model is a mistake of this package, not a finding about the model."""

    def broken(context):
        """All is well."""
        raise AssertionError("ours")

    check = Check(broken, cost=0)
    monkeypatch.setitem(CHECKS, "S1", check)
    with pytest.raises(AssertionError, match="ours"):
        sg.audit(*six(KeyError), threat=THREAT, limit=6, budget="quick", check=False)
    monkeypatch.undo()
    with pytest.raises(MemoryError):
        sg.audit(*six(MemoryError), threat=THREAT, limit=6, budget="quick", check=False)
