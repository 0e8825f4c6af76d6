"""Ends of a process that Python's `atexit` does not see: what waits is sent there too.

uvicorn ends by the signal that it got, celery's pool and forked children of multiprocessing by
`os._exit`. Each offers a place of its own shortly before.
"""

from __future__ import annotations

import atexit
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, Final

import wrapt

from otel_triage.capture.guard import never_raises

_closing: Final[list[Callable[[], None]]] = []


def at_exit(close: Callable[[], None]) -> None:
    """Has `close` called when this process ends, or one that is forked from it; more than once maybe."""
    atexit.register(close)
    if not _closing:
        _watch()
    _closing.append(close)


@never_raises
def _watch() -> None:
    for module, hook in _HOOKS.items():
        wrapt.register_post_import_hook(hook, module)


def _close(*_: Any, **__: Any) -> None:
    for close in _closing:
        close()


@never_raises
def _uvicorn(module: ModuleType) -> None:
    async def shutdown(wrapped: Callable[..., Awaitable[None]], _server: Any, args: Any, kwargs: Any) -> None:
        try:
            await wrapped(*args, **kwargs)
        finally:
            _close()

    wrapt.wrap_function_wrapper(module, "Server.shutdown", shutdown)


@never_raises
def _celery(module: ModuleType) -> None:
    module.worker_process_shutdown.connect(_close, weak=False)


@never_raises
def _multiprocessing(module: ModuleType) -> None:
    # A child forgets all finalizers of its parent, and then runs these.
    module.register_after_fork(_close, lambda close: module.Finalize(None, close, exitpriority=0))


_HOOKS: Final = {
    "uvicorn.server": _uvicorn,
    "celery.signals": _celery,
    "multiprocessing.util": _multiprocessing,
}
