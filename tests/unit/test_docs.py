"""The documents name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import otel_triage.sidecar.settings as settings
from otel_triage.facts.wire import FACT_NAMES, VERDICT_NAMES

LIMIT_PARTS = ("limit", "remaining", "reset_s")
ROOT = Path(__file__).parents[2]


def test_every_setting_is_in_the_table_and_every_row_is_a_setting() -> None:
    text = (ROOT / "docs" / "sidecar.md").read_text("utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    assert named == {name.upper() for name in settings.Settings.model_fields}


def test_every_attribute_is_in_the_list() -> None:
    text = (ROOT / "docs" / "attributes.md").read_text("utf-8")
    names = {*FACT_NAMES.values(), *VERDICT_NAMES.values()} - {"triage.incident_id"}
    limits = {f"triage.ratelimit.{kind}.{part}" for kind in ("requests", "tokens") for part in LIMIT_PARTS}
    assert "triage.ratelimit.{requests,tokens}.{limit,remaining,reset_s}" in text
    assert {name for name in names - limits if f"`{name}`" not in text} == set()


def test_links_lead_somewhere() -> None:
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"), ROOT / "examples/fastapi_chat/README.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", file.read_text("utf-8")):
            assert (file.parent / target).exists(), f"{file.name}: {target}"
