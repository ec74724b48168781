# Everything runs in .venv, which `make env` builds. All you need is python3 (3.11 to 3.14) and a network connection.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help env data tune test quick lint format bench results ui picture clean

PYTHON ?= python3
BIN := .venv/bin
PORT ?= 5000
PYTEST := --numprocesses auto --maxprocesses 4 --dist worksteal
# The study of `make tune`, in multirun/tune: some two minutes of training on two CPU cores.
TRIALS ?= 10
EPOCHS ?= 3

help: ## Show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

env: .venv/.ready ## Build the environment .venv, pinned by constraints.txt

.venv/.ready: constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "Python 3.11 to 3.14 is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m cifar_tuning.tracking
	@touch $@

data: env ## Download CIFAR-10 to data/ and verify it
	@$(BIN)/python -m cifar_tuning.data

tune: data ## Start here: tune SimpleNN on CIFAR-10 with Optuna, two minutes of training (TRIALS=10 EPOCHS=3)
	@$(BIN)/python train.py -m study=simplenn trainer.epochs=$(EPOCHS) \
		'schedule.decay_epochs=range(1,$(shell expr $(EPOCHS) + 1))' \
		hydra.sweeper.study_name=tune hydra.sweeper.n_trials=$(TRIALS)
	@$(BIN)/python report.py sweep=tune

test: env ## Run every test that this machine can run
	@$(BIN)/python -m pytest $(PYTEST) tests

quick: env ## Run only the quick tests, while you work
	@$(BIN)/python -m pytest $(PYTEST)

lint: env ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: env ## Format the code and fix what can be fixed automatically
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: data ## Run the short benchmarks and update docs/performance.md
	@$(BIN)/python -m benchmarks all

results: data ## Repeat the lab report and draw docs/results.md, hours (ONLY=lab2_lr TRAIN=0 AGAIN=1 QUICK=1 ARGS=)
	@$(BIN)/python -m cifar_tuning.lab $(if $(filter 1,$(QUICK)),--quick) $(if $(filter 1,$(AGAIN)),--again) \
		$(if $(filter 0,$(TRAIN)),--no-train) $(if $(ONLY),--only $(ONLY)) $(ARGS)

ui: env ## Serve MLflow's UI on 127.0.0.1 (PORT=5000)
	@echo "http://127.0.0.1:$(PORT)/#/experiments/1/runs?compareRunsMode=CHART&workflowType=machine_learning"
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db \
		--host 127.0.0.1 --port $(PORT) --workers 1

picture: data ## Redraw the README's picture, a real grid in MLflow's UI (needs Chromium)
	@$(BIN)/python -m pytest tests/test_ui.py --picture docs/images/mlflow_compare.png

clean: ## Remove the environment, but keep data, runs and checkpoints
	rm -rf .venv *.egg-info
