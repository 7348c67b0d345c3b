"""The generic table."""

from __future__ import annotations

import threading

import pytest

from zoo_core.errors import PluginConflictError, SpecError, UnknownNameError
from zoo_core.tables import Registry


def test_lazy_targets_are_imported_at_the_first_use() -> None:
    table: Registry = Registry("things")
    table.register("root", "math:sqrt", owner="a", origin="a.py:1", lazy=True)
    table.register("gone", "no_such_module:x", owner="a", lazy=True)
    assert table.get("root")(9.0) == 3.0
    assert table.origin("root") == "a.py:1" and table.owner("root") == "a"
    with pytest.raises(ModuleNotFoundError):
        table.get("gone")
    assert list(table) == ["gone", "root"] and len(table) == 2 and "root" in table


def test_conflicts_do_not_depend_on_the_order_and_are_decided_by_preference() -> None:
    messages = set()
    for order in (("a", "b"), ("b", "a")):
        table: Registry[int] = Registry("things")
        for owner in order:
            table.register("x", ord(owner), owner=owner)
        with pytest.raises(PluginConflictError) as caught:
            table.get("x")
        messages.add(str(caught.value))
        assert table.conflicts() == {"x": ["a", "b"]}
    assert len(messages) == 1
    decided: Registry[int] = Registry("things", prefer={"x": "b"})
    decided.register("x", 1, owner="a")
    decided.register("x", 2, owner="b")
    assert decided.get("x") == 2 and decided.conflicts() == {}


def test_one_owner_cannot_claim_twice_and_a_frozen_table_takes_nothing() -> None:
    table: Registry[int] = Registry("things")
    table.register("x", 1, owner="a")
    with pytest.raises(SpecError, match="registers things 'x' twice"):
        table.register("x", 2, owner="a")
    table.freeze()
    with pytest.raises(SpecError, match="frozen"):
        table.register("y", 2, owner="a")


def test_discard_removes_everything_of_one_owner() -> None:
    table: Registry[int] = Registry("things")
    table.register("x", 1, owner="a")
    table.register("x", 2, owner="b")
    table.register("y", 3, owner="b")
    table.discard("b")
    assert table.get("x") == 1 and "y" not in table


def test_unknown_names_carry_near_misses() -> None:
    table: Registry[int] = Registry("samplers")
    for name in ("flow-euler", "flow-dpm", "ddpm"):
        table.register(name, 1, owner="a")
    with pytest.raises(UnknownNameError, match="sampler 'flow-eular' is unknown") as caught:
        table.get("flow-eular")
    assert caught.value.fields["suggestions"][0] == "flow-euler"


def test_registration_from_many_threads_loses_nothing() -> None:
    table: Registry[int] = Registry("things")

    def add(start: int) -> None:
        for i in range(start, start + 200):
            table.register(f"n{i}", i, owner="a")

    threads = [threading.Thread(target=add, args=(k * 200,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(table) == 1600
