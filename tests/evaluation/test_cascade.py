"""Cascades: the same worst case in fewer passes, marked as a cascade; searches in bfloat16."""

import json
from dataclasses import dataclass, field, replace

import pytest
import torch

from spikeguard.attacks import FGSM, PGD, Linf, ThreatViolation, UniformNoise, suite
from spikeguard.data import ImageSet
from spikeguard.evaluation import plan as shards
from spikeguard.evaluation import shard_runner as outcomes
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.plan import plan_evaluation
from spikeguard.evaluation.result import Evaluation
from spikeguard.models import MLP
from spikeguard.neurons import LIF, NoisyLIF
from spikeguard.rng import SampleStreams, key, stream
from tests.toys.small_evaluations import (
    EPS,
    LABELS,
    PIXELS,
    Noisy,
    Shift,
    Sign,
    fragile,
    pair,
    same,
    spiking,
)
from tests.toys.stepping_attacks import Rowwise, walk
from tests.toys.stepping_attacks import Sign as CountingSign
from tests.toys.stepping_attacks import spiking as rowwise


@dataclass(frozen=True)
class Spy:
    """An attack that records the samples on which it runs."""

    attack: object
    seen: list = field(default_factory=list, compare=False)

    @property
    def threat(self):
        return self.attack.threat

    def __call__(self, model, x, y, *, generator=None):
        self.seen.extend(generator.ids.tolist())
        return self.attack(model, x, y, generator=generator)


def vectors(n=60):
    """Inputs of which the row-wise network classifies nine in ten correctly."""
    x = torch.rand(n, 16, generator=stream(0, "x"))
    with torch.no_grad():
        y = rowwise()(x).argmax(1)
    y[::10] = (y[::10] + 1) % 3
    return x, y


ATTACKS = {
    "pgd": PGD(Linf(0.1), steps=6),
    "fgsm": FGSM(Linf(0.1)),
    "noise": UniformNoise(Linf(0.1), draws=6),
    "restarts": PGD(Linf(0.1), steps=4, restarts=3),
}


# --- counts known beforehand


@pytest.mark.parametrize(
    ("batch_size", "down", "up"),
    [
        (8, [[0, 1, 2, 3, 4, 5]], [[0, 3, 4, 5]]),
        (2, [[0, 1], [2, 3], [4, 5]], [[0, 3], [4, 5]]),  # full batches, not four with gaps
    ],
)
def test_outcomes_equal_those_computed_by_hand(batch_size, down, up):
    """eps 0.2: down fools 0.65 and 0.55; up runs on the other four and fools 0.35 and 0.45."""
    attacks = {"down": Shift(-EPS), "up": Shift(EPS)}
    result = evaluate(Sign(), pair(), attacks, batch_size=batch_size, cascade=True)
    expected = {
        "clean": [1, 1, 1, 1, 1, 1, 0, 0],
        "down": [1, 0, 0, 1, 1, 1, 0, 0],
        "up": [1, 0, 0, 1, 0, 0, 0, 0],
        "worst_case": [1, 0, 0, 1, 0, 0, 0, 0],
    }
    assert {name: right.int().tolist() for name, right in result.outcomes.items()} == expected
    assert (attacks["down"].seen, attacks["up"].seen) == (down, up)
    assert result.cascade
    assert (len(PIXELS), len(LABELS)) == (8, 8)


def test_attacks_run_from_cheap_to_expensive_and_those_of_unknown_cost_last():
    attacks = {"unknown": Shift(EPS), **ATTACKS, "first of equals": FGSM(Linf(0.1))}
    attacks["unknown"] = Shift(0.05, Linf(0.1))
    result = evaluate(rowwise(), vectors(), attacks, cascade=True)
    names = ["fgsm", "first of equals", "noise", "pgd", "restarts", "unknown"]
    assert list(result.settings) == list(result.attacks) == names
    accuracies = [result.clean.accuracy, *(s.accuracy for s in result.attacks.values())]
    assert accuracies == sorted(accuracies, reverse=True)
    assert result.worst_case == result.attacks["unknown"]


def test_model_passes_equal_those_counted_by_hand():
    """Two walks over 0.51, 0.53, 0.57, 0.9; the first has 20 passes, see the active set's test.

    Four clean scores, four gradients for the share without one, 20 passes, 4 scores; then ten
    passes and a score for the last sample alone. Plain: 4 + 4 + 2 x 4 x (10 + 1).
    """
    data = (torch.tensor([0.51, 0.53, 0.57, 0.9]).view(-1, 1).repeat(1, 3), torch.ones(4).long())
    attacks = {"walk": walk(), "again": walk()}
    model = CountingSign()
    lean = evaluate(model, data, attacks, batch_size=2, cascade=True, check=False)
    assert sum(model.sizes) == 4 + 4 + 20 + 4 + 10 + 1
    assert model.sizes[:4] == [2] * 4
    model = CountingSign()
    plain = evaluate(model, data, attacks, batch_size=2, check=False)
    assert sum(model.sizes) == 4 + 4 + 2 * 4 * (10 + 1)
    assert torch.equal(lean.outcomes["worst_case"], plain.outcomes["worst_case"])


# --- against the plain evaluation


def rows_passed(model):
    """Return a list to which every forward pass adds its batch size."""
    seen = []
    model.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    return seen


@pytest.mark.parametrize("seed", [0, 1])
def test_the_worst_case_is_no_better_than_the_plain_one_and_costs_less(seed):
    one, other = rowwise(), rowwise()
    spent, lean_spent = rows_passed(one), rows_passed(other)
    plain = evaluate(one, vectors(), ATTACKS, seed=seed, batch_size=8)
    lean = evaluate(other, vectors(), ATTACKS, seed=seed, batch_size=8, cascade=True)
    assert (lean.outcomes["worst_case"] <= plain.outcomes["worst_case"]).all()
    assert 0 < lean.worst_case.accuracy < lean.clean.accuracy
    assert torch.equal(lean.outcomes["clean"], plain.outcomes["clean"])
    assert lean.zero_gradient == plain.zero_gradient
    assert sum(lean_spent) < 0.7 * sum(spent)


def test_later_attacks_do_not_run_on_fooled_samples():
    attacks = {f"spy{i}": Spy(UniformNoise(Linf(0.1), draws=2)) for i in range(4)}
    result = evaluate(rowwise(), vectors(), attacks, batch_size=7, cascade=True)
    before = result.outcomes["clean"]
    for name, spy in attacks.items():
        assert sorted(spy.seen) == before.nonzero()[:, 0].tolist()
        before = result.outcomes[name]
    assert len(attacks["spy3"].seen) < len(attacks["spy0"].seen)


def test_a_step_by_step_search_is_at_least_as_strong_as_a_wrapped_one():
    """The spy hides that PGD can be run step by step, so PGD is called as a whole."""
    plain = evaluate(rowwise(), vectors(), {"pgd": Spy(ATTACKS["pgd"])}, cascade=True)
    steps = evaluate(rowwise(), vectors(), {"pgd": ATTACKS["pgd"]}, cascade=True)
    assert (steps.outcomes["pgd"] <= plain.outcomes["pgd"]).all()


# --- independence of batch size and mode


@pytest.mark.slow
def test_results_do_not_depend_on_the_batch_size(monkeypatch):
    whole = evaluate(rowwise(), vectors(), ATTACKS, batch_size=100, cascade=True)
    for batch_size, chunk in ((1, 8), (3, 8), (7, 2), (7, 8)):
        monkeypatch.setattr(shards, "CHUNK", chunk)
        same(whole, evaluate(rowwise(), vectors(), ATTACKS, batch_size=batch_size, cascade=True))


def test_kept_inputs_give_the_same_outcomes_again():
    model, (x, y) = rowwise(), vectors()
    result = evaluate(model, (x, y), ATTACKS, batch_size=7, cascade=True, keep_adversarial=True)
    for name, x_adv in result.adversarial.items():
        Linf(0.1).check(x_adv, x)
        with torch.no_grad():
            again = (model(x_adv).argmax(1) == y).double()
        assert torch.equal(again, result.outcomes[name]), name


@pytest.mark.parametrize("model", [Noisy(sees_light=True), Sign()])
def test_kept_inputs_are_the_worst_after_each_attack(model):
    """The second attack moves nothing, so that its points are worse than those of the first."""
    attacks = {"dark": Shift(-0.2), "nothing": Shift(0.0)}
    result = evaluate(model, pair([0.5] * 20, [0] * 20), attacks, cascade=True,
                      keep_adversarial=True, check=False)  # fmt: skip
    assert torch.equal(result.adversarial["nothing"], result.worst.x)
    assert torch.equal(result.adversarial["dark"], result.worst.x)


def test_an_attack_that_leaves_its_threat_set_is_named_and_not_scored():
    @dataclass(frozen=True)
    class Wide(Linf):
        def project(self, x_adv, x):
            return Linf(0.3).project(x_adv, x)

    for attack in (Shift(0.201), PGD(Wide(EPS), steps=3, step_size=0.1, random_start=False)):
        with pytest.raises(ThreatViolation, match=r"attack 'cheat'.*leaves the ball"):
            evaluate(Sign(), pair(), {"cheat": attack}, cascade=True)


def test_a_model_in_training_mode_stays_in_it():
    model = rowwise().train()
    expected = evaluate(rowwise(), vectors(), ATTACKS, cascade=True)
    same(expected, evaluate(model, vectors(), ATTACKS, cascade=True))
    assert all(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_with_noise_inside_attacks_only_a_search_is_not_run_step_by_step():
    """Scores are exact, but one noisy pass does not show whether such a model is fooled."""
    model = MLP(16, 3, T=2, hidden=(8,), neuron=NoisyLIF(0.5, 0.3, v_th=0.3, noise_in=("attack",)))
    attacks = {"pgd": ATTACKS["pgd"]}
    whole = evaluate(model, vectors(), attacks, cascade=True)
    plain = evaluate(model, vectors(), attacks)
    assert not whole.stochastic
    assert torch.equal(whole.outcomes["pgd"], plain.outcomes["pgd"])


# --- noise


def test_a_noisy_model_that_ignores_its_input_keeps_its_clean_accuracy():
    """400 samples x 10 draws at p = 3/4: standard error 0.0068; the bound is five of them.

    Every outcome is scored on draws not used to choose an attack; the lowest shares, which are
    used, are far below the bound. Each input has draws of its own, the hardest case.
    """
    x, y = torch.full((400, 1, 2, 2), 0.5), torch.zeros(400, dtype=torch.int64)
    attacks = {f"noise{i}": UniformNoise(Linf(0.1), draws=2) for i in range(8)}
    result = evaluate(Noisy(shuffles=True), (x, y), attacks, batch_size=60, cascade=True)
    bound = 5 * (0.75 * 0.25 / 4000) ** 0.5
    for score in (result.clean, result.worst_case, *result.attacks.values()):
        assert abs(score.accuracy - 0.75) < bound
    singles = evaluate(Noisy(shuffles=True), (x, y), attacks, batch_size=60).outcomes
    naive = torch.stack([singles[name] for name in ("clean", *attacks)]).amin(0)
    assert float(naive.mean()) < 0.75 - 4 * bound


def test_a_noisy_sample_leaves_only_when_it_was_wrong_on_every_draw():
    """Dark inputs are right where a number in [0, 1) is below 1/4, and others below 3/4."""
    x, y = torch.full((400, 1, 2, 2), 0.5), torch.zeros(400, dtype=torch.int64)
    attacks = {"down": Shift(-EPS), "up": Shift(EPS)}
    evaluate(Noisy(sees_light=True), (x, y), attacks, draws=2, batch_size=400, cascade=True)
    (first,), (second,) = attacks["down"].seen, attacks["up"].seen
    streams = SampleStreams(key(0, "score", "choice"), torch.arange(400))
    drawn = torch.stack([streams.uniform((400,)) for _ in range(2)])
    assert first == (drawn < 0.75).any(0).nonzero()[:, 0].tolist()
    assert second == (drawn < 0.25).any(0).nonzero()[:, 0].tolist()
    assert 0 < len(second) < len(first) < 400


# --- killed and continued


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "sigma"),
    [
        *[("32", 0.3), ("bf16", 0.0)],
        *[pytest.param(*each, marks=pytest.mark.long) for each in (("32", 0.0), ("bf16", 0.3))],
    ],
)
def test_a_killed_cascade_continues_and_ends_the_same(sigma, precision, monkeypatch, tmp_path):
    monkeypatch.setattr(shards, "CHUNK", 2)
    x = torch.rand(12, 1, 8, 8, generator=stream(0, "x"))
    with torch.no_grad():
        y = spiking()(x).argmax(1)
    data, steps = ImageSet(x, y, 3, "random", peak=1.0), {"pgd": PGD(Linf(0.1), steps=3)}
    options = {"batch_size": 2, "draws": 4, "keep_adversarial": True}
    options |= {"cascade": True, "precision": precision}
    whole = evaluate(spiking(sigma), data, fragile()[0] | steps, **options)
    attacks, calls = fragile(3)
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluate(spiking(sigma), data, attacks | steps, out=out, **options)
    assert 1 <= len(list((out / ".parts").glob("*.npz"))) < 3
    finished = evaluate(spiking(sigma), data, attacks | steps, out=out, **options)
    same(whole, finished)
    for name in whole.adversarial:
        assert torch.equal(whole.adversarial[name], finished.adversarial[name])
    made = len(calls)
    same(whole, evaluate(spiking(sigma), data, attacks | steps, out=out, **options))
    assert len(calls) == made, "nothing is computed a second time"


@pytest.mark.parametrize(
    ("stored", "change", "says"),
    [
        ({}, {"cascade": True}, "cascade"),
        ({"cascade": True}, {"cascade": False}, "cascade"),
        ({"cascade": True}, {"precision": "bf16"}, "precision"),
        ({"precision": "bf16"}, {"precision": "32"}, "precision"),
    ],
)
def test_shards_made_with_other_options_are_rejected(stored, change, says, tmp_path):
    attacks = {"fgsm": FGSM(Linf(0.1))}
    evaluate(rowwise(), vectors(), attacks, out=tmp_path, **stored)
    with pytest.raises(ValueError, match=f"with other {says};"):
        evaluate(rowwise(), vectors(), attacks, out=tmp_path, **stored | change)


def test_shards_of_another_size_are_continued(monkeypatch, tmp_path):
    """An evaluation started in shards of 3 batches keeps that size under another ``CHUNK``."""
    words = (rowwise(), vectors(), ATTACKS)
    options = {"batch_size": 7, "cascade": True}
    whole = evaluate(*words, **options)
    monkeypatch.setattr(shards, "CHUNK", 3)
    plan = plan_evaluation(*words, EvaluationOptions(out=tmp_path, **options))
    plan.shard(21, plan.meter(None, 21))
    monkeypatch.undo()
    same(whole, evaluate(*words, out=tmp_path, **options))
    kept = sorted(file.stem for file in (tmp_path / ".parts").glob("*.npz"))
    assert kept == [f"{start:08d}" for start in plan.starts] and plan.shard_size == 21


# --- marked as a cascade


def test_the_table_and_the_file_say_that_it_is_a_cascade(tmp_path):
    attacks = {"down": Shift(-EPS), "a longer name": Shift(EPS)}
    lean = evaluate(Sign(), pair(), attacks, cascade=True)
    lines = lean.table().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *("cascade", "clean", "+ down", "+ a longer name", "worst case"),
        "cascade: each accuracy is after this and all cheaper attacks",
    ]
    assert len({line.index("%") for line in lines[1:5]}) == 1
    lean.save(tmp_path / "lean")
    assert json.loads((tmp_path / "lean.json").read_text())["cascade"] is True
    back = Evaluation.load(tmp_path / "lean")
    same(lean, back)
    assert (back.cascade, back.precision, back.table()) == (True, "32", lean.table())
    plain = evaluate(Sign(), pair(), attacks)
    assert "cascade" not in plain.table()
    assert "+" not in plain.table()


def test_a_result_without_the_key_cascade_is_not_a_cascade(tmp_path):
    evaluate(Sign(), pair(), {"up": Shift(EPS)}).save(tmp_path / "old")
    card = json.loads((tmp_path / "old.json").read_text())
    assert (card.pop("cascade"), card.pop("precision")) == (False, "32")
    assert card.pop("checksum") and card.pop("files")  # which older versions did not write
    (tmp_path / "old.json").write_text(json.dumps(card))
    back = Evaluation.load(tmp_path / "old")
    assert (back.cascade, back.precision) == (False, "32")


def test_progress_counts_up_to_the_whole():
    seen = []
    attacks = ATTACKS | {"spy": Spy(FGSM(Linf(0.1)))}
    evaluate(
        *(rowwise(), vectors(), attacks),
        batch_size=5,
        cascade=True,
        progress=lambda *update: seen.append(update),
    )
    done = [number for number, _, _ in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1]
    assert all(done < total for done, total, _ in seen[:-1])
    assert {what for _, _, what in seen} == {*attacks, "done"}


# --- bfloat16


def autocasts(model):
    """Return a list that grows by one (autocast, gradients wanted) for every forward pass."""
    seen = []
    model.register_forward_pre_hook(
        lambda module, inputs: seen.append(
            (torch.is_autocast_enabled("cpu"), torch.is_grad_enabled())
        )
    )
    return seen


@pytest.mark.parametrize("cascade", [False, True])
def test_the_search_runs_in_bfloat16_and_every_score_in_float32(cascade):
    """PGD passes carry gradients, and so do those that count zero gradients; scores do not."""
    model = MLP(16, 3, T=3, hidden=(12,), neuron=LIF(0.5, v_th=0.3), generator=stream(0, "w"))
    seen, kinds = autocasts(model), set()
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda module, inputs, out: kinds.add((out.dtype, torch.is_grad_enabled()))
            )
    attacks = {"pgd": PGD(Linf(0.1), steps=4)}
    options = {"batch_size": 20, "cascade": cascade, "check": False}
    evaluate(model, vectors(), attacks, precision="bf16", **options)
    scores = [autocast for autocast, grad in seen if not grad]
    assert len(scores) >= 6
    assert not any(scores)
    assert kinds == {(torch.bfloat16, True), (torch.float32, True), (torch.float32, False)}
    assert seen.count((True, True)) >= 4
    assert seen.count((False, True)) == 3  # the share of zero gradients: three batches
    seen.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_a_block = evaluate(model, vectors(), attacks, **options)
    assert not any(autocast for autocast, grad in seen if not grad)
    same(in_a_block, evaluate(model, vectors(), attacks, **options))


@pytest.fixture(scope="module")
def trained():
    """An MLP trained to decide which half of its input is brighter, and its inputs."""
    x = torch.rand(200, 16, generator=stream(0, "halves"))
    y = (x[:, :8].mean(1) > x[:, 8:].mean(1)).long()
    neuron = LIF(0.5, v_th=0.5)
    model = MLP(16, 2, T=4, hidden=(32,), neuron=neuron, generator=stream(0, "trained"))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    for p in model.parameters():
        p.grad = None
    return model.eval(), (x, y)


@pytest.mark.slow
@pytest.mark.parametrize("cascade", [False, True])
def test_a_bfloat16_search_stays_in_its_threat_set_and_is_as_strong_as_in_float32(cascade, trained):
    model, (x, y) = trained
    attacks = {"fgsm": FGSM(Linf(0.1)), "pgd": PGD(Linf(0.1), steps=10)}
    options = {"cascade": cascade, "keep_adversarial": True, "batch_size": 64}
    exact = evaluate(model, (x, y), attacks, **options)
    rough = evaluate(model, (x, y), attacks, precision="bf16", **options)
    assert rough.precision == "bf16"
    assert "searched in bf16; all scores are float32" in rough.table()
    assert "bf16" not in exact.table()
    assert torch.equal(rough.outcomes["clean"], exact.outcomes["clean"])
    assert exact.clean.accuracy > 0.9
    assert exact.worst_case.accuracy < exact.clean.accuracy - 0.1
    assert abs(rough.worst_case.accuracy - exact.worst_case.accuracy) <= 0.05
    for name, x_adv in rough.adversarial.items():
        assert x_adv.dtype == torch.float32
        Linf(0.1).check(x_adv, x)
        with torch.no_grad():
            again = (model(x_adv).argmax(1) == y).double()
        assert torch.equal(again, rough.outcomes[name])


def test_an_unknown_precision_is_rejected_in_one_line():
    with pytest.raises(ValueError, match=r"precision is one of '32', 'bf16'; got 'fp8'") as error:
        evaluate(Sign(), pair(), {"up": Shift(EPS)}, precision="fp8")
    assert "\n" not in str(error.value)


def test_the_suites_run_as_cascades():
    model = rowwise()
    assert any(isinstance(module, Rowwise) for module in model.modules())
    for name in ("papers", "demo"):
        attacks = suite(name, eps=0.05, widths=(0.5,), steps=4)
        lean = evaluate(model, vectors(20), attacks, cascade=True)
        plain = evaluate(model, vectors(20), attacks)
        assert (lean.outcomes["worst_case"] <= plain.outcomes["worst_case"]).all()
        assert set(lean.settings) == set(plain.settings)
        assert replace(lean, outcomes={}).threat == plain.threat


@pytest.mark.parametrize("sigma", [0.0, 0.3], ids=["quiet", "noisy"])
def test_a_killed_cascade_repeats_no_finished_attack(sigma, monkeypatch, tmp_path):
    """One shard holds all samples; the run is killed in the second of three attacks."""
    x = torch.rand(12, 1, 8, 8, generator=stream(0, "x"))
    with torch.no_grad():
        y = spiking()(x).argmax(1)
    data = ImageSet(x, y, 3, "random", peak=1.0)
    attacks = {f"pgd{steps}": PGD(Linf(0.02), steps=steps) for steps in (1, 2, 3)}
    options = {"batch_size": 5, "draws": 2, "keep_adversarial": True, "cascade": True}
    whole = evaluate(spiking(sigma), data, attacks, **options)
    real, attacked = outcomes.ShardRunner._attack_samples, []

    def fragile_attack_samples(self, name, *rest):
        attacked.append(name)
        if attacked == ["pgd1", "pgd2"]:
            raise KeyboardInterrupt
        return real(self, name, *rest)

    monkeypatch.setattr(outcomes.ShardRunner, "_attack_samples", fragile_attack_samples)
    with pytest.raises(KeyboardInterrupt):
        evaluate(spiking(sigma), data, attacks, out=tmp_path, **options)
    finished = evaluate(spiking(sigma), data, attacks, out=tmp_path, **options)
    assert attacked == ["pgd1", "pgd2", "pgd2", "pgd3"]
    same(whole, finished)
    for name in attacks:
        assert torch.equal(whole.adversarial[name], finished.adversarial[name])
    assert torch.equal(whole.worst.x, finished.worst.x)
    assert [path.name for path in (tmp_path / ".parts").iterdir() if path.suffix == ".begun"] == []
