"""Restores by the thousand, side by side, under signals and in odd address spaces; see ``make stress``."""
