// Sends an item of each kind that @sentry/node makes: node envelopes.mjs DSN
import * as Sentry from "@sentry/node";
import OpenAI from "openai";

Sentry.init({
  dsn: process.argv[2],
  tracesSampleRate: 1.0,
  enableLogs: true,
  release: "app@1",
  environment: "test",
});
Sentry.startSession();

await Sentry.startSpan({ name: "t", op: "test" }, async () => {
  Sentry.startSpan({ name: "q", op: "db" }, () => Sentry.logger.error("a line with {x}", { x: 1 }));
  Sentry.metrics.count("requests", 2);
  await Sentry.withScope(async (scope) => {
    scope.addAttachment({ filename: "a.bin", data: new Uint8Array([0, 10, 123, 255]) });
    scope.setTag("own", "tag");
    try {
      await new OpenAI({ maxRetries: 0 }).chat.completions.create({
        model: "gpt-4o-mini",
        messages: [{ role: "user", content: "hello" }],
      });
    } catch (error) {
      console.log("LLM", Sentry.captureException(error));
    }
  });
  Sentry.captureException(new TypeError("no such key"));
});
Sentry.captureMessage("429 said OpenAI", "error");
const checkInId = Sentry.captureCheckIn({ monitorSlug: "m", status: "in_progress" });
Sentry.captureCheckIn({ checkInId, monitorSlug: "m", status: "ok", duration: 1.5 });
Sentry.captureFeedback({ message: "it said: 429 openai" });
// What browsers send, by the same writer of envelopes.
const replay = [
  [{ type: "replay_event" }, { type: "replay_event", segment_id: 0, urls: ["https://api.openai.com"] }],
  [{ type: "replay_recording", length: 7 }, new Uint8Array([123, 125, 10, 120, 156, 10, 10])],
];
await Sentry.getClient().sendEnvelope([{ event_id: "a".repeat(32), sent_at: new Date().toISOString() }, replay]);
await Sentry.getClient().sendEnvelope([{}, [[{ type: "not_invented_yet", length: 3, x: 1 }, new Uint8Array([1, 10, 10])]]]);
Sentry.endSession();
await Sentry.flush(10_000);
