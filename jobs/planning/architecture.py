"""Sizes of the backbones that `f2llm plan` supports, from their published configurations. No model is loaded."""

from dataclasses import dataclass
from pathlib import Path

from data_io.bounded_json import read_json
from ray_app.job_spec import ModelSpec


@dataclass(frozen=True)
class Architecture:
    """The shape of a Qwen3 decoder. Input and output embeddings are tied, and the LM head is not used."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int

    @property
    def parameters(self) -> int:
        """Number of weights of the decoder without a head."""
        hidden, heads, kv_heads, head = (
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )
        attention = hidden * head * (heads + 2 * kv_heads) + heads * head * hidden + 2 * head
        feed_forward = 3 * hidden * self.intermediate_size
        norms = 2 * hidden
        layers = self.num_hidden_layers * (attention + feed_forward + norms)
        return self.vocab_size * hidden + layers + hidden

    @property
    def layer_values_per_token(self) -> int:
        """Values per token that a layer keeps for its backward pass: inputs and outputs of products and norms."""
        attention = self.head_dim * (3 * self.num_attention_heads + 3 * self.num_key_value_heads)
        return 6 * self.hidden_size + attention + 4 * self.intermediate_size


# config.json of the models, 2025-04 release.
_QWEN3_VOCABULARY = 151_936
KNOWN_MODELS = {
    "Qwen/Qwen3-0.6B": Architecture(1024, 28, 16, 8, 128, 3072, _QWEN3_VOCABULARY),
    "Qwen/Qwen3-1.7B": Architecture(2048, 28, 16, 8, 128, 6144, _QWEN3_VOCABULARY),
    "Qwen/Qwen3-4B": Architecture(2560, 36, 32, 8, 128, 9728, _QWEN3_VOCABULARY),
}
ASSUMED_VOCABULARY = 8192


def architecture_of(model: ModelSpec, *, vocabulary_size: int | None = None) -> Architecture | None:
    """The backbone's shape; None for a model that is neither known nor a local directory with a Qwen3 configuration.

    A model that is trained from scratch takes its vocabulary from the tokenizer of the data set: `vocabulary_size`.
    Default: ASSUMED_VOCABULARY.
    """
    if model.architecture is not None:
        sizes = model.architecture.model_dump(exclude={"rope_theta", "initializer_range"})
        return Architecture(**sizes, vocab_size=-(-(vocabulary_size or ASSUMED_VOCABULARY) // 64) * 64)
    assert model.name_or_path is not None, "a model has an architecture or a name"
    return KNOWN_MODELS.get(model.name_or_path) or _local_architecture(Path(model.name_or_path))


def _local_architecture(directory: Path) -> Architecture | None:
    try:
        config = read_json((directory / "config.json").read_bytes())
        return Architecture(**{name: int(config[name]) for name in Architecture.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):
        return None
