"""A task of Celery that needs pandas."""

import pandas as pd
from celery import Celery

app = Celery("tasks")


@app.task
def total(number: int) -> float:
    """Return something that pandas has computed."""
    return float(pd.Series(range(number)).sum())
