"""ProsQA and ProntoQA as graph search (Coconut, arXiv 2412.06769; CoT2, arXiv 2505.23648).

A problem is a directed graph, a root and two candidate vertices of which exactly one can be
reached from the root. The text form ("Every gorpus is a lempus.") is only a rendering; CoT2
trains on the vertices themselves, with the set reached within t hops as the target of step t.

Shape legend: E edges, n vertices, T reasoning steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentgym.envs.problems.mnns import SPECIALS

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

PEOPLE = (
    *("Alex", "Bob", "Davis", "Eva", "Fae", "Jack", "Max", "Oliver"),
    *("Polly", "Rex", "Sally", "Sam", "Stella", "Tom", "Wren"),
)
ONSETS = (
    *("bom", "bor", "brim", "dum", "fel", "fom", "ger", "gor", "grim", "gwom", "hil", "im", "jel"),
    *("jom", "ker", "lem", "lim", "lor", "num", "quim", "rem", "rim", "rom", "ror", "scrom"),
    *("shum", "ster", "stor", "ter", "tim", "tum", "twim", "vum", "wor", "wum", "yer", "yim"),
    *("yum", "zhor", "zum"),
)
CONCEPTS = tuple(f"{onset}pus" for onset in ONSETS)
PROPERTIES = (
    *("amenable", "bitter", "bright", "brown", "cold", "dull", "earthy", "fast", "feisty"),
    *("floral", "fruity", "happy", "hot", "kind", "large", "liquid", "loud", "luminous", "mean"),
    *("metallic", "moderate", "muffled", "opaque", "orange", "red", "shy", "small", "snowy"),
    *("sour", "spicy", "sunny", "sweet", "temperate", "transparent", "wooden"),
)

N_SLOTS = 28
"""Vertices drawn for a ProsQA graph before those without edges are dropped."""


@dataclass(frozen=True, eq=False)
class GraphProblem:
    """One reachability question.

    Attributes:
        edges: (E, 2) from-vertex and to-vertex.
        root: the vertex the search starts from.
        target: the candidate that can be reached.
        neg_target: the candidate that cannot.
        n_nodes: vertices are 0..n_nodes-1.
        names: the words of the vertices in text.
    """

    edges: Ints
    root: int
    target: int
    neg_target: int
    n_nodes: int
    names: tuple[str, ...]


def adjacency(problem: GraphProblem) -> Mask:
    """(n, n) True at [a, b] where there is an edge from a to b."""
    matrix = np.zeros((problem.n_nodes, problem.n_nodes), dtype=np.bool_)
    matrix[problem.edges[:, 0], problem.edges[:, 1]] = True
    return matrix


def frontiers(problem: GraphProblem, steps: int, *, within: bool = True) -> Mask:
    """Vertices reachable from the root after each step.

    Args:
        steps: T.
        within: in at most t hops, root included; otherwise at the end of a walk of exactly t.

    Returns:
        (T, n); row t - 1 belongs to step t.
    """
    edge = adjacency(problem)
    reached_Tn = np.zeros((steps, problem.n_nodes), dtype=np.bool_)
    now: Mask = np.arange(problem.n_nodes) == problem.root
    for t in range(steps):
        reached_Tn[t] = edge[now].any(axis=0)
        if within:
            reached_Tn[t] |= now
        now = reached_Tn[t]
    return reached_Tn


def reachable(problem: GraphProblem, hops: int, *, within: bool = True) -> frozenset[int]:
    """The vertices within (or at exactly) ``hops`` hops of the root; see :func:`frontiers`."""
    if hops == 0:
        return frozenset({problem.root})
    return frozenset(np.flatnonzero(frontiers(problem, hops, within=within)[-1]).tolist())


def soft_targets(problem: GraphProblem, steps: int, *, within: bool = True) -> Floats:
    """Targets of continuous supervision (CoT2, section 3.2): uniform over each frontier.

    A search that has run out of walks (only without ``within``) stays where it was.

    Returns:
        (T, n), each row a distribution.
    """
    reached = frontiers(problem, steps, within=within).astype(np.float64)
    for t in range(1, steps):
        if not reached[t].any():
            reached[t] = reached[t - 1]
    distribution: Floats = reached / reached.sum(axis=1, keepdims=True)
    return distribution


def distances(problem: GraphProblem, source: int | None = None) -> Ints:
    """Hops from ``source`` (default: the root) to every vertex, -1 if unreachable: (n,)."""
    edge = adjacency(problem)
    hops = np.full(problem.n_nodes, -1)
    new: Mask = np.arange(problem.n_nodes) == (problem.root if source is None else source)
    step = 0
    while new.any():
        hops[new] = step
        new = edge[new].any(axis=0) & (hops < 0)
        step += 1
    return hops


def shortest_path(problem: GraphProblem) -> tuple[int, ...]:
    """The vertices from root to target by fewest hops; of several the smallest numbers last."""
    edge, hops = adjacency(problem), distances(problem)
    path = [problem.target]
    for step in range(int(hops[problem.target]) - 1, -1, -1):
        path.append(int(np.flatnonzero(edge[:, path[-1]] & (hops == step))[0]))
    return tuple(reversed(path))


# --- generators -----------------------------------------------------------------------------


def item(
    generate: Callable[[np.random.Generator], GraphProblem], seed: int, index: int
) -> GraphProblem:
    """Item ``index`` of a generated data set: a pure function of (seed, index)."""
    return generate(np.random.default_rng([seed, index]))


def generate_prosqa(rng: np.random.Generator, slots: int = N_SLOTS) -> GraphProblem:
    """Draw a ProsQA problem (construction of Coconut, appendix A).

    Vertices join one by one with Poisson(1.5) edges from earlier ones. Two special vertices are
    the roots; most new vertices are tied to the family of one of them, which leaves leaves that
    only one root reaches. The deepest such leaf is the target, a leaf of the other family the
    negative one. The free choices (28 slots, at least 3 hops, which leaf) were fitted to the
    statistics of the released validation and test files. Fewer ``slots`` give smaller problems to
    begin with, in which the target may be nearer than 3 hops.
    """
    least_hops = min(3, 1 + slots // 10)
    while True:
        problem = _draw_prosqa(rng, slots, least_hops)
        if problem is not None:
            return problem


def _draw_prosqa(rng: np.random.Generator, slots: int, least_hops: int) -> GraphProblem | None:
    """One attempt; None where no pair of leaves qualifies."""
    # family is a bit mask: 1 descends from root 0, 2 from root 1.
    family = np.zeros(slots, dtype=np.int64)
    family[:2] = (1, 2)
    depth = np.zeros(slots, dtype=np.int64)
    edges: list[tuple[int, int]] = []
    for new in range(2, slots):
        n_parents = rng.poisson(1.5)
        side = int(np.searchsorted((0.35, 0.70), rng.random()))
        older = np.arange(new)
        candidates = older if side == 2 else older[family[:new] == side + 1]
        n_parents = min(n_parents, len(candidates))
        if n_parents == 0:
            continue
        # Deep vertices are favoured, so that chains grow long, and members of no family are not.
        weight = (1.0 + 1.5 * depth[candidates]) * np.where(family[candidates] == 0, 0.6, 1.0)
        parents = rng.choice(candidates, n_parents, replace=False, p=weight / weight.sum())
        family[new] = np.bitwise_or.reduce(family[parents])
        depth[new] = depth[parents].min() + 1
        edges += [(int(parent), new) for parent in np.sort(parents)]

    if not edges:
        return None
    pairs = np.array(edges)
    used = np.unique(np.append(pairs, (0, 1)))
    number = np.full(slots, -1)
    number[used] = np.arange(len(used))
    graph = GraphProblem(number[pairs], 0, 0, 0, len(used), ())
    family = family[used]
    is_leaf = ~adjacency(graph).any(axis=1)
    is_source: Mask = np.logical_not(adjacency(graph).any(axis=0))
    hops = np.stack([distances(graph, 0), distances(graph, 1)])
    hops[:, ~is_leaf] = -1
    hops[0, family != 1] = hops[1, family != 2] = -1
    if hops.max() < least_hops or (hops <= 0).all(axis=1).any():
        return None
    deepest = np.argwhere(hops == hops.max())
    deepest = deepest[deepest[:, 0] == deepest[:, 0].max()]  # in the files root 1 wins ties
    root, target = (int(x) for x in rng.choice(deepest))
    neg_target = int(rng.choice(np.flatnonzero(hops[1 - root] > 0)))
    people = iter(rng.permutation(PEOPLE).tolist())
    concepts = iter(rng.permutation(CONCEPTS).tolist())
    names = tuple(next(people if person else concepts) for person in is_source.tolist())
    return GraphProblem(graph.edges, root, target, neg_target, len(used), names)


def generate_prontoqa(rng: np.random.Generator) -> GraphProblem:
    """Draw a ProntoQA problem laid out as the five-hop rows of the released files.

    A person (vertex 0) is a member of the first of five chained concepts and of a decoy; all of
    these branch off, and a stranger has no rule at all. Properties are vertices too: the target
    is the last chained concept's property, the negative target its negation, which the stranger
    has. The five rules of the chain are thus six edges from the person.
    """
    person, chain, decoy, stranger = 0, [1, 2, 3, 4, 5], 6, 14
    branches = [(c, 6 + c) for c in chain] + [(chain[-1], 12), (decoy, 13)]
    rules = [(person, 1), *itertools.pairwise(chain), (person, decoy), *branches]
    # As in the files two leaves have no property: the decoy's branch and one of the last's.
    holders = [chain[-1], stranger, *(c for c in range(1, 12) if c != chain[-1])]
    target, neg_target = 15, 16
    edges = rules + [(holder, target + k) for k, holder in enumerate(holders)]

    words = rng.permutation(PROPERTIES)[:12]
    words[1] = words[0]
    negated = rng.random(12) < 0.3
    negated[0] = rng.random() < 0.5
    negated[1] = not negated[0]
    names = (
        str(rng.choice(PEOPLE)),
        *rng.permutation(CONCEPTS)[:14].tolist(),
        *(f"not {word}" if no else str(word) for word, no in zip(words, negated, strict=True)),
    )
    return GraphProblem(np.array(edges), person, target, neg_target, len(names), names)


# --- symbols --------------------------------------------------------------------------------


EDGE_END = ";"


def vocabulary(max_nodes: int) -> tuple[str, ...]:
    """Specials, one symbol ``N0..N{max_nodes-1}`` for each vertex, and one that ends an edge."""
    return (*SPECIALS, *(f"N{i}" for i in range(max_nodes)), EDGE_END)


def node_ids(nodes: Ints) -> Ints:
    """Vocabulary ids of vertices, same shape."""
    return nodes + len(SPECIALS)


def said_so_far(problem: GraphProblem, queries: Ints) -> Mask:
    """What the edges say of each vertex that is named, by the time it is named.

    These are soft targets for the tokens of a prompt that lists the edges in order and then asks
    about vertices: the vertex itself, the ends of the edges from it that were listed before, and,
    for the end of an edge, where that edge comes from.

    Args:
        queries: (Q,) vertices that are named after all the edges.

    Returns:
        (2 E + Q, n), from-vertex and to-vertex of every edge in turn and then the queries.
    """
    edges = problem.edges
    known = np.eye(problem.n_nodes, dtype=np.bool_)
    rows = []
    for a, b in edges:
        rows += [known[a].copy(), known[b].copy()]
        rows[-1][a] = True
        known[a, b] = True
    return np.stack([*rows, *known[queries]])


def relabel(problem: GraphProblem, rng: np.random.Generator, max_nodes: int) -> GraphProblem:
    """Give the vertices random numbers below ``max_nodes`` and the edges a random order.

    Vertices are numbered in the order of construction, so a model could read a depth out of a
    number, or the search out of the order of the edges. Unused numbers get the name "".
    """
    if problem.n_nodes > max_nodes:
        raise ValueError(f"{problem.n_nodes} vertices do not fit into {max_nodes} symbols")
    number = rng.permutation(max_nodes)[: problem.n_nodes]
    names = np.full(max_nodes, "", dtype=object)
    names[number] = problem.names
    return GraphProblem(
        edges=number[rng.permutation(problem.edges)],
        root=int(number[problem.root]),
        target=int(number[problem.target]),
        neg_target=int(number[problem.neg_target]),
        n_nodes=max_nodes,
        names=tuple(names),
    )
