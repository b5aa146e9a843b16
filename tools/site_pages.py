"""Pages of the documentation site that are made from the package, and formulas.

mkdocs calls the functions ``on_...`` (see mkdocs.yml). The first page is README.md with its links
adapted; names and the Python interface come from the package. Formulas become MathML, which
browsers show without a script.
"""

from __future__ import annotations

import html
import json
import re
from importlib.resources import files as package_files
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from spikeguard import _NAMES
from spikeguard.cli.commands import list as listing

ROOT = Path(__file__).parents[1]
MODULES = (
    "attacks",
    "auditing",
    "analysis",
    "certification",
    "config",
    "data",
    "defences",
    "encoders",
    "evaluation",
    "export",
    "kernels",
    "models",
    "neurons",
    "preflight",
    "reporting",
    "rng",
    "runs",
    "training",
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of the folder docs."""
    pages = {
        "index.md": _from_root("README.md"),
        "contributing.md": _from_root("CONTRIBUTING.md"),
        "names.md": _names(),
        "api.md": _api(),
    } | {f"api/{module}.md": _module(module) for module in MODULES}
    for notebook in sorted((ROOT / "docs" / "tutorials").glob("*.ipynb")):
        pages[f"tutorials/{notebook.stem}.md"] = _notebook(notebook)
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    plotly = package_files("plotly").joinpath("package_data", "plotly.min.js").read_bytes()
    files.append(File.generated(config, "assets/plotly.min.js", content=plotly))
    return files


def on_page_markdown(text: str, **_: object) -> str:
    """Let links to the root folder lead to the pages made from its files."""
    return text.replace("](../CONTRIBUTING.md", "](contributing.md")


def on_page_content(text: str, **_: object) -> str:
    """Replace the formulas of a finished page."""
    return re.sub(
        r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>',
        lambda found: _formula(html.unescape(found[2]), found[1] == "div"),
        text,
        flags=re.DOTALL,
    )


def _formula(text: str, block: bool) -> str:
    text = text.replace(r"\arg", r"\operatorname{arg}")
    if not block:
        return convert(text)
    return f'<div style="overflow-x: auto">{convert(text, display="block")}</div>'


def _from_root(name: str) -> str:
    """Return a page of the root folder with links from the folder docs."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"\]\(docs/", "](", text)
    text = text.replace("](CONTRIBUTING.md", "](contributing.md")
    return re.sub(r"\[([^\]]+)\]\((?:LICENSE|CITATION\.cff)\)", r"\1", text)


def _notebook(path: Path) -> str:
    """Return a notebook as a page: text, code, and what the code printed and drew."""
    parts = []
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        outputs = cell.get("outputs", [])
        if printed := "".join("".join(output.get("text", "")) for output in outputs).rstrip():
            parts.append(f"```text\n{printed}\n```")
        for output in outputs:
            chart = output.get("data", {}).get("application/vnd.plotly.v1+json")
            if chart is not None:
                parts.append(_chart(f"chart-{number}", chart))
    parts.append(f"[Download this notebook]({path.name})")
    return "\n\n".join(parts) + "\n"


def _chart(name: str, chart: dict[str, object]) -> str:
    drawn = json.dumps([chart["data"], chart["layout"], {"responsive": True}])
    return (
        f'<div id="{name}"></div><script src="../assets/plotly.min.js"></script>'
        f'<script>Plotly.newPlot("{name}", ...{drawn})</script>'
    )


def _names() -> str:
    """Return a table of each registry: what a recipe or a command takes."""
    parts = ["# Names\n", "What recipes and commands take, from the registries of the package.\n"]
    for kind in (*listing._REGISTRIES, "recipes"):
        rows = listing._described(kind, full=kind != "kernels")
        parts += [f"## {kind.capitalize()}\n", "| name | what it is |", "| --- | --- |"]
        parts += [f"| `{name}` | {_cell(text)} |" for name, text in rows.items()]
        parts.append("")
    return "\n".join(parts)


def _cell(text: str) -> str:
    return text.replace("\\|", "|").replace("|", "&#124;")


def _api() -> str:
    rows = "\n".join(f"- [`spikeguard.{module}`](api/{module}.md)" for module in MODULES)
    common = ", ".join(f"`sg.{name}`" for names in _NAMES.values() for name in names)
    return (
        "# Python interface\n\n`import spikeguard as sg` gives the names that most programs need: "
        f"{common}. All others are in these packages:\n\n{rows}\n"
    )


def _module(module: str) -> str:
    return f"# `spikeguard.{module}`\n\n::: spikeguard.{module}\n"
