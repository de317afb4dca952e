"""How many workers make a step shorter."""


def useful_workers(there: int, *, fewest: int, micro_batches: int) -> int:
    """The least number of workers, of those that are there, with which a step of so many micro-batches takes as long as
    with all of them: W workers take ceil(micro_batches / W) passes. Never below `fewest` where so many are there.
    """
    if there <= fewest:
        return there
    passes = -(-micro_batches // there)
    return max(fewest, -(-micro_batches // passes))
