"""Whether the Hugging Face hub can be had: without a network that costs seconds, not minutes."""

from __future__ import annotations

import os
import socket
import threading
from functools import lru_cache
from urllib.parse import urlsplit

PROBE_SECONDS = 2.0
_ON = frozenset({"1", "true", "yes", "on"})
_PROXIES = ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


def no_data() -> str | None:
    """Why data sets cannot be had from the hub just now, or None if they can."""
    return _switched_off("HF_DATASETS_OFFLINE") or _out_of_reach()


def no_models() -> str | None:
    """Why models cannot be had from the hub just now, or None if they can."""
    return _switched_off("TRANSFORMERS_OFFLINE") or _out_of_reach()


def _switched_off(name: str) -> str | None:
    for each in ("LATENTGYM_OFFLINE", "HF_HUB_OFFLINE", name):
        if os.environ.get(each, "").lower() in _ON:
            return f"{each} is set"
    return None


def _out_of_reach() -> str | None:
    address = next((os.environ[name] for name in _PROXIES if os.environ.get(name)), None)
    address = address or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    return None if _reachable(address) else f"{address} cannot be reached"


@lru_cache(maxsize=8)
def _reachable(address: str) -> bool:
    """Whether a connection can be made, name lookup included, within `PROBE_SECONDS`."""
    parts = urlsplit(address if "//" in address else f"//{address}")
    port = parts.port or (80 if parts.scheme == "http" else 443)
    connected = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((parts.hostname or "", port), PROBE_SECONDS).close()
            connected.set()
        except OSError:
            pass

    # A name lookup has no time limit of its own, hence the thread that may be left behind.
    probe = threading.Thread(target=connect, daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return connected.is_set()
