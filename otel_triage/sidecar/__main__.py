"""`python -m otel_triage.sidecar`."""

from __future__ import annotations

import sys

from otel_triage.sidecar.main import main

sys.exit(main())
