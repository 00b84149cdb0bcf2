# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate>=1.10",
#     "huggingface_hub>=1.5",
#     "matplotlib>=3.10",
#     "numpy>=2.1",
#     "safetensors>=0.6",
#     "torch>=2.11",
#     "tqdm>=4.67",
#     "transformers>=5.10",
# ]
# ///
"""Fine-tune GPT-2 or another causal language model, on the built-in sample paragraphs or on your own text.

python gpt2_finetune.py --smoke                                         # seconds, no download
python gpt2_finetune.py --train_file book.txt --prompt "It was a dark"  # plain text of any size
python gpt2_finetune.py --do_predict --prompt "It was a dark" --model_name_or_path outputs/gpt2_finetune
"""

import argparse
import codecs
import copy
import ctypes
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
import transformers
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.constants import HF_ASSETS_CACHE
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, StrictDataclassError
from matplotlib.figure import Figure
from safetensors import SafetensorError
from torch.utils.data import Dataset, Sampler, SequentialSampler
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, DataCollatorForLanguageModeling, Trainer

SAMPLE_PROMPT = "The lighthouse keeper"
# The last paragraph, which the split leaves for validation, repeats sentences of the others: a model that has learned
# those can predict it.
SAMPLE_TEXT = (
    """
The lighthouse keeper climbs ninety steps every evening. Before dark she lights the lamp, winds the clock and writes
the weather into a blue book that her grandfather began.

Fishing boats leave the harbour before sunrise. Their crews carry bread, coffee and dry socks, and nobody speaks until
the last rope has been thrown from the pier.

Our baker opens at five o'clock. Sailors buy his dark rolls, children his sweet buns, and yesterday's bread is for the
ducks behind the mill.

In the old school the windows face the sea. When a whale swims past, the teacher closes her book and the whole class
runs out to the wall.

Every Friday a market fills the square. Farmers bring apples and cheese, a woman repairs umbrellas, and a boy with a
violin plays the same three songs.

The post office has two counters and one clerk. Letters wait in wooden boxes, parcels wait on the floor, and the cat
sleeps on whatever is warm.

A narrow railway crosses the marsh. Its train is never fast, but it is always on time, because the driver sets his
watch by the tide.

Behind the church stands a garden of herbs. Mint grows by the gate, thyme between the stones, and rosemary wherever
the wind has dropped a seed.

Two brothers build boats in a shed near the river. One measures everything twice, the other never measures at all, and
their boats are equally straight.

On stormy nights the inn is full. Travellers dry their coats at the fire, the cook makes soup from onions, and
somebody always tells of the ship of glass.

The doctor rides a green bicycle. In the morning she visits the farms, in the afternoon the harbour, and every dog
knows her by name.

A library of four hundred books belongs to the town. Half of them are about the sea, and the other half were left by
people who missed the train.

Summer brings painters to the cliffs. All set up their easels in a row, argue about the colour of the water and go
home with seven different seas.

Winter is the season of nets. Families sit together in the long hall, mend what the rocks have torn and count the
knots aloud to keep warm.

The mayor collects shells. Large ones hold the papers on his desk, small ones mark the pages of his books, and the
finest is kept in his hat.

Once a year the children race along the beach with lanterns. Whoever wins may ring the harbour bell, and everyone else
may eat as much cake as they like.

Nobody has ever mapped the caves under the castle. Some say they lead to the island, some say they lead nowhere, and
the bats do not say.

When fog covers the bay, the bell rings every minute. One after another the boats answer with their horns, and slowly
they all find the way home.

So every day ends as it began. Farmers bring apples and cheese, a woman repairs umbrellas, and a boy with a violin
plays the same three songs. Its train is never fast, but it is always on time, because the driver sets his watch by
the tide. Letters wait in wooden boxes, parcels wait on the floor, and the cat sleeps on whatever is warm. One after
another the boats answer with their horns, and slowly they all find the way home.
""".strip()
    .replace("\n\n", "<|endoftext|>")
    .replace("\n", " ")
)
Tokenizer, Model = transformers.PreTrainedTokenizerBase, transformers.PreTrainedModel
CHECKPOINT_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
# A piece of up to 32,768 characters: it ends between two words or, in text without such a place, anywhere.
PIECE = re.compile(r".{1,32768}(?<=[^\W\d_])(?= [^\W\d_])|.{32768}", re.DOTALL)


@dataclass
class ScriptArguments:
    """Flags of this script; every flag of `transformers.TrainingArguments` works beside them."""

    smoke: bool = field(default=False, metadata={"help": "Train a tiny model from scratch: no download, seconds."})
    model_name_or_path: str = field(default="gpt2", metadata={"help": "Hub name or folder of any causal LM."})
    train_file: str | None = field(default=None, metadata={"help": "Plain text in UTF-8."})
    validation_file: str | None = field(default=None, metadata={"help": "Text to evaluate on."})
    validation_split_percentage: int = field(default=10, metadata={"help": "Without it: the end of the train file."})
    block_size: int | None = field(default=None, metadata={"help": "Tokens per example; default: context, 1024."})
    stride: int | None = field(default=None, metadata={"help": "Between the starts of blocks; default: block size."})
    cache_dir: str | None = field(default=None, metadata={"help": "For tokenized texts; default: the hub's cache."})
    preprocessing_num_workers: int | None = field(default=None, metadata={"help": "Threads that tokenize (all cores)."})
    prompt: str = field(default=SAMPLE_PROMPT, metadata={"help": "Text to continue before and after training."})
    max_new_tokens: int = field(default=50, metadata={"help": "Length of the continuation, at most."})


@dataclass
class FineTuningArguments(transformers.TrainingArguments):
    """`TrainingArguments` with defaults for fine-tuning GPT-2; those that depend on the machine are set on parsing."""

    output_dir: str = "outputs/gpt2_finetune"
    per_device_train_batch_size: int = 4
    lr_scheduler_type: str = "cosine"
    warmup_steps: float = 0.1
    weight_decay: float = 0.1
    logging_steps: float = 0.05
    save_steps: float = 0.1
    save_total_limit: int = 1


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
        fast = {"max_steps": 400, "learning_rate": 5e-3, "per_device_train_batch_size": 8, "save_steps": 0.5}
        parser.set_defaults(**fast, stride=1, bf16=False)
    try:
        args, training_args = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    except ValueError as error:
        fail(f"{error}: see --help")
    if not 0 <= args.validation_split_percentage < 100:
        fail(f"--validation_split_percentage {args.validation_split_percentage}: give a number from 0 to 99")
    check_positive(args, "block_size", "stride", "max_new_tokens", "preprocessing_num_workers")
    if args.preprocessing_num_workers:
        os.environ["RAYON_NUM_THREADS"] = str(args.preprocessing_num_workers)  # the tokenizers' own threads
    check_training_arguments(training_args)
    if not (args.train_file or args.validation_file):  # the sample is short
        args.block_size, args.stride = args.block_size or 64, args.stride or 8
    if not any(flag.startswith("--do_") for flag in argv):  # other flags may set them: --eval_strategy sets do_eval
        training_args.do_train = training_args.do_predict = True
        training_args.do_eval = bool(args.validation_file or args.validation_split_percentage)
    args.cache_dir = args.cache_dir or os.path.join(HF_ASSETS_CACHE, "gpt2_finetune")
    return args, training_args


def choose_files(args: ScriptArguments, training_args: FineTuningArguments, folder: str) -> dict[str, str]:
    """Return the text files of the splits `train` and `validation` that the run needs.

    Without any file the sample is written to `folder`. Without a validation file both splits share the training file.
    """
    files = {"train": args.train_file, "validation": args.validation_file or args.train_file}
    if not any(files.values()):
        files = dict.fromkeys(files, os.path.join(folder, "sample.txt"))
        Path(files["train"]).write_text(SAMPLE_TEXT, encoding="utf-8")
    wanted = {"train": training_args.do_train, "validation": training_args.do_eval}
    if wanted["train"] and not files["train"]:
        fail("no train file: give --train_file, or choose the steps with --do_eval and --do_predict")
    return {name: path for name, path in files.items() if wanted[name]}


def read_pieces(path: str, label: str) -> Iterator[list[str]]:
    """Yield a UTF-8 text in lists of pieces of whole words, in constant memory; joined, they are the text.

    A byte order mark is left out and line ends become a newline. A piece ends after a letter that a space and another
    letter follow, because there a token ends in every tokenizer that keeps words apart: the ids of the pieces are
    those of the whole text. In text without spaces a piece may end, and a token be cut, after 32,768 characters.
    """
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")(), translate=True)
    text, end = "", 0
    try:
        bar = tqdm(total=os.path.getsize(path), desc=label, unit="B", unit_scale=True, disable=None, leave=False)
        with open(path, "rb") as file, bar:
            while part := file.read(2**19):
                end += len(part)
                bar.update(len(part))
                pieces, start, text = [], 0, text + decoder.decode(part)
                if 0 in part:
                    fail(f"{path}, byte {end - len(part) + part.index(0)}: a NUL byte, which is no text")
                while match := PIECE.match(text, start):
                    pieces.append(match.group())
                    start = match.end()
                text = text[start:]
                yield pieces
        yield [text + decoder.decode(b"", final=True)]
    except UnicodeDecodeError as error:
        fail(f"{path}, byte {end - len(error.object) + error.start}: not UTF-8 text: save the file as UTF-8")
    except OSError as error:
        fail(f"cannot read {path}: {error.strerror}: give a text file")


def write_tokens(path: str, tokenizer: Tokenizer, dtype: np.dtype, cache: Path) -> None:
    """Write the token ids of a text file, one number of `dtype` after another."""
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    whole, first, second = tokenizer(["a b", "a", " b"], **options)["input_ids"]
    adds_space = whole != first + second  # SentencePiece tokenizers put a space before every text, so before a piece
    with open(cache, "wb") as file:
        for pieces in filter(None, read_pieces(path, "Tokenizing")):
            pieces = [piece.removeprefix(" " * adds_space) for piece in pieces]
            for ids in tokenizer(pieces, **options)["input_ids"]:
                np.array(ids, dtype).tofile(file)
        if not file.tell():
            fail(f"{path}: no text")


def cached_tokens(path: str, tokenizer: Tokenizer, block_size: int, cache_dir: str) -> np.memmap:
    """Return the token ids of a text file, shape (tokens,), mapped from a cache that is made when it is missing.

    The cache's name tells the text's bytes, the tokenizer's files and the block size, so that it is never out of date.
    """
    digest = hashlib.sha256(f"{block_size} {PIECE.pattern}".encode())
    with tempfile.TemporaryDirectory() as folder:
        for file in sorted(tokenizer.save_pretrained(folder)):
            digest.update(Path(file).read_bytes())
    for pieces in read_pieces(path, "Reading"):
        digest.update("".join(pieces).encode())
    dtype = np.dtype(np.uint16 if max(tokenizer.get_vocab().values()) < 2**16 else np.uint32)
    cache = Path(cache_dir, f"{digest.hexdigest()}.{dtype}")
    if not cache.exists():
        write_atomically(cache, lambda file: write_tokens(path, tokenizer, dtype, file))
    return np.memmap(cache, dtype, mode="r")


class TextDataset(Dataset):
    """A text file as blocks of `block_size` tokens without any padding; an incomplete last block is left out.

    Item `i`: the tokens from `i * stride` on, int64 of shape (block_size,). The file is one stream of tokens and blocks
    run across paragraphs; to tell documents apart write the tokenizer's end-of-text token (GPT-2: `<|endoftext|>`)
    between them, which becomes one token and is learned like any other.
    """

    def __init__(self, path: str, tokenizer: Tokenizer, block_size: int, cache_dir: str):
        self.tokens = cached_tokens(path, tokenizer, block_size, cache_dir)
        self.block_size = self.stride = block_size

    def part(self, start: int, end: int, stride: int | None = None) -> "TextDataset":
        """Return the blocks between two percentages of the tokens."""
        part = copy.copy(self)
        part.tokens = self.tokens[len(self.tokens) * start // 100 : len(self.tokens) * end // 100]
        part.stride = stride or self.stride
        return part

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - self.block_size) // self.stride + 1)

    def __getitem__(self, index: int) -> torch.Tensor:
        start = range(len(self))[index] * self.stride
        return torch.from_numpy(self.tokens[start : start + self.block_size].astype(np.int64))


def context_size(model: Model) -> int:
    """Return how many tokens the model reads at most."""
    return getattr(model.config, "max_position_embeddings", None) or sys.maxsize


class EpochSampler(SequentialSampler):
    """Random order of a dataset that depends on seed and epoch alone and takes 8 bytes an item."""

    def __init__(self, dataset: Dataset, seed: int):
        super().__init__(dataset)
        self.seed, self.epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        return map(int, np.random.default_rng([self.seed, self.epoch]).permutation(len(self)))


def load_datasets(files: dict[str, str], tokenizer: Tokenizer, model: Model, args) -> dict[str, TextDataset]:
    """Return the blocks of each split; without a validation file `validation` is the end of the training tokens."""
    most = context_size(model)
    block_size = args.block_size or min(1024, most)
    if not 2 <= block_size <= most:
        fail(f"--block_size {block_size}: {args.model_name_or_path} reads 2 to {most} tokens")
    whole = {path: TextDataset(path, tokenizer, block_size, args.cache_dir) for path in dict.fromkeys(files.values())}
    cut = 100 if args.validation_file else 100 - args.validation_split_percentage
    parts = {"train": (0, cut, args.stride), "validation": (0 if args.validation_file else cut, 100)}
    datasets = {name: whole[path].part(*parts[name]) for name, path in files.items()}
    for name, dataset in datasets.items():
        tokens = f"{files[name]}: {len(dataset.tokens):,} tokens for {name}"
        if not len(dataset):
            fail(f"{tokens}, fewer than one block: give more text or a smaller --block_size than {block_size}")
        print(f"{tokens} in {len(dataset):,} blocks of {block_size}")
    return datasets


def tiny(files: dict[str, str], args: ScriptArguments) -> tuple[Tokenizer, Model]:
    """Build a tokenizer from the first 2 MiB of text and a GPT-2 of 2 layers with random weights: no download."""
    if "train" not in files:
        fail("--smoke builds a model to train: leave it out to evaluate or predict with a saved one")
    torch.set_num_threads(1)  # so small a model gains nothing from more
    pieces = islice(read_pieces(files["train"], "Reading"), 4)
    tokenizer = transformers.GPT2Tokenizer().train_new_from_iterator(pieces, vocab_size=1000, show_progress=False)
    size = {"n_positions": args.block_size or 64, "n_embd": 64, "n_layer": 2, "n_head": 4}
    end = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    config = transformers.GPT2Config(vocab_size=len(tokenizer), **size, **end, **dropout)
    return tokenizer, transformers.GPT2LMHeadModel(config)


def pretrained(args: ScriptArguments) -> tuple[Tokenizer, Model]:
    """Load tokenizer and model of a causal language model, complete and fitting each other."""
    name, options = args.model_name_or_path, {"use_safetensors": True, "output_loading_info": True}
    folder = fetch(name)
    try:
        if any('"auto_map"' in path.read_text(encoding="utf-8") for path in Path(folder).glob("*config.json")):
            fail(f"{name} wants to run code of its own, which is refused: choose another model")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)
    except (OSError, TypeError, ValueError, SafetensorError, StrictDataclassError) as error:
        fail(f"cannot load {name}: {error}")
    if loading["missing_keys"] or not getattr(model.config, "is_decoder", True):
        fail(f"{name} is not a whole causal language model, but {type(model).__name__} with parts missing")
    vocab_size = model.config.vocab_size
    if not vocab_size / 2 < len(tokenizer) <= vocab_size:  # without its vocabulary a tokenizer may load with few
        fail(f"{name}: the tokenizer knows {len(tokenizer)} tokens, the model {vocab_size}: is a file missing?")
    return tokenizer, model


class BlockTrainer(Trainer):
    """`Trainer` whose random order takes little memory and is the same after a resumption."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.args.train_sampling_strategy != "random":
            return super()._get_train_sampler(train_dataset)
        return EpochSampler(self.train_dataset, self.args.seed)


def build_trainer(model, tokenizer, datasets: dict[str, TextDataset], training_args: FineTuningArguments) -> Trainer:
    """Return the trainer; with evaluation text it evaluates before training and at every checkpoint."""
    evaluation = datasets.get("validation")
    if evaluation is None:
        training_args.eval_strategy = "no"
    elif training_args.eval_strategy == "no":
        training_args.eval_strategy, training_args.eval_steps = training_args.save_strategy, training_args.save_steps
    training_args.eval_on_start = evaluation is not None
    model.loss_type = model.loss_type or "ForCausalLM"  # what the library does for None, without its warning
    collator = DataCollatorForLanguageModeling(copy.deepcopy(tokenizer), mlm=False)
    collator.tokenizer.pad_token = None  # there is no padding: an end of text that serves as pad token stays a label
    return BlockTrainer(model, training_args, collator, datasets.get("train"), evaluation, tokenizer)


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
    """Draw the losses, in nats per token, that the trainer logged over the steps."""
    axes = Figure(figsize=(6, 4), layout="constrained").subplots()
    for key in ("loss", "eval_loss"):
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        axes.plot([step for step, _ in points], [value for _, value in points], marker=".", label=key)
    axes.set(xlabel="step", ylabel="nats per token", ylim=(0, None))
    axes.legend()
    write_atomically(path, lambda file: axes.figure.savefig(file, dpi=120))


def generate(model: Model, tokenizer: Tokenizer, prompt: str, max_new_tokens: int) -> str:
    """Return the most probable continuation of the prompt, until the text ends or the context is full."""
    input_ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].long()  # (1, tokens)
    room = context_size(model) - input_ids.size(1)
    if input_ids.size(1) == 0 or room < 1:
        fail(f"--prompt of {input_ids.size(1)} tokens: give 1 to {context_size(model) - 1}")
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    options = {"do_sample": False, "num_beams": 1, "use_cache": True, "pad_token_id": padding}
    inputs = {"input_ids": input_ids.to(model.device), "attention_mask": torch.ones_like(input_ids).to(model.device)}
    output = model.eval().generate(**inputs, **options, max_new_tokens=min(max_new_tokens, room))  # (1, all tokens)
    return tokenizer.decode(output[0, input_ids.size(1) :], skip_special_tokens=True)


def write_texts(texts: dict[str, str], args: ScriptArguments, output_dir: Path) -> dict[str, float]:
    """Print and write the texts that continue the prompt; return whether that of the sample is right word for word."""
    lines = "\n".join(f"{title}: {args.prompt}{text}\n" for title, text in texts.items())
    write_atomically(output_dir / "generated.txt", lambda path: path.write_text(lines, encoding="utf-8"))
    print(lines)
    if not args.smoke or args.train_file:
        return {}
    continued = args.prompt + texts["After training"]
    return {"sample_continued_exactly": float(continued != args.prompt and continued in SAMPLE_TEXT)}


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
    """Fine-tune, evaluate and generate as the command line says."""
    args, training_args = parse_arguments(sys.argv[1:] if argv is None else argv)
    transformers.logging.disable_progress_bar()  # of loading and saving; the trainer has its own
    keep_freed_memory()
    transformers.set_seed(training_args.seed)
    with tempfile.TemporaryDirectory() as folder:
        files = choose_files(args, training_args, folder)
        tokenizer, model = tiny(files, args) if args.smoke else pretrained(args)
        with training_args.main_process_first():  # of every node; the others find its cache
            datasets = load_datasets(files, tokenizer, model, args)
    trainer, output_dir = build_trainer(model, tokenizer, datasets, training_args), Path(training_args.output_dir)
    print(f"{model.num_parameters():,} parameters on {training_args.device} in", ("fp32", "bf16")[training_args.bf16])
    texts, metrics = {}, {}
    if training_args.do_predict:
        title = "Before training" if training_args.do_train else "Continuation"
        texts[title] = generate(model, tokenizer, args.prompt, args.max_new_tokens)
    if training_args.do_train:
        metrics |= train_and_save(trainer)
        metrics["train_tokens_per_second"] = metrics["train_samples_per_second"] * trainer.train_dataset.block_size
    if training_args.do_eval:
        metrics |= trainer.evaluate()
        metrics["eval_perplexity"] = float(np.exp(metrics["eval_loss"]))
    if training_args.do_predict and training_args.do_train:
        texts["After training"] = generate(model, tokenizer, args.prompt, args.max_new_tokens)
    if trainer.is_world_process_zero():
        if training_args.do_train:
            draw_training_curve(trainer.state.log_history, output_dir / "training_curve.png")
        if texts:
            metrics |= write_texts(texts, args, output_dir)
        model = output_dir if training_args.do_train else args.model_name_or_path
        command = f"--do_predict --prompt {shlex.quote(args.prompt)} --model_name_or_path {model}"
        report(metrics, output_dir, command, training_args.do_train)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted: the same command with --resume_from_checkpoint last continues", 130)
