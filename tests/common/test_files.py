"""Files that are written whole, and the lock: who has it, and that a crashed process frees it."""

import errno
import os
import platform
import signal
import subprocess
import sys
import threading
import time

import filelock
import pytest
from PIL import Image

from helpers.common import places
from helpers.common.errors import UserError
from helpers.common.files import atomic_file, holder, locked, write_json, write_whole

HOLD = """
import pathlib, sys, time
import {before}
from helpers.common.files import locked
with locked(pathlib.Path(sys.argv[1]), "taken by {{}}"):
    print("held", flush=True)
    time.sleep(60)
"""
# A disk without flock, as a folder of Drive may be.
WITHOUT_FLOCK = """fcntl, errno
def refuse(*given): raise OSError(errno.{error}, "no locks here")
fcntl.flock = refuse
"""


def started(path, before="os"):
    code = HOLD.replace("{before}", before).replace("{{}}", "{}")
    command = [sys.executable, "-c", code, str(path)]
    process = subprocess.Popen(command, cwd=places.repository_folder(), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture(params=["flock", "ENOSYS", "ENOTSUP"])
def disk(request, monkeypatch):
    """A disk with locks, and two without; the code that makes a process find it so."""
    if request.param == "flock":
        return "os"
    import fcntl

    def refuse(*given):
        raise OSError(getattr(errno, request.param), "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    return WITHOUT_FLOCK.replace("{error}", request.param)


def test_a_lock_says_who_has_it_and_since_when(tmp_path, disk):
    path = tmp_path / "lock"
    assert holder(path) is None
    before = time.time()
    process = started(path, disk)
    try:
        found = holder(path)
        assert (found.pid, found.host) == (process.pid, platform.node())
        assert before <= found.start <= time.time() and f"process {process.pid}, since 20" in str(found)
        assert platform.node() not in str(found)
        with pytest.raises(UserError, match=f"taken by process {process.pid}"), locked(path, "taken by {}"):
            pass
    finally:
        process.terminate()
        process.wait()


def test_a_crashed_process_frees_its_lock(tmp_path, disk):
    path = tmp_path / "lock"
    process = started(path, disk)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert holder(path) is None
    with locked(path, "taken by {}"):
        assert holder(path).pid == os.getpid()
    assert holder(path) is None


@pytest.mark.parametrize("said", ['{"pid": 7, "user": "me"}', "[1]", "null", '{"pid"', "7"])
def test_a_lock_of_another_program_is_a_lock_whatever_it_says_of_its_holder(tmp_path, said):
    path = tmp_path / "lock"
    with filelock.FileLock(path):
        (tmp_path / "lock.json").write_text(said)
        assert f"process {7 if 'user' in said else 0}, since 20" in str(holder(path))


def test_who_asks_does_not_keep_another_from_taking_it(tmp_path):
    path = tmp_path / "lock"
    asking = filelock.FileLock(path)
    asking.acquire()
    taken = []

    def take():
        with locked(path, "taken by {}"):
            taken.append(holder(path).pid)

    thread = threading.Thread(target=take)
    thread.start()
    time.sleep(0.1)
    asking.release()
    thread.join()
    assert taken == [os.getpid()]


def test_who_asks_is_not_taken_for_a_holder(tmp_path):
    path = tmp_path / "lock"
    asking = filelock.FileLock(path, thread_local=False)
    asking.acquire()
    threading.Timer(0.1, asking.release).start()
    assert holder(path) is None


def test_where_nothing_can_be_written_the_holder_is_known_by_its_file(tmp_path, monkeypatch):
    def refuse(*given, **how):
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    path = tmp_path / "lock"
    with locked(path, "{}"):
        monkeypatch.setattr(os, "open", refuse)
        assert holder(path).pid == os.getpid()
        monkeypatch.undo()
    monkeypatch.setattr(os, "open", refuse)
    assert holder(path) is None


def test_an_error_frees_the_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "lock", "taken by {}"):
        raise ZeroDivisionError
    assert holder(tmp_path / "lock") is None


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file.txt"
    assert write_whole(path, "Zoë\n") == path and path.read_bytes() == b"Zo\xc3\xab\n"
    assert write_json(path, {"a": 1}) == path and path.read_bytes() == b'{\n  "a": 1\n}\n'
    with pytest.raises(ZeroDivisionError), atomic_file(path) as partial:
        partial.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b'{\n  "a": 1\n}\n' and [*path.parent.iterdir()] == [path]
    with atomic_file(path) as partial:
        Image.new("RGB", (2, 2)).save(partial, format="PNG")
    assert Image.open(path).size == (2, 2)
