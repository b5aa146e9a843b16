"""checkpointed(): the same gradients, draws and statistics, bit for bit, from fewer kept values."""

import copy
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import CheckpointError

from spikeguard.attacks import PGD, Linf
from spikeguard.attacks.gradients.spiking_rules import BPTR
from spikeguard.data import ImageSet, Splits
from spikeguard.defences import AT, TGO
from spikeguard.kernels.selection import use_kernel
from spikeguard.models import VGG5, VGG11, WRN16_4, SEWResNet, SpikingResNet, SpikingVGG11
from spikeguard.models import activation_checkpointing as module
from spikeguard.models.activation_checkpointing import checkpointed
from spikeguard.models.snn import _groups
from spikeguard.neurons import LIF, NoisyLIF, record
from spikeguard.neurons.modes import backward_mode
from spikeguard.neurons.surrogate import ATan
from spikeguard.rng import SampleStreams, randomness, stream
from spikeguard.system.swapping import swapped
from spikeguard.training import TrainOptions, train

NETWORKS = {
    "sew18": lambda **options: SEWResNet(3, 4, 3, depth=18, width=0.08, **options),
    "sew50": lambda **options: SEWResNet(3, 4, 2, depth=50, width=0.05, **options),
    "wrn": lambda **options: WRN16_4(3, 4, 3, width=0.1, **options),
    "vgg5": lambda **options: VGG5(3, 4, 3, width=0.1, **options),
    "vgg11": lambda **options: VGG11(3, 4, 3, width=0.1, **options),
    "spiking18": lambda **options: SpikingResNet(3, 4, 2, depth=18, width=0.0625, **options),
    "dropout": lambda **options: SpikingVGG11(3, 4, 3, width=0.1, **options),
}
X = torch.rand(5, 3, 32, 32, generator=stream(0, "x"))
Y = torch.arange(5) % 4


def noisy(name):
    return NETWORKS[name](neuron=NoisyLIF(0.5, sigma=0.5), generator=stream(0, "init"))


def both(work, model):
    """Return what ``work(model)`` gives without and with checkpointing, on two equal copies."""
    found = []
    for context in (nullcontext, checkpointed):
        fresh = copy.deepcopy(model)
        with context(fresh) if context is checkpointed else context():
            found.append((work(fresh), [each.clone() for each in fresh.buffers()]))
    return found


def require_equal(plain, again):
    for one, other in zip(plain[0] + plain[1], again[0] + again[1], strict=True):
        assert torch.equal(one, other)


def gradients(model, source=None):
    """Return the gradients of a training pass; every draw comes from one source."""
    model.train()
    with randomness(model, stream(0, "noise") if source is None else source):
        functional.cross_entropy(model(X), Y).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_and_statistics_are_equal_bit_for_bit(name):
    plain, again = both(gradients, noisy(name))
    require_equal(plain, again)
    assert any(bool(gradient.any()) for gradient in plain[0])


@pytest.mark.parametrize("kernel", ["multistep", "reference"])
@pytest.mark.parametrize("name", ["spiking18", "vgg5"])
def test_every_kernel_runs_again_with_batch_normalisation_outside_of_it(name, kernel):
    with use_kernel(kernel):
        plain, again = both(gradients, noisy(name))
    require_equal(plain, again)


def test_dropout_of_torch_leaves_out_the_same_values_again():
    """Its draws come from torch's own generator."""

    def work(model):
        model.classifier.insert(1, nn.Dropout(0.3))
        torch.manual_seed(1)
        return gradients(model)

    require_equal(*both(work, noisy("vgg5")))


@pytest.mark.parametrize("name", ["sew18", "vgg5"])
def test_every_sample_draws_from_its_own_stream_again(name):
    require_equal(
        *both(lambda model: gradients(model, SampleStreams(3, torch.arange(5))), noisy(name))
    )


def test_layers_without_a_bound_source_repeat_their_own(monkeypatch):
    def work(model):
        model.train()
        functional.cross_entropy(model(X), Y).backward()
        return [p.grad for p in model.parameters()]

    require_equal(*both(work, noisy("sew18")))


def test_batch_normalisation_counts_a_batch_once():
    model = NETWORKS["sew18"]().train()
    with checkpointed(model):
        for _ in range(2):
            model(X).sum().backward()
    counts = {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, nn.BatchNorm2d)}
    assert counts == {2}


def test_bfloat16_is_repeated_too():
    def work(model):
        with torch.autocast("cpu", torch.bfloat16):
            model.train()
            loss = functional.cross_entropy(model(X).float(), Y)
        loss.backward()  # outside autocast, as in training
        return [p.grad for p in model.parameters()]

    require_equal(*both(work, NETWORKS["wrn"](generator=stream(0, "init"))))


def test_attacks_find_the_same_images():
    """In evaluation mode, with frozen weights and a stream for each sample; BPTR has a rule."""
    for gradient in ({}, {"gradient": BPTR()}):
        attack = PGD(Linf(0.1), steps=2, **gradient)

        def work(model, attack=attack):
            return [attack(model, X, Y, generator=stream(1, "attack"))]

        require_equal(*both(work, noisy("sew18")))


def test_what_was_set_during_the_first_run_is_set_during_the_second():
    """Surrogate, frozen weights and mode are changed back before the backward pass."""

    def work(model):
        model.eval()
        constant = list(model.features[4].parameters())
        with backward_mode(model, ATan(2.0)), swapped(constant, "requires_grad", False):
            loss = functional.cross_entropy(model(X), Y)
        model.train()
        loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    model = NETWORKS["sew18"](generator=stream(0, "init"))
    plain, again = both(work, model)
    require_equal(plain, again)
    assert len(plain[0]) < len(list(model.parameters()))


def test_recorded_potentials_are_differentiated_as_before():
    def work(model):
        model.train()
        with record(model) as trace, randomness(model, stream(0, "noise")):
            model(X)
        sum(layer.v.square().mean() for layer in trace.values()).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    require_equal(*both(work, noisy("vgg5")))


@pytest.mark.parametrize("forgotten", ["random", "norms", "training", "requires_grad"])
def test_the_comparison_notices_what_is_not_put_back(monkeypatch, forgotten):
    """Planted faults: draws go on, batches count twice, modes and frozen weights are lost."""
    real = module._AsBefore.__init__

    def forgetting(self, modules, device):
        real(self, modules, device)
        if forgotten == "random":
            self._random = self._sources = []
        if forgotten == "norms":
            self._norms = []
        self._state = [each for each in self._state if each[1] != forgotten]

    monkeypatch.setattr(module._AsBefore, "__init__", forgetting)

    def work(model):
        model.train(forgotten != "training")
        constant = model.features[4].parameters() if forgotten == "requires_grad" else ()
        with randomness(model, stream(0, "noise")):
            with swapped(list(constant), "requires_grad", False):
                loss = functional.cross_entropy(model(X), Y)
            model.train().zero_grad()
            loss.backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    with pytest.raises((AssertionError, CheckpointError)):
        require_equal(*both(work, noisy("sew18")))


def test_another_second_run_is_an_error_of_torch():
    """A layer that keeps other tensors the second time cannot pass unnoticed."""
    model = noisy("sew18").train()
    with checkpointed(model), pytest.raises(CheckpointError):
        with swapped([model.features[4]], "forward", lambda x, T: x.square().sqrt()):
            loss = model(X).sum()
        loss.backward()


@contextmanager
def kept_bytes():
    """Count the bytes that autograd keeps, one time for each piece of memory."""
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield seen


@pytest.mark.parametrize(("name", "most"), [("sew50", 0.35), ("wrn", 0.5), ("vgg11", 0.7)])
def test_less_is_kept(name, most):
    """A bottleneck block of six to eight tensors keeps one; a group of a VGG one of up to four."""
    kept = []
    for context in (nullcontext, checkpointed):
        model = NETWORKS[name](neuron=LIF(0.5)).train()
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        with kept_bytes() as seen, context(model) if context is checkpointed else context():
            output = model(X)
        kept.append(sum(size for place, size in seen.items() if place not in weights))
        del output
    assert kept[1] < most * kept[0], kept


def test_groups_are_blocks_or_two_neurons_with_their_pooling():
    for network in NETWORKS.values():
        for stage in (network().features, network().classifier):
            assert [layer for group in _groups(list(stage)) for layer in group] == list(stage)
    sew = NETWORKS["sew18"]().features
    assert [len(group) for group in _groups(list(sew))] == [4] + [1] * 8  # the stem, then blocks


@pytest.mark.slow
def test_a_training_with_attack_and_trace_ends_with_the_same_weights(tmp_path):
    images = ImageSet(X, Y, 4, "few", peak=1.0)
    data = Splits(images, images, images, (0.0,) * 3, (1.0,) * 3)
    options = TrainOptions(epochs=1, batch_size=4, lr=0.05, accumulate=2)
    results = {}
    for name, pieces in {"at": AT(eps=0.05), "at-tgo": AT(eps=0.05) | TGO()}.items():
        for on in (False, True):
            model = SEWResNet(3, 4, 2, width=0.05, neuron=NoisyLIF(0.5, sigma=0.5))
            chosen = replace(options, checkpoint_activations=on)
            train(model, data, pieces, chosen, out=tmp_path / f"{name}-{on}")
            results[on] = [each.clone() for each in model.state_dict().values()]
        for one, other in zip(results[False], results[True], strict=True):
            assert torch.equal(one, other)


def test_another_network_is_rejected_in_one_line(tmp_path):
    images = ImageSet(X, Y, 4, "few", peak=1.0)
    data = Splits(images, images, images, (0.0,) * 3, (1.0,) * 3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4))
    options = TrainOptions(checkpoint_activations=True)
    with pytest.raises(ValueError, match=r"leave train\.checkpoint_activations out") as caught:
        train(model, data, options=options, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
