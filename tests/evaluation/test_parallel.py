"""Evaluation in several processes: the result of one process, resumed shards, one error."""

from functools import partial

import pytest
import torch

from spikeguard.attacks import suite
from spikeguard.data import ImageSet
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.parallel import _CombinedProgress, run_shards
from spikeguard.evaluation.plan import plan_evaluation
from spikeguard.evaluation.result_files import PARTS
from spikeguard.evaluation.shard_runner import ShardRunner, partial_shard_path
from spikeguard.models import MLP
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import stream

pytestmark = pytest.mark.slow

EPS, N = 0.1, 22


def subject(sigma=0.0):
    """The same network and images in every process."""
    neuron = NoisyLIF(0.5, sigma, v_th=0.3) if sigma else LIF(0.5, v_th=0.3)
    model = MLP(16, 3, T=4, hidden=(24,), neuron=neuron, generator=stream(2, "w")).eval()
    x = torch.rand(N, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = model(x).argmax(1)
    return model, ImageSet(x, y, 3, "planted", peak=1.0)


def broken():
    raise RuntimeError("no such network")


def settings(cascade, sigma):
    attacks = suite("quick", eps=EPS, eot=2 if sigma else 1)
    return {"attacks": attacks, "seed": 4, "batch_size": 8, "cascade": cascade}


def split(arguments):
    """Split the arguments of ``evaluate`` into attacks and options."""
    options = {name: value for name, value in arguments.items() if name != "attacks"}
    return arguments["attacks"], EvaluationOptions(**options)


def planned(model, images, arguments, jobs):
    return plan_evaluation(model, images, *split(arguments), jobs=jobs)


def same(a, b):
    assert a.outcomes.keys() == b.outcomes.keys()
    assert all(torch.equal(a.outcomes[name], b.outcomes[name]) for name in a.outcomes)
    assert torch.equal(a.worst.x, b.worst.x)


@pytest.mark.parametrize(
    ("cascade", "sigma"),
    [
        *[(False, 0.0), (True, 0.3)],
        *[pytest.param(*each, marks=pytest.mark.long) for each in ((True, 0.0), (False, 0.3))],
    ],
)
def test_two_processes_give_the_result_of_one(cascade, sigma, tmp_path):
    options = settings(cascade, sigma)
    model, images = subject(sigma)
    whole = evaluate(model, images, **options)
    arguments = {**options, "out": tmp_path}
    plan = planned(model, images, arguments, jobs=2)
    assert len(plan.starts) == (2 if cascade else 3) and plan.missing == list(plan.starts)
    updates = []
    run_shards(
        plan, partial(subject, sigma), *split(arguments), 2, lambda *update: updates.append(update)
    )
    assert not plan.missing
    shared = evaluate(model, images, **arguments)
    same(whole, shared)
    done, total, what = updates[-1]
    assert done == total and what == "done" and [w for _, _, w in updates].count("done") == 1
    assert 0 < whole.outcomes["worst_case"].mean() < whole.outcomes["clean"].mean()


def test_one_process_continues_an_evaluation_planned_for_three(tmp_path):
    options = settings(cascade=True, sigma=0.0)
    model, images = subject()
    arguments = {**options, "out": tmp_path}
    plan = planned(model, images, arguments, jobs=3)
    assert [len(plan.index(start)) for start in plan.starts] == [8, 8, 6]
    plan.shard(8, plan.meter(None, 8))
    assert plan.missing == [0, 16]
    same(evaluate(model, images, **options), evaluate(model, images, **arguments))
    assert len(list((tmp_path / PARTS).glob("*.npz"))) == 3


def test_an_interrupted_shard_is_continued_by_another_number_of_processes(tmp_path, monkeypatch):
    """Planned for two processes; the first shard stops at its third attack, one process resumes."""
    options = settings(cascade=True, sigma=0.0)
    model, images = subject()
    whole = evaluate(model, images, **options)
    arguments = {**options, "out": tmp_path}
    plan = planned(model, images, arguments, jobs=2)
    attacked, real = [], ShardRunner._attack_samples

    def interrupted(job, name, *words):
        attacked.append(name)
        if len(attacked) == 3:
            raise KeyboardInterrupt
        return real(job, name, *words)

    monkeypatch.setattr(ShardRunner, "_attack_samples", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plan.shard(0, plan.meter(None, 11))
    assert partial_shard_path(tmp_path / PARTS / "00000000.npz").exists()
    same(whole, evaluate(model, images, **arguments))
    assert (
        attacked[2] in attacked[3:]
        and attacked[0] not in attacked[3 : attacked.index(attacked[2], 3) + 1]
    )


def test_an_error_in_a_worker_is_raised_in_the_parent(tmp_path):
    arguments = {**settings(cascade=True, sigma=0.0), "out": tmp_path}
    plan = planned(*subject(), arguments, jobs=2)
    with pytest.raises(RuntimeError, match="no such network"):
        run_shards(plan, broken, *split(arguments), 2)
    assert plan.missing == list(plan.starts)


def test_progress_is_the_sum_and_ends_once():
    """Two of three shards have reported: the third counts as their average."""
    updates = []
    combined = _CombinedProgress(lambda *update: updates.append(update), 3)
    combined("a", 0, 100, "fgsm")
    combined("b", 10, 80, "fgsm")
    combined("a", 50, 50, "done")
    combined("b", 70, 70, "done")
    combined("c", 30, 30, "done")
    assert updates == [(0, 300, "fgsm"), (10, 270, "fgsm"), (150, 150, "done")]
