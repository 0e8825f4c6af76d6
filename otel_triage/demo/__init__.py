"""A loopback LLM provider, an OTLP sink and traffic, for `otel-triage demo` and the tests."""
