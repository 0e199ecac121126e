"""What every environment fulfils, as a mixin for test classes."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import CloudpickleWrapper, iterate

from latentgym.testing.checks import (
    AnyVectorEnv,
    check_task,
    check_vector_env,
    equal,
    one_row,
    play,
)

# A latent is a vector without bounds, of which Gymnasium's checker warns.
_ALLOWED = r".*(Box action space (minimum|maximum) value is|symmetric and normalized space)"


class EnvConformance:
    """What every environment of the library fulfils: a mixin for test classes.

    Attributes:
        env_id: the id, registered with Gymnasium.
        options: keyword arguments of `gymnasium.make`.
        processes: whether to try Gymnasium's asynchronous vectorization too, which takes a second.
        segments: whether it takes whole segments of actions.
        atol: by how much real numbers of a row may differ with its neighbours: a model multiplies
            large batches in another order than small ones.
    """

    env_id: ClassVar[str]
    options: ClassVar[Mapping[str, Any]] = {}
    processes: ClassVar[bool] = True
    segments: ClassVar[bool] = True
    atol: ClassVar[float] = 0.0

    def make(self, **more: Any) -> Any:
        """The single environment without wrappers."""
        return gym.make(self.env_id, **self.options, **more).unwrapped

    def make_vec(self, num_envs: int, **more: Any) -> Any:
        """The vector environment; resets are left to the agent unless asked otherwise."""
        options = {**self.options, "autoreset_mode": AutoresetMode.DISABLED.value, **more}
        return gym.make_vec(self.env_id, num_envs=num_envs, **options)

    def test_gymnasium_accepts_it(self) -> None:
        env = self.make()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=_ALLOWED)
            check_env(env)

    def test_vector_env_is_sound(self) -> None:
        check_vector_env(self.make_vec)

    def test_task_is_sound(self) -> None:
        check_task(self.make().task)

    def test_vector_equals_stacked_singles(self) -> None:
        vector, running = self.make_vec(2), {0: self.make(), 1: self.make()}
        for action, result in play(vector, seed=7):
            actions = [] if action is None else list(iterate(vector.action_space, action))
            for i, env in list(running.items()):
                *told, info = one_row(result, i)
                if action is None:
                    observation, alone_info = env.reset(seed=7 + i)
                    alone = [observation, 0.0, False, False]
                else:
                    *alone, alone_info = env.step(actions[i])
                what = f"row {i} tells {told}, but alone {alone}"
                assert equal(told, alone, self.atol), what
                if alone[2] or alone[3]:
                    del running[i]
                assert equal(info, alone_info, self.atol), (
                    f"row {i} tells {info}, but alone {alone_info}"
                )

    def test_vectorization_modes_agree(self) -> None:
        for mode in AutoresetMode:
            expected = list(drive(self.make_vec(2, autoreset_mode=mode.value), seed=3))
            both = self.processes and mode is AutoresetMode.NEXT_STEP
            for kind in ("sync", "async") if both else ("sync",):
                made = {"vectorization_mode": kind, "vector_kwargs": {"autoreset_mode": mode}}
                options: dict[str, Any] = {**self.options, **made}
                env = gym.make_vec(self.env_id, num_envs=2, **options)
                for ours, theirs in zip(expected, drive(env, 3), strict=True):
                    what = f"the {kind} environment differs ({mode.value}): {theirs}, not {ours}"
                    assert equal(ours, theirs, self.atol), what
                env.close()

    def test_segments_equal_steps(self) -> None:
        if not self.segments:
            return
        env, vector, tokens, total = self.make(), self.make_vec(1), [], 0.0
        env.action_space.seed(5)
        env.reset(seed=5)
        ended = False
        while not ended:
            *steps, info = env.step(env.action_space.sample())
            tokens.append(int(steps[0]["token"]))
            total, ended = total + steps[1], steps[2] or steps[3]
        steps[1] = total
        for whole in (env, vector):
            whole.reset(seed=5)
            result = whole.step_segment(tokens if whole is env else [tokens])
            *segment, segment_info = result if whole is env else one_row(result, 0)
            assert equal(segment, steps), f"a segment gives {segment}, but its steps {steps}"
            assert segment_info == info, f"a segment tells {segment_info}, but its steps {info}"

    def test_spec_survives_json(self) -> None:
        env = self.make()
        again = gym.make(EnvSpec.from_json(env.spec.to_json())).unwrapped
        assert equal(env.reset(seed=9), again.reset(seed=9)), "the spec lost something"
        json.dumps(env.reset(seed=9)[1])

    def test_copies_by_pickle_go_on_alike(self) -> None:
        env = self.make()
        env.action_space.seed(2)
        env.reset(seed=2)
        # Gymnasium's wrapper pickles by cloudpickle, as its asynchronous environments do.
        copy = pickle.loads(pickle.dumps(CloudpickleWrapper(env))).fn
        action = env.action_space.sample()
        assert equal(env.step(action), copy.step(action)), "the copy steps differently"
        assert equal(env.reset(), copy.reset()), "the copy draws another question"

    def test_render_is_text(self) -> None:
        env = self.make(render_mode="ansi")
        env.reset(seed=1)
        assert isinstance(env.render(), str) and bool(env.render()), "ansi renders no text"


def drive(env: AnyVectorEnv, seed: int, steps: int = 24) -> Iterator[tuple[Any, ...]]:
    """Random steps, with a reset of the rows that are over where nothing else resets them."""
    env.action_space.seed(seed)
    yield env.reset(seed=seed)
    for _ in range(steps):
        result = env.step(env.action_space.sample())
        yield result
        over = result[2] | result[3]
        if over.any() and env.metadata["autoreset_mode"] is AutoresetMode.DISABLED:
            yield env.reset(options={"reset_mask": over})
