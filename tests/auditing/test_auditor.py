"""The whole audit: its verdict, closed forms on linear models, and the state it must not change."""

import json
import math
import re

import pytest
import torch
from torch import nn

from spikeguard.attacks import L1, L2, Linf
from spikeguard.auditing import REQUIRED, Check, Context, Finding, auditor, conclude
from spikeguard.auditing.auditor import audit
from spikeguard.auditing.check import does_not_apply
from spikeguard.auditing.findings import OF_PRINTED
from spikeguard.auditing.measurements.input_gradients import dead_surrogates
from spikeguard.auditing.numbers import PrintedNumber
from spikeguard.auditing.registry import CHECKS
from spikeguard.evaluation.statistics import Score
from spikeguard.models import MLP
from spikeguard.neurons import LIF, Triangular
from spikeguard.rng import stream
from spikeguard.storage.digests import CHECKSUM, is_sealed
from tests.toys.closed_forms import EPS, IMAGES, LABELS, LIGHT, Coin, Linear


def finding(code, status, **fields):
    return Finding(code, f"title of {code}", status, f"measured by {code}", **fields)


# --- the verdict


def findings(**statuses):
    """Every required check passes, except the given ones."""
    return [finding(c, s) for c, s in {**dict.fromkeys(REQUIRED, "pass"), **statuses}.items()]


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        ({}, "no fault found"),
        ({"S11": "does not apply"}, "no fault found"),
        ({"G20": "not run", "G13": "fail"}, "no fault found"),
        ({"G20": "open"}, "no fault found"),
        ({"S15": "open"}, "open"),
        ({"S15": "open", "S4": "fail"}, "faulty"),
        ({"G2": "not run"}, "open"),
        ({"G2": "not run", "G13": "fail"}, "open"),
        ({"G2": "not run", "S15": "fail"}, "faulty"),
        ({"S4": "fail"}, "faulty"),
    ],
)
def test_verdict_rule(statuses, status):
    verdict = conclude(findings(**statuses))
    assert verdict.status == status
    assert verdict.reliable == (status == "no fault found")
    assert verdict.sentence.startswith(f"Bound: {status}")


@pytest.mark.parametrize("code", REQUIRED)
def test_each_required_check_can_decide_alone(code):
    assert conclude(findings(**{code: "fail"})).status == "faulty"
    assert conclude(findings(**{code: "not run"})).status == "open"


def test_a_required_check_that_is_missing_did_not_run():
    verdict = conclude([f for f in findings() if f.code != "G9"])
    assert verdict.sentence == "Bound: open: G9 (left out)."


def test_a_failure_that_does_not_decide_is_a_warning():
    odd = finding("G13", "fail", meaning="the losses disagree")
    verdict = conclude([*findings(), odd])
    assert (verdict.failed, verdict.warnings) == (("G13",), ("G13",))
    assert "warning: the losses disagree (G13)" in verdict.sentence


def test_the_sentence_names_all_failures_and_explains_the_one_behind_them():
    weak = finding("G1", "fail", meaning="the attack is weak")
    broken = finding("G27", "fail", meaning="the weights are broken")
    verdict = conclude([weak, finding("S4", "pass"), broken])
    assert verdict.failed == ("G1", "G27")
    assert verdict.sentence == "Bound: faulty: the weights are broken (G1, G27)."
    with_number = conclude(verdict.findings, bound=Score.from_share(0.3, 10))
    assert with_number.sentence == verdict.sentence and with_number.upper_bound is None


def test_checks_of_the_attack_passed_in_explain_the_printed_number_and_not_the_bound():
    short = finding("G10", "fail", meaning="the attack stops early")
    others = [f for f in findings() if f.code != "G10"]
    printed = PrintedNumber("PGD-10, own surrogate", "refuted", 0.85, 0.8, 0.9, 200, 0.4, 0.3, 0.5)
    verdict = conclude([*others, short], printed=printed, passed_in=True)
    assert verdict.status == "no fault found" and verdict.refuted and not verdict.reliable
    assert verdict.printed.statement == (
        "PGD-10, own surrogate: 85 % [80.0, 90.0] is 40 points [30.0, 50.0] too high (n = 200); "
        "the attack stops early (G10)."
    )
    assert verdict.bound.checks == len(REQUIRED) - len(OF_PRINTED)
    own = conclude([*others, short], printed=printed)
    assert own.status == "faulty" and "stops early" not in own.printed.statement


def test_no_number_of_a_broken_model_is_judged():
    broken = finding("G27", "fail", meaning="the weights are broken")
    printed = PrintedNumber("PGD-40", "refuted", 0.85, 0.8, 0.9, 200, 0.4, 0.3, 0.5)
    verdict = conclude([broken], bound=Score.from_share(0.4, 200), printed=printed)
    assert (verdict.printed.status, verdict.upper_bound) == ("not judged", None)
    assert "the weights are broken (G27)" in verdict.printed.statement


def test_the_table_is_aligned_and_gives_remedies_for_failures_only():
    failed = finding("G15", "fail", threshold="0", remedy="repair it")
    table = conclude([finding("S1", "pass"), failed, finding("G5", "not run")]).table()
    rows = [line for line in table.splitlines() if "title of" in line or "measured" in line]
    assert len({re.search("measured", row).start() for row in rows}) == 1
    assert table.count("remedy: repair it") == table.count("remedy") == 1
    assert all(line == line.rstrip() for line in table.splitlines())


def test_the_verdict_is_strict_json(tmp_path):
    odd = finding("G15", "fail", meaning="m", evidence={"x": math.nan, "pairs": ((0.1, math.inf),)})
    verdict = conclude([odd], bound=Score.from_share(0.5, 4), settings={"samples": 3})
    verdict.save(tmp_path / "audit.json")
    card = json.loads((tmp_path / "audit.json").read_text(), parse_constant=pytest.fail)
    assert is_sealed(card) and card.pop(CHECKSUM)
    assert card == verdict.to_json()
    assert card["status"] == "faulty"
    assert card["findings"][0]["evidence"] == {"x": None, "pairs": [[0.1, None]]}
    assert set(card) == {
        "status",
        "reliable",
        "sentence",
        "printed",
        "bound",
        "upper_bound",
        "settings",
        "findings",
    }


# --- closed forms


@pytest.fixture(scope="module")
def linear():
    return audit(Linear(), (IMAGES, LABELS), threat=Linf(EPS), budget="quick", attack_steps=10)


def by_code(verdict):
    return {found.code: found for found in verdict.findings}


@pytest.mark.slow
def test_a_linear_model_passes_all_that_can_be_asked_of_it(linear):
    statuses = {code: found.status for code, found in by_code(linear).items()}
    assert not linear.failed, linear.table()
    assert statuses["S4"] == "not run"
    assert all(statuses[code] in ("pass", "does not apply") for code in set(REQUIRED) - {"S4"})
    assert linear.status == "open"
    assert "S4" in linear.sentence


def test_attacks_on_a_linear_model_reach_the_known_accuracy(linear):
    found = by_code(linear)
    curve = dict(found["G7"].evidence["curve"])
    for eps in (EPS / 2, EPS, 2 * EPS):
        assert curve[eps] == pytest.approx(float((eps < LIGHT).double().mean()))
    assert found["G5"].evidence["accuracy"] == found["G6"].evidence["accuracy"] == 0
    expected = float((EPS < LIGHT).double().mean())
    single_step = by_code(linear)["G1"].evidence
    assert single_step["fgsm"] == single_step["pgd"] == pytest.approx(expected)
    assert single_step["fgsm_only"] == single_step["pgd_only"] == 0
    assert linear.upper_bound == pytest.approx(expected)


@pytest.mark.slow
def test_an_l2_ball_grows_until_it_holds_every_image():
    verdict = audit(Linear(), (IMAGES, LABELS), threat=L2(EPS), budget="quick", attack_steps=10)
    far = {code: by_code(verdict)[code] for code in ("G6", "G5")}
    assert [found.status for found in far.values()] == ["pass", "pass"]
    assert [found.evidence["eps"] for found in far.values()] == [2.0, 4.0]  # sqrt(16)


@pytest.mark.parametrize(("code", "radius"), [("G5", 16), ("G6", 8)])
def test_an_l1_ball_that_holds_every_image_is_crossed(code, radius):
    """Ten steps of PGD leave 42 of the 45 images correct there."""
    subject = Context(Linear(), IMAGES, LABELS, L1(EPS), steps=10)
    found = CHECKS[code](subject)
    assert (found.status, found.evidence["eps"]) == ("pass", radius)
    assert found.evidence["accuracy"] == 0


def test_dead_surrogates_are_counted_per_neuron_and_step():
    """One step at v = x: the triangle of half-width 1/4 around 1 is not zero at 0.8 and 1."""

    class OneStep(nn.Module):
        def __init__(self):
            super().__init__()
            self.neuron = LIF(0.5, surrogate=Triangular(0.25))

        def forward(self, x):
            return self.neuron(x.flatten(1)[None])[0]

    x = torch.tensor([0.0, 0.5, 0.8, 1.0]).view(1, 1, 2, 2).repeat(3, 1, 1, 1)
    subject = Context(OneStep(), x, torch.zeros(3, dtype=torch.int64), Linf(EPS), batch_size=2)
    assert dead_surrogates(subject) == {"neuron": 0.5}


@pytest.mark.parametrize(("width", "others"), [(1.0, 5), (0.7, 9), (0.1, 9)])
def test_every_surrogate_is_tried_once_and_in_widths_of_its_own(width, others):
    model = MLP(num_classes=2, T=2, hidden=(4,), in_shape=(1, 4, 4), neuron=spiking(width))
    subject = Context(model.eval(), IMAGES[:4], LABELS[:4], Linf(EPS), steps=1)
    assert len(CHECKS["S4"](subject).evidence["accuracy"]) == others


def spiking(width):
    return LIF(0.5, surrogate=Triangular(width))


@pytest.mark.slow
def test_noise_is_not_mistaken_for_success():
    """The lowest of a dozen noisy scores is far below 3/4; on fresh draws it is 3/4 again."""
    verdict = quick(Coin(), threat=Linf(0.02), limit=45)
    assert verdict.settings["stochastic"] is True
    assert verdict.upper_bound == pytest.approx(0.75, abs=0.06)  # 450 draws: 3 deviations
    assert by_code(verdict)["G15"].status == "fail"


# --- the audit as a function


def network():
    return MLP(num_classes=2, T=2, hidden=(8,), in_shape=(1, 4, 4), generator=stream(0, "init"))


def quick(model, **options):
    options = {"threat": Linf(EPS), "budget": "quick", "attack_steps": 2, "limit": 12, **options}
    return audit(model, (IMAGES, LABELS), **options)


def test_invalid_weights_fail_and_nothing_that_depends_on_them_passes():
    model = Linear()
    with torch.no_grad():
        model.w[0] = torch.nan
    verdict = quick(model)
    assert {"G27", "G15"} <= set(verdict.failed)
    passed = {found.code for found in verdict.findings if found.status == "pass"}
    assert passed <= {"G32", "S21"}  # these test the origin of settings, not the model
    assert "w is not finite" in verdict.sentence
    assert verdict.upper_bound is None


@pytest.mark.slow
def test_the_verdict_does_not_depend_on_the_batch_size():
    def said(batch_size):
        card = quick(network(), batch_size=batch_size, limit=6).to_json()
        return [{k: v for k, v in f.items() if k != "seconds"} for f in card.pop("findings")], card

    assert said(6) == said(4)


@pytest.mark.slow
def test_the_audit_leaves_the_model_and_the_global_generator_alone():
    model = network().train()
    model.classifier[2].eval()  # frozen on purpose
    flags = {name: module.training for name, module in model.named_modules()}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    quick(model)
    assert flags == {name: module.training for name, module in model.named_modules()}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(generator, torch.get_rng_state())


def test_looking_for_the_source_of_a_change_leaves_the_global_generator_alone():
    class Drifting(Linear):
        calls = 0

        def forward(self, x):
            self.calls += 1
            return super().forward(x) + 0.1 * self.calls * torch.tensor([0.0, 1.0])

    generator = torch.get_rng_state()
    assert {"S1", "G19"} <= set(quick(Drifting(), check=False).failed)
    assert torch.equal(generator, torch.get_rng_state())


@pytest.fixture
def few(monkeypatch):
    """Four cheap checks."""
    cheap = {code: CHECKS[code] for code in ("S1", "G15", "G4", "G29")}
    monkeypatch.setattr(auditor, "CHECKS", cheap)


@pytest.mark.usefixtures("few")
def test_progress_counts_the_checks():
    told = []
    quick(network(), progress=lambda done, total, what: told.append((done, total, what)))
    assert [done for done, _, _ in told] == list(range(6))
    assert {total for _, total, _ in told} == {5}
    assert [what for _, _, what in told[-2:]] == ["the bound", "done"]


@pytest.mark.usefixtures("few")
def test_a_check_that_is_stopped_is_not_run_and_says_why(monkeypatch):
    def stopped(context):
        """Something holds."""
        raise RuntimeError("no room\nfor more")

    monkeypatch.setitem(auditor.CHECKS, "G4", Check(stopped, cost=0))
    found = by_code(quick(network()))["G4"]
    assert (found.status, found.title) == ("not run", "Something holds")
    assert found.measured == "RuntimeError: no room"


@pytest.mark.usefixtures("few")
def test_a_check_that_looks_once_shares_its_error_rate_with_no_other_look(monkeypatch):
    def noted(context):
        """Something holds."""
        seen.append((len(context), context.looks))
        return does_not_apply("nothing to measure")

    seen = []
    monkeypatch.setitem(auditor.CHECKS, "G15", Check(noted, cost=0, wide=True))
    monkeypatch.setitem(auditor.CHECKS, "G4", Check(noted, cost=0))
    quick(network(), limit=10)
    assert seen == [(45, 1), (10, 3)]


@pytest.mark.usefixtures("few")
def test_running_out_of_memory_is_no_finding(monkeypatch):
    def stopped(context):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setitem(auditor.CHECKS, "G4", Check(stopped, cost=0))
    with pytest.raises(torch.OutOfMemoryError):
        quick(network())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"batch_size": 0}, "batch_size"),
        ({"attack_steps": 0}, "attack_steps"),
        ({"threat": Linf(0.0)}, "eps"),
    ],
)
def test_wrong_arguments_are_rejected_in_one_line(options, field):
    with pytest.raises(ValueError, match=f"audit: .*{field}") as caught:
        quick(network(), **options)
    assert "\n" not in str(caught.value)


def test_images_that_do_not_fit_the_model_are_the_callers_mistake():
    with pytest.raises(ValueError, match="expects inputs"):
        audit(network(), (torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1])), threat=Linf(EPS))


@pytest.mark.slow
def test_a_plain_network_in_float64_is_audited_as_it_is_evaluated():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)).double().eval()
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(2, 16, generator=stream(0, "w")))
        model[1].bias.zero_()
    found = by_code(quick(model))
    assert {found[code].status for code in ("S1", "S2")} == {"pass"}


class OwnStatistics(nn.Module):
    """Batch statistics in evaluation mode, which one sample does not have."""

    def __init__(self, fewest=2):
        super().__init__()
        self.fewest = fewest
        self.out = nn.Linear(16, 2)
        with torch.no_grad():
            self.out.weight.copy_(torch.randn(2, 16, generator=stream(0, "w")))
            self.out.bias.zero_()

    def forward(self, x):
        if len(x) < self.fewest:
            raise ValueError(f"needs {self.fewest} samples")
        return self.out(nn.functional.batch_norm(x.flatten(1), None, None, training=True))


@pytest.mark.slow
def test_an_error_of_the_model_s_own_is_a_finding():
    found = by_code(quick(OwnStatistics().eval(), check=False))
    assert found["S1"].status == "fail" and "raises when the batch" in found["S1"].measured


@pytest.mark.slow
def test_a_search_that_the_model_stops_leaves_the_findings():
    """The search drops fooled samples, so this model meets a batch that it rejects."""
    with pytest.warns(UserWarning, match="without a converging search: .*needs 12 samples"):
        verdict = quick(OwnStatistics(fewest=12).eval(), check=False)
    assert by_code(verdict)["S1"].status == "fail"
