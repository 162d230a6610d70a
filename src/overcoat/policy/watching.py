"""`PolicyWatch`: a policy whose file is read again when it changes, and the clients that follow it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from overcoat.arithmetic.durations import Duration, seconds
from overcoat.client import Changing, Stack
from overcoat.policy.loading import Policy, path_of
from overcoat.record import ReloadResult
from overcoat.shared import renewing

logger = logging.getLogger("overcoat")


class PolicyWatch:
    """A policy that follows its file, for `wrap`; `Policy.watch` makes it.

    Each call is made by the version that holds when it begins. At the beginning of a call, but not more often than
    once in *every* so many seconds, the file is looked at. Where it has changed, and has been left alone for as long,
    so that nobody is still writing it, it is read in a thread: the calls of that time are made by the version before.
    What makes no sense, what is not there, and what a client's own settings in code do not go with changes nothing: the
    last good version goes on, the log says so once, and the file is still watched. So there is neither a task nor a
    timer, and where there are no calls there is no work.

    State survives: breakers, limits and retry budgets that the file names have their state by that name, and layers
    whose settings stay the same are the same. Clients that are made for fallbacks are kept as well.

    Attributes:
        policy: The version that holds.
        rejected: Why the file as it is now does not hold; None where it does.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, every: Duration, environment: Mapping[str, str] | None
    ) -> None:
        self._every = seconds(every, "Policy.watch(every=...)", zero=True)
        self._environment = environment
        self._path = path_of(path, os.environ if environment is None else environment)
        self._read = _Look.at(self._path)
        self.policy = Policy.load(self._path, environment=environment)
        self.rejected: Exception | None = None
        self._clients: WeakSet[Following] = WeakSet()
        self._untold: list[ReloadResult] = []
        self._changed = self._read
        self._due: WeakKeyDictionary[asyncio.AbstractEventLoop, float] = WeakKeyDictionary()  # each has its own clock
        self._asked = False
        self._reading: asyncio.Future[Any] | None = None
        self._lock = Lock()
        self._one_at_a_time = Lock()

    def check_now(self) -> None:
        """Have the next call begin to read the file, whatever it looks like; may be called by a signal's handler."""
        self._asked = True

    async def reload(self) -> None:
        """Read the file now, and wait until it holds.

        Raises:
            PolicyError: It makes no sense; the version before goes on.
        """
        if (error := await asyncio.get_running_loop().run_in_executor(None, self._reload)) is not None:
            raise error

    def untold(self) -> Sequence[ReloadResult]:
        """Return what has become of changes to the file and no call has told of yet; the one that asks will."""
        if not self._untold:
            return ()
        with self._lock:
            untold, self._untold = self._untold, []
        return untold

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the file where that is due, and have it read where it has changed."""
        now = loop.time()
        if self._asked or now >= self._due.get(loop, -math.inf):
            self._due[loop] = now + self._every
            self._look(loop)

    def add(self, client: Following) -> None:
        """Have *client* follow; it gets its first stack."""
        while True:
            policy = self.policy
            stack = client.stacked(policy)
            with self._lock:
                if policy is self.policy:  # else another version came meanwhile
                    client.stack = stack
                    self._clients.add(client)
                    return

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        look = _Look.at(self._path)
        still = look == self._changed or (look is not None and time.time_ns() - look.modified >= self._every * 1e9)
        self._changed = look
        if self._asked or (look != self._read and still):
            self._begin_to_read(loop)

    def _begin_to_read(self, loop: asyncio.AbstractEventLoop) -> None:
        before = self._reading
        if before is not None and not before.done() and not before.get_loop().is_closed():
            return
        self._asked = False
        try:
            self._reading = loop.run_in_executor(None, self._reload)
        except RuntimeError:
            # The loop or the process is about to end, and takes no more work. This call need not suffer for that.
            logger.warning("the policy file %s is not read again: there is no thread for it", self._path, exc_info=True)
        else:
            self._reading.add_done_callback(self._finished)

    def _finished(self, _: object) -> None:
        self._reading = None  # or it would hold on to the loop

    def _reload(self) -> Exception | None:
        """Read the file, and make it hold; return why that is not possible. Runs in a thread."""
        with self._one_at_a_time:
            self._read = _Look.at(self._path)  # before it is read: what changes meanwhile is seen the next time
            try:
                policy = Policy.load(self._path, environment=self._environment)
                if policy != self.policy or self.rejected is not None:
                    self._apply(policy)
            except Exception as error:  # noqa: BLE001 - also those of what makes clients: whatever it is, calls go on
                self._reject(error.with_traceback(None))
                return error
        return None

    def _apply(self, policy: Policy) -> None:
        stacks: dict[Following, Stack] = {}
        with renewing() as changes:  # of breakers and limits, which the version before may have to go on with
            while True:
                with self._lock:
                    waiting = [client for client in self._clients if client not in stacks]
                    if not waiting:
                        self.policy, self.rejected = policy, None
                        for client, stack in stacks.items():
                            client.stack = stack
                        self._untold.append("applied")
                        break
                for client in waiting:
                    stacks[client] = client.stacked(policy)
        for change in changes:
            change()
        logger.info("the policy file %s has changed, and holds", self._path)

    def _reject(self, error: Exception) -> None:
        again = str(error) == str(self.rejected)
        self.rejected = error
        if again:
            return
        with self._lock:
            self._untold.append("rejected")
        mistakes = "; ".join(str(error).splitlines()) or repr(error)
        logger.error("the policy file %s is rejected, and the last good one goes on: %s", self._path, mistakes)


class Following(Changing):
    """The client that `wrap` makes of a policy that is watched: a stack, which is replaced when the file changes."""

    __slots__ = ("__weakref__", "_stacked", "_watch", "stack")

    stack: Stack

    def __init__(self, watch: PolicyWatch, stacked: Callable[[Policy, Stack | None], Stack]) -> None:
        self._watch = watch
        self._stacked = stacked
        watch.add(self)

    def stacked(self, policy: Policy) -> Stack:
        """Return the stack that *policy* makes, with the state of the present one.

        Raises:
            PolicyError: *policy* does not go with what code says.
        """
        return self._stacked(policy, getattr(self, "stack", None))

    async def call(self, conversation: Any, options: Any, event: Any, json_mode: bool = False) -> str | None:
        """Answer *conversation* by the policy that holds now; see `Stack.call`."""
        reloads = self._watch.untold()
        stack = self.stack.noting(reloads) if reloads else self.stack
        self._watch.look(asyncio.get_running_loop())  # for those that come later, however quickly it is read
        return await stack.call(conversation, options, event, json_mode)

    def __getattr__(self, name: str) -> Any:
        if name == "stack" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.stack, name)

    def __repr__(self) -> str:
        return repr(self.stack)


class _Look(NamedTuple):
    """What tells a file from another without reading it."""

    modified: int
    size: int
    inode: int
    mode: int

    @classmethod
    def at(cls, path: str) -> _Look | None:
        """Look at *path*; None where there is nothing to be seen, for whatever reason: who reads it says which."""
        try:
            found = os.stat(path)  # noqa: PTH116 - a Path takes longer to make than this takes
        except OSError:
            return None
        return cls(found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode)
