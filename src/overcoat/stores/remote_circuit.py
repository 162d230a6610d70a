"""A circuit that all processes share: what one of them finds out about a provider, all know."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from overcoat.arithmetic.circuit import Circuit, CircuitRules, CircuitState, Outcome, Permit, Transition
from overcoat.stores.cell import LEASE, Cell, Cells, Held


class _Arithmetic:
    shape: ClassVar[Any] = CircuitState
    amounts: ClassVar[int] = 1

    def __init__(self, rules: CircuitRules) -> None:
        self.rules = rules

    def keeps(self) -> float:
        return self.rules.window + self.rules.open_for + self.rules.quota_open_for + LEASE

    def load(self, state: CircuitState | None, held: Held) -> Circuit:
        return Circuit.load(self.rules, state or Circuit(self.rules).dump(), *held)

    def dump(self, machine: Circuit) -> CircuitState:
        return machine.dump()

    def held(self, machine: Circuit) -> Held:
        return (machine.probing,)


class RemotePermit(NamedTuple):
    """A permit of the circuit in the store, to the calls of one event loop."""

    permit: Permit
    cell: Cell[Circuit]


class Admission(NamedTuple):
    """What becomes of a call that asks to be let through.

    Attributes:
        permit: To be handed to `record` when the attempt is over; None where nothing may be sent.
        transition: What asking has made of the circuit.
        retry_after: The seconds until it lets a probe through; 0 where that depends on those that are under way.
    """

    permit: RemotePermit | None
    transition: Transition | None
    retry_after: float


class RemoteCircuit:
    """A circuit breaker in the store. A probe of a process that has gone without a word ends with its lease.

    Args:
        url: Of the Redis server.
        key: In it.
        rules: When it opens and closes.
    """

    def __init__(self, url: str, key: str, rules: CircuitRules) -> None:
        self._arithmetic = _Arithmetic(rules)
        self._cells: Cells[Circuit] = Cells(url, key, self._arithmetic)

    def follow(self, rules: CircuitRules) -> None:
        """Go by other *rules* from now on; each process goes by its own."""
        self._arithmetic.rules = rules

    async def admit(self) -> Admission:
        """Ask to be let through.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        cell = self._cells.here()

        def admit(circuit: Circuit, at: float) -> Admission:
            permit, transition = circuit.admit(), None
            if permit is None:
                transition = circuit.advance(at)
                permit = circuit.admit()
            given = None if permit is None else RemotePermit(permit, cell)
            return Admission(given, transition, circuit.retry_after(at))

        return await cell.change(admit, _undo)

    async def record(self, given: RemotePermit, outcome: Outcome) -> tuple[Transition | None, float]:
        """Take a permit back, note what became of its attempt, and return what that made of the circuit.

        Beside it are the seconds until the circuit lets a probe through. It is also noted where the caller goes
        meanwhile.

        Raises:
            StoreUnavailable: The store cannot be reached; the permit is taken back all the same.
        """
        permit, cell = given

        def record(circuit: Circuit, at: float) -> tuple[Transition | None, float]:
            transition = circuit.judge(permit, outcome, at)
            return transition, circuit.retry_after(at)

        cell.hold((-int(permit.probe),))
        return await cell.change(record)

    def take_back(self, given: RemotePermit) -> None:
        """Take a permit back whose attempt says nothing about the provider; from any thread."""
        permit, cell = given
        if permit.probe:
            cell.post(lambda _circuit, _at: None, (-1,))


def _undo(admission: Admission) -> None:
    if admission.permit is not None and admission.permit.permit.probe:
        admission.permit.cell.post(lambda _circuit, _at: None, (-1,))
