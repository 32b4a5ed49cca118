# Every target sets up what it needs in .venv and may be run again at any time. `make help` lists them.
PYTHON ?= python3
# An index with CPU-only builds of torch, for machines where the default one would bring several GB of CUDA.
TORCH_INDEX ?=
TORCH := torch==2.13.0
BIN := .venv/bin
# Python compiles what is used when it is first imported; to compile all of every package takes 100 s more.
PIP := $(BIN)/python -m pip install --quiet --no-compile
# Caches stay in the folder; nothing asks the network while it runs.
# GOMP_SPINCOUNT: threads that wait sleep soon, so that another process on a core costs less (benchmarks/busy_machine.py).
RUN := HF_HOME=$(CURDIR)/.cache/huggingface XDG_CACHE_HOME=$(CURDIR)/.cache HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 \
  GOMP_SPINCOUNT=$${GOMP_SPINCOUNT:-300}
TESTS := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(RUN) $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup quickstart bench peers test test-slow test-wheel test-versions check format micro study study-small sample settings-page models-page clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## prepare .venv: torch first, then the rest under constraints.txt

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lora_med needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	$(PIP) --constraint constraints.txt --editable ".[dev,eval,privacy,serve,sign,track]"
	touch $@

quickstart: setup ## train two adapters, compare, swap, merge, report: three to six minutes, no network
	$(RUN) $(BIN)/python recipes/quickstart.py

test: setup ## the tests, on a CPU, without a network
	$(TESTS) -m "not slow and not wheel" -n auto --maxprocesses 4 --dist worksteal

test-slow: setup ## the long ones: 20 kills of a run, every kind of merge, hostile files
	$(TESTS) -m slow --timeout 3000

test-wheel: setup ## build the wheel and the sdist, install the wheel elsewhere and use it from an empty folder
	$(TESTS) tests/wheel -m wheel --timeout 900 -n 2 --dist loadfile

# The packages that are closest to transformers, PEFT, TRL, bitsandbytes and accelerate.
BOUND_TESTS := tests/adapters/test_attach.py tests/merge/test_fold.py tests/training/test_trainer.py \
  tests/training/test_arguments.py tests/models/test_base.py tests/models/test_structure.py \
  tests/models/test_template_limits.py tests/merge/test_merged_families.py tests/adapters/test_other_layouts.py

test-versions: .versions/lowest/.ready .versions/newest/.ready ## the tests nearest to the libraries, on the lowest and the newest versions
	for end in lowest newest; do \
	  .versions/$$end/bin/python -m pip list 2>/dev/null | grep -E "^(torch|transformers|peft|trl|bitsandbytes|datasets|accelerate) "; \
	  OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(RUN) .versions/$$end/bin/python -m pytest -m "not slow" $(BOUND_TESTS) || exit 1; \
	done

.versions/%/.ready: pyproject.toml
	test -x .versions/$*/bin/python || $(PYTHON) -m venv .versions/$*
	$(PYTHON) tools/version_bounds.py $* > .versions/$*/bounds.txt
	.versions/$*/bin/python -m pip install --quiet --no-compile $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(TORCH)"
	.versions/$*/bin/python -m pip install --quiet --no-compile --upgrade --requirement .versions/$*/bounds.txt \
	  pytest pytest-timeout pytest-xdist hypothesis --editable .
	touch $@

check: setup ## ruff, pyright, codespell, length of sentences in the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/codespell
	$(BIN)/python -m tools.sentences

format: setup ## let ruff lay the code out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

micro: setup ## train the embedded base again, from DATA (default ../shared/data): one to two hours
	$(RUN) $(BIN)/python -m tools.micro.corpus --data $(DATA) --out runs/micro/corpus
	MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 \
	$(RUN) $(BIN)/python -m tools.micro.pretrain --corpus runs/micro/corpus --out runs/micro/model

BENCH := $(RUN) $(BIN)/python benchmarks
DATA ?= ../shared/data
# How often each benchmark goes through its arms; training of the larger shape takes minutes each.
ROUNDS ?= 5
ROUNDS_LARGE ?= 3

BENCHED := train_135m train_0.5b shared_context_135m upper_layers_135m quantized_135m quantized_0.5b processes_135m \
  startup_135m attention plan

bench: setup $(BENCHED:%=runs/bench/%.json) ## speed and memory of training beside TRL and others, from DATA (default ../shared/data): two to three hours
	$(BENCH)/table.py

.NOTPARALLEL:
runs/bench/train_135m.json:
	$(BENCH)/train.py --data $(DATA) --rounds $(ROUNDS)
runs/bench/train_0.5b.json:
	$(BENCH)/train.py --data $(DATA) --rounds $(ROUNDS_LARGE) --shape 0.5b --arms ours trl-best trl
runs/bench/shared_context_135m.json:
	$(BENCH)/shared_context.py --data $(DATA) --rounds $(ROUNDS)
runs/bench/upper_layers_135m.json:
	$(BENCH)/upper_layers.py --data $(DATA) --rounds $(ROUNDS)
runs/bench/quantized_%.json:
	$(BENCH)/quantized.py --data $(DATA) --rounds $(ROUNDS) --shape $*
runs/bench/processes_135m.json:
	$(BENCH)/processes.py --data $(DATA) --rounds $(ROUNDS)
runs/bench/startup_135m.json:
	$(BENCH)/startup.py --data $(DATA) --rounds $(ROUNDS) --quick
runs/bench/attention.json:
	$(BENCH)/attention.py --rounds $(ROUNDS)
runs/bench/plan.json:
	$(BENCH)/plan.py --data $(DATA)

peers: ## environments of the other toolkits that `make bench` times too, in benchmarks/peers: 7 GB
	for peer in llamafactory==0.9.5 axolotl==0.19.0 ms-swift==4.6.0; do \
	  folder=benchmarks/peers/$${peer%%==*}; \
	  $(PYTHON) -m venv $$folder && $$folder/bin/python -m pip install --quiet "$(TORCH)" && \
	  $$folder/bin/python -m pip install --quiet "$(TORCH)" $$peer || exit 1; \
	done
	benchmarks/peers/llamafactory/bin/python -m pip uninstall --quiet --yes torchvision torchaudio

# What reads the base of the study, a GGUF file, beside what setup brings.
.venv/.study: .venv/.ready
	$(PIP) --constraint constraints.txt --editable ".[gguf]"
	touch $@

study: .venv/.study ## SmolLM2 on medical tasks beside TRL, from DATA (default ../shared/data): many hours, goes on where it stopped
	$(RUN) $(BIN)/lora-med base get smollm2
	$(BENCH)/study.py --data $(DATA)
	$(BENCH)/study_page.py

study-small: .venv/.study ## SmolLM2 learns one real task and answers a letter, from DATA (default ../shared/data)
	$(RUN) $(BIN)/lora-med base get smollm2
	$(BENCH)/study_small.py --data $(DATA)

sample: setup ## write the sample corpus again
	$(RUN) $(BIN)/python -m tools.make_sample

settings-page: setup ## write docs/settings.md from the schema of the settings
	$(BIN)/python -m tools.settings_page

models-page: setup ## try every family of bases and write the table of docs/models.md: about an hour
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(RUN) $(BIN)/python -m tools.models_page

clean: ## remove .venv, runs and caches (adapters stay)
	rm -rf .venv runs .cache .pytest_cache .ruff_cache .hypothesis *.egg-info
