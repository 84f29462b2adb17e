# Everything a person or CI does here is one of these targets; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := torch,jax,sim,kfp,launch,report,dev
PIPELINE ?= recap
PARAMS ?= params/$(PIPELINE).yaml
OBS ?= pixels
STAMP := $(VENV)/.installed

.PHONY: help install system-packages demo test test-slow oracle lint fmt typecheck golden compile submit run docs bench constraints \
  images base-image image-locks e2e-containers clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)$$/  \1\t\2/' | expand -t 20

install: $(STAMP) ## create .venv with every dependency at its pinned version

# uv is quick but reads no pip configuration: hand it pip's own index settings, and fall back to pip where uv is missing.
$(STAMP): pyproject.toml constraints.txt | system-packages
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing dependencies into $(VENV)"
	@if $(BIN)/pip install -q --disable-pip-version-check uv 2>/dev/null; then \
	  UV_FIND_LINKS="$$($(BIN)/pip config get global.find-links 2>/dev/null)" \
	  UV_EXTRA_INDEX_URL="$${UV_EXTRA_INDEX_URL:-$$PIP_EXTRA_INDEX_URL}" UV_INDEX_STRATEGY=unsafe-best-match \
	  $(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'; \
	else $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'; fi
	@touch $@

system-packages: ## Debian packages the simulator needs to render without a screen
	@bash scripts/system_packages.sh

demo: install ## recap on simulated robot data, a report at the end (OBS=pixels, or OBS=state: quicker, low-dimensional)
	@$(BIN)/python pipeline.py run recap --params params/demo_$(OBS).yaml --name demo-$(OBS) $(foreach s,$(SET),--set $(s))

test: install ## everything CI checks, lint first
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -n 2 -m "not slow and not oracle and not containers" --cov --cov-report=term:skip-covered -q

test-slow: install ## the pixel pipeline end to end and other minutes-long checks
	@$(BIN)/python -m pytest -m slow -q

oracle: install ## our files in LeRobot's own loader, in an environment of its own
	@bash tests/oracle/setup.sh
	@$(BIN)/python -m pytest -m oracle tests/oracle -q

lint: install ## ruff, mypy (strict) and the import contracts
	@$(BIN)/ruff check -q . && $(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: install ## format the source
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

golden: install ## rewrite the golden files; read the diff
	@ROBOLIFT_GOLDEN=1 $(BIN)/python -m pytest -q -k golden

compile: install ## compile PIPELINE to build/PIPELINE.yaml
	@$(BIN)/python pipeline.py compile $(PIPELINE)

run: install ## run PIPELINE on this machine: PARAMS=file SET="a=1 b=2"
	@$(BIN)/python pipeline.py run $(PIPELINE) --params $(PARAMS) $(foreach s,$(SET),--set $(s))

submit: install ## submit PIPELINE to Kubeflow Pipelines at KFP_HOST: PARAMS=file SET="a=1" DRY_RUN=1
	@$(BIN)/python pipeline.py submit $(PIPELINE) --params $(PARAMS) $(foreach s,$(SET),--set $(s)) $(if $(DRY_RUN),--dry-run)

docs: install ## write docs/stages.md from the stages' configurations
	@$(BIN)/python docs/generate_stages.py

bench: install ## the demo over three seeds, from pixels and from state; hours
	@$(BIN)/python benchmarks/recap_demo.py

constraints: install ## resolve constraints.txt anew
	@UV_FIND_LINKS="$$($(BIN)/pip config get global.find-links 2>/dev/null)" $(BIN)/uv pip compile -q pyproject.toml \
	  --all-extras --no-emit-package torch --no-header --no-annotate --python-version 3.11 -o constraints.txt
	@echo "torch==2.13.0" >> constraints.txt

image-locks: install ## write images/*/requirements*.txt from pyproject.toml and constraints.txt
	@$(BIN)/python scripts/image_locks.py

images: install ## build the images: REGISTRY=host/path PUSH=1 ACCELERATOR=cpu|cuda BASE_IMAGE=... IMAGES="cpu torch"
	@bash scripts/container_packages.sh build $(if $(PUSH),push)
	@$(BIN)/python scripts/build_images.py $(IMAGES) $(if $(REGISTRY),--registry $(REGISTRY)) $(if $(PUSH),--push) \
	  $(if $(ACCELERATOR),--accelerator $(ACCELERATOR)) $(if $(BASE_IMAGE),--base-image $(BASE_IMAGE)) \
	  $(if $(ENGINE),--engine $(ENGINE))

base-image: ## a stand-in for python:3.11-slim from Debian packages, where there is no image registry; BASE_IMAGE=its name
	@bash scripts/container_packages.sh base
	@bash scripts/base_image.sh $(BASE_IMAGE)

e2e-containers: install ## build the images, run recap in them and train in two containers; as root, half an hour
	@bash scripts/container_packages.sh base run registry
	@$(BIN)/python -m pytest -m containers tests/e2e_containers -q

clean: ## remove build products; keeps .venv and runs/
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .coverage* htmlcov
