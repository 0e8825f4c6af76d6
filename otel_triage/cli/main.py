"""Entry point of `otel-triage`."""


def main() -> None:
    """Run the command line."""
    raise SystemExit("not built yet")
