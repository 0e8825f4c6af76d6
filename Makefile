# Two commands do all the set-up on a fresh machine: `make demo` and `make test`.
# Nothing here uses sudo, and nothing needs a fixed port.

PYTHON ?= python3
VENV := .venv
OPENAI2 := .envs/openai2
BUGSINK := .envs/bugsink
NODE := .tools/node_sentry
OTELCOL := .tools/otelcol
PIP_FLAGS := --quiet --disable-pip-version-check

.PHONY: demo test otelcol lint bench clean check-python

demo: $(VENV)/.demo
	$(VENV)/bin/otel-triage demo --app examples/fastapi_chat $(if $(KEEP),--keep)

test: $(VENV)/.dev $(OPENAI2)/.ok $(BUGSINK)/.ok $(NODE)/.ok
	PYTHON=$(VENV)/bin/python sh tests/run.sh

# Not part of `make test`: the first build takes minutes and 2 GB. Without it its tests are skipped, and say so.
otelcol: $(OTELCOL)

lint: $(VENV)/.dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(VENV)/.dev
	$(VENV)/bin/python -m benchmarks.overhead
	$(VENV)/bin/python -m benchmarks.classify
	$(VENV)/bin/python -m benchmarks.startup

check-python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "otel-triage needs Python 3.11 or later as '$(PYTHON)'."; \
	  echo "On Debian or Ubuntu:  apt-get install python3 python3-venv"; \
	  echo "Another one:          make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Python's venv module is missing."; \
	  echo "On Debian or Ubuntu:  apt-get install python3-venv"; exit 1; }

$(VENV)/bin/python: | check-python
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(VENV)/bin/python -m pip install $(PIP_FLAGS) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(OPENAI2)/.ok: tests/envs/openai2.txt pyproject.toml | check-python
	$(PYTHON) -m venv $(OPENAI2)
	$(OPENAI2)/bin/python -m pip install $(PIP_FLAGS) -r tests/envs/openai2.txt
	$(OPENAI2)/bin/python -m pip install $(PIP_FLAGS) --no-deps -e .
	@touch $@

# Without these two the tests that need them are skipped, and say so.
$(BUGSINK)/.ok: tests/envs/bugsink.txt | check-python
	@rm -f $@; { $(PYTHON) -m venv $(BUGSINK) && \
	  $(BUGSINK)/bin/python -m pip install $(PIP_FLAGS) -r tests/envs/bugsink.txt && touch $@; } || \
	  echo "$(BUGSINK) was not installed: its tests will be skipped."

$(NODE)/.ok: tests/envs/node.sh examples/node_sentry/package.json | $(VENV)/bin/python
	@rm -f $@; { PYTHON=$(VENV)/bin/python sh tests/envs/node.sh $(NODE) && touch $@; } || \
	  echo "$(NODE) was not installed: its tests will be skipped."

$(OTELCOL): collector-config/builder.yaml collector-config/build.sh | $(VENV)/bin/python
	PYTHON=$(VENV)/bin/python sh collector-config/build.sh $@

clean:
	rm -rf $(VENV) .envs $(NODE) $(OTELCOL) .tools/go .test-report
