"""An application of ASGI: `uvicorn app:app`, `hypercorn app:app`."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import fastapi
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
    """Say when it begins to serve, and when it ends: once in each copy."""
    print(f"process {os.getpid()} begins to serve", flush=True)
    yield
    print(f"process {os.getpid()} ends", flush=True)


app = fastapi.FastAPI(lifespan=lifespan)
squares = pd.Series(range(1000)) ** 2


@app.get("/health")
async def health() -> dict[str, int]:
    """Answer with what identifies this process."""
    return {"pid": os.getpid()}


@app.get("/squares/{number}")
def square(number: int) -> dict[str, int]:
    """Answer with a square, from a thread."""
    return {"square": int(squares[number])}
