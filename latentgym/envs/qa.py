"""Where a retrieval task finds its questions and its passages."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentgym.data import DATASETS, load
from latentgym.data.encyclopedia import Encyclopedia, EncyclopediaSettings
from latentgym.data.retrieval import HOPS, corpus_path
