"""Read arrays from .npz and .npy files; nothing is unpickled."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import torch
from numpy.lib.format import MAGIC_PREFIX, read_array_header_1_0, read_array_header_2_0
from torch import Tensor

from hoplens.errors import FileError
from hoplens.files import check_archive, regular_file
from hoplens.text import printable


def load_arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of an .npz file by name; of an .npy file its array under the name ``inputs``."""
    regular_file(path, ".npz or .npy file")
    check_archive(path)
    try:
        with path.open("rb") as file:  # np.load leaves a damaged file open
            _check_claims(file)
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                return {"inputs": archive}
            return {name: archive[name] for name in archive.files}
    except (
        OSError,
        ValueError,
        AttributeError,
        EOFError,
        zipfile.BadZipFile,
        zlib.error,
        KeyError,
        NotImplementedError,
        RuntimeError,
        SyntaxError,
        TypeError,
        OverflowError,
        MemoryError,
    ) as error:
        # numpy's own advice on objects would run code of the file
        why = "it is none, or holds objects" if "pickle" in str(error) else printable(error)
        raise FileError(f"cannot read {path} as an .npz file of arrays ({why})") from None


def _check_claims(file: BinaryIO) -> None:
    """Raise ValueError if an array is said to be larger than what is stored of it: numpy makes room first."""
    if zipfile.is_zipfile(file):
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                with archive.open(member) as opened:
                    _check_claim(opened, member.file_size, member.filename)
    else:
        file.seek(0)
        _check_claim(file, os.fstat(file.fileno()).st_size, "its array")
    file.seek(0)


def _check_claim(file: IO[bytes], stored: int, name: str) -> None:
    if file.read(len(MAGIC_PREFIX)) != MAGIC_PREFIX:
        return  # np.load says that it is no array
    major, minor = file.read(2)
    if major not in (1, 2, 3):
        raise ValueError(f"version {major}.{minor} of the format is not known")
    read = read_array_header_1_0 if major == 1 else read_array_header_2_0  # 3 differs in its letters only
    shape, _, dtype = read(file)
    claimed = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and (claimed > stored or min(shape, default=0) < 0):
        raise ValueError(f"{printable(name)} is said to be {dtype} {shape}, but {stored} bytes are there")


def sequences_of(arrays: dict[str, Any], path: Path) -> Tensor:
    """Return the sequences (B, L, I): the array ``inputs``, or the only one."""
    names = list(arrays)
    if "inputs" not in names and len(names) != 1:
        raise FileError(
            f"{path} needs an array called 'inputs'; it holds {', '.join(names[:8]) or 'nothing'}"
        )
    values = arrays["inputs" if "inputs" in names else names[0]]
    if values.ndim != 3 or values.dtype.kind not in "fiu":
        raise FileError(
            f"{path}: inputs must be finite numbers of shape (B, L, I), got {values.dtype} {values.shape}"
        )
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise FileError(
            f"{path}: inputs must be finite numbers, but {bad} of {values.size} are NaN or infinite; "
            "fill or drop these steps"
        )
    return torch.as_tensor(values)


def names_of(arrays: dict[str, Any], path: Path) -> dict[str, list[str]]:
    """Return the optional lists of texts ``input_names`` and ``output_names``."""
    found: dict[str, list[str]] = {}
    for key in ("input_names", "output_names"):
        if key in arrays:
            values = arrays[key]
            if values.ndim != 1 or values.dtype.kind not in "US":
                raise FileError(f"{path}: {key} must be a list of texts, got {values.dtype} {values.shape}")
            found[key] = [str(value) for value in values.astype(str)]
    return found
