"""A script of ``benchmarks/`` or ``tools/``, which no package holds, as a module."""

import importlib.util
import sys
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def loaded(file):
    """Yield the module of a file; what it added to the import path and modules is taken back."""
    path, before = list(sys.path), set(sys.modules)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)  # for dataclasses
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            found = getattr(sys.modules[name], "__file__", None)
            if found and Path(found).is_relative_to(file.parent):
                del sys.modules[name]
