"""The section on certified radii: the bracket, a missing upper bound, several networks."""

import pytest

from spikeguard.certification import Certification, Radius
from spikeguard.reporting.page import gather
from spikeguard.reporting.readers.certificates import read_certificates
from spikeguard.reporting.readers.collect import collect
from spikeguard.reporting.renderer import report
from spikeguard.storage.atomic_files import write_json
from spikeguard.storage.digests import sealed
from tests.toys.report_runs import plant_run, truncate

STATED = {"n0": 100, "n": 1000, "alpha": 0.001, "seed": 0, "checkpoint": "best"}
STATED |= {"attack_steps": 40, "attack_draws": 8}


def records(*radii):
    """One image for each radius; negative ones are of a wrong class."""
    return tuple(Radius(i, 0, int(r < 0), 900, 0.9, abs(r)) for i, r in enumerate(radii))


def plant(
    path,
    name,
    smoothing="Gaussian noise, sigma 0.25",
    attacks=None,
    radii=(0.4, 0.2, -0.3, 0),
    **more,
):
    norm = "l1" if "rate" in smoothing else "l2"
    found = Certification(smoothing, norm, STATED | more, records(*radii), attacks or {})
    file = path / "certificates" / f"{name}.json"
    write_json(file, sealed(found.to_dict()))
    return file


def section(*paths):
    parts = gather(collect(paths), title=None, made_by=None).analyses
    return next((part for part in parts if part.id == "certified"), None)


@pytest.fixture
def run(tmp_path):
    return plant_run(tmp_path / "one", "One")


def test_the_bracket_stands_in_one_line_a_table_and_a_chart(run):
    plant(run, "a", attacks={0.1: (False, False, True, True)})
    (block,) = section(run).blocks
    assert block.result == "At radius 0.1 between 50.0 % certified and 50.0 % attacked"
    rows = {row[1]: row[2:4] for row in block.table.rows}
    assert rows["0"] == ("50.0 [15.0, 85.0]", "75.0 [30.1, 95.4]")
    assert rows["0.1"][0] == rows["0.1"][1] == "50.0 [15.0, 85.0]"
    assert rows["0.2"] == ("25.0 [4.6, 69.9]", "not attacked")
    ((plot, _),) = block.charts
    assert [mark.kind for mark in plot.marks] == ["line", "points"]
    assert "not the bare network" in block.about and "L2" in plot.x_title


def test_without_an_attack_of_this_classifier_no_upper_bound_is_claimed(run):
    plant(run, "a")
    (block,) = section(run).blocks
    assert "not attacked: an upper bound for this classifier is not known" in block.result
    assert len(block.charts[0][0].marks) == 1


def test_an_attack_on_fewer_images_than_the_certificates_is_shown_with_their_number(run):
    """Certified at 0.1: images 1 and 2 of four; the attack covers these two and breaks none."""
    plant(run, "a", attacks={0.1: (False, False)})
    (block,) = section(run).blocks
    assert block.result == (
        "At radius 0.1 between 100.0 % certified and 100.0 % attacked (first 2 of 4 images)"
    )
    rows = {row[1]: row[2:4] for row in block.table.rows}
    assert rows["0.1"] == ("50.0 [15.0, 85.0]", "100.0 [34.2, 100.0] of 2 images")
    assert "continue it with --limit 4 --attack 0.1." in block.table.caption
    plant(run, "a", attacks={0.1: (False,) * 4, 0.3: (False, False)})
    (block,) = section(run).blocks
    assert block.result == "At radius 0.1 between 50.0 % certified and 75.0 % attacked"


def test_an_attack_inside_a_certified_ball_is_said(run):
    plant(run, "a", attacks={0.1: (True, False, False, False)})
    assert (
        "1 images were broken inside their certified radius" in section(run).blocks[0].table.caption
    )


def test_noises_have_blocks_of_their_own_and_networks_share_them(run, tmp_path):
    other = plant_run(tmp_path / "two", "Two")
    plant(run, "a")
    plant(run, "b", "rate coding, T = 4")
    plant(other, "a")
    first, second = section(run, other).blocks
    assert {row[0] for row in first.table.rows} == {"One", "Two"}
    assert {row[0] for row in second.table.rows} == {"One"}
    assert first.result.startswith("One: 50.0 % certified") and "Mukhoty" in second.source


def test_of_several_results_that_of_most_images_and_draws_is_shown(run):
    plant(run, "a", n=1000)
    plant(run, "b", n=9000, radii=(0.4, 0.4, 0.4, 0.4))
    plant(run, "c", n=99_000, radii=(0.4, 0.4, 0.0))
    (block,) = section(run).blocks
    assert block.result.startswith("100.0 % certified") and "n 9000" in block.settings


def test_without_certificates_there_is_no_section(run, tmp_path):
    assert section(run) is None
    assert read_certificates(tmp_path / "none", {}) == ()


def test_a_damaged_file_is_one_line_that_names_it(run, tmp_path):
    file = plant(run, "a")
    truncate(file)
    with pytest.raises(ValueError, match=r"certificates/a\.json: damaged") as caught:
        report([run], tmp_path / "page.html")
    assert "\n" not in str(caught.value)
