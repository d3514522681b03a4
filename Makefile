# Fresh machine to the main job's result:  make demo
# Fresh machine to a passed suite:         make test
# The oldest transformers that we declare: make lowest  (1 minute, 300 MB)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROCESSES ?= auto

LOWEST := .venv-lowest

# Images of containers often set it. Every start of Python would then compile all of transformers again, for many seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long faults check lint types doctests build/typed lowest lowest-core newest tour notebooks docs benchmark clean

demo: $(VENV)/installed
	@if [ -f runs/demo/model.safetensors ]; then echo "runs/demo is there already; make clean removes it"; \
	else rm -rf runs/demo && $(BIN)/vithub finetune --output runs/demo; fi
	$(BIN)/vithub evaluate runs/demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

# With the long forms of tests that have one: the tour at its full size, and more kills.
test-long: $(VENV)/installed
	VITHUB_LONG=1 $(BIN)/python -m pytest -n $(PROCESSES) --dist worksteal

# Faults at drawn moments and hostile inputs, all of them, with their counts: an hour of one core.
faults: $(VENV)/installed
	$(BIN)/python tests/faults/moments/run.py --count 2000
	$(BIN)/python tests/faults/run.py --all

check: lint types doctests

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: build/typed
	$(BIN)/mypy

doctests: build/typed
	$(BIN)/python -m pytest -q --doctest-modules --override-ini addopts=--import-mode=importlib build/typed/vithub

# A regular install, since mypy and doctest do not see an editable one of this shape.
build/typed: $(VENV)/installed lint
	rm -rf build && $(BIN)/pip install -q --no-deps --target build/typed .

# Published folders, loaded with the lowest transformers of pyproject.toml; torch is shared with the other environment.
lowest: $(VENV)/installed $(LOWEST)/installed
	VITHUB_LOWEST_PYTHON=$(CURDIR)/$(LOWEST)/bin/python $(BIN)/python -m pytest -q tests/hub/bundle/test_bundle_loading.py -k lowest

$(LOWEST)/installed: pyproject.toml | $(VENV)/installed
	$(BIN)/python -m venv --clear --without-pip $(LOWEST)
	$(BIN)/pip --python $(LOWEST)/bin/python install -q --no-compile --disable-pip-version-check pillow \
		"transformers==$$(sed -n 's/^ *"transformers>=\([0-9.]*\)",$$/\1/p' pyproject.toml)"
	$(BIN)/python -c "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])" \
		> $$(echo $(LOWEST)/lib/python3.*/site-packages)/zz_torch.pth
	touch $@

# The suite's core (tests/versions/core.py) with the lowest and the newest libraries that pyproject.toml declares, each in an
# environment of its own that shares torch with the main one. The results are kept in tests/versions.
lowest-core: WHICH := lowest
newest: WHICH := newest
lowest-core newest: CORE_VENV = .venv-core-$(WHICH)
lowest-core newest: $(VENV)/installed
	$(BIN)/python -m venv --clear --without-pip $(CORE_VENV)
	$(BIN)/python -c "import torch, pathlib; print(pathlib.Path(torch.__file__).parents[1])" \
		> $$(echo $(CORE_VENV)/lib/python3.*/site-packages)/zz_torch.pth
	$(BIN)/pip --python $(CORE_VENV)/bin/python install -q --no-compile --disable-pip-version-check \
		$$($(BIN)/python tests/versions/core.py requirements $(WHICH))
	$(BIN)/pip --python $(CORE_VENV)/bin/python install -q --no-compile --disable-pip-version-check --no-deps -e .
	OMP_NUM_THREADS=1 $(CORE_VENV)/bin/python tests/versions/core.py run $(WHICH)

# Runs docs/tour/source and writes its notebook and pages.
tour: $(VENV)/installed
	$(BIN)/python docs/tour/build.py

# Runs docs/notebooks/source and writes the notebooks and their pages.
notebooks: $(VENV)/installed
	$(BIN)/python docs/notebooks/build.py

# The documentation as a site in build/docs, which opens without a server; a warning is an error.
docs: $(VENV)/installed
	$(BIN)/python -m sphinx -q -W --keep-going -d build/doctrees docs build/docs

benchmark: $(VENV)/installed
	$(BIN)/python benchmarks/run.py

# Made anew where the dependencies or the tested versions change. Python compiles what is imported; pip would compile all.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) .venv-core-* build dist runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
