"""The command `otel-triage`."""
