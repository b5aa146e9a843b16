"""Numbers, shares and intervals as text, for one network and for several."""

import math

import pytest

from spikeguard.analysis import texts

NAN = math.nan


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (texts.number_text(0.12345), "0.123"),
        (texts.number_text(2140.4), "2,140"),
        (texts.interval_text(3.482, 3.19, 3.76), "3.48 [3.19, 3.76]"),
        (texts.interval_text(192, 192, 192), "192"),
        (texts.interval_text(NAN, NAN, NAN), "–"),
        (texts.percent(0.6137), "61.4 %"),
        (texts.percent(NAN), "-"),
        (texts.signed(-0.64), "−64 %"),
        (texts.signed(0.05), "+5 %"),
        (texts.percent_interval(0.614, 0.57, 0.656), "61.4 % [57.0, 65.6]"),
        (texts.percent_interval(0.614, NAN, NAN), "61.4 %"),
        (texts.listed({"a": "3 %"}), "3 %"),
        (texts.listed({"a": "3 %", "b": "4 %"}), "a 3 %; b 4 %"),
        (texts.labelled({"a": "3 %"}), "3 %"),
        (texts.labelled({"a": "3 %", "b": "4 %"}), "3 % (a), 4 % (b)"),
        (texts.span({"a": 0.04}, texts.percent), "4.0 %"),
        (texts.span({"a": 0.04, "b": 0.03}, texts.percent), "3.0 % (b) to 4.0 % (a)"),
        (texts.span({"a": NAN, "b": 0.03, "c": 0.05}, texts.percent), "3.0 % (b) to 5.0 % (c)"),
        (texts.span({"a": NAN}, texts.percent), "undefined"),
        (texts.span({"a": 0, "b": 0}, texts.percent), "0.0 % (all)"),
        (texts.span({"a": 0.0001, "b": 0.0002}, texts.percent), "0.0 % (all)"),
        (texts.span({"a": NAN, "b": 0, "c": 0}, texts.percent), "0.0 % (b, c)"),
        (texts.half_text(3.482, 0.31), "3.48 ± 0.3"),
        (texts.half_text(3.482, NAN), "3.48"),
        (texts.half_text(NAN, NAN), "–"),
        (texts.shared({"a": "16"}), "16"),
        (texts.shared({"a": "16", "b": "16"}), "16"),
        (texts.shared({"a": "16", "DLIF": "4"}), "16 (DLIF: 4)"),
        (texts.shared({"a": "4", "b": "16", "c": "16"}), "16 (a: 4)"),
    ],
)
def test_texts(written, text):
    assert written == text
