"""A library that holds a connection from its import on, and takes part in checkpoints."""

import socket

from libcriu_py.hooks import register


class Client:
    """A connection to a server, which here is the other end of a pair of sockets."""

    def __init__(self) -> None:
        """Connect."""
        self.connections = 0
        self._connect()
        register(self)  # weakly: a client that is gone is not registered any more

    def _connect(self) -> None:
        self._ours, self._server = socket.socketpair()
        self.connections += 1

    def ask(self, text: str) -> str:
        """Send a question, and return the answer."""
        self._ours.sendall(text.encode())
        return self._server.recv(100).decode().upper()

    def before_checkpoint(self) -> None:
        """Close what cannot be in a snapshot."""
        self._ours.close()
        self._server.close()

    def after_restore(self) -> None:
        """Connect anew."""
        self._connect()


default = Client()
