# `make help` lists the commands. Each makes .venv in the checkout when it is missing.

VENV := .venv
PYTHON ?= python3
RUN := demo

# A real S3 server, network namespaces and ssh daemons, for the tests of several hosts; without them those are skipped.
SYSTEM := radosgw ceph-mon ceph-osd iproute2 openssh-client openssh-server chromium chromium-driver

# Tests that `make test` leaves to `make test-all`: pyproject.toml says what the marks mean.
LONG := slow or cluster or hosts or system

# Of those, what a pull request needs too: real clusters, under five seconds a test, without system packages.
CLUSTER := cluster and not (slow or hosts or system)

# All tests run, also where a file of them cannot be imported: else what runs again would be all that ran.
PYTEST := $(VENV)/bin/python -m pytest --continue-on-collection-errors

# Real clusters on a busy machine miss a time-out now and then: what failed (pytest's 1) runs once more, alone; then it counts.
AGAIN = [ $$? -eq 1 ] && $(VENV)/bin/python -m pytest -rs --last-failed --last-failed-no-failures none

# What machines on AWS (Amazon Linux 2023) install: wheels only, each with its digest.
ON_AWS := --python-version 3.11 --python-platform x86_64-manylinux_2_34 --only-binary :all: --generate-hashes \
	--no-header --no-annotate --quiet


.PHONY: help demo test test-cluster test-all lint format docs lock system dist clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

demo: $(VENV)/base ## render a small world of landmarks and run all five steps on it
	@[ -e $(RUN) ] || { mkdir -p $(RUN) && touch $(RUN)/.made-by-make; }
	$(VENV)/bin/lmr render $(RUN)/photos --workers 2
	$(VENV)/bin/lmr run retrieval --gallery $(RUN)/photos/gallery --queries $(RUN)/photos/queries \
		--solution $(RUN)/photos/solution.csv --out $(RUN)/run

test: $(VENV)/dev ## the fast tests, in two processes; no root and no system package is needed
	$(PYTEST) -q -n 2 -m 'not ($(LONG))' || { $(AGAIN) -m 'not ($(LONG))'; }

test-cluster: $(VENV)/dev ## the shorter tests on real clusters of processes, as CI runs them on a pull request
	$(PYTEST) -rs -m '$(CLUSTER)' || { $(AGAIN) -m '$(CLUSTER)'; }

test-all: test ## all tests, as CI runs them; what `make system` installs is used where it is
	$(PYTEST) -rs -m '$(LONG)' || { $(AGAIN) -m '$(LONG)'; }

lint: $(VENV)/dev ## ruff and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict lmr/ workflows/

format: $(VENV)/dev ## let ruff format the code and mend what it can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

docs: $(VENV)/docs ## write the reference from the code and build the site into site/; a dead link is an error
	PYTHONPATH=. $(VENV)/bin/python docs/reference.py
	$(VENV)/bin/mkdocs build --strict --quiet --site-dir site

lock: $(VENV)/dev ## choose the newest versions that fit together: constraints.txt
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/uv pip compile pyproject.toml -c constraints.in --extra dev --extra docs --extra gpu --universal \
		--python-version 3.11 --no-header --no-annotate --quiet -o constraints.txt
	$(VENV)/bin/uv pip compile pyproject.toml -c constraints.txt $(ON_AWS) -o deploy/aws/requirements-cpu.txt
	$(VENV)/bin/uv pip compile pyproject.toml -c constraints.txt $(ON_AWS) --extra gpu -o deploy/aws/requirements-gpu.txt

system: ## install what tests of several hosts and of the report need (Debian packages, as root)
	@(for p in radosgw ceph-mon ceph-osd ip ssh sshd chromium chromedriver; do command -v $$p >/dev/null || exit 1; done) || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM) >/dev/null; } || \
		echo "without $(SYSTEM) (Debian packages) tests of several hosts and in a browser are skipped"

dist: $(VENV)/dev ## build the source distribution and the wheel into dist/
	$(VENV)/bin/python -m hatchling build -t sdist -t wheel -d dist

clean: ## remove what these commands made
	@if [ -e $(VENV)/base ]; then rm -rf $(VENV); fi  # what make has made itself, and nothing else
	@if [ -e $(RUN)/.made-by-make ]; then rm -rf $(RUN); fi
	rm -rf .mypy_cache .ruff_cache .pytest_cache
	@if [ -e site/sitemap.xml ]; then rm -rf site; fi

# The base package is all that a run needs: no torch, no moto.
$(VENV)/base: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lmr needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "install Python's venv module (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/dev: $(VENV)/base
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/docs: $(VENV)/base
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[docs]'
	@touch $@
