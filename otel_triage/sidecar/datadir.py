"""The sidecar's own directory: mode 0700, and one sidecar at a time."""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path
from typing import Final

_LOCK: Final = "lock"

log = logging.getLogger(__name__)


class DataDirError(Exception):
    """The directory cannot be used; the text says why and what to do."""


def claim(path: Path) -> int:
    """Make `path` if it is not there, close it to other users, and lock it.

    Returns:
        The lock's file descriptor: the lock holds as long as this is open, or the process lives.

    Raises:
        DataDirError: If another sidecar has it, or it cannot be used.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_mode & 0o077:
            _close_to_others(path)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DataDirError(
            f"OTEL_TRIAGE_DATA_DIR: cannot use {path}: {error.strerror}. "
            "Example: OTEL_TRIAGE_DATA_DIR=/var/lib/otel-triage"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(lock, 32).decode(errors="replace").strip()
        os.close(lock)
        raise DataDirError(
            f"OTEL_TRIAGE_DATA_DIR: {path} is in use by another sidecar (process {owner or 'unknown'}). "
            "Stop that one, or give this one a directory of its own. "
            "Example: OTEL_TRIAGE_DATA_DIR=/var/lib/otel-triage-2"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _close_to_others(path: Path) -> None:
    try:
        path.chmod(0o700)
    except PermissionError:
        # A mounted volume often belongs to somebody else; our files in it are still 0600.
        log.warning("%s can be entered by other users, and its mode cannot be changed", path)
