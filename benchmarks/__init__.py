"""Measurements, side by side with what a user would pick instead: ratios of one interleaved run."""
