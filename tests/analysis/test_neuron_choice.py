"""Choice of neurons: written ones, the most changed ones, and random ones."""

import doctest

import pytest
import torch

from spikeguard.analysis import neuron_choice
from spikeguard.analysis.neuron_choice import MostChanged, Neuron, parse_neurons, random_neurons


def test_example_in_the_docstring():
    assert doctest.testmod(neuron_choice).failed == 0


@pytest.mark.parametrize("text", ["features.2", "features.2:x", ":3", "a:1@", "a:1;b:2", "a:-1"])
def test_other_forms_are_rejected(text):
    with pytest.raises(ValueError, match="neurons are LAYER:PLACE or LAYER:PLACE@IMAGE"):
        parse_neurons(text)


def test_nothing_is_no_neuron():
    assert parse_neurons(None) == parse_neurons("") == ()


def changes(batches):
    most = MostChanged(2, {})
    first = 0
    for batch in batches:
        for layer, values in batch.items():
            most.add(layer, torch.tensor(values).float(), first)
        first += len(values)
    return most


def test_the_largest_changes_of_every_layer_are_kept_and_the_best_layers_come_first():
    whole = {"a": [[0, 1, 1], [1, 0, 3]], "b": [[2, 0, 0], [0, 4, 0]]}
    most = changes([whole])
    assert most.ranked["a"] == [(3, Neuron("a", 2, 1)), (1, Neuron("a", 1, 0))]
    assert most.ranked["b"] == [(4, Neuron("b", 1, 1)), (2, Neuron("b", 0, 0))]
    assert most.chosen() == [Neuron("b", 1, 1), Neuron("a", 2, 1)]
    parts = [{name: rows[i : i + 1] for name, rows in whole.items()} for i in (0, 1)]
    assert changes(parts).ranked == most.ranked


def test_ties_go_to_the_first_image_and_neuron():
    assert changes([{"a": [[0, 2, 2], [2, 2, 2]]}]).chosen() == [
        Neuron("a", 1, 0),
        Neuron("a", 2, 0),
    ]


def test_one_layer_gives_as_many_as_it_has():
    assert changes([{"a": [[1]]}]).chosen() == [Neuron("a", 0, 0)]


def test_random_neurons_are_seeded_and_in_range():
    sizes = {"a": 3, "b": 1000}
    found = random_neurons(sizes, 7, 200, seed=1)
    assert found == random_neurons(sizes, 7, 200, seed=1) != random_neurons(sizes, 7, 200, seed=2)
    assert all(n.place < sizes[n.layer] and n.image < 7 for n in found)
    assert 70 < sum(n.layer == "a" for n in found) < 130  # layers are drawn, not neurons
    assert {n.image for n in found} == set(range(7))
