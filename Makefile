# The commands of the project. `make` alone lists them.

CONCEPT ?= grooty
BASE_MODEL ?=
IMAGES ?=
TOY ?=
INITIALIZER ?=
VECTORS ?=
LISTEN ?= 127.0.0.1
PORT ?= 8866
TOKEN ?= yes
# voila's page asks a CDN for icons that ours has not: the browser is told to ask nobody but this server
ASK_NOBODY_ELSE = default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'
BASE_PYTHON ?= python3
SEED ?= $(shell date +%s)
DEALT = -n $(WORKERS) --dist loadfile --no-loadscope-reorder  # a file's tests share what one of them made
WORKERS := 2  # of the tests, each on a core
TYPED := CONCEPT BASE_MODEL IMAGES TOY INITIALIZER VECTORS
export $(TYPED)  # so that a path may hold a quote
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name))))  # or a dollar sign

# `make run PYTHON=python` uses an environment of your own, as it is, and installs nothing.
ifneq ($(origin PYTHON),command line)
PYTHON := .venv/bin/python
RUNS := .venv/.installed
TESTS := .venv/.installed-dev
endif

.PHONY: help run lab web test test-oldest test-newest test-shuffled test-browser lint miniature miniature-report held-out-scores bench truth trust licences outputs all-in-one constraints always

help: ## list the commands
	@sed -n 's/^\([a-z -]*\):.*## /\1\t/p' Makefile | expand -t 28

run: $(RUNS) ## notebooks 1 to 6 in order: make run CONCEPT=my_cat IMAGES=my_photos INITIALIZER=cat BASE_MODEL=...
	@$(PYTHON) -m helpers.series.run --concept "$$CONCEPT" --base-model "$$BASE_MODEL" \
	    --images "$$IMAGES" --toy "$$TOY" --initializer "$$INITIALIZER" $(if $(VECTORS),--vectors "$$VECTORS")

lab: $(RUNS) ## open JupyterLab on the notebook to start with
	$(PYTHON) -m jupyterlab $(if $(filter 0,$(shell id -u)),--allow-root) --ServerApp.root_dir=. \
	    --LabApp.default_url=/lab/tree/notebooks/0_start_here.ipynb

web: $(RUNS) ## a page to draw on, for this machine alone and with a token: make web PORT=8866 LISTEN=0.0.0.0 TOKEN=no
	$(PYTHON) -m voila notebooks/web.ipynb --no-browser --Voila.ip="$(LISTEN)" --port="$(PORT)" \
	    $(if $(filter no,$(TOKEN)),,--token) --Voila.root_dir=notebooks \
	    --VoilaConfiguration.file_denylist='.*' --KernelManager.transport=ipc \
	    --Voila.tornado_settings="{'headers': {'Content-Security-Policy': \"$(ASK_NOBODY_ELSE)\"}}"

test: lint ## every notebook in a fresh kernel, and the unit tests
	$(PYTHON) -m pytest $(DEALT)

test-oldest test-newest: test-%: build/%/.installed ## the same tests on the lower bounds of requirements.txt, or on what is newest
	build/$*/bin/python -m pytest $(DEALT)

test-shuffled: $(TESTS) ## the same tests in random order; again in the same one: make test-shuffled SEED=7
	$(PYTHON) -m pytest $(DEALT) --random-order-seed=$(SEED)

test-browser: $(TESTS) ## the tests that click, ten times, each time in another order, while every core is busy
	@trap 'kill $$busy' EXIT INT TERM; for core in $$(seq $(WORKERS)); do yes > /dev/null & busy="$$busy $$!"; done; \
	for seed in $$(seq 10); do $(PYTHON) -m pytest tests/series/in_browser --random-order-seed=$$seed || exit 1; done

lint: $(TESTS) ## ruff over the code and the notebooks, and the order of the rooms
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -c "from importlinter.cli import lint_imports_command as lint; lint()"

miniature: $(RUNS) ## build the miniature Stable Diffusion from nothing
	$(PYTHON) -m helpers.miniature build

miniature-report: $(RUNS) ## measure the miniature
	$(PYTHON) -m helpers.miniature report

bench: $(RUNS) ## the trainer against the well-known ones
	$(PYTHON) -m tests.bench

truth held-out-scores: $(RUNS) ## words for toys that nobody tuned to, ours beside the well-known loops
	$(PYTHON) -m tests.bench.truth

trust: $(TESTS) ## bad inputs, wrong states, 50 kills and 200 concepts in one process
	$(PYTHON) -m tests.trust

licences: $(RUNS) ## list the licences of what is installed
	$(PYTHON) -m tests.trust.licences

outputs: $(RUNS) ## put what `make run` made into the notebooks, and the README's pictures
	$(PYTHON) -m helpers.series.publish outputs

all-in-one: $(RUNS) ## write notebooks/all_in_one.ipynb, and the links of the README
	$(PYTHON) -m helpers.series.publish all-in-one

constraints: $(TESTS) ## write down the versions that are installed now
	(sed -n '/^#/p' constraints.txt; $(PYTHON) -m pip freeze --all | \
	    grep -vixFf tests/export/programs.txt | sed '/^pip==/d; s/+cpu$$//') > constraints.partial
	mv constraints.partial constraints.txt

.venv/bin/python:
	@$(BASE_PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo 'This needs Python 3.11 or newer: say which with BASE_PYTHON=python3.11'; exit 1; }
	$(BASE_PYTHON) -m venv .venv

.venv/.installed: requirements.txt constraints.txt | .venv/bin/python
	.venv/bin/python -m pip install -r requirements.txt -c constraints.txt
	# A cell that is run alone after a restart finds `helpers`, too.
	.venv/bin/python -c "import os, site; open(site.getsitepackages()[0] + '/helpers.pth', 'w').write(os.getcwd())"
	touch $@

.venv/.installed-dev: requirements-dev.txt tests/export/programs.txt .venv/.installed
	.venv/bin/python -m pip install -r requirements-dev.txt -c constraints.txt
	.venv/bin/python -m pip install --no-deps -r tests/export/programs.txt
	touch $@

# `>=` becomes `==`. Only torch stays the tested one: its old builds for the CPU are not in the package index, and its
# newest is a download of gigabytes.
build/oldest/requirements.txt build/newest/requirements.txt: requirements.txt constraints.txt
	mkdir -p $(@D)
	(sed -e '/^torch>=/d' $(if $(findstring oldest,$@),-e 's/>=/==/') requirements.txt; grep '^torch==' constraints.txt) > $@

build/newest/requirements.txt: always  # there may be newer ones by now

build/%/.installed: build/%/requirements.txt requirements-dev.txt
	$(BASE_PYTHON) -m venv build/$*
	build/$*/bin/python -m pip install --upgrade --upgrade-strategy eager -r $< -r requirements-dev.txt
	touch $@
