# From a fresh clone with nothing but python3, make and git:
#   make report   a real report about a trained model, as one HTML page
#   make learn    the first tutorial, in JupyterLab (N=2 for the second)
#   make test     the whole test suite
SHELL  := /bin/bash
PYTHON ?= python3
TORCH  ?= torch==2.13.0
VENV   := .venv
BIN    := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help report learn test sync notebooks pytest lab zoo bench docs docs-check goldens outputs clean
help:
	@sed -n 's/^#   //p' Makefile; echo 'Also: make lab, docs, docs-check, zoo, bench, goldens, outputs, bounds, wheel, clean'

$(VENV)/.ready: pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "The workbench needs Python 3.10 or later: make PYTHON=python3.12 ...")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q $(PIP_FLAGS) '$(TORCH)' -e '.[dev]'
	mkdir -p $(VENV)/share/jupyter/labextensions && ln -sfn ../../../../labextension $(VENV)/share/jupyter/labextensions/interp-workbench  # an editable install leaves it out
	touch $@

report: $(VENV)/.ready
	@$(BIN)/workbench report tour $(ARGS)

learn: $(VENV)/.ready
	@$(BIN)/workbench tutorial $(or $(N),1) --lab

# --- tests: the package equals its notebooks, the notebooks run, the tests pass --------------------------------------
test notebooks pytest: export OMP_NUM_THREADS ?= 1
test: sync notebooks pytest
sync: $(VENV)/.ready
	$(BIN)/python .ci/sync.py
notebooks: $(VENV)/.ready
	$(BIN)/nbdev_test --n_workers 2
pytest: $(VENV)/.ready
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

# --- work -------------------------------------------------------------------------------------------------------------
lab: $(VENV)/.ready
	$(BIN)/jupyter lab reports/tour.ipynb
docs: $(VENV)/.ready                     # _docs/index.html, and README.md from nbs/index.ipynb; widgets and examples of reports are kept in _proc/ until the package changes
	$(BIN)/python .ci/docs.py
docs-check: docs                         # every link, anchor and picture of the whole site
	$(BIN)/python .ci/docs.py --check
outputs: $(VENV)/.ready                  # run every notebook again and keep its figures as small pictures
	$(BIN)/python .ci/outputs.py $(ARGS)
	$(BIN)/python .ci/picture.py
zoo: $(VENV)/.ready                      # train the built-in models again from their seeds
	$(BIN)/python -m workbench.zoo.retrain $(ARGS)

# --- bench: against other libraries, in an environment of its own -----------------------------------------------------
_bench/.venv/.ready: pyproject.toml setup.py tests/bench/requirements.txt
	test -x _bench/.venv/bin/pip || $(PYTHON) -m venv _bench/.venv
	_bench/.venv/bin/pip install -q $(PIP_FLAGS) '$(TORCH)' -r tests/bench/requirements.txt -e '.[cluster]'
	touch $@
bench: _bench/.venv/.ready
	_bench/.venv/bin/python tests/bench/run.py $(ARGS)

# --- goldens: dictionaries written by the libraries that own the formats, and ours opened by sae-lens, in an environment of its own ---
_bench/.features/.ready: tests/golden/features/requirements.txt
	test -x _bench/.features/bin/pip || $(PYTHON) -m venv _bench/.features
	_bench/.features/bin/pip install -q $(PIP_FLAGS) '$(TORCH)' -r tests/golden/features/requirements.txt
	_bench/.features/bin/pip uninstall -q -y torchvision  # a dependency's dependency, built for another torch; transformers imports it when it is there
	touch $@
goldens: export OMP_NUM_THREADS ?= 1
goldens: $(VENV)/.ready _bench/.features/.ready
	PYTHONHASHSEED=0 _bench/.features/bin/python tests/golden/features/write.py tests/golden/features  # sae-lens writes its config in the order of a set
	$(BIN)/python tests/golden/features/ours.py write _bench/ours
	_bench/.features/bin/python tests/golden/features/ours.py open _bench/ours
	$(BIN)/python -m pytest -q tests/test_features_formats.py

# --- packaging: the oldest and the newest versions allowed, and a wheel in an environment that holds nothing else ------
# They install several GB; PIP_FLAGS can name another source. The oldest versions exist for Python 3.10.
OLD_PYTHON ?= python3.10
ESSENTIAL  := tests/test_load.py tests/test_features_formats.py tests/test_patching_engine.py tests/test_dialogue.py tests/test_widgets.py tests/test_reporting.py tests/test_cli.py
define essential
	$(1)/bin/python tests/bounds/modules.py
	$(1)/bin/python -m pytest -q -p no:cacheprovider $(ESSENTIAL)
endef
.PHONY: bounds oldest newest wheel
bounds wheel: export OMP_NUM_THREADS ?= 1
bounds: oldest newest
oldest:
	$(OLD_PYTHON) -m venv --clear _bench/.oldest
	_bench/.oldest/bin/pip install -q $(PIP_FLAGS) -c tests/bounds/oldest.txt -e '.[cluster]' pytest pexpect
	$(call essential,_bench/.oldest)
newest:
	$(PYTHON) -m venv --clear _bench/.newest
	_bench/.newest/bin/pip install -q $(PIP_FLAGS) -e '.[cluster]' pytest pexpect
	$(call essential,_bench/.newest)
wheel:
	rm -rf build dist _bench/.wheel _bench/outside && mkdir -p _bench/outside
	$(PYTHON) -m venv --clear _bench/.wheel
	_bench/.wheel/bin/pip wheel -q --no-deps -w dist .
	_bench/.wheel/bin/pip install -q $(PIP_FLAGS) '$(TORCH)' "$$(ls dist/*.whl)"
	cd _bench/outside && ../.wheel/bin/python ../../tests/bounds/outside.py "$(CURDIR)"

clean:
	rm -rf build dist _proc _docs *.egg-info .pytest_cache
