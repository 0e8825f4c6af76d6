"""Printed stack traces, as the languages' own documentation prints them."""

from __future__ import annotations

import json

from otel_triage.facts.stacktrace import Trace, read_stacktrace
from otel_triage.model import Cause

CHAINED = """Traceback (most recent call last):
  File "/srv/app/.venv/lib/python3.12/site-packages/httpx/_transports/default.py", line 101, in map
    yield
httpx.ConnectTimeout: timed out

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/app/main.py", line 7, in ask
    client.chat.completions.create(
    ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "C:\\\\app\\\\Lib\\\\site-packages\\\\openai\\\\__init__.py", line 12, in create
    return self._post()
openai.APITimeoutError: Request timed out.
See the docs.
""".replace("\\\\", "\\")


def test_python_chain_is_outermost_first() -> None:
    assert read_stacktrace(CHAINED) == Trace(
        causes=(
            Cause("openai.APITimeoutError", "Request timed out.\nSee the docs."),
            Cause("httpx.ConnectTimeout", "timed out"),
        ),
        frames=("/srv/app/main.py", "openai", "httpx._transports.default"),
        raised=("openai", "httpx._transports.default"),
    )


def test_python_context_and_exception_without_message() -> None:
    text = (
        "Traceback (most recent call last):\n"
        '  File "/usr/lib/python3.11/asyncio/tasks.py", line 2, in f\n    x\n'
        "TimeoutError\n\nDuring handling of the above exception, another exception occurred:\n\n"
        "Traceback (most recent call last):\n  File \"/app/a.py\", line 1, in g\n    y\nKeyError: 'choices'\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(Cause("KeyError", "'choices'"), Cause("TimeoutError", "")),
        frames=("/app/a.py", "asyncio.tasks"),
        raised=("/app/a.py", "asyncio.tasks"),
    )


def test_python_exception_group_names_its_first_member() -> None:
    # Printed by traceback.print_exception of CPython 3.11.
    text = (
        "  + Exception Group Traceback (most recent call last):\n"
        '  |   File "/app/a.py", line 3, in <module>\n'
        "  |     raise ExceptionGroup('two', [a])\n"
        "  | ExceptionGroup: two (1 sub-exception)\n"
        "  +-+---------------- 1 ----------------\n"
        "    | Traceback (most recent call last):\n"
        '    |   File "/v/site-packages/openai/_client.py", line 1, in f\n'
        "    |     raise RateLimitError('x')\n"
        "    | openai.RateLimitError: x\n"
        "    +------------------------------------\n"
    )
    assert "openai._client" in read_stacktrace(text).frames


def test_java_causes() -> None:
    text = (
        "com.openai.errors.OpenAIIoException: Request failed\n"
        "\tat com.openai.client.okhttp.OkHttpClient.execute(OkHttpClient.kt:43)\n"
        "\tat java.base/java.lang.Thread.run(Thread.java:840)\n"
        "Caused by: java.net.ConnectException: Failed to connect to localhost/127.0.0.1:9\n"
        "\tat okhttp3.internal.connection.ConnectPlan.connectSocket(ConnectPlan.kt:278)\n\t... 12 more\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(
            Cause("com.openai.errors.OpenAIIoException", "Request failed"),
            Cause("java.net.ConnectException", "Failed to connect to localhost/127.0.0.1:9"),
        ),
        frames=(
            "com.openai.client.okhttp.OkHttpClient.execute",
            "java.lang.Thread.run",
            "okhttp3.internal.connection.ConnectPlan.connectSocket",
        ),
        raised=(
            "com.openai.client.okhttp.OkHttpClient.execute",
            "okhttp3.internal.connection.ConnectPlan.connectSocket",
        ),
    )


def test_node_packages_and_cause() -> None:
    text = (
        "RetryError [AI_RetryError]: Failed after 3 attempts. Last error: fetch failed\n"
        "    at _retry (file:///app/node_modules/.pnpm/ai@6.0.1/node_modules/ai/dist/index.mjs:718:13)\n"
        "    at async post (/app/node_modules/@anthropic-ai/sdk/core.js:10:2)\n"
        "    at process.processTicksAndRejections (node:internal/process/task_queues:95:5) {\n"
        "  [cause]: TypeError: fetch failed\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(
            Cause("AI_RetryError", "Failed after 3 attempts. Last error: fetch failed"),
            Cause("TypeError", "fetch failed"),
        ),
        frames=(
            "ai/dist/index",
            "@anthropic-ai/sdk/core",
            "process.processTicksAndRejections (node:internal/process/task_queues:95:5)",
        ),
        raised=("ai/dist/index",),
        properties="{\n  [cause]: TypeError: fetch failed\n",
    )


def test_prose_and_huge_texts_are_harmless() -> None:
    assert read_stacktrace("We get a timeout, sometimes.") == Trace()
    assert read_stacktrace("") == Trace()
    huge = read_stacktrace(CHAINED + "x" * 3_000_000)
    assert [cause.type for cause in huge.causes] == ["openai.APITimeoutError", "httpx.ConnectTimeout"]
    assert len(huge.causes[0].message) == 2000


def test_node_prints_the_members_of_the_error_behind_its_stack() -> None:
    # util.inspect of an openai (npm) APIError, whose members are status, headers, error, code, param, type
    # (https://github.com/openai/openai-node/blob/master/src/core/error.ts)
    text = (
        "Error: 429 You exceeded your current quota\n"
        "    at APIError.generate (/app/node_modules/openai/core/error.js:53:20)\n"
        "    at async main (file:///app/index.mjs:8:3) {\n"
        "  status: 429,\n  code: 'insufficient_quota',\n  type: 'insufficient_quota'\n}\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(Cause("Error", "429 You exceeded your current quota"),),
        frames=("openai/core/error", "main (file:///app/index.mjs:8:3)"),
        raised=("openai/core/error",),
        properties="{\n  status: 429,\n  code: 'insufficient_quota',\n  type: 'insufficient_quota'\n}\n",
    )


def test_dotnet_inner_exceptions() -> None:
    # https://learn.microsoft.com/dotnet/api/system.exception.tostring: "Class: message ---> inner"
    text = (
        "System.AggregateException: Retry failed after 4 tries. (Connection refused (localhost:9))\r\n"
        " ---> System.Net.Http.HttpRequestException: Connection refused (localhost:9)\r\n"
        " ---> System.Net.Sockets.SocketException (111): Connection refused\r\n"
        "   at System.Net.Sockets.Socket.AwaitableSocketAsyncEventArgs.ThrowException(SocketError error)\r\n"
        "   at System.Net.Http.HttpConnectionPool.ConnectToTcpHostAsync(String host, Int32 port)\r\n"
        "   --- End of inner exception stack trace ---\r\n"
        "   at OpenAI.Chat.ChatClient.CompleteChatAsync(IEnumerable`1 messages) in /src/Chat.cs:line 97\r\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(
            Cause(
                "System.AggregateException", "Retry failed after 4 tries. (Connection refused (localhost:9))"
            ),
            Cause("System.Net.Http.HttpRequestException", "Connection refused (localhost:9)"),
            Cause("System.Net.Sockets.SocketException", "Connection refused"),
        ),
        frames=(
            "System.Net.Sockets.Socket.AwaitableSocketAsyncEventArgs.ThrowException",
            "System.Net.Http.HttpConnectionPool.ConnectToTcpHostAsync",
            "OpenAI.Chat.ChatClient.CompleteChatAsync",
        ),
        raised=("System.Net.Sockets.Socket.AwaitableSocketAsyncEventArgs.ThrowException",),
    )


def test_php_prints_the_previous_exception_first() -> None:
    # https://github.com/openai-php/client/issues/402
    text = (
        "JsonException: Syntax error in "
        "/srv/vendor/openai-php/client/src/Transporters/HttpTransporter.php:61\n"
        "Stack trace:\n"
        "#0 /srv/vendor/openai-php/client/src/Transporters/HttpTransporter.php(61): json_decode()\n\n"
        "Next OpenAI\\Exceptions\\UnserializableResponse: Syntax error in "
        "/srv/vendor/openai-php/client/src/Transporters/HttpTransporter.php:63\n"
        "Stack trace:\n"
        "#0 /srv/vendor/openai-php/client/src/Resources/Chat.php(33): OpenAI->requestObject()\n"
        "#1 /srv/app/Jobs/Run.php(159): OpenAI\\Resources\\Chat->create()\n#2 {main}\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(
            Cause("OpenAI\\Exceptions\\UnserializableResponse", "Syntax error"),
            Cause("JsonException", "Syntax error"),
        ),
        frames=(
            "openai-php/client/src/Resources/Chat",
            "/srv/app/Jobs/Run.php",
            "openai-php/client/src/Transporters/HttpTransporter",
        ),
        raised=(
            "openai-php/client/src/Resources/Chat",
            "openai-php/client/src/Transporters/HttpTransporter",
        ),
    )


def test_php_fatal_error() -> None:
    # https://github.com/openai-php/client/issues/123
    text = (
        "PHP Fatal error:  Uncaught OpenAI\\Exceptions\\ErrorException: That model is currently overloaded. "
        "in /var/www/html/vendor/openai-php/client/src/Transporters/HttpTransporter.php:66\nStack trace:\n"
        "#0 /var/www/html/vendor/openai-php/client/src/Resources/Chat.php(32): OpenAI->requestObject()\n"
        "#1 {main}\n  thrown in /var/www/html/vendor/openai-php/client/src/x.php on line 66\n"
    )
    assert read_stacktrace(text).causes == (
        Cause("OpenAI\\Exceptions\\ErrorException", "That model is currently overloaded."),
    )


def test_ruby_backtrace_and_cause() -> None:
    # https://docs.ruby-lang.org/en/3.4/Exception.html#method-i-full_message
    text = (
        "/srv/app/ask.rb:9:in `rescue in ask': no answer (Ask::Failed)\n"
        "\tfrom /srv/app/ask.rb:3:in `ask'\n"
        "/usr/local/bundle/gems/faraday-2.9.0/lib/faraday/response/raise_error.rb:38:in `on_complete': "
        "the server responded with status 429 (Faraday::TooManyRequestsError)\n"
        "\tfrom /usr/local/bundle/gems/ruby-openai-7.0.1/lib/openai/http.rb:23:in `json_post'\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(
            Cause("Ask::Failed", "no answer"),
            Cause("Faraday::TooManyRequestsError", "the server responded with status 429"),
        ),
        frames=(
            "/srv/app/ask.rb",
            "/srv/app/ask.rb",
            "faraday/response/raise_error",
            "ruby-openai/openai/http",
        ),
        raised=("/srv/app/ask.rb", "faraday/response/raise_error"),
    )


def test_ruby_on_rails_and_ruby_34_quotes() -> None:
    text = (
        "Faraday::UnauthorizedError (the server responded with status 401):\n"
        "  app/models/chat.rb:12:in 'Chat#ask'\n  app/jobs/run.rb:4:in 'block in perform'\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(Cause("Faraday::UnauthorizedError", "the server responded with status 401"),),
        frames=("app/models/chat.rb", "app/jobs/run.rb"),
        raised=("app/models/chat.rb",),
    )


def test_go_panic() -> None:
    # https://pkg.go.dev/runtime/debug#Stack
    text = (
        "panic: runtime error: index out of range [0] with length 0\n\n"
        "goroutine 1 [running]:\n"
        "github.com/openai/openai-go/v3.(*ChatCompletionService).New(0xc0000b2000, {0x1, 0x2})\n"
        "\t/go/pkg/mod/github.com/openai/openai-go/v3@v3.96.0/chatcompletion.go:68 +0x1d\n"
        "main.main()\n\t/app/main.go:12 +0x1d\nexit status 2\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(Cause("panic", "runtime error: index out of range [0] with length 0"),),
        frames=("github.com/openai/openai-go/v3.(*ChatCompletionService).New", "main.main"),
        raised=("github.com/openai/openai-go/v3.(*ChatCompletionService).New",),
    )


def test_java_wrapped_message_of_several_lines_and_kotlin() -> None:
    text = (
        "com.openai.errors.RateLimitException: 429: slow\ndown\n"
        "\tat com.openai.core.handlers.ErrorHandler.handle(ErrorHandler.kt:67)\n"
    )
    assert read_stacktrace(text).causes == (Cause("com.openai.errors.RateLimitException", "429: slow\ndown"),)


def test_python_chain_that_is_indented_as_a_whole() -> None:
    indented = "ERROR call failed\n" + "\n".join(f"      {line}" for line in CHAINED.split("\n"))
    assert read_stacktrace(indented) == read_stacktrace(CHAINED)


def test_python_chain_in_a_string_of_json() -> None:
    record = json.dumps({"level": "ERROR", "exc_info": CHAINED, "logger": "app"})
    assert read_stacktrace(record) == read_stacktrace(CHAINED)


def test_java_causes_in_a_string_of_json() -> None:
    text = "a.B: outer\n\tat a.B.run(B.java:3)\nCaused by: a.C: inner\n\tat a.C.go(C.java:4)"
    assert read_stacktrace(json.dumps({"stack_trace": text})).causes == (
        Cause("a.B", "outer"),
        Cause("a.C", "inner"),
    )


def test_python_frames_without_heads_written_outermost_first() -> None:
    text = (
        '    File "/srv/app/api.py", line 3, in ask\n      raise Failed\n    app.Failed: try later\n'
        '    [chained from]\n    File "/srv/app/llm.py", line 9, in call\n      run(\n'
        "    openai.APITimeoutError: Request timed out."
    )
    assert read_stacktrace(text).causes == (
        Cause("app.Failed", "try later"),
        Cause("openai.APITimeoutError", "Request timed out."),
    )


def test_pytest_prints_the_exception_behind_e() -> None:
    # https://docs.pytest.org/en/stable/how-to/output.html#modifying-python-traceback-printing
    text = (
        "app/llm.py:9: in call\n    self._post()\nE   httpx.ReadTimeout: slow\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "    def test_ask():\n>       ask()\n\ntests/test_ask.py:3: \n_ _ _ _ _\n\n"
        "    def ask():\n>       raise Failed from e\nE     app.Failed: no answer\n\napp/api.py:12: Failed\n"
    )
    assert read_stacktrace(text) == Trace(
        causes=(Cause("app.Failed", "no answer"), Cause("httpx.ReadTimeout", "slow")),
        frames=("tests/test_ask.py", "app/api.py", "app/llm.py"),
        raised=("app/api.py", "app/llm.py"),
    )
