"""Mine hard negatives with an embedding model. Needs the extra `train`."""

import os
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from data_io.data_spec import S3Options
from data_io.storage.store import open_store
from jobs.errors import ConfigError
from ray_app.mining.job import MiningOptions, mine_dataset
from ray_app.mining.report import MiningReport, quantile
from ray_app.mining.selection import MiningRule
from ray_app.mining.stage_runner import OnMining, Workers


def mine_data(
    data_uri: str,
    out_uri: str,
    s3: S3Options,
    *,
    model: str,
    rule: Mapping[str, object],
    sources: Sequence[str],
    corpus: Mapping[str, Sequence[str]],
    query_prompt: str | None,
    max_tokens: int | None,
    batch_tokens: int,
    samples: int,
    keep_work: bool,
    workers: int | None,
    gpus: int,
    on_progress: OnMining,
) -> MiningReport:
    """Mine hard negatives into a new data set. Raises ConfigError for a rule that is impossible."""
    options = MiningOptions(
        model,
        rule=_checked(rule),
        sources=sources,
        corpus=corpus,
        query_prompt=query_prompt,
        max_tokens=max_tokens,
        batch_tokens=batch_tokens,
        samples=samples,
    )
    return mine_dataset(
        open_store(data_uri, s3),
        open_store(out_uri, s3),
        options,
        workers=Workers(workers or len(os.sched_getaffinity(0)), gpus),
        keep_work=keep_work,
        on_progress=on_progress,
    )


def _checked(rule: Mapping[str, object]) -> MiningRule:
    try:
        return MiningRule.model_validate(rule)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = f"--{str(first['loc'][0]).replace('_', '-')} {first['input']}: " if first["loc"] else ""
        raise ConfigError(
            f"{where}{first['msg'].removeprefix('Value error, ')}",
            remedy="values of the recipe: --negatives 24 --top-k 100 --skip 5 --max-score 0.8 --max-ratio 0.95",
        ) from error


def quantiles_of_scores(bins: Sequence[int], shares: Sequence[float]) -> list[float]:
    """The quantiles of a histogram of scores from a report, one per share."""
    return [quantile(bins, share) for share in shares]
