"""Certificates of a run folder: stored image by image, continued, extended, refused."""

import json
from types import SimpleNamespace

import pytest
import torch

from spikeguard.certification import GaussianCertificate, Sampling, certify
from spikeguard.config.errors import ConfigError
from spikeguard.config.schema import EvaluateSection
from spikeguard.data import ImageSet
from spikeguard.models import MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import stream
from spikeguard.runs import certificates
from spikeguard.runs.certificates import certify_once

GAUSSIAN, SAMPLING = GaussianCertificate(0.3), Sampling(n0=10, n=40)


def run(path, weights=0):
    pixels = torch.rand(9, 6, generator=stream(0, "x"))
    images = ImageSet(pixels, torch.arange(9) % 3, 3, "x", 1.0)
    neuron = NoisyLIF(0.5, sigma=0.2, v_th=0.3)
    model = MLP(6, 3, T=2, neuron=neuron, generator=stream(weights, "w"))
    recipe = SimpleNamespace(evaluate=EvaluateSection())
    data = SimpleNamespace(test=images)
    return SimpleNamespace(path=path, model=model, recipe=recipe, data=data, device="cpu")


def certified(of, **options):
    return certify_once(of, GAUSSIAN, SAMPLING, **options)


def files(folder):
    return {file.suffix: file.read_bytes() for file in (folder / "certificates").iterdir()}


@pytest.fixture(autouse=True)
def two_images_between_two_writes_and_short_attacks(monkeypatch):
    monkeypatch.setattr(certificates, "_PASSES", 100)
    monkeypatch.setattr(certify, "ATTACK_STEPS", 2)
    monkeypatch.setattr(certify, "ATTACK_DRAWS", 1)


def test_a_killed_command_continues_and_ends_with_the_same_bytes(tmp_path):
    whole = certified(run(tmp_path / "whole"), radii=(0.1, 0.2))
    assert len(whole.records) == 9 and set(whole.attacks) == {0.1, 0.2}

    def kill(at):
        def update(done, total, what):
            if done >= at:
                raise KeyboardInterrupt

        return update

    for at, kept in ((4, 4), (6, 6), (13, 13), (21, 22)):  # 9 certificates, then 9 of each attack
        with pytest.raises(KeyboardInterrupt):
            certified(run(tmp_path / "killed"), radii=(0.1, 0.2), progress=kill(at))
        stored = json.loads(files(tmp_path / "killed")[".json"])
        assert len(stored["records"]) + sum(map(len, stored["attacks"].values())) == kept
    assert certified(run(tmp_path / "killed"), radii=(0.1, 0.2)) == whole
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_what_is_stored_is_not_computed_again(tmp_path, monkeypatch):
    first = certified(run(tmp_path), radii=(0.1,))
    monkeypatch.setattr(certify, "_votes", None)  # another vote would fail
    assert certified(run(tmp_path), radii=(0.1,)) == first


def test_a_larger_limit_and_another_radius_add_to_what_is_there(tmp_path):
    few = certified(run(tmp_path), limit=3)
    more = certified(run(tmp_path), limit=5, radii=(0.1,))
    assert more.records[:3] == few.records and len(more.records) == len(more.attacks[0.1]) == 5
    again = certified(run(tmp_path), limit=4)
    assert (len(again.records), len(again.attacks[0.1])) == (4, 4)
    assert len(files(tmp_path)) == 2  # one result, as JSON and CSV


def test_other_settings_have_a_file_of_their_own(tmp_path):
    certified(run(tmp_path), limit=2)
    certify_once(run(tmp_path), GAUSSIAN, Sampling(n0=10, n=50), limit=2)
    for sigma in (0.4, 0.4000000001):
        certify_once(run(tmp_path), GaussianCertificate(sigma), SAMPLING, limit=2)
    names = {file.stem for file in (tmp_path / "certificates").glob("*.json")}
    assert names == {
        "l2-sigma0.3-n010-n40-alpha0.001-seed0-best",
        "l2-sigma0.3-n010-n50-alpha0.001-seed0-best",
        "l2-sigma0.4-n010-n40-alpha0.001-seed0-best",
        "l2-sigma0.4000000001-n010-n40-alpha0.001-seed0-best",
    }


def test_other_weights_damage_and_a_change_are_refused(tmp_path):
    certified(run(tmp_path), limit=2)
    with pytest.raises(ConfigError, match=r"best\.json is of other weights; move it away"):
        certified(run(tmp_path, weights=1), limit=2)
    (file,) = (tmp_path / "certificates").glob("*.json")
    text = file.read_text()
    file.write_text(text.replace('"radius": 0', '"radius": 9', 1))
    assert file.read_text() != text
    with pytest.raises(ConfigError, match=r"damaged \(its checksum is another one"):
        certified(run(tmp_path), limit=2)
    file.write_text(text[: len(text) // 2])
    with pytest.raises(ConfigError, match=r"best\.json: damaged .*move it away and run again"):
        certified(run(tmp_path), limit=2)


def test_a_radius_beyond_the_box_is_rejected(tmp_path):
    with pytest.raises(ValueError, match=r"reaches all images of this size, got 3"):
        certified(run(tmp_path), limit=2, radii=(3.0,))
