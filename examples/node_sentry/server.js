// A small chat service: POST /chat {"text": "…"}.
import { createServer } from "node:http";
import { json } from "node:stream/consumers";

import * as Sentry from "@sentry/node";
import OpenAI from "openai";

const llm = new OpenAI({ maxRetries: Number(process.env.LLM_MAX_RETRIES ?? 2) });

async function chat(question) {
  const answer = await llm.chat.completions.create({
    model: "gpt-4o-mini",
    messages: [{ role: "user", content: question }],
  });
  return answer.choices[0].message.content;
}

const server = createServer(async (request, response) => {
  try {
    const { text: question } = await json(request);
    response.end(await chat(question));
  } catch (error) {
    Sentry.captureException(error);
    response.writeHead(502).end("The assistant is not available, please try again.");
  }
});

server.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});
