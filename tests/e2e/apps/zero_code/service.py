"""A service that knows nothing of OpenTelemetry and of us, for each kind of server."""

import os
import sys

import openai

client = openai.OpenAI(max_retries=0)


def ask() -> str:
    """Asks a model, and says which process did and how that failed."""
    try:
        client.chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": "hello"}])
    except openai.APIError as error:
        return f"{os.getpid()} {type(error).__name__}"
    return f"{os.getpid()} answered"


def wsgi(environ, start_response):
    body = ask().encode()
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": ask().encode()})


if __name__ == "__main__":
    for _ in range(int(sys.argv[1])):
        print(ask(), flush=True)
