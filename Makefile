# Everything a newcomer needs: `make demo` and `make test` on a fresh Debian 12 with python3, make and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SERVES := $(VENV)/.serves

# The interpreters the suite also runs on, where they are found.
OTHERS := 3.12 3.13

.DEFAULT_GOAL := help
.PHONY: help demo demo-minicloud test test-others lint types docs docs-check bench bench-mix \
	bench-micro bench-remote bench-boot bench-cluster bench-migration clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

$(INSTALLED): pyproject.toml constraints.txt
	.ci/make-venv $(PYTHON) $(VENV) dev
	@touch $@

# Without what minicloud and the tests need: nothing has to be compiled.
$(SERVES): pyproject.toml constraints.txt
	.ci/make-venv $(PYTHON) $(VENV) ""
	@touch $@

# What is missing of Debian is asked for first and at once, python3-venv included.

demo: ## serve a remote xz image and copy it back; URL=… takes one of your own
	@.ci/need-packages docs/demo/debian-packages.txt $(PYTHON)
	@$(MAKE) --no-print-directory $(if $(wildcard $(INSTALLED)),$(INSTALLED),$(SERVES))
	$(BIN)/python docs/demo/demo.py $(if $(URL),'$(URL)')

demo-minicloud: ## three nodes on this machine, and a guest that moves between them; as root
	@.ci/need-packages docs/demo/debian-packages-minicloud.txt $(PYTHON)
	@$(MAKE) --no-print-directory $(INSTALLED)
	$(BIN)/python docs/demo/minicloud.py

test: ## install what the tests need and run them all
	@.ci/need-packages tests/debian-packages.txt $(PYTHON)
	@$(MAKE) --no-print-directory $(INSTALLED)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-others: ## run all but the interop tests on 3.12 and 3.13, where they are found
	@.ci/need-packages tests/debian-packages.txt $(PYTHON)
	.ci/test-others $(OTHERS)

lint: $(INSTALLED) ## ruff: style and mistakes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED) ## mypy --strict
	$(BIN)/mypy

docs: $(INSTALLED) ## write docs/reference anew out of the code
	$(BIN)/python -m nbdserve.reference docs/reference
	$(BIN)/python -m minicloud.reference docs/reference

docs-check: $(INSTALLED) ## fail if docs/reference is not what the code says
	$(BIN)/python -m nbdserve.reference --check docs/reference
	$(BIN)/python -m minicloud.reference --check docs/reference

bench: ## against nbdkit, qemu-nbd and nbd-server; BENCH_ARGS=--help tells how to run less
	@.ci/need-packages tests/benchmarks/debian-packages.txt $(PYTHON)
	@$(MAKE) --no-print-directory $(INSTALLED)
	$(BIN)/python tests/benchmarks/local.py $(BENCH_ARGS)

bench-mix: ## what one client's work does to another, beside the same servers
	@.ci/need-packages tests/benchmarks/debian-packages.txt $(PYTHON)
	@$(MAKE) --no-print-directory $(INSTALLED)
	$(BIN)/python tests/benchmarks/mix.py $(BENCH_ARGS)

bench-micro: $(INSTALLED) ## the parts of the hot path one by one, compared with the last run
	$(BIN)/python -m pytest tests/benchmarks/micro.py -p no:cacheprovider \
		-W ignore::pytest_benchmark.logger.PytestBenchmarkWarning --benchmark-autosave \
		--benchmark-storage=build/benchmarks --benchmark-compare \
		--benchmark-columns=min,median,iqr,rounds --benchmark-sort=name $(BENCH_ARGS)

bench-boot: ## minicloud boot beside qemu-system by hand, in a lab of one node; as root
	@.ci/need-packages tests/debian-packages.txt $(PYTHON)
	@$(MAKE) --no-print-directory $(INSTALLED)
	PYTHONPATH=tests/lib $(BIN)/python tests/benchmarks/boots.py $(BENCH_ARGS)

bench-migration: ## minicloud migrate beside virsh migrate --live, on two nodes of a lab; as root
	@.ci/need-packages tests/debian-packages.txt $(PYTHON)
	@$(MAKE) --no-print-directory $(INSTALLED)
	PYTHONPATH=tests/lib $(BIN)/python tests/benchmarks/migration.py $(BENCH_ARGS)

bench-remote: ## the remote job beside nbdkit, curl and qemu, near and far; as root
	@.ci/need-packages tests/benchmarks/debian-packages-remote.txt $(PYTHON)
	@$(MAKE) --no-print-directory $(INSTALLED)
	PYTHONPATH=tests/benchmarks:tests/lib $(BIN)/python -m remote $(BENCH_ARGS)

bench-cluster: ## minicloud status beside virsh, on three nodes of a lab; as root
	@.ci/need-packages tests/debian-packages.txt $(PYTHON)
	@$(MAKE) --no-print-directory $(INSTALLED)
	PYTHONPATH=tests/lib $(BIN)/python tests/benchmarks/cluster.py $(BENCH_ARGS)

clean: ## remove what was built; the environments too
	rm -rf build .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis
