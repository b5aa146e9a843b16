"""Settings chosen on validation images: the strongest is stored; test images are not used."""

import json
import re
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from spikeguard import attacks
from spikeguard.attacks import (
    ASSG,
    CANDIDATES,
    HART,
    PGD,
    EoT,
    Linf,
    adjusted,
    tunable,
    tune,
    tuning,
)
from spikeguard.auditing import auditor
from spikeguard.cli.entry import main
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import NO_PLUGINS
from spikeguard.config.schema import EvaluateSection, load_recipe
from spikeguard.data import ImageSet, Splits
from spikeguard.models import CNN
from spikeguard.rng import stream
from spikeguard.runs import tuned_settings as choices
from spikeguard.runs.attack_results import attack_name, evaluate_once
from spikeguard.runs.audits import audit_once
from spikeguard.runs.run import Run
from spikeguard.runs.tuned_settings import choose_attack, load_or_tune
from spikeguard.storage import run_folder as run_files
from spikeguard.storage.digests import CHECKSUM, IDENTITY, UNVERIFIED, sealed
from tests.toys.fitting import fitted

pytestmark = pytest.mark.slow

EPS = 0.03
SHAPE = (1, 8, 8)


def images(name, n=64):
    x = torch.rand(n, *SHAPE, generator=stream(0, name))
    halves = x[..., :4].mean((1, 2, 3)) > x[..., 4:].mean((1, 2, 3))
    return ImageSet(x, halves.long(), 2, name, peak=1.0)


@pytest.fixture(scope="module")
def model():
    """Classifies by the brighter half; the candidates fool it on different numbers of images."""
    made = CNN(1, 2, T=3, width=4, hidden=12, image_size=8, generator=stream(0, "w"))
    return fitted(made, images("train", 512).batch(slice(None)), 12, stream(0, "order"))


@pytest.fixture
def data():
    return Splits(images("train"), images("val"), images("test"), (0.0,), (1.0,))


def snn_suite(eot=1):
    return attacks.suite("snn-cascade", eps=EPS, eot=eot)


def plain(gradient, steps=10):
    return PGD(Linf(EPS), steps=steps, gradient=gradient)


def small():
    return {"hart": plain(HART(), steps=2), "assg": plain(ASSG(), steps=2)}


@pytest.mark.parametrize("eot", [1, 3])
def test_a_choice_goes_into_the_gradients_of_its_kind_and_nothing_else(eot):
    before = snn_suite(eot)
    after = adjusted(before, {"HART": HART(0.7), "ASSG": ASSG(0.36)})
    inner = {"hart": HART(0.7), "assg": ASSG(0.36)}
    assert list(after) == list(before)
    for name, attack in before.items():
        own = inner.get(name.partition("/")[2])
        if own is None:
            assert after[name] is attack
        else:
            wanted = own if eot == 1 else EoT(eot, own)
            assert after[name] == replace(attack, gradient=wanted) != attack


def test_the_fixed_setting_of_the_suites_is_the_first_candidate():
    """It wins ties, so it changes only if another setting is stronger."""
    used = {str(a.gradient) for a in snn_suite().values() if hasattr(a, "gradient")}
    for kind, candidates in CANDIDATES.items():
        assert str(next(iter(candidates.values()))) in used, kind
        assert len(set(candidates.values())) == len(candidates)


def test_only_suites_with_such_a_gradient_have_something_to_choose():
    found = {name: set(tunable(attacks.suite(name, eps=0.1))) for name in attacks.SUITES}
    both = {"HART", "ASSG"}
    assert {name: kinds for name, kinds in found.items() if kinds} == {
        "snn-cascade": both,
        "every": both,
        "demo": {"ASSG"},
        "events": {"ASSG"},  # on frames; on events HART's gamma too
    }


def test_the_choice_is_that_of_tune_with_the_cheapest_attack_that_uses_it(model, data, tmp_path):
    """ASSG is in PGD-3 and in PGD-2 with two draws, 3 and 4 gradients; HART in one attack."""
    tried = {
        "dear": plain(EoT(2, ASSG()), steps=2),
        "assg": plain(ASSG(), steps=3),
        "hart": plain(EoT(2, HART()), steps=2),
    }
    found = load_or_tune(model, data.val, tried, folder=tmp_path, seed=3)
    makes = {
        "HART": lambda gradient: plain(EoT(2, gradient), steps=2),
        "ASSG": lambda gradient: plain(gradient, steps=3),
    }
    for kind, candidates in CANDIDATES.items():
        wanted = tune(model, data.val, candidates, makes[kind], seed=3)
        assert found[kind] == wanted
        assert len(set(wanted.scores.values())) > 1, "the candidates differ, or this shows nothing"


def test_an_interrupted_choice_continues_where_it_stopped(model, data, tmp_path, monkeypatch):
    whole = load_or_tune(model, data.val, small(), folder=tmp_path / "whole", seed=0)
    tried = []

    def stopping(*words, limit, **options):
        (name,) = words[2]
        if len(tried) == limit:
            raise KeyboardInterrupt
        tried.append(name)
        return tune(*words, **options)

    monkeypatch.setattr(tuning, "tune", partial(lambda *a, limit, **o: stopping(*a, limit=4, **o)))
    with pytest.raises(KeyboardInterrupt):
        load_or_tune(model, data.val, small(), folder=tmp_path / "cut", seed=0)
    first = list(tried)
    monkeypatch.setattr(tuning, "tune", lambda *a, limit, **o: stopping(*a, limit=99, **o))
    assert load_or_tune(model, data.val, small(), folder=tmp_path / "cut", seed=0) == whole
    assert len(first) == 4 and len(tried) == len(set(tried)) == 18
    monkeypatch.setattr(tuning, "tune", lambda *a, **o: pytest.fail("read back, not made again"))
    assert load_or_tune(model, data.val, small(), folder=tmp_path / "cut", seed=0) == whole


def resealed(text):
    card = json.loads(text)
    card.pop("checksum")
    return json.dumps(sealed(card))


def test_scores_of_other_weights_or_images_are_rejected(model, data, tmp_path):
    attack = {"hart": plain(HART())}
    load_or_tune(model, data.val, attack, folder=tmp_path, seed=0)
    before = next(model.parameters()).detach().clone()
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    with pytest.raises(ConfigError, match="is of other weights; move it away"):
        load_or_tune(model, data.val, attack, folder=tmp_path, seed=0)
    with torch.no_grad():
        next(model.parameters()).copy_(before)
    other = replace(data.val, images=1 - data.val.images)
    with pytest.raises(ConfigError, match="is of other images or labels; move it away"):
        load_or_tune(model, other, attack, folder=tmp_path, seed=0)


def test_scores_of_an_older_version_are_used_and_marked(model, data, tmp_path):
    attack, said = {"hart": plain(HART())}, []
    first = load_or_tune(model, data.val, attack, folder=tmp_path, seed=0)
    (file,) = tmp_path.iterdir()
    card = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in card.items() if k not in (IDENTITY, CHECKSUM)}))
    again = load_or_tune(model, data.val, attack, folder=tmp_path, seed=0, announce=said.append)
    assert again == first
    assert said == [f"{file}{UNVERIFIED}"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text[:40], "damaged"),
        (lambda text: text.replace('"scores"', '"other"'), "damaged"),
        (lambda text: text.replace('"seed": 0', '"seed": 5'), "checksum"),
        (lambda text: resealed(text.replace('"seed": 0', '"seed": 5')), "other trials"),
        (lambda text: resealed(text.replace("gamma 2.45", "gamma 9")), "other trials"),
    ],
    ids=["cut", "no scores", "edited", "seed", "candidates"],
)
def test_a_file_that_is_damaged_or_of_another_choice_is_rejected(
    change, says, model, data, tmp_path
):
    attack = {"hart": plain(HART())}
    load_or_tune(model, data.val, attack, folder=tmp_path, seed=0)
    (file,) = tmp_path.iterdir()
    file.write_text(change(file.read_text()))
    with pytest.raises(ConfigError, match=rf"{file.name}.*{says}"):
        load_or_tune(model, data.val, attack, folder=tmp_path, seed=0)


def test_the_choice_does_not_depend_on_the_test_images(model, data, tmp_path):
    """Other test images: the same files, bit for bit. Other validation images: other scores."""
    plan = EvaluateSection(tune=True, cascade=True, limit=2)

    def files(name, splits):
        folder = tmp_path / name
        one = {"eps": 0.1, "plan": plan, "seed": 0, "folder": folder}
        evaluate_once(model, splits, "demo", **one)
        return [file.read_bytes() for file in sorted((folder / choices.FOLDER).iterdir())]

    usual = files("usual", data)
    assert len(usual) == 1
    assert files("test", replace(data, test=images("other"))) == usual
    assert files("val", replace(data, val=images("other"))) != usual


def test_an_attack_by_itself_comes_with_where_its_setting_is_from(model, data, tmp_path):
    attack, how = choose_attack(plain(HART()), model, data.val, folder=tmp_path, seed=0)
    found = load_or_tune(model, data.val, {"": plain(HART())}, folder=tmp_path, seed=0)["HART"]
    assert attack == plain(found.gradient)
    assert (how.split, how.trials) == ("validation", 9)
    for other in (None, plain(EoT(2))):
        with pytest.raises(ConfigError, match=r"--tune: .* such as apgd-ce/hart"):
            choose_attack(other, model, data.val, folder=tmp_path, seed=0)


def test_an_audit_loads_the_choice_of_an_attack_whatever_its_seed(
    model, data, tmp_path, monkeypatch
):
    """Weights of the last epoch, and another seed of the attack's and audit's random numbers."""
    line, plan = "pgd steps=2 gradient=hart", EvaluateSection(seed=5, checkpoint="last", limit=2)
    tuned = plan.changed(tune=True, attacks=["pgd steps=2 gradient=hart"], suite=[])
    folder = tmp_path / run_files.ATTACKS
    evaluate_once(model, data, line, eps=0.1, plan=tuned, seed=0, folder=folder)
    chosen = {file.name: file.read_bytes() for file in (folder / choices.FOLDER).iterdir()}
    asked = []
    monkeypatch.setattr(auditor, "audit", lambda *args, **how: asked.append(how) or args[1])
    with pytest.raises(AttributeError):  # images are no verdict that could be saved
        audit_once(
            *(tmp_path, model, data, Linf(0.1)),
            plan=plan,
            own_seed=0,
            seed=5,
            plugins=NO_PLUGINS,
            attack=line,
            tune=True,
        )
    assert {f.name: f.read_bytes() for f in (folder / choices.FOLDER).iterdir()} == chosen
    assert len(chosen) == 1 and (asked[0]["seed"], asked[0]["tuned"].trials) == (5, 9)


def test_names_of_results_say_so_where_there_was_a_choice():
    plan, tuned = EvaluateSection(), EvaluateSection(tune=True)
    assert attack_name("demo", 0.1, tuned) == f"{attack_name('demo', 0.1, plan)}-tuned"
    assert attack_name("papers", 0.1, tuned) == attack_name("papers", 0.1, plan)


# --- from the command line


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tiny"
    small = ["data.train_limit=60", "data.test_limit=12", "model.T=2", "model.width=2"]
    small += ["model.hidden=8", "train.epochs=1", "evaluate.checkpoint=best", "evaluate.limit="]
    assert main(["train", "demo/vanilla", *small, "--out", str(path)]) == 0
    return path


def test_attack_chooses_first_and_says_what(run, capsys):
    words = ["attack", str(run), "--suite", "demo", "--eps", "0.1", "--cascade", "--tune"]
    assert main(words) == 0
    told = capsys.readouterr()
    card = json.loads((run / run_files.ATTACKS / "demo-linf-0.1-cascade-tuned.json").read_text())
    chosen = card["tuned"]["ASSG"]
    assert chosen.pop("setting") in CANDIDATES["ASSG"]
    assert chosen == {"split": "validation", "samples": 6, "trials": 9}
    assert "ASSG A 0.39 on validation images (3/9" in told.err
    assert "the strongest of 9 on 6 validation images" in told.err
    assert "9 settings of ASSG first, on 6 images, 80 gradients each" in told.err
    assert main(words) == 0
    again = capsys.readouterr()
    assert again.out == told.out
    assert "on validation images (" not in again.err and "first" not in again.err
    assert main([*words, "--rescore"]) == 0
    assert "as reported" in capsys.readouterr().out
    assert main(["report", str(run)]) == 0
    page = (run / run_files.REPORT).read_text(encoding="utf-8")
    assert "all cheaper of demo tuned" in page and "strongest of 9 on 6 validation" in page
    assert "--cascade --tune" in page


def test_a_finished_result_needs_no_choice_any_more(run, capsys, monkeypatch):
    words = ["attack", str(run), "--suite", "demo", "--eps", "0.15", "--tune"]
    assert main(words) == 0
    first = capsys.readouterr()
    monkeypatch.setattr(tuning, "tune", lambda *a, **o: pytest.fail("chosen again"))
    shutil.rmtree(run / run_files.ATTACKS / choices.FOLDER)
    assert main(words) == 0
    again = capsys.readouterr()
    assert again.out == first.out and "the strongest of 9 on 6 validation" in again.err


def test_where_nothing_can_be_chosen_the_result_is_the_plain_one(tmp_path, data):
    """Without spiking layers the suite has neither HART nor ASSG."""
    plain_net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    plan = EvaluateSection(tune=True, cascade=True, limit=2)
    told = []
    where = {"seed": 0, "folder": tmp_path, "announce": told.append}
    evaluate_once(plain_net, data, "demo", eps=0.1, plan=plan, **where)
    assert "suite demo has no setting to choose for this network" in told
    assert [file.name for file in tmp_path.glob("*.json")] == ["demo-linf-0.1-first2-cascade.json"]


def test_a_recipe_that_tunes_can_run_suites_without_settings(run, capsys, tmp_path):
    """The commands in the report reproduce both results, the tuned and the plain one."""
    other = tmp_path / "tuning"
    shutil.copytree(run, other, ignore=shutil.ignore_patterns(run_files.ATTACKS))
    load_recipe(other / run_files.RECIPE, ["evaluate.tune=true"]).save(other / run_files.RECIPE)
    words = ["attack", str(other), "--eps", "0.1", "--limit", "2", "--suite"]
    assert main([*words, "quick"]) == main([*words, "demo", "--no-tune"]) == 0
    names = {file.name for file in (other / run_files.ATTACKS).glob("*.json")}
    assert names == {"quick-linf-0.1-first2.json", "demo-linf-0.1-first2.json"}
    assert main(["report", str(other)]) == 0
    page = (other / run_files.REPORT).read_text(encoding="utf-8")
    assert re.search(r"--suite demo --norm linf --eps 0\.1 --limit 2 --no-tune", page)


def test_a_suite_without_a_setting_is_rejected(run, capsys):
    assert main(["attack", str(run), "--suite", "papers,quick", "--tune"]) == 2
    said = "--tune: no setting to choose in suite papers, quick; there is one in: demo, "
    said += "snn-cascade, every, events."
    assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"evaluate\.tune in recipe demo/at: no setting"):
        from spikeguard.config.builder import build

        build(load_recipe("demo/at", ["evaluate.suite=papers", "evaluate.tune=true"]))


def test_the_audit_gets_the_origin_of_the_settings(run, monkeypatch):
    asked = {}

    class Verdict:
        def save(self, path, **extra):
            pass

    def audited(*words, **options):
        asked.update(options)
        return Verdict()

    monkeypatch.setattr("spikeguard.auditing.auditor.audit", audited)
    Run.load(run).audit(eps=0.1, attack="apgd-ce/hart", tune=True)
    assert (asked["tuned"].split, asked["tuned"].trials) == ("validation", 9)
    assert isinstance(asked["attack"].gradient, HART)
    Run.load(run).audit(eps=0.1, attack="apgd-ce/hart")
    assert asked["tuned"] is None


def test_audit_without_such_an_attack_is_rejected(run, capsys):
    for more in ([], ["--attack", "pgd40"]):
        assert main(["audit", str(run), "--quick", "--tune", *more]) == 2
        assert "--tune: chooses the setting of --attack" in capsys.readouterr().err
