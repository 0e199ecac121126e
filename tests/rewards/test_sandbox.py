"""The comparing process: killed, restarted, forked, shared between threads, and never left over."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import latentgym
from latentgym.rewards import GraderError
from latentgym.rewards.sandbox import Sandbox

ROOT = Path(latentgym.__file__).parents[1]
HANGS = r"\binom{658346174}{41580576}"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox(timeout=0.75)
    box.start()
    yield box
    box.close()


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def keeper(box: Sandbox) -> int:
    assert box._keeper is not None
    return box._keeper.pid


def gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False


def test_verdicts(sandbox: Sandbox) -> None:
    assert sandbox.compare(r"\frac{1}{2}", r"\frac{2}{4}") == "equal"
    assert sandbox.compare(r"\frac{1}{2}", r"\frac{1}{3}") == "different"
    assert sandbox.compare(r"\frac{", r"\frac{1}{3}") == "bad_gold"
    assert sandbox.compare(r"\frac{1}{2}", r"\frac{") == "bad_answer"


def test_timeout_kills_and_the_next_answer_does_not_pay(
    sandbox: Sandbox, in_time: Callable
) -> None:
    fresh = itertools.count()  # an answer of its own each time: verdicts are remembered
    for _ in range(2):
        assert in_time(1.0, lambda: sandbox.compare("7", HANGS)) == "timeout"

        def another() -> str:
            n = next(fresh)
            return sandbox.compare("x+1", f"1+x+{n}-{n}")

        assert in_time(0.5, another) == "equal"


def test_verdicts_are_remembered_but_timeouts_are_not(sandbox: Sandbox, in_time: Callable) -> None:
    sandbox.compare("a+b", "b+a")
    assert in_time(0.001, lambda: sandbox.compare("a+b", "b+a")) == "equal"
    sandbox.compare("7", HANGS)
    assert ("", "a+b", "b+a") in sandbox._known and ("", "7", HANGS) not in sandbox._known


def test_memory_is_bounded() -> None:
    box = Sandbox(timeout=2.0, memory=1 << 28)
    assert box.compare("1", r"\binom{6583461}{4158057}") in ("crash", "different", "timeout")
    assert box.compare("x+1", r"\frac{2x+2}{2}") == "equal"
    box.close()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_child_killed_while_idle(sandbox: Sandbox) -> None:
    sandbox.compare("x", "x+0")
    (child,) = children(keeper(sandbox))
    os.kill(child, signal.SIGKILL)
    assert gone(child)
    assert sandbox.compare("x+y", "y+x") == "equal"


def test_keeper_killed(sandbox: Sandbox) -> None:
    os.kill(keeper(sandbox), signal.SIGKILL)
    assert sandbox.compare("x+z", "z+x") == "equal"


@pytest.mark.thorough
def test_closed_starts_again() -> None:
    box = Sandbox()
    box.start()
    pid = keeper(box)
    box.close()
    box.close()
    assert gone(pid)
    assert box.compare("x+z", "z+x") == "equal"
    box.close()


def test_start_failure_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(GraderError, match="pip install math-verify"):
        Sandbox().start()


def test_threads_share_it(sandbox: Sandbox) -> None:
    def ask(number: int) -> str:
        return sandbox.compare(f"{number}x", f"x+{number - 1}x" if number % 2 else f"{number}x+1")

    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(ask, range(3, 35)))
    assert verdicts == ["equal" if n % 2 else "different" for n in range(3, 35)]


ANYTHING = """
def prepare(setting):
    if setting == "bad":
        raise RuntimeError("no such setting")

def run(setting, code):
    space = {}
    try:
        exec(code, space)
    except Exception as error:
        return type(error).__name__
    return space.get("result", setting)
"""


@pytest.fixture(scope="module")
def anything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A job without a guard of its own: it runs whatever it is given."""
    folder = tmp_path_factory.mktemp("job")
    (folder / "any_job.py").write_text(ANYTHING)
    sys.path.append(str(folder))
    box = Sandbox(job="any_job")
    box.start()
    yield box
    box.close()
    sys.path.remove(str(folder))


def test_a_job_of_ones_own(anything: Sandbox) -> None:
    assert anything.call("here", "pass") == "here"
    assert anything.call("here", "import fractions; result = [str(fractions.Fraction(1, 2))]") == [
        "1/2"
    ]
    assert anything.call("", "while True: pass") == "timeout"
    assert anything.call("", "import os; os._exit(1)") == "crash"
    assert anything.call("here", "print('x' * 100_000)") == "here"
    with pytest.raises(GraderError, match="no such setting"):
        anything.call("bad", "pass")
    assert anything.call("there", "pass") == "there"


@contextmanager
def killing(box: Sandbox, kills: int) -> Iterator[None]:
    """Children are killed from outside while they judge, the first so many of them."""
    box.start()
    stop, seen = threading.Event(), set[int]()

    def kill() -> None:
        while not stop.is_set() and len(seen) < kills:
            for pid in set(children(keeper(box))) - seen:
                time.sleep(0.15)
                seen.add(pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


SLOW = "import time; time.sleep(1.0); result = 'judged %d'"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_death_that_an_answer_did_not_cause_is_tried_again(anything: Sandbox) -> None:
    with killing(anything, 1):
        assert anything.call("", SLOW % 1) == "judged 1"
    with killing(anything, 3), pytest.raises(GraderError, match="killed again and again"):
        anything.call("", SLOW % 2)
    assert anything.call("", SLOW % 2) == "judged 2"


@pytest.mark.parametrize("while_it", ["starts", "judges"])
def test_an_interrupted_request_answers_no_other(
    anything: Sandbox, while_it: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, or a stopped cell: what was asked before is not taken for what is asked next."""
    box = Sandbox(job=anything.job)
    if while_it == "judges":
        box.start()
    receive = box._receive

    def interrupted(keeper: subprocess.Popen[bytes], seconds: float) -> Any:
        monkeypatch.setattr(box, "_receive", receive)
        raise KeyboardInterrupt

    monkeypatch.setattr(box, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        box.call("", "result = 'before'")
    assert box.call("", "result = 'after'") == "after"
    monkeypatch.setattr(box, "_receive", interrupted)
    box.close()
    with pytest.raises(KeyboardInterrupt):
        box.start()
    assert box.call("", "result = 'started'") == "started"
    box.close()


def test_how_a_process_ended_is_not_remembered(anything: Sandbox) -> None:
    for code, verdict in (
        ("import os; os._exit(1)", "crash"),
        ("while True: pass", "timeout"),
        ("import os, signal; os.abort()", "crash"),
    ):
        assert anything.call("", code) == verdict
        assert ("", code) not in anything._known


FORGE = """
import json, os
body = json.dumps({reply}).encode()
for descriptor in range(3, 30):
    try:
        os.write(descriptor, len(body).to_bytes(4, "big") + body)
    except OSError:
        pass
"""


@pytest.mark.parametrize("reply", ["'equal'", "[7, 'equal']", "[7]", "{}", "None"])
def test_a_forged_reply_answers_nothing(anything: Sandbox, reply: str) -> None:
    assert anything.call("", FORGE.replace("{reply}", reply)) == "crash"
    assert anything.call("next", f"pass  # {reply}") == "next"


def test_what_is_refused_is_told_though_the_error_is_caught(anything: Sandbox) -> None:
    code = "try:\n    import os; os.mkdir('x')\nexcept Exception:\n    result = 'different'"
    assert anything.call("", code) == "refused"
    assert anything.call("", "result = 'equal'") == "equal"


def test_many_settings_do_not_pile_up(anything: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentgym.system.bounded.process._MAX_SETTINGS", 3)
    for number in range(7):
        assert anything.call(f"s{number}", "pass") == f"s{number}"
        assert len(anything._prepared) <= 3


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.system('touch {0}/x')",
        "open('{0}/x', 'w')",
        "import os; os.open('{0}/x', os.O_CREAT | os.O_RDONLY)",
        "import os; os.mkdir('{0}/x')",
        "import os; os.remove('{0}/kept')",
        "import shutil; shutil.rmtree('{0}')",
        "import subprocess; subprocess.run(['touch', '{0}/x'])",
        "import os; os.fork()",
        "import os; os.kill(os.getppid(), 9)",
        "import socket; socket.socket().connect(('127.0.0.1', 9))",
        "import ctypes; ctypes.CDLL(None)",
    ],
)
def test_what_is_judged_has_no_effect(anything: Sandbox, code: str, tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    anything.start()
    pid = keeper(anything)
    assert anything.call("", code.format(tmp_path)) == "refused"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert keeper(anything) == pid and not gone(pid, 0.05)


def run(script: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )


FORKS = """
import os, threading, time
from latentgym.rewards.sandbox import Sandbox
box = Sandbox()
box.start()
# Fork while another thread holds the lock and waits for a verdict.
thread = threading.Thread(target=lambda: print("thread", box.compare("7", %r), flush=True))
thread.start()
time.sleep(0.2)
mine = box._keeper.pid
pid = os.fork()
if pid == 0:
    verdict = box.compare("x+1", "1+x")
    print("child", verdict, box._keeper.pid != mine, flush=True)
    box.close()
    os._exit(0)
os.waitpid(pid, 0)
thread.join()
print("parent", box.compare("x+2", "2+x"), box._keeper.pid == mine, flush=True)
"""


@pytest.mark.thorough
def test_fork_gets_its_own_worker() -> None:
    done = run(FORKS % HANGS)
    assert sorted(done.stdout.split("\n")[:-1]) == [
        "child equal True",
        "parent equal True",
        "thread timeout",
    ], done.stderr


LEAVES = """
import os, signal
from latentgym.rewards.sandbox import Sandbox
box = Sandbox()
box.start()
print(box._keeper.pid, flush=True)
%s
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    "end",
    [
        "os.kill(os.getpid(), signal.SIGKILL)",
        *(pytest.param(end, marks=pytest.mark.thorough) for end in ("", "os._exit(1)")),
    ],
)
def test_nothing_is_left_over(end: str) -> None:
    assert gone(int(run(LEAVES % end).stdout))


def test_import_is_light() -> None:
    done = run(
        "import sys, latentgym.rewards\n"
        "print(sorted({'sympy', 'math_verify', 'torch', 'transformers', 'datasets'} "
        "& set(sys.modules)))"
    )
    assert done.stdout.strip() == "[]", done.stderr


_FORK_EXEC = """
import _posixsubprocess, os
r, w = os.pipe()
_posixsubprocess.fork_exec(
    [b"/usr/bin/touch", b"{0}/x"], [b"/usr/bin/touch"], True, (w,), None, None,
    -1, -1, -1, -1, -1, -1, r, w, True, False, 0, None, None, None, -1, None, False
)
"""
# What Python's audit hook does not see.
UNSEEN = {
    "a process": _FORK_EXEC,
    "a device": "import os; os.mknod('{0}/x')",
    "a pipe with a name": "import os; os.mkfifo('{0}/x')",
    "shared memory": "import _posixshmem, os\n"
    "_posixshmem.shm_open('/latentgym-test', os.O_CREAT | os.O_RDWR, 0o600)",
    "memory as a file": "import os; os.memfd_create('x')",
    "a signal": "import os, signal; signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)",
    "a thread": "import _thread; _thread.start_new_thread(print, ())",
}


def confined() -> bool:
    """Whether the kernel refuses system calls here."""
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return False
    return True


@pytest.mark.skipif(not confined(), reason="needs Linux with libseccomp")
@pytest.mark.parametrize("what", UNSEEN)
def test_what_python_does_not_see_the_kernel_refuses(
    what: str, anything: Sandbox, tmp_path: Path
) -> None:
    before = set(os.listdir("/dev/shm"))
    code = UNSEEN[what].replace("{0}", str(tmp_path))
    assert anything.call("", code) in ("PermissionError", "RuntimeError", "TypeError")
    assert list(tmp_path.iterdir()) == [] and set(os.listdir("/dev/shm")) <= before


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_limits_cannot_be_taken_back(anything: Sandbox) -> None:
    code = "result = open('/proc/self/status').read()"
    status = dict(line.split(":\t", 1) for line in anything.call("", code).splitlines())
    assert status["NoNewPrivs"] == "1" and (not confined() or status["Seccomp"] == "2")
    for limit in ("AS", "NPROC", "NOFILE", "FSIZE", "CORE", "CPU"):
        code = f"import resource as r; r.setrlimit(r.RLIMIT_{limit}, (1 << 40, 1 << 40))"
        assert anything.call("", code) == "refused"
        code = f"import resource as r; result = r.getrlimit(r.RLIMIT_{limit})[1] >= 0"
        assert anything.call("", code) is True  # bounded: no limit is -1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("code", ["result = 'judged'", "while True: pass"])
def test_a_busy_machine_changes_no_verdict(anything: Sandbox, code: str) -> None:
    """The limit is the processor's time: waiting for a core is no part of it."""
    asked = f"sum(range(1_000_000))  # work\n{code}"
    expected = anything.call("", asked)
    assert expected == ("judged" if "judged" in code else "timeout")
    assert anything.call("", f"result = 'judged'  # {code}") == "judged"  # by a child that is born
    [child] = children(keeper(anything))
    os.kill(child, signal.SIGSTOP)  # it gets no share of a core ...
    again = threading.Timer(anything.timeout + 0.5, os.kill, (child, signal.SIGCONT))
    again.start()
    assert anything.call("", f"{asked}  # busy") == expected  # ... for longer than its limit
    again.join()


@pytest.mark.parametrize(
    "code",
    [
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})",
        "signal.signal(signal.SIGPROF, signal.SIG_IGN)",
        "signal.signal(signal.SIGPROF, lambda *what: None)",
    ],
)
def test_no_request_takes_the_limit_off_the_next(short: Sandbox, code: str, in_time: Any) -> None:
    assert short.call("here", f"import signal; {code}") == "here"
    assert in_time(0.5, lambda: short.call("", "while True: pass")) == "timeout"


UNTIMED = """
import signal
for timer in (signal.ITIMER_PROF, signal.ITIMER_REAL):
    signal.setitimer(timer, 0)
while True: pass
"""


@pytest.fixture
def short(anything: Sandbox) -> Iterator[Sandbox]:
    """Its limit is a tenth of a second, and so its keeper's clock a second."""
    box = Sandbox(job=anything.job, timeout=0.1)
    box.start()
    yield box
    box.close()


def test_the_clock_does_not_depend_on_its_timer(short: Sandbox) -> None:
    pid = keeper(short)
    assert short.call("", UNTIMED) == "timeout"
    assert keeper(short) == pid  # which ended it in time


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
@pytest.mark.thorough
def test_without_its_timer_it_still_ends_with_its_keeper(short: Sandbox) -> None:
    asking = threading.Thread(target=short.call, args=("", UNTIMED))
    asking.start()
    time.sleep(0.3)
    pid = keeper(short)
    [child] = children(pid)
    os.kill(pid, signal.SIGKILL)
    assert gone(child)
    asking.join()
