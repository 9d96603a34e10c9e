"""The main program: which one it is, what it imports, and how it is run as Python would run it."""
