"""Writing: whole or not at all, through links, with the same permissions, over no device."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from minitensor import files
from minitensor.files import DEPTH, atomic_write, parse_json, shown

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links, pipes and modes are POSIX's")
ROOT = Path(__file__).parents[1]


def write(path: str | Path, content: bytes = b"new") -> None:
    with atomic_write(path) as file:
        file.write(content)


@pytest.mark.posix
def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target = tmp_path / "far" / "file"
    target.write_text("old")
    (tmp_path / "one").symlink_to("far/file")
    (tmp_path / "two").symlink_to("one")
    write(tmp_path / "two")
    assert (tmp_path / "two").is_symlink()
    assert (tmp_path / "one").is_symlink()
    assert target.read_bytes() == b"new"
    assert os.listdir(tmp_path / "far") == ["file"]
    (tmp_path / "dangling").symlink_to("far/made")
    write(tmp_path / "dangling")
    assert (tmp_path / "far" / "made").read_bytes() == b"new"
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "loop")
    assert (tmp_path / "loop").is_symlink()


@pytest.mark.posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755, 0o400])
def test_permissions_stay(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(mode)
    with atomic_write(path) as file:
        file.write(b"new")
        (draft,) = (p for p in tmp_path.iterdir() if p != path)
        assert stat.S_IMODE(draft.stat().st_mode) & ~mode & 0o077 == 0  # nor in the meantime
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.posix
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root gives files away")
def test_root_keeps_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    os.chown(path, 12345, 54321)
    write(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_devices_and_pipes_get_what_is_written_and_stay(tmp_path: Path) -> None:
    write(os.devnull)
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write(pipe)
    reader.join()
    assert got == [b"new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]
    if os.path.exists("/dev/full"):
        with pytest.raises(OSError, match="No space left"):
            write("/dev/full")
    with pytest.raises(IsADirectoryError):
        write(tmp_path)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_standard_output_gets_it_after_what_was_printed(name: str, tmp_path: Path) -> None:
    if not os.path.exists(name):
        pytest.skip(f"there is no {name} here")
    code = (
        "from minitensor.files import atomic_write\n"
        "print('before')\n"
        f"with atomic_write({name!r}, 'w') as file: file.write('new\\n')\n"
        "print('after')\n"
    )
    command = [sys.executable, "-c", code]
    piped = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert piped.stdout == b"before\nnew\nafter\n"
    log = tmp_path / "log"
    log.write_text("kept\n")
    with log.open("ab") as file:
        subprocess.run(command, cwd=ROOT, stdout=file, check=True)
    assert log.read_bytes() == b"kept\nbefore\nnew\nafter\n"
    assert os.listdir(tmp_path) == ["log"]


@pytest.mark.parametrize("length", [241, 242, 254, 255])
def test_a_file_name_may_be_as_long_as_the_system_allows(length: int, tmp_path: Path) -> None:
    path = tmp_path / ("é" * 20 + "x" * (length - 40))
    write(path)
    assert path.read_bytes() == b"new"
    write(path, b"newer")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"newer"]


WRITER = """
import sys
from minitensor.files import atomic_write
with atomic_write(sys.argv[1]) as file:
    file.write(b"half")
    file.flush()
    print("begun", flush=True)
    sys.stdin.read()
    file.write(b" and whole")
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    """A process in the middle of a write."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.posix
def test_the_draft_of_a_killed_process_is_swept_by_the_next_write(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path, b"old")
    for _ in range(2):
        process = start_writer(path)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2  # the second swept the first's
    write(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


def test_the_draft_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    process = start_writer(path)
    write(path, b"ours")
    write(tmp_path / "other")
    assert len(os.listdir(tmp_path)) == 3
    process.communicate("")
    assert process.returncode == 0
    assert path.read_bytes() == b"half and whole"
    assert sorted(os.listdir(tmp_path)) == ["file", "other"]


@pytest.mark.posix
def test_drafts_of_other_machines_are_swept_after_a_day_and_nothing_else_ever(
    tmp_path: Path,
) -> None:
    foreign = tmp_path / ".minitensor-00000000-00000000.tmp"
    kept = [".x.01234567.tmp", ".minitensor-x.tmp", f".minitensor-{files._host()}-0123456.tmp"]
    for path in (foreign, *map(tmp_path.joinpath, kept)):
        path.touch()
        os.utime(path, (0, 0))
    os.utime(foreign, (time.time() - 3600,) * 2)
    link = tmp_path / f".minitensor-{files._host()}-00000000.tmp"
    link.symlink_to("x")
    write(tmp_path / "file")
    assert foreign.exists()
    os.utime(foreign, (0, 0))
    write(tmp_path / "file")
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "file", link.name])


@pytest.mark.posix
def test_a_draft_that_was_swept_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, calls = files._lock, []

    def late(number: int, wait: bool) -> bool:
        calls.append(number)
        if len(calls) == 1:
            files._sweep(tmp_path)
        return lock(number, wait)

    monkeypatch.setattr(files, "_lock", late)
    write(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]
    assert len(calls) == 3  # ours, the sweeper's, ours again


# JSON


def test_json_has_limits() -> None:
    deep = "[" * DEPTH + "]" * DEPTH
    assert parse_json(deep) == parse_json(deep.encode())
    assert parse_json('{"a": [1, NaN, 1e400]}')["a"][2] == float("inf")
    for text, words in (
        (f"[{deep}]", f"nested deeper than {DEPTH} levels"),
        ("[" * 10**6, f"nested deeper than {DEPTH} levels"),
        ('{"a":' * 10**5, f"nested deeper than {DEPTH} levels"),
        ('{"a": 1, "a": 2}', "the key 'a' occurs twice"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        (b'"\xed\xa0\x80"', "byte 1 is not UTF-8"),
        ("1" * 5000, "digits"),
        ('{"' + "a" * 9999 + '": 1} x', "Extra data"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            parse_json(text)
        assert len(str(error.value)) < 200


def test_what_is_shown_is_short_and_one_line() -> None:
    for value in (
        "x" * 999,
        ["a\nb\u2028"] * 99,
        {"k" * 99: [[[[1]]]]},
        10**99,
        "\ud800",
        b"\0" * 99,
    ):
        text = shown(value)
        assert len(text) <= 60
        assert len(text.splitlines()) == 1
        text.encode()
    assert shown("16") == "'16'"
