# Python >= 3.11 and make are all that is needed: every target sets up what it uses in .venv, by uv where it is
# installed (UV= turns it off), and by pip otherwise.

PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
BENCH   ?=
FIGURES ?=
UV      ?= $(shell command -v uv 2>/dev/null)

BIN  := $(VENV)/bin
DEMO := runs/demo

ifneq ($(strip $(UV)),)
NEW_VENV := $(UV) venv -q --seed --allow-existing --python $(PYTHON) $(VENV)
INSTALL  := $(UV) pip install -q --python $(BIN)/python
else
NEW_VENV := $(PYTHON) -m venv $(VENV)
INSTALL  := $(BIN)/python -m pip --disable-pip-version-check install -q
endif

# Compiling takes most of the time of the small fits of the documentation; a fast compiler suffices for them.
FAST := JAX_PLATFORMS=cpu XLA_FLAGS=--xla_backend_optimization_level=0

# Without bytecode each process of a test, a notebook or a page compiles the whole package's source again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo docs links figures test ray notebooks lint types format bench bench-table clean
.DELETE_ON_ERROR:

help:
	@echo "make demo         fit k-means to the digits and write $(DEMO)/report.html"
	@echo "make test         run the tests (WORKERS=$(WORKERS) processes)"
	@echo "make ray          run the tests of fits by Ray, which it installs, where there is one for this Python"
	@echo "make notebooks    run the notebooks from top to bottom"
	@echo "make figures      make the pictures of the documentation, by the scripts of examples/ (FIGURES=--quick)"
	@echo "make docs         run the code of README, pages and docstrings; build the site into docs/_build/html"
	@echo "make links        follow the links of the documentation to the outside, where there is a network"
	@echo "make lint         check style, formatting and spelling; make format mends what it can"
	@echo "make types        check the types of the package"
	@echo "make bench        time jaxcluster beside its peers (BENCH='--only lloyd* --repeats 3')"
	@echo "make bench-table  write the tables of README and bench/README from bench/results"
	@echo "make clean        remove $(VENV), runs and caches"

demo: $(VENV)/.package
	@$(BIN)/jaxcluster fit kmeans digits --k 10 --out $(DEMO) --overwrite
	@echo
	@echo "Open $(CURDIR)/$(DEMO)/report.html in a browser, and then try:"
	@echo "  $(BIN)/jaxcluster fit gmm iris --k 3 --covariance full --out runs/iris"
	@echo "  $(BIN)/jaxcluster profile runs/iris"
	@echo "  $(BIN)/jaxcluster sweep digits --k 2:15 --out runs/how-many"

test: $(VENV)/.test
	@$(BIN)/python -m pytest tests -q -n $(WORKERS) --dist worksteal

# Some hundred megabytes, and not for each Python and machine: where it cannot be had its tests are skipped.
ray: $(VENV)/.test
	@if $(INSTALL) -e '.[ray]' && $(BIN)/python -c 'import ray.train.v2.jax' 2>/dev/null; \
	    then $(BIN)/python -m pytest tests/test_ray.py -q; \
	    else echo "SKIPPED: Ray cannot be installed here, so its tests did not run." >&2; fi

notebooks: $(VENV)/.test
	@$(BIN)/python -m pytest --nbmake --nbmake-timeout=300 notebooks -q -n $(WORKERS)

figures: $(VENV)/.docs
	@$(FAST) $(BIN)/python docs/site_pages/figures.py --workers $(WORKERS) $(FIGURES)

docs: $(VENV)/.test figures
	@$(FAST) MPLBACKEND=Agg $(BIN)/python -m pytest jaxcluster docs/texts/reference --doctest-modules \
	    --doctest-glob='*.txt' -q -n $(WORKERS) --dist worksteal
	@JAX_PLATFORMS=cpu $(BIN)/python docs/site_pages/check.py
	@$(FAST) $(BIN)/python docs/site_pages/blocks.py --workers $(WORKERS)
	@JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -W --keep-going -q -b html -d docs/_build/doctrees docs docs/_build/html
	@echo "Documentation: $(CURDIR)/docs/_build/html/index.html"

# Not part of make docs: a site that is down, or no network, is no fault of a change.
links: $(VENV)/.docs
	@JAX_PLATFORMS=cpu $(BIN)/python -m sphinx -q -b linkcheck -d docs/_build/doctrees docs docs/_build/links

lint: $(VENV)/.test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/typos

types: $(VENV)/.test
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(VENV)/.test
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(VENV)/.bench
	@$(BIN)/python -m bench $(BENCH)

bench-table: $(VENV)/.package
	@$(BIN)/python -m bench.table

clean:
	rm -rf $(VENV) runs build dist docs/_build docs/_static/figures .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a set of dependencies: installing happens once, and again when pyproject.toml changes.
$(VENV)/.python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	    f"jaxcluster needs Python 3.11 or newer; $(PYTHON) is {v[0]}.{v[1]}. Try: make PYTHON=python3.12")'
	@$(NEW_VENV)
	@touch $@

$(VENV)/.package: $(VENV)/.python pyproject.toml
	@echo "Installing jaxcluster into $(VENV) with $(if $(strip $(UV)),uv,pip) (once) ..."
	@$(INSTALL) -e .
	@touch $@

$(VENV)/.test $(VENV)/.bench $(VENV)/.docs: $(VENV)/.%: $(VENV)/.package
	@echo "Installing what '$*' needs into $(VENV) ..."
	@$(INSTALL) -e '.[$*]'
	@touch $@
