"""Other people's software, with its real servers on loopback: `make test-integrations`."""
