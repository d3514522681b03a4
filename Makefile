# Fresh machine to the main job's result:  make demo
# Fresh machine to a passed suite:         make test
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROCESSES ?= auto

.PHONY: demo test check benchmark clean

demo: $(VENV)/installed
	@if [ -f runs/demo/model.safetensors ]; then echo "runs/demo is there already; make clean removes it"; \
	else rm -rf runs/demo && $(BIN)/vithub finetune --output runs/demo; fi
	$(BIN)/vithub evaluate runs/demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build && $(BIN)/pip install -q --no-deps --target build/typed .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q --doctest-modules --override-ini addopts=--import-mode=importlib build/typed/vithub

benchmark: $(VENV)/installed
	$(BIN)/python benchmarks/run.py

# Made anew where the dependencies or the tested versions change.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
