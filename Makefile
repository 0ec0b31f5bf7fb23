# `make` or `make help` lists the targets. Needs: make, and for `setup` Python >= 3.11 (Debian 12 and 13: installed for you).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Ansible refuses to start in a locale that is not UTF-8.
export LC_ALL := C.UTF-8

PYTHON ?= python3
LAB ?= yes
UPGRADE ?=
ONLY ?=

VENV := .venv
BIN := $(VENV)/bin
# A virtual environment holds absolute paths: moved or copied with its checkout, it is made again.
WHERE := $(shell printf '%s' '$(CURDIR)' | cksum | cut -d' ' -f1)
LOCKED := $(VENV)/.locked-$(WHERE)
PROJECT := $(VENV)/.project-$(WHERE)
UV := .cache/uv
# No bytecode as root: `make clean` must work for the owner of the checkout.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo env PYTHONDONTWRITEBYTECODE=1)

##@ To use
.PHONY: setup
setup: $(PROJECT) ## Make .venv with every command, and install what the lab needs (LAB=no: only .venv)

.PHONY: run
run: setup ## Boot a lab node, deploy `personal_node` onto it, show its status, and ask its language model a question
	$(AS_ROOT) $(BIN)/kai unit build llama_cpp
	$(AS_ROOT) $(BIN)/kai lab up node1
	$(AS_ROOT) $(BIN)/kai deploy -i inventories/lab
	@mkdir -p .cache && $(BIN)/python tests/models/fixed_answer.py .cache/fixed.gguf
	$(AS_ROOT) $(BIN)/kai model add .cache/fixed.gguf --sha256 $$(sha256sum < .cache/fixed.gguf | cut -c-64) -i inventories/lab --limit node1
	$(AS_ROOT) $(BIN)/kai status -i inventories/lab
	$(AS_ROOT) $(BIN)/kai lab forward node1 443
	@echo "Open that address in a browser. Its certificate is the node's own: the browser will ask you to trust it."
	$(AS_ROOT) $(BIN)/kai chat "Who are you?" -i inventories/lab --limit node1

##@ To check
.PHONY: test
test: setup ## Everything below, quick ones first
	@tests/run.sh quick lab

.PHONY: quick
quick: setup ## lint, unit and sanity: all that needs no node
	@tests/run.sh quick

.PHONY: lint
lint: setup ## ruff (rules and format), mypy, yamllint, ansible-lint, changelog
	@tests/run.sh lint

.PHONY: unit
unit: setup ## Unit tests of the pure core
	@tests/run.sh unit

.PHONY: sanity
sanity: setup ## ansible-test sanity, in a copy of the tree (CONTRIBUTING.md: which tests, and why)
	@tests/run.sh sanity

.PHONY: lab-test test-lab
lab-test test-lab: setup ## molecule scenarios and end-to-end tests on lab nodes (root)
	@tests/run.sh lab

.PHONY: e2e
e2e: setup ## The end-to-end tests in full: what the others take a seeded sample of is taken whole (root, hours)
	@KOS_E2E=full tests/run.sh e2e vm

.PHONY: e2e-crashes
e2e-crashes: setup ## The crash table in full: a kill after every record of the journal (root; KOS_CRASH_SEED=n)
	@KOS_E2E=full tests/run.sh crashes

e2e-%: setup ## One of them: e2e-uninstall, e2e-backup (the restore drill), e2e-rollback (drift), e2e-media_boot (every way to boot), … (root)
	@KOS_E2E=full tests/run.sh $@

# A report for each node, and what each is made of; a run of one door leaves those of the others.
DOORS := $(CURDIR)/.cache/doors
.PHONY: doors
doors: setup ## One suite behind every door, joined into one table, and their nodes compared (root, hours; docs/acceptance.md)
	@KOS_E2E=full KOS_REPORTS=$(DOORS) tests/run.sh $(or $(ONLY),molecule e2e-doors e2e-vm e2e-cloud_init e2e-cloud_init_boot e2e-install)
	$(BIN)/python tests/acceptance/doors.py $(if $(ONLY),--some) $(DOORS)
	@# Named, and not judged here: test_vm.py takes a layer of its own, to be quick where machines are emulated.
	-$(BIN)/kai compare $(DOORS)/made-of/*.json

.PHONY: vm-test
vm-test: setup ## End-to-end tests on a node with a kernel of its own, in full (root; emulated: a quarter of an hour or more)
	@KOS_E2E=full tests/run.sh vm

##@ To release
.PHONY: build
build: setup ## dist/: the collection's tarball and the wheel
	rm -rf dist
	$(BIN)/ansible-galaxy collection build --output-path dist .
	$(BIN)/pip wheel --quiet --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls -l dist

.PHONY: bench
bench: setup ## kOS beside apt-get, ansible, restic and itself, on lab nodes: ratios (ONLY="planning fleet deploys media installs")
	$(AS_ROOT) $(BIN)/python benchmarks/run.py $(ONLY)

.PHONY: audit
audit: setup ## What lynis, OpenSCAP, ssh-audit and systemd say of a lab node before hardening and after (root, half an hour)
	$(AS_ROOT) $(BIN)/python benchmarks/audit.py

.PHONY: audit-vm
audit-vm: setup ## The same of a node with a kernel of its own (root; emulated: hours)
	$(AS_ROOT) $(BIN)/python benchmarks/audit.py --driver vm

.PHONY: pictures
pictures: setup ## Export the tables that README shows, from the running lab
	$(AS_ROOT) $(BIN)/python docs/make_pictures.py

.PHONY: docs
docs: setup ## Write the pages of docs/ that follow from data or code
	$(BIN)/python docs/render.py

.PHONY: golden
golden: setup ## Write the reviewed plans in tests/ again; review the difference before you commit it
	$(BIN)/python tests/unit/golden.py
	$(BIN)/python tests/unit/golden_installs.py
	$(BIN)/python tests/unit/cloudinits.py

.PHONY: schema
schema: setup ## Write the JSON Schemas in docs/schema again from the models
	$(BIN)/kai schema docs/schema
	$(BIN)/kos-install --schema > docs/schema/answers.json

# Without the UV_… variables of the caller: they could name another index, whose files have other hashes.
COMPILE = env $$(env | sed -n 's/^\(UV_[A-Z_]*\)=.*/-u \1/p') $(UV)/bin/uv pip compile --quiet --no-config --universal \
  --python-version 3.11 --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

.PHONY: lock
lock: $(UV)/bin/uv ## Pin requirements/lock*.txt again from pyproject.toml (UPGRADE=1: newest versions)
	$(COMPILE) --group dev --output-file requirements/lock.txt pyproject.toml
	$(COMPILE) --constraints requirements/lock.txt --output-file requirements/lock-sanity.txt - <<<pydantic
	$(WHEELS:lock-wheels=lock) --constraints requirements/lock.txt --output-file image-builder/kos_image/requirements.lock pyproject.toml

# For the nodes' Python; both architectures have the same versions, and a lock holds the hashes of every file of them.
WHEELS = env $$(env | sed -n 's/^\(UV_[A-Z_]*\)=.*/-u \1/p') $(UV)/bin/uv pip compile --quiet --no-config --python-version 3.13 \
  --python-platform x86_64-manylinux_2_28 --only-binary :all: --generate-hashes --no-annotate --no-emit-index-url \
  --custom-compile-command 'make lock-wheels' $(if $(UPGRADE),--upgrade)

.PHONY: lock-wheels
lock-wheels: setup $(UV)/bin/uv ## Pin services/*/requirements.lock again from their manifests (UPGRADE=1: newest versions)
	for lock in services/*/requirements.lock; do \
	  $(BIN)/python -c 'import sys, yaml; print("\n".join(yaml.safe_load(open(sys.argv[1]))["substrates"]["venv"]["packages"]))' \
	    "$${lock%/*}/service.yaml" | $(WHEELS) --output-file "$$lock" -; \
	done

.PHONY: clean
clean: ## Remove what these targets made (lab nodes: `kai lab down`)
	rm -rf $(VENV) .cache .ansible dist
	find . -path ./.git -prune -o -path ./collections -prune -o -name __pycache__ -type d -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z][a-z0-9 %-]*:.*## / { split($$1, name, " "); printf "  make %-11s %s\n", name[1], $$2 }' $(MAKEFILE_LIST)

.PHONY: host
host:
	@PYTHON=$(PYTHON) LAB=$(LAB) requirements/host.sh

$(LOCKED): requirements/lock.txt | host
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --quiet --disable-pip-version-check --require-hashes --requirement requirements/lock.txt
	@touch $@

$(PROJECT): pyproject.toml galaxy.yml $(LOCKED) | host
	$(BIN)/pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(UV)/bin/uv: requirements/lock-tool.txt
	$(PYTHON) -m venv --clear $(UV)
	$(UV)/bin/pip install --quiet --quiet --disable-pip-version-check --require-hashes --requirement requirements/lock-tool.txt
