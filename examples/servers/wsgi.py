"""An application of WSGI: `gunicorn wsgi:app`."""

from __future__ import annotations

import os

import flask
import pandas as pd

app = flask.Flask(__name__)
squares = pd.Series(range(1000)) ** 2


@app.get("/health")
def health() -> dict[str, int]:
    """Answer with what identifies this process."""
    return {"pid": os.getpid()}


@app.get("/squares/<int:number>")
def square(number: int) -> dict[str, int]:
    """Answer with a square."""
    return {"square": int(squares[number])}
