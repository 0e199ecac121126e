"""Retrieval: passages found for a query, by Lucene or without Java."""

from __future__ import annotations

from latentgym.retrieval.retriever import Hit, Passage, RetrievalError, Retriever

__all__ = ["Hit", "Passage", "RetrievalError", "Retriever"]
