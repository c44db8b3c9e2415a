# make demo    four short videos by the nano models on a real ComfyUI, and one picture of what was made
# make test    style and types, then the tests of what artists use, the page in a browser included
# make test-all     and those of the workshop: nano models, training, benchmarks, kernels for every card, long fuzzing
# make bench   speed and memory, measured against ComfyUI's and diffusers' code (installs diffusers into .venv)
# make bench-quick  the processor's ratios in a minute, as one line of JSON
# make card    what this graphics card does with the pack, in eight minutes: one page and one JSON, ready to be sent;
#              PYTHON=/path/to/python is the one whose torch sees the card, such as ComfyUI's
# make snapshot       note what was added to the nodes; TAKE=changed notes what old workflows would meet, too
# make clean   remove what these made in this checkout (the cache folder stays)
#
# A first run needs python3 (3.10 to 3.13) and make, and sets up the rest: in about a minute where uv is there or comes
# from PyPI, in some where pip does it. make PYTHON=python3.12 ... takes another Python.
# COMFYUI_PATH=/path/to/ComfyUI uses an existing ComfyUI. ARGS passes options on: make test ARGS="-k avatar".

PYTHON ?= python3
# Files in the order of support/plugin.py, the slowest first: xdist's own puts those of many tests first.
PYTEST := -ra --durations=15 -n auto --dist loadfile --no-loadscope-reorder
ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif

# ComfyUI, started for many tests, is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all test-workshop bench bench-quick card snapshot clean environment

demo: environment
	$(BIN)/python showcase/demo.py $(ARGS)

test:
	@$(PYTHON) dev/setup/environment.py --browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(BIN)/pytest -m "not workshop" $(PYTEST) $(ARGS)

test-all: test test-workshop

test-workshop:
	@$(PYTHON) dev/setup/environment.py --browser
	$(BIN)/pytest -m workshop $(PYTEST) $(ARGS)

bench: environment
	@$(PYTHON) dev/setup/environment.py --bench
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-quick: environment
	$(BIN)/python benchmarks/quick.py $(ARGS)

# No environment: its torch is one for processors.
card:
	$(PYTHON) benchmarks/card/run.py $(ARGS)

snapshot: export SKYREELS_UPDATE_SNAPSHOT := $(or $(TAKE),added)
snapshot: environment
	$(BIN)/pytest -q -n0 tests/server/test_server.py -k saved_workflows_keep_fitting $(ARGS)
	git diff --unified=1 -- tests/data/snapshots

environment:
	@$(PYTHON) dev/setup/environment.py

clean:
	rm -rf .venv .venv.unfinished .pytest_cache .ruff_cache demo test-artifacts build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
