"""Bad input to all six scripts: one `error:` line that says what was found and what to do, exit 2, nothing left behind.

A row is a script, its command line and a pattern of the line. The files and folders that the rows name are in `inputs`.
"""

import contextlib
import json
import re
import shutil
import stat

import huggingface_hub.constants
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SCRIPTS, lacking, load_script
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM

GLUE = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
PAIR = "1\t1\t2\tThe cat sat.\tThe cat was sitting.\n"
FILES = {
    "empty": b"",
    "blank": b" \n\t\n",
    "bom": b"\xef\xbb\xbf",
    "short.txt": b"only a few words",
    "latin.txt": "eins\nstraße\n".encode("latin-1"),
    "utf16.txt": "some words in a line\n".encode("utf-16"),
    "good.txt": b"Water.\n",
    "long.txt": b"word " * 200_000 + b"\xe6\x9d",
    "good.csv": b"text,label\ngood film,1\nbad film,0\n",
    "unseen.csv": b"text,label\nodd film,7\n",
    "empty.csv": b"",
    "header.csv": b"text,label\n",
    "column.csv": b"sentence,label\na,1\n",
    "ragged.csv": b"text,label\na,1\nb,0,7,8\n",
    "short_row.csv": b"text,label\na,1\nb\n",
    "surplus.csv": b"text,label\na,1,2\nb,0,7\n",
    "no_text.csv": b"text,label\na,1\n  ,0\n",
    "no_label.csv": b"text,label\na,1\nb,\n",
    "backslash.csv": b'text,label\n"a \\"b\\" c",1\nd,0\n',
    "holes.csv": b"text,label\na,\nb,1\n,0\nc, \n",
    "word.docx": b"PK\x03\x04" + b"\0" * 40,
    "word.csv": b"PK\x03\x04" + b"\0" * 40,
    "a.xls": b"\xd0\xcf\x11\xe0",
    "single.csv": b"text,label\na,1\nb,1\n",
    "latin.csv": "text,label\ngut,1\nGrüße,0\n".encode("latin-1"),
    "nul.csv": b"text,label\na\0b,1\nc,0\n",
    "quote.csv": b'text,label\n"a,1\nb,0\n',
    "data.xlsx": b"text",
    "broken.jsonl": b'{"text": "a", "label": 1}\n{"text"',
    "nan.jsonl": b'{"text": "a", "label": 1}\n{"text": "b", "label": null}\n',
    "list.jsonl": b"[1, 2]\n",
    "number.jsonl": b'{"text": "a", "label": 1}\n7\n',
    "fake.parquet": b"text,label",
    "good.tsv": b"a\tb\n",
    "ragged.tsv": b"a\tb\nc\td\te\n",
    "one.tsv": b"a\nb\n",
    "blank.tsv": b"a\tb\n \tc\n",
    "hole.tsv": b"a\tb\n\na\tb\n",
    "latin.tsv": "a\tb\nä\tö\n".encode("latin-1"),
    "nul.tsv": b"a\tb\nc\0\td\n",
    "mrpc/good/train.tsv": (GLUE + PAIR).encode(),
    "mrpc/latin/train.tsv": (GLUE + PAIR.replace("sat", "saß")).encode("latin-1"),
    "mrpc/faults/train.tsv": (GLUE + PAIR.replace("1", "5", 1) + "\n" + PAIR * 2 + "1\n").encode(),
    "mrpc/fake/train-0.parquet": b"text,label",
    "mrpc/others/all_results.json": b"[1]",
}
ROWS = [
    # bert_finetune: files
    ("bert_finetune", "--smoke --train_file missing.csv", r".*No such file.*missing\.csv"),
    ("bert_finetune", "--smoke --train_file mrpc", r".*mrpc"),
    ("bert_finetune", "--smoke --train_file unreadable.csv", r".*Input/output error"),
    ("bert_finetune", "--smoke --train_file empty.csv", r"empty\.csv: no rows"),
    ("bert_finetune", "--smoke --train_file header.csv", r"header\.csv: no rows"),
    (
        "bert_finetune",
        "--smoke --train_file column.csv",
        r"column\.csv: no 'text' among \['sentence', 'label'\]: give --text_column",
    ),
    ("bert_finetune", "--smoke --train_file ragged.csv", r"ragged\.csv, row 3: more columns than"),
    (
        "bert_finetune",
        "--smoke --train_file surplus.csv",
        r"surplus\.csv, row 2: more columns than",
    ),
    (
        "bert_finetune",
        "--smoke --train_file short_row.csv",
        r"short_row\.csv, counted as a spreadsheet does: the label is blank in 1 rows: \[3\]",
    ),
    (
        "bert_finetune",
        "--smoke --train_file no_text.csv",
        r"no_text\.csv, counted as .*: the text is blank in 1 rows: \[3\]: fill.* --skip_blank_rows",
    ),
    (
        "bert_finetune",
        "--smoke --train_file no_label.csv",
        r"no_label\.csv, .*: the label is blank in 1 rows: \[3\]",
    ),
    (
        "bert_finetune",
        "--smoke --train_file nan.jsonl",
        r"nan\.jsonl, .*: the label is blank in 1 rows: \[2\]",
    ),
    (
        "bert_finetune",
        "--smoke --train_file nan.parquet",
        r"nan\.parquet, .*: the label is blank in 1 rows: \[2\]",
    ),
    (
        "bert_finetune",
        "--smoke --train_file holes.csv",
        r"holes\.csv, .*: the text is blank in 1 rows: \[4\], the label is blank in 2 rows: \[2, 5\]",
    ),
    (
        "bert_finetune",
        "--smoke --train_file backslash.csv",
        r"backslash\.csv, row 2: ',' expected after",
    ),
    ("bert_finetune", "--smoke --train_file word.csv", r"word\.csv"),
    ("bert_finetune", "--smoke --train_file a.xls", r"a\.xls is no plain text"),
    ("bert_finetune", "--smoke --train_file good.csv --encoding cp99", r"unknown encoding: cp99"),
    (
        "bert_finetune",
        "--smoke --train_file single.csv",
        r"every training row has the label '1': give two classes",
    ),
    (
        "bert_finetune",
        "--smoke --train_file latin.csv",
        r"latin\.csv: 'utf-8' codec can't decode byte 0xfc in position 19: .*--encoding, such as cp1252",
    ),
    ("bert_finetune", "--smoke --train_file quote.csv", r"quote\.csv, row 2"),
    ("bert_finetune", "--smoke --train_file data.xlsx", r"data\.xlsx"),
    ("bert_finetune", "--smoke --train_file broken.jsonl", r"broken\.jsonl, row 2: "),
    ("bert_finetune", "--smoke --train_file list.jsonl", r"list\.jsonl, row 1: "),
    ("bert_finetune", "--smoke --train_file number.jsonl", r"number\.jsonl, row 2: "),
    ("bert_finetune", "--smoke --train_file fake.parquet", r"fake\.parquet"),
    (
        "bert_finetune",
        "--smoke --train_file good.csv --validation_file unseen.csv",
        r"validation rows: unknown labels \['7'\]",
    ),
    (
        "bert_finetune",
        "--smoke --train_file good.csv --validation_file nan.jsonl",
        r"nan\.jsonl, .*: the label is blank in 1 rows: \[2\]",
    ),
    # bert_finetune: flags and models
    (
        "bert_finetune",
        "--smoke --metric_for_best_model auc",
        r".*auc.*accuracy'?, '?f1_macro'?, '?loss",
    ),
    ("bert_finetune", "--smoke --optim adamw_bnb_8bit", r".*bitsandbytes"),
    ("bert_finetune", "--smoke --deepspeed none.json", r".*deepspeed"),
    (
        "bert_finetune",
        "--smoke --eval_strategy steps --save_strategy epoch",
        r"--load_best_model_at_end requires the save and eval strategy to match",
    ),
    ("bert_finetune", "--smoke --eval_strategy steps", r".*strategy to match"),
    ("bert_finetune", "--smoke --nonsense 1", r".*--nonsense.*see --help"),
    ("bert_finetune", "--smoke --num_train_epochs many", r".*num_train_epochs"),
    ("bert_finetune", "--smoke --max_seq_length 0", r"--max_seq_length 0: 4 to 512"),
    ("bert_finetune", "--smoke --max_seq_length 999", r"--max_seq_length 999: 4 to 512"),
    ("bert_finetune", "--smoke --validation_file good.csv", r"no train file: give --train_file"),
    ("bert_finetune", "--smoke --do_predict", r".*leave it out"),
    ("bert_finetune", "--smoke --output_dir good.txt", r".*File exists: 'good\.txt'"),
    (
        "bert_finetune",
        "--smoke --output_dir good.txt/out",
        r".*Not a directory: 'good\.txt/out'",
    ),
    (
        "bert_finetune",
        "--smoke --resume_from_checkpoint nowhere",
        r".*nowhere",
    ),
    ("bert_finetune", "--model_name_or_path a/b/c", r"cannot download a/b/c"),
    ("bert_finetune", "--smoke --train_file inline_container.csv", r".*container\.csv'$"),
    ("bert_finetune", "--smoke --report_to dvclive", r".*dvclive to be installed.*pip install"),
    (
        "bert_finetune",
        "--model_name_or_path bert-base-uncased",
        r"cannot download bert-base-uncased.*--smoke",
    ),
    (
        "bert_finetune",
        "--train_file good.csv --model_name_or_path mrpc",
        r"cannot load mrpc",
    ),
    (
        "bert_finetune",
        "--train_file good.csv --model_name_or_path bert/weightless",
        r"cannot load bert/weightless",
    ),
    (
        "bert_finetune",
        "--train_file good.csv --model_name_or_path bert/cut",
        r"cannot load bert/cut",
    ),
    (
        "bert_finetune",
        "--train_file good.csv --model_name_or_path bert/pickle",
        r"cannot load bert/pickle",
    ),
    (
        "bert_finetune",
        "--train_file good.csv --model_name_or_path bert/other",
        r"cannot load bert/other: it is a gpt2 model",
    ),
    (
        "bert_finetune",
        "--train_file good.csv --model_name_or_path bert/wordless",
        r"cannot load bert/wordless: .*file missing",
    ),
    (
        "bert_finetune",
        "--train_file good.csv --model_name_or_path bert/holes",
        r"cannot load bert/holes: 1 weights are missing",
    ),
    (
        "bert_finetune",
        "--do_predict --test_file good.csv --model_name_or_path bert/headless",
        r"cannot load bert/headless: .*no trained classif",
    ),
    ("gpt2_finetune", "--smoke --eval_strategy epoch", r".*strategy to match"),
    ("t5_translator", "--smoke --do_train --eval_strategy epoch", r".*strategy to match"),
    # gpt2_finetune
    ("gpt2_finetune", "--smoke --train_file missing.txt", r".*No such file.*missing\.txt"),
    ("gpt2_finetune", "--smoke --train_file mrpc", r".*Is a directory.*mrpc"),
    (
        "gpt2_finetune",
        "--smoke --text_column text --train_file hf://datasets/a/b/c.parquet",
        r"(?!cannot download).*a/b",
    ),
    ("gpt2_finetune", "--smoke --train_file unreadable.csv", r".*Input/output error"),
    ("gpt2_finetune", "--smoke --train_file empty", r"\d tokens for .*--block_size"),
    ("gpt2_finetune", "--smoke --train_file nul.csv", r"cannot read nul\.csv.*NUL bytes are no"),
    ("gpt2_finetune", "--smoke --train_file bom", r"\d tokens for .*--block_size"),
    (
        "gpt2_finetune",
        "--smoke --train_file short.txt",
        r"\d+ tokens for train: no block of --block_size 64",
    ),
    (
        "gpt2_finetune",
        "--smoke --train_file latin.txt",
        r"cannot read latin\.txt with --encoding ut",
    ),
    ("gpt2_finetune", "--smoke --train_file utf16.txt", r"\d+ tokens for .*--block_size"),
    ("gpt2_finetune", "--smoke --train_file good.txt --encoding up", r"unknown encoding: up"),
    (
        "gpt2_finetune",
        "--smoke --train_file long.txt",
        r"cannot read long\.txt with --encoding utf",
    ),
    ("gpt2_finetune", "--smoke --train_file word.docx", r"word\.docx is no plain text: export it"),
    ("gpt2_finetune", "--smoke --nonsense 1", r"--nonsense"),
    ("gpt2_finetune", "--smoke --num_train_epochs many", r"num_train_epochs"),
    ("gpt2_finetune", "--smoke --block_size 0", r".*--block_size 0"),
    ("gpt2_finetune", "--smoke --stride -3", r".*--stride -3$"),
    ("gpt2_finetune", "--smoke --max_new_tokens 0", r".*max_new_tokens"),
    (
        "gpt2_finetune",
        "--smoke --validation_split_percentage 100",
        r"0 tokens of the built-in text for train",
    ),
    ("gpt2_finetune", "--smoke --validation_file good.txt", r"no train file"),
    ("gpt2_finetune", "--smoke --do_train --do_eval --validation_split_percentage 0", r"0 tokens"),
    ("gpt2_finetune", "--smoke --output_dir good.txt", r".*File exists.*good\.txt"),
    ("gpt2_finetune", "--smoke --resume_from_checkpoint nowhere", r".*nowhere"),
    ("gpt2_finetune", "--model_name_or_path gpt2", r"cannot download gpt2.*--smoke"),
    ("gpt2_finetune", "--model_name_or_path a/b/c", r"a/b/c"),
    ("gpt2_finetune", "--model_name_or_path mrpc", r".*mrpc"),
    (
        "gpt2_finetune",
        f"--model_name_or_path gpt --do_predict --prompt {'a_' * 99}",
        r"--prompt of 198 tokens",
    ),
    ("gpt2_finetune", "--model_name_or_path gpt --do_predict --prompt=", r"--prompt of 0 tokens"),
    (
        "gpt2_finetune",
        "--model_name_or_path gpt/weightless --do_predict",
        r".*model\.safetensors.* gpt/weightless",
    ),
    ("gpt2_finetune", "--model_name_or_path gpt/cut --do_predict", r"cannot load gpt/cut"),
    ("gpt2_finetune", "--model_name_or_path gpt/pickle --do_predict", r".*gpt/pickle"),
    (
        "gpt2_finetune",
        "--model_name_or_path gpt/holes --do_predict",
        r"gpt/holes is no language model: complete=False",
    ),
    (
        "gpt2_finetune",
        "--model_name_or_path gpt/other --do_predict",
        r"gpt/other.*(no language model|cannot load)",
    ),
    ("gpt2_finetune", "--model_name_or_path gpt/wordless --do_predict", r"gpt/wordless"),
    # glue_mrpc
    ("glue_mrpc", "--smoke --data_dir missing", r"--data_dir missing: no file of MRPC there"),
    ("glue_mrpc", "--smoke --data_dir mrpc/folder", r".*Is a directory: 'mrpc/folder/train\.tsv'"),
    ("glue_mrpc", "--smoke --data_dir mrpc/unreadable", r".*Input/output error"),
    ("glue_mrpc", "--smoke --data_dir mrpc/latin", r"train\.tsv: 'utf-8' .*--encoding"),
    (
        "glue_mrpc",
        "--smoke --data_dir mrpc/faults",
        r".*lines \[3, 6\]: not 5 columns as in the header",
    ),
    ("glue_mrpc", "--smoke --data_dir mrpc/good --encoding latin-7000", r".*latin-7000"),
    ("glue_mrpc", "--smoke --data_dir mrpc/fake", r".*mrpc/fake/train-0\.parquet"),
    ("glue_mrpc", "--smoke --nonsense", r"--nonsense"),
    ("glue_mrpc", "--smoke --output_dir good.txt", r"cannot write good\.txt"),
    ("glue_mrpc", "--smoke --output_dir good.txt/out", r"cannot write good\.txt/out"),
    ("glue_mrpc", "--model_name_or_path bert", r"cannot download nyu-mll/glue.*local folder"),
    ("glue_mrpc", "--data_dir mrpc/good", r"cannot download bert-base-uncased"),
    (
        "glue_mrpc",
        "--data_dir mrpc/good --model_name_or_path mrpc",
        r"mrpc: 5 tokens for a model of 5: is a file missing",
    ),
    # t5_translator
    (
        "t5_translator",
        "--do_train --train_file none.tsv",
        r"No such file or directory: 'none\.tsv'",
    ),
    ("t5_translator", "--do_train --train_file mrpc", r"Is a directory: 'mrpc'"),
    ("t5_translator", "--do_train --train_file unreadable.csv", r"Input/output error"),
    ("t5_translator", "--do_train --train_file empty", r"empty: no rows"),
    (
        "t5_translator",
        "--do_train --train_file ragged.tsv",
        r"ragged\.tsv, row 2: 1 of 2 rows .*other columns.*: give SOURCE and TARGET",
    ),
    ("t5_translator", "--do_train --train_file one.tsv", r"one\.tsv, row 1, 2: 2 of 2 rows"),
    (
        "t5_translator",
        "--do_train --train_file blank.tsv",
        r"blank\.tsv, row 2: 1 of 2 rows lack a text",
    ),
    (
        "t5_translator",
        "--do_train --train_file latin.tsv",
        r"latin\.tsv, line 2 is not utf-8-sig text: give --encoding cp1252",
    ),
    (
        "t5_translator",
        "--do_train --train_file good.tsv --validation_file ragged.tsv",
        r"ragged\.tsv, row 2",
    ),
    ("t5_translator", "--train_file good.tsv", r"--do_train"),
    (
        "t5_translator",
        "--model_name_or_path t5 --input_file none.txt",
        r"No such file or directory: 'none\.txt'",
    ),
    (
        "t5_translator",
        "--model_name_or_path t5 --input_file latin.txt --output_file x.txt",
        r"latin\.txt, line 2 is not utf-8-sig text",
    ),
    (
        "t5_translator",
        "--model_name_or_path t5 --input_file good.txt --output_file good.txt/x.txt",
        r"cannot write good\.txt/",
    ),
    ("t5_translator", "--input_file good.txt --text a", r"--text and --input_file"),
    ("t5_translator", "--input_file good.txt --reference_file good.txt", r"--output_file"),
    (
        "t5_translator",
        "--model_name_or_path t5 --input_file good.txt --reference_file none.txt --output_file x.txt",
        r"No such file or directory: 'none\.txt'",
    ),
    ("t5_translator", "--num_beams 0", r"--num_beams is above 0: see --help"),
    ("t5_translator", "--max_new_tokens -1 --text a", r"--max_new_tokens is above 0"),
    ("t5_translator", "--batch_tokens many", r"--batch_tokens"),
    ("t5_translator", "--colour red", r"--colour"),
    ("t5_translator", "--smoke --output_dir good.txt", r"good\.txt"),
    ("t5_translator", "--smoke --resume_from_checkpoint nowhere", r".*nowhere"),
    (
        "t5_translator",
        "--model_name_or_path t5-small --text a",
        r"cannot download t5-small.*--smoke",
    ),
    ("t5_translator", "--model_name_or_path good.tsv --text a", r"good\.tsv"),
    (
        "t5_translator",
        "--model_name_or_path t5/wordless --text a",
        r"t5/wordless lacks tokens: it knows 4 of \d+",
    ),
    (
        "t5_translator",
        "--model_name_or_path t5/holes --text a",
        r"t5/holes lacks \['decoder\.block\.\S*weight'\]",
    ),
    (
        "t5_translator",
        "--model_name_or_path bert --text a",
        r"cannot load bert: it is a bert model",
    ),
    ("t5_translator", "--model_name_or_path t5/pickle --text a", r"cannot load t5/pickle"),
    ("t5_translator", "--model_name_or_path t5/weightless --text a", r"cannot load t5/weightless"),
    ("t5_translator", "--model_name_or_path t5/cut --text a", r"cannot load t5/cut"),
    # seq2seq_lstm
    ("seq2seq_lstm", "--train_file none.tsv", r".*No such file.*none\.tsv"),
    ("seq2seq_lstm", "--train_file mrpc", r".*Is a directory.*mrpc"),
    ("seq2seq_lstm", "--train_file unreadable.csv", r".*Input/output error"),
    ("seq2seq_lstm", "--train_file empty", r"empty: no rows"),
    ("seq2seq_lstm", "--train_file bom", r"bom: no rows"),
    ("seq2seq_lstm", "--train_file ragged.tsv", r"ragged\.tsv, row 2: 1 of 2 rows"),
    ("seq2seq_lstm", "--train_file one.tsv", r"one\.tsv, row 1, 2: 2 of 2 rows"),
    (
        "seq2seq_lstm",
        "--train_file blank.tsv",
        r"blank\.tsv, row 2: 1 of 2 rows lack a text",
    ),
    ("seq2seq_lstm", "--train_file hole.tsv", r"hole\.tsv, row 2: 1 of 3 rows"),
    (
        "seq2seq_lstm",
        "--train_file latin.tsv",
        r"latin\.tsv, line 2 is not utf-8-sig text: give --encoding cp1252",
    ),
    ("seq2seq_lstm", "--encoding klingon", r"--encoding: unknown encoding: klingon"),
    ("seq2seq_lstm", "--nonsense", r"--nonsense"),
    ("seq2seq_lstm", "--batch_size 0", r"--batch_size 0: "),
    ("seq2seq_lstm", "--dropout 1.5", r"--dropout 1\.5: "),
    ("seq2seq_lstm", "--learning_rate nan", r"--learning_rate nan: "),
    ("seq2seq_lstm", "--hidden_size x", r"hidden_size"),
    ("seq2seq_lstm", "--do_eval", r"--model_name_or_path"),
    ("seq2seq_lstm", "--smoke --output_dir good.txt", r"cannot write good\.txt/checkpoint-0001: "),
    ("seq2seq_lstm", "--resume_from_checkpoint nowhere", r"nowhere"),
    ("seq2seq_lstm", "--model_name_or_path nowhere --text a", r"nowhere is not a complete folder"),
    (
        "seq2seq_lstm",
        "--model_name_or_path lstm/weightless --text a",
        r"lstm/weightless is not a complete folder",
    ),
    (
        "seq2seq_lstm",
        "--model_name_or_path lstm/cut --text a",
        r"lstm/cut is not a complete folder",
    ),
    (
        "seq2seq_lstm",
        "--model_name_or_path lstm/wordless --text a",
        r"lstm/wordless is not a complete folder",
    ),
    (
        "seq2seq_lstm",
        "--model_name_or_path lstm/other --text a",
        r"lstm/other is not a complete folder",
    ),
    (
        "seq2seq_lstm",
        "--model_name_or_path lstm --input_file none.txt",
        r".*No such file.*none\.txt",
    ),
    (
        "seq2seq_lstm",
        "--model_name_or_path lstm --text a --output_file mrpc",
        r"cannot write .*Is a directory.*mrpc",
    ),
    # self_attention
    ("self_attention", "--nonsense", r"--nonsense"),
    ("self_attention", "--embedding_dim 0", r"--embedding_dim 0"),
    (
        "self_attention",
        "--embedding_dim 6 --num_heads 4",
        r".*no multiple up to 4096 of --num_heads 4",
    ),
    ("self_attention", "--embedding_dim 1000000000000", r"--embedding_dim 1000000000000 .* 4096"),
    ("self_attention", "--num_heads -1", r"--num_heads -1"),
    ("self_attention", "--seed x", r"--seed"),
    ("self_attention", "--text", r"--text"),
    ("self_attention", "--text \t", r"sentence 1 has no words"),
    ("self_attention", "--plot picture.bmp", r"--plot picture\.bmp .*\.png"),
    ("self_attention", "--plot good.txt/x.png", r"cannot write good\.txt: "),
    ("self_attention", "--plot folder.png", r"cannot write \.: .*folder\.png"),
]


def spoil(folder, weights, vocabulary):
    """Make broken copies of a model folder inside it: without weights, with a part of them, and so on."""
    whole = [path for path in folder.iterdir() if path.is_file()]
    for name in ("weightless", "cut", "pickle", "remote", "holes", "other", "wordless", "typed"):
        (folder / name).mkdir()
        for path in whole:
            shutil.copy(path, folder / name)
    (folder / "weightless" / weights).unlink()
    (folder / "cut" / weights).write_bytes((folder / weights).read_bytes()[:5000])
    (folder / "wordless" / vocabulary).unlink()
    if weights.endswith(".safetensors"):
        tensors = load_file(folder / weights)
        (folder / "pickle" / weights).unlink()
        torch.save(tensors, folder / "pickle" / "pytorch_model.bin")
        tensors.pop(next(name for name in tensors if "norm" in name.lower() or "ln_" in name))
        save_file(tensors, folder / "holes" / weights, {"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        remote = config | {"auto_map": {"AutoConfig": "code.Config"}}
        (folder / "remote" / "config.json").write_text(json.dumps(remote))
        typed = config | {"hidden_size": "x", "n_embd": "x"}
        (folder / "typed" / "config.json").write_text(json.dumps(typed))


def save_models(folder):
    """Save a tiny model of every script, as its users have it after a run, with its broken copies."""
    bert, gpt2, t5 = map(load_script, ("bert_finetune", "gpt2_finetune", "t5_translator"))
    table = pd.DataFrame(bert.SAMPLE["train"], columns=["text", "label"])
    models = {
        "bert": bert.tiny(table["text"], ["negative", "positive"]),
        "gpt": gpt2.untrained(gpt2.SAMPLE_PARAGRAPHS),
        "t5": t5.tiny(t5.SAMPLE_PAIRS, t5.build_prompt("English", "German")),
    }
    for name, parts in models.items():
        for part in parts:
            part.save_pretrained(folder / name)
        spoil(folder / name, "model.safetensors", "tokenizer.json")
    size = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
    }
    encoder = BertConfig(vocab_size=models["gpt"][1].config.vocab_size, **size)
    BertForMaskedLM(encoder).save_pretrained(folder / "gpt" / "other")
    models["gpt"][1].config.save_pretrained(folder / "bert" / "other")
    BertForMaskedLM(models["bert"][1].config).save_pretrained(folder / "bert" / "headless")
    if lacking("seq2seq_lstm") is None:
        save_lstm(load_script("seq2seq_lstm"), folder)


def save_lstm(lstm, folder):
    """The same for the script that is not built on PyTorch."""
    translator = lstm.new_translator(lstm.SAMPLE_PAIRS, embedding_dim=8, hidden_size=8)
    lstm.save_translator(translator, folder / "lstm")
    spoil(folder / "lstm", "model.keras", "vocabulary.json")
    saved = json.loads((folder / "lstm" / "vocabulary.json").read_text())
    saved["settings"]["model"]["hidden_size"] = 10
    (folder / "lstm" / "other" / "vocabulary.json").write_text(json.dumps(saved))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with everything that the rows name."""
    folder = tmp_path_factory.mktemp("inputs")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    for name in ("mrpc/folder/train.tsv", "mrpc/unreadable", "folder.png"):
        (folder / name).mkdir(parents=True)
    for name in ("unreadable.csv", "mrpc/unreadable/train.tsv"):
        (folder / name).symlink_to("/proc/self/mem")  # root may read everything else
    pd.DataFrame({"text": ["a", "b"], "label": [1.0, np.nan]}).to_parquet(folder / "nan.parquet")
    save_models(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "flags", "pattern"), ROWS, ids=[f"{name} {flags}" for name, flags, _ in ROWS]
)
def test_bad_input_ends_in_one_line(
    name, flags, pattern, inputs, tmp_path, capfd, monkeypatch, run_as_main
):
    monkeypatch.chdir(inputs)
    monkeypatch.setattr(huggingface_hub.constants, "HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr(stat, "S_ISCHR", lambda mode: True)
    before = {path for path in inputs.rglob("*") if path.is_file()}
    status = run_as_main(name, *(part for part in flags.split(" ") if part))
    err = capfd.readouterr().err
    assert status == 2, err
    assert re.match(f"error: .*{pattern}", err.splitlines()[-1]), err
    assert (
        sum(line.startswith("error: ") for line in err.splitlines()) == 1 and "Traceback" not in err
    )
    assert {path for path in inputs.rglob("*") if path.is_file()} == before


def test_the_table_is_large_and_covers_all_six_scripts():
    assert len(ROWS) >= 60 and len({name for name, _, _ in ROWS}) == 6


def parsers(folder):
    """Every function that reads a user's file, with a name of such a file."""
    bert, gpt2, glue = map(load_script, ("bert_finetune", "gpt2_finetune", "glue_mrpc"))
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        yield (
            folder / f"file.{suffix}",
            lambda path: bert.load_table(path, bert.ScriptArguments(), "train"),
        )
    yield folder / "file.txt", lambda path: list(gpt2.read_texts([path]))
    yield folder / "train.tsv", lambda path: glue.read_tsv(path, labelled=True)
    for translator in TRANSLATORS:
        yield folder / "pairs.tsv", load_script(translator).read_pairs


HERE = [name for name in SCRIPTS if lacking(name) is None]
TRANSLATORS = [name for name in ("t5_translator", "seq2seq_lstm") if name in HERE]
# The boundary at the end of every script makes one line of these, and of nothing else.
INPUT_ERRORS = (OSError, *(load_script(name).InputError for name in HERE))
HEADERS = st.sampled_from(
    [b"", b"text,label\n", b"text\tlabel\n", GLUE.encode(), b'{"text": "a", "label": 1}\n']
)
LINES = (
    st.lists(st.text(st.sampled_from("a\"'\t,{}[]:1 \r\n\0\ufeffß😀")), max_size=5)
    .map("\n".join)
    .map(str.encode)
)


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(header=HEADERS, content=st.binary(max_size=60) | LINES)
def test_no_file_ends_in_a_traceback(header, content, tmp_path):
    for path, read in parsers(tmp_path):
        path.write_bytes(header + content)
        with contextlib.suppress(*INPUT_ERRORS):
            read(str(path) if path.name != "train.tsv" else path)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1)


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(texts=st.lists(TEXTS.filter(str.strip), min_size=1, max_size=4))
def test_any_text_survives_the_round_trip(texts, tmp_path):
    bert, gpt2, glue = map(load_script, ("bert_finetune", "gpt2_finetune", "glue_mrpc"))
    table = pd.DataFrame({"text": texts, "label": "None"})
    table.to_csv(tmp_path / "a.csv", index=False)
    table.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    table.to_parquet(tmp_path / "a.parquet")
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        split = bert.load_table(str(tmp_path / name), bert.ScriptArguments(), "train")
        assert split["text"].tolist() == [text.strip() for text in texts]
        assert set(split["label"]) == {"None"}
    cells = [text.replace("\t", " ") for text in texts if text.replace("\t", " ").strip()]
    (tmp_path / "a.tsv").write_bytes("".join(f"{cell}\t{cell}\n" for cell in cells).encode())
    (tmp_path / "train.tsv").write_bytes(
        (GLUE + "".join(f"1\t1\t2\t{cell}\t{cell}\n" for cell in cells)).encode()
    )
    (tmp_path / "a.txt").write_bytes("\n".join(texts).encode())
    pairs = [(cell, cell) for cell in cells]
    if pairs and not pairs[0][0].startswith("\ufeff"):
        for translator in map(load_script, TRANSLATORS):
            assert translator.read_pairs(str(tmp_path / "a.tsv")) == pairs
        assert [
            (row["sentence1"], row["sentence2"])
            for row in glue.read_tsv(tmp_path / "train.tsv", True)
        ] == pairs
    read = "".join(gpt2.read_pieces(str(tmp_path / "a.txt"), "utf-8-sig"))
    assert read == "\n".join(texts).removeprefix("\ufeff")


ODD_TEXTS = [
    "straße 😀",
    "שלום עולם",
    'he said "no',
    "None",
    "NaN",
    "word " * 200_000,
    "x" * 1_000_000,
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_odd_but_valid_input_works(mark, end, tmp_path):
    """A byte order mark, CRLF, emoji, right-to-left text, quotes, a label called None, a megabyte on one line."""
    bert, gpt2, glue = map(load_script, ("bert_finetune", "gpt2_finetune", "glue_mrpc"))
    texts = [text.strip() for text in ODD_TEXTS]

    def write(name, lines):
        (tmp_path / name).write_bytes((mark + "".join(f"{line}{end}" for line in lines)).encode())
        return str(tmp_path / name)

    path = write("a.tsv", ["text\tlabel", *(f"{text}\tNone" for text in texts)])
    bert.parse_arguments([])  # in this process texts may be long now
    split = bert.load_table(path, bert.ScriptArguments(), "train")
    assert split["text"].tolist() == texts and set(split["label"]) == {"None"}
    path = write("pairs.tsv", [f"{text}\t{text}" for text in texts])
    for translator in map(load_script, TRANSLATORS):
        assert translator.read_pairs(path) == [(text, text) for text in texts]
    path = write("train.tsv", [GLUE.strip(), *(f"1\t1\t2\t{text}\t{text}" for text in texts)])
    assert [row["sentence2"] for row in glue.read_tsv(tmp_path / "train.tsv", True)] == texts
    path = write("a.txt", texts)
    assert "".join(gpt2.read_pieces(path, "utf-8-sig")) == "".join(f"{t}\n" for t in texts)
