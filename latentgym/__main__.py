"""`python -m latentgym`: the command line."""

from latentgym.cli.main import run

if __name__ == "__main__":
    run()
