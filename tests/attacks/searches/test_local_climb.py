"""LocalClimb: finds what only one pixel inside the box gives, and never leaves set or descent."""

import pytest
import torch
from torch import nn

from spikeguard.attacks import L1, L2, Linf, LocalClimb, cost
from spikeguard.attacks.model_access import crafting
from spikeguard.models import MLP
from spikeguard.neurons import NoisyLIF
from spikeguard.rng import SampleStreams, stream
from tests.toys.stepping_attacks import spiking

EPS = 0.1
KEY = 5  # the pixel that fools the lattice


class Lattice(nn.Module):
    """Constant pieces: class 1 where pixel 5 is in [0.53, 0.56), class 0 everywhere else."""

    def forward(self, x):
        pixel = x.flatten(1)[:, KEY]
        inside = ((pixel >= 0.53) & (pixel < 0.56)).to(x)
        return torch.stack([0.5 - inside, inside - 0.5], 1) + 0 * x.flatten(1).sum(1, keepdim=True)


def climbed(attack, model, x, y, start, *, batch_size=64, ids=None, seed=3):
    streams = SampleStreams(seed, torch.arange(len(x)) if ids is None else ids)
    with crafting(model, x, y, streams) as own:
        return attack.climb(model, x, y, start, own, batch_size=batch_size)


def vectors(n=24):
    x = torch.rand(n, 16, generator=stream(0, "x"))
    with torch.no_grad():
        return x, spiking()(x).argmax(1)


def margins(model, x, y):
    with torch.no_grad():
        logits = model(x)
    own = logits.gather(1, y[:, None])[:, 0]
    return own - logits.scatter(1, y[:, None], -torch.inf).amax(1)


def test_a_value_of_one_pixel_inside_the_box_is_found():
    """The faces of the box, 0.4 and 0.6, do not fool; the climb needs a sixth of the interval."""
    model, x = Lattice(), torch.full((6, 1, 3, 3), 0.5)
    y = torch.zeros(6, dtype=torch.int64)
    with torch.no_grad():
        for face in (x - EPS, x + EPS):
            assert (model(face).argmax(1) == 0).all()
    found = climbed(LocalClimb(Linf(EPS), 2000), model, x, y, x)
    assert found.fooled.all()
    assert (
        (found.points.flatten(1)[:, KEY] >= 0.53) & (found.points.flatten(1)[:, KEY] < 0.56)
    ).all()
    plain = LocalClimb(Linf(EPS), 2000)(model, x, y, generator=SampleStreams(3, torch.arange(6)))
    assert torch.equal(plain, found.points), "the call climbs from the input"


def test_out_of_reach_nothing_is_found():
    x, y = torch.full((3, 1, 3, 3), 0.3), torch.zeros(3, dtype=torch.int64)
    found = climbed(LocalClimb(Linf(EPS), 400), Lattice(), x, y, x)
    assert not found.fooled.any() and (found.margin == 1).all()


@pytest.mark.parametrize("threat", [Linf(0.1), L2(0.3), L1(0.8)], ids=["linf", "l2", "l1"])
def test_points_stay_in_the_set_and_their_margins_never_rise(threat):
    (x, y), model = vectors(), spiking()
    start = threat.sample(x, SampleStreams(9, torch.arange(len(x))))
    before = margins(model, start, y)
    last = before
    for queries in (8, 80, 400):
        found = climbed(LocalClimb(threat, queries), model, x, y, start)
        threat.check(found.points, x)
        now = margins(model, found.points, y)
        assert torch.equal(found.fooled, model(found.points).argmax(1) != y)
        kept = ~found.fooled
        assert torch.equal(now[kept], found.margin[kept])
        assert (now <= last).all(), "a longer climb begins like a shorter one"
        last = now
    assert (last < before).any()


def test_it_starts_where_it_is_told_to():
    """A start that fools is returned; with all margins equal the start is a few changes away."""
    (x, y), model = vectors(), spiking()
    wrong = (y + 1) % 3
    found = climbed(LocalClimb(Linf(EPS), 80), model, x, wrong, x)
    assert found.fooled.all() and torch.equal(found.points, x)
    grey = torch.full((4, 1, 3, 3), 0.3)
    start = torch.full_like(grey, 0.35)
    one = climbed(
        LocalClimb(Linf(EPS), 8), Lattice(), grey, torch.zeros(4, dtype=torch.int64), start
    )
    changed = (one.points != start).flatten(1).sum(1)
    assert set(changed.tolist()) <= {1, 2}, "one iteration changes one or two pixels"


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_a_sample_depends_neither_on_the_batch_size_nor_on_the_other_samples(batch_size):
    (x, y), model = vectors(), spiking()
    attack = LocalClimb(Linf(0.08), 160)
    whole = climbed(attack, model, x, y, x, batch_size=1000)
    assert 0 < whole.fooled.sum() < len(x)
    order = torch.randperm(len(x), generator=stream(0, "order"))[:10]
    for part in (torch.arange(len(x)), order):
        some = climbed(attack, model, x[part], y[part], x[part], batch_size=batch_size, ids=part)
        for one, other in zip(some[:3], whole[:3], strict=True):
            assert torch.equal(one, other[part])
        assert torch.equal(some.fooled_at.isfinite(), some.fooled)


def test_fooled_samples_get_no_further_queries():
    """The model sees each remaining sample eight times an iteration, and every start once."""

    class Counting(Lattice):
        seen = 0

        def forward(self, x):
            self.seen += len(x)
            return super().forward(x)

    model, x = Counting(), torch.full((5, 1, 3, 3), 0.5)
    y = torch.zeros(5, dtype=torch.int64)
    climbed(LocalClimb(Linf(EPS), 4000), model, x, y, x)
    assert model.seen < 5 * 4000 / 4
    firm, model = torch.full((5, 1, 3, 3), 0.1), Counting()
    climbed(LocalClimb(Linf(EPS), 43), model, firm, y, firm)
    assert model.seen == 5 * (1 + 40)


def test_bad_arguments_are_rejected_in_one_line():
    with pytest.raises(ValueError, match="queries must be >= 8, got 7") as error:
        LocalClimb(Linf(EPS), 7)
    assert "\n" not in str(error.value)
    noisy = MLP(16, 3, T=2, hidden=(4,), neuron=NoisyLIF(0.5, 0.3)).eval()
    x, y = vectors(4)
    with pytest.raises(ValueError, match=r"LocalClimb: .* noise") as error:
        LocalClimb(Linf(EPS), 8)(noisy, x, y)
    assert "\n" not in str(error.value)
    assert cost(LocalClimb(Linf(EPS), 300)) == pytest.approx(100)
