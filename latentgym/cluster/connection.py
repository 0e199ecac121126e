"""A Ray cluster for as long as a command runs, and its failures as sentences."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from latentgym.errors import LatentGymError, UsageError

# What workers on other machines must know of this process's surroundings.
_PASSED_ON = (
    *("LATENTGYM_DATA", "LATENTGYM_CACHE", "LATENTGYM_OFFLINE", "LATENTGYM_MODULES"),
    *("HF_HUB_OFFLINE", "HF_HOME"),
)
# Of Ray: statistics sent home, a metrics agent, hiding GPUs from workers that ask for none, and
# yielding to every other program: workers do the work that is waited for.
_OFF = (
    *("RAY_USAGE_STATS_ENABLED", "RAY_enable_metrics_collection"),
    *("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "RAY_worker_niceness"),
)
_ASK_FOR_S = ("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
_TERMINATED = 128 + signal.SIGTERM  # exit code
_LEAST_STORE_MB = 75  # Ray's own minimum
_KNOCK_SECONDS = 5.0


class ClusterError(LatentGymError, RuntimeError):
    """Something on the cluster failed; the message says what, and how to go on."""


@contextmanager
def connected(
    workers: int,
    *,
    option: str,
    afterwards: str,
    address: str | None = None,
    object_store_mb: int = 200,
) -> Iterator[None]:
    """Within it, Ray is connected to a cluster with room for so many workers.

    Args:
        workers: processes that need a processor and a GPU each. On a machine without GPUs an own
            cluster counts its GPUs in name only.
        option: the option that says how many, for messages.
        afterwards: what to do when what failed has been mended, for messages.
        address: of a cluster to join; None starts one of this machine's own, which ends with it.
        object_store_mb: shared memory of an own cluster, MiB.

    Raises:
        UsageError: ray is missing, or the cluster cannot be reached or is too small.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("this needs ray; pip install 'latentgym[openrlhf]'.") from error
    if object_store_mb < _LEAST_STORE_MB:
        raise UsageError(f"an object store needs at least {_LEAST_STORE_MB} MiB.")
    for name in _OFF:
        os.environ.setdefault(name, "0")
    settings: dict[str, object] = {
        "log_to_driver": False,
        "logging_level": "ERROR",
        "runtime_env": {"env_vars": _environment()},
    }
    if address is None:
        import torch

        # Else two of Ray's agents outlive a killed driver by a minute, asking for who is gone.
        os.environ.setdefault(*_ASK_FOR_S)

        settings |= {
            "address": "local",
            "num_cpus": workers + 1,
            "include_dashboard": False,
            "object_store_memory": object_store_mb << 20,
        }
        if not torch.cuda.is_available():
            settings["num_gpus"] = workers
    else:
        settings["address"] = address
        _probe(address)
    with _termination() as take_back:
        try:
            ray.init(**settings)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"cannot connect to Ray at {address or 'this machine'} ({_line(error)}); check "
                "--ray-address, or leave it out to start a cluster here."
            ) from error
        try:
            take_back()
            found = int(ray.cluster_resources().get("GPU", 0))
            if found < workers:
                raise UsageError(
                    f"{workers} workers need a GPU each, but the cluster has {found}; lower "
                    f"{option}, or on machines without GPUs start Ray with --num-gpus of at least "
                    "that many."
                )
            with failures(afterwards):
                yield
        finally:
            ray.shutdown()


@contextmanager
def _termination() -> Iterator[Callable[[], object]]:
    """Within it, a termination (SIGTERM) ends this process as an exit does, the cluster with it.

    Ray would dump its stack. What the caller has set for the signal stays.

    Yields:
        What takes the signal back when Ray has taken it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before, ended = signal.getsignal(signal.SIGTERM), False

    def end(number: int, _: object) -> None:
        nonlocal ended
        ended = True
        raise SystemExit(_TERMINATED)

    try:
        yield lambda: signal.signal(signal.SIGTERM, before if callable(before) else end)
    except SystemExit:
        if ended:
            raise SystemExit(_TERMINATED) from None  # Ray makes 1 of it
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _probe(address: str) -> None:
    """Knock at an address with a port: Ray itself would try for minutes.

    Raises:
        UsageError: nobody answers.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()
    except OSError as error:
        raise UsageError(
            f"no Ray cluster answers at {address} ({error}); start one there with ray start, or "
            "leave out --ray-address to start a cluster here."
        ) from error


@contextmanager
def failures(afterwards: str) -> Iterator[None]:
    """Raise Ray's errors as `ClusterError`, and a worker's own sentence as it is.

    Args:
        afterwards: what to do when what failed has been mended.
    """
    import ray.exceptions as of_ray

    try:
        yield
    except of_ray.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, LatentGymError):
            raise ClusterError(f"a worker stopped: {cause}") from error
        raise ClusterError(
            f"a worker failed with {type(cause).__name__}: {_line(cause)}. {afterwards}"
        ) from error
    except (of_ray.ActorDiedError, of_ray.WorkerCrashedError) as error:
        raise ClusterError(
            f"a worker died ({_line(error)}); it may have run out of memory. {afterwards}"
        ) from error
    except (of_ray.ObjectStoreFullError, of_ray.OutOfDiskError) as error:
        raise ClusterError(
            "what was rolled out fits neither Ray's object store nor the disk; raise "
            f"--object-store-mb, or make batches smaller. {afterwards}"
        ) from error
    except of_ray.RayError as error:
        raise ClusterError(f"Ray failed: {_line(error)}. {afterwards}") from error


def _environment() -> dict[str, str]:
    given = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {
        **given,
        "TOKENIZERS_PARALLELISM": "false",
        "TORCHDYNAMO_DISABLE": "1",
        "TQDM_DISABLE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONWARNINGS": "ignore",
    }


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
