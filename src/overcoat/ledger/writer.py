"""Writes what is added in batches, from a thread of its own, so that no call waits for a database."""

from __future__ import annotations

import atexit
import logging
import sys
from collections import deque
from collections.abc import Callable, Sequence
from threading import Event, Lock, RLock, Thread
from typing import Generic, TypeVar

from overcoat.errors import OvercoatError

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("overcoat")

_BATCH = 1000  # items in one transaction


class Writer(Generic[T, R]):
    """A queue, and a thread that empties it at every interval; it begins with the first item.

    What cannot be written is kept and tried again, in the same batches, until the queue is full; items beyond that are
    dropped, counted and logged.

    Args:
        prepare: Turns an item into rows. Called once for each, in the thread.
        write: Writes rows, all or none, and raises where it cannot. Called by one thread at a time.
        name: What is written, for log lines.
        interval: Seconds.
        most_pending: How many items are kept.
    """

    def __init__(
        self,
        prepare: Callable[[T], Sequence[R]],
        write: Callable[[Sequence[R]], None],
        *,
        name: str,
        interval: float = 1.0,
        most_pending: int,
    ) -> None:
        self._prepare = prepare
        self._write = write
        self._name = name
        self._interval = interval
        self._most_pending = most_pending
        self.dropped = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget thread, locks and items, which in a forked process are those of the other."""
        self._queue: deque[T] = deque()
        self._taken = 0
        self._rows: list[R] = []
        # The second is reentrant, as the garbage collector ends abandoned calls, which are added then, at any moment.
        self._writing, self._starting = Lock(), RLock()
        self._thread: Thread | None = None
        self._stop = Event()
        self._failing = False
        self._told = self.dropped

    @property
    def pending(self) -> int:
        """How many items are not written yet."""
        return len(self._queue) + self._taken

    def add(self, item: T) -> None:
        """Have *item* written within the interval. It never blocks."""
        if self.pending >= self._most_pending:
            with self._starting:
                self.dropped += 1
            return
        self._queue.append(item)
        if self._thread is None:
            self._start()

    def flush(self) -> None:
        """Write all that was added, in the calling thread; what `write` raises is passed on, and nothing is lost."""
        with self._writing:
            while self._rows or self._queue:
                if not self._rows:
                    self._take()
                if self._rows:
                    self._write(self._rows)
                self._rows, self._taken = [], 0

    def close(self) -> None:
        """End the thread, and write what is left as `flush` does; another item begins it again."""
        with self._starting:
            thread, self._thread = self._thread, None
            self._stop.set()
            self._stop = Event()
            atexit.unregister(self._at_exit)  # here: another thread may be begun, and registered, while this one ends
        if thread is not None:
            thread.join()
        self.flush()
        self._tell_dropped(all_of_them=True)

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            self._thread = Thread(target=self._run, args=(self._stop,), name="overcoat-ledger", daemon=True)
            self._thread.start()
            atexit.register(self._at_exit)
        if "multiprocessing.process" in sys.modules:
            from multiprocessing import parent_process, util  # noqa: PLC0415 - for its children only

            if parent_process() is not None:  # which before Python 3.13 end without what atexit has
                util.Finalize(self, self._at_exit, exitpriority=0)

    def _run(self, stop: Event) -> None:
        while not stop.wait(self._interval):
            try:
                self.flush()
            except Exception as error:  # whatever it is, it is said, the rows are kept, and calls go on
                if not self._failing:
                    unforeseen = not isinstance(error, OvercoatError)
                    logger.warning(
                        "%s; calls kept until it can be written: %d", error, self.pending, exc_info=unforeseen
                    )
                self._failing = True
            else:
                if self._failing:
                    logger.warning("%s is written again", self._name)
                self._failing = False
            self._tell_dropped(all_of_them=not self._failing)

    def _take(self) -> None:
        """Move a batch out of the queue. As rows, it stays the same however often it is tried."""
        for _ in range(min(_BATCH, len(self._queue))):
            item = self._queue.popleft()
            try:
                self._rows.extend(self._prepare(item))
            except Exception:
                # A record that nobody foresaw must not keep the others from being written.
                logger.exception("a call cannot be put into %s", self._name)
                self.dropped += 1
            else:
                self._taken += 1

    def _tell_dropped(self, *, all_of_them: bool) -> None:
        # Each time that it has doubled, since an outage can last for days.
        if self.dropped > self._told and (all_of_them or self.dropped >= 2 * self._told):
            logger.error("%s lacks calls that are lost: %d", self._name, self.dropped)
            self._told = self.dropped

    def _at_exit(self) -> None:
        try:
            self.close()
        except Exception as error:  # noqa: BLE001 - at the end of a process, all that is left is to say so
            logger.error("%s; calls that are lost: %d", error, self.pending)  # noqa: TRY400 - the error says where and why
