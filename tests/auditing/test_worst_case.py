"""The printed number and the bound: closed forms on a linear model, and stored evaluations."""

from dataclasses import replace

import pytest
import torch

from spikeguard.attacks import FGSM, PGD, AttackError, Converging, Linf, UniformNoise
from spikeguard.attacks.suites import attack_by_name
from spikeguard.auditing import Claim, Context, worst_case
from spikeguard.auditing.numbers import judge
from spikeguard.auditing.worst_case import (
    attack_label,
    lowest_bound,
    measure,
    require_same_images,
)
from spikeguard.data.images import as_image_set
from spikeguard.evaluation.estimates import Estimate
from spikeguard.evaluation.evaluator import evaluate
from spikeguard.evaluation.statistics import Score
from spikeguard.preflight.quick import PreflightWarning
from spikeguard.rng import stream
from tests.toys import closed_forms as toys
from tests.toys.closed_forms import EPS, Coin, Linear
from tests.toys.small_evaluations import Shift

THREAT = Linf(EPS)
IMAGES, LABELS, LIGHT = (part.flip(0) for part in (toys.IMAGES, toys.LABELS, toys.LIGHT))
DATA = as_image_set((IMAGES, LABELS))
PRINTED = attack_by_name("pgd40", eps=EPS)
TRUE = float((LIGHT > EPS).double().mean())  # of all 45 images


def audited(n=45, model=None, **options):
    context = Context(model or Linear(), IMAGES[:n], LABELS[:n], THREAT, **options)
    context.attacked(FGSM(THREAT))
    return context


def stored(*attacks, n=45, model=None, **options):
    named = {f"attack{k}": attack for k, attack in enumerate(attacks)}
    return evaluate(model or Linear(), (IMAGES[:n], LABELS[:n]), named, **options)


def test_a_printed_number_that_is_right_is_within():
    found = measure(audited(), DATA, PRINTED, max_gap=0.02)
    assert found.printed.status == "within"
    assert (found.printed.value, found.printed.gap) == (pytest.approx(TRUE), 0)
    assert found.bound == Score.of((LIGHT > EPS).double())


def test_a_weak_printed_attack_is_refuted_with_the_share_it_misses():
    """Noise fools no image of the linear model that is far from its boundary."""
    weak = UniformNoise(THREAT, draws=1)
    context = audited()
    found = measure(context, DATA, weak, max_gap=0.02)
    missed = context.attacked(weak).right - (LIGHT > EPS).double()
    assert (missed >= 0).all()
    assert found.printed.status == "refuted"
    assert found.printed.gap == pytest.approx(float(missed.mean()))
    accepted = measure(audited(), DATA, weak, max_gap=found.printed.gap_low + 1e-6)
    assert accepted.printed.status == "within"


@pytest.mark.parametrize("looks_at", [30, 45])
def test_an_attack_that_a_check_made_on_other_numbers_of_images_counts(looks_at, monkeypatch):
    """FGSM is exact on the linear model; of 40 images 25 are far, and noise fools none of those."""
    monkeypatch.setattr(worst_case, "_search", lambda context, stored, out: None)
    whole, noise = Context(Linear(), IMAGES, LABELS, THREAT), UniformNoise(THREAT, draws=1)
    whole.first(looks_at).attacked(FGSM(THREAT))
    context = whole.first(40)
    right = context.attacked(noise).right.clone()
    before = float(right.mean())
    right[:looks_at] = (LIGHT > EPS).double()[: min(looks_at, 40)]
    found = measure(context, DATA, noise, max_gap=0.02)
    assert (found.bound.n, found.bound.accuracy) == (40, pytest.approx(float(right.mean())))
    assert found.bound.accuracy < before


def test_a_short_search_makes_the_bound_true_where_the_attacks_of_the_audit_are_weak():
    weak = UniformNoise(THREAT, draws=1)
    found = measure(Context(Linear(), IMAGES, LABELS, THREAT), DATA, weak, max_gap=0.02)
    assert found.bound == Score.of((LIGHT > EPS).double())
    assert found.printed.status == "refuted"
    assert found.sources[-1] == "a converging search of 600 gradients a sample"


def test_a_stored_search_is_not_repeated(monkeypatch):
    monkeypatch.setattr(worst_case, "evaluate", None)
    search = {"snn": Converging(THREAT, 600)}
    made = evaluate(Linear(), (IMAGES, LABELS), search, cascade=True)
    found = measure(audited(), DATA, PRINTED, stored={"long": made}, max_gap=0.02)
    assert found.sources == ("2 attacks of this audit", "the stored result long")


@pytest.mark.parametrize(("budget", "n"), [(20, 45), (600, 10)])
def test_a_stored_search_that_is_shorter_or_of_fewer_images_does_not_replace_it(budget, n):
    search = {"snn": Converging(THREAT, budget)}
    made = evaluate(Linear(), (IMAGES[:n], LABELS[:n]), search, cascade=True)
    found = measure(audited(), DATA, PRINTED, stored={"short": made}, max_gap=0.02)
    assert "a converging search of 600 gradients a sample" in found.sources


class Plain:
    """An attack that is no dataclass, as a plugin may have it: no change at all."""

    threat = THREAT

    def __call__(self, model, x, y, *, generator=None):
        return x.clone()


def test_a_stored_attack_without_fields_is_no_search():
    made = stored(Plain())
    assert made.settings == {"attack0": "Plain"}
    found = measure(audited(), DATA, PRINTED, stored={"plain": made}, max_gap=0.02)
    assert found.bound == Score.of((LIGHT > EPS).double())


def test_under_noise_the_search_does_not_raise_the_bound_above_the_printed_number():
    context = Context(Coin(), IMAGES, LABELS, THREAT)
    found = measure(context, DATA, PRINTED, max_gap=0.02)
    assert found.bound.accuracy <= found.printed.value
    assert "a converging search of 600 gradients a sample" in found.sources


def test_a_search_that_cannot_run_leaves_the_other_attacks(monkeypatch):
    def fails(*arguments, **options):
        raise AttackError("no gradient")

    monkeypatch.setattr(worst_case, "evaluate", fails)
    with pytest.warns(PreflightWarning, match="without a converging search: .*no gradient"):
        found = measure(audited(), DATA, PRINTED, max_gap=0.02)
    assert found.sources == ("2 attacks of this audit",)
    assert found.bound == Score.of((LIGHT > EPS).double())


def test_a_stored_evaluation_lowers_the_bound_image_by_image():
    planted = stored(FGSM(THREAT))
    first = planted.outcomes["worst_case"].clone()
    first[LIGHT > EPS] = torch.tensor([0.0, 1.0]).repeat(45)[: int((LIGHT > EPS).sum())].double()
    planted = replace(planted, outcomes={**planted.outcomes, "worst_case": first})
    found = measure(audited(), DATA, PRINTED, stored={"snn-linf": planted}, max_gap=0.02)
    assert found.bound.accuracy == pytest.approx(float(first.mean())) and found.bound.n == 45
    assert found.printed.gap == pytest.approx(TRUE - float(first.mean()))
    assert found.sources[-1] == "the stored result snn-linf"


def test_a_stored_printed_attack_is_not_run_again_and_its_images_count():
    """The audit has 20 images, the stored result 45; the larger set gives the lower upper end."""
    context = audited(20)
    found = measure(context, DATA, PRINTED, stored={"papers": stored(PRINTED)}, max_gap=0.02)
    assert found.printed.n == found.bound.n == 45
    assert PRINTED not in context.made
    other = replace(PRINTED, steps=39)
    assert measure(context, DATA, other, stored={"p": stored(PRINTED)}, max_gap=0.02).bound.n == 20


def test_a_cascade_never_stands_for_the_printed_attack():
    context = audited()
    found = {"papers": stored(FGSM(THREAT), PRINTED, cascade=True)}
    measure(context, DATA, PRINTED, stored=found, max_gap=0.02)
    assert PRINTED in context.made


@pytest.mark.parametrize("seed", [3, 5, 8, 15, 17, 21])
def test_the_lowest_of_many_noisy_scores_is_scored_again(seed):
    """The model is right with probability 3/4 whatever the input: no attack lowers that.

    With these seeds the bound, the lowest of many scores, is by chance more than ``max_gap`` below
    the printed number.
    """
    tiny = Linf(0.02)
    context = Context(Coin(), IMAGES, LABELS, tiny, seed=seed)
    attacks = [Shift(k / 400, tiny) for k in range(1, 9)]  # other draws for each input
    rights = [context.attacked(attack).right for attack in attacks]
    noisy = evaluate(Coin(), (IMAGES, LABELS), {"noise": UniformNoise(tiny)}, seed=5 + seed)
    found = measure(context, DATA, attacks[0], stored={"noise": noisy}, max_gap=0.02)
    assert torch.stack(rights).amin(0).mean() < 0.6 < 0.67 < found.bound.accuracy < 0.81
    assert found.printed.gap > 0.02 and found.printed.status == "within"


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_of_a_noisy_model_is_not_above_a_part(seed):
    """Parts: each attack, the worst cases of checks, and the printed number on the same images."""
    tiny = Linf(0.02)
    context = Context(Coin(), IMAGES, LABELS, tiny, seed=seed)
    outcomes = [context.attacked(Shift(k / 400, tiny)) for k in range(1, 9)]
    worsts = [context.worst(outcomes[:k]).mean() for k in range(2, 9)]
    printed = Shift(1 / 100, tiny)
    noisy = evaluate(Coin(), (IMAGES, LABELS), {"up": printed, "down": Shift(-0.01, tiny)})
    found = measure(context, DATA, printed, stored={"papers": noisy}, max_gap=0.02)
    parts = [*(outcome.accuracy for outcome in outcomes), *map(float, worsts)]
    parts += [float(noisy.outcomes["worst_case"].mean()), found.printed.value]
    assert found.printed.n == found.bound.n == 45
    assert found.bound.accuracy <= min(parts)
    assert context.upper_bound() <= min(*worsts, *parts[:8])


def test_the_worst_case_of_a_later_look_counts_on_the_images_of_the_bound():
    whole = Context(Coin(), IMAGES, LABELS, Linf(0.02))
    context = whole.first(20)
    context.attacked(Shift(0.01, Linf(0.02)))
    whole.worsts.append((torch.arange(45) >= 18).double())  # right from the 19th on
    printed = Shift(0.02, Linf(0.02))
    alone = measure(context, DATA, printed, max_gap=0.02)
    found = measure(context, DATA, printed, later=[whole], max_gap=0.02)
    assert (found.bound.n, found.bound.accuracy) == (20, 0.1) and alone.bound.accuracy > 0.3


def test_a_printed_attack_that_cannot_run_is_not_judged():
    class Broken(UniformNoise):
        def __call__(self, model, x, y, *, generator=None):
            raise RuntimeError("no gradient\nat all")

    found = measure(audited(), DATA, Broken(THREAT), max_gap=0.02)
    assert (found.printed.status, found.printed.gap) == ("not judged", None)
    assert found.printed.why == "RuntimeError: no gradient"
    assert found.bound.accuracy == pytest.approx(TRUE)


@pytest.mark.parametrize(
    ("accuracy", "status", "words"),
    [
        (0.99, "refuted", "too high (n = 1000)"),
        (TRUE + 0.1, "within", "is within what 1000 images can tell"),
        (0.01, "within", "below the bound (n = 1000)"),
    ],
)
def test_a_claim_is_judged_by_newcombes_interval(accuracy, status, words):
    claim = Claim(accuracy, 1000, "PGD-20, n 1000")
    found = measure(audited(), DATA, PRINTED, claim=claim, max_gap=0.02)
    expected = Estimate.unpaired(Score.from_share(accuracy, 1000), found.bound)
    assert (found.printed.gap_low, found.printed.gap_high) == (expected.low, expected.high)
    assert (found.printed.status, found.printed.paired) == (status, False)
    assert words in found.printed.statement


@pytest.mark.parametrize(
    ("protocol", "n"),
    [
        ("PGD-20 8/255, n 1000", 1000),
        ("n=500", 500),
        ("APGD on 10,000 test images", 10_000),
        ("PGD-7, 256 images", 256),
        ("PGD-20 8/255 on 1000 CIFAR-10 images", 1000),
        ("PGD-20, 10,000 CIFAR-10 test images", 10_000),
        ("the first 500 CIFAR 100 images", 500),
        ("First 500 images", 500),
        ("1,000 Tiny ImageNet validation images, T = 4", 1000),
        ("200 randomly chosen cifar10 images", 200),
        ("500 N-MNIST images of 10,000", 500),
        ("PGD with 40 steps on 250 CIFAR-10 test images", 250),
    ],
)
def test_the_protocol_names_the_number_of_images(protocol, n):
    assert Claim.from_text(62.3, protocol) == Claim(0.623, n, protocol)
    assert Claim.from_text(62.3, protocol, 7).n == 7


def test_the_gap_must_be_above_the_limit_as_a_whole():
    score, bound = Score.from_share(0.885, 200), Score.from_share(0.445, 200)
    gap = Estimate(0.44, 0.373, 0.509)
    words = "PGD-40, own surrogate: 88.5 % [83.3, 92.2] is 44 points [37.3, 50.9] too high"
    for limit, status in ((0.02, "refuted"), (0.373, "within"), (0.5, "within")):
        found = judge("PGD-40, own surrogate", score, bound, gap, paired=True, max_gap=limit)
        assert found.status == status
        assert (words in found.statement) == (status == "refuted")


def test_results_of_other_images_are_rejected():
    other = replace(stored(FGSM(THREAT)), labels=1 - LABELS)
    with pytest.raises(ValueError, match="snn-linf is of other images"):
        require_same_images({"snn-linf": other}, DATA)
    require_same_images({"snn-linf": stored(FGSM(THREAT), n=12)}, DATA)


def test_attacks_are_named_by_steps_and_gradient():
    assert attack_label(PRINTED) == "PGD-40, own surrogate"
    assert attack_label(attack_by_name("sapgd/assg", eps=EPS)).endswith(", ASSG")
    assert attack_label(UniformNoise(THREAT)) == "UniformNoise"
    assert attack_label(PGD(THREAT, steps=3)) == "PGD-3, own surrogate"


@pytest.mark.parametrize(
    "protocol",
    [
        *("PGD-20, n 10k", "n=1e4", "n = 10 000", "n 1.5"),
        *("all CIFAR-100 test images, PGD-40", "ImageNet-100 images", "all CIFAR 10 images"),
        *("CIFAR10 test images", "N-MNIST images", "40 steps on CIFAR-10 images"),
        *("8/255 CIFAR-10 images", "eps=0.031 CIFAR-10 images", "T = 4 CIFAR-10 images"),
    ],
)
def test_a_number_of_images_that_is_not_plain_is_asked_for(protocol):
    with pytest.raises(ValueError, match="--printed-n"):
        Claim.from_text(62.3, protocol)


def test_a_step_size_is_no_other_radius():
    claim = Claim.from_text(62.3, "PGD-10 step 2/255, eps 8/255, n 1000")
    claim.require_radius(8 / 255)
    with pytest.raises(ValueError, match="audit with --eps 8/255"):
        claim.require_radius(4 / 255)


def test_the_bound_covers_the_truth_although_its_size_is_chosen_by_outcome():
    """Of 4,000 audits at a true accuracy of 0.3, at most 2.5 % may have an upper end below it."""
    generator, missed, naive = stream(0, "audits"), 0, 0
    for _ in range(4000):
        right = (torch.rand(1000, generator=generator) < 0.3).double()
        candidates = [right[:n] for n in (100, 200, 400, 1000)]
        missed += lowest_bound(candidates)[1].high < 0.3
        naive += min(Score.of(each).high for each in candidates) < 0.3
    assert missed / 4000 < 0.025 < naive / 4000


def test_one_number_of_images_has_the_interval_of_a_share():
    right = torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert lowest_bound([right])[1] == Score.of(right)
