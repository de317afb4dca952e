"""The operator's queue: every key is looked at after its last change, by one worker at a time."""

import asyncio

from jobs.controller.work_queue import WorkQueue


def run(coroutine: object) -> None:
    asyncio.run(coroutine)  # type: ignore[arg-type]


def queue() -> WorkQueue[str]:
    return WorkQueue(jitter=lambda: 0.01)


def test_a_key_that_is_added_twice_comes_once() -> None:
    async def law() -> None:
        keys = queue()
        keys.add("a")
        keys.add("a")

        assert await keys.get() == "a"
        assert len(keys) == 0

    run(law())


def test_a_key_that_changes_while_it_is_worked_at_comes_again_afterwards() -> None:
    async def law() -> None:
        keys = queue()
        keys.add("a")
        await keys.get()
        keys.add("a")
        assert len(keys) == 0

        keys.done("a")

        assert await keys.get() == "a"

    run(law())


def test_a_key_that_failed_comes_back_later_each_time_until_it_goes_well() -> None:
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


def test_a_wait_is_replaced_by_a_later_wish() -> None:
    async def law() -> None:
        keys = queue()
        keys.add_after("a", 3600)
        keys.add_after("a", 0)

        assert await asyncio.wait_for(keys.get(), 10) == "a"

    run(law())
