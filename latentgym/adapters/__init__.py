"""Our tasks and environments as other people's libraries take them.

Each module needs the library it is for: `sb3` Stable-Baselines3, `trl` TRL, `verifiers` verifiers.
TorchRL and what else takes Gymnasium's vector environments need none.
"""
