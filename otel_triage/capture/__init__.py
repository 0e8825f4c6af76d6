"""In the application: taps, processor, error events. Never raises into it, never blocks it."""
