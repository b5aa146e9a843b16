"""Read a ``torch.save`` file of tensors, without running code from it and without trusting it."""

from __future__ import annotations

import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from spikeguard.storage.npz_files import DamagedFile, require_modest_zip

__all__ = ["read_torch_file"]

_PICKLE = b"\x80"  # first byte of torch files older than the zip format


def read_torch_file(path: Path) -> Any:
    """Return the content of a torch file, on the CPU; only tensors and containers are unpickled.

    Raises:
        DamagedFile: If the file holds other objects, is damaged or no torch file, or would unpack
            to much more than its size.
        OSError: If the file cannot be opened.
    """
    with path.open("rb") as file:
        try:
            if zipfile.is_zipfile(file):
                require_modest_zip(file, path.stat().st_size)
                with zipfile.ZipFile(file) as archive:
                    wrong = archive.testzip()  # torch itself compares no checksums
                if wrong is not None:
                    raise DamagedFile(f"the checksum of {wrong} is wrong")
            elif file.seek(0) or file.read(1) != _PICKLE:
                raise DamagedFile("it is no torch file; save torch.save(model.state_dict(), ...)")
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torch, about the kinds of tensors in the file
                return torch.load(file, map_location="cpu", weights_only=True)
        except DamagedFile as error:
            raise DamagedFile(f"{path} cannot be read: {error}.") from error
        except pickle.UnpicklingError as error:
            raise DamagedFile(
                f"{path} holds pickled objects beside tensors, or is damaged; SpikeGuard runs no "
                "code from a weights file: save torch.save(model.state_dict(), ...) or safetensors."
            ) from error
        except Exception as error:  # the reader raises whatever the bytes lead it to
            said = str(error).partition("\n")[0] or "not a whole file"
            raise DamagedFile(f"{path} cannot be read: {type(error).__name__}: {said}") from error
