"""N questions at once, with a language model inside: what is thought acts in the environment.

Legend: N rows, B of them that act, k likeliest tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from latentgym.envs.dynamics.interfaces import INTERFACES, Likeliest, Setting
from latentgym.envs.dynamics.loading import as_model, check_vocabulary
from latentgym.envs.dynamics.options import OF_FAMILY, SEEN, DynamicsOptions
from latentgym.envs.dynamics.shaping import GoldGain
from latentgym.envs.episodes import BoolArray, Observation, batched
from latentgym.envs.vector import Gained, IntArray, LatentVectorEnv, batch_of_one
from latentgym.episodes.protocol import Phase
from latentgym.episodes.spaces import as_array
from latentgym.errors import ActionError, UsageError, did_you_mean
from latentgym.heads.top import top_k
from latentgym.rollout.decoder import RowDecoder
from latentgym.system.options.keywords import check, keywords

_BOUND = 100.0  # of what is observed, in its own scale
_MEASURED = 8  # prompts by which the scale of hidden states is known


class LatentDynamics(LatentVectorEnv):
    """A batched environment whose thoughts a language model reads.

    The model stands inside: `step` gives it the action as its next input, and the observation is
    what it makes of that. So any learner that knows boxes can think in latents. It stays as it is:
    nothing here trains it.

    Args:
        envs: a batched environment of ours, without wrappers; its questions, rules, number of rows
            and autoreset mode are taken over, its episodes are not.
        lm: the model: a `LatentLM`, a `Policy` (whose prompt suffix is read too), the name of a
            model, or the folder of a training run.
        options: keyword arguments as `DynamicsOptions` has them.

    Observations are a `Dict` of those that `observe` names:

        hidden: the last hidden state divided by `hidden_scale`, fp32 (D,), within +-100.
        log_probs: of the k likeliest next tokens, in falling order, fp32 (k,), -100 at least.
        tokens: these tokens, int64 (k,).
        phase: as the plain observation has it.
        steps_left: share of the budget of the phase, fp32 (1,).
        task: the plain observation.

    Raises:
        OptionError: it takes no argument of that name.
        UsageError: a value that cannot work; a model of another vocabulary, or with too few
            positions or too little memory for the episodes.

    Attributes:
        lm: the model.
        hidden_scale: what hidden states are divided by; root mean square of those behind a few
            prompts, unless it is given. Keep it with a controller that was trained with it.
    """

    def __init__(self, envs: LatentVectorEnv, lm: Any, **options: Any) -> None:
        if not isinstance(envs, LatentVectorEnv) or isinstance(envs, LatentDynamics):
            raise UsageError(
                "LatentDynamics goes around a batched environment of latentgym without wrappers, "
                "as gymnasium.make_vec gives it; put wrappers around LatentDynamics instead."
            )
        vars(self).update(vars(envs.another()))  # the same task and rules, episodes of its own
        name = f"{self.task.name} with a model inside"
        check(options, keywords(DynamicsOptions), name)
        self.dynamics = o = DynamicsOptions(**options)
        self.lm, self._suffix = as_model(lm, self.task, o)
        check_vocabulary(self.lm, self.task)
        _check_entries(o.observe)
        if o.k > self.lm.vocab_size:
            raise UsageError(
                f"k = {o.k} likeliest tokens are asked of a vocabulary of {self.lm.vocab_size}; "
                "choose a smaller k."
            )
        self.hidden_size = self.lm.hidden_size
        table_VD = self.lm.table_VD.detach()
        interface = INTERFACES[o.interface or OF_FAMILY[self.family.name]]
        self._interface = interface(Setting(table_VD, o, self.family, self.support))
        self._answers = o.answered_by == "model"
        self.hidden_scale = o.hidden_scale or self._measured_scale()
        self.single_action_space = self._interface.space
        self.action_space = batched(self.single_action_space, self.num_envs)
        self.single_observation_space = self._seen_space()
        self.observation_space = batched(self.single_observation_space, self.num_envs)
        self._begin()

    def _begin(self) -> None:
        super()._begin()
        n, k, coefficient = self.num_envs, self.dynamics.k, self.dynamics.shaping
        self._shaping = GoldGain(self.task, n, coefficient) if coefficient else None
        self._decoder = RowDecoder(self.lm, n)
        self._logp_Nk = torch.full((n, k), -_BOUND, device=self.lm.device)
        self._ids_Nk = torch.zeros(n, k, dtype=torch.long, device=self.lm.device)

    def check_segment(self, tokens: IntArray) -> None:
        raise UsageError(
            "an environment with a model inside takes one action at a time, as it reads each; call "
            "step, or leave dynamics out and think in an engine of your own."
        )

    # Episodes.

    def _start(self, mask: BoolArray, chosen: Any = None, group: int = 1) -> None:
        super()._start(mask, chosen, group)
        rows, episodes = np.flatnonzero(mask), self.episodes
        if not rows.size:
            return
        prompts = [
            [*episodes.prompt(row), *self._suffix, *episodes.inserted(row)] for row in rows.tolist()
        ]
        try:
            with self.lm.decoding():
                self._decoder.start(rows, prompts, self.protocol.max_steps)
                self._look(rows)
                if self._shaping is not None:
                    self._shaping.start(self._decoder, episodes, rows)
        except BaseException:
            episodes.state.phase[rows] = Phase.DONE  # the model has not read their prompts
            raise

    def _act(self, actions: Any, acting_N: BoolArray) -> Gained:
        n = self.num_envs
        if isinstance(actions, Mapping):
            actions = {name: as_array(part, name) for name, part in actions.items()}
            parts = [*actions.values()]
        else:
            parts = [actions := as_array(actions, "a batch of actions")]
        for part in parts:
            if part.shape[:1] != (n,):
                raise ActionError(f"{n} rows need an action each, but got {part.shape}.")
        return self._move(np.flatnonzero(acting_N), _pick(actions, acting_N))

    def act_in(self, row: int, action: Any) -> tuple[float, dict[str, Any]]:
        rewards, finals = self._move(np.array([row]), batch_of_one(action))
        return float(rewards[row]), finals.get(row, {})

    def _move(self, rows: IntArray, actions: Any) -> Gained:
        """Let rows act, and those whose answer is the model's say it.

        Args:
            rows: that act, (B,).
            actions: theirs, batched.
        """
        with self.lm.decoding():
            thinking_B = self.episodes.state.phase[rows] == Phase.THINK
            mine_B = thinking_B | (not self._answers)
            rewards, finals = np.zeros(self.num_envs), dict[int, dict[str, Any]]()
            if mine_B.any():
                mine = rows[mine_B]
                seen = Likeliest(self._ids_Nk[mine], self._logp_Nk[mine])
                token_B, x_BD = self._interface.read(_pick(actions, mine_B), seen)
                rewards, finals = self._read(mine, token_B, x_BD)
                if self._shaping is not None:
                    rewards += self._shaping.reward(self._decoder, self.episodes, rows[thinking_B])
            while (speaking := self._speaking(rows)).size:
                gained, ended = self._read(speaking, self._ids_Nk[speaking, 0], None)
                rewards += gained
                finals |= ended
        if self._shaping is not None:
            self._shaping.tell(finals)
        return rewards, finals

    def _speaking(self, rows: IntArray) -> IntArray:
        """Those of the rows whose next token the model says by itself."""
        answering_B = self.episodes.state.phase[rows] == Phase.ANSWER
        return rows[answering_B] if self._answers else rows[:0]

    def _read(self, rows: IntArray, token_B: Tensor, x_BD: Tensor | None) -> Gained:
        """Take actions to the episodes, and what they and the environment say to the model.

        Args:
            rows: that act, (B,).
            token_B: by which their actions are read.
            x_BD: what the model reads of thoughts; None where there are none.
        """
        episodes, n = self.episodes, self.num_envs
        acting_N = np.isin(np.arange(n), rows)
        token_N = np.zeros(n, dtype=np.int64)
        token_N[rows] = token_B.cpu().numpy()
        rewards, finals = episodes.act(token_N, acting_N)
        episodes.respond()
        plain_BD = self.lm.embed(token_B)
        if x_BD is not None:
            as_token_B1 = torch.from_numpy(episodes.as_token_N[rows]).to(token_B.device)[:, None]
            plain_BD = torch.where(as_token_B1, plain_BD, x_BD.to(plain_BD.dtype))
        live_B = ~episodes.state.done[rows]
        if live_B.any():
            live = rows[live_B]
            at = torch.from_numpy(np.flatnonzero(live_B)).to(token_B.device)
            self._decoder.read(live, plain_BD[at])
            inserting = [row for row in live.tolist() if episodes.speaks(row)]
            if inserting:
                ids = [episodes.inserted(row) for row in inserting]
                self._decoder.read_tokens(np.array(inserting), ids)
            self._look(live)
        return rewards, finals

    # What is seen.

    def _look(self, rows: IntArray) -> None:
        """Know the likeliest next tokens of these rows."""
        logits_BV = self.lm.logits(self._decoder.hidden_ND[rows])
        top_Bk, ids_Bk = top_k(logits_BV, self.dynamics.k)
        at = torch.from_numpy(rows).to(ids_Bk.device)
        self._logp_Nk[at] = top_Bk - logits_BV.logsumexp(-1, keepdim=True)
        self._ids_Nk[at] = ids_Bk

    def observe(self) -> Observation:
        seen: Observation = {}
        state, rules = self.episodes.state, self.protocol
        for entry in self.dynamics.observe:
            if entry == "hidden":
                scaled_ND = self._decoder.hidden_ND.float() / self.hidden_scale
                seen[entry] = scaled_ND.clamp(-_BOUND, _BOUND).cpu().numpy()
            elif entry == "log_probs":
                seen[entry] = self._logp_Nk.clamp(-_BOUND, 0).cpu().numpy()
            elif entry == "tokens":
                seen[entry] = self._ids_Nk.cpu().numpy().copy()
            elif entry == "phase":
                seen[entry] = state.phase.copy()
            elif entry == "steps_left":
                think = (rules.think.steps - state.think_used) / max(1, rules.think.steps)
                answer = (rules.answer.steps - state.answer_used) / max(1, rules.answer.steps)
                left_N = np.where(state.phase == Phase.ANSWER, answer, think) * ~state.done
                seen[entry] = left_N.astype(np.float32)[:, None]
            else:
                seen[entry] = super().observe()
        return seen

    def _seen_space(self) -> spaces.Dict:
        k, vocab = self.dynamics.k, self.lm.vocab_size
        known: Mapping[str, gym.Space[Any]] = {
            "hidden": spaces.Box(-_BOUND, _BOUND, (self.lm.hidden_size,), np.float32),
            "log_probs": spaces.Box(-_BOUND, 0.0, (k,), np.float32),
            "tokens": spaces.Box(0, vocab - 1, (k,), np.int64),
            "phase": spaces.Discrete(len(Phase)),
            "steps_left": spaces.Box(0.0, 1.0, (1,), np.float32),
            "task": self.episodes.observation_space(),
        }
        return spaces.Dict({entry: known[entry] for entry in self.dynamics.observe})

    def _measured_scale(self) -> float:
        some = np.linspace(0, self.n_questions - 1, min(_MEASURED, self.n_questions)).astype(int)
        decoder = RowDecoder(self.lm, len(some))
        with self.lm.decoding():
            decoder.start(np.arange(len(some)), [self.prompt(int(i)) for i in some], 0)
            return max(1e-6, float(decoder.hidden_ND.float().square().mean().sqrt()))


def _pick(actions: Any, which: BoolArray) -> Any:
    """The actions of some rows."""
    if isinstance(actions, Mapping):
        return {name: part[which] for name, part in actions.items()}
    return actions[which]


def _check_entries(observe: Sequence[str]) -> None:
    known = (*SEEN, "task")
    if not observe or not all(isinstance(entry, str) for entry in observe):
        raise UsageError(f"observe is a list of entries: {', '.join(known)}.")
    for entry in observe:
        if entry not in known:
            raise UsageError(f"an observation has no entry {entry!r}; {did_you_mean(entry, known)}")
