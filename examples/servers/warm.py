"""Have the application answer before the snapshot: `libcriu-py snapshot --preload warm ...`."""

from app import app

from libcriu_py import warm_app

warm_app(app, ["/health", "/squares/12"])
