"""Digests and checksums: equal for equal content, other for every change."""

import json

import pytest
import torch

from spikeguard.storage.digests import content_digest, is_sealed, sealed, weights_digest

CARD = {"a": 0.1, "b": [1, (2, "x")], "c": {3: None}, "identity": {"weights": "00"}}


def test_a_card_read_back_from_a_file_has_its_checksum():
    assert is_sealed(json.loads(json.dumps(sealed(CARD), indent=2)))


def test_every_edit_is_found():
    text = json.dumps(sealed(CARD))
    edits = 0
    for place, letter in enumerate(text):
        for other in "07x":
            try:
                card = json.loads(text[:place] + other + text[place + 1 :])
            except ValueError:
                continue
            if card == json.loads(text):
                continue
            edits += 1
            with pytest.raises(ValueError, match="checksum"):
                is_sealed(card)
        assert letter
    assert edits > 100


def test_an_older_card_has_none():
    assert not is_sealed({"a": 1})
    with pytest.raises(ValueError, match="missing"):
        is_sealed({"a": 1, "identity": {}})


def test_weights_have_one_digest_in_any_order_and_another_after_a_change():
    one, two = torch.arange(4.0), torch.ones(2, dtype=torch.long)
    state = {"one": one, "two": two}
    assert weights_digest(state) == weights_digest({"two": two, "one": one.clone()})
    others = [{"one": one}, {"one": one.view(2, 2), "two": two}, {"one": one, "two": two.int()}]
    others += [{"one": one + 1e-6 * (one == 3), "two": two}, {"One": one, "two": two}]
    found = {weights_digest(each) for each in (state, *others)}
    assert len(found) == 6


def test_content_has_another_digest_after_a_change():
    x = torch.arange(6.0)
    parts = [(x,), (x.view(2, 3),), (x.double(),), (x, b""), (b"", x), (x + 1,)]
    assert len({content_digest(*each) for each in parts}) == len(parts)


def test_a_description_without_addresses_is_the_same_in_every_process():
    """Also of an attack, whose loss is a function."""
    from spikeguard.attacks import PGD, Linf
    from spikeguard.storage.digests import without_addresses

    assert without_addresses("f at 0x7f68a0, g at 0xB") == "f, g at 0xB"
    text = repr(PGD(Linf(0.1), steps=3))
    assert " at 0x" in text and " at 0x" not in without_addresses(text)
    assert "steps=3" in without_addresses(text)
