"""Scores of a run computed by a fresh process, which shares no state with this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from spikeguard.config.plugins import NO_PLUGINS, Plugins

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["rescored"]

_CODE = "import sys; from spikeguard.runs.score_worker import answer; answer(*sys.argv[1:])"


def rescored(
    path: Path, data_root: Path | None, x: Tensor, y: Tensor, plugins: Plugins = NO_PLUGINS
) -> Tensor:
    """Score inputs in a fresh process that loads the run itself.

    Args:
        path: The run folder.
        data_root: Folder of the data sets, or None.
        x: Inputs [N, ...] in [0, 1].
        y: Labels [N].
        plugins: Packages from which parts of the recipe may be imported.

    Returns:
        The share of correct draws of each input [N].

    Raises:
        RuntimeError: If the process fails; the message is the last line it wrote.
    """
    import torch
    from numpy import load, savez

    with TemporaryDirectory() as folder:
        inputs, outcomes = Path(folder) / "asked.npz", Path(folder) / "answers.npz"
        savez(inputs, x=x.numpy(), y=y.numpy())
        root = "" if data_root is None else str(data_root)
        words = [str(Path(path).absolute()), root, str(inputs), str(outcomes), *plugins.packages]
        found_here = {"PYTHONPATH": os.pathsep.join(sys.path)} if plugins.packages else {}
        done = subprocess.run(
            [sys.executable, "-c", _CODE, *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **found_here},
        )
        if done.returncode:
            last = done.stderr.strip().rpartition("\n")[2]
            raise RuntimeError(f"the fresh process that was to score again failed: {last}")
        with load(outcomes) as found:
            return torch.from_numpy(found["right"])
