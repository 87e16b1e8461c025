# make demo   sets everything up, trains the built-in run to its end, prints the result
# make test   sets everything up, runs every check and the whole test suite

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO_HOME := $(CURDIR)/.demo

MAKEFLAGS += --no-print-directory

.PHONY: demo test install lint constraints clean

demo: $(INSTALLED)
	@rm -rf $(DEMO_HOME)
	@$(BIN)/peer join --run-id demo --home $(DEMO_HOME) --name demo --no-local-discovery --until-done

# Swarm tests mostly wait for each other's daemons, so several run at a time.
test: lint
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow and not alone'
	$(BIN)/python -m pytest -m 'alone and not slow'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("peer needs Python 3.11 or newer; set PYTHON=…") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

constraints: $(INSTALLED)
	@head -2 constraints.txt > constraints.new
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' >> constraints.new
	@mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) $(DEMO_HOME) build *.egg-info
