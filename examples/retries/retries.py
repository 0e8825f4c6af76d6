"""Retries by verdict: an exhausted quota fails at once, an overload waits for as long as the provider says.

Run it: `pip install otel-triage openai tenacity`, OPENAI_API_KEY set, `python retries.py "a question"`.
"""

import sys

import openai
import tenacity

import otel_triage


def wait(state: tenacity.RetryCallState) -> float:
    """As long as the provider says, else longer from try to try, with jitter."""
    exc = state.outcome.exception() if state.outcome else None
    named = otel_triage.retry_after(exc) if exc else None
    return named if named is not None else tenacity.wait_random_exponential(max=20)(state)


@tenacity.retry(
    retry=tenacity.retry_if_exception(otel_triage.should_retry),
    wait=wait,
    stop=tenacity.stop_after_attempt(4),
    reraise=True,
)
def ask(client: openai.OpenAI, question: str, **options: object) -> str:
    """Asks once; the decorator decides whether again. `max_retries=0`: two layers of retries are a storm."""
    answer = client.with_options(max_retries=0).chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": question}], **options
    )
    return answer.choices[0].message.content or ""


if __name__ == "__main__":
    print(ask(openai.OpenAI(), sys.argv[1]))
