# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "keras>=3.12",
#     "matplotlib>=3.10",
#     "numpy>=2.1",
#     "sacrebleu>=2.5",
#     "tensorflow>=2.20",
#     "tokenizers>=0.22",
#     "tqdm>=4.67",
# ]
# ///
"""Translate with an LSTM encoder and an LSTM decoder in TensorFlow/Keras, with attention if you like.

python seq2seq_lstm.py --smoke
python seq2seq_lstm.py --attention --train_file train.tsv --validation_file validation.tsv --test_file test.tsv
python seq2seq_lstm.py --model_name_or_path outputs/seq2seq_lstm --text "Ein Hund läuft durch den Schnee."

The first command learns the built-in pairs with a tiny model, in seconds. The second trains on your own pairs and
scores the result. The third translates with a model that an earlier run has saved.

The plain model is Sutskever et al. 2014 (https://arxiv.org/abs/1409.3215): all that the decoder knows of the source is
the encoder's last state. --attention is Luong et al. 2015 (https://arxiv.org/abs/1508.04025).

switches:
  --smoke                                         a tiny model, done in seconds on any machine
  --attention                                     let the decoder look back at the source
  --do_train, --do_eval, --do_predict             only the steps that are asked for

files, all in UTF-8:
  --train_file              pairs to train on, SOURCE TAB TARGET per line; further columns, as in Anki's files, are
                            ignored; without any such file the built-in sample is used
  --validation_file         pairs that choose the best epoch; without it every twentieth pair of the former
  --test_file               pairs to score at the end
  --model_name_or_path      folder of a trained model, for --text, --input_file, --test_file or further training
  --input_file              text to translate line by line
  --output_file             where translations go instead of the screen
  --resume_from_checkpoint  folder of a checkpoint, or 'last' for the newest complete one, if any

numbers:
  --embedding_dim, --hidden_size                  size of the word vectors; units of encoder and decoder
  --dropout, --label_smoothing_factor             against learning by heart
  --vocab_size                                    subwords per language
  --max_seq_length, --max_train_samples           longer pairs (in tokens) are not trained on; first pairs of the file
  --num_train_epochs, --early_stopping_patience   at most so many; how long to wait for a better validation BLEU
  --batch_size, --learning_rate                   pairs per update; of Adam
  --num_beams                                     width of the beam search; 1 decodes greedily
  --seed                                          of weights, order and dropout
"""

import functools
import json
import os
import shlex
import shutil
import sys
import time
import zipfile
from argparse import ArgumentParser, BooleanOptionalAction, Namespace, RawDescriptionHelpFormatter
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

# TensorFlow reads this once, while it is imported, and would report a missing GPU as an error; your own value wins.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from matplotlib.figure import Figure
from sacrebleu.metrics import BLEU, CHRF
from tokenizers import Encoding, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tqdm import tqdm

SAMPLE_PAIRS = [
    ("Ein Hund läuft durch den Schnee.", "A dog runs through the snow."),
    ("Eine Katze schläft auf dem Sofa.", "A cat is sleeping on the sofa."),
    ("Zwei Kinder spielen im Park.", "Two children are playing in the park."),
    ("Der Mann liest eine Zeitung.", "The man reads a newspaper."),
    ("Die Frau trinkt eine Tasse Kaffee.", "The woman drinks a cup of coffee."),
    ("Ein Junge wirft einen roten Ball.", "A boy throws a red ball."),
    ("Ein Mädchen malt ein Bild.", "A girl paints a picture."),
    ("Der Zug kommt heute später.", "The train arrives later today."),
    ("Wir essen zusammen zu Abend.", "We eat dinner together."),
    ("Ich habe meinen Schlüssel verloren.", "I have lost my key."),
    ("Wo ist der Bahnhof?", "Where is the station?"),
    ("Das Wetter ist heute schön.", "The weather is nice today."),
    ("Es regnet seit drei Tagen.", "It has been raining for three days."),
    ("Meine Schwester wohnt in Berlin.", "My sister lives in Berlin."),
    ("Der Lehrer erklärt die Aufgabe.", "The teacher explains the exercise."),
    ("Sie fährt mit dem Fahrrad zur Arbeit.", "She rides her bicycle to work."),
    ("Die Bäckerei öffnet um sechs Uhr.", "The bakery opens at six o'clock."),
    ("Kannst du mir bitte helfen?", "Can you help me, please?"),
    ("Das Boot liegt am Ufer.", "The boat lies on the shore."),
    ("Vögel fliegen über das Meer.", "Birds fly over the sea."),
    ('Der Arzt sagt: "Alles ist gut."', 'The doctor says: "All is well."'),
    ("Er kauft Brot, Käse und Wein.", "He buys bread, cheese and wine."),
    ("Das Buch ist besser als der Film.", "The book is better than the film."),
    ("Niemand kennt die Antwort.", "Nobody knows the answer."),
]
SAMPLE_ROUNDS = 20  # an epoch goes through the sample so often, so that it is worth a validation and a checkpoint
SAMPLE = {"batch_size": 8, "num_train_epochs": 12, "dropout": 0.0}
SMOKE = {"embedding_dim": 64, "hidden_size": 128, "learning_rate": 5e-3, "max_train_samples": 2000, "bf16": False}
SPECIAL_TOKENS = ["<pad>", "<unk>", "<sos>", "<eos>"]
PAD, UNK, SOS, EOS = range(4)
IDS = tf.TensorSpec([None, None], tf.int32)  # a padded batch of token ids: (batch, length)
Pairs = list[tuple[str, str]]  # source and target
METRICS = {"bleu": BLEU(lowercase=True), "chrf": CHRF(lowercase=True)}
MODEL_FILE, VOCABULARY_FILE = "model.keras", "vocabulary.json"
FILE_FLAGS = ["train_file", "validation_file", "test_file", "model_name_or_path", "input_file", "output_file"]
MODEL_FLAGS = {"embedding_dim": 256, "hidden_size": 512, "dropout": 0.4}
DATA_FLAGS = {"max_train_samples": 10**9, "max_seq_length": 100, "vocab_size": 6000, "batch_size": 64, "seed": 42}
LEARNING_FLAGS = {"num_train_epochs": 12, "early_stopping_patience": 4, "learning_rate": 1e-3}
NUMBER_FLAGS = MODEL_FLAGS | DATA_FLAGS | LEARNING_FLAGS | {"label_smoothing_factor": 0.1, "num_beams": 1}


def fail(message: object, status: int = 2) -> NoReturn:
    """End the program with one `error:` line on stderr and this exit status."""
    print("error:", " ".join(str(message).split()), file=sys.stderr)
    raise SystemExit(status)


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


def has_bf16() -> bool:
    """Tell whether bfloat16 is fast here: on GPUs from compute capability 8, on CPUs with AVX-512 BF16 or AMX."""
    if gpus := tf.config.list_physical_devices("GPU"):
        return all(tf.config.experimental.get_device_details(gpu).get("compute_capability", ()) >= (8,) for gpu in gpus)
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and not {"avx512_bf16", "amx_bf16"}.isdisjoint(cpu.read_text().split())


def choose_devices() -> tf.distribute.Strategy:
    """Return the strategy for the hosts that TF_CONFIG names, else for all GPUs of this one, else for its CPU."""
    if "TF_CONFIG" in os.environ:
        return tf.distribute.MultiWorkerMirroredStrategy()
    several = len(tf.config.list_physical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


def parse_arguments(argv: list[str] | None) -> Namespace:
    """Parse the command line; bad usage ends in one line. Without a choice of steps, train unless a model is named."""
    parser = ArgumentParser(description=__doc__, allow_abbrev=False, formatter_class=RawDescriptionHelpFormatter)
    parser.error = fail
    for name in ("smoke", "attention", "do_train", "do_eval", "do_predict"):
        parser.add_argument(f"--{name}", action="store_true", help="see above")
    for name in (*FILE_FLAGS, "resume_from_checkpoint"):
        parser.add_argument(f"--{name}", help="see above")
    for name, default in NUMBER_FLAGS.items():
        parser.add_argument(f"--{name}", type=type(default), default=default, help="default: %(default)s")
    parser.add_argument("--text", nargs="+", default=[], help="sentences to translate")
    parser.add_argument("--bf16", action=BooleanOptionalAction, default=has_bf16(), help="default: where it is fast")
    parser.add_argument("--output_dir", default="outputs/seq2seq_lstm", help="where everything is written")
    args = parser.parse_args(argv)
    parser.set_defaults(**({} if args.train_file else SAMPLE) | (SMOKE if args.smoke else {}))
    args = parser.parse_args(argv)
    for name in NUMBER_FLAGS:
        value, zero = getattr(args, name), name in ("seed", "dropout", "label_smoothing_factor")
        if not (value > 0 or (value == 0 and zero)) or (isinstance(value, float) and value >= 1):
            fail(f"--{name} {value}: give a number above 0, and below 1 where the default is")
    if not (args.do_train or args.do_eval or args.do_predict):
        args.do_train = not args.model_name_or_path
        args.do_eval, args.do_predict = args.do_train or bool(args.test_file), True
    if not (args.do_train or args.model_name_or_path):
        fail("no model: add --do_train, or --model_name_or_path with the folder of a trained one")
    if args.do_train or args.do_eval:
        check_output_dir(args.output_dir)
    return args


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


def load_splits(args: Namespace) -> dict[str, Pairs]:
    """Return the pairs for `train`, `validation` and `test`, by default from the sample, which is learnt by heart."""
    train = read_pairs(args.train_file)[: args.max_train_samples] if args.train_file else SAMPLE_PAIRS * SAMPLE_ROUNDS
    validation = read_pairs(args.validation_file) if args.validation_file else SAMPLE_PAIRS
    if args.train_file and not args.validation_file:
        validation, train = train[::20], [pair for index, pair in enumerate(train) if index % 20]
        if not train:
            fail(f"{args.train_file}: one pair: give more, or --validation_file")
    test = read_pairs(args.test_file) if args.test_file else validation
    return {"train": train, "validation": validation, "test": test}


def train_tokenizer(texts: list[str], vocab_size: int, max_seq_length: int) -> Tokenizer:
    """Learn byte-pair encoding inside words (Sennrich et al. 2016, https://arxiv.org/abs/1508.07909), lower-cased.

    "▁" stands for the space before a word, so that decoding gives the text back with its spaces.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[UNK]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = pre_tokenizers.Split(Regex(r"▁?(\w+|[^\w▁])"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(split=False), words])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.BertProcessing(("<eos>", EOS), ("<sos>", SOS))
    tokenizer.enable_truncation(max_seq_length)
    return tokenizer


# A Keras model, the tokenizers of its two languages, and a dict saved with them: the model's shape, the run's history.
Translator = namedtuple("Translator", "model source target settings")


def new_translator(args: Namespace, pairs: Pairs) -> Translator:
    """Learn both vocabularies from the training pairs and build a model with random weights."""
    sides = [train_tokenizer(texts, args.vocab_size, args.max_seq_length) for texts in zip(*pairs, strict=True)]
    shape = {name: getattr(args, name) for name in ("attention", *MODEL_FLAGS)}
    shape["hidden_size"] += shape["hidden_size"] % 2  # with attention both directions of reading share it
    shape["sizes"] = [tokenizer.get_vocab_size() for tokenizer in sides]
    return Translator(build_model(**shape), *sides, {"model": shape})


def load_translator(folder: str | Path) -> Translator:
    """Load what `save_translator` wrote; the model computes in the dtype policy of now, not of then."""
    try:
        saved = json.loads(Path(folder, VOCABULARY_FILE).read_text())
        sides = [Tokenizer.from_str(json.dumps(side)) for side in saved["tokenizers"]]
        model = build_model(**saved["settings"]["model"])
        model.load_weights(Path(folder, MODEL_FILE))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        fail(f"{folder} is not a complete folder saved by this script: {error}")
    return Translator(model, *sides, saved["settings"])


def save_translator(translator: Translator, folder: Path, model: keras.Model) -> None:
    """Write the weights and, as the sign of a complete folder, the vocabularies with settings and history."""
    write_atomically(folder / MODEL_FILE, model.save)
    saved = {"settings": translator.settings, "tokenizers": [json.loads(side.to_str()) for side in translator[1:3]]}
    write_atomically(folder / VOCABULARY_FILE, lambda path: path.write_text(json.dumps(saved, indent=1)))


def encode(tokenizer: Tokenizer, texts: list[str]) -> list[Encoding]:
    """Tokenize texts, <sos> to <eos>, whatever their spaces; what exceeds `max_seq_length` is in `overflowing`."""
    tokenizer.encode_special_tokens = True  # "<eos>" in a text is text
    return tokenizer.encode_batch([" ".join(text.split()) for text in texts])


def encode_pairs(translator: Translator, pairs: Pairs) -> list[tf.RaggedTensor]:
    """Return source and target ids, int32 (pairs, tokens) each, of the pairs that are short enough."""
    sources, targets = zip(*pairs, strict=True)
    rows = zip(encode(translator.source, sources), encode(translator.target, targets), strict=True)
    rows = [(source.ids, target.ids) for source, target in rows if not (source.overflowing or target.overflowing)]
    sides = zip(*rows, strict=True) if rows else fail("every pair is longer than --max_seq_length: give a higher one")
    return [tf.ragged.constant(side, tf.int32) for side in sides]


def make_batches(data: list[tf.RaggedTensor], batch_size: int, rng: np.random.Generator) -> tf.data.Dataset:
    """Yield padded source and target ids, int32 (batch, length) each, in an order that depends on `rng` alone.

    Windows of 100 batches are sorted by length and cut into batches, so that hardly any padding is needed; then the
    batches are shuffled.
    """
    lengths, batches = [side.row_lengths().numpy() for side in data], []
    order = rng.permutation(len(lengths[0]))
    for window in np.split(order, range(100 * batch_size, len(order), 100 * batch_size)):
        rows = window[np.lexsort([side[window] for side in lengths])]  # by target length, then by source length
        batches += np.split(rows, range(batch_size, len(rows), batch_size))
    rng.shuffle(batches)
    dataset = tf.data.Dataset.from_tensor_slices(tf.ragged.constant(batches, tf.int32))
    return dataset.map(lambda rows: tuple(tf.gather(side, rows).to_tensor() for side in data)).prefetch(2)


def build_model(sizes: list[int], embedding_dim: int, hidden_size: int, dropout: float, attention: bool) -> keras.Model:
    """Build the model: source and target ids, int (batch, length), to logits (batch, target length, vocabulary).

    `sizes` are those of the two vocabularies.
    Training and decoding call its three parts `encoder`, `decoder` and `projection`. All layers are Keras' own, so
    that `keras.saving.load_model` opens a saved model without this file.
    """
    source, target = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    words = layers.Dropout(dropout)(layers.Embedding(sizes[0], embedding_dim)(source))
    mask = keras.ops.not_equal(source, PAD)
    lstm = {"return_sequences": True, "return_state": True}
    if attention:  # both directions, half the units each: their joint states start the decoder
        memory, *states = layers.Bidirectional(layers.LSTM(hidden_size // 2, **lstm))(words, mask=mask)
        state = [layers.Concatenate()(states[index::2]) for index in (0, 1)]  # forward and backward h, then c
        memory = keras.ops.where(keras.ops.expand_dims(mask, -1), memory, 0)  # (batch, source length, hidden)
        seen = [memory, mask]  # what the decoder looks at while it writes
    else:  # reading backwards brings the first words close to where they are needed (Sutskever et al., section 3.3)
        _, *state = layers.LSTM(hidden_size, go_backwards=True, return_state=True)(words, mask=mask)
        seen = []
    encoder = keras.Model(source, [*state, *seen], name="encoder")

    given = [keras.Input(tensor.shape[1:], dtype=tensor.dtype) for tensor in (*state, *seen)]
    words = layers.Dropout(dropout)(layers.Embedding(sizes[1], embedding_dim)(target))
    output, *state = layers.LSTM(hidden_size, **lstm)(words, initial_state=given[:2])
    alignment = []
    if attention:
        query = layers.Dense(hidden_size, use_bias=False)(output) * hidden_size**-0.5  # "general" score, equation 8
        context, *alignment = layers.Attention()([query, given[2]], mask=[None, given[3]], return_attention_scores=True)
        both = layers.Concatenate()([context, output])  # (batch, target length, 2 * hidden)
        output = layers.Dense(hidden_size, "tanh", use_bias=False)(both)  # equation 5
    outputs = [layers.Dropout(dropout)(output), *state, *alignment]
    decoder = keras.Model([*given, target], outputs, name="decoder")

    output = decoder([*encoder(source), target])[0]
    return keras.Model([source, target], layers.Dense(sizes[1], name="projection")(output))


def parts(model: keras.Model) -> list[layers.Layer]:
    """Return encoder, decoder and projection of a model of `build_model`."""
    return [model.get_layer(name) for name in ("encoder", "decoder", "projection")]


@tf.custom_gradient
def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, smoothing: float) -> tuple[tf.Tensor, Callable]:
    """Return sparse categorical cross-entropy in nats, (tokens,), of logits (tokens, classes) and labels (tokens,).

    The gradient is that of the label-smoothed loss (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567); the value
    leaves smoothing out, so that training and validation compare. One softmax serves both, which takes two thirds
    of the time of `tf.nn.sparse_softmax_cross_entropy_with_logits` on a CPU.
    """
    probabilities, classes = tf.nn.softmax(logits), logits.shape[-1]

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None, None]:
        wanted = tf.one_hot(labels, classes, 1 - smoothing + smoothing / classes, smoothing / classes)
        return (probabilities - wanted) * upstream[:, None], None, None

    return -tf.math.log(tf.gather(probabilities, labels, batch_dims=1) + 1e-30), gradient


@functools.lru_cache(maxsize=4)
def compile_pass(model: keras.Model, optimizer: keras.Optimizer | None = None, smoothing: float = 0.0) -> Callable:
    """Compile a pass over batches: (batches, title of the bar) to the mean loss; with an optimizer the model learns."""
    (encoder, decoder, projection), training = parts(model), optimizer is not None
    strategy = tf.distribute.get_strategy()

    def replica_step(source: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        context = tf.distribute.get_replica_context()
        devices, first = context.num_replicas_in_sync, context.replica_id_in_sync_group
        source, target = source[first::devices], target[first::devices]  # the rows of this device
        real = target[:, 1:] != PAD  # the projection is the largest product: padding does not enter it
        tokens = context.all_reduce("sum", tf.math.count_nonzero(real, dtype=tf.float32))  # of all devices
        with tf.GradientTape() as tape:
            output = decoder([*encoder(source, training=training), target[:, :-1]], training=training)[0]
            logits = tf.cast(projection(output[real]), tf.float32)  # (tokens, target vocabulary)
            loss = tf.reduce_sum(cross_entropy(logits, target[:, 1:][real], smoothing)) / tokens
            share = loss / devices  # the optimizer adds up what the devices' sums of gradients are
        if training:
            gradients = context.all_reduce("sum", tape.gradient(share, model.trainable_variables))
            optimizer.apply(gradients, model.trainable_variables)
        return context.all_reduce("sum", loss), tokens

    @tf.function(input_signature=[IDS, IDS])
    def step(source: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        results = strategy.run(replica_step, args=(source, target))
        return tuple(strategy.experimental_local_results(result)[0] for result in results)

    def run(batches: tf.data.Dataset, title: str) -> float:
        losses, tokens = zip(*[step(*pair) for pair in tqdm(batches, title, disable=None, leave=False)], strict=True)
        return float(np.average(losses, weights=tokens))

    return run


def best_epoch(history: list[dict]) -> int:
    """Return the epoch of the highest validation BLEU, among equals that of the lowest loss; 0 before the first."""
    return max(history, key=lambda record: (record["eval_bleu"], -record["eval_loss"]), default={"epoch": 0})["epoch"]


def train(translator: Translator, splits: dict, args: Namespace, checkpoint: str | Path | None) -> dict:
    """Train until the validation BLEU stops rising, leave the best weights in the model and return their record.

    Order and dropout of an epoch depend on seed and epoch alone, so that a resumed run ends like an uninterrupted one.
    """
    # A second model learns. The translator's gets the average of its weights, which translates better than the last.
    model, output_dir = build_model(**translator.settings["model"]), Path(args.output_dir)
    model.set_weights(translator.model.get_weights())
    momentum = 1 - 0.5 / max(1, len(splits["train"]) / args.batch_size)  # an average over about two epochs
    clipnorm = 1 / tf.distribute.get_strategy().num_replicas_in_sync  # of a device's share of the gradient
    adam = keras.optimizers.Adam(args.learning_rate, global_clipnorm=clipnorm, use_ema=True, ema_momentum=momentum)
    model.compile(adam)
    adam.build(model.trainable_variables)
    if checkpoint:
        model.load_weights(Path(checkpoint, MODEL_FILE))
    history = translator.settings["history"] = translator.settings["history"] if checkpoint else []
    run = compile_pass(model, adam, args.label_smoothing_factor)
    data = encode_pairs(translator, splits["train"])
    while len(history) < min(args.num_train_epochs, best_epoch(history) + args.early_stopping_patience):
        start, epoch = time.perf_counter(), len(history) + 1
        rng = np.random.default_rng([args.seed, epoch])
        for variable in [variable for variable in model.variables if "seed_generator" in variable.path]:
            variable.assign(rng.integers(2**32, size=2, dtype=np.uint32))
        loss = run(make_batches(data, args.batch_size, rng), f"Epoch {epoch}/{args.num_train_epochs}")
        record = {"epoch": epoch, "train_loss": loss, "train_runtime": time.perf_counter() - start}
        adam.finalize_variable_values(translator.model.trainable_variables)
        history.append(record | evaluate(translator, splits["validation"], args, "eval"))
        print(", ".join(f"{name} {value:.4g}" for name, value in history[-1].items()))
        (output_dir / f"checkpoint-{epoch:04}" / VOCABULARY_FILE).unlink(missing_ok=True)
        save_translator(translator, output_dir / f"checkpoint-{epoch:04}", model)
        kept = {output_dir / f"checkpoint-{number:04}" for number in (epoch, best_epoch(history))}
        for folder in set(output_dir.glob("checkpoint-*")) - kept:
            shutil.rmtree(folder)
    model.load_weights(output_dir / f"checkpoint-{best_epoch(history):04}" / MODEL_FILE)
    adam.finalize_variable_values(translator.model.trainable_variables)
    save_translator(translator, output_dir, translator.model)
    draw_training_curve(history, output_dir / "training_curve.png")
    return history[best_epoch(history) - 1] | {"train_runtime": sum(record["train_runtime"] for record in history)}


@functools.lru_cache(maxsize=4)
def compile_search(model: keras.Model, num_beams: int) -> Callable:
    """Compile beam search, greedy with one beam: source ids (batch, length) to ids (batch, at most twice the length).

    The loop over tokens runs inside the graph and ends when every sentence has its <eos>. The beam of the highest log
    probability per token wins, a length normalisation as in Wu et al. 2016 (https://arxiv.org/abs/1609.08144,
    equation 14) with alpha = 1. <unk> is never chosen.
    """
    (encoder, decoder, projection), size = parts(model), model.output.shape[-1]
    never = tf.where(tf.range(size) < EOS, -1e9, 0.0)  # <pad>, <unk> and <sos>
    only_padding = tf.where(tf.range(size) == PAD, 0.0, -1e9)  # what follows <eos>, at no cost

    @tf.function(input_signature=[IDS])
    def search(source: tf.Tensor) -> tf.Tensor:
        batch = tf.shape(source)[0]
        source, *given = (tf.repeat(tensor, num_beams, axis=0) for tensor in (source, *encoder(source)))
        state, seen = given[:2], given[2:]
        limit = 2 * tf.math.count_nonzero(source, axis=1, dtype=tf.int32)  # each sentence's own, whatever its batch
        first = tf.range(batch)[:, None] * num_beams  # (batch, 1): where the beams of a sentence begin
        scores = tf.repeat([[0.0] + [-1e9] * (num_beams - 1)], batch, axis=0)  # (batch, beams)
        tokens, finished = tf.fill([batch * num_beams, 1], SOS), tf.fill([batch * num_beams], False)
        while not tf.reduce_all(finished):
            tf.autograph.experimental.set_loop_options(shape_invariants=[(tokens, IDS.shape)])
            output, *state = decoder([*state, *seen, tokens[:, -1:]])[:3]
            logits = tf.cast(projection(output[:, 0]), tf.float32) + never  # (batch * beams, target vocabulary)
            totals = tf.reshape(scores, [-1, 1]) + tf.where(finished[:, None], only_padding, tf.nn.log_softmax(logits))
            scores, chosen = tf.math.top_k(tf.reshape(totals, [batch, -1]), num_beams)  # (batch, beams) each
            parent, token = tf.reshape(first + chosen // size, [-1]), tf.reshape(chosen % size, [-1])
            *state, tokens, finished = (tf.gather(tensor, parent) for tensor in (*state, tokens, finished))
            finished = finished | (token == EOS) | (tf.shape(tokens)[1] >= limit)
            tokens = tf.concat([tokens, token[:, None]], axis=1)
        lengths = tf.math.count_nonzero(tokens[:, 1:] - PAD, axis=1, dtype=tf.float32)
        best = tf.argmax(scores / tf.reshape(lengths, [batch, num_beams]), axis=1, output_type=tf.int32)
        return tf.gather(tokens, first[:, 0] + best)[:, 1:]

    return search


def translate(translator: Translator, texts: list[str], num_beams: int = 1, batch_size: int = 128) -> list[str]:
    """Translate texts of any length, in order; blank stays blank. What exceeds `max_seq_length` goes in pieces."""
    pieces, found, translations = [], {}, [""] * len(texts)
    for index, encoding in enumerate(encode(translator.source, texts)):
        pieces += [(piece.ids, index) for piece in (encoding, *encoding.overflowing) if len(piece) > 2]
    order = sorted(range(len(pieces)), key=lambda row: len(pieces[row][0]))
    for start in tqdm(range(0, len(order), batch_size), desc="Translating", disable=None, leave=False):
        rows = order[start : start + batch_size]
        source = tf.ragged.constant([pieces[row][0] for row in rows], tf.int32).to_tensor()
        output = compile_search(translator.model, num_beams)(source).numpy().tolist()
        found.update(zip(rows, translator.target.decode_batch(output), strict=True))
    for row, (_, index) in enumerate(pieces):
        translations[index] = f"{translations[index]} {found[row]}".strip()
    return translations


def evaluate(translator: Translator, pairs: Pairs, args: Namespace, prefix: str) -> dict[str, float]:
    """Return loss in nats per token, perplexity, BLEU and chrF (both lower-cased) of a model on pairs."""
    sources, *references = zip(*pairs, strict=True)
    batches = make_batches(encode_pairs(translator, pairs), args.batch_size, np.random.default_rng(0))
    loss = compile_pass(translator.model)(batches, "Measuring the loss")
    translations = translate(translator, sources, args.num_beams, args.batch_size)
    scores = {f"{prefix}_{key}": metric.corpus_score(translations, references).score for key, metric in METRICS.items()}
    return scores | {f"{prefix}_loss": loss, f"{prefix}_perplexity": float(np.exp(loss))}


def draw_training_curve(history: list[dict], path: Path) -> None:
    """Draw the losses of every epoch."""
    axes, names = Figure(figsize=(6, 4), layout="constrained").subplots(), ["train_loss", "eval_loss"]
    axes.plot(range(1, len(history) + 1), [[record[name] for name in names] for record in history], "o-", label=names)
    axes.set(xlabel="epoch", ylabel="nats per token", ylim=(0, None))
    axes.legend()
    write_atomically(path, lambda file: axes.figure.savefig(file, dpi=120))


def draw_alignment(translator: Translator, text: str, path: Path) -> None:
    """Draw where the decoder looks in the source while it writes each token of its translation."""
    encoder, decoder, _ = parts(translator.model)
    source, target = translator.source.encode(text), translator.target.encode(translate(translator, [text])[0])
    ids = tf.constant([source.ids])
    weights = decoder([*encoder(ids), tf.constant([target.ids[:-1]])])[3]  # (1, target length - 1, source length)
    axes = Figure(figsize=(6, 5), layout="constrained").subplots()
    axes.imshow(tf.cast(weights[0], tf.float32), cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(source)), source.tokens, rotation=60, ha="right")
    axes.set_yticks(range(len(target) - 1), target.tokens[1:])
    write_atomically(path, lambda file: axes.figure.savefig(file, dpi=120))


def predict(translator: Translator, pairs: Pairs, args: Namespace) -> None:
    """Translate --text and --input_file, or without both the sources of the pairs, to --output_file or the screen."""
    texts = args.text + list(read_lines(args.input_file or os.devnull))
    given = args.text or args.input_file
    sources = texts if given else [source for source, _ in (pairs if args.output_file else pairs[:20])]
    translations = translate(translator, sources, args.num_beams, args.batch_size)
    if args.output_file:
        write_atomically(args.output_file, lambda path: path.write_text("\n".join([*translations, ""]), "utf-8"))
    else:
        print(*(translations if given else map("  {} -> {}".format, sources, translations)), sep="\n")


def report(metrics: dict[str, float], output_dir: Path, command: str, trained: bool) -> None:
    """Print and write the metrics, name every file and the next command; a finished run needs no checkpoints."""
    results = output_dir / "all_results.json"
    earlier = json.loads(results.read_text()) if results.exists() and not trained else {}
    write_atomically(results, lambda path: path.write_text(json.dumps(earlier | metrics, indent=2, sort_keys=True)))
    for folder in output_dir.glob("checkpoint-*") if trained else []:
        Path(folder, VOCABULARY_FILE).unlink(missing_ok=True)  # first, so that half a checkpoint is never taken for one
        shutil.rmtree(folder)
    print(*(f"{name:>28} = {metrics[name]:.4g}" for name in sorted(metrics)), sep="\n")
    print("sacrebleu:", *(metric.get_signature() for metric in METRICS.values()))
    print("Files:", *sorted(path for path in output_dir.iterdir() if path.is_file()), sep="\n  ")
    print(f"Next:\n  python {sys.argv[0]} {command}")


def main(argv: list[str] | None = None) -> None:
    """Train, evaluate and translate as the command line says."""
    args = parse_arguments(argv)
    output_dir, checkpoint = Path(args.output_dir), args.resume_from_checkpoint
    if checkpoint == "last":  # complete checkpoints only, and a fresh start without any
        checkpoint = max((path.parent for path in output_dir.glob(f"checkpoint-*/{VOCABULARY_FILE}")), default=None)
    tf.distribute.experimental_set_strategy(choose_devices())
    keras.utils.set_random_seed(args.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if args.bf16 else "float32")
    splits, folder = load_splits(args), checkpoint or args.model_name_or_path
    translator = load_translator(folder) if folder else new_translator(args, splits["train"])
    metrics = train(translator, splits, args, checkpoint) if args.do_train else {}
    if args.do_eval:
        metrics |= evaluate(translator, splits["test"], args, "test")
        if translator.settings["model"]["attention"]:
            draw_alignment(translator, splits["test"][0][0], output_dir / "alignment.png")
    if args.do_predict:
        predict(translator, splits["test"], args)
    if metrics:
        model, text = output_dir if args.do_train else args.model_name_or_path, shlex.quote(splits["test"][0][0])
        report(metrics, output_dir, f"--model_name_or_path {model} --text {text}", args.do_train)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        fail("interrupted: the same command with --resume_from_checkpoint last continues", 130)
