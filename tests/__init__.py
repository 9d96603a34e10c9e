"""The tests: `unit` needs neither root nor criu, `system` does the real thing."""
