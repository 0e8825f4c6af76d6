#!/bin/sh
# Runs every test in its environment and ends with a table of what ran and what was skipped, and why.
# NO_SKIP=1 makes a skip a failure (CI). Arguments go to pytest of the main environment.
set -u
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
rm -rf .test-report && mkdir -p .test-report
status=0
REPORT=.test-report/main.json "$PYTHON" -m pytest "$@" || status=$?
if [ $# -eq 0 ] && [ -x .envs/openai2/bin/python ]; then
  REPORT=.test-report/openai2.json .envs/openai2/bin/python -m pytest tests/contract || status=$?
fi
"$PYTHON" tests/report.py .test-report || status=$?
exit $status
