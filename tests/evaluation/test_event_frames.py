"""Evaluations on event frames: in [0, 1], counts in [0, inf), results that are scored again."""

import math

import pytest
import torch

import spikeguard as sg
from spikeguard.attacks import FGSM, PGD, Linf
from spikeguard.attacks.searches.local_climb import LocalClimb
from spikeguard.data import as_image_set
from spikeguard.defences.adversarial import AT
from spikeguard.defences.trades import TRADES
from spikeguard.evaluation.rescoring import rescore
from spikeguard.rng import stream
from tests.toys.event_frames import dots, trained, untrained

QUIET = {"progress": None, "check": False}


def counts(n=16):
    """Three events for each one, except that the largest is 3."""
    data = dots(n)
    return as_image_set((data.images.to(torch.int16) * 3, data.labels), name="counts")


def counting():
    """The network of the dots with a third of the first layer's weights: the same function."""
    model = untrained(high=math.inf)
    state = trained().state_dict()
    state["features.0.weight"] = state["features.0.weight"] / 3
    model.load_state_dict(state)
    return model.eval()


def test_a_suite_on_frames_does_not_depend_on_the_batch_size():
    suite = {"fgsm": FGSM(Linf(0.2)), "pgd": PGD(Linf(0.2), steps=3)}
    one = sg.evaluate(trained(), dots(12), suite, batch_size=12, keep_adversarial=True, **QUIET)
    many = sg.evaluate(trained(), dots(12), suite, batch_size=5, **QUIET)
    assert one.clean.accuracy > 0.9 > one.worst_case.accuracy
    for name in ("clean", "fgsm", "pgd", "worst_case"):
        assert torch.equal(one.outcomes[name], many.outcomes[name])
    x, _ = dots(12).batch(slice(12))
    assert one.threat == {"norm": "linf", "eps": 0.2}
    assert all(Linf(0.2).contains(each, x) for each in one.adversarial.values())


@pytest.mark.parametrize("attack", [FGSM, PGD, LocalClimb])
def test_counts_scaled_by_three_give_the_attack_scaled_by_three(attack):
    """Frames of 0 and 1, and three times as many events with a third of the weights."""
    x, y = dots(12).batch(slice(12))
    options = {"queries": 80} if attack is LocalClimb else {}
    one = attack(Linf(0.2, peak=1.0), **options)(trained(), x, y, generator=stream(0, "a"))
    three = attack(Linf(0.6, peak=3.0), **options)
    model = counting()
    torch.testing.assert_close(model(3 * x), trained()(x), rtol=1e-4, atol=1e-4)
    found = three(model, 3 * x, y, generator=stream(0, "a"))
    moved = (found / 3 - one).abs() > 1e-4  # a gradient near 0 may have either sign
    assert moved.double().mean() < 0.02


def test_an_evaluation_on_counts_is_stored_and_scored_again(tmp_path):
    suite = {"fgsm": FGSM(Linf(0.6, peak=math.inf)), "pgd": PGD(Linf(0.6, peak=math.inf), steps=3)}
    found = sg.evaluate(counting(), counts(), suite, **QUIET)
    assert found.threat["peak"] == "inf" and found.worst_case.accuracy < 0.9
    assert found.worst.x.max() > 3
    found.save(tmp_path / "result")
    assert rescore(counting(), counts(), tmp_path / "result").agrees


def test_a_box_that_is_too_small_for_counts_is_refused():
    with pytest.raises(ValueError, match=r"the data go up to 3, the box is \[0, 1\]"):
        sg.evaluate(counting(), counts(), {"fgsm": FGSM(Linf(0.6))}, **QUIET)
    mixed = {"a": FGSM(Linf(0.6, peak=3.0)), "b": FGSM(Linf(0.6, peak=4.0))}
    with pytest.raises(ValueError, match="attacks must share one threat set"):
        sg.evaluate(counting(), counts(), mixed, **QUIET)


@pytest.mark.parametrize("piece", [AT(eps=0.2, steps=2), TRADES(eps=0.2, steps=2)])
def test_training_perturbs_counts_in_their_own_range(piece):
    x, y = counts().batch(slice(8))
    found = piece.perturb(counting(), x, y, generator=stream(0, "at"))
    assert Linf(0.2, peak=math.inf).contains(found, x)
    assert found.max() > 3 and not torch.equal(found, x)
