# Two commands on a fresh machine: `make demo` runs the main job, `make test` the tests.
# Each makes .venv in the checkout when it is missing, and installs the system packages that it lacks.

VENV := .venv
PYTHON ?= python3
RUN := demo

# A real S3 server, network namespaces and ssh daemons, for the tests of several hosts; without them those are skipped.
SYSTEM := radosgw ceph-mon ceph-osd iproute2 openssh-client openssh-server

# What machines on AWS (Amazon Linux 2023) install: wheels only, each with its digest.
ON_AWS := --python-version 3.11 --python-platform x86_64-manylinux_2_34 --only-binary :all: --generate-hashes \
	--no-header --no-annotate --quiet

.PHONY: demo test lint lock clean system

demo: $(VENV)/ready
	$(VENV)/bin/lmr render $(RUN)/photos --workers 2
	$(VENV)/bin/lmr run workflows/retrieval.py --gallery $(RUN)/photos/gallery --queries $(RUN)/photos/queries \
		--solution $(RUN)/photos/solution.csv --out $(RUN)/run

test: $(VENV)/ready system
	$(VENV)/bin/python -m pytest -rs

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --strict lmr/ workflows/

system:
	@(for p in radosgw ceph-mon ceph-osd ip ssh sshd; do command -v $$p >/dev/null || exit 1; done) || { apt-get update -qq && \
		DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM) >/dev/null; } || \
		echo "without $(SYSTEM) (Debian packages) the tests of several hosts are skipped"

lock: $(VENV)/ready
	$(VENV)/bin/pip install --quiet uv
	$(VENV)/bin/uv pip compile pyproject.toml -c constraints.in --extra dev --extra gpu --universal \
		--python-version 3.11 --no-header --no-annotate --quiet -o constraints.txt
	$(VENV)/bin/uv pip compile pyproject.toml -c constraints.txt $(ON_AWS) -o deploy/aws/requirements-cpu.txt
	$(VENV)/bin/uv pip compile pyproject.toml -c constraints.txt $(ON_AWS) --extra gpu -o deploy/aws/requirements-gpu.txt

$(VENV)/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "lmr needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv; } || \
		{ echo "install Python's venv module (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(RUN) .mypy_cache .ruff_cache .pytest_cache
