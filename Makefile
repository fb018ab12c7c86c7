# Each target sets up what it needs in a virtual environment inside the checkout, and is quick the second time.
PYTHON ?= python3
# Where a Python of this name runs: on PATH, or among pyenv's, whose names on PATH need not run.
find = $(shell for python in $(1) $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$(1:python%=%)*/bin/python; do \
  "$$python" -c "" 2>/dev/null && echo "$$python" && exit; done)
override PYTHON := $(or $(call find,$(PYTHON)),$(PYTHON))
VENV   := .venv
BIN    := $(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY     := $(VENV)/$(BIN)/python
LINT   := $(VENV)-lint/$(BIN)
# The minor version of PYTHON, and the one that the environment was made with: another one makes the environment again.
WANTED := $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])")
MADE   := $(shell cat $(VENV)/.python 2>/dev/null)
C_FILES := $(wildcard src/*.[ch] src/kernels/* tests/engine/*.c tests/engine/*.inc tests/reliability/*.c)
JS_FILES := examples/playground.js
SOURCE := setup.py pyproject.toml $(wildcard fastcurv/_engine/*.p* src/*.c src/*.h src/kernels/*)

.PHONY: demo test lint core docs examples experiments notebooks handout bench wheel minimum newest nightly tables sanitize fuzz clean FORCE

demo: $(VENV)/.demo
	$(PY) -m fastcurv demo

# A worker takes neighbours, which share what they prepare; what is compiled stays, for every process that a test starts.
# TESTS="tests/engine" runs a part, PYTHON=python3.12 runs it with another Python.
test: $(VENV)/.test
	PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -q -n auto --dist worksteal $(TESTS)

# The core alone: a copy without the applications and their tests, whose format, types and tests pass. CORE_TESTS chooses a
# part of the tests; `.ci/run` collects them all and runs those that know the package as a whole.
CORE := build/core
core: $(VENV)/.test $(VENV)-lint/.done
	rm -rf $(CORE) && mkdir -p $(CORE)
	git ls-files -z -- . ':!fastcurv/applications' ':!tests/applications' | xargs -0 cp -p --parents -t $(CORE)
	cp -p fastcurv/_engine/*.so $(CORE)/fastcurv/_engine/
	cd $(CORE) && $(abspath $(LINT))/ruff format --check -q . && $(abspath $(LINT))/ruff check -q .
	cd $(CORE) && $(abspath $(LINT))/mypy --disable-error-code=import-not-found
	cd $(CORE) && $(abspath $(PY)) -m pytest -q -n auto --dist worksteal -p no:cacheprovider $(CORE_TESTS)

# Format, lint, types and docstrings, as `.ci/run` and the pre-commit hooks run them. The stubs are compared with the engine
# that `make test` compiles.
lint: $(VENV)-lint/.done $(VENV)/.test
	$(LINT)/ruff format --check -q .
	$(LINT)/ruff check -q .
	PATH="$(CURDIR)/$(LINT):$$PATH" $(LINT)/cython-lint --max-line-length 100 fastcurv/_engine
	for file in src/*.c src/kernels/*.c; do $(CC) -std=gnu11 -pthread -fsyntax-only -Wall -Wextra -Wconversion -Werror -Isrc $$file || exit 1; done
	$(LINT)/clang-format --dry-run --Werror $(C_FILES)
	$(LINT)/oxlint --deny-warnings $(JS_FILES)
	$(LINT)/mypy
	$(LINT)/mypy tests/applications/typing/user_script.py tests/applications/typing/refused.py
	$(LINT)/pyright --pythonpath $(LINT)/python
	$(LINT)/python -m mypy.stubtest --mypy-config-file pyproject.toml --allowlist tests/applications/typing/stubtest.txt fastcurv._engine
	$(LINT)/python -m tests.applications.docs.docstrings

# The suite under the oldest NumPy and SciPy that pyproject.toml promises.
minimum: $(VENV)-minimum/.done
	$(VENV)-minimum/$(BIN)/python -m pytest -q -n auto

# The suite with the newest Python that is found, on PATH or in pyenv, and the newest NumPy, SciPy and scikit-learn: what a
# new machine has. TESTS chooses a part; PIP_PRE=1 makes pip take pre-releases, and PIP_EXTRA_INDEX_URL another index (SPEC 4).
NEWEST = $(firstword $(foreach minor,14 13 12 11,$(call find,python3.$(minor))))
newest:
	$(MAKE) PYTHON="$(NEWEST)" VENV=$(VENV)-newest $(VENV)-newest/.test
	$(VENV)-newest/$(BIN)/python -m pip install -q --upgrade numpy scipy scikit-learn
	$(VENV)-newest/$(BIN)/python -c "import sys, numpy, scipy; print('Python', sys.version.split()[0], 'NumPy', numpy.__version__, 'SciPy', scipy.__version__)"
	$(MAKE) PYTHON="$(NEWEST)" VENV=$(VENV)-newest TESTS="$(TESTS)" test

# What takes minutes to hours: more of everything that `make test` samples, and the suite in every other way, with the
# libraries of others that networks and rows come from.
nightly: $(VENV)/.test $(VENV)/.notebooks $(VENV)/.bench
	-$(PY) -m pip install -q onnx skl2onnx h5py zarr pandas pyarrow "dask[distributed]"
	$(PY) -m pytest -q -n auto --dist worksteal -m nightly
	$(PY) -m pytest -q -m large
	FASTCURV_EXAMPLES=10000 $(PY) -m pytest -q -n auto tests/properties
	$(MAKE) tables sanitize

# Products side by side with other libraries, and what calls cost besides products: half an hour. CONTRIBUTING names the
# other benchmarks.
bench: $(VENV)/.peers
	$(PY) benchmarks/hvp.py --bounds
	$(PY) benchmarks/overhead.py --bounds
	$(PY) benchmarks/overhead.py --small --bounds

examples: $(VENV)/.demo
	$(PY) examples/gallery.py

# The tables in examples/data, which the gallery draws.
experiments: $(VENV)/.demo
	cd examples && $(abspath $(PY)) experiments.py

# Notebooks of the lectures' chapters with exercises, in notebooks/.
notebooks: $(VENV)/.demo
	$(PY) examples/notebooks.py

# Ten claims of the lectures to print: figures/handout.pdf.
handout: $(VENV)/.demo
	$(PY) examples/handout.py

figures/index.html: $(wildcard examples/*.py examples/*.html examples/data/*.csv) | $(VENV)/.demo
	$(PY) examples/gallery.py

# A wheel for each Python that is found: built twice, bitwise identical, stripped, tested in an environment of its own.
wheel:
	$(PYTHON) packaging/wheels.py

# The site, built offline from docstrings, pages and examples into docs/_build/html.
docs: $(VENV)/.docs figures/index.html
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

$(VENV)/.docs: $(VENV)/.demo
	$(PY) -m pip install -q --no-build-isolation -e ".[docs]"
	touch $@

# The suite under AddressSanitizer and UndefinedBehaviorSanitizer, in a copy of the checkout whose engine is built with
# them, once for each table of kernels; then the team of threads alone under ThreadSanitizer: 100 000 jobs from 8 callers.
# Left out: what preloads a library of its own (out_of_memory), stands at a time limit (ctrl_c, interrupt, import_takes),
# measures memory, which the sanitizer multiplies (drift, nbytes_equals, and the names with "memory"),
# reserves terabytes of addresses (strides_beyond), ends the process on purpose (guard, nothing_beyond, killed, exit)
# or starts a new one (fork, spawn). Tests that hardly use compiled code (cli, docs, plots) are not in SANE_TESTS.
# TESTS="tests/engine" runs a part, TABLES="avx2" some tables.
SANITIZED := build/sanitize
CALLERS := tests/engine/callerstest.c src/team.c src/watch.c
TABLES = $$($(PY) -c "from fastcurv import _engine; print(*_engine.available_archs())")
UNSANITIZED := out_of_memory or ctrl_c or interrupt or import_takes or drift or basis_memory or \
  conversion_memory or exhaust_memory or peak_memory or memory_limit_holds or nbytes_equals or strides_beyond or guard or \
  nothing_beyond or killed or exit or fork or spawn
SANE_TESTS := tests/engine tests/network tests/properties tests/certify tests/structure tests/krylov tests/spectrum tests/critical \
  tests/optimize tests/reliability tests/applications/estimators tests/files
sanitize: $(VENV)/.test
	mkdir -p $(SANITIZED)
	git ls-files -z | xargs -0 cp -pu --parents -t $(SANITIZED)
	cd $(SANITIZED) && FASTCURV_SANITIZE=address,undefined $(abspath $(PY)) setup.py -q build_ext --inplace
	for table in $(TABLES); do (cd $(SANITIZED) && FASTCURV_ARCH=$$table \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	  $(abspath $(PY)) -m pytest -q -n auto --dist worksteal -p no:cacheprovider -k "not ($(UNSANITIZED))" $(or $(TESTS),$(SANE_TESTS))) || exit 1; done
	$(CC) -std=gnu11 -O1 -g -fsanitize=thread -pthread -Isrc -o build/callerstest $(CALLERS)
	build/callerstest 8 12500

# The suite under every table of kernels that this CPU can run.
tables: $(VENV)/.test
	for table in $(TABLES); do echo "$$table:"; FASTCURV_ARCH=$$table $(PY) -m pytest -q -n auto || exit 1; done

SECONDS ?= 3600
# Coverage-guided fuzzing of everything that reads a file, for as many seconds as SECONDS says; needs atheris, which has
# wheels for Linux and Python 3.11 to 3.13.
fuzz: $(VENV)/.test
	$(PY) -m pip install -q atheris
	$(PY) -m tests.applications.fuzz_readers $(SECONDS)

# What the build needs lies in the environment itself: one NumPy and one SciPy instead of two of each.
$(VENV)/.python: $(if $(filter-out $(WANTED),$(MADE)),FORCE)
	@echo "making an environment in $(VENV): Python $(WANTED), NumPy, SciPy, Cython"
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install -q --disable-pip-version-check "setuptools>=77" "cython>=3.1" numpy scipy
	echo $(WANTED) > $@

FORCE:

# One installation for each set of extras. All use the objects in build/objects, which are compiled once.
$(VENV)/.demo: $(VENV)/.python $(SOURCE)
	$(PY) setup.py -q build_ext --inplace
	@echo "fetching scikit-learn and matplotlib"
	$(PY) -m pip install -q --no-build-isolation -e ".[demo]"
	touch $@

$(VENV)/.test: $(VENV)/.python $(SOURCE)
	$(PY) setup.py -q build_ext --inplace
	$(PY) -m pip install -q --no-build-isolation -e ".[test]"
	touch $@

# What runs notebooks, which a test does at night.
$(VENV)/.notebooks: $(VENV)/.test
	$(PY) -m pip install -q --no-build-isolation -e ".[notebooks]"
	touch $@

# torch by exact version: its CPU build. Peers that cannot be had are reported as missing by the benchmark, not as errors.
$(VENV)/.bench: $(VENV)/.demo
	-$(PY) -m pip install -q torch==2.13.0
	-$(PY) -m pip install -q jax
	touch $@

# PyHessian's package names no versions and needs torch alone.
$(VENV)/.peers: $(VENV)/.bench
	-$(PY) -m pip install -q curvlinops-for-pytorch torch-levenberg-marquardt torch==2.13.0
	-$(PY) -m pip install -q --no-deps pyhessian
	touch $@

$(VENV)-lint/.done: pyproject.toml
	$(PYTHON) -m venv $(VENV)-lint
	$(LINT)/python -m pip install -q --upgrade pip
	$(LINT)/python -m pip install -q numpy scipy "setuptools>=77" "cython>=3.1" $$($(LINT)/python -c "import tomllib; \
	  print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['lint'])")
	touch $@

# setuptools is new, as the build needs it; what runs is old.
$(VENV)-minimum/.done: pyproject.toml $(SOURCE)
	$(PYTHON) -m venv $(VENV)-minimum
	$(VENV)-minimum/$(BIN)/python -m pip install -q --upgrade pip
	$(VENV)-minimum/$(BIN)/python -m pip install -q -e ".[test]" $$($(PYTHON) -c "import re; \
	  print(*re.findall(r'\w+>=[\d.]+', re.search(r'^dependencies = .*', open('pyproject.toml').read(), re.M)[0]))" | sed 's/>=/==/g')
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-lint $(VENV)-minimum $(VENV)-newest build dist fastcurv/*/*.so *.egg-info fastcurv-demo.html figures
