"""Budgets in Redis, for all processes of all machines: each step is one script, which runs alone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from overcoat.arithmetic.reservation import KEPT, Denied, Standing, deny
from overcoat.budgets import Held, Settled
from overcoat.budgets.remote import LEASE, RETENTION, RemoteBudgets
from overcoat.errors import StoreUnavailable
from overcoat.stores.redis_client import RedisClient

if TYPE_CHECKING:
    from redis.asyncio import Redis

# An account is a hash: s<slice> is what was spent in a slice, r<slice> what is reserved. A reservation is a list of
# account, slice and amount, part by part; while it is open it stands in a sorted set, by when its lease ends. All keys
# have one hash tag, so that a cluster keeps them together.
_COMMON = """
local function minus(amount)
    return amount == '0' and amount or '-' .. amount
end
local function slice_of(field)
    return tonumber(string.sub(field, 2))
end
local function counted(account, oldest)
    local fields, found, spent, reserved = redis.call('HGETALL', account), {}, 0, 0
    for i = 1, #fields, 2 do
        if slice_of(fields[i]) >= oldest then
            found[#found + 1] = fields[i]
            found[#found + 1] = fields[i + 1]
            if string.sub(fields[i], 1, 1) == 's' then
                spent = spent + fields[i + 1]
            else
                reserved = reserved + fields[i + 1]
            end
        end
    end
    return spent, reserved, found, fields
end
local function add(account, kind, slice, amount)
    -- What was forgotten is long over, and must not come back without a time to live.
    if redis.call('EXISTS', account) == 1 then
        redis.call('HINCRBY', account, kind .. slice, amount)
    end
end
"""

# KEYS: the accounts, the reservation, the open reservations. ARGV: the reservation's id, from when and until when the
# slices are right, the lease, the retention, how many slices are kept, how ids become keys; then for each account
# slice, oldest slice, limit or -1, amount, time to live or -1.
_RESERVE = (
    _COMMON
    + """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now < tonumber(ARGV[2]) or now >= tonumber(ARGV[3]) then
    return {'clock', now}
end
local open, reservation, kept = KEYS[#KEYS], KEYS[#KEYS - 1], tonumber(ARGV[6])
for _, id in ipairs(redis.call('ZRANGEBYSCORE', open, '-inf', now, 'LIMIT', 0, 100)) do
    redis.call('ZREM', open, id)
    local parts = redis.call('LRANGE', ARGV[7] .. id, 0, -1)
    for i = 1, #parts, 3 do
        add(parts[i], 'r', parts[i + 1], minus(parts[i + 2]))
        add(parts[i], 's', parts[i + 1], parts[i + 2])
    end
end
for i = 1, #KEYS - 2 do
    local at = 3 + 5 * i
    local limit = tonumber(ARGV[at + 2])
    local spent, reserved, found, fields = counted(KEYS[i], tonumber(ARGV[at + 1]))
    if limit >= 0 and spent + reserved + ARGV[at + 3] > limit then
        return {'denied', now, i - 1, found}
    end
    if #fields > 8 * kept then
        local slices = {}
        for j = 1, #fields, 2 do
            slices[#slices + 1] = slice_of(fields[j])
        end
        table.sort(slices)
        for j = 1, #fields, 2 do
            if slice_of(fields[j]) < slices[#slices - 2 * kept + 1] then
                redis.call('HDEL', KEYS[i], fields[j])
            end
        end
    end
end
for i = 1, #KEYS - 2 do
    local at = 3 + 5 * i
    redis.call('HINCRBY', KEYS[i], 'r' .. ARGV[at], ARGV[at + 3])
    if ARGV[at + 4] ~= '-1' then
        redis.call('PEXPIRE', KEYS[i], ARGV[at + 4])
    end
    redis.call('RPUSH', reservation, KEYS[i], ARGV[at], ARGV[at + 3])
end
redis.call('PEXPIRE', reservation, ARGV[5])
redis.call('ZADD', open, now + ARGV[4], ARGV[1])
return {'reserved', now}
"""
)

# KEYS: as above. ARGV: the reservation's id; then for each account the oldest slice that counts, and the amount.
_SETTLE = (
    _COMMON
    + """
local reservation, open = KEYS[#KEYS - 1], KEYS[#KEYS]
local parts = redis.call('LRANGE', reservation, 0, -1)
local running = redis.call('ZREM', open, ARGV[1]) == 1
for i = 1, #parts, 3 do
    local amount = ARGV[1 + 2 * (i + 2) / 3]
    if running then
        add(parts[i], 'r', parts[i + 1], minus(parts[i + 2]))
    else
        add(parts[i], 's', parts[i + 1], minus(parts[i + 2]))
    end
    add(parts[i], 's', parts[i + 1], amount)
end
redis.call('DEL', reservation)
local standings = {}
for i = 1, #KEYS - 2 do
    local spent, reserved = counted(KEYS[i], tonumber(ARGV[2 * i]))
    standings[i] = {spent, reserved}
end
return standings
"""
)

_LOOKS = 3

_TIMEOUT = 2.0
"""Seconds for a command: a budget that is not checked refuses a call, which is worse than to wait for a moment."""


class RedisBudgets(RemoteBudgets):
    """Sums on a Redis server, by its clock.

    Args:
        url: "redis://host:6379/0", "rediss://..." or "unix://...".
        lease: Seconds after which what was not renewed is taken to be spent.
        prefix: What all keys begin with, as a hash tag.

    Raises:
        ImportError: redis is not installed.
    """

    def __init__(self, url: str, *, lease: float = LEASE, prefix: str = "overcoat:budgets") -> None:
        super().__init__(lease)
        self._client = RedisClient(url, _TIMEOUT)
        self._prefix = f"{{{prefix}}}:"
        self._ahead = 0  # milliseconds by which the server's clock is ahead of ours

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def __repr__(self) -> str:
        return f"RedisBudgets({self._client.address!r})"

    async def _reserve(self, held: Held) -> Denied | None:
        for _ in range(_LOOKS):
            found = await self._run(_RESERVE, held, self._to_reserve(held))
            if found[0] == b"reserved":
                return None
            if found[0] == b"denied":
                _, now, which, fields = cast("tuple[bytes, int, int, Sequence[bytes]]", found)
                return deny(which, held.wants[which], _slices(fields), now)
            self._ahead = found[1] - _now()  # only the client knows the calendar, and only the server the time
        raise StoreUnavailable(f"the clock of {self._client.address} does not go with ours")

    async def _settle(self, held: Held, amounts: Sequence[int]) -> Settled:
        now = _now() + self._ahead
        oldest = [want.window.at(now).oldest for want in held.wants]
        arguments = [part for pair in zip(oldest, amounts, strict=True) for part in pair]
        found = await self._run(_SETTLE, held, [held.id, *arguments])
        return Settled(now, [Standing(*each) for each in found])

    async def _renew(self, held: Held) -> None:
        until = _now() + self._ahead + int(self.lease * 1000)
        await self._client.run(lambda redis: redis.zadd(self._open, {str(held.id): until}, xx=True))

    @property
    def _open(self) -> str:
        return f"{self._prefix}open"

    def _to_reserve(self, held: Held) -> list[Any]:
        now = _now() + self._ahead
        slots = [want.window.at(now) for want in held.wants]
        lease = int(self.lease * 1000)
        arguments: list[Any] = [held.id, max(slot.id for slot in slots), min(slot.ends for slot in slots)]
        arguments += [lease, lease + RETENTION, KEPT, f"{self._prefix}reservation:"]
        for want, slot in zip(held.wants, slots, strict=True):
            limit = -1 if want.limit is None else want.limit
            keep = -1 if want.window.keep is None else want.window.keep
            arguments += [slot.id, slot.oldest, limit, want.amount, keep]
        return arguments

    async def _run(self, script: str, held: Held, arguments: Sequence[Any]) -> Any:
        keys = [f"{self._prefix}account:{want.account}" for want in held.wants]
        keys += [f"{self._prefix}reservation:{held.id}", self._open]

        async def run(redis: Redis) -> Any:
            return await cast("Any", redis).register_script(script)(keys, arguments)

        return await self._client.run(run)


def _now() -> int:
    return int(time.time() * 1000)


def _slices(fields: Sequence[bytes]) -> list[tuple[int, Standing]]:
    """Read what a script says of an account: s<slice> and r<slice>, each with its amount."""
    slices: dict[int, Standing] = {}
    for field, amount in zip(fields[::2], fields[1::2], strict=True):
        slice_ = int(field[1:])
        known = slices.get(slice_, Standing(0, 0))
        slices[slice_] = (
            known._replace(spent=int(amount)) if field[:1] == b"s" else known._replace(reserved=int(amount))
        )
    return list(slices.items())
