"""The results of a check as one page and as one JSON file, from the files of the work folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["collect", "page"]


def collect(work: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything measured so far as plain data; a part without results is left out."""
    found: dict[str, Any] = {**state}
    tests = work / "tests.jsonl"
    if tests.exists():
        lines = [json.loads(line) for line in tests.read_text().splitlines()]
        last = {line["test"]: line for line in lines}  # the latest outcome of each test
        found["tests"] = {
            "outcomes": dict(Counter(line["outcome"] for line in last.values())),
            "failed": [line for line in last.values() if line["outcome"] == "failed"],
        }
    found["bench"] = {
        folder.name: json.loads((folder / "bench.json").read_text())
        for folder in sorted(work.glob("bench*"))
        if (folder / "bench.json").exists()
    }
    for name, file in (("roofline", "roofline.json"), ("plan", "row/plan.json")):
        if (work / file).exists():
            found[name] = json.loads((work / file).read_text())
    metrics = work / "row/run/metrics.jsonl"
    if metrics.exists():
        found["epochs"] = [json.loads(line) for line in metrics.read_text().splitlines()]
    keys = ("samples", "clean", "attacks", "worst_case", "suite", "attack", "limit")
    found["attacks"] = {
        file.stem: {key: card[key] for key in keys if key in card}
        for file in sorted(work.glob("row/run/attacks/*.json"))
        if isinstance(card := json.loads(file.read_text()), dict)
    }
    return found


def page(work: Path, found: Mapping[str, Any]) -> str:
    """Return the results as Markdown."""
    machine = found["machine"]
    lines = ["# Check on a GPU", ""]
    if found["dry_run"]:
        lines += ["**A dry run on the CPU, with tiny sizes: no number here means anything.**", ""]
    lines += [", ".join(f"{name} {value}" for name, value in machine.items()), ""]
    for name, part in found["parts"].items():
        lines.append(f"- {name}: {part['status']}, {part['seconds']:.0f} s{_note(part)}")
    tests = found.get("tests", {"outcomes": {}, "failed": []})
    lines += ["", "## Tests", "", str(tests["outcomes"])]
    lines += [f"- {line['test']}: {line['why'].splitlines()[-1:]}" for line in tests["failed"]]
    for name in found["bench"]:
        table = work / name / "table.md"
        lines += ["", f"## {name}", "", table.read_text() if table.exists() else "no table yet"]
    lines += ["", "## Roofline", ""]
    lines += _roofline(found.get("roofline", {}))
    lines += ["", "## Training and attack", "", json.dumps(found.get("plan", {})), ""]
    for epoch in found.get("epochs", ()):
        shown = f"loss {epoch['train_loss']:.3f}, training accuracy {epoch['train_accuracy']:.1%}"
        lines.append(f"- epoch {epoch['epoch']}: {shown}, {epoch['seconds']:.0f} s")
    for name, card in found["attacks"].items():
        worst, clean = card["worst_case"]["accuracy"], card["clean"]["accuracy"]
        lines.append(f"- {name}: clean {clean:.1%}, worst case {worst:.1%} of {card['samples']}")
    return "\n".join(lines) + "\n"


def _note(part: Mapping[str, Any]) -> str:
    return f" ({part['note']})" if part.get("note") else ""


def _roofline(found: Mapping[str, Any]) -> list[str]:
    if "ceilings" not in found:
        return ["not measured"]
    peak = found["ceilings"]
    lines = [
        f"Kernel `{found['kernel']}`; a copy moves {peak['bytes_per_second'] / 1e9:.0f} GB/s, a "
        f"float32 product does {peak['flops_per_second'] / 1e12:.1f} TFLOP/s. Bytes are counted.",
        "",
        "| case | pass | ms | GB/s | share of the copy | share of the product |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, case in found.get("cases", {}).items():
        for kind in ("forward", "backward"):
            one = case[kind]
            lines.append(
                f"| {name} | {kind} | {1000 * one['seconds']:.3g} | "
                f"{one['bytes'] / one['seconds'] / 1e9:.0f} | {one['share_of_bandwidth']:.2f} | "
                f"{one['share_of_product']:.3f} |"
            )
    return lines
