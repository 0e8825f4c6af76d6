"""Error texts as clients, frameworks and programs print them; the source stands beside each."""

# ruff: noqa: E501 - texts as they are printed
from __future__ import annotations

from typing import Any

import pytest

from otel_triage.facts.printed import printed_objects
from otel_triage.facts.text import read_text
from otel_triage.facts.waits import wait_in

QUOTA = "You exceeded your current quota, please check your plan and billing details."
NOW = 1_768_780_800.0  # 2026-01-19T00:00:00Z

# text -> the facts that stand in it (those not named are None), and the classes in front of it
TEXTS: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "openai 2.x": (
        f"Error code: 429 - {{'error': {{'message': '{QUOTA}', 'type': 'insufficient_quota', 'param': None, "
        "'code': 'insufficient_quota'}}",
        {"status": 429, "code": "insufficient_quota", "type": "insufficient_quota", "message": QUOTA},
        (),
    ),
    "a message with an apostrophe, as Python's repr quotes it": (
        "Error code: 404 - {'error': {'message': \"The model doesn't exist\", 'code': None, 'type': 'server_error'}}",
        {"status": 404, "type": "server_error", "message": "The model doesn't exist"},
        (),
    ),
    "langchain-google-genai around google.genai": (
        # https://github.com/googleapis/python-genai/issues/2065
        "429 RESOURCE_EXHAUSTED. {'error': {'code': 429, 'message': 'Resource has been exhausted (e.g. check "
        "quota).', 'status': 'RESOURCE_EXHAUSTED'}}",
        {
            "status": 429,
            "code": "RESOURCE_EXHAUSTED",
            "message": "Resource has been exhausted (e.g. check quota).",
        },
        (),
    ),
    "litellm": (
        # https://github.com/BerriAI/litellm: exceptions.py, exception_mapping_utils.py
        "litellm.RateLimitError: AzureException RateLimitError - Requests have exceeded token rate limit. "
        "Please retry after 18 seconds. LiteLLM Retried: 2 times",
        {
            "message": "Requests have exceeded token rate limit. Please retry after 18 seconds",
            "retry_after_s": 18.0,
        },
        ("litellm.RateLimitError", "RateLimitError"),
    ),
    "litellm around the bytes of a body": (
        'litellm.RateLimitError: litellm.RateLimitError: VertexAIException - b\'{\\n  "error": {\\n    "code": 429,'
        '\\n    "message": "Resource exhausted.",\\n    "status": "RESOURCE_EXHAUSTED"\\n  }\\n}\\n\'',
        {"status": 429, "code": "RESOURCE_EXHAUSTED", "message": "Resource exhausted."},
        ("litellm.RateLimitError", "VertexAIException"),
    ),
    "a log line in JSON: what went wrong, not what was tried": (
        # https://github.com/uber-go/zap, https://github.com/pinojs/pino
        '{"level":"error","msg":"llm call failed","err":"read tcp 192.0.2.4:41234: connection reset by peer"}',
        {"message": "read tcp 192.0.2.4:41234: connection reset by peer"},
        (),
    ),
    "a log line in JSON with the error beside the message": (
        '{"level":"error","msg":"completion failed","error":"no such deployment: a"}',
        {"message": "no such deployment: a"},
        (),
    ),
    "pydantic-ai": (
        # https://github.com/coleam00/ottomator-agents/issues/28
        "status_code: 429, model_name: gpt-4.1-mini, body: {'message': 'Too fast', 'type': 'requests', 'code': 'c'}",
        {"status": 429, "code": "c", "type": "requests", "message": "Too fast"},
        (),
    ),
    "botocore": (
        # botocore/exceptions.py, ClientError.MSG_TEMPLATE
        "An error occurred (ThrottlingException) when calling the Converse operation (reached max retries: 4): "
        "Too many tokens, please wait before trying again.",
        {"code": "ThrottlingException", "message": "Too many tokens, please wait before trying again."},
        (),
    ),
    "azure-core": (
        # azure/core/exceptions.py, ODataV4Format
        "(content_filter) The response was filtered.\nCode: content_filter\nMessage: The response was filtered.",
        {
            "code": "content_filter",
            "message": "The response was filtered.",
        },
        (),
    ),
    "azure-core without a body": (
        "Operation returned an invalid status 'Too Many Requests'",
        {"status": 429, "message": "Operation returned an invalid status 'Too Many Requests'"},
        (),
    ),
    "cohere prints headers and body": (
        # cohere/core/api_error.py
        "headers: {'date': 'x', 'retry-after': '3'}, status_code: 429, body: {'id': '1', 'message': 'trial limit'}",
        {"status": 429, "message": "trial limit", "retry_after_s": 3.0},
        (),
    ),
    "mistralai": (
        # mistralai/client/errors/sdkerror.py
        'API error occurred: Status 401. Body: {"detail":"Unauthorized"}',
        {"status": 401},
        (),
    ),
    "anthropic-sdk-go": (
        'POST "https://api.anthropic.com/v1/messages": 529  (Request-ID: req_011) '
        '{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}',
        {"status": 529, "type": "overloaded_error", "message": "Overloaded", "request_id": "req_011"},
        (),
    ),
    "sashabaranov/go-openai": (
        "error, status code: 429, status: 429 Too Many Requests, message: rate limit exceeded",
        {"status": 429, "message": "rate limit exceeded"},
        (),
    ),
    "@google/generative-ai": (
        "[GoogleGenerativeAI Error]: Error fetching from https://generativelanguage.googleapis.com/v1beta/models/"
        "x:generateContent: [503 Service Unavailable] This model is currently experiencing high demand.",
        {"status": 503, "message": "This model is currently experiencing high demand."},
        (),
    ),
    "@google/generative-ai prints the details behind the message": (
        "[GoogleGenerativeAI Error]: Error fetching from https://x/y: [429 Too Many Requests] You exceeded it. "
        '[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"RequestsPerDay-Free"}]},'
        '{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"36s"}]',
        {
            "status": 429,
            "param": "RequestsPerDay-Free",
            "message": "You exceeded it. [RequestsPerDay-Free]",
            "retry_after_s": 36.0,
        },
        (),
    ),
    "openai .NET": (
        # OpenAI .NET: ClientErrorResponse -> "HTTP <status> (<type>: <code>)\nParameter: <param>\n\n<message>"
        f"HTTP 429 (insufficient_quota: insufficient_quota)\nParameter: model\n\n{QUOTA}",
        {
            "status": 429,
            "code": "insufficient_quota",
            "type": "insufficient_quota",
            "param": "model",
            "message": QUOTA,
        },
        (),
    ),
    "the Java SDKs": ("429: Rate limit reached", {"status": 429, "message": "Rate limit reached"}, ()),
    "Spring AI": (
        'HTTP 429 - {\n  "error": {\n    "message": "Slow",\n    "code": "insufficient_quota"\n  }\n}',
        {"status": 429, "code": "insufficient_quota", "message": "Slow"},
        (),
    ),
    "guzzle cuts the body off": (
        # guzzlehttp/guzzle: RequestException::create
        "Client error: `POST https://api.openai.com/v1/chat/completions` resulted in a `429 Too Many Requests` "
        'response:\n{\n    "error": {\n        "message": "You exceeded your current quota, please (truncated...)\n',
        {"status": 429, "message": "You exceeded your current quota, please (truncated...)"},
        (),
    ),
    "reqwest": (
        "HTTP status client error (401 Unauthorized) for url (https://x/y)",
        {"status": 401, "message": "HTTP status client error (401 Unauthorized) for url (https://x/y)"},
        (),
    ),
    "axios": (
        "Request failed with status code 429",
        {"status": 429, "message": "Request failed with status code 429"},
        (),
    ),
    "HttpClient of .NET": (
        "Response status code does not indicate success: 503 (Service Unavailable).",
        {
            "status": 503,
            "message": "Response status code does not indicate success: 503 (Service Unavailable).",
        },
        (),
    ),
    "faraday": (
        "the server responded with status 429",
        {"status": 429, "message": "the server responded with status 429"},
        (),
    ),
    "grpc": (
        # https://github.com/google/generative-ai-docs/issues/438
        "<_InactiveRpcError of RPC that terminated with:\n\tstatus = StatusCode.RESOURCE_EXHAUSTED\n\tdetails = "
        '"Resource has been exhausted (e.g. check quota)."\n\tdebug_error_string = "{grpc_status:8}"\n>',
        {"code": "RESOURCE_EXHAUSTED", "message": "Resource has been exhausted (e.g. check quota)."},
        (),
    ),
    "google.api_core": (
        "google.api_core.exceptions.ResourceExhausted: 429 Quota exceeded for x",
        {"status": 429, "message": "Quota exceeded for x"},
        ("google.api_core.exceptions.ResourceExhausted",),
    ),
    "tenacity": (
        # tenacity/__init__.py: RetryError.__str__
        "RetryError[<Future at 0x7f4c state=finished raised RateLimitError>]",
        {"message": "RetryError[<Future at 0x7f4c state=finished raised RateLimitError>]"},
        ("RateLimitError",),
    ),
    "vercel ai": (
        "Failed after 3 attempts. Last error: Rate limit reached for gpt-4o. Please try again in 6m0s.",
        {"message": "Rate limit reached for gpt-4o. Please try again in 6m0s.", "retry_after_s": 360.0},
        (),
    ),
    "instructor": (
        # instructor/core/exceptions.py
        '<failed_attempts>\n<generation number="1">\n<exception>\n    Error code: 500 - busy\n</exception>\n'
        "</generation>\n</failed_attempts>\n\n<last_exception>\n    Error code: 429 - Slow down\n</last_exception>",
        {"status": 429, "message": "Slow down"},
        (),
    ),
    "a stream's error event inside of a 200": (
        # https://docs.anthropic.com/en/docs/build-with-claude/streaming#error-events
        'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n',
        {"type": "overloaded_error", "message": "Overloaded"},
        (),
    ),
    "the error among the events of a stream": (
        'data: {"id":"1","choices":[{"delta":{"content":"Hi"}}]}\n\ndata: {"error":{"code":502,"message":"Provider disconnected"}}\n',
        {"status": 502, "message": "Provider disconnected"},
        (),
    ),
    "escaped twice": (
        'upstream said "{\\"error\\": {\\"message\\": \\"{\\\\\\"error\\\\\\": {\\\\\\"code\\\\\\": '
        '\\\\\\"insufficient_quota\\\\\\"}}\\"}}"',
        {"code": "insufficient_quota", "message": "upstream said"},
        (),
    ),
    "node's inspect": (
        "{\n  status: 429,\n  error: {\n    message: 'You exceeded ' +\n      'your quota',\n    code: 'c',\n"
        "    param: null\n  },\n  headers: Headers { 'retry-after': '3' }\n}",
        {"status": 429, "code": "c", "message": "You exceeded your quota", "retry_after_s": 3.0},
        (),
    ),
    "a ruby hash": (
        'OpenAI HTTP Error (spotted in ruby-openai 7.0.1): {"error"=>{"message"=>"Slow", "code"=>"c", "param"=>nil}}',
        {"code": "c", "message": "Slow"},
        (),
    ),
    "rust's debug": (
        # https://docs.rs/async-openai: ApiError
        'ApiError(ApiError { message: "Slow", type: Some("requests"), param: None, code: Some("c") })',
        {"code": "c", "type": "requests", "message": "Slow"},
        (),
    ),
    "an html page of an edge": (
        "<html><head><title>api.example.com | 524: A timeout occurred</title></head></html>",
        {"status": 524, "message": "api.example.com | 524: A timeout occurred"},
        (),
    ),
    "a type in front": (
        "overloaded_error: Overloaded right now",
        {"type": "overloaded_error", "message": "Overloaded right now"},
        (),
    ),
    "a labelled code": (
        "Request rejected (code: model_not_found)",
        {"code": "model_not_found", "message": "Request rejected (code: model_not_found)"},
        (),
    ),
    "a request id in words": (
        # OpenAI's 500: "… (Please include the request ID … in your message.)"
        "The server had an error. (Please include the request ID 9a8ec0b02877cea9 in your message.)",
        {
            "message": "The server had an error. (Please include the request ID 9a8ec0b02877cea9 in your message.)",
            "request_id": "9a8ec0b02877cea9",
        },
        (),
    ),
    "a reason phrase alone": ("Payment Required", {"status": 402}, ()),
    "numbers that are no status": (
        "Used 429, requested 500 tokens; 404ms; $502; v4.0.400",
        {"message": "Used 429, requested 500 tokens; 404ms; $502; v4.0.400"},
        (),
    ),
    "an exit code": ("exit code: 500", {"message": "exit code: 500"}, ()),
    "the model's own output": (
        'Failed to parse Answer from completion {"error": {"message": "x y", "code": "c"}}. Got: 1 error',
        {
            "message": 'Failed to parse Answer from completion {"error": {"message": "x y", "code": "c"}}. '
            "Got: 1 error"
        },
        (),
    ),
    "arguments of a tool": (
        'Tool call failed with arguments: {"message": "hello", "code": "x"}',
        {"message": 'Tool call failed with arguments: {"message": "hello", "code": "x"}'},
        (),
    ),
    "curl -v around and inside of a body": (
        # https://curl.se/docs/manpage.html#-v
        "  % Total    % Received % Xferd  Average Speed\n100   200  100   120    0    80    300    200\n"
        "> POST /v1/chat/completions HTTP/2\n< HTTP/2 429 \n< retry-after: 20\n< \n"
        '{"error": {"message": "Slow down", "code": "rate_limit_exceeded"\n'
        "* Connection #0 to host api.example.com left intact\n}}",
        {"status": 429, "code": "rate_limit_exceeded", "message": "Slow down", "retry_after_s": 20.0},
        (),
    ),
    "a status that the message of a body names": (
        '{"detail": "the model server answered with status_code=503"}',
        {"status": 503, "message": "the model server answered with status_code=503"},
        (),
    ),
    "a number in the message of a body is no status": (
        '{"detail": "the batch held 503 rows"}',
        {"message": "the batch held 503 rows"},
        (),
    ),
    "dspy tells the original error last": (
        # https://github.com/stanfordnlp/dspy/blob/main/dspy/adapters/json_adapter.py
        "Both structured output format and JSON mode failed. Original error: litellm.AuthenticationError: no key",
        {"message": "no key"},
        ("litellm.AuthenticationError",),
    ),
    "a template's variables": (
        "Input to PromptTemplate is missing variables {'name'}",
        {"message": "Input to PromptTemplate is missing variables {'name'}"},
        (),
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(name: str) -> None:
    text, facts, classes = TEXTS[name]
    told = read_text(text, NOW)
    found = {field: getattr(told.body, field) for field in told.body.__slots__}
    assert {field: value for field, value in found.items() if value is not None} == facts
    assert told.classes == classes


WAITS = {
    "Please try again in 18.642s. Visit https://x": 18.642,  # OpenAI
    "Please try again in 6m0s.": 360.0,
    "Please try again in 20ms.": 0.02,
    "try again in 2 minutes": 120.0,
    "Please retry after 86400 seconds.": 86400.0,  # Azure
    "Please retry in 36.428s.": 36.428,  # Gemini
    "Your quota will reset after 12h34m16s.": 45256.0,  # Gemini Code Assist
    "please try again after 1 seconds": 1.0,  # Moonshot
    "Retry-After: 5": 5.0,
    "'retry_after': 2.5,": 2.5,
    "retry_delay {\n  seconds: 24\n}": 24.0,  # google.api_core prints protobuf text
    "You may retry your request after 5 seconds": 5.0,
    "limit resets in 3 hours": 10800.0,
    "try again in 1 hour and 5 minutes": 3900.0,
    "请 60 秒后重试": 60.0,
    "请在5分钟后再试": 300.0,
    "60秒後に再試行してください": 60.0,
    "60초 후에 다시 시도하세요": 60.0,
    "Повторите через 20 секунд": 20.0,
    "Vuelva a intentarlo en 20 segundos": 20.0,
    "Tente novamente em 20 segundos": 20.0,
    "Réessayez dans 20 secondes": 20.0,
    "Bitte in 20 Sekunden erneut versuchen": 20.0,
    "will reset at 2026-01-19T06:00:00Z": 21600.0,
    "You will regain access on 2026-01-20 at 00:00 UTC.": 86400.0,  # Anthropic
    "Claude AI usage limit reached|1768784400": 3600.0,  # Claude Code
    "您的限额将在 2026-01-19 05:00:00 重置。": 18000.0,  # Zhipu 1308
    "timed out in 20 seconds": None,
    "Rate limit: 3 per 1 minute": None,
    "failed again, 3 times": None,
    "please try again later": None,
}


@pytest.mark.parametrize("text", WAITS)
def test_wait(text: str) -> None:
    assert wait_in(text, NOW) == WAITS[text]


def test_a_point_in_time_needs_a_clock() -> None:
    assert wait_in("will reset at 2026-01-19T06:00:00Z") is None


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a {'x': None, 'y': (1, 2.5), 'z': True} b", {"x": None, "y": [1, 2.5], "z": True}),
        ("{\"a\": 'it\\'s', 'b': \"\\u4f60\\ud83d\\ude00\\n\"}", {"a": "it's", "b": "你😀\n"}),
        ("{a: [Object], b: undefined, c: <Response [429]>}", {"a": ["Object"], "b": None, "c": [429]}),
        ('{"a": {"b": [1, 2', {"a": {"b": [1, 2]}}),
        ("{'a': 1, 'a': 2}", {"a": 2}),
    ],
)
def test_printed_object(text: str, data: Any) -> None:
    assert [found.data for found in printed_objects(text)] == [data]


def test_braces_in_prose_are_no_objects() -> None:
    assert [found.data for found in printed_objects("unexpected {x} in {} and {{y}}")] == []


@pytest.mark.parametrize("text", ["proxy said < HTTP/2 429 slow down", "a > b < HTTP/1.1 500", "x < HTTP/"])
def test_marks_of_curl_within_a_line_are_text(text: str) -> None:
    """They are no lines of curl, so nothing of them is taken out; it read them for ever."""
    assert read_text(text).body.message == text
