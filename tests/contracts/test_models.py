"""Contract of every network; the tests run on each entry of MODELS."""

import copy
import inspect
import math
from functools import partial

import pytest
import torch
from torch import nn

from spikeguard.encoders import ENCODERS
from spikeguard.encoders.coding import Direct, Poisson
from spikeguard.models import MODELS
from spikeguard.neurons import DLIF, IF, LIF, ATan, Neuron, NoisyLIF, record
from spikeguard.rng import SampleStreams, random_sources, randomness, stream

T, K = 3, 4
WIDTHS = {"vgg11": 1 / 32, "spiking_vgg11": 1 / 32, "vgg5": 1 / 16}  # 1/8 elsewhere


def small(name):
    """Return options for a small network with few channels, as far as its signature has them."""
    parameters = inspect.signature(MODELS[name]).parameters
    options = {"num_classes": K, "T": T, "readout": "logits", "encoder": Direct()}
    options |= {"in_features": 12} if "in_features" in parameters else {"in_channels": 2}
    if "image_size" in parameters:
        options["image_size"] = 8
    if "hidden" in parameters:
        options["hidden"] = 7 if isinstance(parameters["hidden"].default, int) else (9, 7)
    if "width" in parameters:
        channels = isinstance(parameters["width"].default, int)  # else a multiplier
        options["width"] = 3 if channels else WIDTHS.get(name, 1 / 8)
    return options


SMALL = {name: small(name) for name in MODELS}
SHAPES = {name: (12,) if "in_features" in SMALL[name] else (2, 8, 8) for name in MODELS}
BUILD = {name: partial(MODELS[name], **SMALL[name]) for name in MODELS}
EASY = LIF(0.5, v_th=0.3)  # fires in the deepest layer of an untrained network too


class Repeat(nn.Module):
    """Direct coding that does not declare that its steps are equal."""

    constant = False
    normalised = True

    def forward(self, x, T):
        return x.repeat(T, *[1] * x.ndim)


def build(name, **options):
    """Return a network in eval mode, its batch statistics set by one training pass."""
    model = BUILD[name](neuron=options.pop("neuron", EASY), **options)
    batch_norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for m in batch_norms:
        m.momentum = 1.0
    with randomness(model, stream(0, "statistics")), torch.no_grad():
        model(images(name, 32))
    for m in batch_norms:
        m.momentum = 0.1
    return model.eval()


def images(name, count=6):
    return torch.rand(count, *SHAPES[name], generator=stream(0, "images", name))


def input_gradient(model, x):
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    weights = torch.linspace(-1, 2, logits.shape[-1])
    return logits.detach(), torch.autograd.grad((logits * weights).sum(), leaf)[0]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_an_ordinary_classifier_without_state(name):
    model, x = build(name), images(name)
    logits = model(x)
    assert logits.shape == (6, K) and logits.isfinite().all() and logits.std() > 0
    model(1 - x)
    assert torch.equal(model(x), logits)
    assert model(x[:0]).shape == (0, K)


@pytest.mark.parametrize("name", MODELS)
def test_a_sample_does_not_see_its_neighbours_in_eval_mode(name):
    """Up to the rounding of convolutions, which may differ with the batch size."""
    model, x = build(name), images(name)
    together = model(x)
    for i in range(len(x)):
        alone = model(x[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-5)
        assert alone.argmax() == together[i].argmax()


@pytest.mark.parametrize("name", MODELS)
def test_the_input_has_a_gradient_in_eval_mode_and_all_parameters_in_training(name):
    model, x = build(name), images(name)
    _, grad = input_gradient(model, x)
    assert grad.isfinite().all() and (grad.flatten(1).abs().sum(1) > 0).all()
    model.train()(x)[:, 0].sum().backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert not silent
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_saved_and_loaded_it_is_the_same_network(name):
    model, x = build(name, mean=(0.3,), std=(0.4,)), images(name)
    twin = BUILD[name](neuron=EASY, generator=stream(1, "other")).eval()
    assert not torch.equal(twin(x), model(x))
    twin.load_state_dict(copy.deepcopy(model.state_dict()), strict=True)
    assert torch.equal(twin(x), model(x))


@pytest.mark.parametrize("name", MODELS)
def test_weights_come_from_the_given_generator_and_from_nothing_else(
    name, untouched_global_generator
):
    def weights(generator=None):
        return list(BUILD[name](generator=generator).state_dict().values())

    default, again = weights(), weights()
    seeded, reseeded, other = (weights(stream(s, "w")) for s in (1, 1, 2))
    assert all(map(torch.equal, default, again)) and all(map(torch.equal, seeded, reseeded))
    assert not all(map(torch.equal, default, seeded))
    assert not all(map(torch.equal, seeded, other))


@pytest.mark.parametrize("name", MODELS)
def test_initialisation_follows_its_rule(name):
    """Conv: N(0, 2 / fan_out). Linear: |w| <= fan_in^-1/2. Biases 0; BN (1, 0)."""
    normalised = []
    for module in BUILD[name]().modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            normalised.append((module.weight * math.sqrt(fan_out / 2)).flatten())
        if isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            assert module.weight.abs().max() <= bound
            n = module.weight.numel()  # a uniform variable: var of w^2 is bound^4 (1/5 - 1/9)
            spread = bound**2 * math.sqrt((1 / 5 - 1 / 9) / n)
            assert abs(module.weight.square().mean() - bound**2 / 3) < 5 * spread
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
        if getattr(module, "bias", None) is not None:
            assert (module.bias == 0).all()
    if normalised:
        z = torch.cat(normalised).detach()
        assert abs(z.mean()) < 5 / math.sqrt(len(z))
        assert abs(z.square().mean() - 1) < 5 * math.sqrt(2 / len(z))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_sharing_the_first_layer_over_time_equals_repeating_it(name, training):
    shared, x = build(name, mean=(0.3,), std=(0.4,)), images(name)
    repeated = build(name, mean=(0.3,), std=(0.4,), encoder=Repeat())
    repeated.load_state_dict(copy.deepcopy(shared.state_dict()))
    shared.train(training)
    repeated.train(training)
    (logits, grad), (expected, expected_grad) = (input_gradient(m, x) for m in (shared, repeated))
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-3, atol=1e-5)
    for name_, buffer in shared.named_buffers():
        if "running_mean" in name_:
            torch.testing.assert_close(buffer, repeated.get_buffer(name_), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_first_layer_runs_once_under_direct_coding_and_T_times_otherwise(name):
    for encoder, rows in ((Direct(), 6), (Repeat(), 6 * T), (Poisson(), 6 * T)):
        model = build(name, encoder=encoder)
        first = next(m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear))
        seen = []
        first.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(len(inputs[0])))
        model(images(name))
        assert seen == [rows]


@pytest.mark.parametrize("name", MODELS)
def test_normalisation_is_inside_and_epsilon_means_pixels(name):
    """f(x; mean, std) = f((x - mean) / std; 0, 1), so the slope in x is 1 / std times as steep."""
    channels, x = SHAPES[name][0], images(name)
    mean = [0.1 + 0.2 * c / channels for c in range(channels)]
    std = [0.3 + 0.2 * c / channels for c in range(channels)]
    inside, plain = build(name, mean=mean, std=std), build(name)
    weights = {k: v for k, v in plain.state_dict().items() if k not in ("mean", "std")}
    inside.load_state_dict({**inside.state_dict(), **weights})
    shape = (-1, *[1] * (len(SHAPES[name]) - 1))
    mean, std = torch.tensor(mean).view(shape), torch.tensor(std).view(shape)
    logits, grad = input_gradient(inside, x)
    expected, slope = input_gradient(plain, (x - mean) / std)
    assert torch.equal(logits, expected)
    torch.testing.assert_close(grad, slope / std)


@pytest.mark.parametrize("name", MODELS)
def test_a_code_of_pixels_is_not_normalised(name):
    """Poisson and phase read x in [0, 1] without normalisation: mean and std change nothing."""
    for encoder in ("poisson", "phase"):
        one = build(name, encoder=ENCODERS[encoder]())
        other = BUILD[name](
            neuron=EASY, encoder=ENCODERS[encoder](), mean=(0.5,), std=(0.1,)
        ).eval()
        state = {k: v for k, v in one.state_dict().items() if k not in ("mean", "std")}
        other.load_state_dict({**other.state_dict(), **state})
        logits = []
        for model in (one, other):
            with randomness(model, SampleStreams(0, range(6))):
                logits.append(model(images(name)))
        assert torch.equal(*logits)


@pytest.mark.parametrize("name", MODELS)
def test_equal_event_frames_are_an_image_with_direct_coding(name):
    """T copies of one frame give the same current at every step as direct coding of it."""
    flat = {"in_shape": (1, 3, 4)} if "in_features" in SMALL[name] else {}
    events = BUILD[name](neuron=EASY, encoder=ENCODERS["event_frames"](), **flat).eval()
    still = BUILD[name](neuron=EASY, **flat).eval()
    still.load_state_dict(events.state_dict())
    x = images(name).round()
    x = x.view(len(x), *events.in_shape[1:])
    frames = x[:, None].repeat(1, T, *[1] * (x.ndim - 1)).requires_grad_()
    x = x.requires_grad_()
    logits = events(frames)
    torch.testing.assert_close(logits, still(x))
    slope = torch.autograd.grad(logits.sum(), frames)[0]
    expected = torch.autograd.grad(still(x).sum(), x)[0]
    torch.testing.assert_close(slope.sum(1), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_the_rate_readout_is_a_firing_rate(name):
    rate = build(name, readout="rate", neuron=LIF(0.5, v_th=0.05))(images(name))
    assert rate.shape == (6, K) and rate.max() > 0
    torch.testing.assert_close(rate * T, (rate * T).round())
    assert rate.min() >= 0 and rate.max() <= 1


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_gets_its_own_copy_of_the_neuron(name):
    prototype = DLIF(T, v_th=0.3)
    model = BUILD[name](neuron=prototype)
    neurons = [m for m in model.modules() if isinstance(m, Neuron)]
    without = {"wrn16_4": 4, "spiking_resnet": 4}.get(name, 1)  # the last layer; 3 shortcuts
    layers = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in model.modules())
    assert len(neurons) == layers - without
    assert len({id(n.a) for n in [prototype, *neurons]}) == len(neurons) + 1
    assert all(n.v_th == 0.3 for n in neurons)
    default = [m for m in BUILD[name]().modules() if isinstance(m, Neuron)]
    if name in ("sew_resnet", "spiking_resnet"):
        assert all(type(n) is IF and n.surrogate == ATan(2.0) for n in default)
        assert {n.detach_reset for n in default} == {name == "sew_resnet"}
    else:
        assert all(type(n) is LIF and n.decay == 0.5 for n in default)


@pytest.mark.parametrize("name", MODELS)
def test_record_names_the_layers_in_network_order(name):
    model = build(name)
    with record(model) as trace:
        model(images(name))
    order = [n for n, m in model.named_modules() if isinstance(m, Neuron)]
    assert list(trace) == order and len(order) > 1
    assert all(seen.v.shape[:2] == (T, 6) for seen in trace.values())
    assert all(seen.spikes.mean() > 0 for seen in trace.values())


@pytest.mark.parametrize("name", MODELS)
def test_noise_makes_it_stochastic_per_layer_and_per_sample(name):
    model, x = build(name, neuron=NoisyLIF(0.5, sigma=0.2, v_th=0.3)), images(name)
    assert model.stochastic and not build(name).stochastic
    assert build(name, encoder=Poisson()).stochastic
    quiet = build(name, neuron=NoisyLIF(0.5, noise_in=("train",)))
    assert not quiet.stochastic and quiet.train().stochastic
    sources = random_sources(model)
    assert [s.seed for s in sources] == list(range(len(sources)))
    with randomness(model, SampleStreams(0, range(6))):
        together = model(x)
    order = torch.tensor([4, 1])
    with randomness(model, SampleStreams(0, order)):
        torch.testing.assert_close(model(x[order]), together[order], rtol=1e-4, atol=1e-5)
    with randomness(model, SampleStreams(1, range(6))):
        assert not torch.equal(model(x), together)


@pytest.mark.parametrize("name", MODELS)
def test_a_wrong_input_is_rejected_in_one_line(name):
    model, shape = BUILD[name](), ", ".join(map(str, SHAPES[name]))
    with pytest.raises(ValueError, match=rf"SNN: expects inputs \[B, {shape}\], got \[2, 5\]\.$"):
        model(torch.zeros(2, 5))
    with pytest.raises(ValueError, match=rf"expects inputs \[B, {shape}\]"):
        model(torch.zeros(SHAPES[name]))  # the batch axis is missing
    with pytest.raises(ValueError, match=r"got torch\.uint8; use x\.float\(\) / 255"):
        model(torch.zeros(2, *SHAPES[name], dtype=torch.uint8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"readout": "spikes"}, "readout is 'logits' or 'rate', got 'spikes'"),
        ({"mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}, "mean and std need 1 or"),
        ({"mean": (0.1,), "std": (1.0, 1.0)}, "mean and std need"),
        ({"std": (0.0,)}, "std > 0"),
        ({"std": (math.nan,)}, "std > 0"),
    ],
)
@pytest.mark.parametrize("name", MODELS)
def test_a_wrong_setting_is_rejected_in_one_line(name, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        BUILD[name](**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", MODELS)
def test_other_steps_and_neurons_are_a_matter_of_arguments(name):
    options = {} if name.endswith(("mlp", "cnn")) else {"width": 1 / 32}
    if name.endswith("mlp"):
        model = MODELS[name](12, K, T=1, neuron=IF())
    else:
        model = MODELS[name](2, K, T=1, image_size=8, neuron=IF(), **options)
    assert model.eval()(images(name)).shape == (6, K)
    with pytest.raises(ValueError, match="T must be >= 1 time steps, got 0"):
        MODELS[name](T=0, **options)
