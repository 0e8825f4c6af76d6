"""Every row of `facts.tsv`, made an error, gets the verdict that the row names."""

from __future__ import annotations

import pytest

from otel_triage.facts.providers import canonical
from otel_triage.model import LLMError
from otel_triage.verdict import build, table
from otel_triage.verdict.classify import classify

# Rows that are wrong, with the reason: (provider, status, code, begin of the pattern).
WRONG: dict[tuple[str, str, str, str], str] = {}

HTTP_STATUS = {"4xx": 418, "5xx": 500, "": None}


def status_of(row: table.Row) -> int | None:
    return HTTP_STATUS[row.status] if row.status in HTTP_STATUS else int(row.status)


def errors_of(row: table.Row) -> list[LLMError]:
    """The row as a body's code and as an exception's class, where it may be either."""
    facts = {"provider": row.called, "status": status_of(row), "message": table.filled(row.pattern)}
    if row.decides == "status":
        return [
            LLMError(**facts | {"message": None}),
            LLMError(**facts | {"message": None}, code=row.code or None),
        ]
    if row.finish_reason:
        return [LLMError(**facts, finish_reasons=(row.finish_reason,))]
    if row.exception or (row.code and row.called is None and not row.codes and "*" not in row.code):
        errors = [LLMError(**facts, error_type=row.code)]
        if row.called and row.exception and row.exception not in build.statuses():
            errors.append(LLMError(**facts, code=row.code))
        return errors
    if "*" in row.code:
        return [LLMError(**facts, code=row.code.replace("*", "SSLV3_ALERT_"))]
    if row.codes:
        return [LLMError(**facts, code=code) for code in row.codes]
    return [LLMError(**facts, type=row.code or None)]


def key(row: table.Row) -> tuple[str, str, str, str]:
    return row.provider, row.status, row.code, row.pattern[:40]


ROWS = table.rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.line}-{row.provider}")
def test_row(row: table.Row):
    for error in errors_of(row):
        verdict = classify(error)
        said = (f"{verdict.category}/{verdict.reason}", str(verdict.retryable))
        right = said == (row.verdict, row.retryable)
        assert right is (key(row) not in WRONG), (
            f"{row.pattern!r}: {said}, not {row.verdict}; {verdict.explain}"
        )


def test_every_provider_of_the_table_has_one_name():
    assert canonical("Azure OpenAI") == canonical("azure_openai") == "azure.ai.openai"
    assert canonical("Z.AI") == "zhipu"
    assert canonical("Some New-One") == "some_new_one"
    assert canonical(None) == ""
