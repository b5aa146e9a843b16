"""A converging search in an evaluation: blocks, shards, processes, resuming, and what it stores."""

import json
from functools import partial

import pytest
import torch
from torch import nn

from spikeguard.attacks import FGSM, SAPGD, Converging, Linf
from spikeguard.attacks.searches import converging
from spikeguard.attacks.searches.portfolio import Entry
from spikeguard.data import ImageSet
from spikeguard.evaluation import plan as plans
from spikeguard.evaluation import search_blocks
from spikeguard.evaluation.batch_size import MemoryShortage
from spikeguard.evaluation.evaluator import evaluate, run_plan
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.parallel import run_shards
from spikeguard.evaluation.plan import plan_evaluation
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.result_files import PARTS
from spikeguard.models import MLP
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import stream
from tests.toys.stepping_attacks import spiking

EPS = 0.04


def data(n=26):
    x = torch.rand(n, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = spiking()(x).argmax(1)
    y[::9] = (y[::9] + 1) % 3
    return ImageSet(x, y, 3, "random", peak=1.0)


def attack(budget=20):
    return {"snn": Converging(Linf(EPS), budget=budget)}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two searches of four steps, and blocks of six samples."""
    entries = {
        name: Entry(lambda pull, spent: SAPGD(Linf(EPS), steps=4), 0.1) for name in ("one", "two")
    }
    monkeypatch.setattr(converging, "portfolio", lambda threat: entries)
    for module in (plans, search_blocks):
        monkeypatch.setattr(module, "BLOCK", 6)
    monkeypatch.setattr(plans, "CHUNK", 1)


def same(one, other):
    assert one.outcomes.keys() == other.outcomes.keys()
    assert all(torch.equal(one.outcomes[name], other.outcomes[name]) for name in one.outcomes)
    assert torch.equal(one.worst.x, other.worst.x)
    records = [json.loads(json.dumps(each.search)) for each in (one, other)]
    for record in records:
        for point in record["curve"]:
            del point["cpu_s"]
        for search in record["searches"].values():
            del search["cpu_s"]
    assert records[0] == records[1]


def planned(batch_size, jobs, out=None, attacks=None):
    options = EvaluationOptions(batch_size=batch_size, cascade=True, out=out)
    return plan_evaluation(spiking(), data(), attacks or attack(), options, jobs=jobs)


def test_results_depend_neither_on_the_batch_size_nor_on_the_number_of_shards():
    """Blocks begin at 0, 6, 12, ... in every division: 26 samples in shards of 6, 12 or 30."""
    whole = run_plan(planned(26, 1))
    assert 0 < whole.outcomes["snn"].sum() < whole.outcomes["clean"].sum()
    assert whole.search["n"] == whole.outcomes["clean"].sum() == 23
    sizes = []
    for batch_size, jobs in ((4, 1), (8, 1), (26, 3), (26, 8)):
        plan = planned(batch_size, jobs)
        sizes.append(plan.shard_size)
        same(run_plan(plan), whole)
    assert sizes == [6, 12, 12, 6]


class Killed(Exception):
    pass


def killed_after(passes):
    """Return the network, which fails after a number of forward passes."""
    model, left = spiking(), [passes]

    def count(module, inputs):
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    model.register_forward_pre_hook(count)
    return model, left


@pytest.mark.parametrize("stored", [False, True])
def test_a_search_that_runs_out_of_memory_ends_the_same(stored, tmp_path):
    """There is room for five samples at once; the batch of 12 is halved twice."""
    options = {"batch_size": 12, "cascade": True, "check": False}
    whole = evaluate(spiking(), data(), attack(), **options)
    model = spiking()

    def hold(module, inputs):
        if len(inputs[0]) > 5:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to")

    model.register_forward_pre_hook(hold)
    out = tmp_path / "out" if stored else None
    with pytest.warns(MemoryShortage) as caught:
        same(evaluate(model, data(), attack(), **options, out=out), whole)
    assert len(caught) == 2


def test_an_evaluation_killed_anywhere_ends_the_same(tmp_path):
    """Between rounds, within a round, and within the second block; six places."""
    options = {"batch_size": 12, "cascade": True}
    attacks = attack() | {"fgsm": FGSM(Linf(EPS))}
    whole = evaluate(spiking(), data(), attacks, **options)
    model, left = killed_after(10**6)
    evaluate(model, data(), attacks, **options)
    total, states = 10**6 - left[0], 0
    for place in range(1, 7):
        out = tmp_path / str(place)
        model, _ = killed_after(total * place // 7)
        with pytest.raises(Killed):
            evaluate(model, data(), attacks, out=out, **options)
        states += len(list((out / PARTS).glob("*.search")))
        finished = evaluate(spiking(), data(), attacks, out=out, **options)
        same(finished, whole)
        assert not list((out / PARTS).glob("*.search")), "a finished shard needs no state"
    assert states > 3


def test_a_finished_round_is_not_run_again(tmp_path):
    """Killed in its last passes, the evaluation needs a small part of them to end."""
    options = {"batch_size": 26, "cascade": True}
    model, left = killed_after(10**6)
    evaluate(model, data(), attack(), **options)
    total = 10**6 - left[0]
    model, _ = killed_after(total - 3)
    with pytest.raises(Killed):
        evaluate(model, data(), attack(), out=tmp_path, **options)
    model, left = killed_after(10**6)
    evaluate(model, data(), attack(), out=tmp_path, **options)
    assert 10**6 - left[0] < total / 4


def subject():
    """The same network and 300 images in every process."""
    model = MLP(16, 3, T=3, hidden=(12,), neuron=LIF(0.5, v_th=0.3), generator=stream(0, "w"))
    x = torch.rand(300, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model.eval()(x).argmax(1)
    return model, ImageSet(x, y, 3, "random", peak=1.0)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(monkeypatch, tmp_path):
    """Two blocks of 250 and 50; one round of the real portfolio each."""
    monkeypatch.undo()
    options = {"batch_size": 64, "cascade": True}
    whole = evaluate(*subject(), attack(1), **options)
    options = EvaluationOptions(out=tmp_path, **options)
    plan = plan_evaluation(*subject(), attack(1), options, jobs=2)
    assert list(plan.starts) == [0, 250]
    run_shards(plan, partial(subject), attack(1), options, 2)
    assert not plan.missing
    same(run_plan(plan), whole)


@pytest.mark.parametrize("sigma", [0.0, 0.3], ids=["quiet", "noisy"])
def test_the_result_holds_the_record_and_gives_it_back(sigma, tmp_path):
    model = MLP(16, 3, T=2, hidden=(8,), neuron=NoisyLIF(0.5, sigma, v_th=0.3)).eval()
    result = evaluate(model, data(), attack(), cascade=True)
    record = result.search
    result.save(tmp_path / "it")
    assert json.loads((tmp_path / "it.json").read_text())["search"] == record
    assert Evaluation.load(tmp_path / "it").search == record
    if sigma == 0:
        left = record["curve"][-1]["left"]
        assert left == result.outcomes["snn"].sum() == result.outcomes["worst_case"].sum()
        assert sum(each["fooled"] for each in record["searches"].values()) == record["n"] - left
    (line,) = [each for each in result.table().splitlines() if each.startswith("search:")]
    assert "the budget is spent" in line
    assert ("estimate: ten times as many" in line) == (sigma == 0), "noise: biased counts"


def test_points_in_the_table_are_of_all_samples():
    """8 samples, 4 wrong without an attack: an estimate of 1 more sample is 12.5 points."""
    result = evaluate(spiking(), data(8), attack(), cascade=True)
    record = result.search | {"estimate": {"more": 1.0, "low": 0.0, "high": 2.0}, "n": 4}
    object.__setattr__(result, "search", record)
    assert "by 12.5 points [0.0, 25.0]" in result.table()


def test_where_no_sample_is_right_there_is_no_record():
    images = data(5)
    labels = (images.labels + 1) % 3
    with torch.no_grad():
        labels = (spiking()(images.batch(slice(None))[0]).argmax(1) + 1) % 3
    result = evaluate(spiking(), ImageSet(images.images, labels, 3, "w", peak=1.0), attack(),
                      cascade=True)  # fmt: skip
    assert result.search is None and result.worst_case.accuracy == 0
    assert "search" not in result.table()


def test_without_a_cascade_it_is_rejected_in_one_line():
    with pytest.raises(ValueError, match=r"attack 'snn' .* pass cascade=True") as error:
        evaluate(spiking(), data(), attack())
    assert "\n" not in str(error.value)
    two = attack() | {"again": Converging(Linf(EPS), budget=30)}
    with pytest.raises(ValueError, match="one converging search at a time") as error:
        evaluate(spiking(), data(), two, cascade=True)
    assert "\n" not in str(error.value)


def test_a_state_of_another_search_is_rejected(tmp_path):
    model, _ = killed_after(40)
    with pytest.raises(Killed):
        evaluate(model, data(), attack(), out=tmp_path, cascade=True, check=False)
    with pytest.raises(ValueError, match="with other attacks;"):
        evaluate(spiking(), data(), attack(40), out=tmp_path, cascade=True)


def test_progress_counts_the_passes_of_the_search_and_expects_an_end(monkeypatch):
    """The total falls below the whole budget, and every pass is counted."""
    monkeypatch.setattr(converging, "_FIRST", 4)  # flat at 40 gradients
    seen = []
    evaluate(
        *(spiking(), data(), attack(3000)),
        cascade=True,
        progress=lambda *update: seen.append(update),
    )
    inside = [(done, total) for done, total, what in seen if what == "snn"]
    assert inside[0][1] > 23 * 3000
    done, total, what = seen[-1]
    assert done == total > 500 and what == "done"
    assert [number for number, _ in inside] == sorted({number for number, _ in inside})
    assert inside[-1][1] < 2 * total < 23 * 3000


class Spared(nn.Module):
    """Never fooled; its logits have a gradient."""

    def forward(self, x):
        z = x.flatten(1).mean(1, keepdim=True)
        return torch.cat([2 + z, -z], 1)


def test_what_is_expected_covers_the_blocks_that_wait(monkeypatch):
    """Three blocks of 6, 6 and 4 equal samples: the first expects 16 / 6 of its own gradients."""
    x, expected, own = torch.rand(16, 16, generator=stream(0, "x")), [], []
    images = ImageSet(x, torch.zeros(16, dtype=torch.int64), 2, "firm", peak=1.0)
    meter = plans.ProgressMeter
    monkeypatch.setattr(meter, "expect", lambda self, number: expected.append(number))
    result = evaluate(Spared(), images, attack(9), cascade=True)
    rounds = len(result.search["curve"]) // 3
    assert rounds == 3 and len(expected) == 9
    own = result.search["curve"][0]["gradients"]  # of the first round of one block of 6
    left = 9 - result.search["curve"][0]["spent"]
    assert expected[0] == pytest.approx(6 * left + 10 * (own / 6 + left))
    assert expected[-1] == 0
