"""The suites on events, and which attacks and networks a threat set fits."""

import math

import pytest
import torch

from spikeguard.attacks import (
    APGD,
    CASCADES,
    FGSM,
    PGD,
    Counts,
    Edits,
    Flips,
    Linf,
    MeanField,
    RawEvents,
    Retiming,
    SpikeRetiming,
    suite,
)
from spikeguard.attacks.suitability import require_threats
from spikeguard.encoders.input_space import PIXELS, InputSpace
from spikeguard.evaluation import evaluate
from tests.toys.event_networks import EventNet, event_grids

BINARY = InputSpace(whole=True, temporal=True)
COUNTS = InputSpace(high=math.inf, whole=True, temporal=True)
EXCLUSIVE = InputSpace(whole=True, temporal=True, exclusive=True)
FRAMES = InputSpace(high=16.0, temporal=True)


def network(space=BINARY):
    model = EventNet().eval()
    model.input_space = space
    return model


def test_the_suites_depend_on_the_kind_of_threat_set():
    papers = {
        norm: list(suite("events-papers", eps=3, norm=norm))
        for norm in ("flips", "edits", "counts", "retiming total=4")
    }
    searches = ["spike-compatible", "sda", "raw-events", "spikefool", "raw-events/likeliest"]
    assert papers["flips"] == searches
    assert papers["edits"] == papers["flips"]
    assert papers["counts"] == ["fgsm", "greedy"]
    assert papers["retiming total=4"] == ["retiming"]
    for norm, names in papers.items():
        attacks = suite("events", eps=3, norm=norm)
        assert set(names) <= set(attacks) and len(attacks) > len(names) + 5
        assert {attack.threat for attack in attacks.values()} == {
            next(iter(attacks.values())).threat
        }


def test_noise_is_attacked_in_the_mean_field_too():
    papers = suite("events-papers", eps=3, norm="edits", eot=3)
    for name in ("spike-compatible", "sda", "raw-events", "spikefool", "raw-events/likeliest"):
        assert isinstance(papers[f"{name}/mean-field"].gradient, MeanField)
    assert set(papers) < set(suite("events", eps=3, norm="edits", eot=3))


def test_events_is_a_cascade():
    assert "events" in CASCADES and "events-papers" not in CASCADES


@pytest.mark.parametrize("name", ["quick", "surrogates", "baseline"])
def test_suites_of_fgsm_pgd_and_noise_take_events(name):
    assert {a.threat for a in suite(name, eps=3, norm="flips").values()} == {Flips(3)}


@pytest.mark.parametrize("name", ["papers", "standard", "snn", "snn-cascade", "every", "demo"])
def test_suites_of_attacks_on_images_reject_events_in_one_line(name):
    with pytest.raises(ValueError, match=r"events|defined for") as error:
        suite(name, eps=3, norm="flips")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("threat", "space", "says"),
    [
        (Flips(3), PIXELS, "images in"),
        (Retiming(1), PIXELS, "images in"),
        (Flips(3), COUNTS, "counts budget"),
        (Edits(3), COUNTS, "counts budget"),
        (Counts(3), BINARY, "flips budget"),
        (Flips(3), EXCLUSIVE, "edits"),
        (Flips(3), FRAMES, "event grids"),
        (Linf(0.5, peak=20), FRAMES, "peak"),
    ],
    ids=str,
)
def test_a_threat_set_that_does_not_fit_the_network_is_rejected(threat, space, says):
    with pytest.raises(ValueError, match=says) as error:
        require_threats([FGSM(threat)], network(space))
    assert "\n" not in str(error.value) and str(threat) in str(error.value)


@pytest.mark.parametrize(
    ("threat", "space"),
    [
        (Flips(3), BINARY),
        (Edits(3), BINARY),
        (Edits(3), EXCLUSIVE),
        (Counts(3), COUNTS),
        (Retiming(1), BINARY),
        (Retiming(1), COUNTS),
        (Linf(0.5, peak=16), FRAMES),
        (Linf(0.1), BINARY),
        (Linf(0.1), PIXELS),
    ],
    ids=str,
)
def test_a_threat_set_that_fits_is_accepted(threat, space):
    require_threats([PGD(threat)], network(space))


def test_an_attack_on_images_rejects_events():
    with pytest.raises(ValueError, match="APGD: defined for images"):
        require_threats([APGD(Flips(3))])


@pytest.fixture
def data():
    x = event_grids(12, (3, 2, 4, 4))
    return x, network()(x).argmax(1)


def test_an_evaluation_reports_soft_and_hard_success(data):
    """The two are counted on the samples that were attacked, and soft is never below hard."""
    threat = Edits(4)
    for cascade in (False, True):
        found = evaluate(
            network(), images(data), {"raw-events": RawEvents(threat, steps=8)}, cascade=cascade
        )
        record = found.records["raw-events"]
        assert record["attacked"] == 12
        assert record["hard"] == round(12 * (1 - found.attacks["raw-events"].accuracy))
        assert record["hard"] <= record["soft"] <= 12
        assert found.to_dict()["records"] == found.records
        assert "soft" in found.table()


def images(data):
    from spikeguard.data.images import ImageSet

    x, y = data
    return ImageSet(x, y, 3, "grids", 1.0, space=BINARY)


def test_a_record_survives_an_interrupted_cascade(data, tmp_path):
    """The record of a finished attack is in the saved state; the second attack was interrupted."""
    threat, calls = Edits(4), []

    class Interrupted(RawEvents):
        cost = 1e9

        def with_record(self, *args, **kwargs):
            calls.append(1)
            if len(calls) == 1:
                raise KeyboardInterrupt
            return super().with_record(*args, **kwargs)

    attacks = {"raw-events": RawEvents(threat, steps=8), "last": Interrupted(threat, steps=2)}
    with pytest.raises(KeyboardInterrupt):
        evaluate(network(), images(data), attacks, cascade=True, out=tmp_path / "r", check=False)
    found = evaluate(
        network(), images(data), attacks, cascade=True, out=tmp_path / "r", check=False
    )
    alone = {"raw-events": attacks["raw-events"]}
    fresh = evaluate(network(), images(data), alone, cascade=True, check=False)
    assert found.records["raw-events"] == fresh.records["raw-events"]
    assert len(calls) == 2


def test_results_with_a_record_are_stored_and_loaded(data, tmp_path):
    from spikeguard.evaluation.result import Evaluation

    found = evaluate(network(), images(data), {"raw-events": RawEvents(Edits(4), steps=8)})
    found.save(tmp_path / "result")
    assert Evaluation.load(tmp_path / "result").records == found.records


def test_an_evaluation_on_events_does_not_depend_on_the_batch_size(data):
    model, x = network().double(), data[0].double()
    for threat in (Flips(3), Retiming(1)):
        norm = threat.norm
        attacks = suite("events-papers", eps=threat.eps, norm=norm)
        pair = [
            evaluate(
                model, images((x, data[1])), attacks, batch_size=size, check=False, progress=None
            )
            for size in (12, 5)
        ]
        for name in attacks:
            assert torch.equal(pair[0].outcomes[name], pair[1].outcomes[name])


def test_a_retiming_result_names_its_limits(data):
    attack = SpikeRetiming(Retiming(1, total=4), steps=2)
    found = evaluate(network(), images(data), {"retiming": attack}, check=False)
    assert found.threat == {"norm": "retiming total=4", "eps": 1.0}
