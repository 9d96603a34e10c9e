"""Other ways to restore the same images, to compare with."""
