"""What import and the first verdict of a process cost: `python -m benchmarks.startup` (Linux)."""

from __future__ import annotations

import statistics
import subprocess
import sys

_FIRST = """
import time
def pages(): return int(open("/proc/self/statm").read().split()[1])
start, before = time.process_time(), pages()
import otel_triage
imported = time.process_time()
otel_triage.classify({"error_message": "x", "tags": {"http_status": "429"}})
print(imported - start, time.process_time() - imported, (pages() - before) / 256)
"""


def first_verdict() -> tuple[float, ...]:
    """Of a fresh process, medians of five: CPU ms of import and first verdict, and MiB for both (Linux)."""
    runs = [
        subprocess.run([sys.executable, "-c", _FIRST], capture_output=True, text=True, check=True, timeout=60)
        for _ in range(5)
    ]
    imports, verdicts, sizes = zip(*(map(float, run.stdout.split()) for run in runs), strict=True)
    return statistics.median(imports) * 1e3, statistics.median(verdicts) * 1e3, statistics.median(sizes)


def main() -> None:
    print("a fresh process: import {:.0f} ms, first verdict {:.0f} ms, {:.1f} MiB".format(*first_verdict()))


if __name__ == "__main__":
    main()
