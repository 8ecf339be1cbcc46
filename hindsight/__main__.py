"""`python -m hindsight` is the command `hindsight`."""

from hindsight.cli import app

app()
