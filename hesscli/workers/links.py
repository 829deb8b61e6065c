"""Connections between the first worker and each of the others, made before TensorFlow starts.

They use the address that the cluster gives the first worker: it listens there until all are
connected, then TensorFlow takes the port, while the connections stay. Messages are JSON objects,
one a line.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hesscli.system.errors import InputError, reason
from hesscli.workers.cluster import Cluster

# How long a worker may not be there, or be silent, before the others give it up. Within a minute
# they have all ended.
PATIENCE_SECONDS = 45.0
# What a connection may take to be made, or a message to be sent.
_TRANSFER_SECONDS = 10.0
_RETRY_SECONDS = 0.1
# How often both ends say that they live.
SPEAK_SECONDS = 2.0
_RECEIVED_BYTES = 2**16
# What says hello is no worker where its line is longer.
_HELLO_BYTES = 2**16

Message = Mapping[str, Any]


class LostError(Exception):
    """The other end of a link is gone."""


@dataclass
class Link:
    """A connection to the worker called ``index``."""

    index: int
    socket: socket.socket
    heard: float = field(default_factory=time.monotonic)
    _rest: bytes = b""

    def send(self, message: Message) -> None:
        """Raises LostError where it cannot be sent."""
        try:
            self.socket.sendall(json.dumps(message).encode("ascii") + b"\n")
        except OSError as error:
            raise LostError(reason(error)) from error

    def receive(self) -> list[Message]:
        """The messages that have arrived, waiting for some; raises LostError at the end of all."""
        try:
            received = self.socket.recv(_RECEIVED_BYTES)
        except OSError as error:
            raise LostError(reason(error)) from error
        if not received:
            raise LostError("its connection is closed")
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + received).split(b"\n")
        try:
            return [json.loads(line) for line in lines]
        except ValueError as error:
            raise LostError("it says what no worker says") from error


class NotAllThereError(InputError):
    """Workers that have not started in time, or do not belong to this cluster."""


def gather(cluster: Cluster, hello: Message) -> tuple[list[Link], list[Message]]:
    """For the first worker: a link to each of the others, and what each said first.

    Raises NotAllThereError after PATIENCE_SECONDS, and tells it those that are there; InputError
    where the address cannot be listened at.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    links: dict[int, Link] = {}
    hellos: dict[int, Message] = {0: hello}
    with _listening(cluster) as listener:
        while len(links) < cluster.count - 1:
            left = deadline - time.monotonic()
            listener.settimeout(max(min(left, SPEAK_SECONDS), 0.001))
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                if left <= 0:
                    missing = [i for i in range(1, cluster.count) if i not in links]
                    refuse_all(list(links.values()), _not_started(cluster, missing))
                tell(list(links.values()), {})
            except OSError:
                # Gone before it was taken.
                continue
            else:
                said = _first_message(connection)
                if said is None:
                    # Whatever it was, it was no worker.
                    connection.close()
                    continue
                index = said["index"]
                link = Link(index, connection)
                if said["count"] != cluster.count or not 0 < index < cluster.count:
                    refuse_all(
                        [*links.values(), link],
                        f"the worker at {_peer(connection)} is number {index} of {said['count']}, "
                        f"{cluster.name_of(0)} has a cluster of {cluster.count}; "
                        f"{cluster.origin} must be the same for all but for the index",
                    )
                if index in links:
                    refuse_all(
                        [*links.values(), link],
                        f"two workers say that they are {cluster.name_of(index)}; each has an "
                        "index of its own",
                    )
                links[index], hellos[index] = link, said
    order = range(1, cluster.count)
    return [links[i] for i in order], [hellos[i] for i in range(cluster.count)]


def join(cluster: Cluster, hello: Message) -> Link:
    """For the others: the link to the first worker, which knows ``hello`` from then on.

    Raises NotAllThereError where it does not start within PATIENCE_SECONDS, InputError where the
    own address is taken.
    """
    # TensorFlow would find out later, and say it in more words.
    _listening(cluster).close()
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise NotAllThereError(_not_started(cluster, [0]))
        try:
            connection = socket.create_connection(
                cluster.host_and_port(0), timeout=min(left, _TRANSFER_SECONDS)
            )
        except OSError:
            time.sleep(min(left, _RETRY_SECONDS))
            continue
        if connection.getsockname() == connection.getpeername():
            # On one machine a port that nobody listens at can be given to who tries it.
            connection.close()
            continue
        link = Link(0, _configured(connection))
        with suppress(LostError):
            link.send({**hello, "index": cluster.index, "count": cluster.count})
            return link


def refuse_all(links: list[Link], line: str) -> None:
    """Ends the workers at the other ends of ``links`` with ``line``; raises it."""
    tell(links, {"end": line, "code": 2})
    raise NotAllThereError(line)


def tell(links: list[Link], message: Message) -> None:
    """Sends to those that are still there."""
    for link in links:
        with suppress(LostError):
            link.send(message)


def _not_started(cluster: Cluster, missing: list[int]) -> str:
    names = ", ".join(cluster.name_of(index) for index in missing)
    return f"{names} did not start within {PATIENCE_SECONDS:g} s; all workers must be started"


def _listening(cluster: Cluster) -> socket.socket:
    host, port = cluster.host_and_port(cluster.index)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        )[0]
        # Elsewhere the address that others know need not be this machine's own.
        local = ipaddress.ip_address(address[0]).is_loopback
        listener = socket.socket(family, kind, protocol)
        # TensorFlow listens here when the connections that were made are still there.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address[0] if local else "", port))
        listener.listen(cluster.count)
    except OSError as error:
        raise InputError(
            f"{cluster.origin}: {cluster.name_of(cluster.index)} cannot listen at its address "
            f"({reason(error)}); one of this machine with a free port is needed"
        ) from error
    return listener


def _first_message(connection: socket.socket) -> Message | None:
    """The line that a worker begins with; None where it is none, or does not come."""
    _configured(connection)
    received = b""
    try:
        while not received.endswith(b"\n") and len(received) < _HELLO_BYTES:
            more = connection.recv(_RECEIVED_BYTES)
            if not more:
                return None
            received += more
        said = json.loads(received)
    except (OSError, ValueError):
        return None
    kinds = {"index": int, "count": int, "facts": dict}
    is_hello = isinstance(said, dict) and all(
        type(said.get(key)) is kind for key, kind in kinds.items()
    )
    return said if is_hello else None


def _configured(connection: socket.socket) -> socket.socket:
    connection.settimeout(_TRANSFER_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _peer(connection: socket.socket) -> str:
    with suppress(OSError):
        return str(connection.getpeername()[0])
    return "another address"
