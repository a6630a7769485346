"""Tables of names as hashes answer as dictionaries do."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from alserve.folder.spool import Spool
from alserve.places.compact import Names, Table, digest

names = st.text(max_size=3)
numbers = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(st.tuples(names, numbers, numbers)), names)
def test_a_table_is_a_dictionary(entries: list[tuple[str, int, int]], other: str) -> None:
    table, expected = Table(2), dict[str, list[int]]()
    for name, *values in entries:
        table.add(name, *values)
        expected[name] = values
        assert table.get(name) == values
    assert {name: table.get(name) for name in expected} == expected
    assert table.get(other) == expected.get(other)
    assert (len(table), table.count()) == (len(entries), len(expected))


@given(st.lists(names), st.randoms())
def test_names_that_occur_twice_are_found(entries: list[str], random: "object") -> None:
    first, second = Names(), Names()
    for name in entries:
        first.add(name)
    for name in random.sample(entries, len(entries)):  # type: ignore[attr-defined]
        second.add(name)
    assert sorted(first.twice()) == sorted(digest(name) for name, count in Counter(entries).items() if count > 1)
    assert first.hash() == second.hash()
    second.add("one more")
    assert first.hash() != second.hash()


@given(st.lists(st.text(st.characters(codec=None), max_size=5)))
def test_a_spool_is_a_list(entries: list[str]) -> None:
    spool = Spool[str](lambda item: [item], lambda row: str(row[0]))
    for number, entry in enumerate(entries, start=1):
        spool.add(entry)
        assert len(spool) == number
    assert list(spool) == list(spool) == entries
