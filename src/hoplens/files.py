"""Make folders, and write files whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from hoplens.errors import FileError


def make_folder(folder: str | os.PathLike[str], what: str = "folder") -> Path:
    """Make a folder, and those above it, where it is missing.

    Parameters
    ----------
    folder : path
    what : str, default "folder"
        What an error calls it.

    Returns
    -------
    Path
        ``folder``.

    Raises
    ------
    FileError
        If it cannot be made, e.g. as a file has its name.
    """
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise FileError(f"cannot make the {what} {place} ({why}); choose another folder") from None
    return place


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file so that readers see the old one or the new one, never a part.

    The bytes go to a temporary file beside the target, which then takes the target's place. A symbolic
    link stays a link. Whatever fails, an existing file stays as it was and no temporary file is left.

    Parameters
    ----------
    path : path
        Where to; its folder must exist.
    data : bytes
        The whole content.

    Returns
    -------
    Path
        ``path``.

    Raises
    ------
    FileError
        If the folder does not exist or cannot be written, or the target is a folder.
    """
    target = Path(path)
    real = Path(os.path.realpath(target))
    if real.is_dir():
        raise FileError(f"expected the name of a file to write, got the folder {target}; add a file name")
    # not tempfile: it makes files that only their owner may read, whatever the umask says
    draft = real.with_name(f".{real.name}.{secrets.token_hex(4)}.tmp")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, real)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        why = error.strerror or type(error).__name__
        raise FileError(
            f"cannot write {target} ({why}); choose a file in an existing folder that you may write to"
        ) from error
    except BaseException:  # an interrupt must not leave the draft behind either
        with suppress(OSError):
            draft.unlink()
        raise
    return target


__all__ = ["make_folder", "write_atomically"]
