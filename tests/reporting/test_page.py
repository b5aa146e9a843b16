"""The report shows the planted numbers, escapes its input, and names unreadable files."""

import base64
import gzip
import json
import re
import shlex

import numpy as np
import pytest

from spikeguard.attacks.threat_names import parse_threat
from spikeguard.config.protocols import protocol_of
from spikeguard.config.published import rows
from spikeguard.evaluation.statistics import Score, wilson
from spikeguard.reporting import formatting
from spikeguard.reporting.charts import against_radius, curves, looks, membranes, per_attack
from spikeguard.reporting.page import gather
from spikeguard.reporting.readers.collect import collect
from spikeguard.reporting.renderer import report
from spikeguard.reporting.standings import radii
from spikeguard.storage import atomic_files as files
from spikeguard.storage.digests import UNVERIFIED
from tests.toys.report_pages import SCRIPT, text_of
from tests.toys.report_runs import (
    NAMES,
    NETWORKS,
    plant_attacks,
    plant_audit,
    plant_demo,
    plant_membrane,
    plant_run,
    truncate,
)

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>window.pwned = 1</script><img src=x onerror=pwned()> & \"'"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo")
    paths = plant_demo(root)
    page = report(paths, root / "report.html", title="Planted demo", command="spikeguard demo")
    return paths, page


def test_every_planted_accuracy_is_on_the_page_with_its_interval(demo):
    text = text_of(demo[1])
    for numbers in NETWORKS.values():
        shown = [numbers["clean"], *numbers[0.1], *numbers[0.2]]
        for accuracy in shown:
            low, high = wilson(accuracy / 100 * 500, 500)
            assert f"{accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" in text
        assert f"{100 * numbers['near']:.1f} % within 0.2 v th of the threshold" in text
        assert f"{100 * numbers['zero']:.1f} %" in text


def test_row_of_a_network_holds_its_numbers_in_the_order_of_the_heads(demo):
    source = SCRIPT.sub("", demo[1].read_text(encoding="utf-8"))
    table = re.search(
        r'<table class="scores">(?:(?!</table>).)*ε = 0\.2.*?</table>', source, re.DOTALL
    )
    heads = re.findall(r"<th scope=\"col\"[^>]*>([^<]*)</th>", table[0])
    assert heads == [
        *("Network", "Clean", "FGSM", "PGD-10", "PGD-40, own surrogate", "Worst case"),
        *("Zero input gradient", "Audit", "Images"),
    ]
    (row,) = (r for r in re.findall(r"<tr>.*?</tr>", table[0], re.DOTALL) if "</svg>TGO<" in r)
    cells = [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
    starts = ["98.6 %", "69.0 %", "38.6 %", "30.0 %", "1.0 %", "42.0 %", "✗ bound: faulty", "500"]
    assert [cell.startswith(start) for cell, start in zip(cells, starts, strict=True)] == [True] * 8


def test_verdict_names_the_widest_gap_and_the_audit(demo):
    text = text_of(demo[1])
    assert (
        "At ε = 0.2 (L∞, n = 500) PGD-40 with its own surrogate is 29.0 points too optimistic: "
        "at most 1.0 % survive in the worst case."
    ) in text
    assert "upper bounds" in text
    verdict = json.loads((demo[0][1] / "audit.json").read_text())
    printed, bound = (verdict[number]["statement"] for number in ("printed", "bound"))
    assert text.count(bound) == 2  # on the card and above the findings
    assert text.count(printed) == 2 * 3  # the same words for three networks
    assert "the number is an artefact of the attacker's gradient" in verdict["sentence"]
    for word in (
        "· bound: no fault found",
        "✗ bound: faulty",
        "✗ printed: 40.0 points too high",
        "✓ printed: within",
        "42 of 100 samples",
        "attack with a wider surrogate",
    ):
        assert word in text


def test_page_shows_the_settings_and_commands_of_training(demo):
    text = text_of(demo[1])
    for word in (
        *("58,906", "1,167", "1 min 23 s", "TGO(lambda_max=20.0, delta=1.0)", "Planted CPU"),
        *("2026-01-02 03:04:05", "spikeguard train tgo", "spikeguard demo", "planted for tests"),
        f"spikeguard attack {demo[0][1]} --suite demo --norm linf --eps 0.2 --limit 500",
    ):
        assert word in text, word
    assert '"lr": 0.002' in text  # the whole recipe


def test_page_is_one_file_with_one_plotly_and_the_same_bytes_each_time(demo, tmp_path):
    source = demo[1].read_text(encoding="utf-8")
    (packed,) = re.findall(r'<script type="application/gzip" id="plotly">([^<]*)', source)
    assert gzip.decompress(base64.b64decode(packed)).count(b"plotly.js v") == 1
    assert 2_000_000 < len(source) < 3_500_000
    outside = SCRIPT.sub("", source)
    assert not re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(?!data:)", outside)
    assert "url(" not in "".join(re.findall(r"<style>.*?</style>", source, re.DOTALL))
    again = report(demo[0], tmp_path / "r.html", title="Planted demo", command="spikeguard demo")
    assert again.read_bytes() == demo[1].read_bytes()


def test_ids_and_headings_are_in_order(demo):
    source = SCRIPT.sub("", demo[1].read_text(encoding="utf-8"))
    ids = re.findall(r'\sid="([^"]+)"', source)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', source)) <= set(ids)
    assert set(re.findall(r'aria-labelledby="([^"]+)"', source)) <= set(ids)
    assert source.count("<h1>") == 1
    for chart in re.findall(r'<div class="chart"[^>]*>', source):
        assert 'role="img"' in chart and re.search(r'aria-label="[^"]{20,}"', chart)


def test_hostile_names_are_escaped(tmp_path):
    path = plant_run(tmp_path / "hostile", HOSTILE, objective=HOSTILE)
    plant_attacks(path, 0.1, 90.0, NETWORKS["TGO"][0.1])
    plant_audit(path, failed=("S4",))
    plant_membrane(path)
    page = report([path], tmp_path / "report.html", command=HOSTILE)
    source = page.read_text(encoding="utf-8")
    assert "<script>window.pwned" not in source
    assert "<img" not in SCRIPT.sub("", source)
    assert HOSTILE in text_of(page)


def test_missing_results_are_shown_with_their_command(tmp_path):
    path = plant_run(tmp_path / "bare run", "Bare")
    text = text_of(report([path], tmp_path / "report.html"))
    assert "Not attacked yet: nothing is known about its robustness." in text
    assert f"not run: spikeguard attack '{path}'" in text
    assert f"not run: spikeguard audit '{path}'" in text
    assert "– not run" in text  # the audit's badge
    assert "points too optimistic" not in text


def test_network_that_was_not_attacked_at_a_radius_is_marked(tmp_path):
    one, two = plant_run(tmp_path / "one", "One"), plant_run(tmp_path / "two", "Two")
    plant_attacks(one, 0.1, 90.0, NETWORKS["AT"][0.1])
    plant_attacks(two, 8 / 255, 91.0, NETWORKS["TGO"][0.1])
    text = text_of(report([one, two], tmp_path / "report.html"))
    assert f"not run: spikeguard attack {one} --norm linf --eps 8/255" in text
    assert f"not run: spikeguard attack {two} --norm linf --eps 0.1" in text
    assert "L∞ attacks at ε = 8/255, 0.1" in text


def test_attacks_with_the_own_surrogate_only_are_marked(tmp_path):
    path = plant_run(tmp_path / "run", "Run")
    plant_attacks(path, 0.1, 90.0, (50.0, 40.0, 40.0), names=("pgd10", "pgd40"))
    text = text_of(report([path], tmp_path / "report.html"))
    assert (
        "Only the gradient of its own surrogate was tried: 40.0 % is just the number a paper would "
        "print." in text
    )
    assert f"not run: spikeguard attack {path} --suite surrogates" in text


def test_gap_below_a_point_is_not_reported(tmp_path):
    path = plant_run(tmp_path / "run", "Run")
    plant_attacks(path, 0.1, 90.0, (40.0, 60.0, 39.2), names=("pgd40", "pgd20/width2"))
    text = text_of(report([path], tmp_path / "report.html"))
    assert "PGD-40 with its own surrogate comes within 1 point of the worst case" in text
    assert "too optimistic" not in text


def test_audit_is_shown_with_the_radius_it_was_made_at(tmp_path):
    path = plant_run(tmp_path / "run", "Run")
    plant_attacks(path, 0.2, 90.0, NETWORKS["AT"][0.2])
    plant_audit(path)
    text = text_of(report([path], tmp_path / "report.html"))
    assert (
        text.count("at L∞, ε = 0.1, n = 100") == 3
    )  # the card, the table at 0.2, the audit's section


def test_suites_on_the_same_images_are_merged_and_others_left_out(tmp_path):
    path = plant_run(tmp_path / "run", "Run")
    first = plant_attacks(path, 0.1, 90.0, (60.0, 55.0, 50.0), names=("pgd10", "pgd20/width2"))
    first.rename(first.with_name("quick.json"))
    first = plant_attacks(path, 0.1, 90.0, (65.0, 45.0, 44.0), names=("pgd10", "pgd40"))
    first.rename(first.with_name("papers.json"))
    plant_attacks(path, 0.1, 91.0, (89.0, 89.0), names=("noise",), n=1797)
    (place,) = radii(collect([path]))
    standing = place.standings["Run"]
    assert {name: round(s.accuracy, 3) for name, s in standing.attacks.items()} == {
        "pgd10": 0.6,
        "pgd40": 0.45,
        "pgd20/width2": 0.55,
    }
    assert (standing.printed, standing.worst_case.accuracy) == ("pgd40", 0.44)
    assert standing.gap == pytest.approx(0.01)
    assert standing.left_out == (f"demo-linf-0.1-first1797{UNVERIFIED}",)


def test_a_cascade_or_a_bfloat16_search_is_never_shown_as_the_plain_attack(tmp_path):
    """Their numbers are below the plain ones, so merging by name would show them."""
    run = plant_run(tmp_path / "run", "Planted")
    plant_attacks(run, 0.1, 90.0, (80.0, 70.0, 60.0), names=("fgsm", "pgd10"))
    for change, numbers in (
        ({"cascade": True}, (79.0, 55.0, 55.0)),
        ({"precision": "bf16"}, (78.0, 57.0, 57.0)),
        ({"cascade": True, "precision": "bf16"}, (77.0, 56.0, 56.0)),
    ):
        plain = (run / "attacks" / "demo-linf-0.1-first500.json").read_text()
        file = plant_attacks(run, 0.1, 90.0, numbers, names=("fgsm", "pgd10"))
        card = json.loads(file.read_text())
        file.with_name(
            f"demo-{'-'.join(map(str, change))}-{change.get('precision')}.json"
        ).write_text(json.dumps(card | change))
        file.write_text(plain)
    (network,) = collect([run])
    (standing,) = radii([network])[0].standings.values()
    shown = {name: score.accuracy for name, score in standing.attacks.items()}
    assert shown == {
        "fgsm": 0.8,
        "pgd10": 0.7,
        "fgsm + all cheaper of demo": 0.79,
        "pgd10 + all cheaper of demo": 0.55,
        "fgsm in bf16": 0.78,
        "pgd10 in bf16": 0.57,
        "fgsm in bf16 + all cheaper of demo": 0.77,
        "pgd10 in bf16 + all cheaper of demo": 0.56,
    }
    assert standing.printed == "pgd10"
    assert standing.worst_case.accuracy == 0.55
    text = text_of(report([run], tmp_path / "report.html"))
    assert "PGD-10 + all cheaper of demo 55.0 %" in text
    assert "after this and all cheaper attacks of that suite, not under the attack alone" in text


def test_a_cascade_alone_has_no_number_to_compare_with_papers(tmp_path):
    run = plant_run(tmp_path / "run", "Planted")
    file = plant_attacks(run, 0.1, 90.0, (80.0, 70.0, 70.0), names=("fgsm", "pgd10"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"cascade": True}))
    text = text_of(report([run], tmp_path / "report.html"))
    assert "PGD with its own surrogate was not run, so there is no number to compare" in text
    assert "70.0 %" in text


def test_same_titles_get_different_labels(tmp_path):
    paths = [plant_run(tmp_path / name, "Same") for name in ("a", "b")]
    assert [network.label for network in collect(paths)] == ["Same (a)", "Same (b)"]
    inner = [plant_run(tmp_path / outer / "same", "Same") for outer in ("c", "d")]
    assert len({network.label for network in collect(inner)}) == 2


@pytest.mark.parametrize(
    "name", ["result.json", "metrics.jsonl", "environment.json", "recipe.yaml"]
)
def test_missing_file_is_named(name, tmp_path):
    path = plant_run(tmp_path / "run", "Run")
    (path / name).unlink()
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        report([path], tmp_path / "report.html")
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("recipe.yaml", "result.json", "metrics.jsonl", "environment.json", "audit.json"),
        *("attacks/demo-linf-0.1-first500.json", "analysis/membrane.npz"),
    ],
)
def test_truncated_file_is_named_and_the_old_page_is_kept(name, tmp_path):
    (path, *_) = plant_demo(tmp_path)
    truncate(path / name)
    page = tmp_path / "report.html"
    page.write_text("old")
    with pytest.raises(ValueError, match=re.escape(str(path / name))) as caught:
        report([path], page)
    assert "\n" not in str(caught.value)
    assert page.read_text() == "old"


def test_metrics_that_end_early_are_damaged(tmp_path):
    path = plant_run(tmp_path / "run", "Run")
    lines = (path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (path / "metrics.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl: damaged: it holds 14 of 15 epochs"):
        report([path], tmp_path / "report.html")
    (path / "metrics.jsonl").write_text("".join([*lines[:-1], lines[-1][:40]]))
    with pytest.raises(ValueError, match=r"metrics\.jsonl: damaged: line 15: "):
        report([path], tmp_path / "report.html")


@pytest.mark.parametrize(
    ("file", "key", "value", "message"),
    [
        ("result.json", "parameters", None, "damaged"),
        (
            "audit.json",
            "bound",
            {"status": "fine", "sources": []},
            "unknown status 'fine'; known: no",
        ),
        ("attacks/demo-linf-0.1-first500.json", "worst_case", {}, "it holds no 'accuracy'"),
        (
            "attacks/demo-linf-0.1-first500.json",
            "clean",
            {"accuracy": 99.4, "low": 98.0, "high": 99.9, "n": 500},
            "an accuracy must be in",
        ),
        ("attacks/demo-linf-0.1-first500.json", "attacks", [], "damaged"),
        ("environment.json", None, [], "expected an object, got list"),
    ],
)
def test_file_with_other_content_is_named(file, key, value, message, tmp_path):
    (path, *_) = plant_demo(tmp_path)
    card = json.loads((path / file).read_text())
    card = value if key is None else {**card, key: value}
    (path / file).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        report([path], tmp_path / "report.html")
    assert str(path / file) in str(caught.value)


def test_mistakes_of_the_caller_are_one_line(tmp_path):
    path = plant_run(tmp_path / "run", "Run")
    for runs, message in (
        ([], "at least one run folder"),
        ([path, path], "named twice"),
        ([tmp_path / "none"], "no such run folder"),
        ([tmp_path], "not a run folder, it holds no recipe.yaml"),
    ):
        with pytest.raises(ValueError, match=message):
            report(runs, tmp_path / "report.html")


def test_page_is_written_atomically(demo, tmp_path, monkeypatch):
    page = tmp_path / "report.html"
    page.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        report(demo[0], page)
    assert page.read_text() == "old"
    assert list(tmp_path.iterdir()) == [page]


def test_charts_hold_the_planted_numbers(demo):
    networks = collect(demo[0])
    look, places = looks(networks), radii(networks)
    figure = per_attack(places[1], look).figure
    marks = figure.data
    assert [mark.name for mark in marks] == list(NETWORKS)
    rows = [re.sub("</?b>", "", row) for row in figure.layout.yaxis.ticktext]
    left = {
        formatting.attack(name): [numbers[0.2][n] for numbers in NETWORKS.values()]
        for n, name in enumerate(NAMES)
    }
    assert rows == ["Worst case", *sorted(left, key=lambda row: sum(left[row])), "Clean"]
    numbers = {row: values[1] for row, values in left.items()}  # of TGO
    numbers |= {"Clean": 98.6, "Worst case": NETWORKS["TGO"][0.2][-1]}
    assert list(marks[1].x) == pytest.approx([numbers[row] for row in rows])
    assert [round(y) for y in marks[1].y] == list(range(len(rows)))
    low, high = wilson(0.3 * 500, 500)
    place = rows.index("PGD-40")
    assert marks[1].error_x.array[place] == pytest.approx(100 * (high - 0.3))
    assert marks[1].error_x.arrayminus[place] == pytest.approx(100 * (0.3 - low))

    *others, printed, worst = against_radius(places, "TGO", look).figure.data
    assert len(others) == 3
    assert (list(printed.x), list(printed.y)) == ([0, 0.1, 0.2], pytest.approx([98.6, 63.0, 30.0]))
    assert (list(worst.x), list(worst.y)) == ([0, 0.1, 0.2], pytest.approx([98.6, 54.8, 1.0]))
    assert (printed.line.dash, worst.line.dash) == ("dash", "solid")

    found = membranes(networks, look)
    histogram = found["TGO"].figure.data[0]
    near = np.abs(histogram.x) < 0.2
    assert histogram.y[near].sum() == pytest.approx(1.0, abs=0.01)
    assert {tuple(chart.figure.layout.xaxis.range) for chart in found.values()} == {
        tuple(found["TGO"].figure.layout.xaxis.range)
    }

    loss, accuracy, terms = (chart.figure for chart in curves(networks, look))
    epochs = networks[1].epochs
    assert list(loss.data[3].y) == [epoch.val_loss for epoch in epochs]
    assert max(accuracy.data[4].y) == pytest.approx(100 * networks[1].trained.val_accuracy)
    assert [trace.name for trace in terms.data] == ["TGO", "AT + TGO"]
    assert list(terms.data[0].y) == [epoch.terms["tgo"] for epoch in epochs]


def _planted(path, title, **changes):
    """A run whose metrics are changed by functions of the line, or have keys left out."""
    plant_run(path, title, objective="TGO()", epochs=3)
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        for key, change in changes.items():
            line[key] = change(line)
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_no_two_different_quantities_share_an_axis(tmp_path):
    """Two classification losses have two charts, and so has a term with and without its weight."""

    def rates(line):
        return {"mse_rates": 0.1 * line["epoch"], "tgo": line["terms"]["tgo"]}

    unweighted = {"tgo": 7.0, "tgo/features.2": 2.0, "mppd": 3.0}
    paths = [
        _planted(tmp_path / "ce", "CE"),
        _planted(tmp_path / "new", "New", unweighted=lambda line: unweighted),
        _planted(tmp_path / "mse", "MSE", terms=rates, unweighted=lambda line: {"tgo": 5.0}),
        _planted(tmp_path / "old", "Old MSE", terms=rates),
    ]
    networks = collect(paths)
    charts = {chart.id: chart.figure for chart in curves(networks, looks(networks))}
    drawn = {name: {trace.name: list(trace.y) for trace in f.data} for name, f in charts.items()}
    assert list(drawn) == [
        "loss",
        "loss-mse_rates",
        "accuracy",
        *(["term-tgo", "term-tgo-weighted", "term-mppd"]),
    ]
    assert {name.split(",")[0] for name in drawn["loss"]} == {"CE", "New"}
    assert set(drawn["loss-mse_rates"]) == {
        *("MSE, training", "MSE, validation"),
        "Old MSE, training",  # its validation loss was the cross-entropy
    }
    assert drawn["term-tgo"] == {"New": [7.0] * 3, "MSE": [5.0] * 3}
    assert set(drawn["term-tgo-weighted"]) == {"CE", "Old MSE"}
    assert drawn["term-mppd"] == {"New": [3.0] * 3}


def test_a_run_without_validation_images_is_shown_without_a_best_epoch(tmp_path):
    path = _planted(
        *(tmp_path / "run", "Run"),
        val_loss=lambda line: None,
        val_accuracy=lambda line: None,
        unweighted=lambda line: {},
    )
    card = json.loads((path / "result.json").read_text()) | {"val_accuracy": None, "val_samples": 0}
    (path / "result.json").write_text(json.dumps(card))
    networks = collect([path])
    for chart in curves(networks, looks(networks))[:2]:
        assert [trace.name for trace in chart.figure.data] == ["Run, training"]
    assert "not chosen, the last one" in text_of(report([path], tmp_path / "report.html"))


def test_every_network_has_its_own_look(tmp_path):
    networks = collect([plant_run(tmp_path / str(n), f"N{n}", epochs=2) for n in range(20)])
    assert len(set(looks(networks).values())) == 20


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formatting.percent(0.6136), "61.4 %"),
        (formatting.scored(Score(0.614, 0.570, 0.656, 500)), "61.4 % [57.0, 65.6]"),
        (formatting.duration(7.6), "8 s"),
        (formatting.duration(200), "3 min 20 s"),
        (formatting.duration(7_500), "2 h 05 min"),
        (formatting.radius(8 / 255), "ε = 8/255"),
        (formatting.attack("pgd40/width0.5"), "PGD-40, width 0.5"),
        (formatting.attack("rfgsm"), "R+FGSM"),
        (formatting.attack("sapgd/assg"), "SA-PGD, ASSG"),
        (formatting.attack("apgd-ce/mean-field"), "APGD-CE, mean field"),
        (formatting.attack("apgd-dlr10"), "APGD-DLR-10"),
        (
            formatting.attack("pgd10 in bf16 + all cheaper of a/b"),
            "PGD-10 in bf16 + all cheaper of a/b",
        ),
        (formatting.search("eot/width2"), "EoT, width 2"),
        (formatting.attack("mine/2"), "mine, 2"),
        (formatting.norm("l2"), "L2"),
    ],
)
def test_numbers_and_names_have_one_form(written, expected):
    assert written == expected


def test_an_audit_of_an_earlier_version_is_shown_as_one(tmp_path):
    """It judged one number; its words are not shown beside the number that papers print."""
    path = plant_run(tmp_path / "run", "Run")
    plant_attacks(path, 0.1, 90.0, NETWORKS["AT"][0.1])
    plant_audit(path)
    card = json.loads((path / "audit.json").read_text())
    for name in ("printed", "bound"):
        del card[name]
    card |= {"status": "reliable", "sentence": "Reliable as far as 43 checks can tell."}
    (path / "audit.json").write_text(json.dumps(card))
    (network,) = collect([path])
    assert (network.audited.upper_bound, network.audited.bound.n) == (0.5, 100)
    text = text_of(report([path], tmp_path / "report.html"))
    assert "– audit of an earlier version" in text
    assert "which judged only the worst of its own attacks: at most 50.0 % (n = 100)" in text
    assert "reliable" not in text.lower()


def test_a_verdict_is_read_as_it_was_written(tmp_path):
    path = plant_run(tmp_path / "run", "Run")
    plant_audit(path, failed=("S4",), refuted=True)
    card = json.loads((path / "audit.json").read_text())
    (network,) = collect([path])
    assert network.audited.to_json() == card


def test_published_numbers_stand_beside_those_of_the_checkpoint_that_is_shown(tmp_path):
    """Planted: 91 % clean and 40 % under FGSM of the best checkpoint, 80 and 10 of the last."""
    key, printed = next((k, r) for k, r in rows().items() if protocol_of(r, "fgsm") is not None)
    path = plant_run(tmp_path / "net", "Net")
    recipe = json.loads((path / "recipe.yaml").read_text())
    (path / "recipe.yaml").write_text(json.dumps({**recipe, "published": [key]}))
    for name, checkpoint, clean, left in (("b", "best", 91.0, 40.0), ("a", "last", 80.0, 10.0)):
        file = plant_attacks(path, 8 / 255, clean, (left, left), names=("fgsm",))
        card = json.loads(file.read_text())
        file.unlink()
        card |= {"checkpoint": checkpoint, "threat": {"norm": "linf", "eps": 8 / 255}}
        card["attacks"]["fgsm"]["settings"] = dict(protocol_of(printed, "fgsm").settings)
        (path / "attacks" / f"{name}.json").write_text(json.dumps(card))
    page = gather(collect([path]), title=None, made_by=None)
    (comparison,) = page.printed
    found = {pair.attack: pair.ours.accuracy for pair in comparison.pairs if pair.ours is not None}
    assert found == {"Clean": pytest.approx(0.91), "FGSM": pytest.approx(0.4)}
    assert [said for said, _ in page.commands["Net"] if said.startswith("attacks a")] == []


def test_a_command_for_results_of_another_checkpoint_says_which_recipe_it_needs(tmp_path):
    """The recipe attacks "best"; all that was measured is of "last"."""
    path = plant_run(tmp_path / "net", "Net")
    file = plant_attacks(path, 0.1, 80.0, (10.0, 10.0), names=("fgsm",))
    file.write_text(json.dumps({**json.loads(file.read_text()), "checkpoint": "last"}))
    (network,) = collect([path])
    ((_, _), (said, line)) = gather([network], title=None, made_by=None).commands["Net"]
    assert said.endswith(", with evaluate.checkpoint: last in recipe.yaml")
    assert line.endswith("--suite demo --norm linf --eps 0.1 --limit 500")


def test_a_ball_of_event_frames_has_a_command_that_repeats_it_and_an_axis_in_its_units(tmp_path):
    path = plant_run(tmp_path / "net", "Net")
    file = plant_attacks(path, 0.5, 91.0, (40.0, 40.0), names=("fgsm",))
    norm, eps = parse_threat("linf eps=0.5 peak=4")
    threat = {"norm": norm, "eps": eps}
    file.write_text(json.dumps({**json.loads(file.read_text()), "threat": threat}))
    page = gather(collect([path]), title=None, made_by=None)
    ((_, _), (_, command)) = page.commands["Net"]
    line = shlex.split(command)
    given = line[line.index("--threat") + 1]
    assert given == "linf eps=0.5 peak=4" and parse_threat(given) == (norm, eps)
    assert "--norm" not in line and "--eps" not in line
    ((chart,),) = page.against_radius.values()
    assert chart.figure.layout.xaxis.title.text == "Radius ε (L∞, inputs in [0, 4])"
    assert " " not in chart.id  # HTML allows none
    assert page.subtitle == "1 network · digits · L∞ peak=4 attacks at ε = 0.5 · 500 test images"
