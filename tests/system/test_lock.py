"""One process in a run's folder at a time."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from latentgym.errors import Notice, UsageError
from latentgym.storage import atomic_write, locked
from latentgym.system.lock import LOCK, in_use

HOLD = """
import sys, time
from pathlib import Path
from latentgym.system.lock import in_use
with in_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_is_there_and_may_come_when_it_is_gone(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UsageError, match=f"in use by process {holder.pid} on"), in_use(out):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert (out / LOCK).exists()  # what is left of it says nothing
    with in_use(out):
        assert str(os.getpid()) in (out / LOCK).read_text()
    assert not (out / LOCK).exists()


def test_a_folder_is_free_again_after_a_failure(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), in_use(tmp_path):
            raise ZeroDivisionError
    with in_use(None):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_told_and_used(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", none)
    with pytest.warns(Notice, match="has no locks"), in_use(tmp_path / "run"):
        (tmp_path / "run" / "made").write_text("")
    with locked(tmp_path / "x.lock"), atomic_write(tmp_path / "x") as path:
        path.write_text("whole")
    assert (tmp_path / "x").read_text() == "whole" and not (tmp_path / "run" / LOCK).exists()


def test_a_disk_that_fails_is_no_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "it is broken")

    monkeypatch.setattr("fcntl.flock", broken)
    with pytest.raises(UsageError, match="it is broken"), in_use(tmp_path / "run"):
        pass


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write to"), in_use(tmp_path / "file"):
        pass
