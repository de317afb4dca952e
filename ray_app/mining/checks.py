"""Checks of a mining job: its sources, its corpus, the place for the new data set, and the rows that are left."""

from collections.abc import Mapping, Sequence

from data_io.dataset.manifest import MANIFEST_KEY, Manifest
from data_io.dataset.provenance import RECIPE_KEY
from data_io.errors import ConfigError, DataError
from data_io.storage.store import Store
from data_io.user_files.records import RawFile
from ray_app.mining.inputs import find_corpus
from ray_app.mining.report import SourceReport
from ray_app.mining.selection import MiningRule


def chosen_sources(manifest: Manifest, sources: Sequence[str]) -> tuple[str, ...]:
    """Names of the sources to mine, in the manifest's order; none given stands for all retrieval sources.

    Raises ConfigError for an unknown source, one of another kind, and where there is no retrieval source.
    """
    kinds = {entry.name: entry.kind for entry in manifest.sources}
    retrieval = [name for name, kind in kinds.items() if kind.uses_in_batch_negatives]
    for name in sources:
        if name not in kinds:
            raise ConfigError(
                f"no source {name!r} in the data set; it has {', '.join(kinds)}", remedy="correct --source"
            )
        if name not in retrieval:
            raise ConfigError(
                f"source {name!r} is of kind {kinds[name]}: its rows share labels, and a near text may carry the same",
                remedy=f"mine retrieval sources only: {', '.join(retrieval) or 'there is none'}",
            )
    if not retrieval:
        raise ConfigError(
            "the data set has no retrieval source, and only those are mined", remedy="prepare one with kind: retrieval"
        )
    return tuple(name for name in retrieval if not sources or name in sources)


def corpus_files(names: Sequence[str], corpus: Mapping[str, Sequence[str]]) -> dict[str, list[RawFile]]:
    """By source, the files of its corpus. Raises ConfigError for a source that is not mined, DataError for a file."""
    unknown = [name for name in corpus if name not in names]
    if unknown:
        raise ConfigError(
            f"a corpus is given for {unknown[0]!r}, which is not mined; mined are {', '.join(names)}",
            remedy="correct the name in --corpus NAME=FILE",
        )
    return {name: [file for address in corpus.get(name, ()) for file in find_corpus(address)] for name in names}


def check_free(out: Store, work: Store) -> None:
    """Raises DataError where another data set is at `out`, or one that was mined with other settings."""
    if out.exists(MANIFEST_KEY) and (out.exists(RECIPE_KEY) or not work.list()):
        raise DataError(
            f"{out.uri} holds another data set, or one that was mined in another way",
            remedy="give an empty place for the mined data set, or remove what is there",
        )


def check_kept(report: SourceReport, rule: MiningRule) -> None:
    """Raises DataError for a source of which no row is left."""
    if report.kept_rows == 0:
        refused = report.above_max_score + report.above_max_ratio
        raise DataError(
            f"source {report.name!r}: none of its {report.rows:,} rows has {rule.negatives} hard negatives. Of "
            f"{report.candidates:,} candidates among {report.documents:,} texts {report.above_max_score:,} score "
            f"{rule.max_score} or more and {report.above_max_ratio:,} more at least {rule.max_ratio} of the positive; "
            f"the first {rule.skip} are skipped",
            remedy=(
                "raise --max-score or --max-ratio, or mine with a model that tells answers from other texts"
                if refused * 2 > report.candidates
                else "lower --negatives or --skip, raise --top-k, or add documents with --corpus NAME=FILE"
            ),
        )
