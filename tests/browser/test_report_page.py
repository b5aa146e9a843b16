"""The report in a real browser: charts are drawn, pages fit the screen, nothing is loaded."""

import contextlib
import csv
import itertools
import math
import re
import zlib

import pytest

from spikeguard.analysis import ANALYSES
from spikeguard.reporting.renderer import report
from tests.toys.analyses import measured
from tests.toys.browsers import IN_BROWSER, SCROLL_THROUGH
from tests.toys.report_runs import (
    NETWORKS,
    plant_attacks,
    plant_audit,
    plant_demo,
    plant_membrane,
    plant_run,
)

SCREENS = {"desktop": (1280, 900), "phone": (390, 844)}
DRIVER = ("[.WebGL-", "Canvas2D: ")  # how the browser's software rendering of 3-D charts is slow
HOSTILE = "</script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
pytestmark = IN_BROWSER


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
        tab.locator("#unfold").click()
        tab.evaluate(SCROLL_THROUGH)
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
            const dots = find('per-attack-linf-0_2');
            const worst = find('against-radius-linf-1')._fullData.at(-1);
            return {
                names: dots._fullData.map(t => t.name),
                tgo: dots.calcdata[1].map(point => point.x),
                rows: dots.layout.yaxis.ticktext,
                worst: find('against-radius-linf-1').calcdata.at(-1).map(point => point.y),
                dash: worst.line.dash,
            };
        }"""
    )
    assert shown["names"] == list(NETWORKS)
    assert sorted(shown["tgo"]) == pytest.approx(sorted([98.6, *NETWORKS["TGO"][0.2]]))
    assert (shown["rows"][0], shown["rows"][-1]) == ("<b>Worst case</b>", "Clean")
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


# --- folded, dark, on paper, saved

LIGHT, DARK = "rgb(0, 114, 178)", "rgb(74, 168, 232)"  # of the first network


@pytest.fixture
def fresh(chromium, pages):
    """A function that opens the demo's report; what it opened is closed at the end."""
    contexts = []

    def open_page(**options):
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        contexts.append(chromium.new_context(**options))
        tab = contexts[-1].new_page()
        tab.goto(pages["demo"].as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("screen", SCREENS)
def test_the_page_is_at_most_four_screens_tall_and_each_section_shows_its_result(fresh, screen):
    width, height = SCREENS[screen]
    tab = fresh(viewport={"width": width, "height": height})
    tall, wide = tab.evaluate(
        "[document.documentElement.scrollHeight, document.documentElement.scrollWidth]"
    )
    assert tall <= 4 * height and wide <= width
    sections = tab.locator("details.section")
    results = tab.locator("details.section > summary .result")
    assert sections.count() == results.count() >= 7
    assert all(len(text) > 5 for text in results.all_inner_texts())
    assert tab.evaluate("document.querySelectorAll('details.section[open]').length") == 0
    assert tab.evaluate("document.querySelectorAll('.main-svg').length") == 0, "drawn when seen"


def test_sections_open_by_keyboard_and_by_link_with_their_charts(fresh):
    tab = fresh()
    tab.locator("#radius > summary").focus()
    tab.keyboard.press("Enter")
    tab.wait_for_selector("#radius .main-svg")
    tab.locator("nav a[href='#training']").click()
    tab.wait_for_selector("#training .main-svg")
    assert not tab.evaluate("document.querySelector('#audit').open")
    widths = tab.evaluate(
        """() => [...document.querySelectorAll('#radius .chart, #training .chart')].map(
            c => [c.clientWidth, c.querySelector('.main-svg').getBoundingClientRect().width])"""
    )
    assert all(chart == box > 300 for box, chart in widths)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_and_charts_follow_the_colour_scheme(fresh, scheme):
    tab = fresh(color_scheme=scheme)
    tab.locator("#attacks > summary").click()
    tab.locator("#attacks .chart").first.scroll_into_view_if_needed()
    tab.wait_for_selector("#attacks .main-svg")
    found = tab.evaluate(
        """() => {
            const style = (selector, name) =>
                getComputedStyle(document.querySelector(selector))[name];
            return {
                paper: style('body', 'backgroundColor'),
                ink: style('body', 'color'),
                chip: style('.card .chip', 'fill'),
                dot: style('.scale .worst', 'backgroundColor'),
                mark: style('#attacks .chart .points path', 'fill'),
                tick: style('#attacks .chart .xtick text', 'fill'),
            };
        }"""
    )
    paper, ink = (sum(map(int, found[name][4:-1].split(","))) for name in ("paper", "ink"))
    assert (ink > paper) is (scheme == "dark")
    expected = DARK if scheme == "dark" else LIGHT
    assert found["chip"] == found["dot"] == found["mark"] == expected
    tick = sum(map(int, found["tick"][4:-1].split(",")))
    assert abs(tick - paper) > 200, "labels can be read"
    other = "light" if scheme == "dark" else "dark"
    tab.emulate_media(color_scheme=other)
    expected = LIGHT if scheme == "dark" else DARK
    tab.wait_for_function(
        """colour => getComputedStyle(
            document.querySelector('#attacks .chart .points path')).fill === colour""",
        arg=expected,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_print_shows_everything_in_the_colours_of_paper(fresh, scheme):
    """The colours are in the file although the printer is told to leave out backgrounds."""
    tab = fresh(color_scheme=scheme)
    printed = tab.pdf(format="A4", print_background=False)
    streams = b"".join(_inflated(printed))
    assert streams.count(b"0 .4470588 .69803923 rg") >= 4 or streams.count(b"0 .447") >= 4
    assert b".2901961 .65882" not in streams, "no colour of the dark page"
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 5
    assert tab.evaluate("document.querySelectorAll('details.section[open]').length") == 0

    tab.set_viewport_size({"width": 688, "height": 1000})  # A4 without margins
    tab.emulate_media(media="print", color_scheme="light")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    found = tab.evaluate(
        """() => ({
            folded: document.querySelectorAll('details:not([open])').length,
            wide: document.documentElement.scrollWidth,
            loose: [...document.querySelectorAll('.chart')].filter(c =>
                !c.querySelector('.main-svg') || c.querySelector('.main-svg')
                    .getBoundingClientRect().width > c.clientWidth + 1).map(c => c.id),
            adjust: ['.worst', '.gap', '.clean', '.key.full', '.badge'].map(each =>
                getComputedStyle(document.querySelector(each)).printColorAdjust),
        })"""
    )
    assert found == {"folded": 0, "wide": 688, "loose": [], "adjust": ["exact"] * 5}


def test_every_chart_is_saved_with_title_and_legend_at_the_width_of_a_column(fresh):
    tab = fresh(accept_downloads=True, color_scheme="dark")
    tab.locator("nav a[href='#attacks']").click()
    buttons = tab.locator("#attacks button[data-format='svg']")
    with tab.expect_download() as waiting:
        buttons.first.press("Enter")
    assert waiting.value.suggested_filename == "per-attack-linf-0_1.svg"
    svg = waiting.value.path().read_text(encoding="utf-8")
    assert re.search(r'<svg[^>]* width="336"', svg)
    text = re.sub(r"<[^>]+>", " ", svg)
    assert all(name in text for name in NETWORKS) and "L∞, ε = 0.1" in text
    assert "rgb(0, 114, 178)" in svg and "rgb(74, 168, 232)" not in svg, "colours of paper"
    with tab.expect_download() as waiting:
        tab.locator("#attacks button[data-format='png']").first.click()
    png = waiting.value.path().read_bytes()
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(png[16:20], "big") == 4 * 336
    lacking = tab.evaluate(
        """async () => {
            const lacking = [];
            for (const id of Object.keys(figures)) {
                const { data, layout } = forPaper(id);
                const box = document.createElement('div');
                document.body.append(box);
                await Plotly.newPlot(box, data, layout);
                const legend = box.querySelector('.legend')?.getBoundingClientRect();
                const plot = box._fullLayout._size.w;
                const title = box.querySelector('.gtitle').getBoundingClientRect();
                const frame = box.querySelector('.main-svg').getBoundingClientRect();
                if (data.some(t => t.name) && !legend) lacking.push([id, 'no legend']);
                if (legend && (legend.right > frame.right + 1 || legend.top < title.bottom - 1))
                    lacking.push([id, 'legend', legend.top, title.bottom, legend.right]);
                if (plot < 150) lacking.push([id, 'plot', plot]);
                if (title.right > frame.right) lacking.push([id, 'title']);
                box.remove();
            }
            return lacking;
        }"""
    )
    assert lacking == []


def test_every_table_is_saved_as_csv_and_latex(fresh):
    tab = fresh(accept_downloads=True)
    tab.locator("#verdict details > summary", has_text="Tables").click()
    with tab.expect_download() as waiting:
        tab.locator("#verdict button", has_text="CSV").first.click()
    assert waiting.value.suggested_filename == "table-1.csv"
    rows = list(csv.reader(waiting.value.path().read_text(encoding="utf-8").splitlines()))
    assert rows[0][:2] == ["Network", "Clean"] and len({len(row) for row in rows}) == 1
    (tgo,) = [row for row in rows if row[0] == "TGO"]
    assert tgo[1] == "98.6 % [97.1, 99.3]"
    with tab.expect_download() as waiting:
        tab.locator("#verdict button", has_text="LaTeX").first.click()
    latex = waiting.value.path().read_text(encoding="utf-8")
    assert latex.startswith("\\begin{tabular}{lrrrrrrrr}\n  \\toprule\n  Network & Clean & ")
    assert "  TGO & 98.6 \\% [97.1, 99.3] & " in latex
    assert re.search(r"(?<!\\)%", latex) is None
    assert tab.locator(".scroll").count() == tab.locator(".scroll .save").count()


def _inflated(pdf):
    """Yield the compressed streams of a PDF."""
    for match in re.finditer(rb"stream\r?\n", pdf):
        with contextlib.suppress(zlib.error):
            yield zlib.decompressobj().decompress(pdf[match.end() :])


@pytest.fixture(scope="module")
def analysed(tmp_path_factory):
    """The planted demo with every analysis, which the last network lacks."""
    root = tmp_path_factory.mktemp("analysed")
    runs = plant_demo(root)
    for name in ANALYSES:
        found = measured(name)
        for run in runs[:-1]:
            found.save(run / "analysis" / f"{name}.npz")
    return report(runs, root / "report.html", title="Analysed")


@pytest.mark.parametrize("screen", SCREENS)
def test_a_page_with_every_analysis_stays_short_and_draws_every_chart(chromium, analysed, screen):
    assert analysed.stat().st_size <= 6e6
    width, height = SCREENS[screen]
    context = chromium.new_context(viewport={"width": width, "height": height})
    tab, messages = context.new_page(), []
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    tab.goto(analysed.as_uri())
    assert tab.evaluate("document.documentElement.scrollHeight") <= 4 * height
    tab.locator("#unfold").click()
    tab.evaluate(SCROLL_THROUGH)
    drawn = tab.evaluate(
        """() => [...document.querySelectorAll('.chart')].map(c => ({
            id: c.id, fits: c.getBoundingClientRect().right <= innerWidth,
            traces: c._fullData.length, said: c.getAttribute('aria-label')}))"""
    )
    assert {kind for kind in ANALYSES if f"analysis-{kind}-" in str(drawn)} == set(ANALYSES)
    assert all(chart["traces"] >= 1 and chart["fits"] and chart["said"] for chart in drawn)
    wide = tab.evaluate("document.documentElement.scrollWidth")
    ours = [text for text in messages if not text.startswith(DRIVER)]
    assert wide <= width and ours == []
    context.close()


def test_arrow_keys_walk_through_a_chart_and_read_out_its_points(fresh):
    tab = fresh()
    tab.locator("#radius > summary").click()
    tab.wait_for_selector("#radius .main-svg")
    chart = "#against-radius-linf-1"  # TGO: 98.6, 54.8 and 1.0 % in the worst case
    tab.locator(chart).focus()
    tab.keyboard.press("ArrowUp")  # from the first trace to the last
    assert tab.locator("#spoken").inner_text().endswith("0, 98.6")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#spoken").inner_text().endswith("0.1, 54.8")
    assert tab.locator(f"{chart} .hoverlayer .hovertext").count() >= 1
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert tab.locator("#spoken").inner_text().endswith("0.2, 1"), "stays at the last point"


def test_a_surface_is_read_out_turned_by_keyboard_and_saved(chromium, analysed):
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    tab = context.new_page()
    tab.goto(analysed.as_uri())
    tab.locator("#landscape > summary").click()
    chart = tab.locator("[id^=analysis-landscape-][id$=surface-0]")
    chart.scroll_into_view_if_needed()
    tab.wait_for_selector("#landscape .gl-container canvas", state="attached")
    eye = "c => c._fullLayout.scene.camera.eye"
    before = chart.evaluate(eye)
    chart.focus()
    tab.keyboard.press("ArrowRight")
    x, y, z = map(float, tab.locator("#spoken").inner_text().split(", "))
    assert (x, y) == (-2, -2) and z == pytest.approx(
        chart.evaluate("c => c._fullData[0].z[0][0]"), 1e-3
    )
    assert chart.evaluate(eye) == before
    tab.keyboard.press("Shift+ArrowRight")
    after = chart.evaluate(eye)
    turned = [math.atan2(each["y"], each["x"]) for each in (before, after)]
    assert math.degrees(turned[1] - turned[0]) == pytest.approx(10)
    assert after["z"] == before["z"]
    for format in ("svg", "png"):
        chart.locator("xpath=..").locator(f"button[data-format={format}]").focus()
        with tab.expect_download() as waiting:
            tab.keyboard.press("Enter")
        saved = waiting.value.path().read_bytes()
        assert b"data:image/png" in saved if format == "svg" else saved.startswith(b"\x89PNG")
        assert len(saved) > 5000, "the surface is in the picture"
    context.close()
