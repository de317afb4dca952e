"""The operator's queue: every key is handled after its last change, by one worker at a time."""

import asyncio

from jobs.controller.work_queue import WorkQueue


def run(coroutine: object) -> None:
    asyncio.run(coroutine)  # type: ignore[arg-type]


def queue() -> WorkQueue[str]:
    return WorkQueue(jitter=lambda: 0.01)


def test_a_key_that_is_added_twice_is_handled_once() -> None:
    async def law() -> None:
        keys = queue()
        keys.add("a")
        keys.add("a")

        assert await keys.get() == "a"
        assert len(keys) == 0

    run(law())


def test_a_key_that_is_added_while_it_is_handled_is_handled_again() -> None:
    async def law() -> None:
        keys = queue()
        keys.add("a")
        await keys.get()
        keys.add("a")
        assert len(keys) == 0

        keys.done("a")

        assert await keys.get() == "a"

    run(law())


def test_a_failed_key_is_retried_with_growing_waits_until_it_succeeds() -> None:
    async def law() -> None:
        keys = queue()
        waits = []
        for _ in range(4):
            keys.add("a")
            await keys.get()
            waits.append(keys.failed("a"))
        assert await keys.get() == "a"
        keys.done("a")
        keys.add("a")
        await keys.get()

        assert waits == sorted(waits)
        assert len(set(waits)) == 4
        assert keys.failed("a") == waits[0]

    run(law())


def test_a_later_delay_replaces_an_earlier_one() -> None:
    async def law() -> None:
        keys = queue()
        keys.add_after("a", 3600)
        keys.add_after("a", 0)

        assert await asyncio.wait_for(keys.get(), 10) == "a"

    run(law())
