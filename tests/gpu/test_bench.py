"""The benchmark on a GPU: equal logits, times and the memory of its tensors."""

import pytest
import torch

from spikeguard.benchmarking import suite
from spikeguard.benchmarking.networks import Setup
from spikeguard.benchmarking.peak_memory import peak_cuda_mib
from spikeguard.benchmarking.suite import Benchmark
from spikeguard.benchmarking.table import notes, rows
from spikeguard.benchmarking.timing import Effort
from spikeguard.benchmarking.variants import Variant

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

NAMES = ["spikeguard/triton", "spikeguard/multistep", "plain", "floor"]


def test_every_variant_has_times_and_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "_QUICK_GPU", Effort(least=1, most=1, seconds=0))
    networks = {"vgg5": Setup("vgg5", 2, 4, 0.0625)}
    store = Benchmark(networks, tmp_path, quick=True, names=NAMES, device="cuda").run()
    assert notes(store.cases) == []
    found = rows(store.cases)
    assert [row.variant for row in found if row.work == "train"] == NAMES
    assert all(row.ms > 0 for row in found)
    assert all(row.mib > 0 for row in found if row.work != "eval")


def test_the_bytes_of_a_known_tensor_are_counted():
    """64 MiB that a forward pass makes and frees."""

    class Hungry(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] + torch.ones(16 << 20, device=x.device).sum()

    x = torch.rand(2, 3, 4, 4, device="cuda")
    y = torch.zeros(2, dtype=torch.int64, device="cuda")
    found = peak_cuda_mib("eval", Variant("plain", Hungry().cuda()), x, y)
    assert 64 <= found < 65
