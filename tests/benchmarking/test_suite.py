"""The benchmark: equal networks, resumed results, and numbers known beforehand."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from spikeguard.benchmarking import scaling, suite
from spikeguard.benchmarking import time_to_verdict as verdict
from spikeguard.benchmarking.equality import Unequal, require_equal, tied
from spikeguard.benchmarking.networks import (
    GPU,
    GPU_QUICK,
    NETWORKS,
    QUICK,
    Setup,
    build,
    firing_rates,
    sample,
)
from spikeguard.benchmarking.page import PAGE, write_page
from spikeguard.benchmarking.peak_memory import MeasurementFailed, peak_mib
from spikeguard.benchmarking.peers import FLOOR, PEERS, Unavailable, peer
from spikeguard.benchmarking.plot import NoMatplotlib, plot
from spikeguard.benchmarking.store import RESULTS, Store, identity
from spikeguard.benchmarking.suite import Benchmark, choose
from spikeguard.benchmarking.table import cells, markdown, notes, rows
from spikeguard.benchmarking.timing import Effort, faster_format, interleaved
from spikeguard.benchmarking.variants import WORKS, Variant, known_variants, ready, variant
from spikeguard.cli.entry import main
from spikeguard.kernels.selection import use_kernel
from spikeguard.models import CNN
from spikeguard.neurons import IF, LIF, Triangular
from spikeguard.rng import stream

pytestmark = pytest.mark.slow

TINY = {
    "cnn": Setup("cnn", 3, 4, 0.125),
    "wrn16_4": Setup("wrn16_4", 2, 2, 0.0625),
    "vgg5": Setup("vgg5", 2, 2, 0.03125),
}
ONCE = Effort(least=1, most=1, seconds=0)
PLAIN = ["spikeguard/multistep", "plain", "floor"]


@pytest.fixture(scope="module", params=TINY)
def setup(request):
    return TINY[request.param]


@pytest.fixture(scope="module")
def network(setup):
    return build(setup)


def reference(model, x):
    with torch.no_grad(), use_kernel("reference"):
        return model(x)


def made(name, model):
    try:
        return variant(name, model)
    except Unavailable as error:
        pytest.skip(str(error))


# --- the networks


def test_every_layer_of_a_measured_network_fires(setup, network):
    x, _ = sample(setup)
    rates = firing_rates(network, x)
    assert len(rates) >= 4
    assert all(0.03 < rate < 0.4 for rate in rates)


def test_equal_setups_give_equal_weights_and_images(setup, network):
    again = build(replace(setup, batch=7)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())
    assert torch.equal(sample(setup)[0], sample(setup)[0])


# --- equal networks


@pytest.mark.parametrize("name", [n for n in known_variants(slow=True) if n != "floor"])
def test_every_variant_has_the_networks_logits(name, setup, network):
    x, _ = sample(setup)
    require_equal(made(name, network), reference(network, x), tied(network, x), x)


@pytest.mark.parametrize("name", PEERS)
def test_a_planted_weight_difference_is_rejected(name):
    model, (x, _) = build(TINY["cnn"]), sample(TINY["cnn"])
    planted = made(name, model)
    with torch.no_grad():
        next(planted.model.parameters()).mul_(1.05)
    with pytest.raises(Unequal, match=rf"{name}: logits differ by up to .* not measured"):
        require_equal(planted, reference(model, x), tied(model, x), x)


def test_logits_of_another_shape_and_ties_everywhere_are_rejected():
    model, (x, _) = build(TINY["cnn"]), sample(TINY["cnn"])
    plain = variant("plain", model)
    expected = reference(model, x)
    with pytest.raises(Unequal, match="logits are"):
        require_equal(plain, expected[:, :5], torch.zeros(len(x), dtype=torch.bool), x)
    with pytest.raises(Unequal, match="nothing to compare"):
        require_equal(plain, expected, torch.ones(len(x), dtype=torch.bool), x)


def test_a_tie_is_found_and_another_potential_is_not():
    """A linear layer that copies pixel 1 to an IF neuron: v[t] is t times the pixel."""
    model = CNN(1, 2, 2, width=1, hidden=1, image_size=4).eval()
    silent = {n: torch.zeros_like(p) for n, p in model.state_dict().items()}
    silent["std"] = torch.ones_like(model.std)
    for name in silent:
        if name.endswith("running_var"):
            silent[name] = torch.ones_like(silent[name])
    model.load_state_dict(silent)
    assert not tied(model, torch.rand(3, 1, 4, 4, generator=stream(0))).any()
    drive = next(m for m in model.modules() if isinstance(m, torch.nn.Linear))
    drive.bias.data.fill_(1.0)
    assert tied(model, torch.rand(3, 1, 4, 4, generator=stream(0))).all()


@pytest.mark.parametrize("name", PEERS)
def test_peers_compute_the_input_gradient_up_to_what_they_detach(name):
    """At T = 1 there is no reset to detach: all libraries differentiate the same function."""
    model = build(TINY["cnn"])
    model.T = 1
    x, y = sample(TINY["cnn"])
    theirs = made(name, model)
    with ready("pgd", theirs, x, y) as run:
        found = run()
    with ready("pgd", variant("spikeguard/reference", model), x, y) as run:
        torch.testing.assert_close(found, run(), rtol=0, atol=0)


def test_the_floor_is_the_network_with_relu():
    model, (x, y) = build(TINY["cnn"]), sample(TINY["cnn"])
    features, classifier = model.features, model.classifier
    z = x
    for layer in (*features, *classifier):
        z = torch.relu(z) if isinstance(layer, LIF) else layer(z)
    with ready("eval", variant("floor", model), x, y) as run:
        torch.testing.assert_close(run(), z)


def test_networks_that_cannot_be_compared_are_rejected():
    with pytest.raises(ValueError, match="only LIF"):
        peer("plain", CNN(neuron=IF()))
    with pytest.raises(ValueError, match=r"Triangular\(1.0\)"):
        peer("plain", CNN(neuron=LIF(surrogate=Triangular(2.0))))


# --- missing libraries


class Absent:
    """An import finder that hides one package."""

    def __init__(self, name):
        self.name = name

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.name:
            raise ModuleNotFoundError(f"No module named {self.name!r}", name=self.name)


@pytest.mark.parametrize("name", ["spikingjelly", "snntorch", "norse"])
def test_a_missing_library_is_one_line_and_the_rest_is_measured(name, tmp_path, monkeypatch):
    for module in [m for m in sys.modules if m.split(".")[0] == name]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(name), *sys.meta_path])
    monkeypatch.setattr(suite, "_QUICK", ONCE)
    monkeypatch.setattr(suite, "peak_mib", lambda *_, **__: 1.0)
    names = [name, *PLAIN]
    bench = Benchmark({"cnn": TINY["cnn"]}, tmp_path, quick=True, names=names)
    store = bench.run()
    assert notes(store.cases) == [f"{name} is not installed: make bench-peers"]
    assert {row.variant for row in rows(store.cases)} == set(PLAIN)


def test_a_library_that_fails_on_import_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "snntorch", None)
    with pytest.raises(Unavailable, match=r"snntorch .*make bench-peers"):
        peer("snntorch", build(TINY["cnn"]))


# --- work, time, memory


@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("name", PLAIN)
def test_work_restores_the_flags_and_only_training_changes_weights(work, name):
    model, (x, y) = build(TINY["cnn"]), sample(TINY["cnn"])
    each = variant(name, model)
    before = {n: p.detach().clone() for n, p in each.model.named_parameters()}
    with ready(work, each, x, y) as run:
        assert torch.isfinite(run()).all()
    assert all(p.requires_grad for p in each.model.parameters())
    moved = any(not torch.equal(before[n], p) for n, p in each.model.named_parameters())
    assert moved == (work == "train")


def test_unknown_work_is_rejected():
    x, y = sample(TINY["cnn"])
    unknown = ready("sing", Variant("plain", torch.nn.Identity()), x, y)
    with pytest.raises(ValueError, match="unknown work 'sing'; known: train, pgd, eval"), unknown:
        pass


class Clock:
    """A clock that advances by given durations, cyclically."""

    def __init__(self, *durations):
        self.now, self.durations, self.place = 0.0, durations, 0

    def __call__(self):
        self.now += self.durations[self.place % len(self.durations)]
        self.place += 1
        return self.now


def test_variants_take_turns_and_repeats_stop_at_the_budget():
    x, y = sample(TINY["cnn"])
    order = []

    class Spy(torch.nn.Module):
        def __init__(self, name):
            super().__init__()
            self.name = name

        def forward(self, images):
            order.append(self.name)
            return images.flatten(1)[:, :10]

    pair = [Variant("a", Spy("a")), Variant("b", Spy("b"))]
    ticks = Clock(1.0)
    found = interleaved("eval", pair, [x, x], y, Effort(2, 9, seconds=0.0), ticks)
    assert order == ["a", "a", "b", "b", *["a", "b"] * 2]  # two warm-ups, two repeats
    assert found == {"a": [1.0, 1.0], "b": [1.0, 1.0]}
    order.clear()
    interleaved("eval", pair, [x, x], y, Effort(1, 4, seconds=1e9), Clock(1.0))
    assert order[4:] == ["a", "b"] * 4


@pytest.mark.parametrize(("durations", "chosen"), [((1, 5, 1, 5, 1, 2), True), ((1, 2), False)])
def test_the_faster_memory_format_is_chosen(durations, chosen):
    x, y = sample(TINY["cnn"])
    model = build(TINY["cnn"])
    calls = []

    def build_one(last):
        calls.append(last)
        return variant("plain", model, channels_last=last)

    assert faster_format(build_one, x, y, Clock(*durations)) == chosen
    assert calls == [False, True]


def test_memory_of_a_known_allocation():
    """64 MiB that a forward pass allocates are measured, and so is an allocation of 1 MiB."""
    code = (
        "import torch\n"
        "from spikeguard.benchmarking.peak_memory import measure\n"
        "from spikeguard.benchmarking.networks import Setup\n"
        "from spikeguard.benchmarking.variants import Variant\n"
        "class Hungry(torch.nn.Module):\n"
        "    def __init__(self, mib):\n"
        "        super().__init__()\n"
        "        self.mib = mib\n"
        "    def forward(self, x):\n"
        "        return x.flatten(1)[:, :10] + torch.ones(self.mib << 18).sum()\n"
        "setup = Setup('cnn', 1, 2)\n"
        "for mib in (1, 64):\n"
        "    print(measure('eval', Variant('plain', Hungry(mib)), setup))\n"
    )
    limits = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **limits},
    )
    little, much = map(float, done.stdout.split())
    assert little < 16
    assert 60 < much < 90


def test_memory_in_a_fresh_process_and_the_message_when_it_fails():
    assert peak_mib(TINY["cnn"], "eval", "plain") >= 0
    with pytest.raises(MeasurementFailed, match=r"plain: memory .*unknown work 'sing'"):
        peak_mib(TINY["cnn"], "sing", "plain")


# --- the table


CASES = {
    "equal/net": {"refused": {"norse": "norse is not installed: make bench-peers"}},
    "time/net/pgd": {
        "ms": {"spikeguard/cpu": 50.0, "plain": 200.0, "snntorch": 100.0, "floor": 80.0}
    },
    "memory/net/pgd/spikeguard/cpu": {"mib": 30.0},
    "memory/net/pgd/plain": {"mib": 60.0},
    "memory/net/pgd/snntorch": {"mib": 90.0},
    "memory/net/pgd/floor": {"refused": {"floor": "no memory"}},
}


def test_ratios_by_hand():
    found = {row.variant: row for row in rows(CASES)}
    ours, plain, floor = found["spikeguard/cpu"], found["plain"], found["floor"]
    assert (ours.speed_up, ours.of_floor, ours.mib, ours.of_memory) == (2.0, 0.625, 30.0, 0.5)
    assert (plain.speed_up, plain.of_floor, plain.of_memory) == (0.5, 2.5, 1.0)
    assert (floor.of_floor, floor.mib, floor.of_memory) == (1.0, None, None)
    assert cells(ours) == ("net", "pgd", "spikeguard/cpu", "50", "2.00x", "0.62", "30", "0.50")
    assert notes(CASES) == ["norse is not installed: make bench-peers", "no memory"]


def test_without_peers_or_floor_their_columns_are_empty():
    (row,) = rows({"time/net/pgd": {"ms": {"spikeguard/cpu": 50.0}}})
    assert cells(row)[4:] == ("", "", "", "")


def test_the_markdown_table_is_aligned():
    lines = markdown(("a", "long"), [("longer", "b")]).splitlines()
    assert lines == ["| a      | long |", "| ------ | ---- |", "| longer | b    |"]


def test_a_power_law_has_its_exponent_as_slope():
    assert scaling.slope([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1.0)
    assert scaling.slope([1, 2, 4], [5, 5, 5]) == pytest.approx(0.0)


def test_the_slope_is_in_the_last_line_of_an_axis():
    cases = {
        f"scaling/vgg5/T/{T}": {"train": 2.0 * T, "pgd": 1.0 * T, "mib": 3.0} for T in (1, 2, 4)
    }
    lines = scaling.rows(cases)
    assert [line[-1] for line in lines] == ["", "", "1.00 / 1.00 / 0.00"]


def test_the_verdicts_are_compared_with_the_plain_loop():
    first, *_, last = verdict.WAYS
    cases = {
        f"verdict/{first}": {"seconds": 60.0, "worst_case": 0.4, "images": 200},
        f"verdict/{last}": {"seconds": 10.0, "worst_case": 0.395, "images": 200},
    }
    assert [line[1:] for line in verdict.rows(cases)] == [
        ("200", "60.0", "1.00x", "40.0%"),
        ("200", "10.0", "6.00x", "39.5%"),
    ]


# --- results on the disk


def test_a_way_with_a_higher_worst_case_is_not_called_faster():
    first, *_, last = verdict.WAYS
    cases = {
        f"verdict/{first}": {"seconds": 60.0, "worst_case": 0.4, "images": 200},
        f"verdict/{last}": {"seconds": 10.0, "worst_case": 0.41, "images": 200},
    }
    assert verdict.rows(cases)[-1][3] == "weaker"


def card(**changed):
    return {**identity(quick=True, threads=1), **changed}


def test_results_are_read_back_and_nothing_is_measured_twice(tmp_path):
    store = Store(tmp_path, card())
    assert store.case("time/net/pgd", lambda: CASES["time/net/pgd"]) == CASES["time/net/pgd"]
    again = Store(tmp_path, card())
    assert (
        again.case("time/net/pgd", lambda: pytest.fail("measured twice"))
        == store.cases["time/net/pgd"]
    )
    assert rows(again.cases) == rows(store.cases)


@pytest.mark.parametrize("changed", [{"torch": "1.0"}, {"threads": 7}, {"quick": False}])
def test_another_machine_version_or_kind_is_rejected(tmp_path, changed):
    Store(tmp_path, card()).case("a", dict)
    (name,) = changed
    with pytest.raises(ValueError, match=f"holds a benchmark of another {name}.*--out"):
        Store(tmp_path, card(**changed))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"identity": 1, "cases": {}}'])
def test_damaged_results_are_rejected(tmp_path, text):
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(ValueError, match="is damaged; remove it"):
        Store(tmp_path, card())


def test_a_killed_benchmark_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "_QUICK", ONCE)
    monkeypatch.setattr(suite, "peak_mib", lambda *_, **__: 1.0)
    bench = Benchmark({"cnn": TINY["cnn"]}, tmp_path, quick=True, names=PLAIN)
    counted = []

    def kill(store):
        counted.append(len(store.cases))
        if len(counted) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(finished=kill)
    saved = json.loads((tmp_path / RESULTS).read_text())["cases"]
    assert list(saved) == ["equal/cnn", "time/cnn/eval"]
    store = bench.run(finished=lambda s: write_page(s, tmp_path))
    assert {key: store.cases[key] for key in saved} == saved
    assert len(rows(store.cases)) == 3 * len(PLAIN)
    assert all(row.mib == (None if row.work == "eval" else 1.0) for row in rows(store.cases))
    page = (tmp_path / PAGE).read_text()
    assert page.count("| cnn ") == 3 * len(PLAIN)
    before = (tmp_path / RESULTS).read_bytes()
    bench.run()
    assert (tmp_path / RESULTS).read_bytes() == before


def test_a_variant_that_computes_something_else_gets_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "_QUICK", ONCE)
    monkeypatch.setattr(suite, "peak_mib", lambda *_, **__: 1.0)

    def planted(name, model, **options):
        found = variant(name, model, **options)
        if name == "plain":
            with torch.no_grad():
                next(found.model.parameters()).mul_(1.05)
        return found

    monkeypatch.setattr(suite, "variant", planted)
    store = Benchmark({"cnn": TINY["cnn"]}, tmp_path, quick=True, names=PLAIN).run()
    assert {row.variant for row in rows(store.cases)} == {"spikeguard/multistep", "floor"}
    (line,) = notes(store.cases)
    assert line.startswith("cnn: plain: logits differ")


def test_the_full_run_adds_scaling_and_the_verdict(tmp_path, monkeypatch):
    def point(setup, axis, value, kernel):
        return {"train": value, "pgd": value**2}

    monkeypatch.setattr(suite.scaling, "point", point)
    monkeypatch.setattr(suite.verdict, "trained", lambda: (None, None))
    monkeypatch.setattr(
        suite.verdict,
        "time_to_verdict",
        lambda *_: {"seconds": 2.0, "worst_case": 0.5, "images": 4},
    )
    store = Benchmark({}, tmp_path).run(finished=lambda s: write_page(s, tmp_path))
    assert {line[-1] for line in scaling.rows(store.cases)} == {"", "1.00 / 2.00"}
    assert "scaling/vgg5/threads/2" not in store.cases  # this benchmark has one thread
    assert len(verdict.rows(store.cases)) == len(verdict.WAYS)
    assert "1.00 / 2.00" in (tmp_path / PAGE).read_text()


def test_the_number_of_threads_is_restored(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "_QUICK", ONCE)
    monkeypatch.setattr(suite, "peak_mib", lambda *_, **__: 1.0)
    seen = []
    Benchmark({"cnn": TINY["cnn"]}, tmp_path, quick=True, threads=2, names=["floor"]).run(
        progress=lambda *_: seen.append(torch.get_num_threads())
    )
    assert torch.get_num_threads() == 1
    assert 2 in seen
    with pytest.raises(ValueError, match="threads must be >= 1, got 0"):
        Benchmark({}, tmp_path, threads=0)


def test_memory_that_could_not_be_measured_is_named_and_retried(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise MeasurementFailed("floor: memory cannot be measured: Killed")

    monkeypatch.setattr(suite, "_QUICK", ONCE)
    monkeypatch.setattr(suite, "peak_mib", broken)
    bench = Benchmark({"cnn": TINY["cnn"]}, tmp_path, quick=True, names=["floor"])
    store = bench.run()
    assert [row.mib for row in rows(store.cases)] == [None] * 3
    assert "cnn, train: floor: memory cannot be measured: Killed" in notes(store.cases)
    monkeypatch.setattr(suite, "peak_mib", lambda *_, **__: 2.0)
    store = bench.run()
    assert [row.mib for row in rows(store.cases)] == [None, 2.0, 2.0]
    assert notes(store.cases) == []


# --- the verdict


class Sign(torch.nn.Module):
    """Class 1 above 1/2: an attack on a grey image succeeds when it crosses 1/2."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(4.0))

    def forward(self, x):
        score = self.scale * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], 1)


def test_every_way_finds_the_known_worst_case(monkeypatch):
    """At radius 0.1 the images at 0.55 and 0.45 are lost, two are wrong anyway: 4 of 8 survive."""
    grey = torch.tensor([0.9, 0.65, 0.55, 0.1, 0.35, 0.45, 0.8, 0.2])
    y = torch.tensor([1, 1, 1, 0, 0, 0, 0, 1])
    x = grey.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous()
    monkeypatch.setattr(verdict, "peer", lambda name, model: model)
    monkeypatch.setattr(verdict, "_BATCH", 3)
    for way in verdict.WAYS:
        found = verdict.time_to_verdict(Sign().eval(), (x, y), way)
        assert (found["worst_case"], found["images"]) == (0.5, 8), way


# --- the figure


def test_the_figure_is_written(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: make bench-peers")
    files = plot(rows(CASES), tmp_path / "plot")
    assert [file.name for file in files] == ["plot.svg", "plot.png"]
    text = files[0].read_text()
    assert "<svg" in text
    assert files[1].read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_error_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(NoMatplotlib, match=r"no plot: .*spikeguard\[bench\]"):
        plot(rows(CASES), tmp_path / "plot")


# --- the command


def test_bench_has_help_with_examples(capsys):
    assert main(["bench", "--help"]) == 0
    assert "spikeguard bench --quick" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [[], ["--quick"]])
def test_an_unknown_network_is_one_line_and_exit_code_2(flags, capsys, tmp_path):
    assert main(["bench", *flags, "--networks", "vgg11-t5", "--out", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("spikeguard bench: bench: unknown network 'vgg11-t5'. Did you mean")
    assert error.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_without_a_gpu_the_device_is_refused_in_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", "--device", "cuda", "--out", str(tmp_path / "b")]) == 2
    error = capsys.readouterr().err
    assert "device cuda: torch sees no CUDA device" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "b").exists()
    with pytest.raises(ValueError, match="device is one of cpu, cuda; got 'tpu'"):
        Benchmark({}, tmp_path, device="tpu")


def test_each_device_has_its_kernels_and_networks():
    found = {device: known_variants(slow=True, device=device) for device in ("cpu", "cuda")}
    assert "spikeguard/triton" in found["cuda"] and "spikeguard/cpu" not in found["cuda"]
    assert "spikeguard/triton" not in found["cpu"]
    assert set(found["cpu"]) & set(found["cuda"]) >= {"spikeguard/reference", *PEERS, FLOOR}
    assert choose([], quick=True, device="cuda") == GPU_QUICK
    assert choose([], device="cuda") == GPU


@pytest.mark.parametrize("before", [True, False])
def test_logits_are_compared_without_rounded_products(before):
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    own = [backend.allow_tf32 for backend in backends]
    try:
        for backend in backends:
            backend.allow_tf32 = before
        with pytest.raises(KeyError), suite._full_precision():
            assert not any(backend.allow_tf32 for backend in backends)
            raise KeyError
        assert [backend.allow_tf32 for backend in backends] == [before, before]
    finally:
        for backend, value in zip(backends, own, strict=True):
            backend.allow_tf32 = value


def test_networks_are_chosen_by_name():
    assert choose([]) == NETWORKS
    assert choose([], quick=True) == QUICK
    assert list(choose(["wrn-t4", "cnn-t10"])) == ["cnn-t10", "wrn-t4"]


def test_the_command_prints_tables_and_their_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(suite, "_QUICK", ONCE)
    monkeypatch.setattr(suite, "peak_mib", lambda *_, **__: 1.0)
    monkeypatch.setitem(QUICK, "cnn-t10", TINY["cnn"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ["bench", "--quick", "--networks", "cnn-t10", "--threads", "1", "--out", str(tmp_path)]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "vs best peer" in shown.out
    assert f"results in {tmp_path}" in shown.out
    assert "no plot" in shown.err
    assert {file.name for file in tmp_path.iterdir()} == {RESULTS, PAGE}
