"""Makes finished calls, as a stack records them, for tests and by hypothesis."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import strategies as st

from overcoat import Attempt, Call, Inference, Lookup, Usage
from overcoat.ledger import Ledger
from overcoat.record import PolicyStamp

NOON = 1_795_435_200.0
"""2026-11-23T12:00Z."""
USED = Usage(1000, 100)
MODELS = ("openai/gpt-4o", "claude-sonnet-4-5", "mine", None)


def attempt(
    model: str | None = "openai/gpt-4o",
    cost: str | Decimal | None = "0.0035",
    *,
    number: int = 1,
    usage: Usage | None = USED,
    error_type: str | None = None,
) -> Attempt:
    """Return an attempt of one second."""
    made = Attempt(number, model, 0.0, ended=1.0, error_type=error_type, usage=usage)
    made.cost = None if cost is None else Decimal(cost)
    made.price_source = None if cost is None else "test 1"
    return made


def call(
    *attempts: Attempt,
    at: float = NOON,
    answered: bool = True,
    model: str | None = "openai/gpt-4o",
    cache: Lookup | None = None,
    policy: PolicyStamp | None = None,
    **tags: str,
) -> tuple[Call, Attempt | None]:
    """Return a call, and the attempt that answered it: the last one, where any did. Each model is an inference."""
    made = Call("Client", model, json_mode=False, tags=tags, started=0.0, epoch=at, policy=policy)
    for each in attempts:
        if not made.inferences or made.inferences[-1].model != each.model:
            made.inferences.append(Inference(each.model, 0.0, ended=1.0))
        made.inferences[-1].attempts.append(each)
    answer = attempts[-1] if attempts and answered else None
    made.cache = cache
    made.outcome = "ok" if answer or cache else "error"
    made.ended = 1.0
    made.settle(answer)
    return made, answer


COSTS = st.none() | st.decimals(0, 100, allow_nan=False, places=12)
COUNTS = st.none() | st.integers(0, 10**12)
# Whatever people write: dots, quotes, percent signs, other scripts, control characters, and halves of pairs.
TEXTS = st.text(st.characters() | st.sampled_from("\"'.\\%$[]\0\ud800 é日"), max_size=6)


@st.composite
def attempts(draw: st.DrawFn) -> Attempt:
    """Draw an attempt that was answered, failed, or failed and was charged for all the same."""
    usage = draw(st.none() | st.builds(Usage, COUNTS, COUNTS, st.none(), COUNTS, COUNTS, COUNTS))
    error_type = draw(st.sampled_from([None, None, "timeout"]))
    made = attempt(draw(st.sampled_from(MODELS)), draw(COSTS), usage=usage, error_type=error_type)
    if not made.charged:
        made.cost = None
    made.upper_bound = draw(st.booleans())
    made.anomaly = draw(st.sampled_from([None, "negative"]))
    return made


@st.composite
def calls(draw: st.DrawFn) -> tuple[Call, Attempt | None]:
    """Draw a finished call and the attempt that answered it."""
    made = draw(st.lists(attempts(), max_size=4))
    cache = None
    if not made and draw(st.booleans()):
        cache = Lookup("hit", 0.0, 0.0, cost=draw(COSTS), usage=Usage(10, 1))
    tags = draw(st.dictionaries(st.sampled_from(["tenant", "a.b", "q\"'\\", "%", "é 日"]) | TEXTS, TEXTS, max_size=3))
    at = NOON + draw(st.integers(-(10**6), 10**6))
    answered = bool(made) and made[-1].ok
    policy = draw(st.none() | st.just(PolicyStamp("fast", "abc")))
    model = draw(st.sampled_from(MODELS))
    record, answer = call(*made, at=at, answered=answered, model=model, cache=cache, policy=policy)
    record.tags = tags  # whose names may be those of the arguments, too
    return record, answer


def abandon(ledger: Ledger) -> None:
    """Close a ledger that cannot be written, without its calls."""
    writer = ledger._writer
    writer._queue.clear()
    writer._rows, writer._taken = [], 0
    ledger.close()
