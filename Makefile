# `make demo` and `make test` are each enough on a fresh machine with Python >= 3.10 and a C++ compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m pip install --disable-pip-version-check --quiet
NATIVE_SOURCES := $(shell find cuda -type f -not -name '*.md')
CPP_SOURCES := $(shell find cuda -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
DEMO := outputs/demo

.PHONY: demo test lint format clean

demo: $(VENV)/installed
	$(BIN)/train --scene tabletop --method 4dgs --preset quick --run-dir $(DEMO) --overwrite
	$(BIN)/kinosplat render $(DEMO) --views orbit --resolution 640 480 --out $(DEMO)/turntable.mp4
	$(BIN)/kinosplat render $(DEMO) --side-by-side --max-views 4 --out $(DEMO)/side_by_side.png

test: $(VENV)/installed
	$(BIN)/pytest -q

lint: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(CPP_SOURCES)

format: $(VENV)/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CPP_SOURCES)

# The editable install is made again whenever native sources or the package's own description change.
$(VENV)/installed: pyproject.toml constraints.txt $(NATIVE_SOURCES)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build outputs
