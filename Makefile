# Everything sets itself up: a fresh Debian machine needs only python3 and make.
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PLAIN := $(VENV)/.plain
PYTHON ?= python3

.PHONY: chaos help venv demo test interop check fmt bench fuzz docs clean

help:
	@echo "make demo   try TwinFS: a small cluster, real files, one node killed"
	@echo "make test   every test"
	@echo "make interop  Hadoop, Spark and other clients of WebHDFS against it (needs Java)"
	@echo "make check  format, lint, types, import layers"
	@echo "make fmt    format the sources"
	@echo "make fuzz   try the content codecs and all that is served over HTTP with many random inputs (TWINFS_FUZZ_EXAMPLES, FUZZ_SECONDS)"
	@echo "make chaos  twenty chaos runs of three minutes (SEEDS=\"3 4\": these)"
	@echo "make bench  measure (see docs/performance.md)"
	@echo "make docs   build the documentation in build/site"
	@echo "make clean  remove what these made"

venv: $(STAMP)

$(STAMP): pyproject.toml scripts/venv
	@scripts/venv $(PYTHON) $(VENV) dev,docs,fsspec,interop
	@touch $(STAMP) $(PLAIN)

# TwinFS alone, without what only its tests need.
$(PLAIN): pyproject.toml scripts/venv
	@scripts/venv $(PYTHON) $(VENV)
	@touch $(PLAIN)

demo: $(PLAIN)
	@$(BIN)/python scripts/demo.py

test: $(STAMP)
	@scripts/test

interop: $(STAMP)
	@scripts/interop

check: $(STAMP)
	@scripts/check

fmt: $(STAMP)
	@scripts/fmt

chaos: $(STAMP)
	@scripts/chaos_seeds $(SEEDS)

bench: $(STAMP)
	@$(BIN)/python scripts/bench

fuzz: $(STAMP)
	@TWINFS_FUZZ_EXAMPLES=$${TWINFS_FUZZ_EXAMPLES:-100000} FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-300} $(BIN)/python -m pytest -q --timeout 0 \
		tests/unit/common/ipld/test_codecs.py tests/integration/test_http_fuzz.py tests/conformance/test_openapi.py
	@TWINFS_FUZZ_EXAMPLES=2000 $(BIN)/python -m pytest -q --timeout 0 tests/fuzz
	@$(BIN)/python -c "import atheris" 2>/dev/null || scripts/venv $(PYTHON) $(VENV) fuzz || true
	@if $(BIN)/python -c "import atheris" 2>/dev/null; then $(BIN)/python -m twinfs.tests.fuzz --seconds $${FUZZ_SECONDS:-60}; \
		else echo "atheris can't be installed here: fuzzed with hypothesis alone"; fi

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict -q && echo "the documentation is in build/site"

clean:
	rm -rf $(VENV) .types .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
