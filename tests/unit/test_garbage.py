"""When Python looks for garbage. Each in a process of its own, since there is one collector in each."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hosting.garbage import resident_bytes

PRELUDE = """
import gc, weakref
from hosting import garbage
class Knot:
    def __init__(self): self.itself = self
def make(count): return [[] for _ in range(count)]
"""

pytestmark = [
    pytest.mark.skipif(not resident_bytes(), reason="memory is known on Linux only"),
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python's own collector is left alone"),
]


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", PRELUDE + program], check=True, timeout=60)


def test_what_lives_is_looked_at_once() -> None:
    """Of many objects that stay nearly all are set aside, and no look is ever among many."""
    run("""
garbage.GarbageWatch(lambda: False).start()
before, most = gc.get_freeze_count(), 0
kept = []
for _ in range(100):
    kept.append(make(1_000))
    most = max(most, len(gc.get_objects()))
assert gc.get_freeze_count() - before > 70_000, gc.get_freeze_count() - before
assert most < 40_000, most
""")


def test_nothing_is_set_aside_while_runs_are_executed() -> None:
    """What a run makes becomes garbage at its end, and has to be found."""
    run("""
garbage.GarbageWatch(lambda: True).start()
before = gc.get_freeze_count()
kept = make(100_000)
gc.collect()
assert gc.get_freeze_count() <= before
assert len(gc.get_objects()) > 100_000
""")


def test_garbage_is_found_among_the_young() -> None:
    """What ends soon, in a cycle, is found soon."""
    run("""
garbage.GarbageWatch(lambda: False).start()
knot = Knot()
gone = weakref.ref(knot)
del knot
kept = make(10_000)
assert gone() is None
""")


def test_what_was_set_aside_is_looked_at_again() -> None:
    """When memory has grown, garbage that was set aside while it lived is found after all."""
    run("""
watch = garbage.GarbageWatch(lambda: False)
watch.start()
knot = Knot()
gone = weakref.ref(knot)
kept = make(100_000)
assert gc.is_tracked(knot) and not any(thing is knot for thing in gc.get_objects())
del knot
kept.append(make(100_000))
assert gone() is not None
memory = garbage.resident_bytes
garbage.resident_bytes = lambda: memory() + garbage.MOST_GROWTH
kept.append(make(100_000))
assert gone() is None
kept.append(make(100_000))
# What is alive is set aside again.
assert gc.get_freeze_count() > 300_000, gc.get_freeze_count()
""")


def test_memory_that_shrank_is_measured_from_there() -> None:
    """What many readers took before they left allows no more garbage than before they came."""
    run("""
memory, most = garbage.resident_bytes, garbage.MOST_GROWTH
garbage.resident_bytes = lambda: memory() + 3 * most
garbage.GarbageWatch(lambda: False).start()
garbage.resident_bytes = memory
kept = make(100_000)
knot = Knot()
gone = weakref.ref(knot)
kept.append(make(100_000))
del knot
assert gone() is not None
garbage.resident_bytes = lambda: memory() + most
kept.append(make(100_000))
assert gone() is None
""")


def test_memory_that_is_not_known_for_once() -> None:
    """When memory can't be read nothing is set aside, and the next time all goes on."""
    run("""
memory = garbage.resident_bytes
garbage.GarbageWatch(lambda: False).start()
before = gc.get_freeze_count()
garbage.resident_bytes = lambda: 0
kept = make(100_000)
gc.collect()
assert gc.get_freeze_count() <= before
garbage.resident_bytes = memory
kept.append(make(200_000))
assert gc.get_freeze_count() > before + 100_000
""")
