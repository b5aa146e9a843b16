"""Every analysis on event frames: it measures them, or says in one line why it does not."""

import numpy as np
import pytest
import torch

from spikeguard.analysis import ANALYSES
from spikeguard.analysis.base import NotApplicable
from spikeguard.analysis.saliency import Saliency
from spikeguard.neurons import DLIF, NoisyLIF
from tests.toys.analyses import built
from tests.toys.event_frames import T, dots, trained, untrained

NOT_FOR_EVENTS = {"synchrony": "the frames of events differ from step to step already"}


@pytest.mark.parametrize("name", ANALYSES)
def test_every_analysis_takes_frames_or_says_why_not(name):
    if name in NOT_FOR_EVENTS:
        with pytest.raises(NotApplicable) as caught:
            built(name)(trained(), dots(8))
        assert NOT_FOR_EVENTS[name] in str(caught.value) and "\n" not in str(caught.value)
        return
    for neuron in (None, NoisyLIF(0.5, 0.3, v_th=0.3), DLIF(T=T)):  # some need noise or a gate
        model = trained() if neuron is None else untrained(neuron)
        try:
            found = built(name)(model, dots(8))
        except NotApplicable as error:
            assert "\n" not in str(error)
            continue
        assert found.samples <= 8
        kind = dict.fromkeys(("one", "two"), found)
        analysis = ANALYSES[name]
        assert isinstance(analysis.result(kind), str)
        analysis.plots(kind)
        analysis.table(kind)
        return
    pytest.fail(f"{name} applies to no network of event frames")


def test_saliency_sums_over_frames_and_polarities():
    """The map of frames is the sum of the absolute gradients of all frames and channels."""
    data, model = dots(6), trained()
    found = Saliency(limit=6, show=2)(model, data)
    x, y = data.batch(slice(6))
    x.requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), y, reduction="sum")
    (grad,) = torch.autograd.grad(loss, x)
    want = grad.abs().sum((1, 2))[:2]
    np.testing.assert_allclose(found["gradient"], want, rtol=1e-4, atol=1e-7)
    shown = x.detach().sum((1, 2))[:2]
    want = shown / shown.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(found["pixels"], want, rtol=1e-6)
