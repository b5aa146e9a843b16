"""Images grouped by class, whatever the order of the classes: mixed, or a warning."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import spikeguard as sg
from spikeguard.analysis import Jacobian
from spikeguard.attacks import PGD, Linf
from spikeguard.data import from_arrays, from_dataset, load, make_splits
from spikeguard.data.own import own_data, read_own
from spikeguard.data.stratified import few_classes, mixed_order
from spikeguard.preflight.quick import PreflightWarning

N, K = 500, 10
BLOCKS = {
    "ascending": list(range(K)),
    "descending": list(range(K))[::-1],
    "permuted": [3, 0, 7, 1, 9, 2, 8, 4, 6, 5],
}
X = np.tile(np.arange(N, dtype=np.float32)[:, None, None, None] / N, (1, 1, 2, 2))


@pytest.fixture(params=BLOCKS)
def labels(request):
    return np.repeat(BLOCKS[request.param], N // K)


def classes_of_first(part, count=40):
    return len(part.labels[:count].unique())


def test_images_of_a_file_to_attack_are_mixed(labels, tmp_path):
    np.savez(tmp_path / "my.npz", x_test=X, y_test=labels, x_val=X, y_val=labels)
    found = read_own(tmp_path / "my.npz").for_evaluation("my.npz")
    assert classes_of_first(found.test) == classes_of_first(found.val) == K
    assert sorted(found.test.images[:, 0, 0, 0].tolist()) == X[:, 0, 0, 0].tolist()


def test_images_of_an_object_to_attack_are_mixed(labels):
    dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(labels))
    assert classes_of_first(own_data(dataset, "mine").for_evaluation("mine").test) == K


def test_test_and_validation_images_of_a_training_are_mixed(labels, tmp_path):
    np.savez(tmp_path / "my.npz", x=X, y=labels)
    data = load(tmp_path / "my.npz", val_fraction=0.2)
    assert [classes_of_first(part) for part in (data.test, data.val)] == [K, K]
    given = make_splits(from_arrays(X, labels), from_arrays(X, labels), from_arrays(X, labels))
    assert classes_of_first(given.val) == K


def test_images_that_are_not_grouped_stay_as_they_are():
    for other in ([0, 1] * 250, [0] * 250 + [1] * 249 + [0], [4, 2, 0, 1, 3], [0] * 5, [1]):
        images = from_arrays(X[: len(other)], other)
        assert mixed_order(images) is images
        assert few_classes(images, 2) == ""


@pytest.mark.parametrize(
    "given",
    [
        lambda x, y: (torch.from_numpy(x), torch.from_numpy(y)),
        from_arrays,
        lambda x, y: from_dataset(TensorDataset(torch.from_numpy(x), torch.from_numpy(y))),
    ],
    ids=["pair", "from_arrays", "from_dataset"],
)
def test_a_limit_that_leaves_classes_out_is_a_warning(given, labels):
    """The first 40 of 500 are of one class, the first 120 of three."""
    data, model = given(X, labels), nn.Sequential(nn.Flatten(), nn.Linear(4, K))
    attacks = {"pgd": PGD(Linf(0.1), steps=1)}
    with pytest.warns(PreflightWarning, match="the first 40 are of 1 of 10 classes"):
        found = sg.evaluate(model, data, attacks, limit=40, check=False)
    assert found.labels.tolist() == labels[:40].tolist()  # the order is that of the caller
    with pytest.warns(PreflightWarning, match="audit: .* the first 120 are of 3 of 10 classes"):
        sg.audit(model, data, threat=Linf(0.1), limit=120, check=False)
    with pytest.warns(PreflightWarning, match="analysis: .* the first 40 are of 1 of 10 classes"):
        Jacobian(attacks["pgd"], limit=40, draws=1, steps=1)(model, data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", PreflightWarning)
        sg.evaluate(model, data, {}, check=False)
        sg.evaluate(model, from_arrays(X, np.arange(N) % K), {}, limit=40, check=False)
