"""Says what a policy will do: what holds for a model and why, when attempts begin, and the worst that can happen."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, cast

from overcoat.accounting import Usage
from overcoat.arithmetic.durations import seconds
from overcoat.classification import Kind
from overcoat.layer import PlacedLayer
from overcoat.layers.breaker import OUTCOMES
from overcoat.layers.fallback import takes_more
from overcoat.layers.meter import Meter
from overcoat.layers.retry import Backoff, Retry
from overcoat.policy.derivation import Section, settings_of
from overcoat.policy.effective import EffectivePolicy, Rule
from overcoat.policy.problems import CODE, did_you_mean, masked
from overcoat.policy.schema import Effective
from overcoat.policy.shape import annotation_of, is_duration, keys_of, paths_of, section_of
from overcoat.policy.tree import NONE
from overcoat.policy.worst_case import (
    RETRYABLE,
    Ceiling,
    Inner,
    OfAModel,
    Range,
    Try,
    WorstCase,
    duration,
    of_a_model,
    schedule,
    worst_case,
)
from overcoat.pricing.rates import PriceSource

DBALLY_RETRIES = 3
"""db-ally 0.8's default of `n_retries`: an IQL generator asks so often again after an `LLMError` or a wrong answer."""

_LAYERS = {
    "Trace": "trace",
    "Deadline": "deadline",
    "Cache": "cache",
    "Validate": "validate",
    "Fallback": "fallbacks",
    "Hedge": "hedge",
    "Budget": "spending",
    "Retry": "retry",
    "RetryBudget": "budget",
    "Breaker": "breaker",
    "RateLimit": "limit",
    "Timeout": "attempt_timeout",
    "Meter": "meter",
}
"""What a file says of each, in the canonical order."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value of the effective policy.

    Attributes:
        layer: Whose it is, such as "Retry".
        path: Where it is in a policy, such as "retry.max_attempts".
        value: As a file writes it.
        origin: Where it was written: "file:line:column", "env NAME", "code" or "default".
    """

    layer: str
    path: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class OnFailure:
    """What happens to a call whose attempts all fail in one way.

    Attributes:
        kind: The class of the failures.
        attempts: Of its first inference.
        server_delay: What is done with a delay that the server asks for; None where nothing is retried.
        breaker: What the breaker takes each for: "failure", "quota" or "neither"; None where there is none.
        fallbacks: The models that are asked afterwards, in their order.
    """

    kind: Kind
    attempts: tuple[Try, ...]
    server_delay: str | None
    breaker: str | None
    fallbacks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Around:
    """What repeats whole calls, and what becomes of the worst case by that.

    Attributes:
        name: Who repeats them.
        factor: What everything is multiplied by.
        why: Where the factor is from.
        requests: In all.
        seconds: In all; None where nothing bounds them.
        dollars: In all; None where a price is not known.
    """

    name: str
    factor: int
    why: str
    requests: int
    seconds: float | None
    dollars: Decimal | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a policy will do to the calls of one model.

    Attributes:
        model: Its name; None for a client that does not say.
        policy: The policy's name.
        rule: What chose it; None where no rule did.
        digest: Of the effective policy, as on every call span.
        enabled: Whether its layers do anything at all; see OVERCOAT_ENABLED.
        settings: Every value, by layer, outermost first.
        failure: What happens on the failure that was asked about; None where none was.
        assumption: What every request is taken to use, where there is talk of dollars.
        worst: What one call can do at the most.
        around: The same with what repeats calls: the SDK, the host, and db-ally's default.
        requests: The most that this host's retries can make of one call.
    """

    model: str | None
    policy: str
    rule: Rule | None
    digest: str
    enabled: bool
    settings: tuple[Setting, ...]
    failure: OnFailure | None
    assumption: str
    worst: WorstCase
    around: tuple[Around, ...]
    requests: int

    def __str__(self) -> str:
        """Return it as `overcoat explain` prints it, in lines of at most 80 columns."""
        from overcoat.policy.explain_command import render  # noqa: PLC0415 - which needs this module

        return render(self)

    def as_json(self) -> dict[str, Any]:
        """Return it as `json.dumps` takes it: durations in seconds, dollars as text with all their digits."""
        return cast("dict[str, Any]", _plain(asdict(self)))


def kind_of(error: str) -> Kind:
    """Return the class of failures that *error* names, by its name or by an HTTP status.

    Raises:
        ValueError: It names none; the message says which there are.
    """
    if error.isascii() and error.isdigit():
        if 400 <= int(error) <= 599:
            return Kind.of_status(int(error))
        raise ValueError(f"{error} is no HTTP status of a failure; expected 400 to 599")
    try:
        return Kind(error)
    except ValueError:
        names = [kind.value for kind in Kind]
        raise ValueError(f"no class of failures is called {error!r}{did_you_mean(error, names)}") from None


def explain(
    effective: EffectivePolicy,
    *,
    error: Kind | str | int | None = None,
    retry_after: float | None = None,
    host_retries: int = 0,
    input_tokens: int = 1000,
    output_tokens: int = 1000,
    now: float | None = None,
) -> Explanation:
    """Say what *effective* will do.

    Args:
        effective: What holds for a model.
        error: A class of failures or an HTTP status, for the schedule of attempts when all of them fail like that.
        retry_after: Seconds that the server asks for in that schedule; None is a server that does not ask.
        host_retries: How often the caller's own code calls again.
        input_tokens: Of every request, for its price.
        output_tokens: Of every request, for its price.
        now: Unix seconds, for prices that change; by default those of the clock.

    Raises:
        ValueError: *error* is no class of failures, or a number is negative.
        PolicyError: A fallback's own policy makes no sense.
    """
    for name, value in {
        "retry_after": retry_after,
        "host_retries": host_retries,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
    }.items():
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name}={value}: expected a finite number, 0 or more")
    now = time.time() if now is None else now
    usage = Usage(input_tokens, output_tokens)
    enabled = effective.enabled
    layers: Sequence[PlacedLayer] = effective.inner()
    prices = next(layer.source for layer in layers if isinstance(layer, Meter))
    rules = cast("Sequence[Section]", effective.value("fallbacks")) if enabled else ()
    models = [_of_a_model(effective.model, layers if enabled else (), prices, usage, now)]
    targets = [target for each in rules for target in each.at(("to",))]
    models += [_of_a_model(target, effective.inner_of(target), prices, usage, now) for target in targets]
    deadline = cast("float | None", effective.value("deadline")) if enabled else None
    reasks = cast("int", effective.value("validate.max_reasks")) if enabled and effective.value("validate") else 0
    worst = worst_case(models, reasks, deadline)
    failure = None
    if error is not None:
        kind = error if isinstance(error, Kind) else kind_of(str(error))
        inner = Inner(layers if enabled else ())
        failure = _on_failure(kind, inner, _asked(effective.model, kind, rules), deadline, retry_after)
    around = tuple(_around(worst, host_retries))
    return Explanation(
        effective.model,
        effective.name,
        effective.rule,
        effective.digest,
        enabled,
        tuple(_settings(effective)),
        failure,
        f"{input_tokens} input and {output_tokens} output tokens a request",
        worst,
        around,
        around[1].requests,
    )


def _of_a_model(
    model: str | None, layers: Sequence[PlacedLayer], prices: PriceSource, usage: Usage, now: float
) -> OfAModel:
    rates = prices(model, now) if model else None
    return of_a_model(model, Inner(layers), None if rates is None else rates.cost(usage))


def _around(worst: WorstCase, host_retries: int) -> Iterator[Around]:
    for name, factor, why in (
        ("SDK", 1, "litellm's, forced to 0"),
        ("host", 1 + host_retries, f"its retries: {host_retries}"),
        ("in db-ally 0.8", 1 + DBALLY_RETRIES, f"n_retries={DBALLY_RETRIES}, its default"),
    ):
        yield Around(name, factor, why, *worst.times(factor))


def _on_failure(
    kind: Kind, inner: Inner, targets: Iterator[str], deadline: float | None, retry_after: float | None
) -> OnFailure:
    return OnFailure(
        kind,
        tuple(schedule(inner, kind, deadline=deadline, retry_after=retry_after)),
        _server_delay(inner.retry, retry_after) if inner.attempts(kind) > 1 else None,
        None if inner.breaker is None else OUTCOMES.get(kind, "neither"),
        tuple(targets),
    )


def _asked(model: str | None, kind: Kind, rules: Sequence[Section]) -> Iterator[str]:
    """Yield who is asked in place of *model* when it, and each of them, fails as *kind*."""
    for rule in rules:
        failed = [model]
        for target in rule.at(("to",)) if kind.value in rule.at(("when",)) else ():
            if kind is not Kind.CONTEXT_TOO_LONG or all(takes_more(target, each) for each in failed):
                failed.append(target)
                yield target


def _server_delay(retry: Retry | None, retry_after: float | None) -> str:
    settings = retry.server_delay if retry is not None else Retry().server_delay
    most, jitter = seconds(settings.max, "max", zero=True), seconds(settings.jitter, "jitter", zero=True)
    asked = "none is assumed; one" if retry_after is None else f"{duration(retry_after)} is assumed; a delay"
    return f"{asked} of up to {duration(most)} is a floor, plus at most {duration(jitter)}; a longer one ends the call"


def _settings(effective: EffectivePolicy) -> Iterator[Setting]:
    known = paths_of(Effective)
    for layer, key in _LAYERS.items():
        section = section_of(annotation_of(known[key]))
        if key in ("fallbacks", "spending"):
            yield from _listed(effective, layer, key)
        elif section is None or effective.value(key) is None:
            yield Setting(layer, key, _text(effective.value(key), timed=is_duration(known[key])), effective.origin(key))
        else:
            for name, info in paths_of(section).items():
                path = f"{key}.{name}"
                if section_of(annotation_of(info)) is None and path != "retry.errors":
                    value = _text(_value(effective, path), timed=is_duration(info))
                    yield Setting(layer, path, value, effective.origin(path))
        if key == "retry" and effective.value(key) is not None:
            yield from _class_settings(effective, layer)
        for name, given in effective.for_code.get(key, {}).items():
            if given is not None:
                yield Setting(layer, f"{key}.{name}", "given", str(CODE))


def _value(effective: EffectivePolicy, path: str) -> Any:
    if path.startswith("retry.backoff.") and effective.value("retry.backoff") is None:
        return settings_of(Backoff)().at(path.split(".")[2:])  # what `Retry` takes for most classes
    return effective.value(path)


def _class_settings(effective: EffectivePolicy, layer: str) -> Iterator[Setting]:
    """Yield what differs by class of failures, whether the file says so or `Retry` by itself."""
    retry = next(each for each in effective.inner() if isinstance(each, Retry))
    usual = _parts(retry.max_attempts, retry.backoff or Backoff())
    for kind in RETRYABLE:
        for name, value in _parts(*retry.on(kind)).items():
            path = f"retry.errors.{kind.value}.{name}"
            origin = effective.origin(path)
            if value != usual[name] or origin != "default":
                yield Setting(layer, path, _text(value, timed=name != "max_attempts"), origin)


def _parts(attempts: int, backoff: Backoff) -> Mapping[str, float]:
    return {
        "max_attempts": attempts,
        "backoff.base": seconds(backoff.base, "base", zero=True),
        "backoff.cap": seconds(backoff.cap, "cap", zero=True),
    }


def _listed(effective: EffectivePolicy, layer: str, key: str) -> Iterator[Setting]:
    """Yield the values of a list of sections, each by its name, where it has one, or its place."""
    sections = cast("Sequence[Section]", effective.value(key))
    if not sections:
        yield Setting(layer, key, NONE, effective.origin(key))
    for index, section in enumerate(sections):
        *_, place = effective.tree.entries[key].items[index].path
        for name, info in keys_of(type(section)).items():
            node = effective.tree.get(key, index, name)
            path = f"{key}.{place}.{name}" if isinstance(place, str) else f"{key}[{index}].{name}"
            origin = "default" if node is None else str(node.origin)
            yield Setting(layer, path, _text(section.at((name,)), timed=is_duration(info)), origin)


def _text(value: Any, *, timed: bool) -> str:
    if value is None:
        return NONE
    if timed:
        return duration(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(_text(each, timed=False) for each in cast("Sequence[Any]", value)) or "[]"
    return f"{value:g}" if isinstance(value, float) else masked(str(value))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, (Ceiling, Range)):
        return _plain(value._asdict())
    if isinstance(value, tuple):
        return [_plain(each) for each in cast("Sequence[Any]", value)]
    return f"{value.normalize():f}" if isinstance(value, Decimal) else value
