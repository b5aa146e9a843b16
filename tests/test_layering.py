"""Imports go down only, and tests mirror the package: both read from the source."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "spikeguard"
TESTS = Path(__file__).parent

# From the bottom up. A package imports from the layers below its own, and from its own layer
# without circular imports. The top-level __init__.py names what is elsewhere and is left out.
LAYERS = [
    {"system", "storage"},
    {"kernels"},
    {"rng"},
    {"neurons", "encoders", "data"},
    {"models"},
    {"attacks", "export"},
    {"preflight"},
    {"defences", "analysis", "evaluation", "certification"},
    {"training", "auditing"},
    {"config", "benchmarking"},
    {"reporting"},
    {"runs"},
    {"sweeps"},
    {"maps"},
    {"cli"},
    {"__main__"},
]
LEAVES = {"system", "storage"}  # these import nothing from the package
ONLY_IMPORTER = {
    "lightning_fabric": "training/engine.py",
    "lightning": "training/engine.py",
}
FORBIDDEN = [
    ("training", "evaluation"),
    ("auditing", "training"),
    ("reporting", "runs"),
    ("rng", "storage"),  # rng imports only system and kernels
]
# Inside a package, from the bottom up; a part is a module or a folder of the package.
INNER = {
    "attacks": ["threat", "base", "model_access", "gradients", "searches"],
    "reporting": ["readers", "standings", "charts", "sections"],
}
APART = ["auditing/checks"]  # no module of these folders imports another one of the folder
NO_CODE = ["recipes"]  # folders of data
FACES = {"__init__.py"}
NO_MIRROR = {
    "toys",
    "drill",
    "contracts",
    "peers",
    "gpu",
    "browser",
    "tools",
}  # tests of no single package
_DECLARATIONS = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.Expr)
SAME_NAME = {  # public names that are as old as their modules
    ("spikeguard.kernels", "reference"),
    ("spikeguard.kernels", "multistep"),
}


@cache
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
    files = (file for file in sorted(root.rglob("*.py")) if file != root / "__init__.py")
    return [file for file in files if file.parent.name not in NO_CODE]


def unit(file, root):
    """Return the top-level module or package that a file belongs to."""
    return file.relative_to(root).parts[0].removesuffix(".py")


def ours(file):
    """Return what a file imports of the package: the parts of each name below the package."""
    return [name.split(".")[1:] for name in imports(file) if name.startswith("spikeguard.")]


def units_imported(file, root):
    return {parts[0] for parts in ours(file)} - {unit(file, root), *NO_CODE}


def breaches(root):
    """Return what breaks the rules, one line each."""
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
                found.append(f"{name} imports {other}, which is above it")
            elif own in LEAVES:
                found.append(f"{name} imports {other}, but {own} is a leaf")
            elif (own, other) in FORBIDDEN:
                found.append(f"{name} imports {other}, which {own} must not import")
        for package, importer in ONLY_IMPORTER.items():
            if name != importer and any(i.split(".")[0] == package for i in imports(file)):
                found.append(f"{name} imports {package}, which only {importer} may import")
        found += inner_breaches(file, root)
    return found + circles(root)


def inner_breaches(file, root):
    """Return what breaks the order inside a package."""
    parts = file.relative_to(root).with_suffix("").parts
    name, found = file.relative_to(root).as_posix(), []
    order = INNER.get(parts[0], [])
    imported = [other for other in ours(file) if other[0] == parts[0] and len(other) > 1]
    if len(parts) > 1 and parts[1] in order:
        found += [
            f"{name} imports {'.'.join(other)}, which is above it"
            for other in imported
            if other[1] in order and order.index(other[1]) > order.index(parts[1])
        ]
    folder = "/".join(parts[:-1])
    if folder in APART and file.name not in FACES:
        others = {path.stem for path in file.parent.glob("*.py")} - {file.stem, "__init__"}
        found += [
            f"{name} imports {'.'.join(other)}, a neighbour in {folder}"
            for other in imported
            if "/".join(other[: len(parts) - 1]) == folder and others & set(other)
        ]
    return found


def circles(root):
    """Strip the top-level units that import nothing that is left; what remains runs in circles."""
    graph = {}
    for file in sources(root):
        graph.setdefault(unit(file, root), set()).update(units_imported(file, root))
    while free := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in free}
    return [f"a circle of imports runs through {', '.join(sorted(graph))}"] if graph else []


def face_breaches(root):
    """Faces re-export, and may hold a registry; inside the package nobody imports from a face."""
    found, exported = [], {}
    for face in sorted(root.rglob("__init__.py")):
        if face == root / "__init__.py":
            continue
        package = ".".join(face.relative_to(root.parent).parent.parts)
        modules = {path.stem for path in face.parent.iterdir()}
        names = {}
        for node in ast.parse(face.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("spikeguard."):
                names |= {alias.asname or alias.name: node.module for alias in node.names}
            elif not isinstance(node, _DECLARATIONS):
                found.append(f"{package}: line {node.lineno} of its face is no re-export")
        found += [
            f"{package}: its face exports {name}, the name of a module"
            for name in names.keys() & modules
            if names[name] != package and (package, name) not in SAME_NAME
        ]
        exported[package] = names
    for file in sources(root):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in exported:
                found += [
                    f"{file.relative_to(root).as_posix()} imports {alias.name} from the face "
                    f"{node.module}; take it from {exported[node.module][alias.name]}"
                    for alias in node.names
                    if exported[node.module].get(alias.name, node.module) != node.module
                ]
    return found


def test_imports_go_down_only():
    assert breaches(ROOT) == []


def test_faces_re_export_and_nothing_else():
    assert face_breaches(ROOT) == []


def printed_order(text):
    """Return the rows of the import order of CONTRIBUTING, each as a set of packages."""
    block = re.search(r"this\s+order:\n\n```\n(.*?)\n```", text, re.DOTALL)
    return [set(row.split(", ")) for row in block[1].splitlines()]


def test_contributing_prints_this_order():
    text = (TESTS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert printed_order(text) == LAYERS[::-1]
    assert printed_order(text.replace("\nmodels\n", "\n")) != LAYERS[::-1]


def drawn_order(text):
    """Return the rows of the picture of docs/architecture.md, each as a set of packages."""
    rows = re.findall(r"^[a-z ]*(│.*│)$", text, re.MULTILINE)
    return [set(re.findall(r"│ (\w+)", row)) for row in rows]


def test_the_picture_of_the_architecture_shows_this_order():
    text = (TESTS.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    order = [row for row in LAYERS[::-1] if row != {"__main__"}]
    assert drawn_order(text) == order
    assert drawn_order(text.replace("│ neurons", "│ attacks")) != order


def test_every_module_of_the_package_is_read():
    files = {file.relative_to(ROOT).as_posix() for file in sources(ROOT)}
    assert {"rng.py", "kernels/multistep.py", "models/snn.py", "cli/entry.py"} <= files


def test_three_modules_stand_at_the_top():
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py", "rng.py"}


def plant(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"kernels/fast.py": "from spikeguard.models import SNN"}, "models, which is above"),
        ({"kernels/fast.py": "from spikeguard import models"}, "models, which is above"),
        (
            {"rng.py": "def f():\n    import spikeguard.training"},
            "rng.py imports training, which is",
        ),
        (
            {"storage/a.py": "from spikeguard.system import errors"},
            "imports system, but storage is a leaf",
        ),
        (
            {"rng.py": "import spikeguard.storage"},
            "rng.py imports storage, which rng must not import",
        ),
        (
            {"training/a.py": "import lightning_fabric.utilities"},
            "only training/engine.py may import",
        ),
        ({"training/a.py": "from lightning import fabric"}, "only training/engine.py may import"),
        (
            {"training/a.py": "import spikeguard.evaluation"},
            "evaluation, which training must not import",
        ),
        (
            {"auditing/a.py": "import spikeguard.training"},
            "training, which auditing must not import",
        ),
        ({"extras.py": ""}, "extras has no layer; add it to LAYERS"),
        (
            {
                "defences/a.py": "import spikeguard.analysis",
                "analysis/a.py": "import spikeguard.defences",
            },
            "a circle of imports runs through analysis, defences",
        ),
        (
            {"attacks/base.py": "from spikeguard.attacks.gradients.nes import NES"},
            "attacks/base.py imports attacks.gradients.nes.NES, which is above",
        ),
        (
            {"reporting/charts/a.py": "import spikeguard.reporting.sections.tables"},
            "reporting/charts/a.py imports reporting.sections.tables, which is above",
        ),
        (
            {
                "auditing/checks/a.py": "from spikeguard.auditing.checks.b import f",
                "auditing/checks/b.py": "",
            },
            "auditing/checks/a.py imports auditing.checks.b.f, a neighbour",
        ),
    ],
)
def test_the_check_fires_on_a_planted_breach(tmp_path, files, message):
    plant(tmp_path, {"training/engine.py": "import lightning_fabric", **files})
    (found,) = breaches(tmp_path)
    assert message in found


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data/__init__.py": "def f():\n    pass"}, "line 1 of its face is no re-export"),
        (
            {"data/__init__.py": "from spikeguard.data.idx import load", "data/load.py": ""},
            "its face exports load, the name of a module",
        ),
        (
            {
                "data/__init__.py": "from spikeguard.data.idx import read",
                "data/a.py": "from spikeguard.data import read",
            },
            "data/a.py imports read from the face spikeguard.data; take it from",
        ),
    ],
)
def test_the_check_of_faces_fires_on_a_planted_breach(tmp_path, files, message):
    root = tmp_path / "spikeguard"
    plant(root, files)
    (found,) = face_breaches(root)
    assert message in found


def mirror_breaches(tests, root):
    """Return the test modules that import another one, and the test folders without a package."""
    found = []
    for file in sorted(tests.rglob("*.py")):
        name = file.relative_to(tests).as_posix()
        found += [
            f"{name} imports {other}; move what they share to tests/toys/"
            for other in sorted(imports(file))
            if any(part.startswith("test_") for part in other.split("."))
        ]
    for folder in sorted({file.parent for file in tests.rglob("test_*.py")} - {tests}):
        parts = folder.relative_to(tests).parts
        if parts[0] not in NO_MIRROR and not root.joinpath(*parts).is_dir():
            found.append(f"tests/{'/'.join(parts)} has no package src/spikeguard/{'/'.join(parts)}")
    return found


def test_no_test_module_imports_another_and_folders_mirror_the_package():
    assert mirror_breaches(TESTS, ROOT) == []


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"data/test_a.py": "from tests.data.test_b import toy"}, "imports tests.data.test_b.toy"),
        ({"data/test_a.py": "from tests.data import test_b"}, "imports tests.data.test_b; move"),
        ({"data/test_a.py": "def f():\n    import test_b"}, "data/test_a.py imports test_b; move"),
        ({"datum/test_a.py": ""}, "tests/datum has no package src/spikeguard/datum"),
        ({"data/parts/test_a.py": ""}, "tests/data/parts has no package src/spikeguard/data/parts"),
    ],
)
def test_the_check_of_test_modules_fires_on_a_planted_breach(tmp_path, files, message):
    (tmp_path / "package" / "data").mkdir(parents=True)
    plant(tmp_path / "tests", {"toys/data.py": "", "contracts/test_c.py": "", **files})
    (found,) = mirror_breaches(tmp_path / "tests", tmp_path / "package")
    assert message in found
