"""Training through OpenRLHF on Ray: the same agent, head, environment and reward on many machines.

All contact with OpenRLHF is in this folder. `job` says what is to be done and needs no OpenRLHF;
`launch.train` does it. Every other module imports OpenRLHF, after `shim.install()`.
"""
