# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate>=1.10",
#     "huggingface_hub>=1.5",
#     "matplotlib>=3.10",
#     "sacrebleu>=2.5",
#     "safetensors>=0.6",
#     "torch>=2.11",
#     "tqdm>=4.67",
#     "transformers>=5.10",
# ]
# ///
"""Translate with T5: a sentence, a file of any size or a pipe; fine-tune it on your own pairs of sentences.

python t5_translator.py --smoke                                                     # seconds, no download
python t5_translator.py --input_file english.txt --output_file german.txt           # t5-small from the hub
python t5_translator.py --do_train --train_file pairs.tsv --validation_file valid.tsv --target_lang French
"""

import argparse
import ctypes
import hashlib
import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NoReturn

import torch
import transformers
from accelerate import PartialState
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, StrictDataclassError
from matplotlib.figure import Figure
from sacrebleu.metrics import BLEU, CHRF
from safetensors import SafetensorError
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import DataCollatorForSeq2Seq, Seq2SeqTrainer, T5ForConditionalGeneration, T5Tokenizer, Trainer

SAMPLE_TEXTS = ["The house is wonderful.", "A man in an orange hat is looking at something."]
SAMPLE_PAIRS = [
    ("The house is wonderful.", "Das Haus ist wunderbar."),
    ("The garden behind the house is small.", "Der Garten hinter dem Haus ist klein."),
    ("I am reading a good book.", "Ich lese ein gutes Buch."),
    ("She is reading the newspaper.", "Sie liest die Zeitung."),
    ("Where is the station?", "Wo ist der Bahnhof?"),
    ("The train leaves at eight o'clock.", "Der Zug fährt um acht Uhr ab."),
    ("We are drinking coffee in the kitchen.", "Wir trinken Kaffee in der Küche."),
    ("The children are playing in the snow.", "Die Kinder spielen im Schnee."),
    ("My brother lives in Berlin.", "Mein Bruder wohnt in Berlin."),
    ("My sister works in a hospital.", "Meine Schwester arbeitet in einem Krankenhaus."),
    ("It is raining today.", "Heute regnet es."),
    ("Tomorrow the sun will shine.", "Morgen scheint die Sonne."),
    ("The dog is sleeping under the table.", "Der Hund schläft unter dem Tisch."),
    ("The cat is sitting on the roof.", "Die Katze sitzt auf dem Dach."),
    ("How much does the bread cost?", "Wie viel kostet das Brot?"),
    ("I would like a glass of water.", "Ich möchte ein Glas Wasser."),
    ("He has forgotten his keys.", "Er hat seine Schlüssel vergessen."),
    ("They are building a new bridge.", "Sie bauen eine neue Brücke."),
    ("Can you help me, please?", "Können Sie mir bitte helfen?"),
    ("Good night and sleep well!", "Gute Nacht und schlaf gut!"),
]
CHECKPOINT_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
Pairs = list[tuple[str, str]]  # source and target
METRICS = {"bleu": BLEU(), "chrf": CHRF()}
MAX_TOKENS = 512  # of a source with its prompt, as in T5's training
WINDOW_LINES = 4096  # of a file are in memory at a time


@dataclass
class ScriptArguments:
    """Flags of this script; every flag of `transformers.Seq2SeqTrainingArguments` works beside them."""

    smoke: bool = field(default=False, metadata={"help": "Train a tiny model from scratch: no download, seconds."})
    model_name_or_path: str = field(default="t5-small", metadata={"help": "Hub name or folder."})
    text: list[str] | None = field(default=None, metadata={"help": "One or more texts to translate."})
    input_file: str | None = field(default=None, metadata={"help": "A text per line; -: standard input."})
    output_file: str | None = field(default=None, metadata={"help": "Default: standard output."})
    reference_file: str | None = field(default=None, metadata={"help": "Right translations, to score the output."})
    source_lang: str = field(default="English", metadata={"help": "Language to translate from."})
    target_lang: str = field(default="German", metadata={"help": "Language to translate to."})
    num_beams: int = field(default=1, metadata={"help": "1: greedy, the fastest; 4: a little better."})
    max_new_tokens: int | None = field(default=None, metadata={"help": "Default: twice the source's, and 50."})
    batch_tokens: int = field(default=4096, metadata={"help": "Source tokens in a batch, padding included."})
    train_file: str | None = field(default=None, metadata={"help": "TSV: source, target; more columns are ignored."})
    validation_file: str | None = field(default=None, metadata={"help": "The same, for BLEU after every epoch."})

    def __post_init__(self):
        self.prompt = f"translate {self.source_lang} to {self.target_lang}: "  # T5's words for the task


@dataclass
class FineTuningArguments(transformers.Seq2SeqTrainingArguments):
    """Training arguments with defaults for fine-tuning T5; those that depend on the machine are set on parsing."""

    output_dir: str = "outputs/t5_translator"
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    learning_rate: float = 5e-4
    warmup_steps: float = 0.1
    logging_steps: float = 0.05
    save_strategy: str = "epoch"
    save_total_limit: int = 1
    metric_for_best_model: str = "bleu"
    predict_with_generate: bool = True


def fail(message: object, status: int = 2) -> NoReturn:
    """End the program with one `error:` line on stderr and this exit status."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    raise SystemExit(status)


def fetch(name: str, flag: str = "--model_name_or_path", files: tuple = CHECKPOINT_FILES, kind: str = "model") -> str:
    """Return the folder of a checkpoint or data set: `name` itself, or the hub's copy, downloaded or cached."""
    if os.path.isdir(name):
        return name
    try:
        HfApi().repo_info(name, repo_type=kind, timeout=3)  # snapshot_download alone may hang behind a firewall
        return snapshot_download(name, repo_type=kind, allow_patterns=files)
    except (ValueError, *HfHubHTTPError.__bases__) as error:  # OSError and the HTTPError of the hub's HTTP library
        try:
            return snapshot_download(name, repo_type=kind, allow_patterns=files, local_files_only=True)
        except (ValueError, LocalEntryNotFoundError):
            reason = str(error).strip().splitlines()[0]
            fail(f"cannot download {name} ({reason}): try --smoke, which needs no download, or {flag} LOCAL_FOLDER")


def write_atomically(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it into place: complete or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, path)
    except OSError as error:
        fail(f"cannot write {path}: {error.strerror or error}")
    finally:
        if temporary.exists():
            temporary.unlink()


def check_output_dir(folder: str) -> None:
    """End the program before any work is done if nothing can be written to the folder."""
    nearest = next(path for path in (Path(folder), *Path(folder).absolute().parents) if os.path.exists(path))
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        fail(f"--output_dir {folder}: {nearest} is no folder that can be written: name another one")


def check_positive(args: object, *names: str) -> None:
    """End the program if one of these flags has a number that is not above 0."""
    for name in names:
        if (value := getattr(args, name)) is not None and not value > 0:
            fail(f"--{name} {value}: give a number above 0")


def check_training_arguments(args: transformers.TrainingArguments) -> None:
    """End the program before any work is done if a flag of the trainer cannot be right; silence all but one process."""
    sizes = "per_device_train_batch_size", "per_device_eval_batch_size"
    check_positive(args, *sizes, "learning_rate", "num_train_epochs")
    check_output_dir(args.output_dir)
    checkpoint = args.resume_from_checkpoint
    if checkpoint not in (None, "last") and not Path(checkpoint, "trainer_state.json").exists():
        fail(f"--resume_from_checkpoint {checkpoint}: no complete checkpoint: give its folder, or last")
    if args.fsdp and args.use_cpu:
        fail("--fsdp shards over GPUs, and there is none: leave it out")
    if args.process_index:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensors; on a CPU every step would else map and clear it all again."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # other C libraries lack it
        libc.mallopt(-4, 0)  # M_MMAP_MAX: no mapping of their own for large tensors
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: nothing given back at the end of the heap


def machine_defaults() -> dict[str, bool]:
    """Return the `TrainingArguments` that depend on the machine: bfloat16 where the hardware computes in it."""
    gpu, cpu = torch.accelerator.is_available(), torch.cpu.get_capabilities()
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else cpu.get("avx512_bf16", False)
    return {"bf16": bf16, "use_cpu": not gpu, "dataloader_pin_memory": gpu, "disable_tqdm": not sys.stderr.isatty()}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows the defaults of the flags, and the commands of the description line by line."""


def parse_arguments(argv: list[str]) -> tuple[ScriptArguments, FineTuningArguments]:
    """Parse the command line; bad usage ends in one line."""
    options = {"description": __doc__, "allow_abbrev": False, "formatter_class": HelpFormatter}
    parser = transformers.HfArgumentParser((ScriptArguments, FineTuningArguments), **options)
    parser.error = fail
    parser.set_defaults(**machine_defaults())
    if "--smoke" in argv:
        parser.set_defaults(do_train=True, bf16=False, learning_rate=3e-3, max_steps=200, save_strategy="no")
    try:
        args, training_args = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    except ValueError as error:
        fail(f"{error}: see --help")
    check_positive(args, "num_beams", "batch_tokens", "max_new_tokens")
    if training_args.do_train:
        check_training_arguments(training_args)
    elif args.reference_file:
        check_output_dir(training_args.output_dir)
    if (args.text and args.input_file) or (args.reference_file and not args.output_file):
        fail("--text and --input_file exclude each other, and --reference_file needs --output_file")
    if os.path.isdir(args.output_file or ""):
        fail(f"--output_file {args.output_file} is a folder: name a file")
    if (args.train_file or args.validation_file) and not training_args.do_train:
        fail("--train_file and --validation_file are for training: add --do_train")
    # a character device is a terminal or /dev/null; anything else is a pipe or a file
    if not (args.text or args.input_file or training_args.do_train or stat.S_ISCHR(os.fstat(0).st_mode)):
        args.input_file = "-"
    if training_args.world_size > 1 and (args.input_file == "-" or (args.input_file and not args.output_file)):
        fail("several processes share a file, not a pipe: give --input_file and --output_file")
    return args, training_args


def read_lines(path: str) -> Iterator[str]:
    """Yield the lines of a UTF-8 file (`-`: standard input) without their ends; a BOM and CRLF are fine."""
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            for number, line in enumerate(file, 1):
                yield line.decode("utf-8" if number > 1 else "utf-8-sig").rstrip("\r\n")
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}")
    except UnicodeDecodeError as error:
        fail(f"{path}, line {number}: byte {error.start + 1} is not UTF-8 text: save the file as UTF-8")


def read_pairs(path: str) -> Pairs:
    """Read SOURCE TAB TARGET per line; quotes are plain characters, further columns (as in Anki's) are ignored."""
    rows = [line.split("\t") for line in read_lines(path)] or fail(f"{path}: no rows")
    columns = max(2, len(rows[0]))
    for number, row in enumerate(rows, 1):
        if len(row) != columns or not all(text.strip() for text in row[:2]):
            fail(f"{path}, line {number}: found {len(row)} columns, {row!s:.60}: give {columns}, SOURCE TAB TARGET")
    return [(row[0], row[1]) for row in rows]


def load_splits(args: ScriptArguments, training_args: FineTuningArguments) -> dict[str, Pairs]:
    """Load the pairs `train` and `validation` as far as the run needs them: own files, or the sample to train on."""
    splits = {"train": SAMPLE_PAIRS} if training_args.do_train else {}
    files = {"train": args.train_file, "validation": args.validation_file}
    return splits | {name: read_pairs(path) for name, path in files.items() if path}


def tiny(splits: dict[str, Pairs], args: ScriptArguments) -> tuple[T5Tokenizer, T5ForConditionalGeneration]:
    """Build a tokenizer of words and characters and a T5 of 2 + 2 layers with random weights: seconds, no download."""
    if "train" not in splits:
        fail("--smoke builds a model to train: leave it out to evaluate or predict with a saved one")
    torch.set_num_threads(1)  # so small a model gains nothing from more
    texts = [args.prompt, *(text for pair in splits["train"] for text in pair)]
    words = list(dict.fromkeys(f"▁{word}" for text in texts for word in text.split()))[:8000]
    scores = dict.fromkeys(["<pad>", "</s>", "<unk>"], 0) | dict.fromkeys(words, -1)
    scores |= dict.fromkeys(sorted({"▁"}.union(*texts)), -10)  # characters, to spell the other words
    tokenizer = T5Tokenizer(list(scores.items()), extra_ids=0)
    size = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    config = transformers.T5Config(vocab_size=len(tokenizer), **size, decoder_start_token_id=tokenizer.pad_token_id)
    return tokenizer, T5ForConditionalGeneration(config)


def pretrained(name: str) -> tuple[T5Tokenizer, T5ForConditionalGeneration]:
    """Load tokenizer and model of a checkpoint."""
    folder, options = fetch(name), {"use_safetensors": True, "output_loading_info": True}
    try:
        if any('"auto_map"' in path.read_text(encoding="utf-8") for path in Path(folder).glob("*config.json")):
            fail(f"{name} wants to run code of its own, which is refused: choose another model")
        tokenizer = T5Tokenizer.from_pretrained(folder)
        model, loading = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, **options)
    except (OSError, TypeError, ValueError, SafetensorError, StrictDataclassError) as error:
        fail(f"cannot load {name}: {error}")
    # without its vocabulary a tokenizer knows 104 tokens
    if loading["missing_keys"] or not model.config.vocab_size / 2 < len(tokenizer) <= model.config.vocab_size:
        fail(f"{name} is no complete T5: {len(loading['missing_keys'])} weights missing, {len(tokenizer)} tokens known")
    return tokenizer, model


def build_trainer(model, tokenizer, splits, args: ScriptArguments, training_args: FineTuningArguments) -> Trainer:
    """Return the trainer; with evaluation pairs it computes their BLEU at every checkpoint and keeps the best."""
    if "validation" not in splits:
        training_args.eval_strategy = "no"
    elif training_args.eval_strategy == "no":
        training_args.eval_strategy, training_args.eval_steps = training_args.save_strategy, training_args.save_steps
        training_args.load_best_model_at_end = training_args.save_strategy != "no"
    training_args.generation_max_length, training_args.generation_num_beams = args.max_new_tokens or 128, args.num_beams
    collator, limits = DataCollatorForSeq2Seq(tokenizer, model), {"truncation": True, "max_length": MAX_TOKENS}

    def collate(pairs: Pairs) -> dict[str, torch.Tensor]:
        return collator([tokenizer(args.prompt + source, text_target=target, **limits) for source, target in pairs])

    def loss(outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor) -> torch.Tensor:
        # over the tokens of all processes and accumulated batches; the model's own is a mean over its batch
        options = {"reduction": "sum", "label_smoothing": training_args.label_smoothing_factor}
        return cross_entropy(outputs.logits.flatten(0, 1), labels.flatten(), **options) / num_items_in_batch

    def bleu(output: transformers.EvalPrediction) -> dict[str, float]:
        # (row, token), padded with -100
        translations, references = (tokenizer.batch_decode(ids.clip(0), skip_special_tokens=True) for ids in output)
        return {"bleu": METRICS["bleu"].corpus_score(translations, [references]).score}

    data = collate, splits["train"], splits.get("validation")
    return Seq2SeqTrainer(model, training_args, *data, tokenizer, compute_loss_func=loss, compute_metrics=bleu)


def checkpoints(output_dir: str | Path) -> list[Path]:
    """Return the complete checkpoints in a folder, oldest first: `trainer_state.json` is the last file written."""
    states = Path(output_dir).glob("checkpoint-*/trainer_state.json")
    complete = [state.parent for state in states if state.read_bytes().endswith(b"}\n")]
    return sorted(complete, key=lambda folder: int(folder.name.split("-")[1]))


def train_and_save(trainer: Trainer) -> dict[str, float]:
    """Train, from a checkpoint if one is asked for, save model and tokenizer in the output folder; return metrics."""
    resume, output_dir = trainer.args.resume_from_checkpoint, trainer.args.output_dir
    if resume == "last":
        resume = next(reversed(checkpoints(output_dir)), None)
    try:
        metrics = trainer.train(resume_from_checkpoint=resume and str(resume)).metrics
        with tempfile.TemporaryDirectory(dir=output_dir if trainer.args.should_save else None) as folder:
            trainer.save_model(folder)
            Path(folder, "training_args.bin").unlink(missing_ok=True)  # a pickle, which a saved model does not need
            for file in Path(folder).iterdir():
                os.replace(file, Path(output_dir, file.name))
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "inline_container" not in str(error):
            raise  # torch reports a full disk as no OSError
        fail(f"cannot write {output_dir}: {error}: make room and resume with --resume_from_checkpoint last")
    return metrics


def draw_training_curve(log_history: list[dict[str, float]], path: Path) -> None:
    """Draw the losses that the trainer logged over the epochs and, against the axis on the right, BLEU."""
    axes = Figure(figsize=(6, 4), layout="constrained").subplots()
    axes.set(xlabel="epoch", ylabel="loss")
    for name in ("loss", "eval_loss", "eval_bleu"):
        points = {entry["epoch"]: entry[name] for entry in log_history if name in entry}
        side, color = (axes.twinx(), "C2") if name == "eval_bleu" and points else (axes, None)
        side.plot(list(points), list(points.values()), marker=".", label=name if points else None, color=color)
        side.set(ylim=(0, None))
    axes.figure.legend(loc="outside upper center", ncols=3)
    write_atomically(path, lambda file: axes.figure.savefig(file, dpi=120))


def pieces(ids: list[int], tokenizer: T5Tokenizer, limit: int) -> Iterator[list[int]]:
    """Cut token ids into pieces of at most `limit`: after a sentence where there is one, else between words."""
    while len(ids) > limit:
        tokens = tokenizer.convert_ids_to_tokens(ids[: limit + 1])
        words = [i for i in range(1, limit + 1) if tokens[i].startswith("▁")]
        sentences = [i for i in words if tokens[i - 1].endswith((".", "!", "?"))]
        end = max(sentences or words or [limit])
        yield ids[:end]
        ids = ids[end:]
    yield ids


def encode(texts: list[str], tokenizer: T5Tokenizer, args: ScriptArguments, line: int) -> list[tuple[int, list[int]]]:
    """Return the number of a text and the ids of prompt, text and `</s>`: none for blank, several for long texts."""
    (*first, end), rows = tokenizer(args.prompt).input_ids, []
    for index, ids in enumerate(tokenizer([args.prompt + text for text in texts]).input_ids if texts else []):
        parts = list(pieces(ids[len(first) : -1], tokenizer, MAX_TOKENS - len(first) - 1))
        if len(parts) > 1:
            print(f"warning: line {line + index}: {len(ids)} tokens, translated in {len(parts)} parts", file=sys.stderr)
        rows += [(index, [*first, *part, end]) for part in parts if part]
    return rows


def greedy(model: T5ForConditionalGeneration, batch: dict[str, torch.Tensor], max_new_tokens: int) -> torch.Tensor:
    """Return the most probable tokens up to `</s>`, int64 of shape (batch, max_new_tokens), padded with 0.

    They are those of `model.generate`, but a sentence that has ended leaves the batch and the caches at once.
    """
    mask = batch["attention_mask"]  # (batch, source)
    cache = transformers.EncoderDecoderCache(transformers.DynamicCache(), transformers.DynamicCache())
    source = model.encoder(**batch).last_hidden_state  # (batch, source, d_model)
    output = mask.new_zeros(len(mask), max_new_tokens)
    rows, tokens = torch.arange(len(mask), device=mask.device), output[:, :1]  # (left,), (left, 1)
    for step in range(max_new_tokens):
        outputs = model(None, mask, tokens, None, (source,), cache)  # by position: releases name the cache differently
        tokens = outputs.logits[:, -1].max(-1, keepdim=True).indices  # on a CPU argmax takes several times as long
        output[rows, step] = tokens[:, 0]
        left = (tokens[:, 0] != model.config.eos_token_id).nonzero()[:, 0]
        if len(left) == 0:
            break
        if len(left) < len(rows):
            cache.batch_select_indices(left)
            source, mask, rows, tokens = source[left], mask[left], rows[left], tokens[left]
    return output


@torch.inference_mode()
def translate(
    texts: list[str], model: T5ForConditionalGeneration, tokenizer: T5Tokenizer, args: ScriptArguments, line: int = 1
) -> list[str]:
    """Translate texts, each into one line, in batches sorted by length; return them in the order of the texts.

    Of `args` it reads source_lang, target_lang, num_beams, max_new_tokens and batch_tokens. A blank text stays blank, a
    text of more than 512 tokens is translated in parts; warnings name a text by its number, which begins at `line`.
    """
    rows, translations = encode(texts, tokenizer, args, line), [{} for _ in texts]
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i][1]))
    with tqdm(total=len(rows), desc="Translating", leave=False, disable=None) as bar:
        while order:
            longest = len(rows[order[0]][1])
            size, limit = max(1, args.batch_tokens // longest), args.max_new_tokens or 2 * longest + 50
            batch, order = order[:size], order[size:]
            inputs = tokenizer.pad({"input_ids": [rows[i][1] for i in batch]}, return_tensors="pt").to(model.device)
            beams = {"num_beams": args.num_beams, "max_new_tokens": limit}
            output = model.generate(**inputs, **beams)[:, 1:] if args.num_beams > 1 else greedy(model, inputs, limit)
            for i, ids in zip(batch, output.tolist(), strict=True):
                if len(ids) == limit and ids[-1] > 1:
                    tqdm.write(f"warning: line {line + rows[i][0]}: cut at --max_new_tokens {limit}", sys.stderr)
                translations[rows[i][0]][i] = tokenizer.decode(ids, True, clean_up_tokenization_spaces=False)
            bar.update(len(batch))
    return [" ".join(" ".join(parts[i] for i in sorted(parts)).split()) for parts in translations]


def partial_folder(args: ScriptArguments, model: T5ForConditionalGeneration) -> Path:
    """Return where finished windows wait for the others; a digest of arguments, input and weights finds it again."""
    digest = hashlib.sha256(f"{args} {WINDOW_LINES}".encode())
    if args.input_file == "-" or Path(args.input_file or "").is_fifo():
        digest.update(os.urandom(16))  # what came through a pipe cannot be read again: nothing to continue
    elif args.input_file:
        for line in read_lines(args.input_file):
            digest.update(f"{line}\n".encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
    return Path(args.output_file).with_name(f".{Path(args.output_file).name}.{digest.hexdigest()[:16]}.partial")


def join_windows(folder: Path, path: Path) -> None:
    """Write the windows of a folder into one file, in their order."""
    with open(path, "wb") as output:
        for window in sorted(folder.glob("[0-9]*.txt")):
            output.write(window.read_bytes())


def write_to_screen(data: bytes) -> None:
    """Write to standard output at once, in UTF-8 whatever the terminal's encoding."""
    try:
        with open(1, "wb", closefd=False) as file:
            file.write(data)
    except OSError as error:
        fail(f"cannot write to standard output: {error.strerror}")


def translate_lines(args: ScriptArguments, training_args: FineTuningArguments, model, tokenizer) -> None:
    """Translate the input window by window into standard output or `output_file`, which appears when it is complete.

    Several processes take turns. A resumed run does not translate again what an interrupted one has finished.
    """
    lines, resume = iter(args.text or read_lines(args.input_file)), training_args.resume_from_checkpoint
    folder = partial_folder(args, model) if args.output_file else Path()
    for number, chunk in enumerate(iter(lambda: list(islice(lines, WINDOW_LINES)), [])):
        window = folder / f"{number:09}.txt"
        if number % training_args.world_size != training_args.process_index or (resume and window.exists()):
            continue
        translations = translate(chunk, model, tokenizer, args, number * WINDOW_LINES + 1)
        data = "".join(f"{text}\n" for text in translations).encode()
        if args.output_file:
            write_atomically(window, lambda path, data=data: path.write_bytes(data))
        else:
            write_to_screen(data)
    if training_args.world_size > 1:
        PartialState().wait_for_everyone()
    if args.output_file and training_args.process_index == 0:
        write_atomically(args.output_file, lambda path: join_windows(folder, path))
        shutil.rmtree(folder, ignore_errors=True)


def demonstrate(texts: list[str], model, tokenizer, args: ScriptArguments) -> None:
    """Print the tokens and ids that the model reads and its translation."""
    for text, translation in zip(texts, translate(texts, model, tokenizer, args), strict=True):
        ids = tokenizer(args.prompt + text).input_ids
        tokens = " ".join(tokenizer.convert_ids_to_tokens(ids))
        print(f"{args.source_lang}: {text}\nTokens: {tokens}\nIds: {ids}\n{args.target_lang}: {translation}\n")


def score(translations: list[str], references: list[str]) -> dict[str, float]:
    """Print and return BLEU and chrF, 0 to 100, with sacrebleu's signature of how they were counted."""
    if len(translations) != len(references):
        fail(f"--reference_file: {len(references)} lines for {len(translations)} translations: give one for each")
    scores = {name: metric.corpus_score(translations, [references]).score for name, metric in METRICS.items()}
    for name, metric in METRICS.items():
        print(f"{name} = {scores[name]:.2f}, {metric.get_signature()}", file=sys.stderr)
    return scores


def evaluate(pairs: Pairs, model, tokenizer, args: ScriptArguments) -> dict[str, float]:
    """Translate pairs, print the first 20 and how many are exactly the reference; return the metrics."""
    sources, targets = zip(*pairs, strict=True)
    translations = translate(sources, model, tokenizer, args)
    print(*map("  {} -> {}".format, sources[:20], translations), sep="\n")
    exact = sum(text == " ".join(target.split()) for text, target in zip(translations, targets, strict=True))
    print(f"{exact} of {len(pairs)} translations are exactly the reference")
    return score(translations, targets)


def report(metrics: dict[str, float], output_dir: Path, command: str, trained: bool) -> None:
    """Print and write the metrics, name every file and the next command; a finished run needs no checkpoints."""
    results = output_dir / "all_results.json"
    earlier = json.loads(results.read_text()) if results.exists() and not trained else {}
    write_atomically(results, lambda path: path.write_text(json.dumps(earlier | metrics, indent=2, sort_keys=True)))
    for folder in checkpoints(output_dir) if trained else []:
        Path(folder, "trainer_state.json").unlink()  # first, so that half a checkpoint is never taken for a whole one
        shutil.rmtree(folder)
    print(*(f"{name:>28} = {metrics[name]:.4g}" for name in sorted(metrics)), sep="\n")
    print("Files:", *sorted(path for path in output_dir.iterdir() if path.is_file()), sep="\n  ")
    print(f"Next:\n  python {sys.argv[0]} {command}")


def main(argv: list[str] | None = None) -> None:
    """Fine-tune and translate as the command line says."""
    args, training_args = parse_arguments(sys.argv[1:] if argv is None else argv)
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    keep_freed_memory()
    transformers.set_seed(training_args.seed)
    first = training_args.process_index == 0  # of several processes only the first evaluates, prints and reports
    splits, references = load_splits(args, training_args), list(read_lines(args.reference_file or os.devnull))
    tokenizer, model = tiny(splits, args) if args.smoke else pretrained(args.model_name_or_path)
    output_dir, metrics = Path(training_args.output_dir), {}
    if splits:
        trainer = build_trainer(model, tokenizer, splits, args, training_args)
        metrics |= train_and_save(trainer)
    model = model.to(training_args.device, torch.bfloat16 if training_args.bf16 else torch.float32).eval()
    if splits and first:
        draw_training_curve(trainer.state.log_history, output_dir / "training_curve.png")
        metrics |= evaluate(splits.get("validation", splits["train"][:20]), model, tokenizer, args)
    if args.output_file or args.input_file:
        translate_lines(args, training_args, model, tokenizer)
    elif first and (args.text or not splits):
        demonstrate(args.text or SAMPLE_TEXTS, model, tokenizer, args)
    if args.reference_file and first:
        metrics |= score(list(read_lines(args.output_file)), references)
    if metrics and first:
        languages = f"--source_lang {args.source_lang} --target_lang {args.target_lang}"
        model = output_dir if splits else args.model_name_or_path
        report(metrics, output_dir, f"--input_file FILE {languages} --model_name_or_path {model}", bool(splits))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted: the same command with --resume_from_checkpoint last continues", 130)
