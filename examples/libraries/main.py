"""A program that uses the library and knows nothing of checkpoints."""

import clients

print(clients.default.ask("what a copy asks"))
