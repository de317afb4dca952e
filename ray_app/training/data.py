"""The data set of a job as one worker reads it: its sources, their order and the tokenizer."""

from dataclasses import dataclass
from pathlib import Path

from data_io.dataset.manifest import Manifest, SourceEntry, load_manifest
from data_io.dataset.reader import Reader
from data_io.dataset.tokenizer import TextTokenizer
from data_io.loading.fingerprint import Fingerprint
from data_io.loading.loader import Loader
from data_io.loading.order import DataOrder
from data_io.storage.node_cache import NodeCache
from data_io.storage.store import Store
from ray_app.data_order import fingerprint_of, make_order, select_sources
from ray_app.job_spec import JobSpec
from ray_app.models.loading import load_tokenizer


@dataclass(frozen=True)
class TrainingData:
    """The data set of a job: its sources, their order and the model's tokenizer.

    See docs/developers/design.md, "Data order".
    """

    store: Store
    manifest: Manifest
    sources: tuple[SourceEntry, ...]
    order: DataOrder
    tokenizer: TextTokenizer
    fingerprint: Fingerprint

    @staticmethod
    def open(store: Store, spec: JobSpec) -> "TrainingData":
        """Read the manifest and the tokenizer. Raises ConfigError for a source or micro-batch that does not exist."""
        manifest = load_manifest(store)
        sources = select_sources(manifest, spec)
        order = make_order(manifest, sources, spec)
        tokenizer = load_tokenizer(spec.model, store).for_texts(spec.model.max_seq_length)
        fingerprint = fingerprint_of(manifest, order, tokenizer, spec)
        return TrainingData(store, manifest, sources, order, tokenizer, fingerprint)

    @property
    def names(self) -> list[str]:
        """The names of the sources, in the order of their numbers."""
        return [source.name for source in self.sources]

    def reader(self, spec: JobSpec) -> Reader:
        cache = spec.data.cache
        node_cache = None if cache.path is None else NodeCache(Path(cache.path).expanduser(), cache.max_bytes)
        return Reader(self.store, self.manifest, verify=spec.data.verify == "always", cache=node_cache)

    def loader(
        self, reader: Reader, spec: JobSpec, *, first_step: int, end_step: int, rank: int, world_size: int
    ) -> Loader:
        """Loads steps [first_step, end_step), each with the micro-batches of worker `rank`."""
        return Loader(
            self.order,
            self.sources,
            reader,
            self.tokenizer,
            hard_negatives=spec.data.hard_negatives,
            token_deletion=spec.train.token_deletion,
            first_step=first_step,
            end_step=end_step,
            rank=rank,
            world_size=world_size,
            prefetch_steps=spec.data.prefetch_steps,
            threads=spec.data.loader_threads,
            keep_strings=spec.train.teacher is not None,
        )
