"""Settings and fixtures of all tests."""

from __future__ import annotations

import os

# Two cores are often busy: threads that wait for each other cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["LATENTGYM_OFFLINE"] = "1"  # tests never reach for the hub
os.environ["HF_HUB_OFFLINE"] = "1"

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("latentgym", deadline=None, max_examples=50)
hypothesis.settings.load_profile("latentgym")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_data() -> str:
    """The folder of real data, where there is one."""
    folder = os.environ.get("LATENTGYM_DATA")
    if not folder:
        pytest.skip("set LATENTGYM_DATA to the folder of real data to run this")
    return folder
