"""Analyses of a run folder: stored once, loaded after, refused for other weights."""

import pytest
import torch

from spikeguard.analysis import ANALYSES, Measurement
from spikeguard.analysis.base import NotApplicable, Passes
from spikeguard.analysis.plots import Table
from spikeguard.analysis.zeros import Zeros
from spikeguard.attacks import PGD
from spikeguard.config.errors import ConfigError
from spikeguard.data import ImageSet
from spikeguard.models import MLP
from spikeguard.rng import stream
from spikeguard.runs.analyses import Subject, analyse_once, plan_analyses


def subject(path, seed=0, weights=0):
    pixels = torch.rand(9, 6, generator=stream(0, "x"))
    images = ImageSet(pixels, torch.arange(9) % 3, 3, "x", 1.0)
    model = MLP(6, 3, T=2, generator=stream(weights, "w"))
    path.mkdir(exist_ok=True)
    return Subject(path, model, images, 0.1, "linf", seed)


def run(of, *lines, limit=None, said=None, **options):
    planned = plan_analyses(of, lines, attack="pgd7", limit=limit)
    return analyse_once(of, planned, announce=None if said is None else said.append, **options)


def test_a_result_is_stored_and_loaded(tmp_path, monkeypatch):
    of, said = subject(tmp_path / "run"), []
    first = run(of, "zeros", said=said)
    assert (tmp_path / "run" / "analysis" / "zeros.npz").is_file()
    assert (tmp_path / "run" / "analysis" / "zeros.csv").is_file()
    assert said == [said[0]] and said[0].startswith("1 analysis, about 1 s")
    monkeypatch.setattr(Zeros, "__call__", None)  # a second measurement would fail
    again = run(of, "zeros", said=said)
    assert again["zeros"]["zeros"].tolist() == first["zeros"]["zeros"].tolist()
    assert len(said) == 1


def test_other_settings_are_measured_again(tmp_path):
    of = subject(tmp_path / "run")
    assert run(of, "zeros", limit=5)["zeros"].samples == 5
    assert run(of, "zeros", limit=4)["zeros"].samples == 4
    both = run(of, "zeros", "zeros limit=3")
    assert {name: each.samples for name, each in both.items()} == {"zeros": 9, "zeros-limit=3": 3}


def test_a_setting_left_empty_has_no_file_of_its_own(tmp_path):
    of = subject(tmp_path / "run")
    assert set(run(of, "zeros limit=", limit=4)) == {"zeros"}


def test_where_nothing_can_be_written_nothing_is_measured(tmp_path, monkeypatch):
    of = subject(tmp_path / "run")
    stored = run(of, "zeros")
    (tmp_path / "run" / "analysis").rename(tmp_path / "results")
    (tmp_path / "run" / "analysis").touch()
    monkeypatch.setattr(Zeros, "__call__", None)  # a measurement would fail
    with pytest.raises(ValueError, match=r"run/analysis: results cannot be written \(Not a dir"):
        run(of, "zeros")
    (tmp_path / "run" / "analysis").unlink()
    (tmp_path / "results").rename(tmp_path / "run" / "analysis")
    assert run(of, "zeros")["zeros"].samples == stored["zeros"].samples


def test_other_weights_are_refused(tmp_path):
    run(subject(tmp_path / "run"), "zeros")
    with pytest.raises(ConfigError, match=r"zeros\.npz is of other weights"):
        run(subject(tmp_path / "run", weights=1), "zeros")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("zero", "unknown analysis 'zero'. Did you mean 'zeros'"),
        ("zeros limits=3", "unknown key of Zeros 'limits'. Did you mean 'limit'"),
        ("zeros limit", "settings are key=value"),
        ("zeros limit=many", "limit"),
        ("zeros eot=3", "eot"),
        ("zeros attack=fgsm", "write --attack for attack"),
        ("flips attack.name=fgsm", "write --attack for attack"),
        ("zeros limit=0", "analyse 'zeros limit=0': limit is a number of images >= 1, got 0"),
        ("flips limit=-1", "limit is a number of images >= 1, got -1"),
    ],
)
def test_a_wrong_line_is_rejected_before_anything_runs(tmp_path, line, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        run(subject(tmp_path / "run"), "zeros", line)
    assert not (tmp_path / "run" / "analysis").exists()


class Picky:
    """An analysis that applies to no network."""

    name, title, section, source, about = "picky", "Picky", "activity", "none", "none"
    limit = None

    def __init__(self, attack):
        assert isinstance(attack, PGD) and attack.threat.eps == 0.1

    def __call__(self, model, data, **options):
        raise NotApplicable("the network has no such layer")

    def passes(self, samples, T):
        return Passes(1)

    result = staticmethod(lambda found: "")
    table = staticmethod(lambda found: Table((), ()))
    plots = staticmethod(lambda found: [])


def test_an_analysis_that_does_not_apply_is_skipped_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setitem(ANALYSES, "picky", Picky)
    said = []
    found = run(subject(tmp_path / "run"), "picky", "zeros", said=said)
    assert list(found) == ["zeros"]
    assert said[-1] == "picky-pgd7-linf-0.1 skipped: the network has no such layer"


def test_progress_covers_all_analyses_and_ends_at_the_total(tmp_path):
    seen = []
    run(
        subject(tmp_path / "run"),
        *("zeros", "zeros limit=2"),
        progress=lambda done, total, what: seen.append((done / total, what)),
    )
    shares = [share for share, _ in seen]
    assert shares == sorted(shares) and shares[-1] == 1
    assert {what.partition(",")[0] for _, what in seen} == {"zeros", "zeros-limit=2"}


def test_a_killed_command_keeps_finished_analyses(tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    of = subject(tmp_path / "run")
    planned = plan_analyses(of, ["zeros", "zeros limit=2"], attack="pgd7", limit=None)
    planned["zeros-limit=2"] = killed
    killed.passes = lambda samples, T: Passes(1)
    killed.limit = 2
    monkeypatch.setattr("spikeguard.analysis.base.settings_of", lambda *_: {})
    with pytest.raises(KeyboardInterrupt):
        analyse_once(of, planned)
    assert Measurement.load(of.path / "analysis" / "zeros.npz").samples == 9
