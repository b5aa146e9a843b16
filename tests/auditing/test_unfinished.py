"""A killed audit continues after its last finished check and ends with the same verdict."""

import json
import zipfile

import numpy as np
import pytest
import torch

from spikeguard.attacks import APGD, PGD, EoT, Linf, SwapSurrogate, margin
from spikeguard.auditing import auditor, unfinished
from spikeguard.auditing.auditor import audit
from spikeguard.auditing.registry import CHECKS
from spikeguard.data import ImageSet
from spikeguard.evaluation.result_files import PARTS
from spikeguard.neurons import Triangular
from spikeguard.rng import stream
from tests.toys.small_evaluations import spiking

FEW = ("S1", "G1", "G4", "G8", "G10", "S4")
ATTACK = PGD(Linf(0.1), steps=2, restarts=2)


def images():
    x = torch.rand(12, 1, 8, 8, generator=stream(0, "x"))
    return ImageSet(x, torch.arange(12) % 3, 3, "random", peak=1.0)


@pytest.fixture(params=[0.0, 0.2], ids=["without noise", "noisy"])
def model(request):
    return spiking(request.param)


@pytest.fixture(autouse=True)
def few_checks(monkeypatch):
    """Checks that share attacks with each other, and a bound without a search."""
    chosen = {code: check for code, check in CHECKS.items() if code in FEW}
    assert len(chosen) == len(FEW)
    monkeypatch.setattr(auditor, "CHECKS", chosen)
    monkeypatch.setattr("spikeguard.auditing.worst_case._search", lambda *arguments: None)


def run(model, out=None, **options):
    given = {"threat": Linf(0.1), "budget": "quick", "limit": 4, "attack_steps": 2}
    given |= {"check": False, "batch_size": 4, "out": out, "attack": ATTACK, **options}
    return audit(model, images(), **given)


def text(verdict):
    """The verdict as it is stored, without durations."""
    card = verdict.to_json()
    for finding in card["findings"]:
        finding.pop("seconds")
    return json.dumps(card)


def stopped(model, out, parts, **options):
    """Run an audit until so many checks are finished."""

    def stop(done, total, what):
        if done == parts:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(model, out, progress=stop, **options)
    return {file.stem for file in (out / PARTS).glob("*.npz")}


def ran(monkeypatch):
    """Record which checks run."""
    codes, whole = [], auditor._run

    def record(code, *arguments):
        codes.append(code)
        return whole(code, *arguments)

    monkeypatch.setattr(auditor, "_run", record)
    return codes


@pytest.mark.slow
@pytest.mark.parametrize("parts", [pytest.param(3, marks=pytest.mark.long), 6])
def test_the_verdict_is_that_of_an_undisturbed_audit(model, parts, tmp_path, monkeypatch):
    undisturbed = run(model)
    assert len(stopped(model, tmp_path / "audit", parts)) == parts
    codes = ran(monkeypatch)
    continued = run(model, tmp_path / "audit")
    assert len(codes) == len(FEW) - parts
    assert text(continued) == text(undisturbed)
    continued.save(tmp_path / "audit.json")
    assert [each.name for each in tmp_path.iterdir()] == ["audit.json"]  # the parts are gone


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", ["weights", "images", "seed", "limit", "attack_steps", "threat", "attack", "code"]
)
def test_checks_of_something_else_are_not_used(change, tmp_path, monkeypatch):
    model, options = spiking(), {}
    stopped(model, tmp_path / "audit", 3)
    if change == "weights":
        with torch.no_grad():
            next(model.parameters()).mul_(1.01)
    elif change == "images":
        other = images()
        other.images[0] = 1 - other.images[0]
        monkeypatch.setitem(globals(), "images", lambda: other)
    elif change == "code":
        monkeypatch.setattr("spikeguard.evaluation.identity.code_version", lambda: "9.9")
    else:
        other = {"threat": Linf(0.2), "attack": PGD(Linf(0.2), steps=2)}
        options = {"threat": other, "attack": {"attack": PGD(Linf(0.1), steps=3)}}
        options = options.get(change, {change: 3})
    codes = ran(monkeypatch)
    with pytest.warns(UserWarning, match="of another audit, which was not finished; removed"):
        run(model, tmp_path / "audit", **options)
    assert len(codes) == len(FEW)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "flipped", "of another check", "not a finding"])
def test_a_damaged_file_counts_as_not_stored(damage, tmp_path, monkeypatch):
    model = spiking()
    undisturbed = run(model)
    stopped(model, tmp_path / "audit", 4)
    file, other = ((tmp_path / "audit" / PARTS / f"{code}.npz") for code in ("G4", "G1"))
    data = file.read_bytes()
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        file.write_bytes(data[:200] + bytes([data[200] ^ 255]) + data[201:])
    elif damage == "of another check":
        file.write_bytes(other.read_bytes())
    else:
        with zipfile.ZipFile(file, "w"):
            pass
        np.savez(file, card=np.array("{}"))
    codes = ran(monkeypatch)
    assert text(run(model, tmp_path / "audit")) == text(undisturbed)
    assert "G4" in codes and len(codes) == len(FEW) - 3


@pytest.mark.parametrize(
    "attack",
    [
        PGD(Linf(0.1), steps=3),
        PGD(Linf(0.1), steps=3, loss=margin, step_size=0.01),
        APGD(Linf(0.1), gradient=EoT(4, SwapSurrogate(Triangular(2.0)))),
        PGD(Linf(0.1), gradient=SwapSurrogate(0.5)),
    ],
)
def test_an_attack_is_read_back_equal(attack):
    written = json.loads(json.dumps(unfinished._encoded(attack)))
    assert unfinished._decoded(written, {"spikeguard"}) == attack


@pytest.mark.parametrize(
    "text",
    [
        {"class": "os:system", "fields": {}},
        {"function": "os:system"},
        {"class": "subprocess:Popen", "fields": {"args": "true"}},
        {"class": "spikeguard.cli.entry:main", "fields": {}},
        {"class": "spikeguard.storage.checkpoints:Path", "fields": {}},
        {"function": "spikeguard.storage.checkpoints:Path"},
    ],
)
def test_nothing_but_attacks_is_made_from_a_file(text):
    with pytest.raises((ValueError, TypeError)):
        unfinished._decoded(text, {"spikeguard"})
