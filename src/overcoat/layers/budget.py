"""`Budget`: sets aside what an inference may cost at most before it is sent, and settles what it did."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from functools import cached_property
from typing import Any, ClassVar, Literal, NoReturn, Protocol, cast, get_args
from urllib.parse import quote

from overcoat.accounting import ZERO, Usage
from overcoat.arithmetic.calendar import Window, parse_window
from overcoat.arithmetic.counts import check_count
from overcoat.arithmetic.dollars import EXACT, in_units, of_units
from overcoat.arithmetic.durations import Duration, seconds
from overcoat.arithmetic.reservation import MOST, Denied, Standing, Want
from overcoat.budgets import BudgetStore, Held, open_budgets
from overcoat.budgets.watch import SHARES, BudgetAlert, Watch, watch_of
from overcoat.classification import Kind
from overcoat.errors import BudgetExceeded, BudgetUnchecked, UnknownPrice
from overcoat.layer import Client, Handler, PlacedLayer, Reply, Request
from overcoat.order import Place
from overcoat.pricing.estimate import Estimate
from overcoat.pricing.kept import KeptRates
from overcoat.pricing.rates import PriceSource, Rates
from overcoat.pricing.sources import DEFAULT, Price, price_source
from overcoat.record import Attempt, BudgetResult, Call, Reservation, Wait

logger = logging.getLogger("overcoat")

OnLimit = Literal["raise", "wait", "warn"]
Unbounded = Literal["block", "allow"]
Failing = Literal["closed", "open"]

_LOOK, _LONGEST_LOOK = 1.0, 60.0
"""Seconds between two looks at a budget that is waited for: other calls may settle for less, and clocks may jump."""

_DIGITS = 9
"""After the point, of a nano-dollar."""
_MOST_DOLLARS = of_units(MOST, _DIGITS)

_UNKNOWN = frozenset({Kind.TIMEOUT, Kind.DEADLINE_EXCEEDED, Kind.BAD_OUTPUT})
"""How an attempt ends whose answer may have been made, and billed, without ever arriving, or not in one piece."""


class _Terms(Protocol):
    """What a `Limit` and the short form in a `Budget` have in common."""

    @property
    def usd(self) -> float | Decimal | None: ...
    @property
    def tokens(self) -> int | None: ...
    @property
    def window(self) -> Duration | None: ...
    @property
    def scope(self) -> str: ...
    @property
    def zone(self) -> str | None: ...
    @property
    def name(self) -> str | None: ...


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One limit of a `Budget`, in dollars or in tokens.

    Attributes:
        usd: US dollars in a window; 0 lets only pass what costs nothing.
        tokens: Tokens in a window, sent and answered together.
        window: "1d" or seconds for the last so much time, at every moment; "calendar minute", "hour", "day", "week" or
            "month"; None for all of time.
        scope: "global" is one for all, "model" one for each model, "tag:tenant" one for each value of that tag.
        zone: The time zone of a calendar's days, weeks and months, such as "Europe/Warsaw"; None is UTC.
        name: What it is called in metrics, and in the store: limits of the same name share what is spent. None derives
            it from the scope, the window and the unit.
    """

    usd: float | Decimal | None = None
    tokens: int | None = None
    window: Duration | None = "calendar day"
    scope: str = "global"
    zone: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        """Check the settings where they were written."""
        _Rule.of(self, "Limit")


@dataclass(frozen=True, kw_only=True, repr=False)
class Budget(PlacedLayer):
    """Let no inference begin whose upper bound does not fit into what is left, so that no race can overspend.

    What an inference may cost at most is reserved under all limits at once, or under none; when it is over, what it
    did cost takes its place, in the window in which it was reserved. Only where an upper bound was too low is more
    spent, and that is recorded as the overrun. An answer from the cache costs nothing here, since it is found outside.

    The first attempt is what is reserved for, or as many as *attempts* says: failed ones are seldom billed, and to
    reserve for all that are permitted would refuse calls for money that is hardly ever spent. Where one is billed all
    the same, it is settled with the rest.

    A single limit is written into the layer itself; others follow in `limits`.

    Attributes:
        usd: US dollars in a window; 0 lets only pass what costs nothing.
        tokens: Tokens in a window, sent and answered together.
        window: As that of a `Limit`.
        scope: As that of a `Limit`.
        zone: As that of a `Limit`.
        name: As that of a `Limit`.
        limits: More limits, which an inference has to fit into all together.
        store: Where the sums lie: "redis://host:6379/0", "sqlite:///path", a store of one's own, or None for this
            process's memory.
        on_limit: Where there is no room, "raise" refuses with `BudgetExceeded`; "wait" waits for it, and refuses then;
            "warn" lets pass and only makes it known.
        max_wait: Seconds, or text such as "5m", that "wait" waits at most; where it is plain that this will not do, it
            refuses at once.
        on_unknown_price: What becomes of an inference that nothing bounds, as its model has no price or its images no
            count: "block" refuses it, "allow" lets it pass and counts what is known afterwards.
        on_missing_tag: What becomes of a call without the tag that a limit is kept for: "block" or "allow", uncounted.
        fail: Where the store does not answer, "closed" refuses, and "open" lets pass uncounted.
        on_alert: Called with a `BudgetAlert` once in a window when 50, 80 and 100 % of a limit are spent. It must not
            block.
        default_output_tokens: How long an answer may be, for requests that set no limit on it.
        attempts: For how many attempts of each inference to reserve.
        prices: Where rates come from; the same as `Meter`'s.
    """

    place: ClassVar[Place] = Place.BUDGET
    because: ClassVar[str] = "what is set aside must cover the whole inference, and only what is really sent"
    twice: ClassVar[str] = "use `limits` for several: they are reserved together, or not at all"

    usd: float | Decimal | None = None
    tokens: int | None = None
    window: Duration | None = "calendar day"
    scope: str = "global"
    zone: str | None = None
    name: str | None = None
    limits: Sequence[Limit] = field(default=(), hash=False)
    store: BudgetStore | str | None = field(default=None, repr=False)  # a URL may have a password
    on_limit: OnLimit = "raise"
    max_wait: Duration = 60.0
    on_unknown_price: Unbounded = "block"
    on_missing_tag: Unbounded = "block"
    fail: Failing = "closed"
    on_alert: Callable[[BudgetAlert], object] | None = field(default=None, repr=False)
    default_output_tokens: int = 4096
    attempts: int = 1
    prices: Price | Sequence[Price] = field(default=DEFAULT, repr=False, hash=False)

    def __post_init__(self) -> None:
        """Check the settings, and read the prices, where they were written."""
        choices = {"on_limit": OnLimit, "on_unknown_price": Unbounded, "on_missing_tag": Unbounded, "fail": Failing}
        for name, allowed in choices.items():
            if (value := getattr(self, name)) not in get_args(allowed):
                expected = ", ".join(f'"{each}"' for each in get_args(allowed))
                raise ValueError(f"Budget({name}={value!r}): expected one of {expected}")
        seconds(self.max_wait, "Budget(max_wait=...)", zero=True)
        check_count(self.default_output_tokens, "Budget.default_output_tokens")
        check_count(self.attempts, "Budget.attempts")
        names = [rule.name for rule in self.rules]
        for rule in self.rules:
            if names.count(rule.name) > 1:
                raise ValueError(f"Budget(limits=...): two limits are called {rule.name!r}; give one another name")
        _ = self.source

    @cached_property
    def rules(self) -> Sequence[_Rule]:
        """All limits, ready to use."""
        own = self.usd is not None or self.tokens is not None or not self.limits
        return (*([_Rule.of(self, "Budget")] if own else []), *(_Rule.of(limit, "Limit") for limit in self.limits))

    @cached_property
    def source(self) -> PriceSource:
        """The `prices` as one function."""
        return price_source(self.prices)

    def bind(self, client: Client) -> _Budgeting:
        """Return the function that keeps calls to *client* within the budget.

        Raises:
            PolicyError: No store has such a URL.
        """
        store = open_budgets(self.store) if self.store is None or isinstance(self.store, str) else self.store
        budgeting = _Budgeting(self, store, getattr(client, "model_name", None))
        if budgeting.model and any(rule.unit == "usd" for rule in self.rules):
            budgeting.rates(budgeting.model, time.time())  # half a second at the first time: not in the first call
        return budgeting


class _Rule:
    """A limit, checked and in whole numbers: of nano-dollars, or of tokens."""

    __slots__ = ("amount", "limit", "name", "per_model", "prefix", "tag", "unit", "window")

    name: str
    unit: Literal["usd", "tokens"]
    limit: int
    amount: Decimal | int
    window: Window
    tag: str | None
    per_model: bool
    prefix: str

    @classmethod
    def of(cls, terms: _Terms, layer: str) -> _Rule:
        """Check *terms*, which stand in that *layer*."""
        rule = cls()
        if (terms.usd is None) == (terms.tokens is None):
            raise ValueError(f"{layer}(): expected either usd or tokens; two limits are two of Budget(limits=[...])")
        rule.unit = "tokens" if terms.usd is None else "usd"
        rule.limit = _tokens(terms.tokens, layer) if terms.usd is None else _nano(terms.usd, layer)
        rule.amount = rule.shown(rule.limit)
        scope = cast("object", terms.scope)  # callers are not all typed
        rule.tag = scope.removeprefix("tag:") if isinstance(scope, str) and scope.startswith("tag:") else None
        if scope not in ("global", "model") and not rule.tag:
            raise ValueError(f'{layer}(scope={scope!r}): expected "global", "model", or a tag as in "tag:tenant"')
        rule.per_model = terms.scope == "model"
        rule.window = parse_window(terms.window, terms.zone, layer)
        name = cast("object", terms.name)
        if name is not None and (not isinstance(name, str) or not name):
            raise ValueError(f"{layer}(name={name!r}): expected a text")
        unit = " tokens" if rule.unit == "tokens" else ""
        rule.name = terms.name or f"{terms.scope} {rule.window.text}{unit}"
        # What comes before the scope has its length in front, so that no value of a tag can look like another name.
        account = f"{rule.name}|{rule.unit}|{rule.window.text}"
        rule.prefix = f"{len(account)}:{account}|"
        return rule

    def shown(self, amount: int) -> Decimal | int:
        """Return an amount in dollars, or in tokens."""
        return of_units(amount, _DIGITS) if self.unit == "usd" else amount


def _tokens(value: Any, layer: str) -> int:
    check_count(value, f"{layer}.tokens", least=0)
    if value > MOST:
        raise ValueError(f"{layer}(tokens={value!r}): expected at most {MOST}")
    return int(value)


def _nano(value: Any, layer: str) -> int:
    if not isinstance(value, (int, float, Decimal)) or isinstance(value, bool):
        raise TypeError(f"{layer}(usd={value!r}): expected US dollars as a number")
    dollars = Decimal(str(value))  # of a float what was written, and not what it is in binary
    if not dollars.is_finite() or dollars < 0:
        raise ValueError(f"{layer}(usd={value!r}): expected a finite number of dollars, 0 or more")
    nano = int(EXACT.scaleb(dollars, _DIGITS).to_integral_value(ROUND_FLOOR))
    if nano > MOST:
        raise ValueError(f"{layer}(usd={value!r}): expected at most {MOST // 10**_DIGITS} dollars, which count exactly")
    return nano


def _whole(dollars: Decimal) -> int:
    return in_units(dollars, _DIGITS) if dollars < _MOST_DOLLARS else MOST


def _storable(name: str) -> str:
    """Return *name* so that every store takes it, half characters included, and no two become the same."""
    return name if name.isprintable() and "%" not in name else quote(name, errors="surrogatepass")


class _Part:
    """What one inference takes from one limit."""

    __slots__ = ("bound", "record", "rule", "want")

    def __init__(self, rule: _Rule, record: Reservation, account: str, bound: int | None, attempts: int) -> None:
        self.rule = rule
        self.record = record
        self.bound = bound
        """What one attempt may use at most."""
        self.want = Want(account, rule.window, rule.limit, min(MOST, (bound or 0) * attempts))


class _Budgeting:
    def __init__(self, settings: Budget, store: BudgetStore, model: str | None) -> None:
        self._settings = settings
        self._store = store
        self._watch: Watch = watch_of(store)
        self._max_wait = seconds(settings.max_wait, "Budget(max_wait=...)", zero=True)
        self.model = model
        self.rates = KeptRates(settings.source)

    async def __call__(self, request: Request, inner: Handler) -> Reply:
        rates = self.rates(self.model, request.call.at(request.call.clock()))
        estimate = Estimate.of(request)
        parts = self._parts(request.call, estimate, rates)
        held = await self._reserve(request, parts) if parts else None
        if held is None:
            return await inner(request)
        renewal = _Renewal(self._store, held) if self._store.lease is not None else None
        made = _Made(request)
        try:
            return await inner(made.request)
        finally:
            if renewal is not None:
                renewal.stop()
            await self._settle(held, parts, made.attempts(), estimate, rates)
            if renewal is not None:
                await renewal.ended()

    def _parts(self, call: Call, estimate: Estimate, rates: Rates | None) -> list[_Part]:
        """Return what to take from each limit; those that do not count this call are left out.

        Raises:
            UnknownPrice: The model has no price, and that is not allowed.
            BudgetUnchecked: A tag is missing, or nothing bounds the inference, and that is not allowed.
        """
        settings = self._settings
        parts: list[_Part] = []
        for rule in settings.rules:
            scope, account = "global", rule.prefix
            if rule.tag is not None:
                value = call.tags.get(rule.tag)
                if value is None:
                    self._untagged(call, rule)
                    continue
                scope, account = f"{rule.tag}:{value}", f"{rule.prefix}{_storable(value)}"
            elif rule.per_model:
                scope, account = f"model:{self.model}", f"{rule.prefix}{_storable(str(self.model))}"
            record = Reservation(rule.name, rule.window.text, rule.unit, scope, rule.amount)
            bound = self._bound(estimate, rule, rates)
            part = _Part(rule, record, account, bound, settings.attempts)
            if bound is None:
                self._unbounded(call, part, rates)
            else:
                record.reserved = rule.shown(part.want.amount)
            parts.append(part)
        call.reservations.extend(part.record for part in parts)
        return parts

    def _bound(self, estimate: Estimate, rule: _Rule, rates: Rates | None) -> int | None:
        default = self._settings.default_output_tokens
        if rule.unit == "tokens":
            return estimate.all_tokens(rates, default=default)
        cost = estimate.dollars(rates, default=default) if rates is not None else None
        return None if cost is None else _whole(cost)

    def _untagged(self, call: Call, rule: _Rule) -> None:
        blocked = self._settings.on_missing_tag == "block"
        result: BudgetResult = "refused" if blocked else "uncounted"
        scope = f"{rule.tag}:"
        call.reservations.append(
            Reservation(rule.name, rule.window.text, rule.unit, scope, rule.amount, None, result, "no_tag")
        )
        if blocked:
            raise BudgetUnchecked(rule.name, "no_tag", f"the call has no tag {rule.tag!r}; overcoat.tags() sets it")

    def _unbounded(self, call: Call, part: _Part, rates: Rates | None) -> None:
        priceless = part.rule.unit == "usd" and rates is None
        part.record.reason = "unknown_price" if priceless else "no_bound"
        if self._settings.on_unknown_price == "allow":
            return
        part.record.result = "refused"
        call.reservations.append(part.record)
        if priceless:
            raise UnknownPrice(self.model)
        raise BudgetUnchecked(part.rule.name, "no_bound", "nothing bounds what the request may use")

    async def _reserve(self, request: Request, parts: Sequence[_Part]) -> Held | None:
        """Set aside what all *parts* want; None where nothing counts this inference.

        Raises:
            BudgetExceeded: It does not fit.
            BudgetUnchecked: The store does not answer, and it fails closed.
        """
        wants = [part.want for part in parts]
        waiting: _Waiting | None = None
        try:
            while True:
                try:
                    outcome = await self._store.reserve(wants)
                except Exception as error:  # noqa: BLE001 - a store may be anyone's; what it means is `fail`'s to say
                    self._watch.failed(self._store, error)
                    self._unanswered(parts, error)
                    return None
                self._watch.answered(self._store)
                if isinstance(outcome, Held):
                    return outcome
                refused = parts[outcome.which]
                if self._settings.on_limit == "warn":
                    refused.record.reason = "limit"
                    wants[outcome.which] = refused.want._replace(limit=None)
                    continue
                waiting = waiting or _Waiting(request, self._max_wait)
                if self._settings.on_limit == "raise" or not await waiting.wait(outcome):
                    self._refuse(parts, outcome)
        except asyncio.CancelledError:
            for part in parts:
                part.record.result = "released"
            raise
        finally:
            if waiting is not None:
                waiting.end()

    def _unanswered(self, parts: Sequence[_Part], error: Exception) -> None:
        closed = self._settings.fail == "closed"
        for part in parts:
            part.record.result, part.record.reason = "refused" if closed else "uncounted", "store_failed"
        if closed:
            raise BudgetUnchecked(parts[0].rule.name, "store_failed", f"its store does not answer ({error})") from error

    def _refuse(self, parts: Sequence[_Part], denied: Denied) -> NoReturn:
        for part in parts:
            part.record.result = "released"
        part = parts[denied.which]
        rule, record, standing = part.rule, part.record, denied.standing
        record.result, record.reason = "refused", "limit"
        # Not where others only have to settle first: they may well settle for less.
        self._note(part, standing, denied.now, full=standing.spent + part.want.amount > rule.limit)
        raise BudgetExceeded(
            record.scope,
            rule.amount,
            rule.shown(standing.spent),
            rule.shown(standing.reserved),
            _date(denied.room_at),
            rule.shown(part.want.amount),
        )

    async def _settle(
        self, held: Held, parts: Sequence[_Part], attempts: Sequence[Attempt], estimate: Estimate, rates: Rates | None
    ) -> None:
        spent = [_spent(part, attempts, estimate, rates) for part in parts]
        try:
            now, standings = await self._store.settle(held, [amount for amount, _ in spent])
        except Exception as error:  # noqa: BLE001 - a store may be anyone's; an answer that was paid for is not lost
            self._watch.failed(self._store, error)
            for part in parts:
                part.record.reason = "store_failed"
            return
        self._watch.answered(self._store)
        for part, (amount, guessed), standing in zip(parts, spent, standings, strict=True):
            record = part.record
            record.settled = part.rule.shown(amount)
            if not attempts:
                record.result = "released"
            elif part.bound is not None and amount > part.want.amount:
                record.result = "overrun"
            else:
                record.result = "estimated" if guessed else "settled"
            self._note(part, standing, now)

    def _note(self, part: _Part, standing: Standing, now: int, *, full: bool = False) -> None:
        """Record how much is used of a limit, and give the alerts that are due; *full* is no room for a call."""
        rule, record = part.rule, part.record
        slot = rule.window.at(now)
        leaves = rule.window.leaves(slot.id)
        record.used, record.until = rule.shown(standing.spent), None if leaves is None else leaves / 1000
        if not full and standing.spent * 100 < rule.limit * SHARES[0]:
            return
        reached = [percent for percent in SHARES if rule.limit and standing.spent * 100 >= rule.limit * percent]
        if full and SHARES[-1] not in reached:
            reached.append(SHARES[-1])
        if not reached:
            return
        record.alerts = self._watch.crossed((part.want.account, rule.limit), reached, slot)
        for percent in record.alerts:
            alert = BudgetAlert(rule.name, record.scope, percent, rule.amount, record.used, _date(leaves))
            logger.warning("%s", alert)
            if self._settings.on_alert is not None:
                try:
                    self._settings.on_alert(alert)
                except Exception:
                    # Who is told must not harm what is going on; it is reported with its traceback.
                    logger.exception("on_alert failed; the call goes on")


class _Made:
    """The attempts that are made for one request, apart from those of others that race with it in the same call."""

    __slots__ = ("_earlier", "_own", "_request", "request")

    def __init__(self, request: Request) -> None:
        self._request = request
        inference = request.inference
        if inference is None:
            self._own = request.call.fork()
            self.request = request.within(self._own)
        else:  # an order "as given", inside the place of the inference
            self._earlier = len(inference.attempts) - (request.attempt is not None)
            self.request = request

    def attempts(self) -> Sequence[Attempt]:
        """Return them, when they are over."""
        inference = self._request.inference
        if inference is not None:
            return inference.attempts[self._earlier :]
        self._request.call.adopt(self._own)
        return self._own.attempts


def _spent(part: _Part, attempts: Sequence[Attempt], estimate: Estimate, rates: Rates | None) -> tuple[int, bool]:
    """Return what the *attempts* used, and whether the upper bound had to stand for what nobody said."""
    dollars, tokens, guesses, guessed = ZERO, 0, 0, False
    in_dollars = part.rule.unit == "usd"
    for attempt in attempts:
        used = _cost(attempt, rates) if in_dollars else attempt.usage.tokens if attempt.usage else None
        if isinstance(used, Decimal):
            dollars = EXACT.add(dollars, used)
        elif used is not None:
            tokens += used
        elif attempt.charged or (attempt.failure is not None and attempt.failure.kind in _UNKNOWN):
            guesses, guessed = guesses + (part.bound or 0), True
        elif attempt.failure is not None and attempt.failure.kind is Kind.CANCELLED:
            # It was read, and how much of an answer there was is not known: what is known is counted.
            guesses, guessed = guesses + min(part.bound or 0, _read(estimate, rates, in_dollars=in_dollars)), True
    # No more than a store can count: nine million dollars for one inference are a provider's nonsense.
    return min(MOST, (_whole(dollars) if in_dollars else tokens) + guesses), guessed


def _cost(attempt: Attempt, rates: Rates | None) -> Decimal | None:
    if attempt.cost is not None or attempt.usage is None or rates is None:
        return attempt.cost
    return rates.cost(attempt.usage, attempt.service_tier)  # in a stack without a Meter


def _read(estimate: Estimate, rates: Rates | None, *, in_dollars: bool) -> int:
    """Return what only reading the request may use at most."""
    tokens = estimate.input_tokens(rates)
    if tokens is None or not in_dollars:
        return MOST if tokens is None else tokens
    cost = rates.cost(Usage(tokens, 0)) if rates is not None else None
    return MOST if cost is None else _whole(cost)


def _date(moment: int | None) -> datetime | None:
    return None if moment is None else datetime.fromtimestamp(moment / 1000, UTC)


class _Waiting:
    """Waits for room, in the record of a call, for so long at most."""

    __slots__ = ("_most", "_request", "_wait")

    def __init__(self, request: Request, most: float) -> None:
        self._request = request
        self._most = most
        self._wait: Wait | None = None

    async def wait(self, denied: Denied) -> bool:
        """Wait until it is worth looking again; say at once where there is no room in time."""
        request = self._request
        now = request.call.clock()
        if denied.not_before is None:
            return False
        ahead = max(0.0, (denied.not_before - denied.now) / 1000)
        if self._wait is None:
            self._wait = Wait("budget", "budget", ahead or None, 1, now)
            until = now + self._most
        else:
            until = self._wait.started + self._most
        if now >= until or now + ahead > until or (request.deadline is not None and now + ahead >= request.deadline):
            return False
        if self._wait not in request.call.waits:
            request.call.waits.append(self._wait)
        await asyncio.sleep(min(max(ahead, _LOOK), _LONGEST_LOOK, until - now))
        return True

    def end(self) -> None:
        """Note that it is over."""
        if self._wait is not None:
            self._wait.ended = self._request.call.clock()


class _Renewal:
    """Renews a reservation in its store for as long as it is under way."""

    __slots__ = ("_every", "_held", "_store", "_task", "_timer")

    def __init__(self, store: BudgetStore, held: Held) -> None:
        self._store = store
        self._held = held
        self._every = (store.lease or 0.0) / 3
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(self._every, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._renew())

    async def _renew(self) -> None:
        while True:
            # Where it fails, the lease ends, all of it is taken to be spent, and settling it corrects that.
            with suppress(Exception):
                await self._store.renew(self._held)
            await asyncio.sleep(self._every)

    def stop(self) -> None:
        """Renew it no more."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    async def ended(self) -> None:
        """Return when nothing of it is left running."""
        if self._task is not None and not isinstance(sys.exception(), GeneratorExit):  # which allows no waiting
            await asyncio.wait([self._task])
