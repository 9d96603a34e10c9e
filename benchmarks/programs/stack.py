"""Embed the rows of a table with a tiny transformer: torch, transformers, pandas."""

from __future__ import annotations

import pandas as pd
import torch
from transformers import BertConfig, BertModel


def main() -> None:
    """Build a model of random weights, run it over a table, print the shape."""
    table = pd.DataFrame({"text": [[1, 2, 3, 4], [5, 6, 7, 8]]})
    config = BertConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    model = BertModel(config).eval()
    with torch.inference_mode():
        answer = model(input_ids=torch.tensor(table["text"].tolist()))
    print("ready", tuple(answer.last_hidden_state.shape), flush=True)


if __name__ == "__main__":
    main()
