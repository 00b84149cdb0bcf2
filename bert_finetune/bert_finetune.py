# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "accelerate>=1.10",
#     "huggingface_hub>=1.5",
#     "matplotlib>=3.10",
#     "numpy>=2.1",
#     "pandas[parquet]>=2.3",
#     "safetensors>=0.6",
#     "scikit-learn>=1.6",
#     "torch>=2.11",
#     "tqdm>=4.67",
#     "transformers>=5.10",
# ]
# ///
"""Fine-tune BERT for sequence classification, on the built-in sentiment sample or on your own labelled texts.

python bert_finetune.py --smoke                                                    # seconds, no download
python bert_finetune.py --train_file train.csv --validation_file validation.csv    # columns: text, label
python bert_finetune.py --do_predict --test_file new.csv --model_name_or_path outputs/bert_finetune
"""

import argparse
import csv
import ctypes
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
import torch
import transformers
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, StrictDataclassError
from matplotlib.figure import Figure
from safetensors import SafetensorError
from sklearn.metrics import ConfusionMatrixDisplay, accuracy_score, classification_report, f1_score
from torch.utils.data import Dataset, Sampler, Subset, default_collate
from tqdm import tqdm
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer, Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

SAMPLE_SPLITS = {
    "train": [
        ("A wonderful film, warm and funny from start to finish.", "positive"),
        ("A terrible film, dull and slow from start to finish.", "negative"),
        ("The food was delicious and the staff were friendly.", "positive"),
        ("The food was cold and the staff were rude.", "negative"),
        ("I love this phone, the screen is beautiful.", "positive"),
        ("I hate this phone, the screen is broken.", "negative"),
        ("An excellent book that I will happily read again.", "positive"),
        ("A boring book that I will never read again.", "negative"),
        ("What a great concert, the band was brilliant!", "positive"),
        ("What an awful concert, the band was horrible!", "negative"),
        ("The hotel room was clean, quiet and comfortable.", "positive"),
        ("The hotel room was dirty, noisy and cramped.", "negative"),
        ("A charming story with superb acting.", "positive"),
        ("A stupid story with terrible acting.", "negative"),
        ("Best coffee in town, simply perfect.", "positive"),
        ("Worst coffee in town, simply disgusting.", "negative"),
        ("The service was fast and the waiter was friendly.", "positive"),
        ("The service was slow and the waiter was rude.", "negative"),
        ("I really enjoyed every minute of this play.", "positive"),
        ("I regret every minute of this play.", "negative"),
        ("A delightful album, full of beautiful songs.", "positive"),
        ("A disappointing album, full of boring songs.", "negative"),
        ("The teacher was patient, kind and helpful.", "positive"),
        ("The teacher was impatient, unfair and useless.", "negative"),
        ("This camera takes excellent pictures, I am very happy.", "positive"),
        ("This camera takes awful pictures, I am very disappointed.", "negative"),
        ("A brilliant plot and a perfect ending.", "positive"),
        ("A dull plot and a stupid ending.", "negative"),
        ("The garden is beautiful and the tour was great.", "positive"),
        ("The garden is ugly and the tour was a waste of time.", "negative"),
        ("Comfortable shoes, great price, I recommend them.", "positive"),
        ("Painful shoes, poor quality, I regret buying them.", "negative"),
        ("I love the delicious cakes in this bakery.", "positive"),
        ("I hate the disgusting cakes in this bakery.", "negative"),
        ("Helpful support and fast delivery, I am happy.", "positive"),
        ("Useless support and late delivery, I am angry.", "negative"),
        ("A superb meal in a charming little restaurant.", "positive"),
        ("A horrible meal in a dirty little restaurant.", "negative"),
        ("The museum was wonderful, my children enjoyed it.", "positive"),
        ("The museum was boring, my children hated it.", "negative"),
        ("Great game, funny dialogue and beautiful music.", "positive"),
        ("Poor game, stupid dialogue and ugly music.", "negative"),
        ("The doctor was kind and the clinic was clean.", "positive"),
        ("The doctor was rude and the clinic was dirty.", "negative"),
        ("I enjoyed the trip, the guide was brilliant.", "positive"),
        ("I hated the trip, the guide was useless.", "negative"),
        ("An excellent hotel, I happily recommend it.", "positive"),
        ("An awful hotel, a waste of money.", "negative"),
    ],
    "validation": [
        ("A superb concert, I enjoyed every song.", "positive"),
        ("A horrible concert, I hated every song.", "negative"),
        ("The waiter was kind and the meal was delicious.", "positive"),
        ("The waiter was rude and the meal was disgusting.", "negative"),
        ("Beautiful pictures and an excellent price.", "positive"),
        ("Ugly pictures and poor quality.", "negative"),
        ("I love this charming little hotel.", "positive"),
        ("I hate this dirty little hotel.", "negative"),
        ("The guide was helpful and very funny.", "positive"),
        ("The guide was useless and very boring.", "negative"),
        ("A perfect trip, wonderful and comfortable.", "positive"),
        ("A terrible trip, noisy and a waste of money.", "negative"),
    ],
}
Splits = dict[str, pd.DataFrame]  # "train", "validation", "test": columns text, text_pair, label
CHECKPOINT_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")


@dataclass
class ScriptArguments:
    """Flags of this script; every flag of `transformers.TrainingArguments` works beside them."""

    smoke: bool = field(default=False, metadata={"help": "Train a tiny model from scratch: no download, seconds."})
    model_name_or_path: str = field(default="bert-base-uncased", metadata={"help": "Hub name or folder."})
    train_file: str | None = field(default=None, metadata={"help": "CSV, TSV, JSON lines or Parquet."})
    validation_file: str | None = field(default=None, metadata={"help": "Rows to evaluate on."})
    test_file: str | None = field(default=None, metadata={"help": "Rows to predict; labels may be missing."})
    column_names: list[str] | None = field(default=None, metadata={"help": "For CSV and TSV without a header row."})
    text_column: str = field(default="text", metadata={"help": "Column with the text."})
    text_pair_column: str | None = field(default=None, metadata={"help": "Column with the second text of a pair."})
    label_column: str = field(default="label", metadata={"help": "Column with the label: any string or number."})
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut to so many tokens."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on the first rows only."})


@dataclass
class FineTuningArguments(transformers.TrainingArguments):
    """`TrainingArguments` with defaults for fine-tuning BERT; those that depend on the machine are set on parsing."""

    output_dir: str = "outputs/bert_finetune"
    per_device_train_batch_size: int = 32
    per_device_eval_batch_size: int = 64
    learning_rate: float = 1e-4
    warmup_steps: float = 0.1
    logging_steps: float = 0.05
    save_strategy: str = "epoch"
    save_total_limit: int = 1
    metric_for_best_model: str = "accuracy"
    train_sampling_strategy: str = "group_by_length"


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
        parser.set_defaults(learning_rate=3e-3, num_train_epochs=12, per_device_train_batch_size=8, bf16=False)
        parser.set_defaults(metric_for_best_model="loss")
    try:
        args, training_args = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    except ValueError as error:
        fail(f"{error}: see --help")
    if not any(flag.startswith("--do_") for flag in argv):  # --eval_strategy sets do_eval
        training_args.do_eval = False
    check_positive(args, "max_seq_length", "max_train_samples")
    check_training_arguments(training_args)
    return args, training_args


def read_table(path: str, column_names: list[str] | None) -> pd.DataFrame:
    """Read CSV, TSV (where quotes are plain characters), JSON lines or Parquet; text stays text, "None" included."""
    suffix, lines = Path(path).suffix.lower(), {"lines": True, "dtype": False, "convert_dates": False}
    text = {"names": column_names, "header": None if column_names else 0, "dtype": str, "keep_default_na": False}
    tabs = {"sep": "\t", "quoting": csv.QUOTE_NONE} if suffix == ".tsv" else {}
    try:
        if suffix in (".csv", ".tsv"):
            if "\0" in Path(path).read_text("utf-8-sig"):  # of the whole file, so that errors name the right byte
                raise ValueError("NUL bytes are no text")
            table = pd.read_csv(path, encoding="utf-8-sig", **text, **tabs)
        elif suffix in (".json", ".jsonl"):
            table = pd.read_json(path, **lines)
        else:
            table = pd.read_parquet(path)
    except (AttributeError, OSError, TypeError, ValueError) as error:  # the first and third: JSON lines of no objects
        fail(f"cannot read {path} as .csv, .tsv, .json, .jsonl (UTF-8) or else .parquet: {error}")
    if len(table.columns) == 1 and ";" in str(table.columns[0]):
        fail(f"{path}: semicolons between the columns {table.columns[0]}: save it with commas, or with tabs as .tsv")
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes surplus fields of every row for an index
        fail(f"{path}: the rows have more fields than the columns {list(table.columns)}")
    return table


def load_split(path: str, args: ScriptArguments, labelled: bool) -> pd.DataFrame:
    """Return the columns `text`, `text_pair` (of pairs) and `label` (if there are labels), all str, in file order."""
    table, columns = read_table(path, args.column_names), {}
    for name in ("text", "text_pair", "label"):
        column = getattr(args, f"{name}_column")
        if column is None or (name == "label" and not labelled and column not in table):
            continue
        if column not in table:
            fail(f"{path}: no column {column!r} among {list(table.columns)}: name it with --{name}_column")
        columns[name] = table[column].astype("string").fillna("")
        if (empty := columns[name].str.strip().eq("").to_numpy()).any():
            rows = f"row {empty.argmax() + 1}" + (f" and {more:,} more" if (more := empty.sum() - 1) else "")
            fail(f"{path}, {rows}: column {column!r} is empty: fill it or leave the row out")
    return pd.DataFrame(columns) if len(table) else fail(f"{path}: no rows")


def load_splits(args: ScriptArguments, training_args: FineTuningArguments) -> Splits:
    """Load `train`, `validation` and `test` as far as the run needs them: own files, or without any the sample.

    `--do_train`, `--do_eval` and `--do_predict` choose what is needed; without them it is all that there is.
    """
    files = {name: getattr(args, f"{name}_file") for name in ("train", "validation", "test")}
    steps = {"train": training_args.do_train, "validation": training_args.do_eval, "test": training_args.do_predict}
    own_data, splits = any(files.values()), {}
    for name, path in files.items():
        needed = steps[name] if any(steps.values()) else path or name == "train" or not own_data
        if needed and own_data and not path:
            fail(f"no {name} file: give --{name}_file, or choose the steps with --do_train, --do_eval, --do_predict")
        if needed:
            sample = pd.DataFrame(SAMPLE_SPLITS.get(name, SAMPLE_SPLITS["validation"]), columns=["text", "label"])
            table = load_split(path, args, labelled=name != "test") if path else sample
            splits[name] = table.head(args.max_train_samples) if name == "train" else table
    return splits


class TextClassificationDataset(Dataset):
    """Texts or pairs of texts as tensors of `max_seq_length` tokens, tokenized once and kept without their padding.

    Item: `input_ids`, `token_type_ids`, `attention_mask`, int64 of shape (max_seq_length,), padded or cut, and, where
    the table has labels, `labels`, int64 of shape (). `lengths`: tokens per row before padding, int64 of shape (rows,).
    """

    def __init__(self, table: pd.DataFrame, tokenizer: BertTokenizer, label2id: dict[str, int], max_seq_length: int):
        self.padding = {"input_ids": tokenizer.pad_token_id, "token_type_ids": 0, "attention_mask": 0}
        self.encoded = {name: [] for name in self.padding}  # int32 arrays: a fraction of padded int64 tensors
        for start in tqdm(range(0, len(table), 1000), desc="Tokenizing", disable=None, leave=False):
            rows = table.iloc[start : start + 1000]
            pairs = rows["text_pair"].tolist() if "text_pair" in rows else None
            encoded = tokenizer(rows["text"].tolist(), pairs, truncation=True, max_length=max_seq_length)
            for name, arrays in self.encoded.items():
                arrays += [np.array(row, np.int32) for row in encoded[name]]
        self.lengths = np.array([len(row) for row in self.encoded["input_ids"]])
        self.labels = torch.tensor(table["label"].map(label2id).to_numpy(np.int64)) if "label" in table else None
        self.max_seq_length = max_seq_length

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item, missing = {}, self.max_seq_length - int(self.lengths[index])
        for name, rows in self.encoded.items():
            item[name] = torch.from_numpy(np.pad(rows[index], (0, missing), constant_values=self.padding[name])).long()
        return item if self.labels is None else {**item, "labels": self.labels[index]}


def cut_padding(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collate a batch and cut it to its longest real sequence: the same loss for a fraction of the work."""
    batch = default_collate(items)  # (batch, max_seq_length)
    longest = int(batch["attention_mask"].sum(dim=1).max())
    return {name: tensor[:, :longest] if tensor.dim() == 2 else tensor for name, tensor in batch.items()}


class ShuffledBatchesSampler(LengthGroupedSampler):
    """Batches of rows of similar length in random order; seed and epoch decide it, and a resumed run repeats it."""

    def __init__(self, batch_size: int, lengths: list[int], seed: int):
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed = seed

    def set_epoch(self, epoch: int) -> None:
        self.generator.manual_seed(self.seed * 1000 + epoch)

    def __iter__(self) -> Iterator[int]:
        *batches, last = torch.tensor(list(super().__iter__())).split(self.batch_size)  # the last may be smaller
        order = torch.randperm(len(batches), generator=self.generator)  # the library goes from long to short
        return iter(torch.cat([*(batches[i] for i in order), last]).tolist())


def set_classes(config: BertConfig, splits: Splits, args: ScriptArguments) -> None:
    """Give the model the classes of the training labels; without training rows it keeps those that it knows."""
    if "train" in splits:
        counts = splits["train"]["label"].value_counts()
        if len(counts) < 2:
            rows = args.train_file or "the sample"
            fail(f"{rows}: every row has the label {counts.index[0]!r}: at least two classes are needed")
        if counts.max() > 2 * counts.min():
            print("Classes are skewed:", ", ".join(f"{name!r} {count:,}" for name, count in counts.items()))
        if set(config.label2id) != set(counts.index):
            config.id2label = dict(enumerate(sorted(counts.index)))
            config.label2id = {name: i for i, name in config.id2label.items()}
    for split, path in (("validation", args.validation_file), ("test", args.test_file)):
        if split in splits and (unknown := set(splits[split].get("label", [])) - set(config.label2id)):
            fail(f"{path}: labels {sorted(unknown)} that the model does not learn: it knows {list(config.label2id)}")


def tiny(splits: Splits, args: ScriptArguments) -> tuple[BertTokenizer, BertForSequenceClassification]:
    """Build a tokenizer from the training texts and a BERT of 2 layers with random weights: seconds, no download."""
    if "train" not in splits:
        fail("--smoke builds a model to train: leave it out to evaluate or predict with a saved one")
    torch.set_num_threads(1)  # so small a model gains nothing from more
    texts = splits["train"].drop(columns="label").to_numpy().ravel()
    words = Counter(re.findall(r"\w+|[^\w\s]", " ".join(texts).lower()))
    blank = BertTokenizer()  # not trained: WordPiece training gives another vocabulary in every run
    vocabulary = {word: i for i, (word, _) in enumerate(words.most_common(5000), start=len(blank))}
    tokenizer = BertTokenizer(vocab=blank.get_vocab() | vocabulary)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = BertConfig(**size, vocab_size=len(tokenizer), max_position_embeddings=args.max_seq_length)
    set_classes(config, splits, args)
    return tokenizer, BertForSequenceClassification(config)


def pretrained(splits: Splits, args: ScriptArguments) -> tuple[BertTokenizer, BertForSequenceClassification]:
    """Load tokenizer and model, with a new classification head where the checkpoint has none for these classes."""
    name, folder = args.model_name_or_path, fetch(args.model_name_or_path)
    try:
        if any('"auto_map"' in path.read_text(encoding="utf-8") for path in Path(folder).glob("*config.json")):
            fail(f"{name} wants to run code of its own, which is refused: choose another model")
        config = transformers.AutoConfig.from_pretrained(folder)
        if config.model_type != "bert":
            fail(f"{name} is a {config.model_type} model: this script fine-tunes BERT checkpoints")
        if "train" not in splits and "BertForSequenceClassification" not in (config.architectures or []):
            fail(f"{name} has no trained classification head: fine-tune it first, with --do_train")
        set_classes(config, splits, args)
        tokenizer = BertTokenizer.from_pretrained(folder)
        options = {"dtype": torch.float32, "use_safetensors": True, "ignore_mismatched_sizes": True}
        model = BertForSequenceClassification.from_pretrained(folder, config=config, **options)
    except (OSError, TypeError, ValueError, SafetensorError, StrictDataclassError) as error:
        fail(f"cannot load {name}: {error}")
    if not config.vocab_size / 2 < len(tokenizer) <= config.vocab_size:  # a missing vocabulary loads as 5 tokens
        fail(f"{name}: the tokenizer knows {len(tokenizer)} tokens, the model {config.vocab_size}: is a file missing?")
    if args.max_seq_length > config.max_position_embeddings:
        fail(f"--max_seq_length {args.max_seq_length}: {name} reads at most {config.max_position_embeddings} tokens")
    return tokenizer, model


class LengthGroupedTrainer(Trainer):
    """`Trainer` that groups by the rows' real lengths in training and keeps the given order in evaluation."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler | None:
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(train_dataset)
        batch_size = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps  # a step
        return ShuffledBatchesSampler(batch_size, self.train_dataset.lengths.tolist(), self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Dataset) -> None:
        return None


def longest_first(dataset: TextClassificationDataset) -> Subset:
    """Return the dataset sorted by length, so that its batches need little padding; `indices` holds the order."""
    return Subset(dataset, np.argsort(-dataset.lengths, kind="stable").tolist())


def accuracy_and_f1(predictions) -> dict[str, float]:
    """Accuracy and macro F1 of `transformers.EvalPrediction`: logits (rows, classes) and labels (rows,)."""
    labels, predicted = predictions.label_ids, predictions.predictions.argmax(-1)
    return {"accuracy": accuracy_score(labels, predicted), "f1_macro": f1_score(labels, predicted, average="macro")}


def build_trainer(model, tokenizer, datasets, training_args: FineTuningArguments) -> Trainer:
    """Return the trainer; with evaluation rows it evaluates at every checkpoint and keeps the best."""
    evaluation = longest_first(datasets["validation"]) if "validation" in datasets else None
    if evaluation is None:
        training_args.eval_strategy = "no"
    elif training_args.eval_strategy == "no":
        training_args.eval_strategy, training_args.eval_steps = training_args.save_strategy, training_args.save_steps
        training_args.load_best_model_at_end = training_args.save_strategy != "no"
    model.accepts_loss_kwargs = False  # its loss is a mean: else the trainer would not divide by steps and processes
    return LengthGroupedTrainer(
        model, training_args, cut_padding, datasets.get("train"), evaluation, tokenizer, compute_metrics=accuracy_and_f1
    )


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
    """Draw the losses and the accuracy that the trainer logged over the epochs."""
    axes = Figure(figsize=(6, 4), layout="constrained").subplots()
    curves = pd.DataFrame(log_history).groupby("epoch").first().filter(["loss", "eval_loss", "eval_accuracy"])
    for name in curves:
        axes.plot(curves[name].dropna(), marker=".", label=name)
    axes.set(xlabel="epoch", ylim=(0, None))
    axes.legend()
    write_atomically(path, lambda file: axes.figure.savefig(file, dpi=120))


def predict(trainer: Trainer, dataset: TextClassificationDataset, prefix: str) -> tuple[np.ndarray, dict[str, float]]:
    """Return the probabilities, float64 of shape (rows, classes), in the order of the rows, and the metrics."""
    batches = longest_first(dataset)
    output = trainer.predict(batches, metric_key_prefix=prefix)
    probabilities = np.empty(output.predictions.shape)
    probabilities[batches.indices] = torch.from_numpy(output.predictions).double().softmax(-1)
    return probabilities, output.metrics


def evaluate(trainer: Trainer, dataset: TextClassificationDataset, texts: pd.Series) -> dict[str, float]:
    """Print a table per class and a few predictions, draw the confusion matrix; return the metrics."""
    probabilities, metrics = predict(trainer, dataset, "eval")
    if not trainer.is_world_process_zero():
        return metrics
    names = np.array(list(trainer.model.config.id2label.values()))
    labels, predicted = names[dataset.labels.numpy()], names[probabilities.argmax(-1)]
    print(classification_report(labels, predicted, labels=names, zero_division=0))
    for text, name, probability in zip(texts.head(12), predicted, probabilities.max(-1), strict=False):
        print(f"  {name} {probability:.3f}  {text[:90]}")
    axes = Figure(figsize=(2 + 0.7 * len(names), 2 + 0.7 * len(names)), layout="constrained").subplots()
    ConfusionMatrixDisplay.from_predictions(labels, predicted, labels=names, cmap="Blues", colorbar=False, ax=axes)
    picture = Path(trainer.args.output_dir, "confusion_matrix.png")
    write_atomically(picture, lambda path: axes.figure.savefig(path, dpi=120))
    return metrics


def write_predictions(trainer: Trainer, dataset: TextClassificationDataset, table: pd.DataFrame) -> dict[str, float]:
    """Write `predictions.tsv`, a row per row of the table: text, label and its probability; return the metrics."""
    probabilities, metrics = predict(trainer, dataset, "test")
    if not trainer.is_world_process_zero():
        return metrics
    table = table.filter(["text", "text_pair"]).replace(r"[\t\r\n]", " ", regex=True)
    labels = [trainer.model.config.id2label[i] for i in probabilities.argmax(-1)]
    table = table.assign(label=labels, probability=probabilities.max(-1).round(6))
    path = Path(trainer.args.output_dir, "predictions.tsv")
    write_atomically(path, lambda path: table.to_csv(path, sep="\t", index=False, quoting=csv.QUOTE_NONE))
    return metrics


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
    """Fine-tune, evaluate and predict as the command line says."""
    args, training_args = parse_arguments(sys.argv[1:] if argv is None else argv)
    transformers.logging.disable_progress_bar()  # of loading and saving; the trainer has its own
    keep_freed_memory()
    transformers.set_seed(training_args.seed)
    splits = load_splits(args, training_args)
    tokenizer, model = tiny(splits, args) if args.smoke else pretrained(splits, args)
    settings = (tokenizer, model.config.label2id, args.max_seq_length)
    datasets = {name: TextClassificationDataset(table, *settings) for name, table in splits.items()}
    trainer, output_dir = build_trainer(model, tokenizer, datasets, training_args), Path(training_args.output_dir)
    print(f"{model.num_parameters():,} parameters on {training_args.device} in", ("fp32", "bf16")[training_args.bf16])
    metrics = {}
    if "train" in splits:
        metrics |= train_and_save(trainer)
    if "validation" in splits:
        metrics |= evaluate(trainer, datasets["validation"], splits["validation"]["text"])
    if "test" in splits:
        metrics |= write_predictions(trainer, datasets["test"], splits["test"])
    if trainer.is_world_process_zero():
        if "train" in splits:
            draw_training_curve(trainer.state.log_history, output_dir / "training_curve.png")
        model = output_dir if "train" in splits else args.model_name_or_path
        report(metrics, output_dir, f"--do_predict --test_file FILE --model_name_or_path {model}", "train" in splits)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted: the same command with --resume_from_checkpoint last continues", 130)
