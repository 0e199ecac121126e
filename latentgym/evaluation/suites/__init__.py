"""Suites: tables of results, each a command of `latentgym` that is run once per seed.

A suite is a file in TOML: those that come with the library lie here, and anybody's own works the
same. `reading` makes cells of it, `cells` says what a cell is, `running` runs them, `costs` puts
methods beside each other at equal cost, `record` keeps mean and interval over seeds beside the
paper's figure.
"""
