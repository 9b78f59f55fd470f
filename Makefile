# Each target is a line that a person could type. `make demo` runs the demo, `make test` runs the tests.
# With `make PYTHON=/path/to/python3.12 …` the environments are made with that one, else with the newest of 3.11 to 3.13.
SNAKEMAKE = . .venv/bin/activate && snakemake --cores all
ROLES = train evaluate

# What a cluster's modules set for another Python.
unexport PYTHONPATH PYTHONHOME PYTHONWARNINGS

.PHONY: demo check plan serve chat app study test test-rest test-all test-unit test-model test-serving test-pipeline test-pages test-cluster mutants kills lint bench environments status docs/steps.svg

# The environments in a call of their own: one that was deleted is built again without rerunning what was made with it.
demo: environments
	$(SNAKEMAKE) --configfile config/demo.yaml
	@.venv/bin/python scripts evaluate.print_table results/demo/eval/digits.csv

# What the lost q/k norms cost, on small models: results/study/study.md and study.svg. Two hours on two cores, of which
# Snakemake's own scheduler, with so many jobs, would take a tenth.
study: environments
	$(SNAKEMAKE) --snakefile study/Snakefile --scheduler greedy

# In two tiers: `test` is what every change must pass; `test-rest` is what it leaves out (marked `full`). Two groups at a time,
# the longest first: three took longer. Their dots are mixed. In the second tier the lines of the pages are a group of their own;
# in the first nothing is left of them.
test: .venv/ok environments lint
	$(MAKE) --jobs=2 --keep-going TIER='-m "not full"' test-pipeline test-cluster test-unit test-model
	@test "$$(id -u)" = 0 || echo "$(WITHOUT_ROOT)"

test-rest: .venv/ok environments
	$(MAKE) --jobs=2 --keep-going TIER='-m full' IGNORED='$(PAGES:%=--ignore=%)' \
	    test-pipeline test-cluster test-pages test-serving test-model test-unit
	@test "$$(id -u)" = 0 || echo "$(WITHOUT_ROOT)"

test-all: test test-rest

WITHOUT_ROOT = left out, because you are not root: tests/cluster, which installs and starts a Slurm, and disks that fill up

# A group by itself is run whole.
test-unit:
	.venv/bin/pytest tests/unit tests/faults $(TIER)

test-model:
	.venvs/train/bin/python -m pytest tests/model $(TIER)

test-serving:
	.venvs/train/bin/python -m pytest tests/serving $(TIER)

test-pipeline:
	.venv/bin/pytest tests/pipeline $(IGNORED) $(TIER)

# What the pages have people type, line by line; part of test-pipeline but in the second tier.
PAGES = tests/pipeline/test_by_hand.py tests/pipeline/test_your_own.py tests/pipeline/test_study.py tests/pipeline/test_app.py
test-pages:
	.venv/bin/pytest $(PAGES) $(TIER)

test-cluster:
	.venv/bin/pytest tests/cluster $(TIER)

# Whether the tests notice: deliberate faults, one at a time, in copies of the tree.
mutants: .venv/ok environments
	.venv/bin/python tests/mutants/run_mutants.py

# Whether a run that is killed at any moment comes to the undisturbed results: 60 kills of a short demo.
kills: .venv/ok environments
	.venv/bin/python tests/kills/run_kills.py

lint: .venv/ok
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/snakefmt --check Snakefile rules study/Snakefile
	.venv/bin/mypy
	. .venv/bin/activate && snakemake --lint
	. .venv/bin/activate && snakemake --lint --configfile config/demo.yaml
	. .venv/bin/activate && snakemake --lint --snakefile study/Snakefile

# For people: an OpenAI-compatible endpoint, or questions from the terminal or a browser; with the settings that the run's scores come from.
# They lie in the results: a graft is a directory there, a stage's checkpoint is one deeper.
CHECKPOINT = results/stage2/checkpoint
UP = $(if $(filter graft,$(notdir $(CHECKPOINT:/=))),..,../..)
CONFIG = $(firstword $(wildcard $(CHECKPOINT)/$(UP)/config.json) config.yaml)

serve: .venv/ok
	@.venv/bin/python scripts serve.serve --config $(CONFIG) --checkpoint-dir $(CHECKPOINT)

chat: .venv/ok
	@.venv/bin/python scripts serve.chat --config $(CONFIG) --checkpoint-dir $(CHECKPOINT)

# The same in a browser of this machine.
app: .venv/ok
	$(SNAKEMAKE) .venvs/app.ok --configfile config/demo.yaml
	@.venv/bin/python scripts serve.app --config $(CONFIG) --checkpoint-dir $(CHECKPOINT)

# How far each training is, from its files alone, and why jobs of Slurm wait.
status: .venv/ok
	@.venv/bin/python scripts train.show_status
	@.venv/bin/python scripts workflow.show_jobs

environments: .venv/ok
	$(SNAKEMAKE) $(ROLES:%=.venvs/%.ok) --configfile config/demo.yaml

# Whether a run can begin: donors, rows, questions, environments. All faults at once, no GPU. CONFIG=mine.yaml for yours.
check: .venv/ok
	$(SNAKEMAKE) --keep-going check --configfile $(if $(filter command line,$(origin CONFIG)),$(CONFIG),config.yaml)

# What a run will take: steps, hours, memory of a GPU, disk. CONFIG=mine.yaml for yours.
plan: .venv/ok
	@$(SNAKEMAKE) --quiet host progress reason rules --configfile $(if $(filter command line,$(origin CONFIG)),$(CONFIG),config.yaml) -- plan

bench: demo
	.venv/bin/python benchmarks/graft.py
	.venv/bin/python benchmarks/affine.py
	.venv/bin/python benchmarks/seeds.py
	.venv/bin/python benchmarks/rows.py
	.venv/bin/python benchmarks/plan.py
	.venvs/train/bin/python benchmarks/frozen_tower.py
	$(SNAKEMAKE) .venvs/serve_cpu.ok --configfile config/demo.yaml
	.venv/bin/python benchmarks/throughput.py

# The picture of the steps in the README; needs graphviz.
docs/steps.svg: .venv/ok
	. .venv/bin/activate && snakemake --rulegraph dot --configfile config.yaml | tred | dot -Grankdir=LR -Gbgcolor=white -Tsvg > $@

# The workflow's own environment: pip alone, from the hashed lock; the other environments are made by a rule, with uv. What decides
# is whether `.venv/ok` has the lock's sha256, whatever the dates.
.venv/ok: always
	@PYTHON='$(PYTHON)' sh scripts/environments/workflow.sh

.PHONY: always
