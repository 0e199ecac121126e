"""Retrieval: passages found for a query, by Lucene or without Java."""

from __future__ import annotations

from latentgym.data.passage import Passage
from latentgym.retrieval.building import build_index, cached_index
from latentgym.retrieval.index import Manifest, open_index, read_manifest
from latentgym.retrieval.retriever import Hit, RetrievalError, Retriever
from latentgym.retrieval.shared import retriever_of

__all__ = [
    "Hit",
    "Manifest",
    "Passage",
    "RetrievalError",
    "Retriever",
    "build_index",
    "cached_index",
    "open_index",
    "read_manifest",
    "retriever_of",
]
