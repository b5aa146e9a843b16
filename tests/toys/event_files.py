"""Small event data sets in their official layouts, written record by record with struct."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from spikeguard.data.events.cifar10_dvs import CLASSES


def events(count, seed=0, size=34, start=0, step=1000):
    """Return (t, x, y, p) of random events in a list, sorted by time."""
    draw = np.random.default_rng(seed)
    times = start + np.sort(draw.integers(0, step, count))
    x, y = draw.integers(0, size, (2, count))
    return list(
        zip(
            times.tolist(), x.tolist(), y.tolist(), draw.integers(0, 2, count).tolist(), strict=True
        )
    )


def arrays(listed):
    """Return t, x, y, p as arrays."""
    return [np.array(column, np.int64) for column in zip(*listed, strict=True)]


def write_bin(path, listed):
    """N-MNIST: 8 bits of x, 8 of y, 1 of polarity, 23 of time, the first bit first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    words = (x << 32 | y << 24 | p << 23 | t for t, x, y, p in listed)
    path.write_bytes(b"".join(word.to_bytes(5, "big") for word in words))
    return path


def write_nmnist(root, train=20, test=10, count=40):
    """Write recordings whose classes follow each other in the order of their numbers."""
    for part, number in (("Train", train), ("Test", test)):
        for k in range(number):
            path = root / "N-MNIST" / part / str(k % 10) / f"{k + 1:05d}.bin"
            write_bin(path, events(count + k, seed=k + 100 * (part == "Test")))
    return root / "N-MNIST"


def packet(listed, kind=1, spare=0, overflow=0, valid=None, first=1):
    """An event packet of AEDAT 3.1; ``spare`` empty places follow the events."""
    number = len(listed)
    head = (kind, 1, 8, 4, overflow, number + spare, number, number if valid is None else valid)
    body = b"".join(
        struct.pack("<Ii", x << 17 | y << 2 | p << 1 | first, t) for t, x, y, p in listed
    )
    return struct.pack("<HHIIIIII", *head) + body + bytes(8 * spare)


def aedat31(packets, form="RAW"):
    lines = ["#!AER-DAT3.1", f"#Format: {form}", "#Source 1: DVS128", "#!END-HEADER"]
    return b"".join(line.encode() + b"\r\n" for line in lines) + b"".join(packets)


TRIALS = [(1, 1000, 2000), (11, 2500, 4000), (3, 4000, 5000)]


def write_gesture(root, per_packet=30):
    """Two files to train and one to test, of three trials and 500 events each."""
    folder = root / "DvsGesture"
    folder.mkdir(parents=True)
    names = ["user01_led", "user02_lab", "user24_led"]
    written = {}
    for seed, name in enumerate(names):
        listed = events(500, seed, 128, step=5200)
        pieces = [listed[k : k + per_packet] for k in range(0, len(listed), per_packet)]
        packets = [packet(piece, spare=k % 3) for k, piece in enumerate(pieces)]
        packets.insert(2, packet([(5, 0, 0, 0)], kind=0))  # a special event
        (folder / f"{name}.aedat").write_bytes(aedat31(packets))
        rows = "".join(f"{label},{start},{stop}\n" for label, start, stop in TRIALS)
        (folder / f"{name}_labels.csv").write_text("class,startTime_usec,endTime_usec\n" + rows)
        written[name] = listed
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\nuser02_lab.aedat\n\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n")
    return folder, written


def aedat2(listed, version="2.0"):
    """AEDAT 2 of a DVS128: x from the right, ON is 0; address and time with the high byte first."""
    head = f"#!AER-DAT{version}\r\n# This is a raw AE data file\r\n#End of Preferences\r\n".encode()
    body = (struct.pack(">II", y << 8 | (127 - x) << 1 | (1 - p), t) for t, x, y, p in listed)
    return head + b"".join(body)


def element(kind, body, order="<"):
    """An element of a MATLAB file: type, length, content, padded to 8 bytes."""
    return struct.pack(f"{order}II", kind, len(body)) + body + bytes(-len(body) % 8)


def mat(matrix, name="out1", *, compressed=True, order="<", kind=9, small=None):
    """A MATLAB 5 file with a matrix of doubles (kind 9) or of another type, column by column."""
    form = {9: "d", 5: "i", 3: "h", 1: "b"}[kind]
    rows, columns = len(matrix), len(matrix[0])
    body = b"".join(
        struct.pack(order + form, matrix[row][column])
        for column in range(columns)
        for row in range(rows)
    )
    parts = element(6, struct.pack(f"{order}II", 6, 0), order)
    parts += element(5, struct.pack(f"{order}ii", rows, columns), order)
    title = name.encode()
    if len(title) <= 4:  # a short element: length and type share 4 bytes
        tag = len(title) << 16 | 1
        parts += struct.pack(f"{order}I", tag) + title + bytes(4 - len(title))
    else:
        parts += element(1, title, order)
    parts += element(kind, body, order)
    whole = element(14, parts, order)
    if compressed:
        packed = zlib.compress(whole)
        whole = struct.pack(f"{order}II", 15, len(packed)) + packed
    text = b"MATLAB 5.0 MAT-file".ljust(124, b" ")
    return text + struct.pack(f"{order}H", 0x0100) + (b"IM" if order == "<" else b"MI") + whole


def dat2mat(listed):
    """The rows that dat2mat.m returns."""
    return [[t, 0, 0, x, y, 1 if p else -1] for t, x, y, p in listed]


def write_cifar10_dvs(root, count=10, form="aedat"):
    folder = root / "CIFAR10-DVS"
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for k in range(count):
            listed = events(60, 100 * label + k, 128)
            if form == "aedat":
                (folder / name / f"cifar10_{name}_{k}.aedat").write_bytes(aedat2(listed))
            else:
                (folder / name / f"{k}.mat").write_bytes(mat(dat2mat(listed)))
    return folder


def write_npz(path, listed, size=8, **changes):
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = (
        dict(zip("txyp", arrays(listed), strict=True))
        | {"sensor": np.array([size, size])}
        | changes
    )
    np.savez(path, **{name: column for name, column in columns.items() if column is not None})
    return path


def write_h5(path, listed, size=8, **changes):
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = dict(zip("txyp", arrays(listed), strict=True)) | {"sensor": [size, size]} | changes
    with h5py.File(path, "w") as file:
        for name, column in columns.items():
            if column is not None:
                file[name] = column
    return path


def shared_data() -> Path:
    """The folder of real recordings beside the project; it may be absent."""
    return Path(__file__).parents[3] / "shared" / "data" / "events"
