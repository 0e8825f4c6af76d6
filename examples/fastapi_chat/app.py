"""A small chat service, as a team has it that grew from raw httpx to the openai SDK and uses both.

Run it: `OPENAI_API_KEY=… ANTHROPIC_API_KEY=… uvicorn app:app` in this folder.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import openai
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel
from telemetry import set_up

ANTHROPIC = os.environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com")
TIMEOUT_S = float(os.environ.get("LLM_TIMEOUT_S", "30"))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Opens the clients for as long as the service runs."""
    retries = int(os.environ.get("LLM_MAX_RETRIES", "2"))
    async with (
        openai.AsyncOpenAI(timeout=TIMEOUT_S, max_retries=retries) as llm,
        httpx.AsyncClient(timeout=TIMEOUT_S) as http,
    ):
        app.state.llm, app.state.http = llm, http
        yield
    shut_down()


app = FastAPI(title="chat", lifespan=lifespan)
shut_down = set_up(app)


class Question(BaseModel):
    """What a user asks."""

    text: str
    model: str = "gpt-4o-mini"


@app.post("/chat")
async def chat(question: Question, request: Request) -> PlainTextResponse:
    """Answers in one piece, by the openai SDK."""
    answer = await request.app.state.llm.chat.completions.create(
        model=question.model, messages=[{"role": "user", "content": question.text}]
    )
    return PlainTextResponse(answer.choices[0].message.content or "")


@app.post("/chat/stream")
async def chat_stream(question: Question, request: Request) -> StreamingResponse:
    """Answers word by word, by the openai SDK."""
    stream = await request.app.state.llm.chat.completions.create(
        model=question.model, messages=[{"role": "user", "content": question.text}], stream=True
    )

    async def words() -> AsyncIterator[str]:
        try:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
        except openai.OpenAIError:
            yield "\n[the answer broke off, please ask again]"

    return StreamingResponse(words(), media_type="text/plain")


@app.post("/plan")
async def plan(question: Question, request: Request) -> PlainTextResponse:
    """Makes a plan, by the Responses API of the openai SDK."""
    response = await request.app.state.llm.responses.create(model=question.model, input=question.text)
    return PlainTextResponse(response.output_text)


@app.post("/summary")
async def summary(question: Question, request: Request) -> PlainTextResponse:
    """Summarises, by raw httpx: the service's first endpoint, never moved to an SDK."""
    response = await request.app.state.http.post(
        f"{ANTHROPIC}/v1/messages",
        headers={"x-api-key": os.environ["ANTHROPIC_API_KEY"], "anthropic-version": "2023-06-01"},
        json={
            "model": "claude-sonnet-4-5",
            "max_tokens": 512,
            "messages": [{"role": "user", "content": f"Summarise: {question.text}"}],
        },
    )
    response.raise_for_status()
    return PlainTextResponse(response.json()["content"][0]["text"])


@app.exception_handler(openai.OpenAIError)
@app.exception_handler(httpx.HTTPError)
@app.exception_handler(LookupError)
async def no_answer(_request: Request, _error: Exception) -> JSONResponse:
    """Tells the user what every user is told; the error itself is in the traces."""
    return JSONResponse({"detail": "The assistant is not available, please try again."}, status_code=502)
