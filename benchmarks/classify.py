"""Verdicts on labelled errors: how right and how fast, ours beside LiteLLM's mapping and the status rule.

    python -m benchmarks.classify [--corpus FILE]

FILE holds error records as JSON lines, with the labels `category`, `reason` and `retryable`. Without it the
true positives of our own rules are taken, which flatters us: the rules were written for them.

LiteLLM runs in an environment of its own (`--litellm PYTHON`), in one process without a network. It gets each
error as the exception that the record tells of, with status and message. What it says is mapped to our
categories and reasons in its favour; its retry advice is its own `should_retry` for the status that it found.
Advice is compared as a retry loop needs it: try again now, or not. Nobody remembers an earlier error.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LITELLM = ROOT / ".envs" / "openai2" / "bin" / "python"
ROUNDS = 3

# What a status means where nothing more is known (RFC 9110, and the providers' pages on errors).
BY_STATUS = {
    400: "invalid_request/unspecified",
    401: "authentication_error/invalid_key",
    402: "rate_limit/quota_exhausted",
    403: "authentication_error/permission_denied",
    404: "invalid_request/model_not_found",
    408: "timeout/upstream",
    413: "invalid_request/payload_too_large",
    422: "invalid_request/invalid_parameter",
    429: "rate_limit/unspecified",
    500: "provider_error/internal",
    502: "provider_error/unavailable",
    503: "provider_error/unavailable",
    504: "timeout/upstream",
    524: "timeout/upstream",
    529: "provider_error/overloaded",
}
# LiteLLM's classes; the most specific base counts. APIError, its word for the rest, is told by its status.
BY_CLASS = {
    "ContextWindowExceededError": "invalid_request/context_length",
    "ContentPolicyViolationError": "prompt_issue/content_filter",
    "UnsupportedParamsError": "invalid_request/unsupported_parameter",
    "ImageFetchError": "invalid_request/invalid_media",
    "PaymentRequiredError": "rate_limit/quota_exhausted",
    "BudgetExceededError": "rate_limit/quota_exhausted",
    "RateLimitError": "rate_limit/unspecified",
    "AuthenticationError": "authentication_error/invalid_key",
    "PermissionDeniedError": "authentication_error/permission_denied",
    "NotFoundError": "invalid_request/model_not_found",
    "BadRequestError": "invalid_request/unspecified",
    "UnprocessableEntityError": "invalid_request/invalid_parameter",
    "Timeout": "timeout/read",
    "APITimeoutError": "timeout/read",
    "ServiceUnavailableError": "provider_error/unavailable",
    "BadGatewayError": "provider_error/unavailable",
    "InternalServerError": "provider_error/internal",
    "JSONSchemaValidationError": "prompt_issue/schema_violation",
    "APIResponseValidationError": "provider_error/bad_response",
    "APIConnectionError": "network_error/unspecified",
}
# The codes of its `normalize_error`.
BY_CODE = {
    "429_RATE_LIMIT_EXCEEDED": "rate_limit/unspecified",
    "429_BUDGET_EXCEEDED": "rate_limit/quota_exhausted",
    "429_NO_HEALTHY_DEPLOYMENTS": "provider_error/unavailable",
    "401_AUTHENTICATION_FAILED": "authentication_error/invalid_key",
    "403_MODEL_ACCESS_DENIED": "authentication_error/permission_denied",
    "403_PERMISSION_DENIED": "authentication_error/permission_denied",
    "400_MISSING_REQUIRED_PARAMETER": "invalid_request/invalid_parameter",
    "400_INVALID_PARAMETER_VALUE": "invalid_request/invalid_parameter",
    "400_CONTEXT_WINDOW_EXCEEDED": "invalid_request/context_length",
    "400_CONTENT_POLICY_VIOLATION": "prompt_issue/content_filter",
    "400_INVALID_REQUEST": "invalid_request/unspecified",
    "404_RESOURCE_NOT_FOUND": "invalid_request/model_not_found",
    "408_UPSTREAM_TIMEOUT": "timeout/upstream",
    "500_PROVIDER_CONNECTION_ERROR": "network_error/unspecified",
    "503_PROVIDER_OVERLOADED": "provider_error/overloaded",
    "500_PROVIDER_INTERNAL_ERROR": "provider_error/internal",
    "500_UNSUPPORTED_OPERATION": "invalid_request/unsupported_parameter",
    "500_INTERNAL_STATE_ERROR": "code_bug/other",
}


@dataclass(frozen=True)
class Answer:
    """What one way says of one error: `category/reason` or None, and whether to try again now."""

    verdict: str | None
    retry: bool | None


@dataclass(frozen=True)
class Result:
    """The answers of one way, in the corpus's order, and what they cost in microseconds."""

    way: str
    answers: list[Answer]
    times_us: list[float]


def retry_status(status: int | None) -> bool | None:
    """The retry rule of the openai SDK and of LiteLLM; None where there is no status."""
    return None if status is None else status in (408, 409, 429) or status >= 500


def by_status(status: int | None) -> str | None:
    """What the status rule says, if there is a status."""
    if status is None or status < 400:
        return None
    other = "invalid_request/unspecified" if status < 500 else "provider_error/internal"
    return BY_STATUS.get(status, other)


def status_of(record: Mapping[str, Any]) -> int | None:
    """The status that a record is tagged with."""
    tags = record.get("tags") or {}
    told = str(tags.get("http_status") or tags.get("http.response.status_code") or "")
    return int(told) if told.isdecimal() else None


def status_rule(records: list[dict[str, Any]]) -> Result:
    answers, times = [], []
    for _ in range(ROUNDS):
        for record in records:
            start = time.perf_counter_ns()
            status = status_of(record)
            answers.append(Answer(by_status(status), retry_status(status)))
            times.append((time.perf_counter_ns() - start) / 1000)
    return Result("HTTP status rule", answers[: len(records)], times)


def ours(records: list[dict[str, Any]]) -> Result:
    from otel_triage.cli.classify import verdict_of
    from otel_triage.cli.evaluate import ABSTAINED, timings_us

    answers = []
    for record in records:
        verdict = verdict_of(record)
        told = f"{verdict.category}/{verdict.reason}" if verdict.category != ABSTAINED else None
        answers.append(Answer(told, verdict.retryable == "yes" if told else None))
    return Result("otel-triage, rules", answers, timings_us(records, rounds=ROUNDS))


def litellm(records: list[dict[str, Any]], python: Path) -> Iterator[Result]:
    """Both of LiteLLM's answers, or none if it is not installed there."""
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for record in records:
            told = {name: record.get(name) for name in ("error_type", "error_message", "tags")}
            file.write(json.dumps({**told, "providers": _names(record)}) + "\n")
        file.flush()
        done = subprocess.run(
            [python, __file__, "--in-litellm", file.name],
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            stdout=subprocess.PIPE,
            text=True,
            timeout=600,
            check=True,
        )
    found = json.loads(done.stdout.splitlines()[-1])
    yield Result(
        f"litellm {found['version']}, exception_type",
        [Answer(_verdict_of_class(one["classes"], one["status"]), one["retry"]) for one in found["answers"]],
        found["times_us"],
    )
    if found["normalized_us"]:
        yield Result(
            "  and normalize_error",
            [Answer(BY_CODE.get(one["code"]), one["retry"]) for one in found["answers"]],
            found["normalized_us"],
        )


def _names(record: Mapping[str, Any]) -> list[str]:
    """Every name of the provider that a record is tagged with: LiteLLM has its own for some."""
    from otel_triage.facts.providers import canonical

    provider = canonical(str((record.get("tags") or {}).get("provider") or ""))
    table = tomllib.loads((ROOT / "otel_triage" / "facts" / "providers.toml").read_text("utf-8"))["names"]
    return [provider, *table.get(provider, ())]


def _verdict_of_class(classes: list[str], status: int | None) -> str | None:
    known = next((BY_CLASS[name] for name in classes if name in BY_CLASS), None)
    return known or by_status(status)


def in_litellm(file: str) -> dict[str, Any]:
    """Runs in LiteLLM's environment: what it makes of each record, and how long it takes."""
    from importlib.metadata import version

    import litellm
    from litellm.litellm_core_utils.exception_mapping_utils import exception_type

    try:
        from litellm.litellm_core_utils.error_normalization import normalize_error
    except ImportError:  # older versions
        normalize_error = None
    litellm.suppress_debug_info = True
    records = [json.loads(line) for line in Path(file).read_text("utf-8").splitlines()]
    known = {str(getattr(one, "value", one)) for one in litellm.provider_list}
    answers: list[dict[str, Any]] = []
    times: list[float] = []
    normalized: list[float] = []
    for _ in range(1 + ROUNDS):  # the first round warms up, as ours has had a verdict on every record
        answers.clear()
        for record in records:
            model = (record.get("tags") or {}).get("model") or ""
            # A provider that it does not know is called as one that is compatible with OpenAI.
            provider = next((name for name in record["providers"] if name in known), "openai")
            raised = exception_of(record)
            start = time.perf_counter_ns()
            try:
                mapped = exception_type(model, raised, provider)
            except Exception as error:
                mapped = error
            times.append((time.perf_counter_ns() - start) / 1000)
            status = getattr(mapped, "status_code", None)
            code = None
            if normalize_error:
                start = time.perf_counter_ns()
                code = normalize_error(mapped, str(status or ""), str(mapped))
                normalized.append(times[-1] + (time.perf_counter_ns() - start) / 1000)
            retry = litellm._should_retry(status) if isinstance(status, int) else None
            classes = [one.__name__ for one in type(mapped).__mro__]
            answers.append({"classes": classes, "status": status, "code": code, "retry": retry})
    return {
        "version": version("litellm"),
        "answers": answers,
        "times_us": times[len(records) :],
        "normalized_us": normalized[len(records) :],
    }


def exception_of(record: Mapping[str, Any]) -> Exception:
    """The exception that a record tells of: its own class where that can be made, else one of that name."""
    import builtins

    import httpx
    import openai

    name = (record.get("error_type") or "").rpartition(".")[2]
    message = record.get("error_message") or ""
    status = status_of(record)
    request = httpx.Request("POST", "http://127.0.0.1/v1/chat/completions")
    response = httpx.Response(status, request=request) if status else None
    made: Any = None
    for module in (openai, httpx, builtins):
        kind: Any = getattr(module, name, None) if name else None
        if made is None and isinstance(kind, type) and issubclass(kind, Exception):
            build: Any = kind
            for make in (
                partial(build, message, response=response or httpx.Response(400, request=request), body=None),
                partial(build, message=message, request=request),
                partial(build, message),
            ):
                with suppress(Exception):  # another signature
                    made = made or make()
    if made is None:
        made = type(name if name.isidentifier() else "Exception", (Exception,), {})(message)
    if not hasattr(made, "message"):
        made.message = message
    if response is not None and getattr(made, "status_code", None) is None:
        made.status_code, made.response = status, response
    error: Exception = made
    return error


def own_examples() -> list[dict[str, Any]]:
    """The true positives of the packaged rules as labelled error records."""
    from otel_triage.facts.wire import FACT_NAMES
    from otel_triage.verdict import build, taxonomy

    texts = ("message", "error_type", "stacktrace", "causes")
    records = []
    for row in build.rule_rows():
        category, _, reason = row["verdict"].partition("/")
        retryable = row.get("retryable") or str(taxonomy.reason(category, reason).retryable)
        for example in row["true_positives"]:
            causes = example.get("causes", [])
            lead = example.get("message") or (causes[0].get("message", "") if causes else "")
            kind = example.get("error_type") or (causes[0]["type"] if causes else "")
            # As Python prints a chain: the innermost first.
            chain = [f"{one['type']}: {one.get('message', '')}" for one in reversed(causes)]
            stack = "\n\nThe above exception was the direct cause of the following exception:\n\n".join(
                f"Traceback (most recent call last):\n{one}" for one in chain
            )
            tags = {
                FACT_NAMES[name]: value[0] if isinstance(value, list) else value
                for name, value in example.items()
                if name in FACT_NAMES and name not in texts
            }
            tags |= {name: example[name] for name in ("provider", "model") if name in example}
            records.append(
                {
                    "error_type": kind,
                    "error_message": lead,
                    "stacktrace": example.get("stacktrace") or (stack if len(chain) > 1 else ""),
                    "tags": tags,
                    "category": category,
                    "reason": reason,
                    "retryable": retryable,
                }
            )
    return records


def read_corpus(file: str) -> list[dict[str, Any]]:
    """The labelled records of a file; a broken or mislabelled line ends the run and is named."""
    from otel_triage.cli.classify import BadRecord, lines_of, open_input, read_record
    from otel_triage.cli.evaluate import BadLabel, read_labels

    records = []
    with open_input(file) as source:
        for number, line in lines_of(source):
            try:
                record = read_record(line)
                read_labels(record)
            except (BadRecord, BadLabel) as error:
                raise SystemExit(f"{file}: line {number}: {error}") from None
            records.append(record)
    if not records:
        raise SystemExit(f"{file}: no line with an error and its labels")
    return records


def _rate(rights: Iterable[bool]) -> float:
    found = list(rights)
    return sum(found) / len(found) if found else 0.0


def figures(result: Result, records: list[dict[str, Any]]) -> tuple[float, float, float, float, float]:
    """Shares right of category, reason and retry advice, of all; median and 99th percentile in µs."""
    pairs = list(zip(result.answers, records, strict=True))
    return (
        _rate((one.verdict or "").partition("/")[0] == label["category"] for one, label in pairs),
        _rate(one.verdict == f"{label['category']}/{label['reason']}" for one, label in pairs),
        _rate(
            one.retry is not None and one.retry == (label["retryable"] == "yes")
            for one, label in pairs
            if label.get("retryable")
        ),
        statistics.median(result.times_us),
        statistics.quantiles(result.times_us, n=100, method="inclusive")[98],
    )


def show(results: list[Result], records: list[dict[str, Any]]) -> None:
    found = [figures(result, records) for result in results]
    first = found[0]
    heads = ("category", "reason", "retry", "median µs", "p99 µs")
    print(f"{'right of all; in brackets: ours / this one':<44}" + "".join(f"{head:>18}" for head in heads))
    for result, row in zip(results, found, strict=True):
        cells = []
        for number, value in enumerate(row):
            ratio = f"({first[number] / value:.2f})" if value else "(-)"
            cells.append(f"{value:.1%} {ratio}" if number < 3 else f"{value:,.1f} {ratio}")
        print(f"{result.way:<44}" + "".join(f"{cell:>18}" for cell in cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", metavar="FILE", help="JSON lines of labelled error records")
    parser.add_argument(
        "--litellm", type=Path, default=LITELLM, metavar="PYTHON", help="of an environment with it"
    )
    parser.add_argument("--in-litellm", metavar="FILE", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.in_litellm:
        print(json.dumps(in_litellm(args.in_litellm)), flush=True)
        return
    records = read_corpus(args.corpus) if args.corpus else own_examples()
    what = args.corpus or "true positives of our own rules, which flatters us"
    print(f"{len(records):,} errors: {what}")
    results = [ours(records)]
    if args.litellm.exists():
        results += litellm(records, args.litellm)
    else:
        print(f"without LiteLLM: no {args.litellm}; make one with `make .envs/openai2/.ok`")
    show([*results, status_rule(records)], records)


if __name__ == "__main__":
    main()
