"""What a child gives up before it touches hostile input, each where the platform has it.

Python's audit hook (`_worker`) lets through nothing but arithmetic, imports and reading. This is
what holds if a way around it is found:

- limits on memory, processes, open files, file sizes, core dumps and the time of the processor;
- no new privileges, and death with the parent (Linux);
- system calls that act on other processes, files, the network or the machine are refused by the
  kernel (Linux with libseccomp, which Debian, Ubuntu, Fedora and their kin install by themselves).

None of them can be taken back by the process itself, root's included.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from functools import cache
from typing import Any

_OPEN_FILES = 64
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

# libseccomp's names for what a filter does, and how an argument is compared.
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # with EPERM
_EQUAL_MASKED, _NOT_EQUAL = 7, 1
_SPECULATE, _OPTIMIZE, _BY_SEARCH = 7, 8, 2
# Not a list of what is allowed: which calls Python and glibc make differs from version to version.
_REFUSED = """
    fork vfork clone clone3 execve execveat
    kill tkill tgkill pidfd_open pidfd_getfd pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo
    ptrace process_vm_readv process_vm_writev process_madvise kcmp setpriority sched_setaffinity
    sched_setscheduler sched_setparam sched_setattr prctl seccomp setrlimit personality
    socket socketpair connect bind listen accept accept4
    creat mknod mknodat mkdir mkdirat rmdir link linkat symlink symlinkat unlink unlinkat
    rename renameat renameat2 truncate ftruncate fallocate chmod fchmod fchmodat fchmodat2
    chown lchown fchown fchownat utime utimes utimensat futimesat
    setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
    openat2 open_by_handle_at memfd_create memfd_secret mq_open mq_unlink shmget shmat shmctl
    semget semop semctl msgget msgsnd msgrcv msgctl sendfile splice vmsplice tee copy_file_range
    inotify_init inotify_init1 fanotify_init io_uring_setup io_uring_enter io_uring_register
    io_setup bpf perf_event_open userfaultfd keyctl add_key request_key
    setns unshare chroot pivot_root mount umount2 move_mount open_tree fsopen mount_setattr
    setuid setgid setreuid setregid setresuid setresgid setgroups capset setsid setpgid
    init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct
    settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname quotactl syslog
"""
_WRITING = (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_APPEND)


class _Comparison(ctypes.Structure):
    """libseccomp's `scmp_arg_cmp`."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("how", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def confine(memory: int, seconds: int, parent: int) -> None:
    """Give up what this process, a fresh fork, will not need.

    Args:
        memory: bytes of address space that it may take.
        seconds: of the processor that it may take.
        parent: the process with which it ends.
    """
    import resource

    limits = {
        "AS": memory,
        "CPU": seconds,
        "NOFILE": _OPEN_FILES,
        **dict.fromkeys(("FSIZE", "CORE", "NPROC", "MEMLOCK", "MSGQUEUE"), 0),
    }
    for kind, bound in limits.items():
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (bound, bound))
    with suppress(AttributeError, OSError):
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it has died meanwhile
            os._exit(1)
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if (made := call_filter()) is not None:
        seccomp, rules = made
        seccomp.seccomp_load(rules)


@cache
def call_filter() -> tuple[Any, Any] | None:
    """libseccomp, and the rules by which the kernel refuses calls; None where that is missing.

    Made before a fork, it costs the child nothing.
    """
    try:
        seccomp = ctypes.CDLL("libseccomp.so.2")
        seccomp.seccomp_init.restype = ctypes.c_void_p
    except (AttributeError, OSError):
        return None
    rules = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(_ALLOW)))

    def refuse(name: str, *when: _Comparison) -> None:
        number = seccomp.seccomp_syscall_resolve_name(name.encode("ascii"))
        if number >= 0:  # else this machine has no such call
            seccomp.seccomp_rule_add_array(
                rules, ctypes.c_uint32(_REFUSE), number, len(when), (_Comparison * len(when))(*when)
            )

    for name in _REFUSED.split():
        refuse(name)
    for name, flags in (("open", 1), ("openat", 2)):
        for flag in _WRITING:
            refuse(name, _Comparison(flags, _EQUAL_MASKED, flag, flag))
    # What sets limits also reads them, with no new one.
    refuse("prlimit64", _Comparison(2, _NOT_EQUAL, 0, 0))
    # Neither a slower processor (against speculation, which no secret is here for) ...
    seccomp.seccomp_attr_set(rules, _SPECULATE, 1)
    seccomp.seccomp_attr_set(rules, _OPTIMIZE, _BY_SEARCH)  # ... nor a search one by one
    return seccomp, rules
