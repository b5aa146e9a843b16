"""NetworkOptions: one list of keyword arguments for all network builders, read by recipes too."""

import inspect
from typing import TypedDict, Unpack, get_args

import pytest

from spikeguard.config.errors import ConfigError, ConfigPath
from spikeguard.config.instantiate import call_checked
from spikeguard.models import CNN, MODELS, OperationalCNN
from spikeguard.models.options import NetworkOptions
from spikeguard.neurons import IF, LIF, Neuron


@pytest.mark.parametrize("name", MODELS)
def test_every_builder_takes_the_shared_options_and_lists_none_of_them_again(name):
    parameters = inspect.signature(MODELS[name], eval_str=True).parameters
    assert get_args(parameters["options"].annotation) == (NetworkOptions,)
    assert not set(parameters) & set(NetworkOptions.__annotations__)
    assert all(
        f"        {key}: " in NetworkOptions.__doc__ for key in NetworkOptions.__annotations__
    )


@pytest.mark.parametrize("name", MODELS)
def test_an_unknown_option_is_an_error_of_the_call(name):
    with pytest.raises(TypeError, match=r"'neurons'.*neuron, encoder, readout, mean, std, gen"):
        MODELS[name](neurons=IF())


def test_none_means_the_default_of_the_builder():
    def first_neuron(model):
        return next(m for m in model.modules() if isinstance(m, Neuron))

    assert repr(first_neuron(CNN(width=2, neuron=None))) == repr(LIF(0.5))
    study = LIF.from_tau(2.0, decay_input=True)
    assert first_neuron(OperationalCNN(width=2, neuron=None)).decay == study.decay
    assert isinstance(first_neuron(OperationalCNN(width=2, neuron=IF())), IF)


class Options(TypedDict, total=False):
    size: int
    label: str


class StrictOptions(TypedDict):
    size: int


def loose(x: int = 1, **options: Unpack[Options]):
    return {"x": x, **options}


def strict(**options: Unpack[StrictOptions]):
    return options


def test_a_recipe_reads_the_keys_of_unpacked_options():
    where = ConfigPath("model")
    assert call_checked(loose, {"size": 3}, where) == {"x": 1, "size": 3}
    assert call_checked(loose, {}, where, size=4, other=5) == {"x": 1, "size": 4}
    with pytest.raises(ConfigError, match=r"unknown key of loose 'sizes'\. Did you mean 'size'\?"):
        call_checked(loose, {"sizes": 3}, where)
    with pytest.raises(ConfigError, match=r"model\.size: should be a valid integer, got 'q'\."):
        call_checked(loose, {"size": "q"}, where)
    with pytest.raises(ConfigError, match="strict needs 'size'"):
        call_checked(strict, {}, where)
