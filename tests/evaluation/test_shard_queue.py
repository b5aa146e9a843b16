"""ShardQueue: how many shards, and a shard that is lost to another rank while it runs."""

import json

import pytest
import torch

from spikeguard.attacks import suite
from spikeguard.data import ImageSet
from spikeguard.evaluation.options import EvaluationOptions
from spikeguard.evaluation.plan import plan_evaluation
from spikeguard.evaluation.shard_queue import ShardQueue, shards_for
from spikeguard.storage.claims import Claims
from spikeguard.storage.owner import Owner


@pytest.mark.parametrize(
    ("ranks", "samples", "batch_size", "shards"),
    [
        (2, 10000, 128, 8),  # four a rank
        (16, 1000, 64, 16),  # not smaller than a batch, unless a rank would get none
        (2, 100, 16, 6),
        (3, 10, 128, 3),
    ],
)
def test_several_shards_a_rank(ranks, samples, batch_size, shards):
    assert shards_for(ranks, samples, batch_size) == shards


def test_a_shard_that_another_rank_took_over_is_left_to_it(snn, tmp_path):
    """The second rank is planted while the first runs; it stores nothing and claims no more."""
    y = torch.tensor([0, 1, 2, 0])
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    options = EvaluationOptions(batch_size=4, out=tmp_path / "out")
    plan = plan_evaluation(snn, ImageSet(x, y, 3, "planted", peak=1.0), suite("quick", eps=0.1),
                           options)  # fmt: skip
    claims = Claims(tmp_path / "ranks")
    queue = ShardQueue(plan, claims, "a@", lambda: False)
    planted = tmp_path / "ranks" / "a@00000000.claim-1"

    def other_takes_over(done, total, what):
        planted.write_text(json.dumps(Owner.this_process().to_dict()))

    assert not queue.run_one(other_takes_over)
    assert plan.missing == [0] and claims.generations("a@00000000") == [1]
    planted.unlink()
    assert queue.run_one() and plan.missing == []
    assert not queue.run_one()
