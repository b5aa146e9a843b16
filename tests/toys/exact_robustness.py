"""The exact robustness of small spiking networks: branch and bound over first-layer spike trains.

With direct input the current c of a first-layer neuron is constant and linear in the image. The
neuron then fires every k steps, where k is the first step at which c (1 + d + ... + d^(k-1))
reaches the threshold (d is the decay). So T thresholds divide the axis of c into T + 1 pieces, one
for each spike train, and a choice of pieces for all neurons is a polyhedron of images on which the
logits are constant. A node of the search allows a range of pieces to each neuron. Interval
arithmetic over later layers and a linear program on the images remove nodes.

Nothing here depends on rounding: potentials and logits closer than ``TIE`` to a decision are taken
either way, polyhedra within ``THIN`` of empty are neither empty nor found, and an image whose
answer depends on one of these is ambiguous.
"""

from dataclasses import dataclass

import numpy as np
from torch import nn

from spikeguard.encoders import Direct
from spikeguard.neurons import LIF
from tests.toys.linear_programs import LARGEST, roomiest

TIE = 1e-5  # potentials and logits; float32 rounds a hundred times finer
THIN = 1e-6  # pixels
_BATCH = 128
_FAR = 1e6  # the limit of a row that does not bind


@dataclass(frozen=True)
class Verdict:
    """Whether an adversarial image exists (None: ambiguous), the roomiest found, and the nodes.

    ``room`` is the Linf distance from the image to the next change of a first-layer spike.
    """

    adversarial: bool | None
    x: np.ndarray | None = None
    room: float = 0.0
    nodes: int = 0


@dataclass(frozen=True)
class Ranges:
    """Nodes of the search: first and last allowed piece of each first-layer neuron [B, N]."""

    first: np.ndarray
    last: np.ndarray

    def __getitem__(self, rows):
        return Ranges(self.first[rows], self.last[rows])

    def __len__(self):
        return len(self.first)


class Exact:
    """A perceptron of hard-reset LIF neurons with direct input, in float64.

    Piece p < T of a first-layer neuron is the spike train of period p + 1; piece T is silence.
    """

    def __init__(self, model):
        assert isinstance(model.encoder, Direct)
        flatten, *layers = model.classifier
        assert isinstance(flatten, nn.Flatten)
        assert [type(layer) for layer in layers[1::2]] == [LIF] * (len(layers) // 2)
        neurons, self.T = layers[1::2], model.T
        assert all(n.reset == "hard" and n.input_scale == 1 for n in neurons)
        self.dynamics = [(n.decay, n.v_th) for n in neurons]
        self.layers = [(_double(each.weight), _double(each.bias)) for each in layers[::2]]
        weight, bias = self.layers[0]
        mean, std = (_double(each).reshape(-1) for each in (model.mean, model.std))
        self.weight, self.bias = weight / std, bias - (weight / std * mean).sum(1)
        decay, v_th = self.dynamics[0]
        reached = v_th / np.cumsum(decay ** np.arange(self.T))
        self.lowest = np.append(reached, -np.inf)  # current of each piece: at least this,
        self.highest = np.insert(reached, 0, np.inf)  # and below this
        steps = np.arange(1, self.T + 1)
        self.trains = np.array([steps % p == 0 for p in steps] + [steps < 0], dtype=float)
        reach = range(self.T + 1)
        self.quietest, self.busiest = (
            np.array([[pick(self.trains[min(i, j) : j + 1]) for j in reach] for i in reach])
            for pick in (lambda s: s.min(0), lambda s: s.max(0))
        )

    def pieces(self, x):
        """Return the piece of every first-layer neuron [..., N] for images [..., D]."""
        current = x @ self.weight.T + self.bias
        return (current[..., None] < self.lowest[:-1]).sum(-1)

    def root(self, low, high):
        """Return the one node with all pieces that the currents of a box reach."""
        middle, radius = (low + high) / 2, (high - low) / 2
        centre, spread = self.weight @ middle + self.bias, np.abs(self.weight) @ radius + THIN
        ends = (
            ((c[:, None] < self.lowest[:-1]).sum(-1)) for c in (centre + spread, centre - spread)
        )
        return Ranges(*(end[None] for end in ends))

    def logit_gaps(self, nodes, y):
        """Return bounds on each logit minus that of class y, [B, K] and [B, K]."""
        low, high = (
            table[nodes.first, nodes.last].transpose(2, 0, 1)
            for table in (self.quietest, self.busiest)
        )
        for (weight, bias), (decay, v_th) in zip(self.layers[1:-1], self.dynamics[1:], strict=True):
            low, high = _spike_bounds(*_affine(low, high, weight, bias), decay, v_th)
        weight, bias = self.layers[-1]
        return _affine(low.mean(0), high.mean(0), weight - weight[y], bias - bias[y])

    def limits(self, nodes):
        """Return the limits [B, 2N] of the rows (weight, -weight) on the images of each node."""
        high, low = self.highest[nodes.first], self.lowest[nodes.last]
        found = np.concatenate([high - self.bias, self.bias - low], -1)
        return np.where(np.isfinite(found), found, _FAR)

    def decide(self, x, y, eps):
        """Return the verdict on one image [D] of class y."""
        low, high = np.maximum(x - eps, 0.0), np.minimum(x + eps, 1.0)
        images = Images(np.concatenate([self.weight, -self.weight]), low, high)
        stack, unclear, seen = [self.root(low, high), self.sampled(x, y, low, high)], False, 0
        while stack:
            nodes, rest = stack[-1][-_BATCH:], stack[-1][:-_BATCH]
            stack[-1:] = [rest] if len(rest) else []
            seen += len(nodes)
            limits = self.limits(nodes)
            least, most = (np.delete(gap, y, 1) for gap in self.logit_gaps(nodes, y))
            held = (most < -TIE).all(1) | images.known_empty(limits)
            wrong = (least > TIE).any(1)
            open_nodes = []
            for node in np.flatnonzero(~held):
                found = images.roomiest(limits[node])
                if found.bound < -THIN:
                    continue
                if wrong[node] and found.room > THIN:
                    return Verdict(True, found.x, found.room, seen)
                if wrong[node] or (nodes.first[node] == nodes.last[node]).all():
                    unclear = True
                else:
                    open_nodes.append(node)
            if open_nodes:
                stack.append(self.halves(nodes[open_nodes]))
        return Verdict(None if unclear else False, nodes=seen)

    def sampled(self, x, y, low, high, count=256):
        """Return the nodes of one image each that are wrong, among x, random points and corners."""
        random = np.random.default_rng(0)
        points = random.uniform(low, high, (count, len(x)))
        corners = np.where(random.random(points.shape) < 0.5, low, high)
        drawn = np.unique(self.pieces(np.concatenate([x[None], points, corners])), axis=0)
        nodes = Ranges(drawn, drawn)
        return nodes[(self.logit_gaps(nodes, y)[0] > TIE).any(1)]

    def halves(self, nodes):
        """Split the pieces of the neuron whose spikes move the next layer most."""
        moves = np.abs(self.busiest - self.quietest)[nodes.first, nodes.last].sum(-1)
        neuron = (moves * np.abs(self.layers[1][0]).sum(0)).argmax(1)
        rows = np.arange(len(nodes))
        middle = (nodes.first[rows, neuron] + nodes.last[rows, neuron]) // 2
        first, last = nodes.first.copy(), nodes.last.copy()
        last[rows, neuron], first[rows, neuron] = middle, middle + 1
        return Ranges(np.concatenate([nodes.first, first]), np.concatenate([last, nodes.last]))


class Images:
    """The ball of one image: which limits of the first layer's rows it meets, and proofs so far."""

    def __init__(self, rows, low, high):
        self.rows, self.low, self.high = rows, low, high
        self.norms = np.abs(rows).sum(1)
        self.reached = np.where(rows > 0, rows * high, rows * low).sum(1)  # largest of each row
        self.proofs = np.zeros((0, len(rows)))
        self.least = np.zeros(0)

    def roomiest(self, limits):
        """Return the roomiest image for limits [2N], and remember a proof that there is none."""
        binding = np.flatnonzero(limits - self.norms * LARGEST < self.reached)
        found = roomiest(self.rows[binding], limits[binding], self.low, self.high)
        if found.bound < -THIN:
            proof = np.zeros(len(self.rows))
            proof[binding] = found.multipliers
            proof /= proof @ self.norms
            combined = proof @ self.rows
            least = np.where(combined > 0, combined * self.low, combined * self.high).sum()
            self.proofs = np.concatenate([self.proofs, proof[None]])
            self.least = np.append(self.least, least)
        return found

    def known_empty(self, limits):
        """Return for limits [B, 2N] whether an earlier proof shows that no image meets them."""
        return (limits @ self.proofs.T - self.least < -THIN).any(1)


def _affine(low, high, weight, bias):
    """Return bounds on weight s + bias for s between two bounds."""
    up, down = np.maximum(weight, 0.0).T, np.minimum(weight, 0.0).T
    return low @ up + high @ down + bias, high @ up + low @ down + bias


def _spike_bounds(low, high, decay, v_th):
    """Return bounds on the spikes for bounds on the currents [T, B, N]."""
    u_low = u_high = np.zeros_like(low[0])
    surely, perhaps = [], []
    for at_least, at_most in zip(low, high, strict=True):
        v_low, v_high = decay * u_low + at_least, decay * u_high + at_most
        fires, may_fire = v_low >= v_th + TIE, v_high >= v_th - TIE
        u_low = np.where(fires, 0.0, np.where(may_fire, np.minimum(v_low, 0.0), v_low))
        u_high = np.where(
            fires, 0.0, np.where(may_fire, np.maximum(np.minimum(v_high, v_th), 0.0), v_high)
        )
        surely.append(fires)
        perhaps.append(may_fire)
    return np.array(surely, dtype=float), np.array(perhaps, dtype=float)


def _double(tensor):
    return tensor.detach().double().numpy()
