"""Run a small network forward with torch on the CPU."""

from __future__ import annotations

import torch
from torch import nn


def main() -> None:
    """Build a network of two layers and print the shape of its answer."""
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 2))
    with torch.inference_mode():
        answer = net(torch.ones(8, 16))
    print("ready", tuple(answer.shape), flush=True)


if __name__ == "__main__":
    main()
