# The first of these Pythons that passes the checks; `make demo PYTHON=/path/to/python` names another.
PYTHON ?= $(shell for p in python3.11 python3.12 python3; do $$p .ci/check_system.py --quiet 2>/dev/null && echo $$p && exit; done; echo python3)

help:  ## show this list
	@sed -n 's/^\([a-z.-]*\):.*## /make \1\t/p' Makefile

demo: .venv/installed  ## install if needed, run the five notebooks on the built-in images, print the results and the report's path
	.venv/bin/python notebooks/run_all.py --run-name demo

test: .venv/installed  ## unit, parity and notebook tests: minutes on two cores
	.venv/bin/python -m pytest tests -m "not slow and not browser and not kill"

test-slow: .venv/installed  ## what takes longer: whole trainings in processes of their own, notebooks on odd settings
	.venv/bin/python -m pytest tests -m "slow and not browser and not kill"

KILLS ?= 3
test-kill: .venv/installed  ## trainings killed by SIGKILL and resumed must end as if undisturbed; KILLS=20 kills more often
	KILLS=$(KILLS) .venv/bin/python -m pytest tests -m kill

test-browser: .venv/installed  ## the explorers in JupyterLab in chromium; screenshots in tests/artefacts
	$(PYTHON) .ci/check_system.py --browser
	.venv/bin/python -m pytest tests/browser

test-all: test test-slow test-kill test-browser  ## all of these

bench: .venv/installed  ## the speed of each stage beside its direct formulation, into data/results/bench; some minutes, on an idle machine
	.venv/bin/python tests/benchmarks/bench.py

gpu-check: .venv/installed  ## the first thing to run on a machine with a GPU: does it work, how fast; at most 12 minutes
	.venv/bin/python tests/benchmarks/gpu_check.py

claims: .venv/installed  ## write data/results/CLAIMS.md anew: each claim of the papers, and what the results beside it say
	.venv/bin/python -m wsfcn_lib.claims

released: .venv/installed  ## evaluate the released weights and masks that lie here; where there are none, say which there are
	.venv/bin/python -m wsfcn_lib.claims.released

stress: .venv/installed  ## notebooks 03 and 05 twenty times through papermill and nbval, looking for stalls; takes half an hour
	.venv/bin/python .ci/stress.py

try: .venv/installed  ## open a page in JupyterLab on which to try the network that ships
	.venv/bin/python notebooks/open_lab.py try

lab: .venv/installed  ## open working copies of the notebooks in JupyterLab
	.venv/bin/python notebooks/open_lab.py

notebooks: .venv/installed  ## execute the notebooks again and keep their outputs for a commit
	.venv/bin/python notebooks/run_all.py --fresh --commit

lint: .venv/installed  ## style and format
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

lock:  ## resolve pyproject.toml's ranges again into requirements.txt (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --fork-strategy fewest \
		--custom-compile-command "make lock" pyproject.toml -o requirements.txt

.venv: .venv/installed  ## only install

# The checks come first and write the lock to install from: without a C++ compiler it lacks the CRF.
.venv/installed: requirements.txt
	$(PYTHON) .ci/check_system.py requirements.txt .venv/requirements.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check -r .venv/requirements.txt
	.venv/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.PHONY: help demo test test-slow test-kill test-browser test-all bench gpu-check claims released stress try lab notebooks lint lock .venv
