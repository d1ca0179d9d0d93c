"""
Write a BERT of sentence-transformers as GGUF, the format that llama.cpp reads.

It is what llama.cpp's own `convert_hf_to_gguf.py` writes of such a model, without
PyTorch.  Run in the environment of llama.cpp: `write_gguf.py MODEL_FOLDER FILE`.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

SPECIAL = frozenset({"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"})


def write(folder: Path, file: Path) -> None:
    """Write the model in *folder* into *file*."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(file, "bert")
    _describe(writer, config)
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")
    _add_tokens(writer, vocabulary[: config["vocab_size"]])
    _add_weights(writer, folder / "model.safetensors", config["num_hidden_layers"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _describe(writer: gguf.GGUFWriter, config: dict[str, int]) -> None:
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_token_type_count(config["type_vocab_size"])


def _add_tokens(writer: gguf.GGUFWriter, vocabulary: list[str]) -> None:
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([_with_space(each) for each in vocabulary])
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[each in SPECIAL] for each in vocabulary])
    writer.add_bos_token_id(vocabulary.index("[CLS]"))
    writer.add_eos_token_id(vocabulary.index("[SEP]"))
    writer.add_sep_token_id(vocabulary.index("[SEP]"))
    writer.add_pad_token_id(vocabulary.index("[PAD]"))
    writer.add_unk_token_id(vocabulary.index("[UNK]"))
    writer.add_mask_token_id(vocabulary.index("[MASK]"))


def _with_space(piece: str) -> str:
    # Here the beginning of a word is marked, in BERT's own list the rest of one.
    if piece in SPECIAL:
        return piece
    return piece[2:] if piece.startswith("##") else f"\u2581{piece}"


def _add_weights(writer: gguf.GGUFWriter, file: Path, layers: int) -> None:
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, layers)
    for name, values in load_file(file).items():
        if name != "embeddings.position_ids" and not name.startswith("pooler."):
            known = names.get_name(name, try_suffixes=(".weight", ".bias"))
            writer.add_tensor(known, np.ascontiguousarray(values, dtype=np.float32))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
