"""Print what the machine has, as JSON: Python, torch, the GPU, and the modules that import."""

from __future__ import annotations

import importlib
import json
import os
import platform
from typing import Any

MODULES = ("spikeguard", "triton", "cupy", "spikingjelly", "snntorch", "norse", "pytest", "xdist")


def describe() -> dict[str, Any]:
    """Return versions, the GPU or None, and for each module its version or why it is missing."""
    found: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count()}
    for name in ("torch", *MODULES):
        try:
            module = importlib.import_module(name)
            found[name] = str(getattr(module, "__version__", "there"))
        except Exception as error:  # a broken package must not end the check
            found[name] = f"missing: {' '.join(str(error).split())[:200]}"
    if not found["torch"].startswith("missing"):
        import torch

        found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
        if found["gpu"]:
            properties = torch.cuda.get_device_properties(0)
            found["gpu_gib"] = round(properties.total_memory / 2**30, 1)
            found["capability"] = f"{properties.major}.{properties.minor}"
    return found


if __name__ == "__main__":
    print(json.dumps(describe()))
