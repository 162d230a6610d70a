"""What a store of budgets must do, in a dozen lines; and a machine that holds a store to it, step by step."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from overcoat.arithmetic.calendar import parse_window
from overcoat.arithmetic.reservation import Denied, Want

HOUR = 3_600_000
LEASE = 60.0

WINDOWS = {
    "hourly": parse_window("calendar hour", None, "Test"),
    "sliding": parse_window("1h", None, "Test"),
    "ever": parse_window(None, None, "Test"),
}


@dataclass
class Part:
    account: str
    slice: int
    amount: int
    actual: int | None = None


@dataclass
class Model:
    """Everything that was ever reserved, and what counts of it."""

    leases: bool
    now: int
    parts: dict[str | int, list[Part]] = field(default_factory=dict)
    expires: dict[str | int, int] = field(default_factory=dict)
    settled: set[str | int] = field(default_factory=set)

    def standing(self, account):
        """What counts now: as spent what is settled or whose lease has ended, and as reserved what is open."""
        oldest = WINDOWS[account].at(self.now).oldest
        spent = reserved = 0
        for id_, parts in self.parts.items():
            for part in parts:
                if part.account != account or part.slice < oldest:
                    continue
                if id_ in self.settled:
                    spent += part.actual
                elif self.leases and id_ not in self.expires:
                    spent += part.amount
                else:
                    reserved += part.amount
        return spent, reserved

    def expire(self):
        for id_, expires in list(self.expires.items()):
            if expires <= self.now:
                del self.expires[id_]

    def reserve(self, held, wants):
        self.parts[held.id] = [Part(want.account, want.window.at(self.now).id, want.amount) for want in wants]
        self.expires[held.id] = self.now + int(LEASE * 1000)

    def settle(self, held, amounts):
        if held.id in self.settled:
            return
        self.settled.add(held.id)
        self.expires.pop(held.id, None)
        for part, amount in zip(self.parts[held.id], amounts, strict=True):
            part.actual = amount

    def renew(self, held):
        if held.id in self.expires:
            self.expires[held.id] = self.now + int(LEASE * 1000)


amounts = st.integers(0, 60) | st.sampled_from([0, 100, 101])
accounts = st.lists(st.sampled_from(sorted(WINDOWS)), min_size=1, max_size=3, unique=True)
steps = st.one_of(
    st.tuples(st.just("reserve"), accounts.flatmap(lambda names: st.fixed_dictionaries(dict.fromkeys(names, amounts)))),
    st.tuples(st.just("settle"), st.tuples(st.integers(0, 9), st.lists(amounts, min_size=3, max_size=3))),
    st.tuples(st.just("renew"), st.integers(0, 9)),
    st.tuples(st.just("pass"), st.sampled_from([1, 500, 30_000, 60_000, HOUR // 60, HOUR // 2, HOUR, 3 * HOUR])),
)


async def drive(store, clock, script, *, limit=100):
    """Play a script of steps on the store, and hold it to the model after each; *clock* is a list of one Unix time."""
    model = Model(store.lease is not None, int(clock[0] * 1000))
    held = []
    overruns = 0
    for kind, what in script:
        if kind == "pass":
            clock[0] += what / 1000
            model.now = int(clock[0] * 1000)
        elif kind == "reserve":
            model.expire()
            wants = [Want(name, WINDOWS[name], limit, amount) for name, amount in what.items()]
            before = {want.account: model.standing(want.account) for want in wants}
            outcome = await store.reserve(wants)
            room = [sum(before[want.account]) + want.amount <= limit for want in wants]
            if isinstance(outcome, Denied):
                assert outcome.which == room.index(False)
                assert outcome.standing == before[wants[outcome.which].account]
                check_prediction(model, wants[outcome.which], outcome, limit)
            else:
                assert all(room)
                model.reserve(outcome, wants)
                held.append((outcome, wants))
        elif held:
            which, *rest = what if kind == "settle" else (what,)
            one, wants = held[which % len(held)]
            if kind == "renew":
                await store.renew(one)
                model.renew(one)
                continue
            actual = rest[0][: len(wants)]
            if one.id not in model.settled:
                overruns += sum(max(0, a - want.amount) for a, want in zip(actual, wants, strict=True))
            _, standings = await store.settle(one, actual)
            model.settle(one, actual)
            assert [tuple(each) for each in standings] == [model.standing(want.account) for want in wants]
        for name in WINDOWS:
            assert sum(model.standing(name)) <= limit + overruns
    for one, wants in held:
        await store.settle(one, [want.amount for want in wants])
        model.settle(one, [want.amount for want in wants])
        model.now = int(clock[0] * 1000)
    if held:
        one, _ = held[0]
        wants = [Want(name, window, None, 0) for name, window in WINDOWS.items()]
        _, standings = await store.settle(one._replace(wants=wants), [0] * len(wants))
        assert [tuple(each) for each in standings] == [(model.standing(name)[0], 0) for name in WINDOWS]


def check_prediction(model, want, denied, limit):
    """There is no room before it is said, and there is when it is said."""
    assert (denied.room_at is None) == (
        want.amount > limit or (want.account == "ever" and denied.standing.spent + denied.standing.reserved > 0)
    )
    oldest = want.window.at(model.now).oldest
    counted = [
        (part.slice, part.actual if id_ in model.settled else part.amount)
        for id_, parts in model.parts.items()
        for part in parts
        if part.account == want.account and part.slice >= oldest
    ]

    def left(at):
        return sum(amount for slice_, amount in counted if slice_ >= want.window.at(at).oldest)

    if denied.room_at is not None:
        assert left(denied.room_at) + want.amount <= limit
        assert left(denied.room_at - 1) + want.amount > limit
        assert denied.not_before is not None
        assert denied.not_before <= denied.room_at
