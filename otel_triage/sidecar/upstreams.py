"""Which Sentry a DSN key belongs to: by the settings, and by nothing that comes from outside."""

from __future__ import annotations

from collections.abc import Iterable

from otel_triage.sidecar.setting_types import SentrySettings


class Upstreams:
    """The Sentries of the settings."""

    def __init__(self, sentries: Iterable[SentrySettings], *, any_key: bool) -> None:
        """Look keys up in `sentries`.

        Args:
            sentries: An entry without keys takes all that no other one names.
            any_key: Whether keys may come in that nothing names, where nothing names any.
        """
        self._of = {key: entry.upstream for entry in sentries for key in entry.keys}
        rest = [entry.upstream for entry in sentries if not entry.keys]
        self._rest = rest[0] if rest else None
        self._any_key = any_key and not self._of

    def allows(self, key: str) -> bool:
        """Whether requests with this key are taken at all."""
        return key in self._of or self._any_key

    def of(self, key: str) -> str | None:
        """The base URL that this key's envelopes go to; None if there is none."""
        return self._of.get(key, self._rest)
