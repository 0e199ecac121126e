"""Data sets as sequences of questions, found on disk, on the hub, or as a packaged sample."""

from __future__ import annotations

from collections.abc import Mapping

from latentgym.data.dataset import Dataset, DatasetSpec, licence_of
from latentgym.data.files import DataError
from latentgym.data.graphs import PRONTOQA, PROSQA
from latentgym.data.hub import HubSpec
from latentgym.data.maths import (
    AIME_2024,
    AIME_2025,
    GSM8K,
    GSM8K_AUG,
    GSM_HARD,
    MATH,
    MATH_500,
    MULTI_ARITH,
    SVAMP,
)
from latentgym.data.question import Question
from latentgym.data.recommendation import (
    AMAZON_CDS,
    AMAZON_INDUSTRIAL,
    AMAZON_OFFICE,
    MOVIE_LENS,
)
from latentgym.data.retrieval import BAMBOOGLE, HOTPOT_QA, NQ, TRIVIA_QA, TWO_WIKI
from latentgym.data.sources import SampleDataWarning, available, load

DATASETS: Mapping[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        GSM8K,
        GSM8K_AUG,
        GSM_HARD,
        SVAMP,
        MULTI_ARITH,
        MATH,
        MATH_500,
        AIME_2024,
        AIME_2025,
        PROSQA,
        PRONTOQA,
        NQ,
        TRIVIA_QA,
        HOTPOT_QA,
        TWO_WIKI,
        BAMBOOGLE,
        AMAZON_CDS,
        AMAZON_OFFICE,
        AMAZON_INDUSTRIAL,
        MOVIE_LENS,
    )
}

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "DatasetSpec",
    "HubSpec",
    "Question",
    "SampleDataWarning",
    "available",
    "licence_of",
    "load",
]
