"""Tasks and agents by name, as data: entry points are strings that load when they are used.

To add a task or an agent, write its file and add its line here. Those of other packages come from
their entry points, from `register_task`, or from a module that stands before an id.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from latentgym.errors import UsageError, did_you_mean, told
from latentgym.system import plugins
from latentgym.system.functions import named
from latentgym.system.plugins import load

FAMILY_NAMES = ("token", "hybrid", "continuous")

_MATHS = "GSM8K GSM8KAug GSMHard SVAMP MultiArith MATH MATH500 AIME2024 AIME2025"
_SEARCH = "MNNS ProsQA ProntoQA"
_RETRIEVAL = "NQ TriviaQA HotpotQA 2WikiMultihopQA Bamboogle"
_RECOMMENDATION = "AmazonCDs AmazonOffice AmazonIndustrial MovieLens"

# The procedural tasks of Reasoning Gym 0.1, without `composite`, which is a mixture of others.
_REASONING_GYM = """
    ab acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf
    binary_alternation binary_matrix bitwise_arithmetic boxnet caesar_cipher calendar_arithmetic
    chain_sum circuit_logic codeio coin_flip color_cube_rotation complex_arithmetic count_bits
    count_primes countdown course_schedule cryptarithm decimal_arithmetic decimal_chain_sum dice
    emoji_mystery family_relationships figlet_font fraction_simplification futoshiki
    game_of_life game_of_life_halting gcd graph_color group_anagrams gsm_symbolic
    intermediate_integration isomorphic_strings jugs kakurasu knight_swap knights_knaves
    largest_island lcm leg_counting letter_counting letter_jumble list_functions mahjong_puzzle
    manipulate_matrix maze mini_sudoku modulo_grid n_queens needle_haystack number_filtering
    number_format number_sequence number_sorting palindrome_generation palindrome_partitioning
    path_star polynomial_equations polynomial_multiplication pool_matrix power_function
    prime_factorization products propositional_logic puzzle24 quantum_lock ransom_note rearc
    rectangle_count rotate_matrix rotten_oranges rubiks_cube rush_hour self_reference
    sentence_reordering shortest_path simple_equations simple_geometry simple_integration
    sokoban spell_backward spiral_matrix string_insertion string_manipulation string_splitting
    string_synthesis sudoku survo syllogism time_intervals tower_of_hanoi tsumego word_ladder
    word_sequence_reversal word_sorting zebra_puzzles
"""

REASONING_GYM_PREFIX = "RG_"

TASKS: dict[str, str] = {
    **dict.fromkeys(_MATHS.split(), "latentgym.envs.catalogue:make_maths"),
    **dict.fromkeys(_SEARCH.split(), "latentgym.envs.catalogue:make_search"),
    **dict.fromkeys(_RETRIEVAL.split(), "latentgym.envs.qa:make_qa"),
    **dict.fromkeys(_RECOMMENDATION.split(), "latentgym.envs.recommend:make_recommend"),
    **dict.fromkeys(
        (REASONING_GYM_PREFIX + name for name in _REASONING_GYM.split()),
        "latentgym.envs.catalogue:make_reasoning_gym",
    ),
    "Custom": "latentgym.envs.custom:make_custom",
}
"""Task names, each with the function that makes it."""

AGENTS: dict[str, str] = {
    "best-of-n": "latentgym.agents.best_of_n:BestOfN",
    "coconut": "latentgym.agents.coconut:Coconut",
    "colar-grpo": "latentgym.agents.colar_grpo:CoLaR",
    "cot": "latentgym.agents.cot:CoT",
    "ctrls": "latentgym.agents.ctrls:CTRLS",
    "hrpo": "latentgym.agents.hrpo:HRPO",
    "latentr3": "latentgym.agents.latentr3:LatentR3",
    "latentseek": "latentgym.agents.latentseek:LatentSeek",
    "ltpo": "latentgym.agents.ltpo:LTPO",
    "mts-grpo": "latentgym.agents.mts_grpo:MTSGRPO",
    "multiplex": "latentgym.agents.multiplex:Multiplex",
    "self-reflection": "latentgym.agents.self_reflection:SelfReflection",
    "soft-grpo": "latentgym.agents.soft_grpo:SoftGRPO",
    "soft-thinking": "latentgym.agents.soft_thinking:SoftThinking",
    "soft-tokens": "latentgym.agents.soft_tokens:SoftTokens",
    "swireasoning": "latentgym.agents.swireasoning:SwiReasoning",
    "tarpo": "latentgym.agents.tarpo:TARPO",
}
"""Agent names, each with its class."""

NAMESPACE = "latent"

RENAMED: Mapping[str, str] = {"cue": "prompt_suffix"}
"""Settings of agents that older checkpoints and records have under another name."""

ADDED: Mapping[str, Mapping[str, Any]] = {
    "optimisation": {"eps": 1e-8, "optimizer": "adamw"},
    "grpo": {
        "loss": "clip",
        "micro_tokens": 0,
        "rewards": [],
        "completions": "text",
        "dynamic_sampling": 0,
        "truncated": "keep",
        "overlong_buffer": 0,
        "kl_in": "loss",
        "reference_every": 0,
        "entropy": 0.0,
    },
}
"""What settings of agents were before there was a choice, by the group that has them."""

GROUPS: Mapping[str, dict[str, str]] = {"latentgym.tasks": TASKS, "latentgym.agents": AGENTS}
"""Groups of entry points by which other packages announce theirs."""

_NAME = re.compile(r"\w[\w.-]*", re.ASCII)  # of a task or agent, as ids and options have them
_MODULES: dict[str, str] = {}  # of tasks of other packages: what makes them known

NAMING = ("grader",)
"""Options of environments whose values may name a function, `module:function`."""

RESERVED = frozenset(
    "id task family model dynamics num_envs autoreset_mode vectorization_mode vector_kwargs "
    "wrappers".split()
)
"""Arguments that are no options of an environment: whoever makes it says them."""


def env_ids() -> Iterator[tuple[str, str, str]]:
    """All environment ids with their task and family."""
    for task in TASKS:
        for family in FAMILY_NAMES:
            yield f"{NAMESPACE}/{task}-{family}", task, family


def register_envs() -> None:
    """Register every id with Gymnasium; ids that are there already stay."""
    import gymnasium

    for env_id, task, family in env_ids():
        if env_id not in gymnasium.registry:
            gymnasium.register(
                id=env_id,
                entry_point="latentgym.envs:LatentEnv",
                vector_entry_point="latentgym.envs:make_vec",
                kwargs={"task": task, "family": family},
            )


def register_task(name: str, entry_point: str) -> None:
    """Add a task of your own as `latent/<name>-token`, `-hybrid` and `-continuous`.

    Called while a module is imported, it lets `module:latent/<name>-token` name the task anywhere,
    as Gymnasium has it; records name that module.

    Args:
        name: of the task.
        entry_point: `module:function`; the function takes the name, the action family, a model's
            tokenizer or None, and a mapping of options, and gives a `latentgym.envs.Task`. A
            `latentgym.envs.TaskMaker` has its options checked.

    Raises:
        UsageError: there is another task of that name, or it can be no part of an id.
    """
    if fault := _fault(TASKS, name, entry_point):
        raise UsageError(f"{fault}; choose another name.")
    if name not in TASKS:
        TASKS[name] = entry_point
        _MODULES[name] = sys._getframe(1).f_globals["__name__"]
    register_envs()


def _fault(known: Mapping[str, str], name: str, entry_point: str) -> str | None:
    """Why there cannot be a task or agent of that name, if so."""
    if _NAME.fullmatch(name) is None:
        return f"{name!r} is no name of letters, digits, '_', '.' and '-'"
    what = "a task" if known is TASKS else "an agent"
    taken = known.get(name, entry_point) != entry_point
    return f"there is {what} {name!r} already" if taken else None


def read_plugins() -> None:
    """Add what installed packages announce by entry points. Nothing of theirs is imported.

    What cannot be added is told when its name is used, or all names are listed.
    """
    for each in plugins.announced(GROUPS):
        known = GROUPS[each.group]
        if fault := _fault(known, each.name, each.entry_point):
            what = f"the entry point {each.name!r} of the package {each.package}"
            plugins.refuse(each.name, f"{what} is left out: {fault}")
            continue
        known[each.name] = each.entry_point
        if known is TASKS:
            _MODULES[each.name] = each.entry_point.partition(":")[0]


def split_module(env: str) -> tuple[str | None, str]:
    """The module before an id, if there is one, and the full id; `latent/` may be left out."""
    module, colon, name = env.rpartition(":")
    return module if colon else None, name if "/" in name else f"{NAMESPACE}/{name}"


def task_name(env_id: str) -> str:
    """The task in a full id, whether there is such a task or not."""
    return env_id.removeprefix(f"{NAMESPACE}/").rpartition("-")[0]


def modules_of(agent: str | None, env_id: str) -> dict[str, str]:
    """The modules of other packages behind an agent and an environment, as records name them.

    Args:
        agent: module of its class; None for who is no agent.
        env_id: full id of the environment.

    Returns:
        By "agent" and "env"; what is ours, or a script's own, is not among them.
    """
    found = {"agent": agent, "env": _MODULES.get(task_name(env_id))}
    return {what: module for what, module in found.items() if module and plugins.foreign(module)}


def resolve(env: str) -> tuple[str, str, str]:
    """Full id, task and family of an environment; a module before it is imported.

    Raises:
        UsageError: no such id or module.
    """
    module, env_id = split_module(env)
    if module is not None:
        plugins.import_named(module)
    known = {known_id: (known_id, task, family) for known_id, task, family in env_ids()}
    if env_id not in known:
        after = f", though {module} was imported" if module else ""
        raise UsageError(f"no environment {env_id!r}{after}; {_nearest(env_id)}")
    return known[env_id]


def qualified(env: str) -> str:
    """The id with which another process finds an environment: behind its module, if it has one.

    Raises:
        UsageError: no such id.
    """
    env_id, _, _ = resolve(env)
    module = modules_of(None, env_id).get("env")
    return env_id if module is None else f"{module}:{env_id}"


def recorded(env: str, modules: Mapping[str, str] | None, where: object) -> str:
    """The environment that a file names, which may be anyone's, as `resolve` takes it.

    Its module is imported only where the environment is not known without it.

    Args:
        env: its id.
        modules: the modules that the file names.
        where: the file or its folder, for messages.

    Raises:
        UsageError: it needs a module that is not trusted.
    """
    module, env_id = split_module(env)
    module = module or (modules or {}).get("env")
    if module is None or task_name(env_id) in TASKS:
        return env_id
    plugins.require_trusted(module, where)
    return f"{module}:{env_id}"


def recorded_options(options: Mapping[str, Any], where: object) -> dict[str, Any]:
    """The options of an environment that a file names, which may be anyone's.

    Args:
        options: of them, one may name a function: a grader of somebody's own.
        where: the file or its folder, for messages.

    Raises:
        UsageError: it needs a module that is not trusted.
    """
    for name in NAMING:
        if named(value := options.get(name)):
            plugins.require_trusted(value.partition(":")[0], where)
    return dict(options)


def task_maker(name: str) -> Any:
    """What makes the tasks of that name: a `latentgym.envs.TaskMaker`, or somebody's function.

    Raises:
        UsageError: no such task.
    """
    plugins.tell_refused(name)
    if name not in TASKS:
        raise UsageError(f"no task {name!r}; {did_you_mean(name, TASKS)}")
    maker = load(TASKS[name])
    if not callable(maker):
        raise UsageError(f"{TASKS[name]} makes no task, as it is {told(maker)}; name a function.")
    return maker


def current(settings: Any) -> Any:
    """An agent's stored settings under the names that they have now, with what was no choice."""
    if not isinstance(settings, Mapping):
        return settings
    return {
        RENAMED.get(name, name): {**ADDED[name], **value}
        if name in ADDED and isinstance(value, Mapping)
        else value
        for name, value in settings.items()
    }


def current_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored of a run, with its settings under the names that they have now."""
    return {key: current(value) if key == "config" else value for key, value in run.items()}


def stored_fault(options: Any) -> str | None:
    """Why stored options of an environment, which may be anyone's, are none; None if they are."""
    if not isinstance(options, dict):
        return "its env_options are no options by name"
    if said := sorted(RESERVED & options.keys()):
        return f"{' and '.join(said)} cannot be among its env_options"
    return None


def _nearest(env_id: str) -> str:
    """The ids nearest to one that there is not: task and family are compared apart.

    What ids have in common would make any two of them alike.
    """
    word = env_id.removeprefix(f"{NAMESPACE}/")
    task, _, family = word.rpartition("-") if "-" in word else (word, "", "")
    names = {_own_name(name): name for name in TASKS}
    wanted = _own_name(task)
    near = [wanted] if wanted in names else difflib.get_close_matches(wanted, names, 3, 0.5)
    families = difflib.get_close_matches(family, FAMILY_NAMES, 1, 0.5) or FAMILY_NAMES
    ids = [repr(f"{NAMESPACE}/{names[each]}-{kind}") for each in near for kind in families]
    return f"did you mean {' or '.join(ids[:3])}?" if ids else "latentgym envs lists all."


def _own_name(task: str) -> str:
    return task.casefold().removeprefix(REASONING_GYM_PREFIX.casefold())


def make_vector_env(env_id: str, /, num_envs: int, **options: Any) -> Any:
    """`gymnasium.make_vec` for an agent that says itself when a row gets a new question.

    Its errors name the nearest ids.

    Raises:
        UsageError: no such id, or an argument that cannot work.
    """
    import gymnasium

    env_id, _, _ = resolve(env_id)
    if "autoreset_mode" in options:
        raise UsageError(
            "this environment leaves all resets to the agent; leave autoreset_mode out, or use "
            "gymnasium.make_vec."
        )
    return gymnasium.make_vec(env_id, num_envs=num_envs, autoreset_mode="Disabled", **options)
