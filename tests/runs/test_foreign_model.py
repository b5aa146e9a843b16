"""``spikeguard attack --model``: a foreign model, its weights and its folder."""

import importlib
import json
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spikeguard.cli.entry import main
from spikeguard.evaluation.result import Evaluation
from tests.toys.held_folders import other_process_holds

NETS = '''
import torch
from torch import nn

class Net(nn.Module):
    """Four steps inside, [T, B, K] out."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, x):
        return torch.stack([self.layer(x.flatten(1)) * (t + 1) for t in range(4)])

def net():
    torch.manual_seed(0)
    return Net()

def drawn():
    torch.seed()
    return Net()

def adapted():
    import spikeguard as sg
    return sg.foreign(net(), T=4, readout="last")

def blind():
    return nn.Sequential(nn.Flatten(), nn.Linear(100, 10))

def colours():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 10))

class Switching(Net):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)

    def forward(self, x):
        self.norm.train()
        return super().forward(self.norm(x.flatten(1)))

class Turned(Net):
    """Expects [T, B, ...]: the shape is right, the presentation is not."""

    def forward(self, x):
        return self.layer(x.flatten(2))

def boom():
    raise OSError("no such\\ncamera")

def number():
    return 3

three = 3
'''


class Code:
    """Would run when it is unpickled."""

    def __reduce__(self):
        return (print, ("unpickled",))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder holds the user's module; its import is forgotten afterwards."""
    (tmp_path / "my_nets.py").write_text(NETS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    sys.modules.pop("my_nets", None)
    yield tmp_path
    sys.modules.pop("my_nets", None)
    assert sys.path == path


def attack(*words):
    return main(["attack", "--suite", "baseline", "--eps", "0.1", "--limit", "20", *words])


def usual(*words):
    return attack("--model", "my_nets:net", "--T", "4", "--data", "digits", *words)


def state():
    torch.manual_seed(1)
    layer = nn.Linear(64, 10)
    return {f"layer.{name}": value.detach() for name, value in layer.state_dict().items()}


def test_results_are_those_of_a_run_and_are_read_back(capsys):
    assert usual("--out", "mine") == 0
    first = capsys.readouterr()
    assert "results in mine/attacks" in first.out
    assert "T 4, presentation inside, readout mean" in first.err
    (stored,) = Path("mine/attacks").glob("*.json")
    assert Evaluation.load(stored.with_suffix("")).samples == 20
    assert usual("--out", "mine") == 0
    again = capsys.readouterr()
    assert again.out == first.out


@pytest.mark.slow
def test_two_processes_build_it_each(capsys):
    """They find the user's module, load the weights, and adapt it in the same way."""
    save_file(state(), "w.safetensors")
    shown = set()
    for out, more in (("one", []), ("two", ["--jobs", "2"])):
        assert usual("--out", out, "--weights", "w.safetensors", *more) == 0
        shown.add(capsys.readouterr().out.replace(f"{out}/attacks", "attacks"))
    assert len(shown) == 1


@pytest.mark.slow
def test_weights_that_are_drawn_anew_cannot_be_shared(capsys):
    words = ["--T", "4", "--data", "digits", "--out", "drawn", "--jobs", "2"]
    assert attack("--model", "my_nets:drawn", *words) == 2
    said = "--jobs: my_nets:drawn makes other weights at every call; pass --weights, or --jobs 1."
    assert said in capsys.readouterr().err


def test_another_seed_is_another_result_beside_the_first(capsys):
    """Seed 0 is the one that is used without the option."""
    shown = {}
    for words in ((), ("--seed", "0"), ("--seed", "7")):
        assert usual("--out", "mine", *words) == 0
        shown[words] = capsys.readouterr().out
    assert shown[()] == shown["--seed", "0"]
    stored = {p.name: json.loads(p.read_text()) for p in Path("mine/attacks").glob("*.json")}
    seeds = {name: card["seed"] for name, card in stored.items()}
    name = "baseline-linf-0.1-first20"
    assert seeds == {f"{name}.json": 0, f"{name}-seed7.json": 7}
    assert usual("--out", "mine", "--seed", "-1") == 2
    assert "seed: should be greater than or equal to 0, got -1" in _line(capsys)


@pytest.mark.slow
def test_an_audit_has_its_seed(capsys):
    words = ["audit", "--model", "my_nets:net", "--T", "4", "--data", "digits", "--out", "mine"]
    words += ["--quick", "--limit", "6", "--eps", "0.1", "--json"]
    assert main([*words, "--seed", "3"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["seed"] == 3
    assert main([*words, "--seed", "-3"]) == 2
    assert "--seed: a whole number >= 0, got -3." in _line(capsys)


def test_what_the_results_belong_to_is_written_down(capsys):
    assert usual("--out", "mine") == 0
    card = json.loads(Path("mine/model.json").read_text(encoding="utf-8"))
    known = {key: card[key] for key in ("model", "data", "framework", "T", "readout")}
    assert known == {
        "model": "my_nets:net",
        "data": "digits",
        "framework": "stateless",
        "T": 4,
        "readout": "mean",
    }
    assert card["check"]["samples"] == 32
    capsys.readouterr()
    assert usual("--out", "mine", "--readout", "sum") == 2
    assert "mine holds results of another model: readout was 'mean', is 'sum'" in _line(capsys)
    save_file(state(), "w.safetensors")
    assert usual("--out", "mine", "--weights", "w.safetensors") == 2
    assert "holds results of another model: weights was" in _line(capsys)


COMPILED = ("compiled.pt", "compiled.safetensors")


def test_every_kind_of_weights_file_gives_the_same(capsys):
    weights = state()
    save_file(weights, "w.safetensors")
    torch.save(weights, "plain.pt")
    torch.save({"epoch": 3, "state_dict": weights}, "wrapped.pt")
    torch.save({f"module.{name}": value for name, value in weights.items()}, "parallel.pt")
    both = {f"_orig_mod.module.model.{name}": value for name, value in weights.items()}
    torch.save({"state_dict": both}, "compiled.pt")
    save_file(both, "compiled.safetensors")
    shown = set()
    for name in ("w.safetensors", "plain.pt", "wrapped.pt", "parallel.pt", *COMPILED):
        assert usual("--out", "mine", "--weights", name) == 0
        shown.add(capsys.readouterr().out)
    assert len(shown) == 1


def test_a_factory_may_return_an_adapted_model(capsys):
    words = ("--model", "my_nets:adapted", "--data", "digits")
    assert attack(*words, "--out", "mine") == 0
    assert "readout last" in capsys.readouterr().err
    assert attack(*words, "--T", "4", "--out", "mine") == 2
    assert "--T: the factory returns a model that already is" in _line(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected RUN, a run folder, or --model; got neither."),
        (["a-run", "--model", "my_nets:net"], "expected RUN, a run folder, or --model; got both."),
        (["--model", "my_nets:net", "--T", "4"], "--data: name the images to attack"),
        (["--model", "my_nets:net", "--data", "digits"], "--T: pass the number of time steps"),
        (["--model", "my_nets", "--T", "4", "--data", "digits"], "package.module:factory, got"),
        (["--model", "my_net:net", "--T", "4", "--data", "digits"], "no module named 'my_net'"),
        (["--model", "my_nets:nett", "--T", "4", "--data", "digits"], "Did you mean 'net'?"),
        (["--model", "my_nets:three", "--T", "4", "--data", "digits"], "is no factory but of type"),
        (["--model", "my_nets:number", "--T", "4", "--data", "digits"], "returns int, not an nn.M"),
        (["--model", "my_nets:boom", "--T", "4", "--data", "digits"], "raises OSError: no such"),
        (
            ["--model", "my_nets:blind", "--T", "4", "--data", "digits"],
            "my_nets:blind cannot be shown images of digits [1, 8, 8] in T=4 steps: RuntimeError: "
            "mat1 and mat2 shapes cannot be multiplied (3x64 and 100x10)",
        ),
        (
            ["--model", "my_nets:colours", "--T", "4", "--data", "digits"],
            "expected input[3, 1, 8, 8] to have 3 channels, but got 1 channels instead",
        ),
        (["--model", "my_nets:Turned", "--T", "4", "--data", "digits"], "could not be driven in"),
        (
            ["--model", "my_nets:Switching", "--T", "4", "--data", "digits"],
            "check: a BatchNorm1d runs in training mode although the model is in evaluation mode; "
            "switch no mode inside forward.",
        ),
        (["--model", "my_nets:net", "--T", "3", "--data", "digits"], "makes 4 steps itself; pass"),
        (["--model", "my_nets:net", "--T", "4", "--data", "digit"], "Did you mean 'digits'?"),
    ],
)
def test_rejections_are_one_line(words, message, capsys):
    assert attack(*words, "--out" if "--model" in words else "--eps", "0.2") == 2
    assert message in _line(capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"other": torch.zeros(2)}, "belongs to another model: it lacks layer.weight, layer.bias"),
        (
            {"net.layer.weight": torch.zeros(10, 64), "net.scale": torch.zeros(2)},
            "belongs to another model: it lacks layer.bias; it adds scale.",
        ),
        ({"a": Code()}, "holds pickled objects beside tensors"),
        ({"a": 3}, "holds no state dict"),
        (None, "no such file"),
    ],
)
def test_wrong_weights_are_rejected_and_no_code_runs(content, message, capsys):
    if content is not None:
        torch.save(content, "w.pt")
    assert usual("--out", "mine", "--weights", "w.pt") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err.strip()
    assert "\n" not in shown.err.strip()


def weight():
    return state()["layer.weight"]


def quantised():
    return torch.quantize_per_tensor(weight(), 0.1, 0, torch.qint8)


UNUSUAL = {
    "sparse": (lambda: weight().to_sparse(), r"float32[10, 64] sparse_coo where"),
    "rows": (lambda: weight().to_sparse_csr(), r"float32[10, 64] sparse_csr where"),
    "meta": (lambda: weight().to("meta"), r"float32[10, 64] without values (meta) where"),
    "quantised": (quantised, "qint8[10, 64] where the model has float32[10, 64]"),
    "nested": (lambda: torch.nested.nested_tensor([weight()]), "a nested tensor where"),
    "huge": (lambda: torch.zeros(1).expand(10**6, 10**6), "float32[1000000, 1000000] where"),
}


@pytest.mark.filterwarnings("ignore")  # of torch, while the files are written
@pytest.mark.parametrize("kind", UNUSUAL)
def test_tensors_that_are_not_plain_are_rejected(kind, capsys):
    made, message = UNUSUAL[kind]
    torch.save({**state(), "layer.weight": made()}, "w.pt")
    assert usual("--out", "mine", "--weights", "w.pt") == 2
    assert f"w.pt: belongs to another model: layer.weight is {message}" in _line(capsys)


@pytest.mark.parametrize(
    "content",
    [
        {0: torch.zeros(2)},
        {0: torch.zeros(2), "a": torch.zeros(2)},
        {("a", 1): torch.zeros(2)},
        {b"a": torch.zeros(2)},
        {"a": {"b": {"c": torch.zeros(2)}}},
        {"state_dict": {"a": {"b": torch.zeros(2)}}},
        [torch.zeros(2)],
    ],
)
def test_other_tables_of_tensors_are_rejected(content, capsys):
    torch.save(content, "w.pt")
    assert usual("--out", "mine", "--weights", "w.pt") == 2
    assert "w.pt holds no state dict, a table of names and tensors" in _line(capsys)


@pytest.mark.parametrize("first", [*"cNIFSVLMT(.0)}]atRq\x80\x82\x8a", "hello", ""])
def test_a_text_file_is_one_line(first, capsys):
    """Every first letter is another instruction to the reader of pickles."""
    Path("w.pt").write_bytes(first.encode("latin1") + b"abc\nfoo\n1\n.")
    assert usual("--out", "mine", "--weights", "w.pt") == 2
    assert "--weights: w.pt " in _line(capsys)


def test_a_torch_file_with_a_flipped_byte_or_a_bomb_is_rejected(capsys):
    torch.save(state(), "w.pt")
    data = bytearray(Path("w.pt").read_bytes())
    data[data.index(weight().numpy().tobytes()) + 100] ^= 1
    Path("flipped.pt").write_bytes(data)
    assert usual("--out", "mine", "--weights", "flipped.pt") == 2
    assert "flipped.pt cannot be read: the checksum of" in _line(capsys)
    with zipfile.ZipFile("w.pt") as source, zipfile.ZipFile("bomb.pt", "w") as bomb:
        for name in source.namelist():
            content = bytes(300 << 20) if name.endswith("data/0") else source.read(name)
            bomb.writestr(name, content, zipfile.ZIP_DEFLATED)
    assert usual("--out", "mine", "--weights", "bomb.pt") == 2
    assert "would unpack to 314" in _line(capsys)
    assert usual("--out", "mine", "--weights", "w.pt") == 0  # the healthy twin


@pytest.mark.parametrize("shape", [[2**63, 0], [2**62, 4], [100_000, 200_000]])
def test_safetensors_that_claim_more_than_they_hold_are_rejected(shape, capsys):
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0 if 0 in shape else 80 << 30]}
    head = json.dumps({"layer.weight": entry}).encode()
    for claimed in (len(head), 1 << 60):
        Path("w.safetensors").write_bytes(claimed.to_bytes(8, "little") + head + bytes(100))
        assert usual("--out", "mine", "--weights", "w.safetensors") == 2
        assert "w.safetensors: is truncated, damaged or no safetensors file" in _line(capsys)


def test_the_current_folder_is_no_weights_file(capsys):
    assert usual("--out", "mine", "--weights", ".") == 2
    assert ".: is no checkpoint: model.safetensors is missing" in _line(capsys)


SPIKING = """
import torch
from torch import nn
from tests.toys.foreign_networks import LIFNode, SpikeFunction

ALPHA = 4.0

def net():
    torch.manual_seed(0)
    node = LIFNode()
    node.surrogate_function = SpikeFunction(ALPHA)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), node, nn.Linear(32, 10))
"""


@pytest.fixture
def spiking(folder, monkeypatch):
    """A second module, whose network has a spiking layer; returns it for changes."""
    (folder / "my_spikes.py").write_text(SPIKING, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    yield importlib.import_module("my_spikes")
    del sys.modules["my_spikes"]
    monkeypatch.undo()


def test_every_neuron_is_written_down_and_another_surrogate_is_another_model(spiking, capsys):
    words = ("--model", "my_spikes:net", "--T", "4", "--data", "digits", "--out", "mine")
    assert attack(*words) == 0
    card = json.loads(Path("mine/model.json").read_text(encoding="utf-8"))
    own = "SpikingJelly SpikeFunction(alpha=4.0)"
    known = {"reset": "hard", "surrogate": own, "fires": "v >= v_th"}
    assert card["neurons"] == {"model.2": known}
    assert card["arguments"] == list(words[:-2])
    assert set(card["check"]["surrogates"]) == {"eps", "left", "worst", "room"}
    spiking.ALPHA = 2.0  # the weights are the same, what attacks find is not
    capsys.readouterr()
    assert attack(*words) == 2
    assert f"another model: surrogate of model.2 was {own!r}, is" in _line(capsys)


_LATER = ("neurons", "arguments", "checksum")  # which an older version did not write


def test_a_card_that_says_nothing_of_neurons_is_completed(spiking, capsys):
    words = ("--model", "my_spikes:net", "--T", "4", "--data", "digits", "--out", "mine")
    assert attack(*words) == 0
    first = json.loads(Path("mine/model.json").read_text(encoding="utf-8"))
    older = {name: value for name, value in first.items() if name not in _LATER}
    Path("mine/model.json").write_text(json.dumps(older), encoding="utf-8")
    assert attack(*words) == 0
    assert json.loads(Path("mine/model.json").read_text(encoding="utf-8")) == first


def test_a_folder_with_something_else_is_left_unchanged(folder, capsys):
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("mine", encoding="utf-8")
    assert usual("--out", "notes") == 2
    assert "notes holds something else" in _line(capsys)
    assert [p.name for p in (folder / "notes").iterdir()] == ["a.txt"]


def test_the_report_names_the_folder_of_a_factory(capsys):
    assert usual() == 0
    capsys.readouterr()
    assert main(["report", "runs/my_nets:net"]) == 2
    hint = "runs/my_nets:net: no such run folder. Did you mean runs/my_nets.net?"
    assert hint in _line(capsys)


def test_the_layer_that_refuses_images_is_named(capsys):
    words = ["--model", "my_nets:colours", "--T", "4", "--data", "digits", "--out", "there"]
    assert attack(*words) == 2
    assert "in 0 (Conv2d, takes 3 channels), given float32 [3, 1, 8, 8]" in _line(capsys)
    assert not Path("there").exists()


def _line(capsys):
    """Return the one line that was written to standard error."""
    shown = capsys.readouterr().err.strip()
    assert "\n" not in shown
    return shown


SAMPLED = '''
import torch
from torch import nn

class Sampled(nn.Linear):
    """Draws from torch's global generator in every call."""

    def forward(self, x):
        x = x.flatten(1)
        return super().forward(x + 0.3 * torch.rand_like(x))

def sampled():
    torch.manual_seed(0)
    return Sampled(64, 10)
'''


@pytest.mark.parametrize("command", [("attack", "--suite", "baseline"), ("audit", "--quick")])
def test_a_model_that_fails_the_check_stops_the_command_unless_told(folder, capsys, command):
    (folder / "my_nets.py").write_text(SAMPLED, encoding="utf-8")
    words = ["--model", "my_nets:sampled", "--T", "1", "--data", "digits", "--out", "there"]
    words = [*command, *words, "--eps", "0.1", "--limit", "4"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"spikeguard {command[0]}: check: two calls on the same images differ")
    assert not Path("there").exists()
    if command[0] == "attack":  # its audit would run all checks
        assert main([*words, "--no-check"]) == 0
        assert "check" not in json.loads(Path("there/model.json").read_text())
        assert main([*words[:-1], "5"]) == 2  # the option is not remembered


ENDS = """
import os, sys
import my_nets

def leaves():
    sys.exit(0)

def moves():
    os.chdir("elsewhere")
    return my_nets.net()
"""


def test_a_factory_that_ends_the_process_is_an_error(folder, capsys):
    (folder / "my_ends.py").write_text(ENDS, encoding="utf-8")
    assert attack("--model", "my_ends:leaves", "--T", "4", "--data", "digits") == 2
    assert _line(capsys) == "spikeguard attack: --model: my_ends:leaves raises SystemExit: 0"
    assert not (folder / "runs").exists()
    sys.modules.pop("my_ends")


def test_a_factory_that_changes_the_folder_does_not_move_the_results(folder, capsys):
    (folder / "my_ends.py").write_text(ENDS, encoding="utf-8")
    (folder / "elsewhere").mkdir()
    words = ("--model", "my_ends:moves", "--T", "4", "--data", "digits", "--out", "mine")
    assert attack(*words) == 0
    assert Path.cwd() == folder
    assert list((folder / "mine" / "attacks").glob("*.json"))
    assert list((folder / "elsewhere").iterdir()) == []
    sys.modules.pop("my_ends")


def test_another_process_that_attacks_the_model_is_not_disturbed(folder, capsys):
    with other_process_holds(folder / "mine"):
        assert usual("--out", "mine") == 2
        assert "writes to it; wait until it has ended" in _line(capsys)
        assert [each.name for each in (folder / "mine").iterdir()] == [".lock"]
    assert usual("--out", "mine") == 0
