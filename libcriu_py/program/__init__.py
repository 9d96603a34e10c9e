"""The main program: what it is, what it imports, and how to run it as Python would."""
