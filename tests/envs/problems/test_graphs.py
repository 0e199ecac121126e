from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from latentgym.envs.problems import graph_text, graphs
from latentgym.envs.problems.graphs import GraphProblem

GENERATORS = [graphs.generate_prosqa, graphs.generate_prontoqa]
DIAMOND = GraphProblem(
    edges=np.array([[0, 1], [0, 2], [1, 3], [2, 3], [0, 4], [4, 5], [5, 3], [6, 7]]),
    root=0,
    target=3,
    neg_target=7,
    n_nodes=8,
    names=("Sally", "bompus", "dumpus", "gorpus", "lempus", "rompus", "Bob", "wumpus"),
)


@pytest.fixture(scope="module")
def rows(real_data: str) -> Callable[[str], list[dict[str, Any]]]:
    def read(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (Path(real_data) / name).read_text().splitlines()]

    return read


def shape(problem: GraphProblem) -> dict[str, float]:
    """The statistics by which generated problems are matched to the released ones."""
    edge, hops = graphs.adjacency(problem), graphs.distances(problem)
    by_hops = {f"at {t} hops": float((hops == t).sum()) for t in (1, 2, 3, 4)}
    return by_hops | {
        "vertices": problem.n_nodes,
        "edges": len(problem.edges),
        "hops to the target": float(hops[problem.target]),
        "hops of the deepest vertex": float(hops.max()),
        "target is deepest": float(hops[problem.target] == hops.max()),
        "reached": float((hops > 0).sum()),
        "sources": float((~edge.any(axis=0)).sum()),
        "sinks": float((~edge.any(axis=1)).sum()),
        "edges into the target": float(edge[:, problem.target].sum()),
        "edges into the negative": float(edge[:, problem.neg_target].sum()),
        "mean square out-degree": float((edge.sum(axis=1) ** 2).mean()),
        "mean square in-degree": float((edge.sum(axis=0) ** 2).mean()),
    }


def mean_shape(problems: list[GraphProblem]) -> dict[str, float]:
    shapes = [shape(problem) for problem in problems]
    return {key: float(np.mean([s[key] for s in shapes])) for key in shapes[0]}


def test_frontiers_of_a_known_graph() -> None:
    assert graphs.reachable(DIAMOND, 0) == {0}
    assert graphs.reachable(DIAMOND, 1) == {0, 1, 2, 4}
    assert graphs.reachable(DIAMOND, 2) == {0, 1, 2, 3, 4, 5}
    assert graphs.reachable(DIAMOND, 2, within=False) == {3, 5}
    assert graphs.reachable(DIAMOND, 3, within=False) == {3}
    assert graphs.reachable(DIAMOND, 4, within=False) == set()
    assert graphs.distances(DIAMOND).tolist() == [0, 1, 1, 2, 1, 2, -1, -1]
    assert graphs.shortest_path(DIAMOND) == (0, 1, 3)


def test_soft_targets_are_uniform_over_the_frontier() -> None:
    within = graphs.soft_targets(DIAMOND, 2)
    assert within[0].tolist() == [0.25, 0.25, 0.25, 0, 0.25, 0, 0, 0]
    at = graphs.soft_targets(DIAMOND, 5, within=False)
    assert at[1].tolist() == [0, 0, 0, 0.5, 0, 0.5, 0, 0]
    assert at[2:].tolist() == [[0, 0, 0, 1, 0, 0, 0, 0]] * 3  # stays where the walks ended


@pytest.mark.parametrize("generate", GENERATORS)
@given(seed=st.integers(0, 2**32), index=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_generated_problems_are_well_posed(
    generate: Callable[[np.random.Generator], GraphProblem], seed: int, index: int
) -> None:
    problem = graphs.item(generate, seed, index)
    hops = graphs.distances(problem)
    assert hops[problem.target] >= 3
    assert hops[problem.neg_target] == -1
    assert (problem.edges[:, 0] < problem.edges[:, 1]).all()  # acyclic
    assert len(np.unique(problem.edges, axis=0)) == len(problem.edges)
    assert len(problem.names) == len(set(problem.names)) == problem.n_nodes
    edge = graphs.adjacency(problem)
    assert not edge[problem.target].any() and not edge[problem.neg_target].any()
    assert edge[:, problem.neg_target].any()
    path = graphs.shortest_path(problem)
    assert path[0] == problem.root and path[-1] == problem.target
    assert all(edge[a, b] for a, b in itertools.pairwise(path))
    assert len(path) == hops[problem.target] + 1


@pytest.mark.parametrize("generate", GENERATORS)
def test_items_are_pure_functions_of_seed_and_index(
    generate: Callable[[np.random.Generator], GraphProblem],
) -> None:
    forwards = [graphs.item(generate, 7, i) for i in range(5)]
    backwards = [graphs.item(generate, 7, i) for i in reversed(range(5))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert (one.edges == other.edges).all() and one.names == other.names
    assert len({problem.names for problem in forwards}) == 5
    assert graphs.item(generate, 8, 0).names != forwards[0].names


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_relabelling_changes_symbols_only(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = graphs.generate_prosqa(rng)
    again = graphs.relabel(problem, rng, 40)

    def words(p: GraphProblem) -> tuple[set[tuple[str, str]], tuple[str, str, str]]:
        asked = (p.names[p.root], p.names[p.target], p.names[p.neg_target])
        return {(p.names[a], p.names[b]) for a, b in p.edges}, asked

    assert words(again) == words(problem)
    assert again.n_nodes == len(again.names) == 40


def test_relabelled_symbols_carry_no_meaning() -> None:
    rng = np.random.default_rng(0)
    targets = [graphs.relabel(DIAMOND, rng, 10).target for _ in range(2000)]
    assert np.bincount(targets, minlength=10) == pytest.approx(np.full(10, 200), abs=50)
    with pytest.raises(ValueError, match="do not fit"):
        graphs.relabel(DIAMOND, rng, 7)


def test_prompt_targets_are_what_was_said_so_far() -> None:
    """By brute force: each vertex, its successors among earlier edges, and whence an edge comes."""
    problem = graphs.generate_prosqa(np.random.default_rng(3))
    queries = np.array([problem.target, problem.root])
    said = graphs.said_so_far(problem, queries)
    edges = problem.edges.tolist()
    expected = []
    for i, (a, b) in enumerate(edges):
        before = edges[:i]
        expected.append({a} | {y for x, y in before if x == a})
        expected.append({a, b} | {y for x, y in before if x == b})
    expected += [{q} | {y for x, y in edges if x == q} for q in queries.tolist()]
    assert [set(np.flatnonzero(row).tolist()) for row in said] == expected
    assert set(np.flatnonzero(said[-1]).tolist()) == graphs.reachable(problem, 1)


@pytest.mark.parametrize("slots", [6, 10, 16, graphs.N_SLOTS])
def test_smaller_graphs_are_well_posed(slots: int) -> None:
    for seed in range(30):
        problem = graphs.generate_prosqa(np.random.default_rng(seed), slots)
        assert problem.n_nodes <= slots
        hops = graphs.distances(problem)
        assert hops[problem.target] >= min(3, 1 + slots // 10)
        assert hops[problem.neg_target] == -1


def test_vocabulary() -> None:
    symbols = graphs.vocabulary(30)
    assert [symbols[i] for i in graphs.node_ids(np.array([0, 29]))] == ["N0", "N29"]


@pytest.mark.parametrize("generate", GENERATORS)
@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_text_can_be_read_back(
    generate: Callable[[np.random.Generator], GraphProblem], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    problem = generate(rng)
    parsed = graph_text.parse_question(graph_text.question_text(problem, rng))
    names = problem.names
    assert set(parsed.facts) == {(names[a], names[b]) for a, b in problem.edges.tolist()}
    assert parsed.root == names[problem.root]
    assert set(parsed.choices) == {names[problem.target], names[problem.neg_target]}
    assert graph_text.steps_text(problem)[-1].endswith(f"{names[problem.target]}.")
    assert graph_text.answer_text(problem).startswith(names[problem.root])


def test_sentences_of_the_known_graph() -> None:
    assert graph_text.steps_text(DIAMOND) == ("Sally is a bompus.", "Every bompus is a gorpus.")
    assert graph_text.answer_text(DIAMOND) == "Sally is a gorpus."
    text = graph_text.question_text(DIAMOND, np.random.default_rng(0))
    assert text.endswith(("Is Sally a gorpus or wumpus?", "Is Sally a wumpus or gorpus?"))


def test_unreadable_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="no question"):
        graph_text.parse_question("Every bompus is a gorpus.")
    with pytest.raises(ValueError, match="cannot read"):
        graph_text.parse_question("Lo and behold. Is Sally a gorpus or wumpus?")


@pytest.mark.parametrize("name", ["prosqa/test.jsonl", "prosqa/valid.jsonl"])
def test_prosqa_files_agree_with_their_text(
    rows: Callable[[str], list[dict[str, Any]]], name: str
) -> None:
    for row in rows(name):
        problem, parsed = graph_text.from_row(row), graph_text.parse_question(row["question"])
        words = {(problem.names[a], problem.names[b]) for a, b in problem.edges.tolist()}
        assert set(parsed.facts) == words
        assert parsed.root == problem.names[problem.root]
        assert set(parsed.choices) == {
            problem.names[problem.target],
            problem.names[problem.neg_target],
        }
        assert row["answer"] == graph_text.answer_text(problem)
        hops = graphs.distances(problem)
        assert hops[problem.target] == len(row["steps"]) and hops[problem.neg_target] == -1


def test_generated_prosqa_matches_the_files(
    rows: Callable[[str], list[dict[str, Any]]],
) -> None:
    files = rows("prosqa/test.jsonl") + rows("prosqa/valid.jsonl")
    real = mean_shape([graph_text.from_row(row) for row in files])
    made = mean_shape([graphs.item(graphs.generate_prosqa, 0, i) for i in range(800)])
    for key, value in real.items():
        assert made[key] == pytest.approx(value, rel=0.08, abs=0.05), key


def test_generated_prontoqa_matches_the_files(
    rows: Callable[[str], list[dict[str, Any]]],
) -> None:
    real = mean_shape([graph_text.from_row(row) for row in rows("prontoqa/coconut_test.jsonl")])
    made = mean_shape([graphs.item(graphs.generate_prontoqa, 0, i) for i in range(50)])
    assert made == pytest.approx(real)
