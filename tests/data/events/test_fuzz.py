"""Files with changed, lost and repeated bytes: a recording or BadRecording, nothing else."""

import random

import pytest

from spikeguard.data.events.aedat3 import read_aedat3
from spikeguard.data.events.cifar10_dvs import read_aedat2, read_dat2mat
from spikeguard.data.events.event_set import Place
from spikeguard.data.events.framing import Framing
from spikeguard.data.events.nmnist import read_bin
from spikeguard.data.events.one_file import read_event_file
from spikeguard.data.events.own_events import read_arrays
from spikeguard.data.events.recording import BadRecording
from tests.toys.event_files import (
    aedat2,
    aedat31,
    dat2mat,
    events,
    mat,
    packet,
    write_bin,
    write_h5,
    write_npz,
)

LISTED = events(40, size=30)
MANY = {"offsets": [0, 40], "labels": [0]}


def plain(make):
    return lambda path: path.write_bytes(make())


FORMATS = {
    "0.bin": (lambda path: write_bin(path, LISTED), read_bin),
    "0.aedat": (plain(lambda: aedat31([packet(LISTED[:20], spare=1), packet(LISTED[20:])])), None),
    "1.aedat": (plain(lambda: aedat2(LISTED)), read_aedat2),
    "0.mat": (plain(lambda: mat(dat2mat(LISTED))), read_dat2mat),
    "1.mat": (plain(lambda: mat(dat2mat(LISTED), compressed=False)), read_dat2mat),
    "0.npz": (lambda path: write_npz(path, LISTED, 30), lambda path: read_arrays(Place(path))),
    "1.npz": (lambda path: write_npz(path, LISTED, 30, **MANY), lambda path: one_of(path)),
    "1.h5": (lambda path: write_h5(path, LISTED, 30, **MANY), lambda path: one_of(path)),
    "0.h5": (lambda path: write_h5(path, LISTED, 30), lambda path: read_arrays(Place(path))),
}


def one_of(path):
    try:
        (data,) = read_event_file(path).values()
    except ValueError as error:
        raise BadRecording(str(error)) from error
    return data.recording(0)


def damaged(raw, draw):
    """Change a few bytes, cut, repeat or remove a piece."""
    raw = bytearray(raw)
    for _ in range(draw.choice([1, 1, 3, 20])):
        at = draw.randrange(len(raw)) if draw.random() < 0.5 else draw.randrange(min(200, len(raw)))
        raw[at] = draw.choice([0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)])
    start, length = draw.randrange(len(raw)), draw.randrange(1, 40)
    cut = draw.randrange(6)
    if cut == 0:
        return bytes(raw[:start])
    if cut == 1:
        return bytes(raw[:start] + raw[start + length :])
    if cut == 2:
        return bytes(raw[: start + length] + raw[start:])
    return bytes(raw)


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_a_recording_or_one_line(tmp_path, name):
    write, read = FORMATS[name]
    read = read or (lambda path: read_aedat3(path, (128, 128), 200, 800))
    path = tmp_path / name
    write(path)
    raw, draw, rejected = path.read_bytes(), random.Random(name), 0
    whole = len(read(path))
    for _ in range(400):
        path.write_bytes(damaged(raw, draw))
        try:
            recording = read(path)
        except BadRecording as error:
            rejected += 1
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
        else:
            assert 0 < len(recording) <= 3 * whole
            assert Framing(T=3, values="counts").frames(recording).sum() == len(recording)
    assert rejected > 100
