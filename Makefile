# maskbench: `make` lists the targets; each sets itself up when .venv is missing or out of date.

PYTHON     ?= python3
# A folder of one's own, of the command line alone: many have a DATA in their environment. It travels to the shell as a
# variable, whatever its name is made of.
DATA_ROOT  := $(if $(filter command,$(origin DATA)),$(value DATA))
export DATA_ROOT
EXPERIMENT ?= $(if $(DATA_ROOT),mine,shapes)
METHODS    ?= mask_rcnn,solov2,discriminative
SIZE       ?= $(if $(filter mine,$(EXPERIMENT)),crowded,small)
SEEDS      ?= 0
RUNS       ?= runs
STUDY      ?= $(EXPERIMENT)
ARGS       ?=

# Without compiled bytecode, which the first import leaves behind, every process takes twice the seconds to import torch.
unexport PYTHONDONTWRITEBYTECODE

VENV   := .venv
READY  := $(VENV)/.stamp
RUN    := $(VENV)/bin/python
comma  := ,
# a,b -> small/a,small/b where there is a small one (SIZE= leaves all names alone: the papers' settings)
ifneq ($(SIZE),)
ifeq ($(wildcard conf/method/$(SIZE)/.),)
$(error SIZE=$(SIZE): no such folder in conf/method (SIZE= takes the papers' settings))
endif
endif
ifeq ($(METHODS),all)
# a paper's own file has a _target_; variants such as solov2_light start from one
PAPERS := $(patsubst conf/method/%.yaml,%,$(shell grep -l '^_target_' conf/method/*.yaml))
# the longest trainings first, so that at the end no slot waits for one
BY_COST := htc cascade_mask_rcnn point_rend mask_rcnn decoupled_solo solov2 centre_offset hybrid spatial_embedding solo \
	discriminative flow_field semantic
override METHODS := $(subst $() ,$(comma),$(strip $(filter-out $(BY_COST),$(PAPERS)) $(filter $(PAPERS),$(BY_COST))))
endif
SIZED   = $(if $(and $(SIZE),$(wildcard conf/method/$(SIZE)/$(1).yaml)),$(SIZE)/)$(1)
CHOICE := $(subst $() ,$(comma),$(foreach method,$(subst $(comma), ,$(METHODS)),$(call SIZED,$(method))))

.PHONY: help setup sweep train benchmark report test test-slow check format docs lock clean
.DEFAULT_GOAL := help

help: ## List the targets and their variables
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo "  Variables: EXPERIMENT=$(EXPERIMENT)  METHODS=$(METHODS)  SIZE=$(SIZE) (empty: the papers' settings)"
	@echo "             DATA=/path/to/folder (your own: EXPERIMENT=mine, and SIZE=crowded, are the default then)"
	@echo "             SEEDS=$(SEEDS)  RUNS=$(RUNS)  STUDY=$(STUDY)  PYTHON=$(PYTHON)  ARGS='...' (handed on to the verb or tool)"

setup: $(READY) ## Install the locked versions into .venv (uv if it is there, else pip)

# The stamp is older than the lock: bring .venv up to date in place, or make it when it is missing or broken.
$(READY): pyproject.toml requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "PYTHON=$(PYTHON): no such command" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "maskbench needs Python 3.11, 3.12 or 3.13, but PYTHON=$(PYTHON) is %d.%d: try make setup PYTHON=python3.12" % v)'
	@echo "Setting up $(VENV) (the first time: some GB, a minute or more) ..."
	@set -e; \
	if command -v uv >/dev/null; then \
	  $(RUN) -c '' 2>/dev/null || uv venv --quiet --clear --python $(PYTHON) $(VENV); \
	  uv pip sync --quiet --python $(RUN) requirements.lock; \
	  uv pip install --quiet --python $(RUN) --no-deps --no-build-isolation -e .; \
	else \
	  $(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); \
	  $(RUN) -m pip install --quiet --no-compile --no-deps -r requirements.lock; \
	  $(RUN) -m pip install --quiet --no-deps --no-build-isolation -e .; \
	fi
	@touch $@

# A trial that failed (3) keeps nobody from the others' table: all steps are taken unless one is interrupted (130) or none
# was started, as after a misspelt setting; the status is that of the first one that went wrong.
sweep: $(READY) ## Train METHODS over SEEDS, time them one against the other, and write the report
	$(if $(and $(DATA_ROOT),$(filter shapes,$(EXPERIMENT))),$(error EXPERIMENT=shapes draws its data: leave it out, or say EXPERIMENT=mine, to compare methods on DATA))
	$(if $(filter command,$(origin DATA)),$(if $(DATA_ROOT),,$(error DATA is empty: say DATA=/path/to/folder, or leave it out)))
	$(if $(filter mine,$(EXPERIMENT)),$(if $(DATA_ROOT)$(findstring data.root=,$(ARGS)),,$(error EXPERIMENT=mine compares methods on a folder of yours: say DATA=/path/to/it as well)))
	$(if $(filter runs=% study=%,$(ARGS)),$(error ARGS go to training alone: say RUNS=... and STUDY=... instead of $(filter runs=% study=%,$(ARGS))))
	@status=0; \
	$(if $(DATA_ROOT),root=$$(printf '%s' "$$DATA_ROOT" | sed 's/\(\\*\)"/\1\1\\"/g; s/\(\\*\)$$/\1\1/');) \
	step() { \
	  [ $$status -ne 130 ] || return 0; \
	  echo "$$*"; "$$@" && return 0 || code=$$?; \
	  if [ $$status -eq 0 ] || [ $$code -eq 130 ]; then status=$$code; fi; \
	}; \
	step $(RUN) -m maskbench.train -m experiment=$(EXPERIMENT) method=$(CHOICE) seed=$(SEEDS) runs=$(RUNS) study=$(STUDY) $(if $(DATA_ROOT),"data.root=\"$$root\"") $(ARGS); \
	case $$status in 0|3) ;; *) exit $$status;; esac; \
	step $(RUN) -m maskbench.benchmark study=$(RUNS)/$(STUDY) again=false; \
	step $(RUN) -m maskbench.report study=$(RUNS)/$(STUDY) again=false; \
	exit $$status

train: $(READY) ## Train one method: make train ARGS="method=small/solov2 data=coco data.root=PATH"
	$(RUN) -m maskbench.train $(ARGS)

benchmark: $(READY) ## Time the finished runs of STUDY again
	$(RUN) -m maskbench.benchmark study=$(RUNS)/$(STUDY) $(ARGS)

report: $(READY) ## Write table, plots and report/index.html of STUDY again
	$(RUN) -m maskbench.report study=$(RUNS)/$(STUDY) $(ARGS)

# One thread a process: two test processes share two cores better than their thread pools do.
test: export OMP_NUM_THREADS = 1
test: $(READY) ## Run the tests that need no network and no patience, with coverage
	$(RUN) -m pytest -n 2 --dist loadfile -m "not slow" --cov --cov-report=term --cov-fail-under=90 $(ARGS)

test-slow: export OMP_NUM_THREADS = 1
test-slow: $(READY) ## Run the tests that take minutes: overfitting, real data, killed processes
	$(RUN) -m pytest -n 2 -m slow $(ARGS)

check: $(READY) ## Check format, lint and types
	$(RUN) -m ruff format --check
	$(RUN) -m ruff check
	$(RUN) -m mypy

format: $(READY) ## Format the code and mend what the linter can
	$(RUN) -m ruff format
	$(RUN) -m ruff check --fix

# ARGS="-f mkdocs.yml" and the like are mkdocs' own; a warning is an error.
docs: export NO_MKDOCS_2_WARNING = 1
docs: $(READY) ## Build the documentation into site/
	$(RUN) -m mkdocs build --strict $(ARGS)

# Needs uv. ARGS="--upgrade" takes newer versions, ARGS="--upgrade-package NAME" one of them.
lock: ## Resolve pyproject.toml anew into requirements.lock
	uv pip compile --quiet --universal --no-header --no-annotate --all-extras --group dev --group docs $(ARGS) pyproject.toml -o requirements.lock

clean: ## Remove caches and build products (.venv and runs/ stay)
	rm -rf build dist outputs site .coverage .coverage.* htmlcov .pytest_cache .mypy_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
