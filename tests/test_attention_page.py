"""The page of `self_attention.py --plot FILE.html`, used in a real browser as a reader would use it.

The browser is driven over its own DevTools protocol through two pipes, so that no package is needed for it.
"""

import fcntl
import json
import os
import re
import select
import shutil
import subprocess
import time

import numpy as np
import pytest
from conftest import load_script

script = load_script("self_attention")
BROWSERS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"
PROGRAM = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="needs Chromium: apt-get install chromium")

ENGLISH = "The cat sat on the mat because the mat was warm."
ARABIC = "مرحبا بالعالم، كيف حالك؟"
HOSTILE = (
    "</script><script>document.title='x'</script> <!--<script> <img/src=http://127.0.0.1:9/> &lt;b"
)
LONG = "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft ist lang"


class Browser:
    """A headless Chromium with one tab."""

    def __init__(self, profile):
        (read, self.write), (self.read, write) = os.pipe(), os.pipe()
        # The browser reads from 3 and writes to 4, so ours must be other numbers.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read, write)]
        self.process = subprocess.Popen(
            [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
            + [f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            close_fds=False,
            preexec_fn=lambda: (os.dup2(theirs[0], 3), os.dup2(theirs[1], 4)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for end in (read, write, *theirs):
            os.close(end)
        self.buffer, self.count, self.session, self.requests = b"", 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)[
            "sessionId"
        ]
        for domain in ("Page", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters) -> dict:
        """Send a command and wait for its answer; note what is requested meanwhile."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.write, json.dumps(message).encode() + b"\0")
        answer = self.next()
        while answer.get("id") != self.count:
            answer = self.next()
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def next(self) -> dict:
        while b"\0" not in self.buffer:
            assert select.select([self.read], [], [], 60)[0], "the browser does not answer"
            received = os.read(self.read, 2**20)
            assert received, "the browser has ended"
            self.buffer += received
        message, _, self.buffer = self.buffer.partition(b"\0")
        answer = json.loads(message)
        if answer.get("method") == "Network.requestWillBeSent":
            self.requests.append(answer["params"]["request"]["url"])
        return answer

    def run(self, code: str):
        """The value of a JavaScript expression on the page."""
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path, width: int = 1000) -> None:
        self.requests.clear()
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=width < 500)
        self.call("Page.navigate", url=path.as_uri())
        while self.next().get("method") != "Page.loadEventFired":
            pass

    def press(self, key: str) -> None:
        code = {"Tab": 9, "ArrowDown": 40}[key]
        for kind in ("rawKeyDown", "keyUp"):
            parameters = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self.call("Input.dispatchKeyEvent", **parameters)

    def middle_of(self, selector: str, index: int) -> tuple[float, float]:
        """Where the index-th of the elements is, after scrolling to it."""
        code = f"""(() => {{
            const element = document.querySelectorAll({selector!r})[{index}]
            element.scrollIntoView({{ block: "center" }})
            const box = element.getBoundingClientRect()
            return [box.x + box.width / 2, box.y + box.height / 2]
        }})()"""
        return tuple(self.run(code))

    def point_at(self, index: int) -> None:
        x, y = self.middle_of("button", index)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def shown(self, sentence: int = 0) -> tuple[str, list[str], list[float]]:
        """The word that looks, the words from the largest weight on, and the weights below the words."""
        ranking = self.run(f"document.querySelectorAll('[role=status]')[{sentence}].innerText")
        word, _, order = ranking.partition(": ")
        below = self.run(
            f"[...document.querySelectorAll('section')[{sentence}].querySelectorAll('small')]"
            ".map(number => +number.innerText)"
        )
        return word, order.split(" · "), below


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.process.kill()
    browser.process.wait()
    os.close(browser.read)
    os.close(browser.write)


def write(path, *texts: str, heads: int = 2, causal: bool = False):
    """Path of a page, and for each sentence its words and the script's weights (heads, words, words)."""
    flags = ["--num_heads", str(heads), "--plot", str(path), *["--causal"] * causal]
    script.main(["--text", *texts, *flags])
    sentences = []
    for text in texts:
        words = script.split_words(text)
        x, projections = script.build_embeddings(words), script.random_projections(4)
        options = {"num_heads": heads, "causal": causal}
        sentences.append((words, script.self_attention(x, *projections, **options)[1]))
    return path, sentences


def check(shown, words, row) -> None:
    """What is shown is the row, to the digits that are shown."""
    _, order, below = shown
    np.testing.assert_allclose(below, row, atol=0.00051)
    # The page has whole numbers of two bytes.
    keys = np.argsort(-(row * 65535).round(), kind="stable")
    assert order == [words[key] for key in keys]


@pytest.mark.parametrize("causal", [False, True])
def test_the_weights_of_every_word_in_every_head_are_the_scripts(browser, tmp_path, causal):
    path, sentences = write(tmp_path / "a.html", ENGLISH, ARABIC, causal=causal)
    browser.open(path)
    for head in (0, 1):
        browser.run(
            f"head.selectedIndex = {head}, head.dispatchEvent(new Event('change')), undefined"
        )
        first = 0
        for number, (words, weights) in enumerate(sentences):
            for query, word in enumerate(words):
                browser.point_at(first + query)
                shown = browser.shown(number)
                assert shown[0] == word
                check(shown, words, weights[head, query])
            first += len(words)


def test_the_keyboard_chooses_head_and_word(browser, tmp_path):
    path, [(words, weights)] = write(tmp_path / "a.html", ENGLISH)
    browser.open(path)
    browser.press("Tab")
    browser.press("ArrowDown")
    assert browser.run("document.activeElement.value") == "1"
    check(browser.shown(), words, weights[1, 0])
    for query in range(len(words)):
        browser.press("Tab")
        assert browser.shown()[0] == words[query]
        check(browser.shown(), words, weights[1, query])
        focused = "document.activeElement"
        assert browser.run(f"{focused}.ariaCurrent") == "true"
        assert browser.run(f"getComputedStyle({focused}).outlineStyle") != "none"
    assert browser.run("document.querySelectorAll('[aria-current=true]').length") == 1


def test_the_strongest_weight_has_the_strongest_colour(browser, tmp_path):
    path, [(words, weights)] = write(tmp_path / "a.html", ENGLISH)
    browser.open(path)
    browser.point_at(2)
    colours = browser.run(
        "[...document.querySelectorAll('button')].map(b => getComputedStyle(b).backgroundColor)"
    )
    alphas = [float(re.search(r"([\d.]+)\)$", colour)[1]) for colour in colours]
    row = weights[0, 2]
    np.testing.assert_allclose(alphas, 0.6 * row / row.max(), atol=0.01)


def test_nothing_is_requested_and_no_word_becomes_code(browser, tmp_path):
    path, [(words, _)] = write(tmp_path / "a.html", HOSTILE)
    browser.open(path)
    browser.point_at(1)
    assert browser.run("document.title") == "Self-attention"
    assert browser.run("document.querySelectorAll('img, b').length") == 0
    assert browser.run("document.scripts.length") == 1
    shown = browser.run("[...document.querySelectorAll('button')].map(b => b.firstChild.data)")
    assert shown == words and "<!--<script>" in words
    assert browser.requests == [path.as_uri()]


def test_a_phone_shows_it_without_scrolling_sideways_and_a_tap_chooses(browser, tmp_path):
    path, sentences = write(tmp_path / "a.html", ENGLISH, LONG, ARABIC, "a b " * 40)
    browser.open(path, width=360)
    assert browser.run("innerWidth") == 360
    assert browser.run("document.documentElement.scrollWidth") <= 360
    size = "parseFloat(getComputedStyle(document.querySelector('small')).fontSize)"
    assert browser.run(size) >= 12
    x, y = browser.middle_of("button", 5)
    browser.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
    browser.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    words, weights = sentences[0]
    deadline = time.monotonic() + 10
    while browser.run("document.activeElement.tagName") != "BUTTON":
        assert time.monotonic() < deadline, "the tap has not arrived"
    check(browser.shown(), words, weights[0, 5])


@pytest.mark.parametrize(("text", "sign"), [(ARABIC, -1), ("שלום עולם", -1), (ENGLISH, 1)])
def test_words_run_in_the_direction_of_their_script(browser, tmp_path, text, sign):
    path, _ = write(tmp_path / "a.html", text)
    browser.open(path)
    (first, _), (second, _) = (browser.middle_of("button", index) for index in (0, 1))
    assert (second - first) * sign > 0
    side = "right" if sign < 0 else "left"
    edges = [
        browser.run(f"document.querySelector('{selector}').getBoundingClientRect().{side}")
        for selector in ("section", "button")
    ]
    assert abs(edges[0] - edges[1]) < 5


def test_a_screen_reader_finds_names_and_hears_changes(browser, tmp_path):
    path, [(_, weights)] = write(tmp_path / "a.html", "Time flies")
    browser.open(path)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node.get("role", {}).get("value"), node.get("name", {}).get("value")) for node in nodes
    ]
    row = weights[0, 0]
    assert ("button", f"Time {row[0]:.3f}") in named and ("button", f"flies {row[1]:.3f}") in named
    assert any(role == "combobox" and name == "Head" for role, name in named)
    assert any(role == "status" for role, _ in named)
    assert any(role == "heading" for role, _ in named)


def test_the_page_shows_that_the_pattern_means_nothing(browser, tmp_path):
    path, _ = write(tmp_path / "a.html", "Time flies")
    browser.open(path)
    assert "random: the pattern means nothing" in browser.run("document.body.innerText")


def choose(browser, select: str, index: int) -> None:
    code = f"{select}.selectedIndex = {index}, {select}.dispatchEvent(new Event('change'))"
    browser.run(f"{code}, undefined")


def test_every_layer_and_head_of_a_trained_model_can_be_chosen(browser, tmp_path):
    scores = np.random.default_rng(0).standard_normal((3, 2, 5, 5)) * 3
    words, weights = ["[CLS]", "un", "##able", "[UNK]", "[SEP]"], script.softmax(scores)
    other = weights[:, :, 1:, 1:] * 0.9
    path = tmp_path / "a.html"
    script.write_page([(words, weights), (words[1:], other)], path, script.TRAINED, 2)
    browser.open(path)
    # It starts at the layer that was asked for.
    check(browser.shown(), words, weights[1, 0, 0])
    assert browser.run("[layer.length, head.length].join()") == "3,2"
    last = 0
    for layer, head in np.ndindex(3, 2):
        # Each choice shows at once what it changes.
        choose(browser, "head", head)
        choose(browser, "layer", layer)
        check(browser.shown(), words, weights[layer, head, last])
        for query in range(5):
            browser.point_at(query)
            assert browser.shown()[0] == words[query]
            check(browser.shown(), words, weights[layer, head, query])
        last = 4
        browser.point_at(5 + 2)
        check(browser.shown(1), words[1:], other[layer, head, 2])
    text = browser.run("document.body.innerText")
    assert script.TRAINED in text and script.RANDOM not in text
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    boxes = [node["name"]["value"] for node in nodes if node["role"]["value"] == "combobox"]
    assert boxes == ["Layer", "Head"]


def test_one_head_is_not_offered_for_choice(browser, tmp_path):
    for heads, hidden in ((1, True), (2, False)):
        path, _ = write(tmp_path / f"{heads}.html", "Time flies", heads=heads)
        browser.open(path)
        assert browser.run("head.offsetParent === null") is hidden
        assert browser.run("layer.offsetParent === null")
        assert browser.run("head.length") == heads
