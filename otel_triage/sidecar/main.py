"""The sidecar's process: settings in, one event loop, an orderly end.

What stops the start is said in one line on stderr, with exit code 2. SIGTERM and SIGINT end
it: not ready at once, no new requests, ten seconds to deliver, the rest stays in the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from otel_triage.sidecar import faults
from otel_triage.sidecar.datadir import DataDirError
from otel_triage.sidecar.process import Sidecar, StageFactory, listens, refuse_itself
from otel_triage.sidecar.settings import Settings, SettingsError, load
from otel_triage.sidecar.store import JournalError
from otel_triage.sidecar.wiring import rules_and_desk

log = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `otel-triage sidecar` with its command line; returns the exit code."""
    parser = argparse.ArgumentParser("otel-triage sidecar", description="OTLP in, triage, OTLP out.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML; the environment wins")
    parser.add_argument("--check", action="store_true", help="check the settings and end")
    arguments = parser.parse_args(argv)
    set_up_logging()
    try:
        settings, warnings = load(arguments.config)
        for warning in warnings:
            log.warning("%s", warning)
        if arguments.check:
            refuse_itself(settings, [listen for listen in listens(settings).values() if listen.port])
            return 0
    except SettingsError as error:
        return _cannot_start(error)
    return run(settings)


def run(settings: Settings, stage: StageFactory = rules_and_desk) -> int:
    """Run until SIGTERM or SIGINT.

    Args:
        settings: Checked settings.
        stage: Makes the triage stage; called within the event loop.

    Returns:
        The exit code: 0 after an orderly end, 2 if something stopped the start.
    """
    set_up_logging()
    os.umask(0o077)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(settings, stage))
        except (SettingsError, DataDirError, JournalError) as error:
            return _cannot_start(error)
    return 0


def set_up_logging() -> None:
    """Log to stderr, one line a record; a second call changes nothing."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # says every request
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # says every broken request


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return super().format(record).replace("\n", " | ")


def _cannot_start(error: Exception) -> int:
    print(error, file=sys.stderr)
    return 2


async def _serve(settings: Settings, stage: StageFactory) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if faults.VARIABLE in os.environ:
        log.warning("%s is set: this sidecar breaks on purpose; for tests only", faults.VARIABLE)
    sidecar = Sidecar(settings, stage)
    await sidecar.start()
    gc.collect()
    gc.freeze()  # what lives now lives for good: no need to look through it again
    print(
        f"listening grpc={sidecar.grpc_listen} http={sidecar.http_listen} admin={sidecar.admin_listen}",
        file=sys.stderr,
        flush=True,
    )
    await stop.wait()
    await sidecar.stop()
