"""A cluster ends with its driver, which a termination ends as an exit does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from latentgym.cluster.connection import _termination


def hand_over_and_terminate() -> None:
    """What Ray does: it takes the signal, and makes an exit code of its own of an exit."""
    with _termination() as take_back:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
        take_back()
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit:
            raise SystemExit(1) from None


def test_a_termination_is_an_exit_with_its_own_code() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        hand_over_and_terminate()
    assert ended.value.code == 143 and signal.getsignal(signal.SIGTERM) is before


def test_the_callers_own_handler_stays() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            hand_over_and_terminate()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_exit_is_none() -> None:
    def leave() -> None:
        with _termination() as take_back:
            take_back()
            raise SystemExit(3)

    with pytest.raises(SystemExit) as ended:
        leave()
    assert ended.value.code == 3


def test_another_thread_leaves_signals_alone() -> None:
    seen: list[object] = []

    def act() -> None:
        with _termination() as take_back:
            seen.append(take_back())

    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
    assert seen == [None]


WORKS = """
import os, time
import ray
from latentgym.cluster.connection import connected

class Worker:
    def process(self):
        return os.getpid()

with connected(1, option="", afterwards=""):
    worker = ray.remote(num_gpus=1)(Worker).remote()
    print(ray.get(worker.process.remote()), flush=True)
    time.sleep(600)
"""


@pytest.mark.cluster
@pytest.mark.thorough
def test_nothing_stays_behind_a_driver_that_is_killed() -> None:
    pytest.importorskip("ray", reason="needs ray (extra openrlhf)")
    argv = [sys.executable, "-c", WORKS]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True) as driver:
        assert driver.stdout is not None
        worker = int(driver.stdout.readline())
        assert Path(f"/proc/{worker}").exists()
        driver.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline, "the worker outlives its driver"
        time.sleep(0.2)
