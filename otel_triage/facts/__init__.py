"""What happened: a response, an exception, a span, a log record or a text becomes an `LLMError`."""
