"""Small data sets in the official layouts of MNIST and CIFAR."""

import gzip
import pickle
import struct
from dataclasses import replace

import numpy as np

from spikeguard.data.cifar import CIFAR10, CIFAR100

TINY = {
    "cifar10": replace(CIFAR10, train_rows=4, test_rows=3),
    "cifar100": replace(CIFAR100, train_rows=4, test_rows=3),
}


def rows(count, first):
    """Row i of a file holds the bytes first + i, first + i + 1, ... modulo 256."""
    return (np.arange(3072) + (first + np.arange(count))[:, None]).astype(np.uint8)


def contents(release):
    """Every file of a release: its pixels and its class numbers."""
    parts = [(name, release.train_rows) for name in release.train] + [
        (release.test, release.test_rows)
    ]
    return {
        name: (rows(count, 10 * k), [(k + i) % release.num_classes for i in range(count)])
        for k, (name, count) in enumerate(parts)
    }


def write_cifar(release, root, version, protocol=2):
    folder = root / getattr(release, version)
    folder.mkdir(parents=True)
    for name, (pixels, labels) in contents(release).items():
        if version == "binary":
            head = np.array(labels, np.uint8)[:, None]
            if release.labels == 2:
                head = np.concatenate([head * 0 + 19, head], 1)
            (folder / f"{name}.bin").write_bytes(np.concatenate([head, pixels], 1).tobytes())
        else:
            content = {b"data": pixels, release.key: labels, b"batch_label": name.encode()}
            (folder / name).write_bytes(pickle.dumps(content, protocol=protocol))
    return folder


PIXELS = (np.arange(5 * 28 * 28) % 251).astype(np.uint8).reshape(5, 28, 28)
LABELS = np.array([3, 0, 9, 1, 3], np.uint8)


def idx(array, *, shape=None, kind=8):
    shape = array.shape if shape is None else shape
    header = bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return header + array.tobytes()


def write_mnist(folder, *, zipped=False, images=PIXELS, labels=LABELS):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "t10k"):
        for stem, array in (("images-idx3", images), ("labels-idx1", labels)):
            path = folder / f"{part}-{stem}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
