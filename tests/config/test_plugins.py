"""Parts of another package: imported only if allowed, and checked against their contract."""

import json
import sys
from pathlib import Path

import pytest
import torch

import spikeguard as sg
from spikeguard.cli.entry import main
from spikeguard.config.builder import build_suite
from spikeguard.config.errors import ConfigError
from spikeguard.config.plugins import Plugins

PARTS = """
from dataclasses import dataclass

import torch
from torch import nn

from spikeguard.attacks import HART, PGD, Threat
from spikeguard.data import DATASETS
from spikeguard.defences import AT, Piece
from spikeguard.encoders import Direct
from spikeguard.models import CNN
from spikeguard.neurons import LIF, Neuron, StoG, Triangular


class Mine(LIF):
    def __init__(self, decay: float = 0.6):
        super().__init__(decay)


class MyCode(Direct):
    pass


@dataclass(frozen=True)
class MySurrogate:
    width: float = 1.0
    half_width = 1.0

    def __call__(self, x):
        return Triangular(self.width)(x)

    def widened(self, factor):
        return MySurrogate(self.width * factor)


def my_network(num_classes: int, T: int = 2, in_channels: int = 1, image_size: int = 8):
    return CNN(in_channels, num_classes, T=T, width=2, hidden=4, image_size=image_size)


@dataclass(frozen=True)
class MyDefence(AT):
    pass


@dataclass(frozen=True)
class MyAttack:
    threat: Threat

    def __call__(self, model, x, y, *, generator=None):
        return PGD(self.threat, steps=3)(model, x, y, generator=generator)


my_digits = DATASETS["digits"]


class NoNeuron(nn.Module):
    pass


class WrongShape(LIF):
    def __init__(self):
        super().__init__()

    def forward(self, current, **options):
        return current[:1]


class Silent(Neuron):
    def forward(self, current, **options):
        return torch.zeros_like(current)


class Raises(LIF):
    def __init__(self):
        super().__init__()

    def forward(self, current, **options):
        raise KeyError("no such weight")


class NoFlags(nn.Module):
    def forward(self, x, T):
        return x.expand(T, *x.shape)


class NoTime(Direct):
    def forward(self, x, T):
        return x


class NaNSlope(MySurrogate):
    def __call__(self, x):
        return x * float("nan")


def no_network(T: int = 2):
    return nn.Linear(2, 2)


def breaks(T: int = 2):
    raise RuntimeError("no weights here")


@dataclass(frozen=True)
class HartPGD:
    threat: Threat
    gradient: object = HART()

    def __call__(self, model, x, y, *, generator=None):
        attack = PGD(self.threat, steps=2, gradient=self.gradient)
        return attack(model, x, y, generator=generator)


class MyStoG(StoG):
    pass


@dataclass(frozen=True)
class Nothing(Piece):
    weight: float = 1.0


@dataclass(frozen=True)
class NoScalar(Piece):
    weight: float = 1.0

    def term(self, step):
        return step.y.float()


@dataclass(frozen=True)
class NoWidth:
    def __call__(self, x):
        return Triangular(1.0)(x)


class NoThreat:
    def __init__(self, threat):
        pass

    def __call__(self, model, x, y, *, generator=None):
        return x


@dataclass(frozen=True)
class NoGenerator:
    threat: Threat

    def __call__(self, model, x, y):
        return x


@dataclass(frozen=True)
class BreaksInUse:
    threat: Threat

    def __call__(self, model, x, y, *, generator=None):
        raise RuntimeError("no image left")


@dataclass(frozen=True)
class BreaksInTraining(Piece):
    weight: float = 1.0

    def term(self, step):
        raise KeyError("no such layer")


class Unannotated(LIF):
    def __init__(self, fast=0.5):
        super().__init__(fast)


nothing = None


@dataclass(frozen=True)
class Leaves:
    threat: Threat

    def __call__(self, model, x, y, *, generator=None):
        return (x + 0.5).clamp(0, 1)
"""
TINY = ["model.T=2", "model.width=4", "model.hidden=16", "train.epochs=3", "train.lr=0.01"]
TINY += ["data.train_limit=300", "data.test_limit=20", "evaluate.eps=[0.1]", "evaluate.limit=20"]
OURS = [
    "model.neuron=my_package.parts:Mine",
    "model.encoder=my_package.parts:MyCode",
    "objective=[{name: 'my_package.parts:MyDefence', eps: 0.1}]",
    "data.name=my_package.parts:my_digits",
]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write my_package into the current folder; forget it afterwards."""
    folder = tmp_path / "my_package"
    folder.mkdir()
    (folder / "__init__.py").write_text('__version__ = "1.2"\n')
    (folder / "parts.py").write_text(PARTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield folder
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


def spikeguard(capsys, *words):
    code = main([str(word) for word in words])
    told = capsys.readouterr()
    return code, told.out, [line for line in told.err.splitlines() if line.startswith("spikeguard")]


@pytest.mark.slow
def test_parts_of_another_package_are_trained_attacked_audited_and_reported(package, capsys):
    out = package.parent / "run"
    allowed = ("--plugin", "my_package")
    code, _, errors = spikeguard(
        capsys, "train", "demo/vanilla", *TINY, *OURS, "--out", out, *allowed
    )
    assert (code, errors) == (0, [])
    run = sg.Run.load(out, plugins=["my_package"])
    kinds = {type(module).__name__ for module in run.model.modules()}
    assert {"Mine", "MyCode"} <= kinds
    code, text, errors = spikeguard(
        capsys, "attack", out, "--suite", "my_package.parts:MyAttack,quick", *allowed
    )
    assert (code, errors) == (0, []) and "myattack" in text and "fgsm" in text
    named = (out / "attacks").glob("my_package.parts.MyAttack@1.2-*.json")
    assert json.loads(next(named).read_text())["attacks"]["myattack"]["settings"]["kind"]
    code, text, errors = spikeguard(
        *(capsys, "audit", out, "--quick", "--limit", 4, "--attack", "my_package.parts:MyAttack"),
        *allowed,
    )
    assert (code, errors) == (0, [])
    assert spikeguard(capsys, "report", out)[0] == 0


def test_a_network_and_a_surrogate_of_another_package(package):
    changes = ["model=my_package.parts:my_network", "evaluate.limit=20"]
    sys.path.append(str(package.parent))
    built = sg.build(sg.load_recipe("demo/vanilla", changes, plugins=["my_package"]))
    assert built.model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    neuron = "model.neuron={name: lif, surrogate: {name: 'my_package.parts:MySurrogate', width: 2}}"
    built = sg.build(sg.load_recipe("demo/vanilla", [*TINY, neuron], plugins=["my_package"]))
    widths = {
        layer.surrogate.width for layer in built.model.modules() if hasattr(layer, "surrogate")
    }
    assert widths == {2.0}


def test_a_built_in_part_under_another_name_gives_the_same_bits(package):
    """Mine is LIF with another default: the same recipe, the same weights and outcomes."""
    sys.path.append(str(package.parent))
    models = []
    for neuron in ("{name: lif, decay: 0.6}", "my_package.parts:Mine"):
        recipe = sg.load_recipe(
            "demo/vanilla", [*TINY, f"model.neuron={neuron}"], plugins=["my_package"]
        )
        built = sg.build(recipe)
        sg.train(
            built.model, built.data, built.objective, built.options, out=Path(f"r{len(models)}")
        )
        models.append(built.model.eval())
    x = torch.rand(4, 1, 8, 8, generator=sg.stream(0, "x"))
    assert torch.equal(models[0](x), models[1](x))


@pytest.mark.parametrize("change", [*OURS, "evaluate.suite=my_package.parts:MyAttack"])
def test_nothing_is_imported_unless_it_is_allowed(change, package, capsys):
    """The part would be found: the current folder is on the path."""
    sys.path.append(str(package.parent))
    (package / "parts.py").write_text("raise SystemExit('imported')\n")
    code, _, (line,) = spikeguard(capsys, "train", "demo/vanilla", change, "--out", "run")
    assert code == 2 and "add --plugin my_package." in line and "my_package.parts:" in line
    assert "my_package" not in sys.modules and not Path("run").exists()


def test_an_allowed_package_is_not_imported_before_it_is_needed(package):
    sys.path.append(str(package.parent))
    recipe = sg.load_recipe("demo/vanilla", OURS, plugins=["my_package"])
    assert "my_package" not in sys.modules
    assert "plugin" not in recipe.to_yaml()
    assert sg.load_recipe("demo/vanilla").plugins.packages == ()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--plugin", "nowhere"], "--plugin: no module named 'nowhere'; it is looked for in"),
        (["--plugin", "my package"], "--plugin: expected the name of a package"),
        (
            ["model.neuron=my_package.parts:Min", "--plugin", "my_package"],
            "in recipe demo/vanilla: my_package.parts has no 'Min'. Did you mean 'Mine'?",
        ),
        (
            ["model.neuron=my_package.other:Mine", "--plugin", "my_package"],
            "no module named 'my_package.other'",
        ),
        (
            ["model.neuron=:Mine", "--plugin", "my_package"],
            "unknown name ':Mine'",
        ),
        (
            ["model.neuron={name: 'my_package.parts:Mine', decya: 0.5}", "--plugin", "my_package"],
            "unknown key of Mine 'decya'. Did you mean 'decay'?",
        ),
    ],
)
def test_an_unknown_plugin_or_part_is_one_line(words, says, package, capsys):
    code, _, (line,) = spikeguard(capsys, "train", "demo/vanilla", *words, "--out", "run")
    assert code == 2 and says in line
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            "model.neuron=NoNeuron",
            "is not a neuron; write a class that inherits from spikeguard.neurons",
        ),
        (
            "model.neuron=WrongShape",
            "contract of a neuron: for a current [3, 2, 4, 4, 4]",
        ),
        ("model.neuron=Silent", "record() sees no potentials; let forward call self.fire"),
        ("model.neuron=Raises", "breaks the contract of a neuron: raises KeyError"),
        ("model.encoder=NoFlags", "contract of an encoder: it needs an attribute 'constant'"),
        ("model.encoder=NoTime", "for images [2, 3, 8, 8] and T=4 it returns [2, 3, 8, 8]"),
        ("model=no_network", "it builds Linear, not a spikeguard.models.SNN"),
        ("model=breaks", "my_package.parts:breaks raises RuntimeError: no weights here"),
        ("data.name=Mine", "is not a data set; write an instance of spikeguard.data.DataSet"),
        (
            "objective=[Mine]",
            "is not a defence; write a class that inherits from spikeguard.defences",
        ),
        ("evaluate.suite=NoThreat", "breaks the contract of an attack"),
        ("evaluate.suite=Mine", "raises TypeError"),
        ("model.neuron={name: lif, surrogate: NaNSlope}", "its derivative is not finite"),
        ("model.neuron={name: lif, surrogate: NoWidth}", "it needs a half_width > 0"),
        ("data.name=nothing", "my_package.parts:nothing is None."),
        ("evaluate.suite=NoGenerator", "breaks the contract of an attack: it must be callable as"),
        ("objective=[Nothing]", "it defines neither perturb nor term nor constrain"),
    ],
)
def test_a_part_that_breaks_its_contract_is_one_line(change, says, package, capsys):
    for name in ("model.neuron=", "model.encoder=", "model=", "data.name=", "evaluate.suite="):
        if change.startswith(name) and "{" not in change:
            change = change.replace("=", "=my_package.parts:", 1)
    change = change.replace("=[", "=['my_package.parts:").replace("]", "']")
    change = change.replace("surrogate: ", "surrogate: 'my_package.parts:").replace("}", "'}")
    options = [] if change.startswith("model=") else ["model.T=3"]
    code, _, (line,) = spikeguard(
        *(capsys, "train", "demo/vanilla", *options, change, "--out", "run"),
        *("--plugin", "my_package"),
    )
    assert code == 2 and says in line, line
    assert not Path("run").exists()


def test_a_run_remembers_its_plugins_and_nothing_of_their_code(package, capsys):
    allowed = ("--plugin", "my_package")
    made = ("train", "demo/vanilla", *TINY, *OURS, "--out", "run")
    assert spikeguard(capsys, *made, *allowed)[0] == 0
    record = json.loads(Path("run/environment.json").read_text())
    assert record["plugins"] == {"my_package": "1.2"}
    assert not any(
        "class Mine" in f.read_bytes().decode("latin-1") for f in Path("run").rglob("*.*")
    )
    code, _, (line,) = spikeguard(capsys, "attack", "run")
    assert code == 2 and "add --plugin my_package." in line


@pytest.mark.filterwarnings("default::spikeguard.runs.plugin_versions.PluginVersionWarning")
def test_another_version_is_a_warning_after_training_and_rejected_during_it(
    package, capsys, monkeypatch
):
    allowed = ("--plugin", "my_package")
    made = ("train", "demo/vanilla", *TINY, *OURS, "--out", "run")
    assert spikeguard(capsys, *made, *allowed)[0] == 0
    monkeypatch.setattr(sys.modules["my_package"], "__version__", "1.3")
    code, _, (line,) = spikeguard(capsys, "attack", "run", "--suite", "quick", *allowed)
    assert code == 0
    assert line == "spikeguard attack: run was trained with my_package 1.2, installed is 1.3."
    code, _, (line,) = spikeguard(capsys, *made, "--resume", *allowed)
    assert code == 2 and "run was started with my_package 1.2, installed is 1.3" in line


def test_an_attack_that_leaves_its_threat_set_is_not_scored(package, capsys):
    made = ("train", "demo/vanilla", *TINY, "--out", "run")
    assert spikeguard(capsys, *made)[0] == 0
    code, _, (line,) = spikeguard(
        capsys, "attack", "run", "--suite", "my_package.parts:Leaves", "--plugin", "my_package"
    )
    assert code == 2 and "leaves the ball" in line


@pytest.mark.slow
def test_shards_of_an_attack_of_another_package_run_in_other_processes(package, capsys):
    made = ("train", "demo/vanilla", *TINY, *OURS, "--out", "run", "--plugin", "my_package")
    assert spikeguard(capsys, *made)[0] == 0
    attack = ("attack", "run", "--suite", "my_package.parts:MyAttack", "--plugin", "my_package")
    code, text, errors = spikeguard(capsys, *attack, "--jobs", 2)
    assert (code, errors) == (0, []) and "myattack" in text


def test_the_table_of_reproduce_finds_the_results_of_an_attack_of_another_package(package, capsys):
    """Their names hold the version of the package."""
    changes = [*TINY, "evaluate.suite=my_package.parts:MyAttack", "evaluate.eot=1"]
    words = ("reproduce", "demo", *changes, "--only", "demo/vanilla", "--seeds", 0, "--jobs", 1)
    code, text, errors = spikeguard(capsys, *words, "--out", "all", "--plugin", "my_package")
    assert (code, errors) == (0, [])
    (entry,) = json.loads(Path("all/table.json").read_text())["entries"]
    assert {"clean", "myattack", "worst_case"} == set(entry["scores"]) and "demo/vanilla" in text


def test_a_module_of_a_package_can_be_allowed_alone(package):
    sys.path.append(str(package.parent))
    plugins = Plugins.of(["my_package.parts"])
    assert plugins.find("my_package.parts:Mine", "here").__name__ == "Mine"
    with pytest.raises(ConfigError, match="imported only if you allow it"):
        plugins.find("my_package:Mine", "here")
    with pytest.raises(ConfigError, match="imported only if you allow it"):
        plugins.find("my_package.parts_of_others:Mine", "here")


def trained(package, capsys, *changes):
    made = ("train", "demo/vanilla", *TINY, *changes, "--out", "run", "--plugin", "my_package")
    assert spikeguard(capsys, *made)[0] == 0
    return ("attack", "run", "--plugin", "my_package")


def test_averaging_keeps_the_gradient_of_an_attack(package):
    sys.path.append(str(package.parent))
    plugins = Plugins.of(["my_package"])
    for eot, wanted in ((1, sg.attacks.HART()), (4, sg.attacks.EoT(4, sg.attacks.HART()))):
        found = build_suite(
            "my_package.parts:HartPGD", eps=0.1, norm="linf", eot=eot, plugins=plugins
        )
        assert found["hartpgd"].gradient == wanted


def test_a_tuned_result_has_a_name_of_its_own(package, capsys):
    """The untuned attack is run again, not read from the tuned result."""
    attack = trained(package, capsys, "evaluate.limit=4", "data.train_limit=200")
    named = ("--suite", "my_package.parts:HartPGD")
    assert spikeguard(capsys, *attack, *named, "--tune")[0] == 0
    assert spikeguard(capsys, *attack, *named)[0] == 0
    stems = {file.stem for file in Path("run/attacks").glob("my_package*.json")}
    assert len(stems) == 2 and sum("tuned" in stem for stem in stems) == 1


@pytest.mark.filterwarnings("default::spikeguard.runs.plugin_versions.PluginVersionWarning")
def test_another_version_of_an_attack_is_another_result(package, capsys, monkeypatch):
    attack = (*trained(package, capsys), "--suite", "my_package.parts:MyAttack")
    assert spikeguard(capsys, *attack)[0] == 0
    monkeypatch.setattr(sys.modules["my_package"], "__version__", "1.3")
    assert spikeguard(capsys, *attack)[0] == 0
    found = sorted(file.name.partition("-")[0] for file in Path("run/attacks").glob("*.json"))
    assert found == ["my_package.parts.MyAttack@1.2", "my_package.parts.MyAttack@1.3"]


def test_a_neuron_that_creates_its_parameters_for_a_shape_is_accepted(package):
    sys.path.append(str(package.parent))
    changes = [*TINY, "model.neuron={name: 'my_package.parts:MyStoG'}"]
    built = sg.build(sg.load_recipe("demo/vanilla", changes, plugins=["my_package"]))
    assert any(type(module).__name__ == "MyStoG" for module in built.model.modules())


def test_a_term_that_is_no_scalar_is_one_line(package, capsys):
    change = "objective=['my_package.parts:NoScalar']"
    words = ("train", "demo/vanilla", *TINY, change, "--out", "run", "--plugin", "my_package")
    code, _, (line,) = spikeguard(capsys, *words)
    assert (
        code == 2 and "no_scalar: term() returns a scalar loss, got [2]." in line
    )  # of the memory plan


def test_a_package_that_raises_when_it_is_imported_is_one_line(package, capsys):
    (package / "__init__.py").write_text("raise RuntimeError('broken')\n")
    for plugin in ("my_package", "my_package.parts"):
        words = ("train", "demo/vanilla", *TINY, OURS[0], "--out", "run", "--plugin", plugin)
        code, _, (line,) = spikeguard(capsys, *words)
        assert code == 2 and "raises RuntimeError: broken" in line


def test_a_module_that_is_allowed_alone_has_the_version_of_its_package(package):
    sys.path.append(str(package.parent))
    assert Plugins.of(["my_package.parts", "my_package"]).versions() == {"my_package": "1.2"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("evaluate.suite=my_package.parts:BreaksInUse", "RuntimeError: no image left"),
        ("objective=['my_package.parts:BreaksInTraining']", "KeyError: 'no such layer'"),
    ],
)
def test_a_part_that_raises_in_use_is_one_line_that_names_its_place(change, says, package, capsys):
    words = ["train", "demo/vanilla", *TINY, change, "--out", "run", "--plugin", "my_package"]
    code, _, lines = spikeguard(capsys, *words)
    if code == 0:
        code, _, lines = spikeguard(capsys, "attack", "run", "--plugin", "my_package")
    (line,) = lines
    assert code == 2 and says in line and ": my_package.parts, line " in line


def test_a_part_that_raises_in_another_process_is_one_line_too(package, capsys):
    attack = (*trained(package, capsys), "--suite", "my_package.parts:BreaksInUse", "--jobs", 2)
    code, _, (line,) = spikeguard(capsys, *attack)
    assert code == 2 and ": my_package.parts, line " in line and "no image left" in line


def test_an_error_of_spikeguard_itself_is_still_a_traceback(package, monkeypatch):
    def bug(*_, **__):
        raise KeyError("a bug")

    monkeypatch.setattr("spikeguard.runs.recipe_training.train_recipe", bug)
    with pytest.raises(KeyError, match="a bug"):
        main(["train", "demo/vanilla", *OURS, "--plugin", "my_package", "--out", "run"])


def test_all_suites_are_checked_before_the_first_runs(package, capsys):
    attack = trained(package, capsys)
    for wrong in ("my_package.parts:Mine", "my_package.parts:Nope", "nope", "other.parts:Mine"):
        code, _, (line,) = spikeguard(capsys, *attack, "--suite", f"quick,{wrong}")
        assert code == 2 and wrong.rpartition(":")[2] in line
    assert not Path("run/attacks").exists()


def test_an_argument_without_an_annotation_takes_what_the_recipe_says(package):
    sys.path.append(str(package.parent))
    changes = [*TINY, "model.neuron={name: 'my_package.parts:Unannotated', fast: 1/4}"]
    built = sg.build(sg.load_recipe("demo/vanilla", changes, plugins=["my_package"]))
    decays = {float(m.decay) for m in built.model.modules() if hasattr(m, "decay")}
    assert decays == {0.25}


def test_a_damaged_record_of_versions_is_one_line(package, capsys):
    attack = trained(package, capsys, *OURS)
    Path("run/environment.json").write_text('{"plugins": ')
    code, _, (line,) = spikeguard(capsys, *attack, "--suite", "quick")
    assert code == 2 and "environment.json: damaged" in line


def test_a_module_that_a_package_needs_and_lacks_is_named(package, capsys):
    (package / "parts.py").write_text("import a_module_that_is_nowhere\n")
    words = ("train", "demo/vanilla", *TINY, OURS[0], "--out", "run", "--plugin", "my_package")
    code, _, (line,) = spikeguard(capsys, *words)
    assert code == 2 and "my_package.parts needs the module 'a_module_that_is_nowhere'" in line
