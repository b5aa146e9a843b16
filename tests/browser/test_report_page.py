"""The report in a real browser: charts are drawn, pages fit the screen, nothing is loaded."""

import itertools
import shutil

import pytest

from spikeguard.reporting.renderer import report
from tests.toys.report_runs import (
    NETWORKS,
    plant_attacks,
    plant_audit,
    plant_demo,
    plant_membrane,
    plant_run,
)

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}
HOSTILE = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt install chromium)"),
]


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Two reports: the demo, and a run with hostile names beside one that was only trained."""
    root = tmp_path_factory.mktemp("pages")
    bare = plant_run(root / "bare", "Bare")
    hostile = plant_run(root / "hostile", HOSTILE, objective=HOSTILE)
    plant_attacks(hostile, 0.1, 90.0, NETWORKS["TGO"][0.1])
    plant_audit(hostile, failed=("S4",))
    plant_membrane(hostile)
    return {
        "demo": report(plant_demo(root), root / "demo.html", title="Planted demo"),
        "hostile": report([hostile, bare], root / "hostile.html", title=HOSTILE),
    }


@pytest.fixture(scope="module", params=SCREENS)
def opened(request, chromium, pages):
    """Each report, open at one screen size, with its console messages and requests."""
    width, height = SCREENS[request.param]
    context = chromium.new_context(viewport={"width": width, "height": height})
    found = {}
    for name, path in pages.items():
        tab, messages, requests = context.new_page(), [], []
        tab.on("console", lambda message, to=messages: to.append(message.text))
        tab.on("pageerror", lambda error, to=messages: to.append(str(error)))
        tab.on("request", lambda request, to=requests: to.append(request.url))
        tab.goto(path.as_uri())
        tab.wait_for_function(
            "[...document.querySelectorAll('.chart')].every(c => c.querySelector('.main-svg'))"
        )
        found[name] = (tab, messages, requests)
    yield found
    context.close()


@pytest.mark.parametrize("name", ["demo", "hostile"])
def test_page_logs_nothing_and_requests_nothing(opened, pages, name):
    tab, messages, requests = opened[name]
    assert messages == []
    assert [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
    assert tab.evaluate("window.pwned") is None


@pytest.mark.parametrize("name", ["demo", "hostile"])
def test_every_chart_is_drawn_with_titled_axes_inside_its_box(opened, name):
    charts = opened[name][0].evaluate(
        """() => [...document.querySelectorAll('.chart')].map(c => ({
            id: c.id,
            traces: c._fullData.length,
            points: c.calcdata.reduce((total, trace) => total + trace.length, 0),
            x: c.layout.xaxis.title.text, y: c.layout.yaxis.title.text,
            drawn: [...c.querySelectorAll('.xtitle, .ytitle')].map(t => t.textContent),
            fits: c.querySelector('.main-svg').getBoundingClientRect().right <= innerWidth,
        }))"""
    )
    count = {"demo": 2 + 4 + 4 + 5 * 4 + 3, "hostile": 1 + 1 + 1 + 5 + 2}[name]
    assert len(charts) == count
    for chart in charts:
        assert chart["traces"] >= 1 and chart["points"] >= 1, chart["id"]
        assert chart["x"] and chart["y"] and len(chart["drawn"]) == 2, chart["id"]
        assert chart["fits"], chart["id"]


def test_charts_show_the_planted_numbers(opened):
    shown = opened["demo"][0].evaluate(
        """() => {
            const find = id => document.getElementById(id);
            const bars = find('per-attack-linf-0_2');
            const worst = find('against-radius-linf-1')._fullData.at(-1);
            return {
                names: bars._fullData.map(t => t.name),
                tgo: bars.calcdata[1].map(point => point.s),
                worst: find('against-radius-linf-1').calcdata.at(-1).map(point => point.y),
                dash: worst.line.dash,
            };
        }"""
    )
    assert shown["names"] == list(NETWORKS)
    assert shown["tgo"] == pytest.approx([98.6, *NETWORKS["TGO"][0.2]])
    assert shown["worst"] == pytest.approx([98.6, 54.8, 1.0])
    assert shown["dash"] == "solid"


@pytest.mark.parametrize("name", ["demo", "hostile"])
def test_page_never_scrolls_sideways(opened, name):
    width, inner = opened[name][0].evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner


@pytest.mark.parametrize("name", ["demo", "hostile"])
def test_text_is_large_enough_and_tables_stay_in_their_box(opened, name):
    tab = opened[name][0]
    tab.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = tab.evaluate(
        """() => [...document.querySelectorAll('body *')]
            .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
            .filter(e => !e.closest('script, style, noscript, sub, tspan, .modebar'))
            .map(e => [parseFloat(getComputedStyle(e).fontSize), e.textContent.slice(0, 40)])"""
    )
    assert [text for size, text in sizes if size < 12] == []
    loose = tab.evaluate(
        """() => [...document.querySelectorAll('table')].filter(t => {
            const box = t.closest('.scroll') ?? t;
            return box.getBoundingClientRect().right > innerWidth + 0.5;
        }).map(t => t.textContent.slice(0, 60))"""
    )
    assert loose == []
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_planted_numbers_and_verdicts_are_visible(opened):
    tab = opened["demo"][0]
    for text in (
        "30.0 %",
        "[26.1, 34.2]",
        "1.0 %",
        "✗ bound: faulty",
        "· bound: no fault found",
        "29.0 points",
    ):
        seen = tab.evaluate(
            """text => [...document.querySelectorAll('main *')].some(
                e => e.innerText?.includes(text) && e.checkVisibility()
                    && e.getBoundingClientRect().height > 0)""",
            text,
        )
        assert seen, text


def test_hostile_names_are_shown_literally(opened):
    tab = opened["hostile"][0]
    assert tab.title() == HOSTILE
    assert tab.evaluate("document.querySelector('h1').textContent") == HOSTILE
    assert tab.evaluate("document.querySelectorAll('img').length") == 0
    assert HOSTILE in tab.evaluate("document.querySelector('.card').textContent")


def test_page_has_landmarks_and_one_heading_order(opened):
    levels = opened["demo"][0].evaluate(
        "() => [...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    assert opened["demo"][0].evaluate(
        "['header', 'nav', 'main', 'footer'].every(tag => document.querySelector(tag))"
    )


def test_a_code_opens_the_description_of_its_check(opened):
    tab = opened["demo"][0]
    tab.evaluate("document.querySelector('#checks').open = false; location.hash = ''")
    tab.locator("a.code[href='#check-S4']:visible").first.click()
    tab.wait_for_function("document.querySelector('#checks').open")
    assert tab.locator("#check-S4").is_visible()
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
