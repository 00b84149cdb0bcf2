"""Measure t5_translator: sentences per second against generate and CTranslate2, bfloat16's effect.

python tests/benchmarks/t5_translator.py speed                # t5-small's shape, 20 new tokens
python tests/benchmarks/t5_translator.py fidelity --epochs 4  # a small T5 trained on Multi30k

SHOWCASE_DATA names the folder that holds multi30k/. CTranslate2 is measured where it is installed.
Every round runs all contenders one after the other, so that a busy machine slows all of them:
trust the ratios of the medians.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from figures import DATA, print_figures
from sacrebleu.metrics import BLEU
from transformers import T5Config, T5ForConditionalGeneration, T5Tokenizer, logging, set_seed

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "lang_translator"))
import t5_translator as t5  # noqa: E402

PROMPT = t5.build_prompt("English", "German")
SMALL = {
    "d_model": 512,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "vocab_size": 32128,
}  # t5-small
TRAINED = {"d_model": 256, "d_ff": 1024, "num_layers": 3, "num_heads": 4, "dropout_rate": 0.1}


def pairs(split: str) -> list[list[str]]:
    """English and German sentences of a split of Multi30k."""
    path = DATA / "multi30k" / f"{split}.de-en.tsv"
    return [[english, german] for german, english in t5.read_pairs(str(path))]


def new_checkpoint(folder: str, size: dict, vocab_size: int) -> None:
    """Save a T5 with random weights and a tokenizer trained on Multi30k."""
    texts = [PROMPT] * 1000 + [text for pair in pairs("train") for text in pair]
    tokenizer = T5Tokenizer().train_new_from_iterator(texts, vocab_size, show_progress=False)
    size = {"vocab_size": len(tokenizer), **size}
    T5ForConditionalGeneration(T5Config(**size, decoder_start_token_id=0)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def load(folder: str, dtype: torch.dtype) -> T5ForConditionalGeneration:
    return T5ForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()


def one_at_a_time(texts: list[str], model, tokenizer, **options) -> list[str]:
    """What a reader of the library's page would write."""
    found = []
    for text in texts:
        output = model.generate(**tokenizer(PROMPT + text, return_tensors="pt"), **options)[0]
        found.append(tokenizer.decode(output, skip_special_tokens=True))
    return found


def in_batches(texts: list[str], model, tokenizer, size: int = 32, **options) -> None:
    """Padded batches in file order, as in most examples."""
    for start in range(0, len(texts), size):
        batch = [PROMPT + text for text in texts[start : start + size]]
        model.generate(**tokenizer(batch, padding=True, return_tensors="pt"), **options)


def on_the_same_batches(
    texts: list[str], model, tokenizer, batch_tokens: int = 4096, **options
) -> list[str]:
    """`generate` on the batches of t5_translator: sorted by length, so many tokens in each."""
    rows = tokenizer([PROMPT + text for text in texts]).input_ids
    found = [""] * len(rows)
    left = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
    while left:
        size = max(1, batch_tokens // len(rows[left[0]]))
        batch, left = left[:size], left[size:]
        inputs = tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt")
        output = model.generate(**inputs, **options)
        for i, text in zip(batch, tokenizer.batch_decode(output, True), strict=True):
            found[i] = " ".join(text.split())
    return found


def ctranslate2_contenders(folder: str, tokenizer, tokens: int) -> dict:
    """CTranslate2 with all threads, its own sorting by length and batches by tokens."""
    try:
        import ctranslate2
    except ImportError:
        return {}
    converted = f"{folder}/ct2"
    ctranslate2.converters.TransformersConverter(folder).convert(converted, force=True)

    def contender(compute_type):
        threads = {"inter_threads": 1, "intra_threads": torch.get_num_threads()}
        translator = ctranslate2.Translator(converted, compute_type=compute_type, **threads)

        def run(texts):
            source = [tokenizer.tokenize(PROMPT + text, add_special_tokens=True) for text in texts]
            limits = {"max_decoding_length": tokens, "min_decoding_length": tokens}
            batches = {"beam_size": 1, "max_batch_size": 4096, "batch_type": "tokens"}
            results = translator.translate_batch(source, **limits, **batches)
            return [tokenizer.convert_tokens_to_string(result.hypotheses[0]) for result in results]

        return run

    return {f"CTranslate2 {kind}": contender(kind) for kind in ("float32", "int8")}


def speed(options: argparse.Namespace) -> dict[str, float]:
    """Sentences per second of each contender: median over the rounds."""
    texts = [english for english, _ in pairs("test_2016_flickr")][: options.sentences]
    few = texts[: options.one_at_a_time]
    with tempfile.TemporaryDirectory() as folder:
        new_checkpoint(folder, SMALL, 16_000)
        tokenizer = T5Tokenizer.from_pretrained(folder)
        fp32, bf16 = load(folder, torch.float32), load(folder, torch.bfloat16)
        ours = {"max_new_tokens": 20, "batch_tokens": options.batch_tokens}
        fixed = {"max_new_tokens": 20, "eos_token_id": None, "do_sample": False}
        contenders = {
            "generate, one at a time, fp32": (
                few,
                lambda texts: one_at_a_time(texts, fp32, tokenizer, **fixed),
            ),
            "generate, batches of 32, fp32": (
                texts,
                lambda texts: in_batches(texts, fp32, tokenizer, **fixed),
            ),
            "generate, batches of 32, bf16": (
                texts,
                lambda texts: in_batches(texts, bf16, tokenizer, **fixed),
            ),
            "generate, the same batches as t5_translator, bf16": (
                texts,
                lambda texts: on_the_same_batches(
                    texts, bf16, tokenizer, options.batch_tokens, **fixed
                ),
            ),
            "t5_translator, fp32": (
                texts,
                lambda texts: t5.translate(texts, fp32, tokenizer, **ours),
            ),
            "t5_translator, bf16": (
                texts,
                lambda texts: t5.translate(texts, bf16, tokenizer, **ours),
            ),
        }
        for name, run in ctranslate2_contenders(folder, tokenizer, 20).items():
            contenders[name] = (texts, run)
        if options.only:
            contenders = {
                name: value
                for name, value in contenders.items()
                if any(key in name for key in options.only)
            }
        seconds = {name: [] for name in contenders}
        with (
            open(os.devnull, "w") as void,
            contextlib.redirect_stderr(void),
        ):  # every sentence reaches the limit of 20 tokens: no warnings
            for _ in range(options.rounds + 1):
                for name, (sentences, run) in contenders.items():
                    start = time.perf_counter()
                    run(sentences)
                    seconds[name].append((time.perf_counter() - start) / len(sentences))
    return {
        name: 1 / statistics.median(times[1:]) for name, times in seconds.items()
    }  # the first round warms up


def teacher_forced(model, tokenizer, rows: list[list[str]]) -> torch.Tensor:
    """The most probable token at every position of the references, int64 of shape (tokens,)."""
    found = []
    for source, target in rows:
        labels = tokenizer(target, return_tensors="pt").input_ids
        logits = model(**tokenizer(PROMPT + source, return_tensors="pt"), labels=labels).logits
        found.append(logits[0].argmax(-1))
    return torch.cat(found)


def train_small(folder: str, options: argparse.Namespace) -> str:
    """Train a small T5 on Multi30k with the script itself; return its folder."""
    trained = options.model or f"{folder}/trained"
    if Path(trained, "config.json").exists():
        return trained
    new_checkpoint(f"{folder}/new", TRAINED, 8_000)
    for split in ("train", "val"):
        text = "".join(f"{english}\t{german}\n" for english, german in pairs(split))
        Path(folder, f"{split}.tsv").write_text(text, encoding="utf-8")
    flags = f"--do_train --model_name_or_path {folder}/new --output_dir {trained}"
    flags += f" --train_file {folder}/train.tsv --validation_file {folder}/val.tsv"
    flags += f" --learning_rate 1e-3 --num_train_epochs {options.epochs}"
    if options.max_steps:
        flags += f" --max_steps {options.max_steps} --save_strategy no"
    t5.main(flags.split())
    return trained


def fidelity(options: argparse.Namespace) -> dict[str, float]:
    """Compare the script's bf16 with fp32 `generate`, on sentences that end where they end."""
    rows = pairs("test_2016_flickr")[: options.sentences]
    sources = [source for source, _ in rows]
    references = [target for _, target in rows]
    with tempfile.TemporaryDirectory() as folder:
        trained = train_small(folder, options)
        tokenizer = T5Tokenizer.from_pretrained(trained)
        fp32, bf16 = load(trained, torch.float32), load(trained, torch.bfloat16)
    limit = {"max_new_tokens": 100}
    contenders = {
        "fp32 generate one at a time": (one_at_a_time, fp32),
        "bf16 generate on the same batches": (on_the_same_batches, bf16),
        "t5_translator bf16": (t5.translate, bf16),
    }
    seconds, found = {name: [] for name in contenders}, {}
    with torch.inference_mode():
        forced = [teacher_forced(model, tokenizer, rows) for model in (fp32, bf16)]
        for number in range(options.rounds):
            for name, (run, model) in contenders.items():
                if run is one_at_a_time and number > 0:
                    continue  # the slowest runs once
                start = time.perf_counter()
                found[name] = run(sources, model, tokenizer, **limit)
                seconds[name].append(time.perf_counter() - start)
    slow, same_batches, fast = found.values()
    figures = {
        "teacher-forced tokens equal, %": 100 * (forced[0] == forced[1]).double().mean().item(),
        "translations equal, %": 100 * share_of_equals(slow, fast),
        "translations equal to generate on the same batches, %": 100
        * share_of_equals(same_batches, fast),
        "BLEU, fp32 generate": BLEU().corpus_score(slow, [references]).score,
        "BLEU, t5_translator bf16": BLEU().corpus_score(fast, [references]).score,
    }
    for name, times in seconds.items():
        figures[f"sentences/s, {name}"] = len(rows) / statistics.median(times)
    return figures


def share_of_equals(first: list[str], second: list[str]) -> float:
    return statistics.mean(a == b for a, b in zip(first, second, strict=True))


def main() -> None:
    """Run one part and print its figures, as a table and as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=["speed", "fidelity"])
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument(
        "--one_at_a_time", type=int, default=20, help="Sentences for the slowest contender."
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_tokens", type=int, default=4096)
    parser.add_argument("--only", nargs="+", help="Contenders whose names contain one of these.")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--max_steps", type=int, default=0, help="Stop the training early.")
    parser.add_argument(
        "--model", help="Keep the trained model in this folder, or take the one in it."
    )
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    set_seed(42)
    figures = speed(options) if options.part == "speed" else fidelity(options)
    for name, value in figures.items():
        ratio = f"  {value / next(iter(figures.values())):6.1f}x" if options.part == "speed" else ""
        print(f"{name:42} {value:8.2f}{ratio}")
    print_figures(figures)


if __name__ == "__main__":
    main()
