"""NIR files: what they state, when none is written, and that they are the same bytes."""

import sys
from dataclasses import dataclass

import pytest
import torch

from spikeguard.export import exporter
from spikeguard.export.exporter import export_nir
from spikeguard.export.nir_file import facts_of, read_nir
from spikeguard.export.refusals import ExportError
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import stream
from tests.toys.exported import cnn, images, linear, mlp, single

pytest.importorskip("nir", reason="nir is not installed: pip install 'spikeguard[nir]'")


def test_what_a_file_states(tmp_path):
    path = tmp_path / "deep" / "net.nir"
    found = export_nir(cnn(), path, images(), bits=8, per="channel", threshold_grid=0.25)
    assert (found.path, found.nodes) == (path, 14)
    facts = facts_of(read_nir(path))
    assert facts == found.facts
    assert (facts["dt"], facts["T"], facts["encoder"]) == (1e-4, 4, "direct")
    assert (facts["comparator"], facts["reset"]) == (">=", "hard")
    assert (facts["readout"], facts["noise"]) == ("mean over T", "none")
    assert (facts["weights"], facts["thresholds"]) == ("8 bits per channel", "multiples of 0.25")
    assert '"triangular"' in facts["backward"]


def test_full_precision_predicts_the_same_and_two_bits_do_not(tmp_path):
    model, x = cnn(), images(32)
    found = export_nir(model, tmp_path / "net.nir", x)
    assert (found.mapping.differ, found.file.differ) == (0, 0)
    assert torch.equal(found.before, found.after)
    small = export_nir(model, tmp_path / "small.nir", x, bits=2)
    assert small.file.same == 32  # the file and the network built from it agree
    assert not torch.equal(small.before, small.after)


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        export_nir(cnn(), tmp_path / name, images())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_noise_is_rejected_or_left_out_on_request(tmp_path):
    model, path = mlp(NoisyLIF(0.5, sigma=0.3)), tmp_path / "net.nir"
    with pytest.raises(ExportError, match="--noise off exports another network"):
        export_nir(model, path, images())
    assert list(tmp_path.iterdir()) == []
    found = export_nir(model, path, images(), noise="off")
    assert found.facts["noise"] == "off; trained with sigma 0.3"
    assert model.stochastic
    with pytest.raises(ExportError, match="no noisy neurons; leave it out"):
        export_nir(mlp(), path, images(), noise="off")
    with pytest.raises(ExportError, match="--noise: on or off, got 'of'"):
        export_nir(model, path, images(), noise="of")


@pytest.mark.parametrize("stage", ["graph", "file"])
def test_a_file_that_fails_is_not_written(tmp_path, monkeypatch, stage):
    """A threshold that is lost on the way, in memory or in the file: the old file stays."""
    path = tmp_path / "net.nir"
    export_nir(cnn(), path, images())
    before = path.read_bytes()

    def spoilt(graph, real=exporter.to_nir if stage == "graph" else exporter.read_nir):
        found = real(graph)
        found.nodes["features_6"].v_threshold = found.nodes["features_6"].v_threshold * 1.5
        return found

    if stage == "graph":
        monkeypatch.setattr(exporter, "to_nir", spoilt)
    else:
        real = exporter.from_nir
        monkeypatch.setattr(exporter, "read_nir", spoilt)
        healthy = real(read_nir(path))
        monkeypatch.setattr(exporter, "from_nir", lambda graph: healthy)
    with pytest.raises(ExportError, match="spikes of features_6 differ"):
        export_nir(cnn(), path, images())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_without_the_package_the_message_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ExportError, match=r"pip install 'spikeguard\[nir\]'"):
        export_nir(mlp(), tmp_path / "net.nir", images())


@dataclass
class Ramp:
    """A surrogate that cannot be hashed, as a plain dataclass cannot."""

    width: float = 1.0

    def __call__(self, x):
        return (self.width - x.abs()).clamp_min(0)


def test_a_surrogate_of_the_user_s_own_is_not_stated(tmp_path):
    layers = linear([[1.0, 0.5], [0.2, 1.0]]), LIF(0.5, surrogate=Ramp())
    found = export_nir(
        single(*layers), tmp_path / "net.nir", torch.rand(4, 2, generator=stream(0, "x"))
    )
    assert "backward" not in found.facts
