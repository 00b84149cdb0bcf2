"""Make a checkpoint with random GPT-2 weights and a tokenizer of characters, as in nanoGPT.

python tests/make_char_checkpoint.py --text input.txt --output_dir char_checkpoint
python gpt2_finetune/gpt2_finetune.py --model_name_or_path char_checkpoint --train_file input.txt
"""

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast


def char_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer with a token per character, numbered in the characters' order."""
    vocabulary = {character: i for i, character in enumerate(sorted(set(text)))}
    tokenizer = Tokenizer(
        BPE(vocab=vocabulary, merges=[])
    )  # without merges every character stays alone
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


def make_char_checkpoint(text: str, folder: str | Path, seed: int = 42, **size: int) -> None:
    """Write the folder; `size` overrides fields of nanoGPT's recipe for a CPU."""
    tokenizer = char_tokenizer(text)
    tokenizer.save_pretrained(folder)
    size = {"n_positions": 64, "n_embd": 128, "n_layer": 4, "n_head": 4, **size}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(tokenizer), bos_token_id=None, eos_token_id=None, **size, **dropout
    )
    GPT2LMHeadModel(config).save_pretrained(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text", required=True, help="UTF-8 text whose characters become the vocabulary"
    )
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--seed", type=int, default=42)
    args = parser.parse_args()
    make_char_checkpoint(
        Path(args.text).read_text(encoding="utf-8-sig"), args.output_dir, args.seed
    )
