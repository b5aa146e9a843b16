"""Five folds of all recordings of N-MNIST on disk, as data sets that recipes can name.

    export SPIKEGUARD_DATA=data PYTHONPATH=benchmarks
    for k in 0 1 2 3 4; do
      spikeguard reproduce events data.name=nmnist_folds:fold$k data.train_limit= \\
        evaluate.limit=220 --plugin nmnist_folds --seeds 0 --out runs/events-fold$k
    done

Training and test recordings are joined; each fold tests on a fifth of them, with the class
proportions of all, and trains on the others. Every recording is a test recording once. The order
is drawn from the stream (0, "folds").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

import spikeguard as sg
from spikeguard.data.events.event_set import EventSet
from spikeguard.data.images import Splits
from spikeguard.rng import stream

FOLDS = 5


def _fold(number: int) -> Callable[[], Splits]:
    def part() -> Splits:
        found = sg.data.load("nmnist", val_fraction=0)
        train, test = found.train, found.test
        assert isinstance(train, EventSet) and isinstance(test, EventSet)
        labels = torch.cat([train.labels, test.labels])
        whole = replace(train, labels=labels, places=(*train.places, *test.places))
        by_class = torch.randperm(len(labels), generator=stream(0, "folds"))
        by_class = by_class[labels[by_class].argsort(stable=True)]
        held = torch.zeros(len(labels), dtype=torch.bool)
        held[by_class[number::FOLDS]] = True
        sets = {
            name: replace(whole.subset(chosen.nonzero()[:, 0]), name=f"nmnist/fold{number}/{name}")
            for name, chosen in (("train", ~held), ("test", held))
        }
        return replace(found, **sets)

    return part


fold0, fold1, fold2, fold3, fold4 = map(_fold, range(FOLDS))
