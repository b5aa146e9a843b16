"""Names that earlier versions exported can still be imported from where they were."""

import json
from importlib import import_module
from pathlib import Path

import pytest

STORED = Path(__file__).parent / "stored_runs" / "public_names.json"
NAMES = json.loads(STORED.read_text(encoding="utf-8"))


@pytest.mark.parametrize("module", NAMES)
def test_names_of_earlier_versions_are_there(module):
    found = import_module(module)
    assert [name for name in NAMES[module] if not hasattr(found, name)] == []


@pytest.mark.parametrize("module", NAMES)
def test_every_exported_name_exists(module):
    found = import_module(module)
    assert [name for name in found.__all__ if not hasattr(found, name)] == []
