"""Checks of a mining job: its sources, its corpus, the output directory, and the remaining rows."""

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
    """Names of the sources to mine, in the order of the manifest. Default: all retrieval sources.

    Raises ConfigError for an unknown source, for a source of another task type, and if the data set has no retrieval
    source.
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
                f"source {name!r} has the task type {kinds[name]}: its rows share labels, so a near text can have the "
                "same label",
                remedy=f"mine only retrieval sources: {', '.join(retrieval)}"
                if retrieval
                else "prepare a source with `kind: retrieval`",
            )
    if not retrieval:
        raise ConfigError(
            "the data set has no retrieval source; only retrieval sources can be mined",
            remedy="prepare a source with `kind: retrieval`",
        )
    return tuple(name for name in retrieval if not sources or name in sources)


def corpus_files(names: Sequence[str], corpus: Mapping[str, Sequence[str]]) -> dict[str, list[RawFile]]:
    """The corpus files of each source. Raises ConfigError for a source that is not mined, DataError for a bad file."""
    unknown = [name for name in corpus if name not in names]
    if unknown:
        raise ConfigError(
            f"a corpus is given for {unknown[0]!r}, which is not one of the mined sources: {', '.join(names)}",
            remedy="correct the name in --corpus NAME=FILE",
        )
    return {name: [file for address in corpus.get(name, ()) for file in find_corpus(address)] for name in names}


def check_free(out: Store, work: Store) -> None:
    """Raises DataError if `out` holds another data set, or one that was mined with other settings."""
    if out.exists(MANIFEST_KEY) and (out.exists(RECIPE_KEY) or not work.list()):
        raise DataError(
            f"{out.uri} holds another data set, or one that was mined with other settings",
            remedy="give an empty directory for the mined data set, or remove these files",
        )


def check_kept(report: SourceReport, rule: MiningRule) -> None:
    """Raises DataError for a source without remaining rows."""
    if report.kept_rows == 0:
        refused = report.above_max_score + report.above_max_ratio
        raise DataError(
            f"source {report.name!r}: none of its {report.rows:,} rows has {rule.negatives} hard negatives. "
            f"Candidates: {report.candidates:,} among {report.documents:,} texts. Refused: {report.above_max_score:,} "
            f"with a score of {rule.max_score} or more, and {report.above_max_ratio:,} with a score of at least "
            f"{rule.max_ratio} of the positive's. The first {rule.skip} are skipped",
            remedy=(
                "raise --max-score or --max-ratio, or mine with a model that separates answers from other texts"
                if refused * 2 > report.candidates
                else "lower --negatives or --skip, raise --top-k, or add documents with --corpus NAME=FILE"
            ),
        )
