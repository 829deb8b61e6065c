"""The workers of a cluster as one of them sees them: they agree, add up, and end together.

TensorFlow's all-reduce waits for a worker that is gone until TensorFlow notices, and then says
little of which one it was. So the workers watch each other themselves: each of the others has a
connection to the first one, on which both ends speak every few seconds. When a process ends its
connections close at once; when a machine or its network is gone it falls silent. The first worker
tells the others. Whoever hears of it ends its process there and then: the thread that computes is
inside TensorFlow or a BLAS, and can be ended in no other way.
"""

from __future__ import annotations

import hashlib
import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from numpy.typing import NDArray

from hesscli.system.errors import InputError, NumericalError
from hesscli.system.files import BEING_WRITTEN
from hesscli.workers.allreduce import Sum, all_reduce
from hesscli.workers.cluster import Cluster
from hesscli.workers.links import (
    PATIENCE_SECONDS,
    SPEAK_SECONDS,
    Link,
    LostError,
    Message,
    gather,
    join,
    tell,
)

# At the end the first worker waits so long for the others to be gone.
_LEAVE_SECONDS = 5.0
# Neither a verdict nor an interruption: what was asked for needs workers that are there.
_LOST = 2
# Longer values are told apart by their SHA-256.
_SHOWN_LENGTH = 60

# What shows the line that a process ends with.
Say = Callable[[str], None]
Facts = Mapping[str, Any]


class Team:
    """One worker and the others of its cluster (a hesscli.workers.share.Workers).

    ``facts`` is what all of them must have in common, from the key to its value as messages name
    them. Raises InputError where a worker does not start or has other facts.
    """

    def __init__(self, cluster: Cluster, facts: Facts, say: Say) -> None:
        self._cluster = cluster
        self._say = say
        self._lock = threading.RLock()
        self._news = threading.Condition(self._lock)
        self._ending = False
        self._settled = False
        self._agreed: dict[int, Facts] = {}
        self._agreements = 0
        self._code: int | None = None
        self._sum: Sum | None = None
        # How many sums this worker has asked for, and in all those that have asked for their last.
        self._sums = 0
        self._ended_after: dict[int, int] = {}
        hello = {"facts": {**facts, "cluster": ", ".join(cluster.addresses)}}
        if cluster.index == 0:
            self._links, hellos = gather(cluster, hello)
            self._require_same([said["facts"] for said in hellos])
            tell(self._links, {"agreed": 0})
        else:
            self._links = [join(cluster, hello)]
        self._open = list(self._links)
        threading.Thread(target=self._watch, daemon=True).start()
        if cluster.index != 0:
            self._wait_for(lambda: self._agreements > 0)

    @property
    def index(self) -> int:
        return self._cluster.index

    @property
    def count(self) -> int:
        return self._cluster.count

    @property
    def here(self) -> int:
        return self._cluster.here

    @property
    def first(self) -> bool:
        """Whether this is the worker that reports."""
        return self.index == 0

    def agree(self, facts: Facts) -> None:
        """Holds ``facts`` of all workers against each other; raises InputError where one differs.

        All workers must call it, one after the other in any time.
        """
        if not self.first:
            with self._lock:
                awaited = self._agreements + 1
            self._tell({"agree": facts})
            self._wait_for(lambda: self._agreements >= awaited)
            return
        self._wait_for(lambda: len(self._agreed) == self.count - 1)
        with self._lock:
            others, self._agreed = self._agreed, {}
        self._require_same([facts, *(others[i] for i in range(1, self.count))])
        self._tell({"agreed": 1})

    def start(self) -> None:
        """Starts TensorFlow's cluster, before TensorFlow is used for anything else."""
        if self.count > 1:
            self._sum = all_reduce(self._cluster)

    def sum(self, values: NDArray[Any]) -> NDArray[Any]:
        """The sum over the workers: hesscli.workers.share.Workers."""
        if self._sum is None:
            return values
        with self._lock:
            self._sums += 1
            gone = self._gone_before_us()
        if gone is not None:
            raise NumericalError(self._apart(gone))
        try:
            return self._sum(values)
        except Exception:
            # TensorFlow notices before we do where a worker is silent, but does not name it.
            time.sleep(PATIENCE_SECONDS + SPEAK_SECONDS)
            raise

    def settle(self) -> None:
        """For the first worker, which has all it needs: nobody's loss ends it from now on."""
        with self._lock:
            self._stay_if_ending()
            self._settled = True

    def failed(self, line: str, code: int) -> None:
        """Ends the other workers with this one's name, ``line`` and ``code``."""
        with self._lock:
            self._stay_if_ending()
            self._ending = True
        named = f"{self._cluster.name_of(self.index)}: {line}"
        self._tell({"end" if self.first else "failed": named, "code": code})

    def finish(self, code: int) -> int:
        """The code that all workers end with, which is the first one's ``code``.

        It waits for the others.
        """
        if not self.first:
            self._tell({"finished": self._sums})
            self._wait_for(lambda: self._code is not None)
            assert self._code is not None
            return self._code
        with self._lock:
            self._settled = True
        self._tell({"done": code, "finished": self._sums})
        with self._news:
            self._news.wait_for(lambda: not self._open, _LEAVE_SECONDS)
        return code

    def _gone_before_us(self) -> int | None:
        """A worker that has ended its computation while this one asks for another sum."""
        return next((i for i, sums in self._ended_after.items() if sums < self._sums), None)

    def _apart(self, index: int) -> str:
        """As when two processors round otherwise, and a loop takes a step more on one of them."""
        return (
            f"{self._cluster.name_of(index)} has ended its computation after "
            f"{self._ended_after[index]} sums, {self._cluster.name_of(self.index)} asks for one "
            "more; use machines that are alike"
        )

    def _tell(self, message: Message) -> None:
        with self._lock:
            tell(self._links, message)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        """Waits, while the thread that watches ends the process where a worker is lost."""
        with self._news:
            # Without a limit Python would not hear Ctrl-C.
            while not self._news.wait_for(condition, SPEAK_SECONDS):
                pass

    def _stay_if_ending(self) -> None:
        if self._ending:
            # The other thread ends the process: one line, not two.
            self._news.wait(PATIENCE_SECONDS)

    def _require_same(self, facts: list[Facts]) -> None:
        difference = _difference(self._cluster, facts)
        if difference is not None:
            with self._lock:
                self._stay_if_ending()
                # Those who are told leave at once: that is no loss.
                self._settled = True
            tell(self._links, {"end": difference, "code": _LOST})
            raise InputError(difference)

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for link in self._links:
                selector.register(link.socket, selectors.EVENT_READ, link)
            spoken = 0.0
            while self._open:
                for key, _ in selector.select(SPEAK_SECONDS):
                    self._hear(key.data, selector)
                now = time.monotonic()
                if now - spoken >= SPEAK_SECONDS:
                    spoken = now
                    self._tell({})
                for link in list(self._open):
                    if now - link.heard > PATIENCE_SECONDS:
                        self._lost(link, f"silent for {PATIENCE_SECONDS:g} s", selector)

    def _hear(self, link: Link, selector: selectors.BaseSelector) -> None:
        try:
            messages = link.receive()
        except LostError as error:
            self._lost(link, str(error), selector)
            return
        for message in messages:
            with self._news:
                if "finished" in message:
                    self._ended_after[link.index] = message["finished"]
                if "agree" in message:
                    self._agreed[link.index] = message["agree"]
                elif "agreed" in message:
                    self._agreements += 1
                elif "done" in message and self._gone_before_us() is None:
                    self._code, self._settled = message["done"], True
                self._news.notify_all()
            apart = self._gone_before_us()
            if apart is not None:
                self._end(self._apart(apart), _LOST)
            if "failed" in message:
                self._end(message["failed"], message["code"], besides=link)
            elif "end" in message:
                self._end(message["end"], message["code"])

    def _lost(self, link: Link, why: str, selector: selectors.BaseSelector) -> None:
        selector.unregister(link.socket)
        with self._news:
            self._open.remove(link)
            self._news.notify_all()
        name = self._cluster.name_of(link.index)
        self._end(f"{name} was lost: {why}", _LOST, besides=link)

    def _end(self, line: str, code: int, besides: Link | None = None) -> None:
        """Ends the process, and from the first worker the others, unless it is ending anyway."""
        with self._lock:
            if self._ending or self._settled:
                return
            self._ending = True
        if self.first:
            tell([link for link in self._links if link is not besides], {"end": line, "code": code})
        # A file that is being written is written whole.
        with BEING_WRITTEN:
            with suppress(OSError, ValueError):
                self._say(line)
            os._exit(code)


def _difference(cluster: Cluster, facts: list[Facts]) -> str | None:
    """The first worker whose facts are not the first one's, and what it is."""
    mine = facts[0]
    for index, theirs in enumerate(facts):
        for key in dict.fromkeys((*mine, *theirs)):
            if mine.get(key) != theirs.get(key):
                return (
                    f"{cluster.name_of(index)} has {key} {_text(theirs.get(key))}, "
                    f"{cluster.name_of(0)} has {_text(mine.get(key))}; all workers must have the "
                    "same"
                )
    return None


def _text(value: Any) -> str:
    text = "none" if value is None else str(value)
    if len(text) <= _SHOWN_LENGTH:
        return text
    return f"of SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"
