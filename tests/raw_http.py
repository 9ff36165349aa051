"""Sockets that speak HTTP just well enough to be rude: cut anywhere, read slowly, vanish."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from http.client import HTTPConnection

from tests.service import PATIENCE, Service


class RawResponse:
    """One response over a connection of its own."""

    def __init__(
        self,
        service: Service,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        receive_buffer: int | None = None,
    ) -> None:
        """Ask for a path and read the answer's head.

        Args:
            service: Who is asked.
            path: With its query.
            headers: To send.
            receive_buffer: Bytes that the system may hold for us; ``None``: as usual.
        """
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(service.address)
        connection = HTTPConnection(*service.address)
        connection.sock = self.socket
        connection.request("GET", path, headers=dict(headers or {}))
        self._response = connection.getresponse()
        self.status = self._response.status

    def read(self, count: int) -> bytes:
        """So many bytes of the body, or what there is to its end."""
        return self._response.read(count)

    def rest(self) -> bytes:
        """The body up to its end, which ends the connection too."""
        body = self._response.read()
        self.close()
        return body

    def close(self) -> None:
        """Leave."""
        self._response.close()
        self.socket.close()
