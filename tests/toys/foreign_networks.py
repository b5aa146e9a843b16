"""Spiking layers that follow the conventions of other frameworks, without the frameworks."""

import torch
from torch import nn

from spikeguard.neurons import Sigmoid

T = 4


class Step(torch.autograd.Function):
    """A strict or loose threshold with a sigmoid's derivative."""

    @staticmethod
    def forward(ctx, x, alpha, strict):
        ctx.save_for_backward(x)
        ctx.alpha = alpha
        return ((x > 0) if strict else (x >= 0)).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * Sigmoid(ctx.alpha)(x), None, None


class SpikeFunction(nn.Module):
    def __init__(self, alpha=4.0):
        super().__init__()
        self.alpha = alpha

    def forward(self, x):
        return Step.apply(x, self.alpha, False)

    def extra_repr(self):
        return f"alpha={self.alpha}"


def of_package(package):
    """Give a class the module name of a package."""

    def mark(cls):
        cls.__module__ = package
        return cls

    return mark


@of_package("spikingjelly.toy")
class MemoryModule(nn.Module):
    """A neuron that keeps its potential between calls until it is reset."""

    def __init__(self, step_mode="s"):
        super().__init__()
        self._memories = {"v": 0.0}
        self.step_mode = step_mode
        self.surrogate_function = SpikeFunction()
        self.v_threshold, self.v_reset, self.detach_reset = 1.0, 0.0, False

    def reset(self):
        self._memories["v"] = 0.0

    def single(self, x):
        v = self.charge(self._memories["v"], x)
        s = self.surrogate_function(v - self.v_threshold)
        self._memories["v"] = v * (1 - s)
        return s

    def forward(self, x):
        return self.single(x) if self.step_mode == "s" else torch.stack([self.single(t) for t in x])


@of_package("spikingjelly.toy")
class LIFNode(MemoryModule):
    tau, decay_input = 2.0, False

    def charge(self, v, x):
        return v - v / self.tau + x


@of_package("spikingjelly.toy")
class OldNode(LIFNode):
    """As release 0.0.0.0.14: fires without a gradient in evaluation mode."""

    def jit_eval_single_step_forward(self, x):
        v = self.charge(self._memories["v"], x)
        s = (v >= self.v_threshold).to(x)
        self._memories["v"] = v * (1 - s)
        return s

    def single(self, x):
        return super().single(x) if self.training else self.jit_eval_single_step_forward(x)


OldNode.__name__ = "LIFNode"


@of_package("spikingjelly.toy")
class MisnamedLIFNode(LIFNode):
    """Named LIFNode, but its leak is different."""

    def charge(self, v, x):
        return 0.3 * v + x


MisnamedLIFNode.__name__ = "LIFNode"


@of_package("snntorch.toy")
class SpikingNeuron(nn.Module):
    """A neuron with hidden state in a buffer, whose reset acts one step later and is detached."""

    def __init__(self, beta=0.5, reset_mechanism="subtract", init_hidden=True):
        super().__init__()
        self.register_buffer("mem", torch.zeros(0), False)
        self.register_buffer("beta", torch.tensor(beta))
        self.register_buffer("threshold", torch.tensor(1.0))
        self.reset_mechanism, self.init_hidden = reset_mechanism, init_hidden
        self.reset_delay, self.inhibition, self.state_quant = True, False, False
        self.spike_grad = lambda x: Step.apply(x, 4.0, True)

    def reset_mem(self):
        self.mem = torch.zeros_like(self.mem)
        return self.mem

    def forward(self, x, mem=None):
        if mem is not None:
            self.mem = mem
        if self.mem.shape != x.shape:
            self.mem = torch.zeros_like(x)
        reset = self.spike_grad(self.mem - self.threshold).detach()
        if self.reset_mechanism == "zero":
            self.mem = self.beta * ((1 - reset) * self.mem) + x
        else:
            self.mem = self.beta * self.mem + x - reset * self.threshold
        spikes = self.spike_grad(self.mem - self.threshold)
        return spikes if self.init_hidden else (spikes, self.mem)


@of_package("snntorch.toy")
class Leaky(SpikingNeuron):
    pass


class LIFSpike(nn.Module):
    """The neuron of papers' code: time folded into the batch, no state."""

    def __init__(self):
        super().__init__()
        self.act, self.thresh, self.tau, self.gama = self.fire, 1.0, 0.5, 1.0

    @staticmethod
    def fire(x, gama):
        return Step.apply(x, 4.0 / gama, False)

    def forward(self, x):
        mem, spikes = 0, []
        for current in x.view(T, -1, *x.shape[1:]):
            mem = mem * self.tau + current
            s = self.act(mem - self.thresh, self.gama)
            mem = (1 - s) * mem
            spikes.append(s)
        return torch.cat(spikes)


class AxisOneSpike(LIFSpike):
    """The same neuron with time on axis 1, [B, T, ...]."""

    def forward(self, x):
        mem, spikes = 0, []
        for t in range(x.shape[1]):
            mem = mem * self.tau + x[:, t]
            s = self.act(mem - self.thresh, self.gama)
            mem = (1 - s) * mem
            spikes.append(s)
        return torch.stack(spikes, 1)


@of_package("norse.toy")
class SNNCell(nn.Module):
    """A neuron that gets its state as an argument, returns it, and keeps none."""

    activation = None  # its surrogate cannot be exchanged

    def forward(self, x, state=None):
        v = x if state is None else 0.5 * state + x
        s = Step.apply(v - 1, 4.0, False)
        return s, v * (1 - s)
