"""Resolves `extends`: each policy becomes what it says, over what the one says that it differs from."""

from __future__ import annotations

from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

from overcoat.policy.problems import Problem, did_you_mean
from overcoat.policy.tree import Node, merge


def resolve(tree: Node, problems: list[Problem]) -> Node:
    """Return *tree* with each of its policies complete, and a problem for each cycle and each name of no policy."""
    policies = tree.get("policies")
    if policies is None or not policies.entries:
        return tree
    bases: dict[str, str] = {}
    for name, policy in policies.entries.items():
        extends = policy.get("extends")
        if extends is None or extends.text is None:
            continue
        if extends.text in policies.entries:
            bases[name] = extends.text
        else:
            known = [other for other in policies.entries if other != name]
            problems.append(extends.problem(f"there is no policy {extends.text!r}{did_you_mean(extends.text, known)}"))
    complete = dict(policies.entries)
    for name in _in_order(bases, policies, problems):
        if name in bases:
            complete[name] = merge(complete[bases[name]].having(extends=None), complete[name])
    return tree.having(policies=replace(policies, value=complete))


def _in_order(bases: dict[str, str], policies: Node, problems: list[Problem]) -> list[str]:
    """Return the names of policies, each after the one that it extends; what closes a cycle is taken out of *bases*."""
    while True:
        try:
            return list(TopologicalSorter({name: [base] for name, base in bases.items()}).static_order())
        except CycleError as error:
            cycle: list[str] = error.args[1][::-1]  # each extends the next
            extends = policies.entries[cycle[0]].entries["extends"]
            problems.append(extends.problem(f"a cycle: {' extends '.join(cycle)}"))
            del bases[cycle[0]]
