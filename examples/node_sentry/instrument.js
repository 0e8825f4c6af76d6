// Loaded before anything else (node --import), so that Sentry sees the libraries load.
import * as Sentry from "@sentry/node";

Sentry.init({
  // The DSN of the project with the sidecar's address in place of Sentry's. Nothing else changes.
  dsn: process.env.SENTRY_DSN,
  tracesSampleRate: 1.0,
});
