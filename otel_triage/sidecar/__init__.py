"""The way through: receive, journal, triage, deliver."""
