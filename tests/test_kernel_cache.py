"""The kernel cache: private to its user, checked before it is believed, never fatal.

Each test compiles two small kernels of this file in this process, or runs a program in another one.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import random
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CHECKED

from minitensor.kernels.jit import COMPILED, options_of
from minitensor.kernels.objectcode import native

if not COMPILED:
    pytest.skip("nothing is compiled", allow_module_level=True)

from numba.core import event

import minitensor.kernels.cache as cache
import minitensor.kernels.objectcode as objectcode

pytestmark = pytest.mark.faults

POSIX = pytest.mark.skipif(os.name != "posix", reason="owners and modes are POSIX's")
ROOT = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can act for another user"
)
SOURCE = Path(__file__).parent.parent
OTHER = 65534  # a user's number that is not ours
SAFE = 0o700


def double(x, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        x[i] = x[i] * 2


def steal(x, n):  # type: ignore[no-untyped-def]
    """Stands for the code that an attacker puts in the place of `double`."""
    for i in range(n):
        x[i] = 666


def made_facts(function: Callable[..., Any], dtype: Any) -> Any:
    return objectcode.facts(function, [np.dtype(dtype), 1, ""], options_of(False))


def run(function: Callable[..., Any], dtype: Any) -> list[float]:
    """Return the result of a kernel on 1, 2, 3, compiled now or taken from the cache."""
    x = np.arange(1, 4, dtype=dtype)
    address = native(function, [np.dtype(dtype)], 1)
    place, places = ctypes.c_void_p, (ctypes.c_void_p * 2)()  # for a result and an error
    call = ctypes.CFUNCTYPE(ctypes.c_int, place, place, place, ctypes.c_int64)(address)
    call(ctypes.addressof(places), ctypes.addressof(places) + 8, x.ctypes.data, 3)
    return x.tolist()


def compiled(work: Callable[..., Any], *args: Any) -> tuple[Any, bool]:
    """Return the result of a call, and True if the compiler ran."""
    with event.install_recorder("numba:run_pass") as passes:  # type: ignore[no-untyped-call]
        result = work(*args)
    return result, bool(passes.buffer)


def use(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """Keep kernels in a folder from now on; None: in the default one."""
    if folder is None:
        monkeypatch.delenv("MINITENSOR_CACHE", raising=False)
    else:
        monkeypatch.setenv("MINITENSOR_CACHE", str(folder))
    cache.folder.cache_clear()
    cache._sweep.cache_clear()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that kernels are kept in."""
    use(monkeypatch, tmp_path / "kernels")
    yield tmp_path / "kernels"
    monkeypatch.undo()
    cache.folder.cache_clear()
    cache._sweep.cache_clear()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the cache by name: `double` for two types, and a plant for float32."""
    folder = tmp_path_factory.mktemp("kept")
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, folder)
        assert run(double, np.float32) == run(double, np.float64) == [2, 4, 6]
        found = {file.name: file.read_bytes() for file in folder.iterdir()}
        facts = made_facts(double, np.float32)
        assert run(steal, np.float32) == [666, 666, 666]
        header, code = cache.read(made_facts(steal, np.float32))  # type: ignore[misc]
        del header["facts"]
        cache.write(facts, header, code)
        found["plant"] = (folder / cache._name(facts)).read_bytes()
    cache.folder.cache_clear()
    assert len(found) == 3
    return found


def plant(folder: Path, files: dict[str, bytes]) -> Path:
    """Put the attacker's code in a folder, under the right name and with the right digest."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(SAFE)
    file = folder / cache._name(made_facts(double, np.float32))
    file.write_bytes(files["plant"])
    file.chmod(0o600)
    return file


def attacked(what: str) -> None:
    """`double` is right, and was compiled for it."""
    CHECKED["faults put into the kernel cache"] += 1
    assert compiled(run, double, np.float32) == ([2, 4, 6], True), what


# Kept files


def test_a_kept_kernel_is_not_compiled_again(place: Path) -> None:
    assert compiled(run, double, np.float32) == ([2, 4, 6], True)
    assert compiled(run, double, np.float32) == ([2, 4, 6], False)
    assert stat.S_IMODE(place.stat().st_mode) == SAFE or os.name != "posix"
    assert len(list(place.iterdir())) == 1


def test_one_file_for_each_signature_and_option(place: Path) -> None:
    for fastmath in (False, {"contract"}, {"contract", "nsz"}):
        for dtype in (np.float32, np.float64):
            native(double, [np.dtype(dtype)], 1, fastmath)
    assert len(list(place.iterdir())) == 6


PROGRAM = """
import sys
import numpy as np
from minitensor.kernels.parallel import ParallelKernel, address
from kept import kernels

def refuse(*args, **kwargs):
    raise AssertionError("pickle")

if "--without-pickle" in sys.argv:
    import pickle, _pickle
    for module in (pickle, _pickle):
        module.load = module.loads = module.Unpickler = refuse

x = np.arange(1, 4, dtype=np.float32)
ParallelKernel(kernels.grow, "x n")(x.dtype, 1, address(x), 3)
print(x.tolist(), "compiled" if "numba" in sys.modules else "kept")
"""
# Indented, for the cache reads the imports of this file.
KERNELS = """
    from minitensor.kernels.parallel import array_at, unpacked

    from .helper import times

    def grow(arguments, exemplar, task, tasks):
        s = unpacked(arguments)
        x = array_at(exemplar, s.x, (s.n,))
        for i in range(s.n):
            x[i] = times(x[i])
"""
HELPER = """
    from minitensor.kernels.jit import jit

    FACTOR = 2

    @jit
    def times(x):
        return x * FACTOR
"""


def surroundings(folder: Path | None, *paths: Path) -> dict[str, str]:
    """The environment of a process with its cache in a folder, and modules in some others."""
    given = [str(SOURCE), *map(str, paths), os.environ.get("PYTHONPATH", "")]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, given))}
    found["MINITENSOR_CACHE"] = str(folder or "")
    return found


def python(*args: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *args]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_a_changed_helper_is_compiled_again(tmp_path: Path) -> None:
    """A second process compiles nothing, needs no compiler, and unpickles nothing."""
    package = tmp_path / "kept"
    package.mkdir()
    for name, text in (("__init__", ""), ("kernels", KERNELS), ("helper", HELPER)):
        (package / f"{name}.py").write_text(textwrap.dedent(text))

    def program_output(*args: str) -> str:
        environment = surroundings(tmp_path / "cache", tmp_path)
        return python("-Bc", PROGRAM, *args, environment=environment).stdout.strip()

    assert program_output() == "[2.0, 4.0, 6.0] compiled"
    assert program_output("--without-pickle") == "[2.0, 4.0, 6.0] kept"
    (package / "helper.py").write_text(textwrap.dedent(HELPER.replace("2", "3")))
    assert program_output() == "[3.0, 6.0, 9.0] compiled"
    assert program_output("--without-pickle") == "[3.0, 6.0, 9.0] kept"
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_sources_that_changed_since_they_were_imported_are_not_trusted(
    place: Path, tmp_path: Path
) -> None:
    """The code from before the change runs."""
    file = tmp_path / "kernel.py"
    file.write_text("def halve(x, n):\n    for i in range(n):\n        x[i] = x[i] / 2\n")
    names: dict[str, Any] = {}
    exec(compile(file.read_text(), str(file), "exec"), names)
    assert run(names["halve"], np.float32) == [0.5, 1, 1.5]
    assert not place.exists() or not list(place.iterdir())


def test_what_the_code_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fact changes the name of the file."""
    facts = made_facts(double, np.float32)
    names = {cache._name(facts)}
    for fact in facts:
        names.add(cache._name({**facts, fact: facts[fact] + "x"}))
    assert len(names) == 1 + len(facts)
    monkeypatch.setenv("MINITENSOR_SIMD", "portable")
    names.add(cache._name(made_facts(double, np.float32)))
    names.add(cache._name(made_facts(double, np.float64)))
    names.add(cache._name(made_facts(steal, np.float32)))
    assert len(names) == 4 + len(facts)


def test_what_nobody_uses_goes(place: Path) -> None:
    """Also drafts of dead processes; files that are not ours stay."""
    run(double, np.float32)
    (used,) = place.iterdir()
    old = ["a-1.kernel", "b.draft", "c-2.kernel", "d.draft", "notes.txt"]
    for name, days in zip(old, (31, 2, 29, 0.5, 900), strict=True):
        (place / name).touch()
        os.utime(place / name, (time.time() - days * cache.DAY,) * 2)
    os.utime(used, (time.time() - 40 * cache.DAY,) * 2)
    assert compiled(run, double, np.float32)[1] is False  # and is used from now on
    cache._sweep.cache_clear()
    run(double, np.float64)
    kept = {file.name for file in place.iterdir()} - {used.name}
    assert used.exists()
    assert kept >= set(old[2:])
    assert not kept & set(old[:2])


# Untrusted files


def test_the_plant_would_run_if_it_were_believed(place: Path, files: dict[str, bytes]) -> None:
    """The user's own folder, and the user's own file: one who can write these needs no cache."""
    plant(place, files)
    assert compiled(run, double, np.float32) == ([666, 666, 666], False)


@POSIX
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777, 0o722])
def test_a_folder_that_others_can_write(place: Path, files: dict[str, bytes], mode: int) -> None:
    plant(place, files)
    place.chmod(mode)
    attacked(oct(mode))
    assert "chmod go-w" in cache.folder()[1]
    assert [f.read_bytes() for f in place.iterdir()] == [files["plant"]]


@POSIX
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_folder_on_the_way_that_others_can_write(
    place: Path, files: dict[str, bytes], mode: int
) -> None:
    """They could put a folder of theirs in the place of it. In a temporary folder they cannot."""
    plant(place, files)
    place.parent.chmod(mode)
    attacked(oct(mode))
    assert "exchanged" in cache.folder()[1]
    place.parent.chmod(0o1777)
    cache.folder.cache_clear()
    assert cache.folder()[0] == place


@POSIX
def test_a_folder_of_another_user(
    place: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(place, files)
    monkeypatch.setattr(cache, "_user", lambda: OTHER)
    attacked("we are another")
    assert "another user" in cache.folder()[1]


@ROOT
def test_a_folder_and_a_file_that_another_user_owns(place: Path, files: dict[str, bytes]) -> None:
    file = plant(place, files)
    for owned in (place, place.parent):
        os.chown(owned, OTHER, OTHER)
        cache.folder.cache_clear()
        attacked(str(owned))
        os.chown(owned, 0, 0)
    cache.folder.cache_clear()
    os.chown(file, OTHER, OTHER)
    attacked("file")
    assert file.stat().st_uid == 0  # mended
    assert compiled(run, double, np.float32) == ([2, 4, 6], False)


@POSIX
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_no_folder(
    place: Path, files: dict[str, bytes], tmp_path: Path, dangling: bool
) -> None:
    target = tmp_path / "elsewhere"
    if not dangling:
        plant(target, files)
    place.symlink_to(target)
    attacked("link")
    assert "is not a folder" in cache.folder()[1]
    assert target.exists() is not dangling


@POSIX
def test_files_that_are_not_the_users_own(place: Path, files: dict[str, bytes]) -> None:
    """A link, a pipe, a folder, a file that others can write: compiled, and mended if possible."""
    file = plant(place, files)
    for mode in (0o620, 0o602, 0o666):
        file.write_bytes(files["plant"])
        file.chmod(mode)
        attacked(oct(mode))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    elsewhere = place.parent / "elsewhere"
    elsewhere.write_bytes(files["plant"])
    file.unlink()
    file.symlink_to(elsewhere)
    attacked("link")
    assert not file.is_symlink()
    assert elsewhere.read_bytes() == files["plant"]
    file.unlink()
    os.mkfifo(file)
    attacked("pipe")
    assert file.is_file()
    file.unlink()
    file.mkdir()
    attacked("folder")
    assert file.is_dir()
    assert list(place.iterdir()) == [file]


@POSIX
@pytest.mark.parametrize("how", ["open", "link", "other"])
def test_the_folder_in_the_temporary_one_is_not_believed_either(
    tmp_path: Path,
    files: dict[str, bytes],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """It is what is left without a home; somebody else may have made it before."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"minitensor-{os.geteuid()}"
    target = tmp_path / "elsewhere" if how == "link" else folder
    plant(target, files)
    if how == "open":
        target.chmod(0o777)
    elif how == "link":
        folder.symlink_to(target)
    else:
        monkeypatch.setattr(cache, "_private", strange(cache._private, monkeypatch))
    use(monkeypatch, None)
    attacked(how)
    assert cache.folder()[0] is None
    assert [f.read_bytes() for f in target.iterdir()] == [files["plant"]]


def strange(private: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same, as seen by another user."""

    def seen(path: Path) -> Path:
        with monkeypatch.context() as patch:
            patch.setattr(cache, "_user", lambda: OTHER)
            found: Path = private(path)
        return found

    return seen


@POSIX
def test_a_private_folder_in_the_temporary_one_is_used(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/none")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    use(monkeypatch, None)
    assert compiled(run, double, np.float32) == ([2, 4, 6], True)
    assert compiled(run, double, np.float32) == ([2, 4, 6], False)
    folder = tmp_path / f"minitensor-{os.geteuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == SAFE
    assert len(list(folder.iterdir())) == 1


@ROOT
def test_as_another_user(files: dict[str, bytes], place: Path) -> None:
    """A process that really runs as another user, with plants that root made."""
    run(double, np.float64)  # loads the compiler, whose files another user may not be able to read
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        plant(top / "shared", files).chmod(0o644)
        (top / "shared").chmod(0o777)
        plant(top / "theirs", files).chmod(0o644)
        (top / "theirs").chmod(0o755)
        (top / "own").mkdir(mode=SAFE)
        os.chown(top / "own", OTHER, OTHER)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # the other threads are not needed
            child = os.fork()
        if not child:
            os._exit(not succeeds(as_another, top))
        assert os.waitpid(child, 0)[1] == 0
    CHECKED["faults put into the kernel cache"] += 3


def succeeds(work: Callable[..., Any], *args: Any) -> bool:
    try:
        work(*args)
    except BaseException:
        traceback.print_exc()
        return False
    return True


def as_another(top: Path) -> None:
    os.setgid(OTHER)
    os.setuid(OTHER)
    for folder in ("shared", "theirs", "own/kernels"):
        os.environ["MINITENSOR_CACHE"] = str(top / folder)
        cache.folder.cache_clear()
        attacked(folder)
    assert compiled(run, double, np.float32) == ([2, 4, 6], False)  # kept in its own folder


# Damaged files


def test_exchanged_files(place: Path, files: dict[str, bytes]) -> None:
    """Of two types, and of two functions."""
    for dtype in (np.float32, np.float64):
        for function in (double, steal):
            run(function, dtype)
    contents = {file: file.read_bytes() for file in place.iterdir()}
    assert len(contents) == 4
    for turn in range(1, 4):
        for file, other in zip(contents, [*contents][turn:] + [*contents][:turn], strict=True):
            file.write_bytes(contents[other])
        for dtype in (np.float32, np.float64):
            for function, right in ((double, [2, 4, 6]), (steal, [666] * 3)):
                assert compiled(run, function, dtype) == (right, True)
                CHECKED["faults put into the kernel cache"] += 1
        assert {file: file.read_bytes()[:100] for file in contents} != contents
        assert all(compiled(run, double, d) == ([2, 4, 6], False) for d in (np.float32, np.float64))


def damages(data: bytes, rand: random.Random) -> Iterator[bytes]:
    """Empty, cut, zeroed, longer, and flipped in each part and at random places."""
    header = data.index(b"\n", cache._BODY)
    yield b""
    for end in (1, len(cache.FORMAT), cache._BODY, header, header + 1, len(data) - 1):
        yield data[:end]
        yield data[:end] + bytes(len(data) - end)
        yield bytes(end) + data[end:]
        yield data[:end] + b"x" + data[end:]
    yield data + b"\0"
    yield data + data
    for start, stop in ((0, cache._BODY), (cache._BODY, header), (header, len(data))):
        for _ in range(40):
            at = rand.randrange(start, stop)
            yield data[:at] + bytes([data[at] ^ 1 << rand.randrange(8)]) + data[at + 1 :]
    for _ in range(60):
        a, b = sorted(rand.randrange(len(data)) for _ in range(2))
        yield rand.choice([data[:a], data[:a] + data[b:], data[:a] + rand.randbytes(9) + data[a:]])


def test_damaged_files_are_as_good_as_missing(place: Path, files: dict[str, bytes]) -> None:
    """Each of some 400 is refused; some are compiled again, and mended on disk."""
    rand = random.Random(0)
    place.mkdir(mode=SAFE)
    for dtype in (np.float32, np.float64):
        facts = made_facts(double, dtype)
        file = place / cache._name(facts)
        whole = files[file.name]
        file.write_bytes(whole)
        assert cache.read(facts) is not None
        for number, data in enumerate(damages(whole, rand)):
            if data == whole:
                continue
            file.write_bytes(data)
            assert cache.read(facts) is None
            assert not objectcode.load(facts)
            CHECKED["faults put into the kernel cache"] += 1
            if number % 25 == 0:
                assert compiled(run, double, dtype) == ([2, 4, 6], True)
                assert cache.read(facts) is not None
                assert compiled(run, double, dtype) == ([2, 4, 6], False)


def test_a_right_digest_over_other_facts(place: Path, files: dict[str, bytes]) -> None:
    """A file for other versions, under this name: it was renamed, or two digests are equal."""
    facts = made_facts(double, np.float32)
    place.mkdir(mode=SAFE)
    rest = files["plant"][cache._BODY :]
    for fact in facts:
        line, _, code = rest.partition(b"\n")
        header = json.loads(line)
        header["facts"][fact] += " or newer"
        data = json.dumps(header).encode() + b"\n" + code
        digest = hashlib.sha256(data).digest()
        (place / cache._name(facts)).write_bytes(cache.FORMAT + digest + data)
        attacked(fact)


def test_a_name_that_nothing_has_is_not_linked(place: Path) -> None:
    """LLVM would end the process: a library that was there when the kernel was compiled is gone."""
    assert run(double, np.float32) == [2, 4, 6]
    facts = made_facts(double, np.float32)
    header, code = cache.read(facts)  # type: ignore[misc]
    header["needs"].append("__svml_expf16_that_is_gone")
    del header["facts"]
    cache.write(facts, header, code)
    attacked("a symbol")


RACE = """
import os, sys, time
from pathlib import Path
import numpy as np
import {module} as t

who, rounds, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
t.run(t.steal, "f4"), t.run(t.steal, "f8")  # the compiler is warm
for number in range(rounds):
    os.environ["MINITENSOR_CACHE"] = str(folder / f"{number}")
    t.cache.folder.cache_clear()
    (folder / f"{number}-{who}").touch()
    while not (folder / f"{number}-{1 - who}").exists():
        time.sleep(.0005)
    for dtype in ("f4", "f8") if (who + number) % 3 else ("f8", "f4"):
        for function, right in ((t.double, [2, 4, 6]), (t.steal, [666] * 3)):
            assert t.run(function, dtype) == right
"""


def test_two_processes_that_compile_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    """Two functions for float32 and float64, in 8 rounds: all are right afterwards."""
    rounds = 8
    environment = surroundings(tmp_path / "warm", SOURCE / "tests")
    both = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                RACE.replace("{module}", __name__),
                str(who),
                str(rounds),
                str(tmp_path),
            ],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for who in range(2)
    ]
    for one in both:
        _, output = one.communicate()
        if one.returncode:
            [other.kill() for other in both]  # type: ignore[func-returns-value]
        assert one.returncode == 0, output
    for number in range(rounds):
        use(monkeypatch, tmp_path / f"{number}")
        assert len(list((tmp_path / f"{number}").iterdir())) == 4
        for dtype in (np.float32, np.float64):
            for function, right in ((double, [2, 4, 6]), (steal, [666] * 3)):
                assert compiled(run, function, dtype) == (right, False)
    CHECKED["races of two compilers"] += rounds


# Where nothing can be kept

OP = "import minitensor as mt; print(mt.erf(mt.zeros(3)).tolist())"


def unkept(done: Any, why: str) -> None:
    """The op ran, and one line says that nothing is kept, and why."""
    CHECKED["faults put into the kernel cache"] += 1
    assert done.stdout == "[0.0, 0.0, 0.0]\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("minitensor: compiling kernels, which are not kept: ")
    assert why in lines[0]


@pytest.mark.skipif(sys.platform != "linux", reason="mounts, and limits on a file's size")
@pytest.mark.parametrize("how", ["full", "limit", "read-only"])
def test_a_disk_that_takes_nothing(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "disk"
    folder.mkdir(mode=SAFE)
    code = OP
    if how == "limit":
        code = f"import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (4096, 4096)); {OP}"
    else:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "none", str(folder)]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("only root can mount a small disk, and not everywhere")
    try:
        if how == "full":
            with contextlib.suppress(OSError), open(folder / "much", "wb", 0) as file:
                while True:
                    file.write(bytes(4096))
        elif how == "read-only":
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        left = os.listdir(folder)
        done = python("-c", code, environment=surroundings(folder))
        assert os.listdir(folder) == left
    finally:
        if how != "limit":
            subprocess.run(["umount", str(folder)], check=True)
    reasons = {
        "full": "No space left on device",
        "limit": "File too large",
        "read-only": "Read-only file system",
    }
    unkept(done, reasons[how])


@POSIX
def test_no_home_and_no_temporary_folder() -> None:
    """Nor a user of that number, as in some containers."""
    code = f"""
import os, pwd, tempfile
os.environ.pop("HOME"), os.environ.pop("XDG_CACHE_HOME", None)
pwd.getpwuid = {{}}.__getitem__
tempfile.tempdir = "/dev/null"
{OP}"""
    unkept(python("-c", code, environment=surroundings(None)), "Not a directory")


@POSIX
def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    """The temporary folder is used, and named."""
    environment = surroundings(None)
    environment |= {"HOME": "/dev/null/none", "XDG_CACHE_HOME": "", "TMPDIR": str(tmp_path)}
    done = python("-c", OP, environment=environment)
    folder = tmp_path / f"minitensor-{os.geteuid()}"
    assert done.stderr == f"minitensor: compiling kernels, once; kept in {folder}\n"
    assert list(folder.iterdir())
    again = python("-c", OP, environment=environment)
    assert (again.stdout, again.stderr) == (done.stdout, "")


@pytest.mark.parametrize("error", [28, 122, 30, 13, 5], ids=os.strerror)
def test_a_disk_that_fails_later(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: int,
) -> None:
    """The first kernel is kept; then one line takes back what was said."""

    def fail(*args: Any) -> None:
        raise OSError(error, os.strerror(error))

    cache.announce()
    assert capsys.readouterr().err == f"minitensor: compiling kernels, once; kept in {place}\n"
    run(double, np.float32)
    monkeypatch.setattr(os, "replace", fail)
    for _ in range(2):
        assert compiled(run, double, np.float64) == ([2, 4, 6], True)
    assert capsys.readouterr().err == (
        f"minitensor: kernels are no longer kept: {os.strerror(error)}\n"
    )
    assert len(list(place.iterdir())) == 1
    CHECKED["faults put into the kernel cache"] += 1


@pytest.mark.parametrize("stderr", [None, "closed"])
def test_nobody_listens(place: Path, monkeypatch: pytest.MonkeyPatch, stderr: Any) -> None:
    if stderr:
        stderr = open(os.devnull, "w")  # noqa: SIM115
        stderr.close()
    monkeypatch.setattr(sys, "stderr", stderr)
    cache.announce()
