"""evaluate(): counts known beforehand, noise without bias, and resuming after a kill."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

from spikeguard.attacks import (
    FGSM,
    L2,
    PGD,
    AttackError,
    Linf,
    SwapSurrogate,
    ThreatViolation,
    UniformNoise,
    suite,
)
from spikeguard.data import ImageSet
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.rescoring import rescore
from spikeguard.evaluation.result import Evaluation
from spikeguard.evaluation.result_files import WorstSet, load_worst
from spikeguard.evaluation.statistics import Score, wilson
from spikeguard.models import CNN, MLP
from spikeguard.neurons import LIF, NoisyLIF, Triangular
from spikeguard.rng import stream
from tests.toys.small_evaluations import (
    EPS,
    LABELS,
    Noisy,
    Shift,
    Sign,
    fragile,
    pair,
    same,
    spiking,
)


@pytest.fixture
def images():
    """Images of which the spiking model classifies three in four correctly."""
    x = torch.rand(12, 1, 8, 8, generator=stream(0, "x"))
    with torch.no_grad():
        y = spiking()(x).argmax(1)
    y[::4] = (y[::4] + 1) % 3
    return ImageSet(x, y, 3, "random", peak=1.0)


# --- intervals


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (8, 10, 0.490, 0.943),
        (81, 263, 0.2553, 0.3662),  # these four: Newcombe, Statistics in Medicine 17, 1998, Table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    found = wilson(successes, n)
    assert found == pytest.approx((low, high), abs=6e-4 if n == 10 else 6e-5)
    assert wilson(n - successes, n) == pytest.approx((1 - found[1], 1 - found[0]))


def test_wilson_stays_in_the_unit_interval_and_contains_the_share():
    for successes in (0, 0.25, 3, 7.5, 10):
        low, high = wilson(successes, 10)
        assert 0 <= low <= successes / 10 <= high <= 1


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 10), (11, 10), (float("nan"), 10)])
def test_wilson_rejects_counts_that_are_no_share(successes, n):
    with pytest.raises(ValueError, match="wilson"):
        wilson(successes, n)


# --- counts known beforehand


def test_outcomes_equal_those_computed_by_hand():
    """eps 0.2: down fools 0.65 and 0.55, up fools 0.35 and 0.45; 0.8 and 0.2 are wrong anyway."""
    result = evaluate(Sign(), pair(), {"down": Shift(-EPS), "up": Shift(EPS)}, batch_size=3)
    expected = {
        "clean": [1, 1, 1, 1, 1, 1, 0, 0],
        "down": [1, 0, 0, 1, 1, 1, 0, 0],
        "up": [1, 1, 1, 1, 0, 0, 0, 0],
        "worst_case": [1, 0, 0, 1, 0, 0, 0, 0],
    }
    assert {name: right.int().tolist() for name, right in result.outcomes.items()} == expected
    assert result.clean.accuracy == 6 / 8
    assert result.attacks["down"].accuracy == result.attacks["up"].accuracy == 4 / 8
    assert result.worst_case == Score(2 / 8, *wilson(2, 8), 8)
    assert result.worst_case.interval == wilson(2, 8)
    assert (result.samples, result.stochastic, result.draws, result.seed) == (8, False, 1, 0)
    assert result.threat == {"norm": "linf", "eps": EPS}
    assert result.index.tolist() == list(range(8))
    assert result.labels.tolist() == LABELS


def test_samples_wrong_without_an_attack_are_not_attacked():
    attack = Shift(-EPS)
    evaluate(Sign(), pair(), {"down": attack}, batch_size=4)
    assert attack.seen == [[0, 1, 2, 3], [4, 5]]


def test_a_batch_without_a_correct_sample_is_not_attacked():
    attack = Shift(-EPS)
    result = evaluate(Sign(), pair([0.8, 0.2, 0.9], [0, 1, 1]), {"down": attack}, batch_size=2)
    assert attack.seen == [[2]]
    assert result.outcomes["worst_case"].tolist() == [0, 0, 1]


@pytest.mark.slow
def test_the_worst_case_is_never_better_than_an_attack(images):
    result = evaluate(spiking(), images, suite("quick", eps=0.1), batch_size=5)
    assert result.attacks
    for name, right in result.outcomes.items():
        assert (result.outcomes["worst_case"] <= right).all(), name
    lowest = torch.stack([result.outcomes[name] for name in result.attacks]).amin(0)
    assert torch.equal(result.outcomes["worst_case"], lowest)


def test_zero_gradient_is_the_share_of_samples_without_one():
    class Half(Sign):
        def forward(self, x):
            return super().forward(x.clamp_min(0.5))

    result = evaluate(Half(), pair(), {"up": Shift(EPS)})
    assert result.zero_gradient == 4 / 8  # 0.1, 0.35, 0.45 and 0.2 are below the clamp
    assert "50.0 % of the input gradients are exactly zero" in result.table()
    assert evaluate(Sign(), pair(), {"up": Shift(EPS)}).zero_gradient == 0


def test_limit_takes_the_first_samples():
    result = evaluate(Sign(), pair(), {"up": Shift(EPS)}, limit=3)
    assert result.samples == 3
    assert result.labels.tolist() == LABELS[:3]
    assert evaluate(Sign(), pair(), {"up": Shift(EPS)}, limit=99).samples == 8


# --- independence of batch size, seed and mode


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 0.3], ids=["quiet", "noisy"])
def test_results_do_not_depend_on_the_batch_size(sigma, images):
    attacks = suite("baseline", eps=0.1) | {"pgd": PGD(Linf(0.1), steps=2)}
    whole = evaluate(spiking(sigma), images, attacks, draws=3, batch_size=100)
    for batch_size in (1, 5):
        same(whole, evaluate(spiking(sigma), images, attacks, draws=3, batch_size=batch_size))


def test_the_seed_names_the_noise(images):
    attacks = {"noise": UniformNoise(Linf(0.3), draws=1)}
    outcomes = [
        evaluate(spiking(0.3), images, attacks, seed=s).outcomes["noise"] for s in (0, 0, 1)
    ]
    assert torch.equal(outcomes[0], outcomes[1])
    assert not torch.equal(outcomes[0], outcomes[2])


def test_a_model_in_training_mode_is_scored_in_evaluation_mode_and_restored(
    images, untouched_global_generator
):
    attacks = {"pgd": PGD(Linf(0.1), steps=2)}
    model = spiking()
    expected = evaluate(model, images, attacks)
    model.train()
    model.features[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    same(expected, evaluate(model, images, attacks))
    assert flags == [module.training for module in model.modules()]
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_scores_are_right_if_an_attack_leaves_the_model_in_training_mode(images):
    @dataclass(frozen=True)
    class Careless(FGSM):
        def __call__(self, model, x, y, *, generator=None):
            x_adv = super().__call__(model, x, y, generator=generator)
            model.train()
            return x_adv

    model = spiking()
    expected = evaluate(model, images, {"a": FGSM(Linf(0.1)), "b": FGSM(Linf(0.1))}, batch_size=4)
    found = evaluate(
        model, images, {"a": Careless(Linf(0.1)), "b": Careless(Linf(0.1))}, batch_size=4
    )
    for name in expected.outcomes:
        assert torch.equal(expected.outcomes[name], found.outcomes[name]), name
    assert not model.training


# --- noise


def test_a_noisy_model_that_ignores_its_input_keeps_its_clean_accuracy():
    """400 samples x 10 draws at p = 3/4: standard error 0.0068; the bound is five of them.

    The planted fault, the minimum over the attacks' noisy scores, falls far below the bound. Each
    input has draws of its own, the hardest case.
    """
    x, y = torch.full((400, 1, 2, 2), 0.5), torch.zeros(400, dtype=torch.int64)
    attacks = {f"noise{i}": UniformNoise(Linf(0.1), draws=2) for i in range(8)}
    result = evaluate(Noisy(shuffles=True), (x, y), attacks)
    bound = 5 * (0.75 * 0.25 / 4000) ** 0.5
    assert result.stochastic
    assert result.draws == 10
    for score in (result.clean, result.worst_case, *result.attacks.values()):
        assert abs(score.accuracy - 0.75) < bound
    singles = [result.outcomes[name] for name in ("clean", *attacks)]
    assert float(result.outcomes["worst_case"].mean()) <= min(float(s.mean()) for s in singles)
    naive = torch.stack(singles).amin(0)
    assert float(naive.mean()) < 0.75 - 4 * bound


def test_the_worst_case_shows_that_a_noisy_model_is_fooled():
    """Dark inputs are right with probability 1/4: the worst case is the attack that darkens."""
    x, y = torch.full((400, 1, 2, 2), 0.5), torch.zeros(400, dtype=torch.int64)
    attacks = {"brighten": Shift(EPS), "darken": Shift(-EPS)}
    result = evaluate(Noisy(sees_light=True), (x, y), attacks, draws=20)
    bound = 5 * (0.75 * 0.25 / 8000) ** 0.5
    assert abs(result.attacks["brighten"].accuracy - 0.75) < bound
    assert abs(result.attacks["darken"].accuracy - 0.25) < bound
    # by chance brightening scores lower than darkening in fewer than 1 sample of 100
    assert abs(result.worst_case.accuracy - 0.25) < bound + 0.01


def test_scores_of_a_noisy_model_are_shares_of_fresh_draws(images):
    result = evaluate(spiking(0.3), images, {"fgsm": FGSM(Linf(0.1))}, draws=4)
    assert result.draws == 4
    for right in result.outcomes.values():
        assert torch.equal((right * 4).round() / 4, right)
    assert result.outcomes["clean"].frac().any()


def test_noise_inside_a_wrapper_is_noticed(images):
    result = evaluate(nn.Sequential(spiking(0.3)), images, {"fgsm": FGSM(Linf(0.1))})
    assert (result.stochastic, result.draws) == (True, 10)
    result = evaluate(nn.Sequential(spiking()), images, {"fgsm": FGSM(Linf(0.1))})
    assert (result.stochastic, result.draws) == (False, 1)


def test_noise_in_training_only_is_not_scored_as_noise(images):
    neuron = NoisyLIF(0.5, 0.3, v_th=0.3, noise_in=("train",))
    model = CNN(1, 3, T=2, width=4, hidden=6, image_size=8, neuron=neuron).train()
    result = evaluate(model, images, {"fgsm": FGSM(Linf(0.1))})
    assert (result.stochastic, result.draws) == (False, 1)


# --- faults


@pytest.mark.parametrize("by", [0.201, -0.201])
def test_an_attack_that_leaves_its_threat_set_is_named_and_not_scored(by):
    with pytest.raises(ThreatViolation, match=r"attack 'cheat'.*leaves the ball") as error:
        evaluate(Sign(), pair(), {"cheat": Shift(by)})
    assert "\n" not in str(error.value)


def test_weights_that_are_nan_are_an_error_though_the_logits_are_finite(images):
    model = spiking()
    with torch.no_grad():
        model.features[0].weight[0] = torch.nan
        assert model(images.batch([0])[0]).isfinite().all()
    with pytest.raises(AttackError, match=r"features\.0\.weight"):
        evaluate(model, images, {"noise": UniformNoise(Linf(0.1))})


def test_logits_that_are_nan_are_an_error():
    class Log(Sign):
        def forward(self, x):
            return super().forward(x) * torch.tensor(-1.0).log()

    with pytest.raises(AttackError, match="logits are not finite"):
        evaluate(Log(), pair(), {"up": Shift(EPS)})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"limit": 0}, "limit"),
        ({"batch_size": 0}, "batch_size"),
        ({"draws": 0}, "draws"),
        ({"attacks": {"clean": Shift(0)}}, "'clean'"),
        ({"attacks": {"worst_case": Shift(0)}}, "'worst_case'"),
        ({"attacks": {"labels": Shift(0)}}, "'labels'"),
        ({"attacks": {"a": Shift(0), "b": Shift(0, Linf(0.1))}}, "one threat set"),
        ({"attacks": {"file": Shift(0)}}, "an attack cannot be named 'file'"),
        ({"attacks": {"allow_pickle": Shift(0)}}, "an attack cannot be named 'allow_pickle'"),
        ({"attacks": {"adversarial:x": Shift(0)}}, "an attack cannot be named 'adversarial:x'"),
        ({"attacks": {"a": Shift(0), "b": Shift(0, L2(EPS))}}, "one threat set"),
        ({"data": pair([1.5], [0])}, r"\[0, peak=1\]"),
        ({"data": pair([0.5], [7])}, "labels go up to 7"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_rejected_in_one_line(options, says):
    arguments = {"data": pair(), "attacks": {"up": Shift(EPS)}, **options}
    data, attacks = arguments.pop("data"), arguments.pop("attacks")
    with pytest.raises(ValueError, match=says) as error:
        evaluate(Sign(), data, attacks, **arguments)
    assert "\n" not in str(error.value)


# --- killed and continued


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.0, 0.3], ids=["quiet", "noisy"])
def test_a_killed_evaluation_continues_and_ends_the_same(sigma, images, tmp_path):
    options = {"batch_size": 3, "draws": 2, "keep_adversarial": True}
    attacks, whole_calls = fragile()
    whole = evaluate(spiking(sigma), images, attacks, **options)
    attacks, calls = fragile(3)
    with pytest.raises(KeyboardInterrupt):
        evaluate(spiking(sigma), images, attacks, out=tmp_path / "out", **options)
    assert len(calls) == 3
    finished = evaluate(spiking(sigma), images, attacks, out=tmp_path / "out", **options)
    same(whole, finished)
    for name in attacks:
        assert torch.equal(whole.adversarial[name], finished.adversarial[name])
    assert calls == [*whole_calls[:2], whole_calls[2], *whole_calls[2:]]  # only batch 3 again
    again = evaluate(spiking(sigma), images, attacks, out=tmp_path / "out", **options)
    same(whole, again)
    assert len(calls) == 5, "nothing is computed a second time"


@pytest.fixture
def unfinished(images, tmp_path):
    """An evaluation that was killed in its second batch."""
    attacks, _ = fragile(2)
    with pytest.raises(KeyboardInterrupt):
        evaluate(spiking(), images, attacks, batch_size=4, out=tmp_path / "out")
    return tmp_path / "out"


def other_weights(model):
    with torch.no_grad():
        model.classifier[1].weight[0, 0] += 1e-6
    return model


def other_surrogate(model):
    model.classifier[2].surrogate = Triangular(0.5)
    return model


def other_T(model):
    model.T = 3
    return model


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "seed"),
        ({"draws": 2}, "draws"),
        ({"batch_size": 5}, "batch_size"),
        ({"limit": 11}, "samples"),
        ({"keep_adversarial": True}, "keep_adversarial"),
        ({"attacks": lambda a: {**a, "fragile": replace(a["fragile"], steps=3)}}, "attacks"),
        ({"attacks": lambda a: {"noise": a["noise"]}}, "attacks"),
        ({"model": other_weights}, "weights"),
        ({"model": other_surrogate}, "model"),
        ({"model": other_T}, "model"),
        ({"data": lambda d: d.subset([1, 0, *range(2, 12)])}, "data"),
        ({"data": lambda d: replace(d, peak=2.0)}, "data"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_shards_of_another_evaluation_are_rejected(change, says, unfinished, images):
    change = dict(change)
    attacks, calls = fragile()
    attacks = change.pop("attacks", lambda a: a)(attacks)
    model = change.pop("model", lambda m: m)(spiking())
    data = change.pop("data", lambda d: d)(images)
    with pytest.raises(ValueError, match=f"with other {says}; .*choose another") as error:
        evaluate(model, data, attacks, **{"batch_size": 4, "out": unfinished, **change})
    assert "\n" not in str(error.value)
    assert calls == []


@pytest.mark.parametrize("damage", ["cut", "header", "content"])
def test_a_damaged_shard_is_named(damage, unfinished, images):
    part = next((unfinished / ".parts").glob("*.npz"))
    data = bytearray(part.read_bytes())
    if damage == "cut":
        del data[100:]
    else:  # a name in the zip directory; compressed numbers (zlib.error)
        place = data.rindex(b".npy") if damage == "header" else data.index(b".npy") + 30
        data[place : place + 4] = b"\xff" * 4
    part.write_bytes(data)
    with pytest.raises(ValueError, match=f"{part.name} is damaged"):
        evaluate(spiking(), images, fragile()[0], batch_size=4, out=unfinished)


# --- stored on disk


def test_a_saved_evaluation_loads_unchanged_and_its_shards_are_removed(images, tmp_path):
    path = tmp_path / "attacks" / "quick-eps-0.1"  # a name with a dot
    attacks = suite("quick", eps=0.1, widths=(0.5,))
    result = evaluate(spiking(), images, attacks, out=path, batch_size=5, keep_adversarial=True)
    assert (path / ".parts").is_dir()
    result.save(path, suite="quick", command="x")
    assert sorted(p.name for p in path.parent.iterdir()) == [
        f"{path.name}.json",
        f"{path.name}.npz",
        f"{path.name}.worst.npz",
    ]
    back = Evaluation.load(path)
    same(result, back)
    assert back.seconds == result.seconds
    for name in attacks:
        assert torch.equal(back.adversarial[name], result.adversarial[name])


def test_other_files_in_the_folder_are_kept(images, tmp_path):
    result = evaluate(spiking(), images, {"noise": UniformNoise(Linf(0.1))}, out=tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    result.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_the_files_have_the_documented_layout(images, tmp_path):
    result = evaluate(spiking(0.3), images, {"pgd": PGD(Linf(0.1), steps=1)}, draws=2, seed=4)
    result.save(tmp_path / "r", suite="none")
    card = json.loads((tmp_path / "r.json").read_text())
    score = {"accuracy", "low", "high", "n"}
    assert set(card) == {
        *("samples", "seed", "stochastic", "draws", "threat", "clean", "attacks"),
        *("worst_case", "zero_gradient", "unmoved", "suite", "cascade", "precision"),
        *("activity", "classes", "files", "checksum"),
    }
    assert set(card["clean"]) == set(card["worst_case"]) == score
    assert set(card["attacks"]["pgd"]) == {*score, "settings", "seconds"}
    assert card["threat"] == {"norm": "linf", "eps": 0.1}
    assert (card["samples"], card["seed"], card["draws"], card["stochastic"]) == (12, 4, 2, True)
    with np.load(tmp_path / "r.npz", allow_pickle=False) as arrays:
        assert set(arrays.files) == {
            *("clean", "pgd", "worst_case", "labels", "index", "zero_gradient")
        }
        assert arrays["pgd"].dtype == np.float64
        assert arrays["worst_case"].mean() == pytest.approx(card["worst_case"]["accuracy"])


def test_kept_adversarial_inputs_give_the_same_score_again(images):
    model, threat = spiking(), Linf(0.1)
    result = evaluate(model, images, suite("quick", eps=0.1), keep_adversarial=True, batch_size=5)
    x, y = images.batch(slice(None))
    right = result.outcomes["clean"].bool()
    for name, x_adv in result.adversarial.items():
        threat.check(x_adv, x)
        assert torch.equal(x_adv[~right], x[~right])
        with torch.no_grad():
            again = (model(x_adv).argmax(1) == y).double()
        assert torch.equal(again, result.outcomes[name])


@pytest.mark.slow
@pytest.mark.parametrize("cascade", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 0.3], ids=["quiet", "noisy"])
def test_the_worst_case_can_be_scored_again_from_the_disk(sigma, cascade, images, tmp_path):
    model = spiking(sigma)
    attacks = suite("quick", eps=0.1, widths=(0.5,))
    result = evaluate(model, images, attacks, cascade=cascade, batch_size=5)
    result.save(tmp_path / "r")
    again = rescore(model, images, tmp_path / "r")
    assert again.agrees and again.reported == result.worst.accuracy
    if not sigma:
        assert again.found == result.worst_case
        assert torch.equal(result.worst.x, load_worst(tmp_path / "r").x)


def test_saved_inputs_that_do_not_give_the_reported_accuracy_are_detected(images, tmp_path):
    """Planted: the clean images, other images, and images outside the threat set."""
    model = spiking()
    result = evaluate(model, images, {"pgd": PGD(Linf(0.2), steps=5)})
    x, y = images.batch(slice(None))
    assert result.worst_case.accuracy < result.clean.accuracy

    def saved(worst):
        replace(result, worst=WorstSet(worst, result.worst.accuracy)).save(tmp_path / "r")
        return tmp_path / "r"

    assert not rescore(model, images, saved(x)).agrees
    with pytest.raises(ValueError, match="do not belong to these images"):
        rescore(model, ImageSet(x.flip(0), y.flip(0), 3, "other", 1.0), saved(result.worst.x))
    with pytest.raises(ThreatViolation):
        rescore(model, images, saved((x + 0.3).clamp(0, 1)))


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_damaged_inputs_are_named(damage, images, tmp_path):
    evaluate(spiking(), images, {"pgd": PGD(Linf(0.2), steps=1)}).save(tmp_path / "r")
    file = tmp_path / "r.worst.npz"
    file.unlink() if damage == "gone" else file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"r\.worst\.npz: .*; move r\.json away and run") as error:
        rescore(spiking(), images, tmp_path / "r")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_damaged_result_is_named(suffix, damage, tmp_path):
    path = tmp_path / "result"
    evaluate(Sign(), pair(), {"up": Shift(EPS)}).save(path)
    file = path.with_name(path.name + suffix)
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:60])
    problem = "no such file" if damage == "gone" else "damaged, not what an attack wrote"
    if (damage, suffix) == ("cut", ".npz"):
        problem = "damaged, its SHA-256 is not the one in the .json file"
    with pytest.raises(ValueError, match=rf"result\{suffix}: {problem};.* run the attack") as error:
        Evaluation.load(path)
    assert "\n" not in str(error.value)
    assert ("move result.json away" in str(error.value)) == path.with_name("result.json").exists()


# --- table and progress


def test_the_table_is_aligned():
    attacks = {"down": Shift(-EPS), "a longer name": Shift(EPS)}
    lines = evaluate(Sign(), pair(), attacks).table().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        *("attack", "clean", "down", "a longer name", "worst case")
    ]
    assert len({line.index("%") for line in lines[1:]}) == 1
    assert len({line.index("[") for line in lines[1:]}) == 1
    assert lines[0].endswith("(n = 8)")
    assert "75.0 %" in lines[1]
    assert "25.0 %" in lines[-1]


def test_the_table_of_a_noisy_model_says_how_it_was_scored():
    x, y = torch.full((20, 1, 2, 2), 0.5), torch.zeros(20, dtype=torch.int64)
    text = evaluate(Noisy(sees_light=True), (x, y), {"down": Shift(-EPS)}, draws=3).table()
    assert "noisy model: scored on 3 draws" in text


def test_progress_counts_up_to_the_whole(images, tmp_path):
    seen = []
    attacks = {"a": FGSM(Linf(0.1)), "b": FGSM(Linf(0.1))}
    for _ in range(2):  # the second time every shard is loaded
        seen.clear()
        evaluate(
            spiking(),
            images,
            attacks,
            batch_size=5,
            out=tmp_path,
            progress=lambda *update: seen.append(update),
        )
        assert [done for done, _, _ in seen] == sorted(done for done, _, _ in seen)
        assert seen[-1][0] == seen[-1][1] and seen[-1][2] == "done"


def test_a_surrogate_sweep_of_a_network_without_spikes_is_rejected():
    attacks = {"sweep": FGSM(Linf(EPS), gradient=SwapSurrogate(Triangular(1.0)))}
    with pytest.raises(ValueError, match="no spiking layer"):
        evaluate(Sign(), pair(), attacks)


def test_flat_vectors_give_the_same_outcomes_as_images():
    """The same numbers, given flat to one MLP and as images to its twin, end the same."""
    x, y = torch.rand(6, 1, 4, 4, generator=stream(0, "flat")), torch.arange(6) % 3
    flat = MLP(16, 3, T=2, hidden=(8,), neuron=LIF(0.5, v_th=0.3))
    image = MLP(num_classes=3, T=2, hidden=(8,), neuron=LIF(0.5, v_th=0.3), in_shape=(1, 4, 4))
    image.load_state_dict(flat.state_dict() | {k: image.state_dict()[k] for k in ("mean", "std")})
    attacks = {"pgd": PGD(Linf(0.1), steps=3)}
    one = evaluate(flat, (x.flatten(1), y), attacks, seed=2)
    two = evaluate(image, (x, y), attacks, seed=2)
    assert torch.equal(one.outcomes["pgd"], two.outcomes["pgd"])
