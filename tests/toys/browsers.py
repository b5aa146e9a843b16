"""A real browser for the tests of pages: its program, its options, and a script that scrolls."""

import shutil

import pytest

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
SCROLL_THROUGH = """async () => {
    for (const chart of document.querySelectorAll('.chart')) {
        chart.scrollIntoView({behavior: 'instant'});
        while (!chart.querySelector('.main-svg')) await new Promise(next => setTimeout(next, 10));
    }
}"""  # a chart is drawn when it comes near the screen
IN_BROWSER = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (apt install chromium)"),
]
