"""Warm starts in the ways of other tools: each module needs one of them, an extra, and only its users import it."""
