# Two commands do everything on a fresh machine: `make demo` and `make test`. The work is done in tools/.

PRESET ?= release
SEEDS ?= 1..20000
KILLS ?= 1000
ROUNDS ?= 20
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup build demo serve test soak mutants bench lint format clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what building and running needs (LOCKSTEP_TORCH=cpu|cuda|skip)
	@tools/setup.sh

build: ## build the program: build/lockstep (PRESET=release|debug|tsan|portable)
	@tools/build.sh $(PRESET)

demo: ## set up, build, and show the main job from start to end
	@tools/setup.sh
	@tools/build.sh release lockstep lockstep_native
	@tools/demo.sh

serve: ## run the orchestrator in the foreground (ARGS="--help")
	@tools/build.sh release lockstep lockstep_native
	@build/lockstep serve $(ARGS)

test: ## set up, build, and run every test; the last line is the total
	@tools/test.sh

soak: ## formal model, simulator seeds, kills, disk faults, sanitizers (SEEDS=1..20000 KILLS=1000 ROUNDS=20)
	@tools/soak.sh $(SEEDS) $(KILLS) $(ROUNDS)

mutants: ## put one-line bugs in a copy, one after the other, and show what catches each (ARGS="--only NAME")
	@tools/mutants/run.py $(ARGS)

bench: ## measure the main path (ARGS="--json")
	@tools/build.sh release
	@build/lockstep bench path $(ARGS)

lint: ## check format, rooms and text, and run the static analyser
	@tools/lint.sh

format: ## format every C++ file
	@tools/format.sh

clean: ## remove what builds made; .venv stays
	@rm -rf build
