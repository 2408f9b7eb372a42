# make demo: set up and watch Breakout being learned. make test: the fast tests. See CONTRIBUTING.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo-$(shell date +%Y%m%d-%H%M%S)
DEMO_SETTINGS := --num-envs 512 --rollout-length 32 --num-epochs 1 --num-minibatches 16 --learning-rate 3e-3 \
	--gamma 0.995 --entropy-coef 0.005 \
	--hidden-sizes 128 --activation relu --shared-trunk

.PHONY: demo test test-slow check bench clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .[film,plot,mujoco,box2d,atari,pettingzoo,sweep,postgres] --group dev
	touch $@

# Four runs learn Breakout side by side; then they play on seeds never trained on, and the first of them is filmed.
demo: $(VENV)/installed
	$(BIN)/ridgeline train breakout --out $(DEMO) --runs 4 --steps 14_000_000 --minutes 1.95 $(DEMO_SETTINGS)
	$(BIN)/ridgeline evaluate $(DEMO) --episodes 25
	$(BIN)/ridgeline watch $(DEMO) --greedy --gif $(DEMO)/breakout.gif
	@echo "The film: $(DEMO)/breakout.gif   The run: $(DEMO)"

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

check: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(VENV)/installed
	$(BIN)/python benchmarks/run.py

clean:
	rm -rf $(VENV) runs
