"""A FastAPI service with every layer traced: the server, the openai SDK (optional) and the HTTP client."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import otel_triage


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield
    provider.shutdown()
    triage.shutdown()


app = FastAPI(lifespan=lifespan)
exporter = Grpc(endpoint=os.environ["GRPC"], insecure=True) if "GRPC" in os.environ else Http()
provider = TracerProvider()
provider.add_span_processor(otel_triage.TriageSpanProcessor(BatchSpanProcessor(exporter)))
trace.set_tracer_provider(provider)
triage = otel_triage.init()
FastAPIInstrumentor.instrument_app(app)
HTTPX2ClientInstrumentor().instrument()
if os.environ.get("LLM_SPANS"):
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument()
llm = openai.AsyncOpenAI(max_retries=3)


@app.post("/ask")
async def ask(scenario: str) -> str:
    answer = await llm.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "Which harbour towns are there?"}],
        extra_headers={"x-demo-scenario": scenario},
    )
    return answer.choices[0].message.content or ""
