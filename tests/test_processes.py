"""Kernels in several threads, in forked processes and at exit.

Each test is a program, in a process of its own that may have up to four threads for kernels. Its
kernel adds to what is there, which tells if a task was done twice or never.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from minitensor.kernels.jit import COMPILED

pytestmark = pytest.mark.faults

KERNEL = """
import ctypes, multiprocessing, os, random, signal, sys, threading, time
import numba
import numpy as np
import minitensor as mt
from minitensor.kernels.jit import options_of
from minitensor.kernels.objectcode import compile_and_keep
from minitensor.kernels.parallel import ParallelKernel, address, array_at, unpacked

pool, parallel = (sys.modules["minitensor.kernels." + name] for name in ("pool", "parallel"))
def add(arguments, exemplar, task, tasks):
    s = unpacked(arguments)
    x, y = array_at(exemplar, s.x, (s.count,)), array_at(exemplar, s.y, (s.count,))
    for i in range(s.count * task // tasks, s.count * (task + 1) // tasks):
        for _ in range(s.times):
            y[i] += x[i]

kernel = ParallelKernel(add, "x y count times")
native = parallel.native

def native_of_all(function, pointers, integers, *options):
    if function is not add:
        return native(function, pointers, integers, *options)
    # This is no kernel file, of which code is kept.
    return compile_and_keep({}, function, pointers, integers, options_of(False))

parallel.native = native_of_all

def check(count, tasks, times=1):
    x, y = np.arange(count, dtype=np.float32), np.ones(count, np.float32)
    kernel(x.dtype, tasks, address(x), address(y), count, times)
    assert (y == 1 + times * np.arange(count)).all(), (count, tasks, y)

def helpers():
    return [t.name for t in threading.enumerate() if t.name.startswith("minitensor")]

def wait_for(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

check(7, 1)
"""

needs_compiled = pytest.mark.skipif(not COMPILED, reason="uncompiled kernels have no threads")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def run(folder: Path, program: str, *arguments: str, **environment: str) -> str:
    """The output of a program, which has to end well, in time and without a word on stderr."""
    file = folder / "program.py"
    file.write_text(KERNEL + program)
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    paths_and_threads = {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "NUMBA_NUM_THREADS": "4",
    }
    # Python warns of a fork of a process with threads, which is what is tested.
    quiet = ["-W", "ignore:This process:DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *quiet, str(file), *arguments],
        env=os.environ | paths_and_threads | environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = done.stderr.splitlines()
    said = [line for line in lines if not line.startswith("minitensor: compiling")]
    assert (done.returncode, said) == (0, []), done.stderr[-3000:]
    return done.stdout


# Rounds


@needs_compiled
@pytest.mark.parametrize("seconds", ["0", "1e-4"])
def test_every_task_of_many_rounds_is_done_once(tmp_path: Path, seconds: str) -> None:
    """It makes no difference if helpers sleep after each round or look for the next one."""
    program = """
pool.SPIN = float(sys.argv[1])
numbers = random.Random(0)
for number in range(10000):
    if number % 50 == 0:
        mt.set_num_threads(numbers.randint(1, 4))
    check(numbers.randint(1, 40), numbers.randint(1, 40), numbers.choice((1, 1, 1, 100)))
    if number % 500 == 0:
        time.sleep(0.001)  # all helpers fall asleep
assert helpers() == ["minitensor-1", "minitensor-2", "minitensor-3"]
"""
    run(tmp_path, program, seconds)


@needs_compiled
def test_threads_are_made_when_they_are_first_needed(tmp_path: Path) -> None:
    program = """
mt.set_num_threads(1)
check(40, 3)
assert mt.get_num_threads() == 1 and not helpers()
mt.set_num_threads(3)
assert not helpers()
check(40, 3)
assert helpers() == ["minitensor-1", "minitensor-2"]
mt.set_num_threads(1)
mt.set_num_threads(4)
check(40, 3)
assert helpers() == ["minitensor-1", "minitensor-2", "minitensor-3"]
"""
    run(tmp_path, program)


@needs_compiled
def test_one_thread_runs_all_tasks_itself(tmp_path: Path) -> None:
    program = """
seen = set()
@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
def note(settings, like, task, tasks):
    seen.add(threading.get_ident())
    time.sleep(0.01)

place = ctypes.cast(note, ctypes.c_void_p).value
for count in (4, 1, 2):
    mt.set_num_threads(count)
    seen.clear()
    pool.run_parallel(place, 0, 20)
    assert threading.get_ident() in seen and len(seen) == count, (count, seen)
"""
    run(tmp_path, program)


@needs_compiled
def test_kernels_run_on_the_threads_that_the_system_allows(tmp_path: Path) -> None:
    program = """
start, allowed = threading.Thread.start, 1
def refuse(self):
    global allowed
    if not allowed:
        raise RuntimeError("can't start new thread")
    allowed -= 1
    start(self)

threading.Thread.start = refuse
for number in range(1000):
    check(40, 4)
assert helpers() == ["minitensor-1"]
"""
    run(tmp_path, program)


@needs_compiled
def test_a_kernel_may_run_kernels(tmp_path: Path) -> None:
    program = """
done = []
@ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4, ctypes.c_int64, ctypes.c_int64)
def nested(result, error, settings, like, task, tasks):
    check(40, 3)
    done.append(task)
    return 0

for _ in range(200):
    done.clear()
    pool.run_parallel(ctypes.cast(nested, ctypes.c_void_p).value, 0, 9)
    assert sorted(done) == list(range(9))
"""
    run(tmp_path, program)


# Threads and processes


@needs_compiled
@needs_fork
@pytest.mark.parametrize("layer", ["default", "omp", "tbb", "workqueue"])
def test_threads_and_forks_on_every_threading_layer_of_numba(tmp_path: Path, layer: str) -> None:
    """None of which is ever started. 10,000 rounds in four threads, and 20 forks meanwhile."""
    program = """
problems = []
sys.setswitchinterval(1e-4)

def work(seed):
    try:
        numbers = random.Random(seed)
        for _ in range(2500):
            check(numbers.randint(1, 40), numbers.randint(2, 9), numbers.choice((1, 1, 100)))
        product = mt.ones(700, 300) @ mt.ones(300, 50)
        assert (product == 300).all() and product.softmax(1).sum().isclose(mt.tensor(700.0))
    except BaseException as error:
        problems.append(error)

check(7, 2)
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
for thread in threads:
    thread.start()
for _ in range(20):
    child = os.fork()
    if not child:
        signal.alarm(60)
        for _ in range(20):
            check(40, 4)
        os._exit(0 if len(helpers()) == 3 else 1)
    wait_for(child)
for thread in threads:
    thread.join()
assert not problems, problems
try:
    print(numba.threading_layer())
except ValueError:  # there is none
    pass
"""
    assert run(tmp_path, program, NUMBA_THREADING_LAYER=layer) == ""


@needs_compiled
@needs_fork
def test_a_child_forked_inside_a_kernel_makes_helpers_of_its_own(tmp_path: Path) -> None:
    program = """
going, rounds = True, 0

def keep_on():
    global rounds
    while going:
        check(64, 4, 20000)
        rounds += 1

check(7, 4)
thread = threading.Thread(target=keep_on)
thread.start()
for number in range(50):
    child = os.fork()
    if not child:
        signal.alarm(60)
        if number % 2:
            mt.set_num_threads(2)
        assert not helpers()
        for _ in range(10):
            check(33, 5, 10)
        os._exit(0 if len(helpers()) == (1 if number % 2 else 3) else 1)
    wait_for(child)
going, before = False, rounds
thread.join()
assert before > 0
assert len(helpers()) == 3
check(40, 4)
"""
    run(tmp_path, program)


@needs_compiled
@needs_fork
def test_a_lock_held_at_the_moment_of_a_fork_does_not_hold_up_the_child(tmp_path: Path) -> None:
    program = """
check(7, 4)
with pool._lock:
    child = os.fork()
    if not child:
        signal.alarm(60)
        check(40, 4)
        os._exit(0 if len(helpers()) == 3 else 1)
wait_for(child)
"""
    run(tmp_path, program)


@needs_compiled
@needs_fork
def test_a_pool_of_forked_processes_computes(tmp_path: Path) -> None:
    program = """
def job(number):
    check(40, 4, number)
    x = mt.full((600, 200), float(number))
    return (x @ x.mT == 200 * number**2).all().item() and len(helpers())

assert job(1) == 3
with multiprocessing.get_context("fork").Pool(3) as workers:
    assert workers.map(job, range(1, 31), chunksize=1) == [3] * 30
assert job(2) == 3
"""
    run(tmp_path, program)


# The end


@needs_compiled
@needs_fork
def test_processes_end_right_after_a_kernel(tmp_path: Path) -> None:
    """Their helpers look for work or sleep, and every third has a thread inside a kernel."""
    program = """
def keep_on():
    while True:
        check(64, 4, 20000)

check(7, 4)
for number in range(30):
    child = os.fork()
    if not child:
        signal.alarm(60)
        check(40, 4)
        if number % 3 == 0:
            threading.Thread(target=keep_on, daemon=True).start()
            time.sleep(0.01)
        elif number % 3 == 1:
            time.sleep(0.01)
        break  # the child ends as every program does
    wait_for(child)
"""
    run(tmp_path, program)


@needs_compiled
def test_kernels_still_run_at_exit(tmp_path: Path) -> None:
    """After the helpers have gone."""
    program = """
import atexit
atexit.register(lambda: (check(40, 4), print(len(helpers()))))
check(40, 4)
"""
    assert run(tmp_path, program) == "0\n"


# Other Pythons


def test_uncompiled_kernels_run_on_the_calling_thread(tmp_path: Path) -> None:
    program = """
check(40, 4)
assert mt.get_num_threads() == 4 and not helpers()
"""
    run(tmp_path, program, NUMBA_DISABLE_JIT="1")


@pytest.mark.parametrize("locked", [True, False])
def test_without_the_interpreters_lock_the_import_is_refused(locked: bool) -> None:
    program = f"import sys; sys._is_gil_enabled = lambda: {locked}; import minitensor"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    if locked:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "ImportError: minitensor relies on Python's global interpreter lock, which is off in "
            "this process: start Python with PYTHON_GIL=1 in its environment, or with -X gil=1"
        )
