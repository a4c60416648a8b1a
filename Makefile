# Every target brings what it needs; the work is in tools/. On Windows run the lines by hand.
PYTHON ?= python3
# Where bytecode files are turned off, as in many images, each Python would compile torch and ComfyUI again.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help host demo serve test test-all hosts reliability matrix lint docs bench pack chromium train-env test-train locks release verified

help:
	@echo "make demo    zoom into a photograph in a real ComfyUI, into demo/"
	@echo "make serve   start that ComfyUI on http://127.0.0.1:8188"
	@echo "make test    run the tests of the nodes and the page"
	@echo "make test-all    run all tests, and try every node on hundreds of random inputs"
	@echo "make reliability try to break the pack, and write benchmarks/RELIABILITY.md"
	@echo "make matrix  run the tests on ComfyUI 0.27 and 0.30, Python 3.10 to 3.13, into benchmarks/MATRIX.md"
	@echo "make lint    check style and types"
	@echo "make docs    write the tables of the help pages from the nodes' schemas"
	@echo "make bench   print the benchmarks"
	@echo "make pack    list what a user downloads"
	@echo "make train-env   install what trains prompts and SR LoRAs in .venv-train/ (Python 3.11)"
	@echo "make test-train  train tiny random models and check them in ComfyUI"
	@echo "make host    install ComfyUI in .host/ and its packages in .venv/"
	@echo "make release VERSION=0.2.0   prepare a release and try it as a user gets it"
	@echo "make verified    write docs/verified.md from the reports in docs/verified/"
	@echo "make locks   write the newest versions of all packages into locks/"

host:
	@$(PYTHON) -m tools.host

demo: host
	@.venv/bin/python -m tools.demo

serve: host
	@.venv/bin/python -m tools.host.server

hosts: chromium
	@$(PYTHON) -m tools.host --version 0.27.0 --frontend

test: hosts
	OMP_NUM_THREADS=1 .venv/bin/pytest tests -n 3 --dist loadfile

test-all: hosts
	OMP_NUM_THREADS=1 .venv/bin/pytest tests -m "" --hypothesis-profile=long -n 3 --dist loadfile

reliability: hosts
	.venv/bin/python -m tools.release.reliability

matrix: hosts
	.venv/bin/python -m tools.release.matrix

lint: host
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

docs: host
	@.venv/bin/python -m tools.docs.help_tables

bench: host
	@for file in benchmarks/*.py; do .venv/bin/python -m benchmarks.$$(basename $$file .py) || exit 1; done

pack:
	@$(PYTHON) tools/release/pack.py

release: export COMFYUI_PATH = # it brings ComfyUI versions of its own
release: hosts
	@.venv/bin/python -m tools.release.release "$(VERSION)"

verified:
	@$(PYTHON) -m tools.release.verified

chromium:
	@$(PYTHON) -m tools.host.chromium

train-env:
	@$(PYTHON) -m tools.train_grpo.environment

test-train: host train-env
	OMP_NUM_THREADS=1 .venv/bin/pytest tests/train

locks: export COMFYUI_PATH = # the lock file is for the pinned ComfyUI
locks: host
	@.venv/bin/python -m tools.release.locks
