"""Numbers of many streams: the compiled passes have the bits of the definition in torch."""

import math

import pytest
import torch

from spikeguard.kernels import splitmix
from spikeguard.kernels.cpu import random_numbers
from spikeguard.kernels.cpu.library import why_not
from spikeguard.rng import SampleStreams

STATES = torch.tensor([0, 1, -1, 1234567, 2**62 + 12345, -(2**63)])


@pytest.fixture(params=["torch", "compiled"])
def way(request, monkeypatch):
    """Both ways to compute the numbers."""
    if request.param == "torch":
        monkeypatch.setattr(random_numbers, "available", lambda device: False)
    elif why_not():
        pytest.skip(f"the CPU kernel is not compiled here: {why_not()}")


def by_python(state, n):
    """The n-th number of a stream in Python's integers, as Steele, Lea and Flood define it."""
    z = (state + (n + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


@pytest.mark.parametrize("first", [0, 5, 2**40])
def test_uniform_numbers_are_the_upper_24_bits(way, first):
    found = splitmix.uniform(STATES, first, 9)
    for row, state in enumerate(STATES.tolist()):
        bits = [by_python(state, first + i) for i in range(9)]
        assert found[row].tolist() == [(b >> 40) / 2**24 for b in bits]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_normal_numbers_are_pairs_of_box_and_muller(way, count):
    """Both numbers of a pair come from the same 64 bits; the cosines come first."""
    found = splitmix.normal_(torch.empty(len(STATES), count), STATES, 3).double()
    pairs = (count + 1) // 2
    for row, state in enumerate(STATES.tolist()):
        for i in range(count):
            bits = by_python(state, 3 + i % pairs)
            u, w = (bits >> 40) / 2**24, (bits >> 8) % 2**24 / 2**24
            turned = math.cos(2 * math.pi * w) if i < pairs else math.sin(2 * math.pi * w)
            wanted = math.sqrt(-2 * math.log(1 - u)) * turned
            assert found[row, i] == pytest.approx(wanted, rel=1e-5, abs=2e-6)


@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 40_001])
def test_the_compiled_numbers_have_the_bits_of_the_definition(monkeypatch, count):
    """Lengths around a block of the compiled pass, and of a piece that is computed at once."""
    if why_not():
        pytest.skip(f"the CPU kernel is not compiled here: {why_not()}")

    def both():
        return splitmix.uniform(STATES, 11, count), splitmix.normal_(
            torch.empty(len(STATES), count), STATES, 11
        )

    compiled = both()
    monkeypatch.setattr(random_numbers, "available", lambda device: False)
    assert all(map(torch.equal, compiled, both()))


def test_the_memory_layout_of_the_output_changes_no_number(way):
    plain = splitmix.normal_(torch.empty(6, 4, 5, 3), STATES, 0)
    last = torch.empty(6, 4, 5, 3).to(memory_format=torch.channels_last)
    assert torch.equal(splitmix.normal_(last, STATES, 0), plain)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_torch_s_default_dtype_and_device_change_no_number(way, dtype):
    def draw():
        normal = splitmix.normal_(torch.empty(6, 33, dtype=torch.float32, device="cpu"), STATES, 0)
        streams = SampleStreams(0, range(6))
        drawn = streams.normal((6, 33)), streams.uniform((6, 33))
        return splitmix.uniform(STATES, 0, 33), normal, *drawn

    plain, before = draw(), torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        other = draw()
    finally:
        torch.set_default_dtype(before)
    with torch.device("meta"):
        elsewhere = draw()
    for found in (other, elsewhere):
        assert all(map(torch.equal, found, plain))
