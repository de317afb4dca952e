"""The steps common to every preparation: reuse an existing data set, resume unfinished work, record the recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from data_io.curation.held_out import SplitCounts
from data_io.dataset.manifest import Manifest
from data_io.dataset.provenance import record, reuse
from data_io.dataset.spill import MEMORY_BYTES
from data_io.execution import Executor, Say, in_process, silent
from data_io.storage.resumable import Work, begin_work, end_work
from data_io.storage.store import Store


@dataclass(frozen=True)
class Resources:
    """Settings of how a preparation runs. The data set does not depend on them."""

    memory_bytes: int = MEMORY_BYTES
    """About the maximum bytes of texts in memory per process."""
    executor: Executor = in_process
    say: Say = silent


@dataclass(frozen=True)
class Attempt:
    """One attempt to make the data set of `recipe` in `store`. An earlier attempt may have been killed."""

    store: Store
    recipe: Mapping[str, object]
    """Everything that determines the data set, as JSON values."""
    resources: Resources
    began: float
    """Seconds since the epoch."""
    files: Sequence[str] = ()
    """Keys of the files that it writes besides sources and evaluation sets."""

    def finished_before(self) -> Manifest | None:
        """The manifest if a complete data set of this recipe exists, None if it has to be made."""
        manifest = reuse(self.store, self.recipe, files=self.files, say=self.resources.say)
        if manifest is not None:
            end_work(self.store, began=self.began)
        return manifest

    def begin_work(self) -> Work:
        """The unfinished work of an earlier attempt at the same data set, or new work."""
        return begin_work(self.store, self.recipe, self.resources.memory_bytes, say=self.resources.say)

    def finish(self, manifest: Manifest, counts: Mapping[str, SplitCounts]) -> Manifest:
        """Record how the data set was made, with the counts of each source, and remove the unfinished work."""
        by_name = {name: asdict(each) for name, each in counts.items()}
        record(self.store, self.recipe, manifest, files=self.files, counts=by_name)
        end_work(self.store, began=self.began)
        return manifest
