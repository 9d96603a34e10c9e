"""Other ways to start a program sooner, and the programs that these need."""
