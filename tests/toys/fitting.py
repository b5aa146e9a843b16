"""Small networks for tests: weights from a named stream, and a few epochs of training."""

import torch
from torch.nn import functional

from spikeguard.models import MLP


def drawn(net, scale, generator):
    """Return the network with normal weights of a deviation."""
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    return net


def fitted(model, data, epochs, order):
    """Return the model after some epochs of Adam, in evaluation mode."""
    x, y = data
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=order).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimiser.step()
    return model.eval()


def twin(net, neuron, **options):
    """Return our perceptron with a neuron and the weights of a network of two linear layers."""
    ours = MLP(num_classes=len(list(net.parameters())[-1]), neuron=neuron, **options)
    weights = zip(dict(ours.named_parameters()), net.parameters(), strict=True)
    missing, unexpected = ours.load_state_dict(dict(weights), strict=False)
    assert (set(missing), unexpected) == ({"mean", "std"}, [])
    return ours.eval()
