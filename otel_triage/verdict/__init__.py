"""What it means: an `LLMError` becomes a `Verdict`. Pure: no I/O but reading our own data, no clock."""
