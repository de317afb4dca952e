"""The backbone: Qwen3 without its head, texts in packs, the last token's state as embedding.

N texts, T tokens, D dimensions. Attention has two ways, chosen once by `attention_of`: on a GPU a variable-length
FlashAttention kernel over one sequence, on CPU or in fp32 one SDPA call over rows, packed under a mask or a text each.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModel, AutoTokenizer, Qwen3Config, Qwen3Model
from transformers.models.qwen3.modeling_qwen3 import Qwen3DecoderLayer

from data_io.storage import Store
from data_io.tokenization import LoadedTokenizer, own_tokenizer
from ray_app.config import ModelSpec
from ray_app.errors import ModelError
from ray_app.packing import Layout, PackedBatch, block_causal_mask

DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
"""The type of the weights under each train.precision."""

Attention = Literal["flash_attention_2", "varlen", "sdpa"]

_DTYPES_OF_KERNELS = (torch.float16, torch.bfloat16)
"""What both variable-length kernels take; they refuse fp32."""

# transformers must not take this for one of its flash kernels, which any name with "flash" in it is.
_VARLEN = "f2llm_varlen"


def best_attention(device: torch.device, dtype: torch.dtype) -> Attention:
    """The best attention for packs of texts on a device, in the precision of the weights."""
    if device.type == "cpu" or dtype not in _DTYPES_OF_KERNELS:
        return "sdpa"
    return "flash_attention_2" if find_spec("flash_attn") else "varlen"


def attention_of(spec: ModelSpec, device: torch.device, dtype: torch.dtype) -> Attention:
    """The attention that `spec` means on this device for weights of `dtype`, which a JobSpec has held against it.

    Raises ModelError where it cannot work on the device.
    """
    wanted = spec.attn_implementation
    if wanted == "auto":
        return best_attention(device, dtype)
    if device.type == "cpu" and wanted != "sdpa":
        raise ModelError(
            f"model.attn_implementation={wanted} needs a GPU, and this worker runs on {device.type}",
            remedy="set model.attn_implementation: auto, or workers.gpus: 1",
        )
    return wanted


def layout_of(attention: Attention) -> Layout:
    return "rows" if attention == "sdpa" else "sequence"


def build_backbone(spec: ModelSpec, *, vocabulary_size: int, dtype: torch.dtype, seed: int) -> nn.Module:
    """The decoder without its head, on CPU: loaded from the hub or a folder, or built with random weights from `seed`.

    Raises ModelError where the weights cannot be had, or the tokenizer has more ids than the model has embeddings.
    """
    if spec.architecture is not None:
        config = _built_config(spec, vocabulary_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: nn.Module = Qwen3Model(config)
        for parameter in model.parameters():  # and not the buffers: rotary frequencies stay fp32, as in a loaded model
            parameter.data = parameter.data.to(dtype)
    else:
        model = load_pretrained(AutoModel, spec.name_or_path, revision=spec.revision, dtype=dtype)
    rows = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    if vocabulary_size > rows:
        raise ModelError(
            f"the tokenizer has {vocabulary_size} ids, the model embeds {rows}",
            remedy="set model.tokenizer to the one the model was trained with",
        )
    return model


def outline_backbone(spec: ModelSpec, *, vocabulary_size: int) -> nn.Module:
    """The same decoder without values, on the meta device: its names, shapes and configuration.

    Raises ModelError where the configuration cannot be had.
    """
    if spec.architecture is not None:
        config = _built_config(spec, vocabulary_size)
    else:
        config = load_pretrained(AutoConfig, spec.name_or_path, revision=spec.revision)
    with torch.device("meta"):
        return AutoModel.from_config(config)  # type: ignore[no-any-return]


def _built_config(spec: ModelSpec, vocabulary_size: int) -> Qwen3Config:
    assert spec.architecture is not None
    return Qwen3Config(
        **spec.architecture.model_dump(),
        # A multiple of 64, as matrix kernels like it.
        vocab_size=-(-vocabulary_size // 64) * 64,
        max_position_embeddings=max(spec.max_seq_length, 512),
        tie_word_embeddings=True,
        use_cache=False,
    )


def load_tokenizer(spec: ModelSpec, data: Store) -> LoadedTokenizer:
    """The tokenizer `spec` names: the hub's or a folder's; for a model built from nothing, the data set's own.

    Raises ModelError where there is none, DataError where the data set has none or a damaged one.
    """
    if spec.needs_tokenizer_of_data:
        return own_tokenizer(data)
    tokenizer = load_pretrained(AutoTokenizer, spec.tokenizer or spec.name_or_path, revision=spec.revision)
    # Where there is no file, transformers makes a tokenizer that knows special tokens alone.
    if not tokenizer.is_fast or tokenizer.eos_token is None or len(tokenizer) <= len(tokenizer.all_special_ids):
        raise ModelError(
            f"the tokenizer of {spec.tokenizer or spec.name_or_path} has no tokenizer.json or no EOS token",
            remedy="name a tokenizer in the fast format, with an eos_token",
        )
    return LoadedTokenizer(
        tokenizer.backend_tokenizer.to_str(),
        eos_token=tokenizer.eos_token,
        pad_token=tokenizer.pad_token or tokenizer.eos_token,
    )


class Embedder(nn.Module):
    """A backbone that embeds packs of texts. The same module under DeepSpeed, torchrun and in evaluation."""

    def __init__(self, backbone: nn.Module, *, attention: Attention, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.attention: Attention = attention
        backbone.set_attn_implementation(_VARLEN if attention == "varlen" else attention)  # type: ignore[operator]
        self._ends_early = _end_early(backbone)
        if gradient_checkpointing:
            backbone.activation_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]

    @property
    def layout(self) -> Layout:
        return layout_of(self.attention)

    @property
    def dimensions(self) -> int:
        """D, the width of an embedding."""
        return int(self.backbone.config.hidden_size)  # type: ignore[union-attr, arg-type]

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations of a step for one token: 6 a weight, without the embedding table, which is only
        looked up, and without attention's quadratic part (Kaplan et al., 2020, section 2.1); nor the last feed-forward
        part where it sees a token of each text alone.
        """
        unused = [self.backbone.get_input_embeddings()]  # type: ignore[operator]
        if self._ends_early:
            unused.append(self.backbone.layers[-1].mlp)  # type: ignore[index, union-attr]
        return 6 * (_weights(self.backbone) - sum(_weights(module) for module in unused))

    @property
    def embedding_dtype(self) -> torch.dtype:
        """float32, or float64 where the weights are: losses are never computed in bf16."""
        return torch.promote_types(next(self.backbone.parameters()).dtype, torch.float32)

    def forward(self, batch: PackedBatch) -> Tensor:
        """Embeddings of the pack's texts, float32 [N, D], L2-normalised, in the order the texts were given."""
        inputs = _attention_inputs(batch)
        if self._ends_early:
            inputs["last_N"] = batch.last_N
        hidden = self.backbone(
            input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False, **inputs
        ).last_hidden_state
        pooled_ND = hidden[0] if self._ends_early else hidden.flatten(0, 1)[batch.last_N]
        return F.normalize(pooled_ND.to(self.embedding_dtype), dim=-1)


class _LastLayer(Qwen3DecoderLayer):  # type: ignore[misc]
    """The last layer of a Qwen3, whose feed-forward part sees the tokens that are embedded and no other: nothing reads
    what would come of those. It is 2 to 3% of the arithmetic of Qwen3 0.6B to 4B, 30% of a model of two layers.
    """

    def forward(self, hidden_states: Tensor, *, last_N: Tensor | None = None, **options: Any) -> Tensor:
        """States [1, N, D] of the tokens `last_N` in the flattened [R * L]. Without it the plain layer: [R, L, D]."""
        if last_N is None:
            states_RLD: Tensor = super().forward(hidden_states, **options)
            return states_RLD
        attended_RLD, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **options)
        last_ND: Tensor = (hidden_states + attended_RLD).flatten(0, 1)[last_N]
        states_ND: Tensor = last_ND + self.mlp(self.post_attention_layernorm(last_ND))
        return states_ND[None]


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _end_early(backbone: nn.Module) -> bool:
    """Whether the last layer gives states of embedded tokens alone from now on, which a Qwen3's does."""
    layers = getattr(backbone, "layers", None)
    if not layers or not isinstance(layers[-1], Qwen3DecoderLayer):
        return False
    layers[-1].__class__ = _LastLayer  # the same weights under the same names
    return True


def _attention_inputs(batch: PackedBatch) -> dict[str, Any]:
    if batch.segment_RL is not None:
        return {"attention_mask": block_causal_mask(batch.segment_RL)}
    if batch.cu_seqlens is None:  # transformers takes plain causal attention
        return {"attention_mask": None}
    # All four or none: with one missing, or with a mask, transformers finds its own boundaries, without an error.
    return {
        "attention_mask": None,
        "cu_seq_lens_q": batch.cu_seqlens,
        "cu_seq_lens_k": batch.cu_seqlens,
        "max_length_q": batch.max_length,
        "max_length_k": batch.max_length,
    }


def _varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """torch's own FlashAttention-2 for packed sequences: query [1, H, T, E], key and value [1, Hkv, T, E]."""
    from torch.nn.attention.varlen import varlen_attn

    assert attention_mask is None
    out_THE = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        cu_seq_lens_q,
        cu_seq_lens_q,
        max_length_q,
        max_length_q,
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=query.shape[1] != key.shape[1],
    )
    assert isinstance(out_THE, Tensor)  # and no log-sum-exp beside it
    return out_THE.unsqueeze(0), None


AttentionInterface.register(_VARLEN, _varlen_attention)


def load_pretrained(loader: Any, name: str | None, **options: Any) -> Any:
    """`loader.from_pretrained(name)`. Raises ModelError that says what was looked for and what to do."""
    try:
        return loader.from_pretrained(name, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        first_line = str(error).strip().splitlines()[0].rstrip(": ")
        if Path(str(name)).is_dir():
            needed = (
                "tokenizer.json and tokenizer_config.json" if loader is AutoTokenizer else "config.json and weights"
            )
            raise ModelError(
                f"cannot load {name!r} from the folder: {first_line}",
                remedy=f"give a folder that holds {needed}, whole",
            ) from error
        raise ModelError(
            f"cannot load {name!r} from the Hugging Face hub: {first_line}",
            remedy="check the name and the network (HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE), or give a local folder",
        ) from error
