"""The audit in the report: decisive findings come first, and curves show the planted numbers."""

import html
import json
import re

import pytest

from spikeguard.auditing.findings import REQUIRED, Finding, conclude
from spikeguard.auditing.registry import CHECKS as KNOWN
from spikeguard.auditing.registry import QUESTIONS
from spikeguard.evaluation.statistics import wilson
from spikeguard.reporting.charts import KINDS, audited, looks
from spikeguard.reporting.readers.collect import collect
from spikeguard.reporting.renderer import report
from spikeguard.reporting.sections.audit_findings import (
    abouts,
    by_question,
    finding_badge,
    groups,
    tally,
)
from tests.toys.report_runs import CHECKS, LAYERS, curves, plant_audit, plant_run

SCRIPT = re.compile(r"<script>.*?</script>|<style>.*?</style>", re.DOTALL)
N = 100


def bare(path):
    """Return a page without scripts and styles."""
    return html.unescape(SCRIPT.sub(" ", path.read_text(encoding="utf-8")))


def text_of(path):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", bare(path)))


def drawn(path):
    """Return the figures of one audited run, by kind."""
    networks = collect([path])
    (label,) = look = looks(networks)
    return {kind: charts[label].figure for kind, charts in audited(networks, look).items()}


def trace(figure, name):
    (found,) = [trace for trace in figure.data if trace.name == name]
    return found


@pytest.fixture
def run(tmp_path):
    path = plant_run(tmp_path / "run", "Run", epochs=2)
    plant_audit(path)
    return path


def mixed():
    """Return one finding of each kind; S6 decides and was not run, S9 does not decide."""
    statuses = {"G15": "fail", "S9": "fail", "S6": "not run", "S14": "not run", "S13": "pass"}
    statuses |= {"S12": "does not apply"}
    words = {"measured": "so much", "meaning": "it matters", "remedy": "act"}
    return conclude(
        [Finding(code, f"Title {code}", status, **words) for code, status in statuses.items()]
    )


def test_findings_are_grouped_by_their_effect_on_the_verdict():
    found = [
        (group.title, group.shown, [f.code for f in group.findings]) for group in groups(mixed())
    ]
    assert found == [
        ("Failed (1)", True, ["G15"]),
        ("Warnings (1)", True, ["S9"]),
        ("Not run, though needed to judge the bound (1)", True, ["S6"]),
        ("Not run (1)", False, ["S14"]),
        ("Passed (1)", False, ["S13"]),
        ("Does not apply (1)", False, ["S12"]),
    ]
    assert tally(mixed()) == "1 failed · 1 warning · 1 passed · 2 not run · 1 not applicable"
    assert {f.code for group in groups(mixed()) for f in group.findings} == {
        f.code for f in mixed().findings
    }


def test_a_warning_not_run_and_does_not_apply_look_different():
    badges = {f.code: finding_badge(f) for f in mixed().findings}
    assert [badges[code].word for code in ("G15", "S9", "S6", "S12")] == [
        *("fail", "warning", "not run", "does not apply"),
    ]
    shown = {(badges[code].symbol, badges[code].tone) for code in ("G15", "S9", "S6", "S12")}
    assert len(shown) == 4


@pytest.mark.slow
def test_failures_come_before_passes_and_passes_are_folded(run):
    mixed().save(run / "audit.json")
    page = bare(report([run], run / "report.html"))
    audit = page[page.index('class="section" id="audit"') :]
    places = [audit.index(f"<summary>{group.title}") for group in groups(mixed())]
    assert places == sorted(places)
    assert audit.index(mixed().sentence) < places[0]
    opened = re.findall(r"<details( open)?><summary>([A-Z][^<]*\(\d+\))", audit)
    assert [(bool(is_open), title) for is_open, title in opened] == [
        (group.shown, group.title) for group in groups(mixed())
    ]


@pytest.mark.slow
def test_every_code_links_to_the_description_of_its_check(run):
    page = bare(report([run], run / "report.html"))
    codes = {*REQUIRED, *CHECKS, *curves()}
    for code in codes:
        assert f'href="#check-{code}"' in page
        assert page.count(f'id="check-{code}"') == 1
        assert KNOWN[code].__doc__.partition(". Cost")[0] in page
    assert "A gradient attack does not move a sample whose gradient is exactly zero" in text_of(
        run / "report.html"
    )


def test_all_checks_have_a_plain_text_and_a_source(run):
    every = [Finding(code, "t", "pass", "m") for code in KNOWN if code != "S19"]
    conclude(every).save(run / "audit.json")
    found = abouts(collect([run]))
    assert [about.code for about in found] == [code for code in KNOWN if code != "S19"]
    for about in found:
        assert about.title and about.text and about.source, about.code
        assert "``" not in about.text and ":math:" not in about.text, about.code


def test_checks_are_grouped_by_their_question():
    assert [code for codes in QUESTIONS.values() for code in codes] == list(KNOWN)
    findings = [Finding(code, "t", "pass", "m") for code in ("G4", "S2", "S1", "later", "G1")]
    found = {question: [f.code for f in each] for question, each in by_question(findings).items()}
    assert found == {
        "Is the network a fixed, differentiable function?": ["S2", "S1"],
        "Does the search have enough steps, restarts, losses and draws?": ["G4", "G1"],
        "Other checks": ["later"],
    }


@pytest.mark.parametrize("status", ["does not apply", "fail"])
def test_the_check_of_events_is_left_out_for_images(run, status):
    conclude([Finding(c, f"Title {c}", status, "m") for c in ("S1", "S19")]).save(
        run / "audit.json"
    )
    text = text_of(report([run], run / "report.html"))
    assert "Title S1 " in text
    assert ("Title S19" in text) is (status == "fail")
    assert ("Adversarial events are valid events" in text) is (status == "fail")


def test_a_check_that_is_not_known_has_no_link(run):
    hostile = 'X"><img src=x>'
    conclude([Finding(hostile, "t", "fail", "m", "h")]).save(run / "audit.json")
    source = SCRIPT.sub("", report([run], run / "report.html").read_text(encoding="utf-8"))
    assert "<img" not in source
    assert "#check-" not in source


def test_loss_curve_holds_the_planted_steps_and_marks_the_last(run):
    figure = drawn(run)["climb"]
    mean = trace(figure, "mean")
    assert list(mean.x) == list(range(50))
    assert list(mean.y) == pytest.approx(curves()["G10"]["curve"]["loss"])
    (shaded,) = figure.layout.shapes
    assert (shaded.x0, shaded.x1) == (39, 49)
    assert "12 that resist" in figure.layout.yaxis.title.text
    band = figure.data[0]
    assert list(band.y[:50]) == pytest.approx(curves()["G10"]["curve"]["high"])
    assert list(band.y[:49:-1]) == pytest.approx(curves()["G10"]["curve"]["low"])


def test_accuracy_by_steps_and_eps_with_wilson_intervals(run):
    figures = drawn(run)
    ended = trace(figures["steps"], "the reported attack")
    assert (list(ended.x), list(ended.y)) == ([50, 100], pytest.approx([63, 62]))
    low, high = wilson(63, N)
    assert ended.error_y.array[0] == pytest.approx(100 * high - 63)
    assert ended.error_y.arrayminus[0] == pytest.approx(63 - 100 * low)
    assert trace(figures["steps"], "one search").y[0] == pytest.approx(95)

    pgd, far = (trace(figures["eps"], name) for name in ("PGD", "short PGD"))
    assert (list(pgd.x), list(pgd.y)) == ([0.05, 0.1, 0.2], pytest.approx([90, 63, 20]))
    assert (list(far.x), list(far.y)) == ([0.5, 1.0], pytest.approx([5, 0]))
    worst = trace(figures["eps"], "worst of all attacks 50.0 %")
    assert (list(worst.x), list(worst.y)) == ([0.1], [50])
    assert figures["eps"].layout.xaxis.type == "log"
    assert list(trace(figures["eps"], "clean 97.0 %").y) == pytest.approx([97, 97])
    assert list(trace(figures["eps"], "chance 10.0 %").y) == pytest.approx([10, 10])


def test_surrogates_are_at_their_half_widths_and_the_own_is_a_star(run):
    figure = drawn(run)["surrogate"]
    assert figure.layout.xaxis.type == "log"
    assert list(trace(figure, "triangle").x) == [0.25, 0.5, 5.0]
    assert list(trace(figure, "triangle").y) == pytest.approx([73, 73, 60])
    assert list(trace(figure, "own, scaled").x) == [0.7, 3.5]
    own = trace(figure, "own surrogate")
    assert (list(own.x), list(own.y), own.marker.symbol) == ([0.7], [63], "star")
    assert list(trace(figure, "own after 5 tries 61.0 %").y) == pytest.approx([61, 61])
    assert list(trace(figure, "worst of all surrogates 60.0 %").y) == pytest.approx([60, 60])


def test_an_own_triangle_is_on_the_line_of_the_triangles(tmp_path):
    path = plant_run(tmp_path / "run", "Run", epochs=2)
    evidence = curves()
    evidence["S4"] |= {"carried": ["Triangular(width=0.7)"]}
    plant_audit(path, evidence=evidence)
    line = trace(drawn(path)["surrogate"], "triangle")
    assert (list(line.x), list(line.y)) == ([0.25, 0.5, 0.7, 5], pytest.approx([73, 73, 63, 60]))


def test_surrogates_without_one_width_leave_the_star_out(tmp_path):
    path = plant_run(tmp_path / "run", "Run", epochs=2)
    evidence = curves()
    evidence["S4"] |= {"own_half_width": None}
    evidence["S4"]["half_width"]["its own 5 times as wide"] = None
    plant_audit(path, evidence=evidence)
    names = [trace.name for trace in drawn(path)["surrogate"].data]
    assert names == ["own after 5 tries 61.0 %", "worst of all surrogates 60.0 %", "triangle"]


def test_layers_hold_both_shares_in_network_order(run):
    dead, zero = drawn(run)["layers"].data
    assert list(dead.customdata) == list(LAYERS)
    assert list(dead.y) == pytest.approx([50, 60, 90])
    assert list(zero.y) == pytest.approx([40, 30, 20])


def test_an_old_audit_without_evidence_shows_the_command_for_the_curves(tmp_path):
    path = plant_run(tmp_path / "run", "Run", epochs=2)
    plant_audit(path, evidence={})
    card = json.loads((path / "audit.json").read_text())
    for finding in card["findings"]:
        del finding["evidence"]
    (path / "audit.json").write_text(json.dumps(card))
    assert drawn(path) == {}
    text = text_of(report([path], path / "report.html"))
    assert "Curves behind the audit" not in text
    assert f"not stored by this audit; run it again: spikeguard audit {path}" in text
    assert all(kind.title in text for kind in KINDS)


def test_a_check_that_was_not_run_shows_why_there_is_no_curve(tmp_path):
    path = plant_run(tmp_path / "run", "Run", epochs=2)
    findings = [Finding("S4", "t", "not run", "no spiking layer")]
    conclude(findings, settings={"samples": 100}).save(path / "audit.json")
    assert "S4 not run: no spiking layer" in text_of(report([path], path / "report.html"))


@pytest.mark.slow
def test_several_runs_are_side_by_side_and_one_lacks_its_curves(run, tmp_path):
    other = plant_run(tmp_path / "other", "Other", epochs=2)
    plant_audit(other, evidence={"S7": curves()["S7"]})
    networks = collect([run, other])
    charts = audited(networks, looks(networks))
    assert {kind: list(found) for kind, found in charts.items()} == {
        **{kind.id: ["Run"] for kind in KINDS},
        "layers": ["Run", "Other"],
    }
    page = bare(report([run, other], run / "report.html"))
    assert "All checks side by side" in page
    assert page.count('id="audit-layers-') == 2
    assert "All checks side by side" not in bare(report([run], run / "report.html"))


@pytest.mark.parametrize(
    ("code", "key", "value", "message"),
    [
        ("G8", "once", 1.2, "wilson: needs 0 <= successes <= n"),
        ("G7", "curve", [[0.1]], "evidence: "),
        ("G7", "curve", [[-0.1, 0.5]], "radii and half-widths are > 0, got -0.1"),
        ("G10", "curve", {"loss": [1.0]}, "it holds no 'low'"),
        ("S4", "half_width", {}, "it holds no 'a triangle of half-width 0.25'"),
        ("S7", "dead_surrogate", {"a": 7}, "a share must be in [0, 1], got 7"),
        ("S8", "zero", [], "layers"),
    ],
)
def test_damaged_evidence_is_one_line_that_names_the_file(code, key, value, message, tmp_path):
    path = plant_run(tmp_path / "run", "Run", epochs=2)
    evidence = curves()
    evidence[code] |= {key: value}
    plant_audit(path, evidence=evidence)
    if message == "layers":  # empty is the same as not measured
        assert len(drawn(path)["layers"].data) == 1
        return
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        report([path], path / "report.html")
    assert str(path / "audit.json") in str(caught.value) and "\n" not in str(caught.value)


def test_evidence_that_is_not_an_object_is_named(run):
    card = json.loads((run / "audit.json").read_text())
    card["findings"][0]["evidence"] = [1, 2]
    (run / "audit.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="evidence is an object, got list"):
        collect([run])
