"""PPO in one file: a controller steers a frozen language model through its latents.

The model stands inside the environment. At every step the controller sees its last hidden state and
its likeliest next tokens, and says what it reads next: a superposition of them (`mixture`), a
vector (`latent`), or one of them (`token`). The model answers by itself; the reward is the task's.

    latentgym train cot latent/MNNS-token --preset sft-tiny -o arrow=true --out runs/mnns
    python examples/ppo.py --dynamics runs/mnns --interface mixture
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

import latentgym

gym.register_envs(latentgym)


@dataclass
class Settings:
    env: str = "latent/MNNS-continuous"
    dynamics: str = "tiny"
    interface: Literal["mixture", "latent", "gate", "token"] = "mixture"
    options: dict[str, Any] = field(default_factory=dict)  # of the environment
    total_steps: int = 100_000
    num_envs: int = 256
    num_steps: int = 8  # of each row between two updates
    epochs: int = 4
    minibatches: int = 4
    lr: float = 1e-3
    gamma: float = 1.0  # the reward comes at the end of a short episode
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.0
    hidden: int = 128
    seed: int = 0


class Controller(nn.Module):
    """What to let the model read, and what that is worth."""

    def __init__(self, space: gym.spaces.Dict, actions: gym.Space, hidden: int) -> None:
        super().__init__()
        seen = sum(int(np.prod(part.shape)) for part in space.values())
        self.discrete = isinstance(actions, gym.spaces.Discrete)
        size = int(actions.n) if self.discrete else int(actions.shape[0])
        self.trunk = nn.Sequential(
            nn.Linear(seen, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        self.act, self.worth = nn.Linear(hidden, size), nn.Linear(hidden, 1)
        nn.init.orthogonal_(self.act.weight, 0.01)  # it begins with what the model does by itself
        nn.init.zeros_(self.act.bias)
        self.log_std = nn.Parameter(torch.full((size,), -1.5))

    def forward(self, seen: dict[str, Tensor]) -> tuple[Any, Tensor]:
        x = self.trunk(torch.cat([part.flatten(1) for part in seen.values()], dim=1))
        if self.discrete:
            policy = Categorical(logits=self.act(x) + seen["log_probs"])
        else:
            policy = Normal(self.act(x), self.log_std.exp())
        return policy, self.worth(x)[:, 0]

    def log_prob(self, policy: Any, action: Tensor) -> Tensor:
        logp = policy.log_prob(action)
        return logp if self.discrete else logp.sum(-1)

    @torch.no_grad()
    def best(self, seen: dict[str, Tensor]) -> np.ndarray:
        policy, _ = self(seen)
        return (policy.logits.argmax(-1) if self.discrete else policy.mean).numpy()


def make(o: Settings, num_envs: int, **options: Any) -> gym.vector.VectorEnv:
    return gym.make_vec(
        o.env,
        num_envs=num_envs,
        dynamics=o.dynamics,
        interface=o.interface,
        observe=["hidden", "log_probs", "steps_left"],
        **{**o.options, **options},
    )


def tensors(seen: dict[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(part) for name, part in seen.items()}


def train(o: Settings) -> tuple[Controller, list[tuple[int, float]]]:
    """The controller, and the mean reward of finished episodes by environment steps."""
    torch.manual_seed(o.seed)
    env = make(o, o.num_envs, autoreset_mode="SameStep")
    controller = Controller(env.single_observation_space, env.single_action_space, o.hidden)
    optimizer = torch.optim.Adam(controller.parameters(), lr=o.lr, eps=1e-5)
    seen, _ = env.reset(seed=o.seed)
    curve, batch = [], o.num_envs * o.num_steps
    for steps in range(batch, o.total_steps + 1, batch):
        optimizer.param_groups[0]["lr"] = o.lr * (1 - (steps - batch) / o.total_steps)
        stored, earned = [], []
        for _ in range(o.num_steps):
            x = tensors(seen)
            with torch.no_grad():
                policy, value = controller(x)
                action = policy.sample()
                logp = controller.log_prob(policy, action)
            seen, reward, terminated, truncated, _ = env.step(action.numpy())
            over = torch.from_numpy(terminated | truncated)
            stored.append((x, action, logp, value, torch.from_numpy(reward).float(), over))
            earned += reward[over.numpy()].tolist()
        curve.append((steps, float(np.mean(earned or [0.0]))))
        with torch.no_grad():
            _, value = controller(tensors(seen))
        advantage, advantages = torch.zeros(o.num_envs), []
        for _, _, _, before, reward, over in reversed(stored):
            on = (~over).float()  # behind the end of an episode nothing is to be had
            delta = reward + o.gamma * on * value - before
            advantage = delta + o.gamma * o.gae_lambda * on * advantage
            advantages.append(advantage)
            value = before
        update(o, controller, optimizer, stored, torch.stack(advantages[::-1]).flatten())
    return controller, curve


def update(o: Settings, controller: Controller, optimizer: Any, stored: Any, adv: Tensor) -> None:
    """Some epochs of clipped steps on what was stored."""
    seen = {name: torch.cat([x[name] for x, *_ in stored]) for name in stored[0][0]}
    action, logp, value = (torch.cat([step[i] for step in stored]) for i in (1, 2, 3))
    target = adv + value
    adv = (adv - adv.mean()) / (adv.std() + 1e-8)
    for _ in range(o.epochs):
        for rows in torch.randperm(len(adv)).chunk(o.minibatches):
            policy, now = controller({name: part[rows] for name, part in seen.items()})
            ratio = (controller.log_prob(policy, action[rows]) - logp[rows]).exp()
            clipped = ratio.clamp(1 - o.clip, 1 + o.clip)
            gain = torch.minimum(ratio * adv[rows], clipped * adv[rows]).mean()
            loss = 0.5 * (now - target[rows]).square().mean() - gain
            loss = loss - o.entropy * policy.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(controller.parameters(), 0.5)
            optimizer.step()


def evaluate(o: Settings, controller: Controller | None, questions: int = 1000) -> float:
    """Accuracy on test questions without noise; zeros are the actions without a controller."""
    env = make(o, o.num_envs, split="test", autoreset_mode="Disabled")
    n, right = min(questions, env.unwrapped.n_questions), 0.0
    for first in range(0, n, o.num_envs):
        asked = np.arange(first, first + o.num_envs)
        counted = asked < n
        seen, _ = env.reset(options={"index": asked % n})
        over = np.zeros(o.num_envs, dtype=bool)
        while not over.all():
            still = np.zeros(env.action_space.shape, dtype=env.action_space.dtype)
            action = still if controller is None else controller.best(tensors(seen))
            seen, reward, terminated, truncated, _ = env.step(action)
            right += float(reward[counted].sum())
            over |= terminated | truncated
    return right / n


if __name__ == "__main__":
    settings = tyro.cli(Settings)
    # A latent of zeros is a vector that the model never chose; otherwise zeros are its own choice.
    alone = (
        "zeros in place of thoughts" if settings.interface == "latent" else "without a controller"
    )
    print(f"{alone}: {evaluate(settings, None):.1%}")
    trained, rewards = train(settings)
    for at, mean in rewards[:: max(1, len(rewards) // 20)]:
        print(f"{at:>9,} steps: {mean:.1%} of the answers right")
    print(f"with the controller: {evaluate(settings, trained):.1%}")
