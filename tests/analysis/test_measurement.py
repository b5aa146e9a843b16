"""Measurements: axes that fit, files that come back, damage that is named."""

import json

import numpy as np
import pytest

from spikeguard.analysis.measurement import Measurement, Quantity
from spikeguard.storage.atomic_files import write_npz
from spikeguard.storage.npz_files import read_npz


def rates():
    return Measurement.of(
        "rates",
        {"kind": "Rates", "limit": 8, "seed": 0},
        8,
        {"layer": ["a", "b"], "step": [1, 2, 3]},
        rate=([[0.0, 0.5, 1.0], [0.25, 0.25, 0.5]], ["layer", "step"], "share", "firing rate"),
        total=(17, [], "spikes", "all spikes"),
    )


def test_a_number_is_found_by_its_labels():
    found = rates()
    assert found.number("rate", layer="b", step=3) == 0.5
    assert found.number("total") == 17
    with pytest.raises(KeyError, match="layer has no 'c'"):
        found.number("rate", layer="c", step=1)


def test_axes_must_fit():
    with pytest.raises(ValueError, match="2 axes"):
        Quantity(np.zeros(3), ("layer", "step"))
    with pytest.raises(ValueError, match="3 entries along 'layer', the axis has 2"):
        Measurement.of("x", {}, 1, {"layer": ["a", "b"]}, q=([1, 2, 3], ["layer"], "", "q"))
    with pytest.raises(ValueError, match="the axis has none"):
        Measurement.of("x", {}, 1, {}, q=([1, 2, 3], ["layer"], "", "q"))


def test_the_file_comes_back_and_the_csv_has_a_line_a_number(tmp_path):
    rates().save(tmp_path / "rates.npz", identity={"weights": "abc"})
    found = Measurement.load(tmp_path / "rates.npz")
    assert found.settings == {"kind": "Rates", "limit": 8, "seed": 0}
    assert (found.samples, found.identity) == (8, {"weights": "abc"})
    np.testing.assert_array_equal(found["rate"], rates()["rate"])
    assert found.quantities["rate"].unit == "share"
    lines = (tmp_path / "rates.csv").read_text().splitlines()
    assert lines[0] == "quantity,unit,layer,step,value"
    assert len(lines) == 1 + 6 + 1
    assert "rate,share,b,3,0.5" in lines
    assert "total,spikes,,,17" in lines


def test_a_long_array_is_left_out_of_the_csv(tmp_path):
    long = Measurement.of(
        "x", {}, 1, {"pixel": range(100_001)}, v=(np.zeros(100_001), ["pixel"], "", "v")
    )
    assert long.csv() == "quantity,unit,pixel,value\n"


def test_a_damaged_or_foreign_file_is_named(tmp_path):
    file = tmp_path / "rates.npz"
    rates().save(file)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"rates\.npz: damaged: .* Delete it and measure again"):
        Measurement.load(file)
    write_npz(file, counts=np.zeros(3))
    with pytest.raises(ValueError, match=r"rates\.npz: no measurement"):
        Measurement.load(file)


def test_a_changed_setting_breaks_the_checksum(tmp_path):
    file = tmp_path / "rates.npz"
    rates().save(file)
    arrays = read_npz(file)
    card = json.loads(str(arrays["card"]))
    card["samples"] = 80
    write_npz(file, **{**arrays, "card": np.str_(json.dumps(card))})
    with pytest.raises(ValueError, match="checksum"):
        Measurement.load(file)
