"""seq2seq_lstm.py against PyTorch's nn.LSTM in training, and `predict` per token in decoding.

    python tests/benchmarks/seq2seq_lstm.py --attention    # minutes
    python tests/benchmarks/seq2seq_lstm.py --batch_size 128    # any flag of the script
    python tests/benchmarks/seq2seq_lstm.py --cpu_time     # on a busy machine

SHOWCASE_DATA names the folder that holds multi30k/.
Every side runs in a process of its own, in turn and `--rounds` times; the best round counts,
because a busy machine only ever makes a round slower. `--cpu_time` gives each side one thread and
counts seconds of processor time.
Training: the same pairs, vocabularies, sizes, dropout, clipping and Adam; PyTorch in float32 as
usual, in random order and padded; with the script's batches (sorted by length); and with those
under bfloat16 autocast, where the processor has it: the best alternative.
Decoding: the model that the training side has left, greedily, 1,000 sentences in batches; against
`predict` on one sentence and one token at a time; and, the best alternative, against a compiled
step per token on the same batches.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np  # noqa: E402
from figures import DATA, print_figures  # noqa: E402

CLOCK = time.process_time if "--cpu_time" in sys.argv else time.perf_counter
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
)
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lang_translator"))


def prepare(options) -> None:
    """Save an untrained model, its vocabularies, and the batches of both orders for all sides."""
    import keras
    import seq2seq_lstm as script

    args = script.parse_arguments(
        ["--train_file", str(DATA / "multi30k" / "train.de-en.tsv"), *options.flags]
    )
    keras.utils.set_random_seed(args.seed)
    pairs = script.read_pairs(args.train_file)
    translator = script.new_translator(pairs, **args.new_model)
    script.save_translator(translator, options.folder)
    _, data = script.encode_pairs(translator, pairs, "training")
    rng = np.random.default_rng(0)
    dataset = script.make_batches(data, args.batch_size, rng).take(options.batches)
    order, usual = rng.permutation(int(data[0].nrows())), []
    for rows in np.split(order, range(args.batch_size, len(order), args.batch_size))[
        : options.batches
    ]:
        usual.append([script.tf.gather(side, rows).to_tensor() for side in data])
    for name, batches in (("sorted", dataset), ("usual", usual)):
        flat = {
            f"{index}_{side}": ids
            for index, pair in enumerate(batches)
            for side, ids in enumerate(pair)
        }
        np.savez(Path(options.folder, f"{name}.npz"), **flat)


def read_batches(folder: str, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the (source, target) ids, int32 (batch, length) each, that `prepare` saved."""
    arrays = np.load(Path(folder, f"{name}.npz"))
    return [(arrays[f"{index}_0"], arrays[f"{index}_1"]) for index in range(len(arrays.files) // 2)]


def pairs_per_second(run, batches) -> float:
    """Warm up, for kernels are made for every new shape, then time the same batches."""
    run(batches)
    start = CLOCK()
    run(batches)
    return sum(len(source) for source, _ in batches) / (CLOCK() - start)


def train_script(options) -> float:
    """Training speed of the script; leaves the trained model for the decoding sides."""
    import keras
    import seq2seq_lstm as script

    args = script.parse_arguments(["--train_file", "x", *options.flags])
    keras.config.set_dtype_policy(
        "mixed_bfloat16" if args.bf16 and options.side == "script" else "float32"
    )
    translator = script.load_translator(options.folder)
    learner = script.build_learner(translator, args.learning_rate, 50)
    step = script.compile_step(learner, args.label_smoothing_factor)
    batches = read_batches(options.folder, "sorted")
    speed = pairs_per_second(lambda some: np.concatenate([step(*ids) for ids in some]), batches)
    translator.model.set_weights(learner.get_weights())
    script.save_translator(translator, Path(options.folder, "trained"))
    return speed


def train_torch(options) -> float:
    """Training speed of the same model in PyTorch, float32 or bfloat16 autocast."""
    import torch
    from torch import nn

    saved = json.loads(Path(options.folder, "vocabulary.json").read_text())["settings"]["model"]
    (source_size, target_size), hidden = saved["sizes"], saved["hidden_size"]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.source, self.target = (
                nn.Embedding(source_size, 256),
                nn.Embedding(target_size, 256),
            )
            width = hidden // 2 if saved["attention"] else hidden
            self.encoder = nn.LSTM(256, width, batch_first=True, bidirectional=saved["attention"])
            self.decoder, self.dropout = (
                nn.LSTM(256, hidden, batch_first=True),
                nn.Dropout(saved["dropout"]),
            )
            self.general, self.combine = (nn.Linear(n * hidden, hidden, bias=False) for n in (1, 2))
            self.projection = nn.Linear(hidden, target_size)

        def forward(self, source, target):
            words = self.dropout(self.source(source))
            packed = nn.utils.rnn.pack_padded_sequence(
                words, (source > 0).sum(1), True, enforce_sorted=False
            )
            memory, state = self.encoder(packed)
            state = tuple(s.transpose(0, 1).reshape(1, len(source), hidden) for s in state)
            output, _ = self.decoder(self.dropout(self.target(target)), state)
            if saved["attention"]:
                memory, _ = nn.utils.rnn.pad_packed_sequence(memory, batch_first=True)
                scores = self.general(output) @ memory.transpose(1, 2)
                weights = scores.masked_fill((source == 0)[:, None], -1e9).softmax(-1)
                output = torch.tanh(self.combine(torch.cat([weights @ memory, output], -1)))
            return self.projection(self.dropout(output))

    model = Model()
    optimizer, loss = (
        torch.optim.Adam(model.parameters()),
        nn.CrossEntropyLoss(ignore_index=0, label_smoothing=0.1),
    )

    def run(batches):
        for source, target in batches:
            source, target = torch.from_numpy(source).long(), torch.from_numpy(target).long()
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=options.side == "torch_bf16"):
                logits = model(source, target[:, :-1])
                mean = loss(logits.flatten(0, 1), target[:, 1:].flatten())
            mean.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()

    order = "usual" if options.side == "torch_usual" else "sorted"
    return pairs_per_second(run, read_batches(options.folder, order))


def decode_script(options) -> float:
    """Sentences per second of the script's greedy search on the validation sources."""
    import keras
    import seq2seq_lstm as script

    args = script.parse_arguments(["--train_file", "x", *options.flags])
    keras.config.set_dtype_policy("mixed_bfloat16" if args.bf16 else "float32")
    translator = script.load_translator(Path(options.folder, "trained"))
    sources = [source for source, _ in script.read_pairs(str(DATA / "multi30k" / "val.de-en.tsv"))][
        :1000
    ]
    translator.search = script.compile_search(translator.model)
    script.translate(translator, sources[:10], 128)
    start = CLOCK()
    script.translate(translator, sources, 128)
    return len(sources) / (CLOCK() - start)


def decode_steps(options) -> float:
    """Sentences per second of a compiled step per token, on the script's batches of 128."""
    import keras
    import seq2seq_lstm as script
    import tensorflow as tf

    args = script.parse_arguments(["--train_file", "x", *options.flags])
    keras.config.set_dtype_policy("mixed_bfloat16" if args.bf16 else "float32")
    translator = script.load_translator(Path(options.folder, "trained"))
    encoder, decoder, projection = script.parts(translator.model)
    sources = [source for source, _ in script.read_pairs(str(DATA / "multi30k" / "val.de-en.tsv"))]
    encode = tf.function(encoder, reduce_retracing=True)

    @tf.function(reduce_retracing=True)
    def step(state, seen, tokens):
        output, h, c = decoder([*state, *seen, tokens])[:3]
        return [h, c], tf.argmax(projection(output[:, 0]), -1, tf.int32)[:, None]

    def translate(sources):
        rows = sorted(
            (one.ids for one in script.encode(translator.source_tokenizer, sources)), key=len
        )
        for start in range(0, len(rows), 128):
            source = tf.ragged.constant(rows[start : start + 128], tf.int32).to_tensor()
            h, c, *seen = encode(source)
            state, tokens = [h, c], [tf.fill([len(source), 1], script.SOS)]
            ended = np.zeros((len(source), 1), bool)
            while not ended.all() and len(tokens) <= 2 * source.shape[1]:
                state, token = step(state, seen, tokens[-1])
                tokens.append(token)
                ended |= token.numpy() == script.EOS
            texts = translator.target_tokenizer.decode_batch(np.concatenate(tokens, 1).tolist())
        return texts

    translate(sources[:200])
    start = CLOCK()
    translate(sources[:1000])
    return 1000 / (CLOCK() - start)


def decode_predict(options) -> float:
    """Sentences per second of Keras' own example: `predict` on one sentence and token at a time."""
    import seq2seq_lstm as script

    translator = script.load_translator(Path(options.folder, "trained"))
    encoder, decoder, projection = script.parts(translator.model)
    sources = [source for source, _ in script.read_pairs(str(DATA / "multi30k" / "val.de-en.tsv"))][
        :4
    ]
    for number, encoding in enumerate(script.encode(translator.source_tokenizer, sources)):
        if number == 1:  # the first sentence compiles
            start = CLOCK()
        source = np.array([encoding.ids])
        state = encoder.predict(source, verbose=0)
        state, seen = state[:2], state[2:]
        tokens = [script.SOS]
        while tokens[-1] != script.EOS and len(tokens) <= 2 * len(encoding.ids):
            output, *state = decoder.predict([*state, *seen, np.array([tokens[-1:]])], verbose=0)[
                :3
            ]
            tokens.append(int(np.argmax(projection(output[:, 0])[0])))
    return (len(sources) - 1) / (CLOCK() - start)


SIDES = {
    "script": (train_script, "training, the script"),
    "script_float32": (train_script, "training, the script with --no-bf16"),
    "torch_bf16": (train_torch, "training, PyTorch bfloat16 autocast, the same batches"),
    "torch_sorted": (train_torch, "training, PyTorch float32, the same batches"),
    "torch_usual": (train_torch, "training, PyTorch float32, random order"),
    "search": (decode_script, "decoding, the script, 1,000 sentences"),
    "steps": (decode_steps, "decoding, a compiled step per token, the same batches"),
    "predict": (decode_predict, "decoding, predict per token"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cpu_time", action="store_true")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options, options.flags = parser.parse_known_args()
    if options.side:
        print("result", SIDES[options.side][0](options))
        return
    best, environment = (
        dict.fromkeys(SIDES, 0.0),
        os.environ | (ONE_THREAD if options.cpu_time else {}),
    )
    with tempfile.TemporaryDirectory() as options.folder:
        prepare(options)
        for _ in range(options.rounds):
            for side in SIDES:
                command = [
                    sys.executable,
                    __file__,
                    *sys.argv[1:],
                    "--side",
                    side,
                    "--folder",
                    options.folder,
                ]
                done = subprocess.run(
                    command, env=environment, stdout=subprocess.PIPE, text=True, check=True
                )
                best[side] = max(best[side], float(done.stdout.split()[-1]))
                print(f"{SIDES[side][1]:54} {best[side]:8.1f} per second", flush=True)
    print_figures(best)
    for ours, other in (
        ("script", "torch_bf16"),
        ("script", "torch_sorted"),
        ("script", "torch_usual"),
        ("search", "steps"),
        ("search", "predict"),
    ):
        print(f"{SIDES[ours][1]} / {SIDES[other][1]}: {best[ours] / best[other]:.2f}")


if __name__ == "__main__":
    main()
