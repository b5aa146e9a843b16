"""The tutorials run from the first cell to the last, and show what their text says."""

import re
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed: make test does it")
nbformat = pytest.importorskip("nbformat")
TUTORIALS = Path(__file__).parents[1] / "docs" / "tutorials"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def printed(name, tmp_path):
    """Run a notebook in an empty folder and return all that it prints."""
    notebook = nbformat.read(TUTORIALS / f"{name}.ipynb", 4)
    assert all(cell.get("outputs") for cell in notebook.cells[-3:-1] if cell.cell_type == "code")
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=800, resources=where).execute()
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    return "".join(out.get("text", "") for out in outputs)


def test_a_network_of_spikingjelly_is_attacked_and_audited(tmp_path):
    pytest.importorskip("spikingjelly", reason="SpikingJelly is not installed: make bench-peers")
    text = printed("spikingjelly", tmp_path)
    printed_number, bound = re.findall(r"^worst case +([\d.]+) %", text, re.MULTILINE)
    assert float(bound) <= float(printed_number)
    assert "points" in text and "Bound: at most" in text


def test_three_defences_are_compared(tmp_path):
    text = printed("compare-defences", tmp_path)
    for name in ("plain", "AT", "TGO"):
        pgd = re.search(rf"^{name}: clean .*PGD-40 ([\d.]+) %", text, re.MULTILINE)
        worst = re.search(rf"^{name}: at most ([\d.]+) %", text, re.MULTILINE)
        assert pgd and worst, text
        assert float(worst[1]) <= float(pgd[1]) + 2  # TGO: other draws of the noise
