"""What is written is complete or not there, and what a dead process has left is cleared away."""

from __future__ import annotations

import errno
import fcntl
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from latentgym import storage
from latentgym.errors import UsageError
from latentgym.storage import atomic_write, clear, discard, folder_named, gzipped, writable

WRITES = """
import sys, time
from pathlib import Path
from latentgym.storage import atomic_write, discard
path = Path(sys.argv[1])
with atomic_write(path) as partial:
    partial.write_text("half")
    print("on", flush=True)
    time.sleep(60)
"""


@contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of writing; it is killed in the end."""
    argv = [sys.executable, "-c", WRITES, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "on\n"
        yield process
        process.send_signal(signal.SIGKILL)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def put(path: Path, text: str) -> None:
    with atomic_write(path) as partial:
        partial.write_text(text)


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    with writing(tmp_path / "one"):
        pass
    left = names(tmp_path)
    assert len(left) == 1 and left[0].startswith(".latentgym-")
    put(tmp_path / "other", "whole")
    assert names(tmp_path) == ["other"]


def test_what_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    with writing(tmp_path / "one") as process:
        put(tmp_path / "other", "whole")
        clear(tmp_path)
        assert len(names(tmp_path)) == 2
        assert process.poll() is None
    clear(tmp_path)
    assert names(tmp_path) == ["other"]


def test_two_writers_of_one_process_do_not_clear_each_other(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "one") as first:
        put(tmp_path / "other", "whole")
        first.write_text("whole")
    assert names(tmp_path) == ["one", "other"]


def test_a_folder_takes_the_place_of_another(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with atomic_write(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / "file").write_text(text)
    assert names(tmp_path) == ["folder"]
    assert (tmp_path / "folder" / "file").read_text() == "second"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_write(tmp_path / "folder") as partial:
            partial.mkdir()
            (partial / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == []


def test_what_is_discarded_is_gone(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for name in ("folder", "file", "nothing"):
        discard(tmp_path / name)
    assert names(tmp_path) == []


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_deletion_that_is_killed_leaves_no_half(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "step-00000001"
    target.mkdir() if what == "folder" else target.touch()
    monkeypatch.setattr(storage.shutil, "rmtree", lambda *_, **__: None)  # killed before
    discard(target)
    assert len(names(tmp_path)) == 1 and not target.exists()
    monkeypatch.undo()
    clear(tmp_path)
    assert names(tmp_path) == []


def test_where_there_are_no_locks_it_is_written_and_nothing_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".latentgym-left").mkdir()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "no locks here")

    monkeypatch.setattr(fcntl, "flock", refuse)
    put(tmp_path / "one", "whole")
    assert names(tmp_path) == [".latentgym-left", "one"]


def test_packed_bytes_depend_on_nothing_else(tmp_path: Path) -> None:
    for name in ("one", "other"):
        with gzipped(tmp_path / name) as file:
            file.write(b"text")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def to_dev_full(path: Path) -> None:
    with Path("/dev/full").open("w") as file:
        file.write("x")


def onto_a_folder(path: Path) -> None:
    path.mkdir()
    path.write_text("x")


def below_a_file(path: Path) -> None:
    path.touch()
    put(path / "inner", "x")


@pytest.mark.parametrize("act", [to_dev_full, onto_a_folder, below_a_file])
def test_what_cannot_be_written_is_a_sentence(act: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "path"
    with (
        pytest.raises(UsageError, match=r"cannot write .*; make room, or choose another --out\."),
        writable(path),
    ):
        act(path)


def test_a_folder_is_one_that_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_named("~/runs/a") == tmp_path / "runs" / "a"
    assert folder_named(Path("~/runs")) == tmp_path / "runs"
    assert folder_named("runs/~a") == Path("runs/~a")
    with pytest.raises(UsageError, match="no path"):
        folder_named("runs/\0")
