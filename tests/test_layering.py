"""Imports go down only: who may import whom, read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "spikeguard"

# From the bottom up. A module imports from the layers below its own, and from its own layer as long
# as no circle closes. The top-level __init__.py only names what is elsewhere and stands outside.
LAYERS = [
    {"rng", "files", "environment", "folders", "memory", "position", "published"}
    | {"refusals", "run_files"},
    {"kernels"},
    {"neurons", "encoders", "frequency", "data"},
    {"models"},
    {"attacks"},
    {"defences"},
    {
        "analysis",
        "auditing",
        "cascade",
        "checkpoint",
        "costing",
        "divergence",
        "engine",
        "evaluation",
        "learner",
        "metering",
        "optimisation",
        "outcomes",
        "parts",
        "preflight",
        "rescoring",
        "resumption",
        "scores",
        "seeds",
        "shards",
        "training",
        "workers",
    },
    {
        "attack_results",
        "benchmarking",
        "building",
        "choices",
        "config",
        "demo",
        "recipe_training",
        "recipes",
        "reporting",
        "reproduction",
        "runs",
    },
    {"cli", "commands"},
    {"__main__"},
]
LEAVES = {"rng", "files", "environment"}  # these import nothing of ours, leaves included
ONLY_IMPORTER = {"lightning_fabric": "engine.py", "lightning": "engine.py"}


def imports(file):
    """Return the dotted names a file imports, lazily or not; ``from a import b`` as a.b."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def sources(root):
    return [file for file in sorted(root.rglob("*.py")) if file != root / "__init__.py"]


def unit(file, root):
    """Return the top-level module or package that a file belongs to."""
    return file.relative_to(root).parts[0].removesuffix(".py")


def units_imported(file, root):
    ours = (name.split(".") for name in imports(file) if name.startswith("spikeguard."))
    return {parts[1] for parts in ours} - {unit(file, root)}


def breaches(root):
    """Return what breaks the rule, one line each."""
    level = {name: number for number, names in enumerate(LAYERS) for name in names}
    found = []
    for file in sources(root):
        name, own = file.relative_to(root).as_posix(), unit(file, root)
        if own not in level:
            found.append(f"{name}: {own} has no layer; add it to LAYERS")
            continue
        for other in sorted(units_imported(file, root)):
            if other not in level:
                found.append(f"{name} imports {other}, which has no layer")
            elif level[other] > level[own]:
                found.append(f"{name} imports {other}, which lies above it")
            elif own in LEAVES:
                found.append(f"{name} imports {other}, but {own} is a leaf")
        for package, importer in ONLY_IMPORTER.items():
            if name != importer and any(i.split(".")[0] == package for i in imports(file)):
                found.append(f"{name} imports {package}, which is left to {importer}")
    return found + circles(root)


def circles(root):
    """Strip the top-level units that import nothing that is left; what remains runs in circles."""
    graph = {}
    for file in sources(root):
        graph.setdefault(unit(file, root), set()).update(units_imported(file, root))
    while free := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in free}
    return [f"a circle of imports runs through {', '.join(sorted(graph))}"] if graph else []


def test_imports_go_down_only():
    assert breaches(ROOT) == []


def test_every_module_of_the_package_is_read():
    files = {file.relative_to(ROOT).as_posix() for file in sources(ROOT)}
    assert {"rng.py", "kernels/multistep.py", "models/snn.py", "cli.py"} <= files


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"kernels/fast.py": "from spikeguard.models import SNN"}, "models, which lies above"),
        ({"kernels/fast.py": "from spikeguard import models"}, "models, which lies above"),
        (
            {"rng.py": "def f():\n    import spikeguard.training"},
            "rng.py imports training, which lies",
        ),
        ({"files.py": "from spikeguard.rng import key"}, "imports rng, but files is a leaf"),
        ({"training.py": "import lightning_fabric.utilities"}, "is left to engine.py"),
        ({"training.py": "from lightning import fabric"}, "is left to engine.py"),
        ({"extras.py": ""}, "extras has no layer; add it to LAYERS"),
        (
            {
                "training.py": "import spikeguard.learner",
                "learner.py": "import spikeguard.training",
            },
            "a circle of imports runs through learner, training",
        ),
    ],
)
def test_the_check_fires_on_a_planted_breach(tmp_path, files, message):
    for name, text in {"engine.py": "import lightning_fabric", **files}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (found,) = breaches(tmp_path)
    assert message in found
