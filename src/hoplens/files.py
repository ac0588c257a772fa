"""Make folders, and write files whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hoplens.errors import FileError
from hoplens.memory import check_memory
from hoplens.text import for_table, printable


def usable_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that the operating system can look up, whether or not something is there."""
    given: object = path  # whatever a caller gives
    if not isinstance(given, str | os.PathLike):
        raise FileError(f"expected a path, got a {type(given).__name__}; give the path of a file")
    try:
        os.lstat(path)
    except ValueError:
        raise FileError(f"{printable(path)} is no path (it holds a NUL); give another one") from None
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            raise FileError(
                f"cannot use the path {printable(path)} ({error.strerror}); give another one"
            ) from None
    return Path(path)


def regular_file(path: str | os.PathLike[str], what: str) -> Path:
    """Return the path of a regular file (no pipe, no device) that can be read and fits into memory."""
    place = usable_path(path)
    try:
        status = place.stat()
        if stat.S_ISREG(status.st_mode):
            with place.open("rb"):
                pass
    except FileNotFoundError:
        raise FileError(f"no file {str(path)!r}; pass the path of a {what}") from None
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r} ({error.strerror}); pass the path of a {what}") from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file, but a pipe or a device"
        raise FileError(f"{str(path)!r} is {kind}; pass the path of a {what}")
    check_memory(f"reading {printable(path)}", status.st_size, "take a smaller file")
    return place


def check_archive(path: Path) -> None:
    """Raise if a zip archive would unpack to more than the memory; other files pass."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, LookupError):
        return  # whoever reads the file says what is wrong
    check_memory(f"unpacking {printable(path)}", size, "take a smaller file")


def read_text(path: str | os.PathLike[str], what: str, *, most: int) -> str:
    """Return the text of a regular file of at most ``most`` bytes; a longer one is refused unread."""
    place = usable_path(path)
    try:
        status = place.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"cannot read the {what} {printable(path)} (it is no regular file); name a file")
        if status.st_size > most:
            raise FileError(
                f"cannot read the {what} {printable(path)} ({status.st_size:,} bytes, at most {most:,} are "
                "read); name another file"
            )
        with place.open("rb") as file:
            return file.read(most + 1).decode("utf-8")
    except UnicodeDecodeError:
        raise FileError(f"cannot read the {what} {printable(path)} (it is not UTF-8 text)") from None
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot read the {what} {printable(path)} ({error.strerror})") from None


def make_folder(folder: str | os.PathLike[str], what: str = "folder") -> Path:
    """Make a folder, and those above it, where it is missing; errors call it ``what``."""
    place = usable_path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or type(error).__name__
        shown = printable(place)
        raise FileError(f"cannot make the {what} {shown} ({why}); choose another folder") from None
    return place


def write_atomically(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file so that readers see the old one or the new one, never a part.

    The bytes go to a temporary file beside the target, which then takes the target's place. A symbolic
    link stays a link. Whatever fails, an existing file stays as it was and no temporary file is left.
    """
    target = usable_path(path)
    real = Path(os.path.realpath(target))
    if real.is_dir():
        raise FileError(
            f"expected the name of a file to write, got the folder {printable(target)}; add a file name"
        )
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
            f"cannot write {printable(target)} ({why}); choose a file in an existing folder that you may "
            "write to"
        ) from error
    except BaseException:  # an interrupt must not leave the draft behind either
        with suppress(OSError):
            draft.unlink()
        raise
    return target


def csv_bytes(frame: Any) -> bytes:
    """Return a table as CSV without index: numbers to their last bit, names that no spreadsheet runs."""
    safe = frame.map(for_table).rename(columns=for_table)
    text: str = safe.to_csv(index=False)
    return text.encode()


__all__ = ["csv_bytes", "make_folder", "read_text", "usable_path", "write_atomically"]
