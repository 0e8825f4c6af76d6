"""Error bodies of many providers: each expected record is read off the cited body by hand."""

# ruff: noqa: E501 - bodies as they are sent
from __future__ import annotations

import json
from typing import Any

import pytest

from otel_triage.facts.bodies import ErrorBody, read_error_body

NOW = 1_768_780_800.0  # 2026-01-19T00:00:00Z

GEMINI_QUOTA = {
    # https://github.com/google-gemini/gemini-cli/issues/8437
    "error": {
        "code": 429,
        "message": "You exceeded your current quota, please check your plan and billing details.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [
                    {
                        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
                        "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
                    },
                    {
                        "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
                        "quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
                        "quotaValue": "50",
                    },
                ],
            },
            {
                "@type": "type.googleapis.com/google.rpc.Help",
                "links": [
                    {"description": "Learn more about Gemini API quotas", "url": "https://ai.google.dev"}
                ],
            },
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36s"},
        ],
    }
}

BODIES: dict[str, tuple[Any, ErrorBody]] = {
    "google: the day's quota before the minute's, and RetryInfo": (
        GEMINI_QUOTA,
        ErrorBody(
            code="RESOURCE_EXHAUSTED",
            status=429,
            param="GenerateRequestsPerDayPerProjectPerModel-FreeTier",
            message="You exceeded your current quota, please check your plan and billing details. "
            "[GenerateRequestsPerDayPerProjectPerModel-FreeTier, "
            "GenerateRequestsPerMinutePerProjectPerModel-FreeTier]",
            retry_after_s=36.0,
        ),
    ),
    "google: ErrorInfo's reason is more specific than the status": (
        # https://cloud.google.com/apis/design/errors#error_info
        {
            "error": {
                "code": 400,
                "message": "API key not valid. Please pass a valid API key.",
                "status": "INVALID_ARGUMENT",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                        "reason": "API_KEY_INVALID",
                        "domain": "googleapis.com",
                        "metadata": {"service": "generativelanguage.googleapis.com"},
                    }
                ],
            }
        },
        ErrorBody(
            code="API_KEY_INVALID",
            status=400,
            type="INVALID_ARGUMENT",
            message="API key not valid. Please pass a valid API key.",
        ),
    ),
    "google: BadRequest names the field": (
        # https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto
        {
            "error": {
                "code": 400,
                "message": "Invalid value",
                "status": "INVALID_ARGUMENT",
                "details": [
                    {
                        "@type": "type.googleapis.com/google.rpc.BadRequest",
                        "fieldViolations": [{"field": "tools[0].name", "description": "Invalid value"}],
                    }
                ],
            }
        },
        ErrorBody(code="INVALID_ARGUMENT", status=400, param="tools[0].name", message="Invalid value"),
    ),
    "gemini-cli: the body of the API inside of the message of its own error": (
        # https://github.com/google-gemini/gemini-cli/issues/14811
        {
            "error": {
                "message": json.dumps(
                    {"error": {"code": 429, "message": "Resource exhausted.", "status": "RESOURCE_EXHAUSTED"}}
                ),
                "code": 429,
                "status": "Too Many Requests",
            }
        },
        ErrorBody(code="RESOURCE_EXHAUSTED", status=429, message="Resource exhausted."),
    ),
    "openrouter: metadata.raw as JSON": (
        # https://openrouter.ai/docs/api/reference/errors-and-debugging
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {
                    "provider_name": "Google",
                    "raw": '{"error":{"code":429,"message":"Resource exhausted","status":"RESOURCE_EXHAUSTED"}}',
                },
            },
            "user_id": "user_1",
        },
        ErrorBody(code="RESOURCE_EXHAUSTED", status=429, message="Resource exhausted"),
    ),
    "openrouter: metadata.raw as a sentence, the reset in a header": (
        {
            "error": {
                "code": 429,
                "message": "Provider returned error",
                "metadata": {
                    "raw": "x/y:free is temporarily rate-limited upstream.",
                    "headers": {"X-RateLimit-Reset": "1768780860000"},
                },
            }
        },
        ErrorBody(status=429, message="x/y:free is temporarily rate-limited upstream.", retry_after_s=60.0),
    ),
    "openrouter: metadata.raw as a bare word explains nothing": (
        {"error": {"code": 502, "message": "Provider returned error", "metadata": {"raw": "ERROR"}}},
        ErrorBody(status=502, message="Provider returned error"),
    ),
    "openrouter: metadata.raw as a reason phrase is a status": (
        {"error": {"message": "Provider returned error", "metadata": {"raw": "Too Many Requests"}}},
        ErrorBody(status=429, message="Provider returned error"),
    ),
    "azure: innererror": (
        # https://learn.microsoft.com/azure/ai-services/openai/concepts/content-filter
        {
            "error": {
                "message": "The response was filtered",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {
                    "code": "ResponsibleAIPolicyViolation",
                    "content_filter_result": {"jailbreak": {"filtered": True, "detected": True}},
                },
            }
        },
        ErrorBody(
            code="ResponsibleAIPolicyViolation",
            status=400,
            type="content_filter",
            param="prompt",
            message="The response was filtered",
        ),
    ),
    "minimax: base_resp": (
        # https://platform.minimax.io/docs/api-reference/errorcode
        {
            "id": "1",
            "choices": None,
            "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"},
        },
        ErrorBody(code="1008", message="insufficient balance"),
    ),
    "minimax: a base_resp that is no error": (
        {"base_resp": {"status_code": 0, "status_msg": ""}, "choices": []},
        ErrorBody(),
    ),
    "cloudflare: errors": (
        # https://developers.cloudflare.com/workers-ai/platform/errors/
        {"errors": [{"message": "No such model x or task", "code": 5007}], "success": False, "result": {}},
        ErrorBody(code="5007", message="No such model x or task"),
    ),
    "watsonx: errors with the status beside them": (
        # https://cloud.ibm.com/apidocs/watsonx-ai
        {"errors": [{"code": "token_quota_reached", "message": "m n"}], "trace": "t", "status_code": 403},
        ErrorBody(code="token_quota_reached", status=403, message="m n"),
    ),
    "bedrock: boto3's ClientError.response": (
        # https://boto3.amazonaws.com/v1/documentation/api/latest/guide/error-handling.html
        {
            "Error": {"Message": "Too many tokens", "Code": "ThrottlingException"},
            "ResponseMetadata": {
                "RequestId": "b1",
                "HTTPStatusCode": 429,
                "HTTPHeaders": {},
                "RetryAttempts": 4,
            },
        },
        ErrorBody(code="ThrottlingException", status=429, message="Too many tokens", request_id="b1"),
    ),
    "bedrock: JSON protocol": (
        # https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html
        {"__type": "com.amazonaws.bedrock#ThrottlingException:http://x", "message": "slow down"},
        ErrorBody(code="ThrottlingException", message="slow down"),
    ),
    "bedrock proxy": (
        {"errorMessage": "Read timeout on endpoint", "errorCode": "InternalServerException"},
        ErrorBody(code="InternalServerException", message="Read timeout on endpoint"),
    ),
    "baidu": (
        # https://cloud.baidu.com/doc/WENXINWORKSHOP/s/tlmyncueh
        {"error_code": 336007, "error_msg": "the max input characters is 516096", "id": "as-1"},
        ErrorBody(code="336007", message="the max input characters is 516096"),
    ),
    "hunyuan": (
        # https://cloud.tencent.com/document/product/1729/101836
        {"Response": {"Error": {"Code": "AuthFailure", "Message": "bad secret id"}, "RequestId": "r-1"}},
        ErrorBody(code="AuthFailure", message="bad secret id", request_id="r-1"),
    ),
    "yandex": (
        # https://yandex.cloud/docs/api-design-guide/concepts/errors
        {
            "error": {
                "grpcCode": 16,
                "httpCode": 401,
                "message": "Unknown api key",
                "httpStatus": "Unauthorized",
                "details": [],
            }
        },
        ErrorBody(code="UNAUTHENTICATED", status=401, message="Unknown api key"),
    ),
    "grpc-gateway": (
        # https://github.com/grpc-ecosystem/grpc-gateway (google.rpc.Status as JSON)
        {"code": 8, "message": "rate exceeded", "details": []},
        ErrorBody(code="RESOURCE_EXHAUSTED", message="rate exceeded"),
    ),
    "xai": (
        # https://docs.x.ai/docs/key-information/debugging
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: sk***"},
        ErrorBody(code="Client specified an invalid argument", message="Incorrect API key provided: sk***"),
    ),
    "tgi": (
        # https://huggingface.co/docs/text-generation-inference (ErrorResponse)
        {"error": "Model is overloaded", "error_type": "overloaded"},
        ErrorBody(type="overloaded", message="Model is overloaded"),
    ),
    "hugging face while loading": (
        # https://huggingface.co/docs/api-inference/detailed_parameters: "estimated_time"
        {"error": "Model gpt2 is currently loading", "estimated_time": 20.0},
        ErrorBody(message="Model gpt2 is currently loading", retry_after_s=20.0),
    ),
    "fastapi validation": (
        # https://fastapi.tiangolo.com/tutorial/handling-errors/
        {"detail": [{"type": "missing", "loc": ["body", "model"], "msg": "Field required", "input": {}}]},
        ErrorBody(type="missing", param="body.model", message="Field required"),
    ),
    "fastapi reason phrase": ({"detail": "Unauthorized"}, ErrorBody(status=401)),
    "problem details (NVIDIA NIM)": (
        # RFC 9457
        {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "Function 'x' not found"},
        ErrorBody(status=404, message="Function 'x' not found"),
    ),
    "oauth": (
        # RFC 6749, 5.2
        {"error": "invalid_grant", "error_description": "Token has been expired or revoked."},
        ErrorBody(code="invalid_grant", message="Token has been expired or revoked."),
    ),
    "spring": (
        # https://docs.spring.io/spring-boot/reference/web/servlet.html (DefaultErrorAttributes)
        {"timestamp": "2026-01-01", "status": 402, "error": "Payment Required", "message": "No credits left"},
        ErrorBody(status=402, message="No credits left"),
    ),
    "naver": (
        # https://api.ncloud-docs.com/docs/en/ai-naver-clovastudio-summary: "status": {code, message}
        {"status": {"code": "40003", "message": "Context length exceeded"}, "result": None},
        ErrorBody(code="40003", message="Context length exceeded"),
    ),
    "openai realtime": (
        # https://platform.openai.com/docs/api-reference/realtime-server-events/response/done
        {
            "type": "response.done",
            "response": {
                "status": "failed",
                "status_details": {
                    "type": "failed",
                    "error": {"type": "insufficient_quota", "message": "You exceeded your current quota"},
                },
            },
        },
        ErrorBody(type="insufficient_quota", message="You exceeded your current quota"),
    ),
    "litellm proxy": (
        # https://docs.litellm.ai/docs/exception_mapping
        {
            "error": {
                "message": 'litellm.BadRequestError: AnthropicException - {"type":"error","error":{"type":'
                '"invalid_request_error","message":"Your credit balance is too low"},"request_id":"req_01abcdefgh"}',
                "type": None,
                "param": None,
                "code": "400",
            }
        },
        ErrorBody(
            type="invalid_request_error",
            status=400,
            message="Your credit balance is too low",
            request_id="req_01abcdefgh",
        ),
    ),
    "axios": (
        # https://github.com/axios/axios/blob/v1.x/lib/core/AxiosError.js (toJSON)
        {
            "message": "Request failed with status code 429",
            "name": "AxiosError",
            "config": {"data": '{"messages":[{"content":"error"}]}'},
            "code": "ERR_BAD_REQUEST",
            "status": 429,
            "response": {"status": 429, "data": {"error": {"message": "Slow down", "type": "requests"}}},
        },
        ErrorBody(code="ERR_BAD_REQUEST", status=429, type="requests", message="Slow down"),
    ),
    "vercel ai": (
        # https://ai-sdk.dev/docs/reference/ai-sdk-errors/ai-api-call-error
        {
            "name": "AI_APICallError",
            "url": "https://api.openai.com/v1/responses",
            "requestBodyValues": {"input": [{"error": {"message": "a prompt"}}]},
            "statusCode": 429,
            "responseHeaders": {"Retry-After": "7", "x-request-id": "req_1"},
            "responseBody": '{"error":{"message":"Slow down","code":"rate_limit_exceeded"}}',
            "isRetryable": True,
        },
        ErrorBody(
            code="rate_limit_exceeded", status=429, message="Slow down", request_id="req_1", retry_after_s=7.0
        ),
    ),
    "vercel ai: the last attempt of a retry": (
        # https://ai-sdk.dev/docs/reference/ai-sdk-errors/ai-retry-error
        {
            "name": "AI_RetryError",
            "errors": [
                {"statusCode": 500, "message": "first one"},
                {"statusCode": 429, "message": "last one"},
            ],
            "lastError": {"statusCode": 429, "message": "last one"},
        },
        ErrorBody(status=429, message="last one"),
    ),
    "a reset as a date": (
        {"error": {"message": "You have hit the limit", "resets_at": "2026-01-19T01:00:00Z"}},
        ErrorBody(message="You have hit the limit (resets at 2026-01-19T01:00:00Z)", retry_after_s=3600.0),
    ),
    "a reset that the message names as well": (
        {"error": {"message": "Spent. It resets tomorrow.", "resets_at": "2026-01-19T01:00:00Z"}},
        ErrorBody(message="Spent. It resets tomorrow.", retry_after_s=3600.0),
    ),
    "hugging face: warnings beside the error say why": (
        # https://github.com/huggingface/api-inference-community (routes.py): "error" and "warnings"
        {"error": "unknown error", "warnings": ["There was an inference error: CUDA out of memory"]},
        ErrorBody(message="unknown error (There was an inference error: CUDA out of memory)"),
    ),
    "elevenlabs: a code in status": (
        # https://elevenlabs.io/docs/developers/resources/error-messages
        {"detail": {"status": "voice_not_found", "message": "A voice was not found."}},
        ErrorBody(code="voice_not_found", message="A voice was not found."),
    ),
    "a run's state is no code": (
        {"status": "requires_action", "error": {"message": "No answer in time."}},
        ErrorBody(message="No answer in time."),
    ),
    "warnings that are no texts": (
        {"error": "unknown error", "warnings": [1, {"a": 2}]},
        ErrorBody(message="unknown error"),
    ),
    "mimo: a sentence in param": (
        {"error": {"message": "Param Incorrect", "param": "max_tokens is too large: 9", "code": "400"}},
        ErrorBody(
            status=400,
            param="max_tokens is too large: 9",
            message="Param Incorrect (max_tokens is too large: 9)",
        ),
    ),
    "a reset in Unix seconds": (
        {"error": {"type": "usage_limit_reached", "message": "m n", "resets_at": 1_768_780_900}},
        ErrorBody(type="usage_limit_reached", message="m n", retry_after_s=100.0),
    ),
    "milliseconds": (
        {"message": "slow down", "retry_after_ms": 1500},
        ErrorBody(message="slow down", retry_after_s=1.5),
    ),
    "success": ({"code": "success", "message": "ok then"}, ErrorBody()),
    "groq: the model's own output is not the message": (
        # https://console.groq.com/docs/tool-use
        {
            "error": {
                "message": "Failed to call a function.",
                "type": "invalid_request_error",
                "code": "tool_use_failed",
                "failed_generation": '{"error": {"message": "written by the model"}}',
            }
        },
        ErrorBody(code="tool_use_failed", type="invalid_request_error", message="Failed to call a function."),
    ),
}


@pytest.mark.parametrize("name", BODIES)
def test_body(name: str) -> None:
    data, expected = BODIES[name]
    assert read_error_body(data, now=NOW) == expected


def test_a_date_says_nothing_without_a_clock() -> None:
    data, _ = BODIES["a reset as a date"]
    assert read_error_body(data).retry_after_s is None
