"""The page in a real browser, served by a real vitd. usage: test_page.py VITD [--screenshot FILE.png]"""
import argparse
import base64
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import urllib.parse

from browser import Browser, Server

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CAT = ROOT + "/config/samples/cat.jpg"
COFFEE = ROOT + "/config/samples/coffee.jpg"
MODEL = ROOT + "/config/models/vit-tiny-64"
GOLDEN = ROOT + "/tests/golden"
CLIP = os.environ.get("VITD_SHARED", ROOT + "/../shared") + "/golden/clip-hf"

# The pixels of a canvas, read off a copy.
READ = """const canvas = document.querySelector(arguments[0]), copy = new OffscreenCanvas(canvas.width, canvas.height);
const context = copy.getContext('2d', {willReadFrequently: true});
context.drawImage(canvas, 0, 0);
const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
"""
# Sums over the pixels of a canvas: equal only, for all that this test compares, when the pictures are.
PIXELS = READ + """let a = 1, b = 0;
for (const byte of data) { a = (a + byte) % 65521; b = (b + a) % 65521; }
return `${canvas.width}x${canvas.height} ${b} ${a}`;"""
# How much colour, from 0 (grey) to 255, the average pixel has.
COLOUR = READ + """let sum = 0;
for (let i = 0; i < data.length; i += 4)
  sum += Math.max(data[i], data[i + 1], data[i + 2]) - Math.min(data[i], data[i + 1], data[i + 2]);
return 4 * sum / data.length;"""
DROP = """const files = new DataTransfer();
for (const [name, type, content] of arguments[0]) files.items.add(new File([content], name, {type}));
const target = document.querySelector('#stage');
for (const name of ['dragover', 'drop'])
  target.dispatchEvent(new DragEvent(name, {dataTransfer: files, bubbles: true, cancelable: true}));"""
# A picture that the browser makes itself, pasted from the clipboard.
PASTE = """const canvas = document.createElement('canvas');
canvas.width = 300, canvas.height = 500;
canvas.getContext('2d').fillRect(50, 50, 200, 400);
return new Promise(done => canvas.toBlob(blob => {
  const files = new DataTransfer();
  files.items.add(new File([blob], 'drawing.webp', {type: blob.type}));
  window.dispatchEvent(new ClipboardEvent('paste', {clipboardData: files}));
  done(blob.type);
}, 'image/webp'));"""
# Noise, which no PNG makes smaller: above the server's limit of 16 MiB.
LARGE = """const canvas = new OffscreenCanvas(2600, 2300), context = canvas.getContext('2d');
const image = context.createImageData(canvas.width, canvas.height), words = new Uint32Array(image.data.buffer);
let seed = 1;
for (let i = 0; i < words.length; i++) words[i] = (seed = Math.imul(seed, 1664525) + 1013904223 >>> 0) >>> 8 | 0xff000000;
context.putImageData(image, 0, 0);
return canvas.convertToBlob().then(blob => {
  const files = new DataTransfer();
  files.items.add(new File([blob], 'large.png', {type: blob.type}));
  window.dispatchEvent(new DragEvent('drop', {dataTransfer: files}));
  return blob.size;
});"""
# The mean difference, of 255, between the page's picture and that of the command that the page gives for it.
COMPARE = READ + """const address = document.querySelector('#curl').textContent.match(/'(http[^']*)'/)[1];
return fetch(address, {method: 'POST', body: Uint8Array.from(atob(arguments[1]), letter => letter.charCodeAt(0))})
  .then(reply => reply.blob()).then(createImageBitmap).then(bitmap => {
    context.drawImage(bitmap, 0, 0, copy.width, copy.height);
    const other = context.getImageData(0, 0, copy.width, copy.height).data;
    return data.reduce((sum, value, i) => sum + Math.abs(value - other[i]), 0) / data.length;
  });"""
FETCHES = "return performance.getEntriesByType('resource').filter(e => e.name.includes('classify')).length"

failures = 0


def check(what, good, *details):
    global failures
    print(("ok      " if good else "not ok  ") + what + ("" if good else f"  {details}"), flush=True)
    failures += not good


class Page:
    """What a user of the page does and sees."""

    def __init__(self, browser):
        self.browser = browser

    def text(self, selector):
        return self.browser.run("return document.querySelector(arguments[0])?.textContent", selector)

    def pixels(self, selector="#picture"):
        return self.browser.run(PIXELS, selector)

    def caption(self, start):
        """Waits for the map whose caption starts so; whether it came."""
        return self.browser.wait(f"document.querySelector('#caption').textContent.startsWith({start!r})") is not None

    def slide(self, selector, value):
        self.browser.run("const [selector, value] = arguments, input = document.querySelector(selector);"
                         "input.value = value; input.dispatchEvent(new Event('input', {bubbles: true}));", selector, value)

    def focus(self):
        return self.browser.run("return document.activeElement.id || document.activeElement.tagName")

    def tab_to(self, condition, most=40):
        for _ in range(most):
            self.browser.press("Tab")
            if self.browser.run(f"return Boolean({condition})"):
                return True
        return False


def test_load(browser, page, url):
    browser.open(url)
    check("the page finds its models", browser.wait("document.querySelector('#model').options.length === 4"))
    check("the model's card is filled", browser.wait("document.querySelector('#facts').textContent.includes('12 layers')"))
    for plate in "filters", "positions":
        check(f"{plate} are shown", browser.wait(f"document.querySelector('#{plate} img')?.naturalWidth > 0"))
    check("nothing asks for a picture to be explained yet", page.browser.run("return document.querySelector('#side').hidden"))
    check("the drop zone is there", browser.run("return document.querySelector('#drop').offsetHeight > 200"))


def test_classify(browser, page):
    browser.type("#file", CAT)
    check("LeGrad of the top class comes first", page.caption("LeGrad for tabby"), page.text("#status"))
    check("the top class is tabby", page.text("#predictions .label") == "tabby", page.text("#predictions"))
    check("five classes are shown", browser.run("return document.querySelectorAll('#predictions li').length") == 5)
    check("the score is said", "tabby, 46 %" in page.text("#status"), page.text("#status"))
    check("the bars are as long as the scores", browser.run(
        "const [a, b] = [...document.querySelectorAll('#predictions .fill')].map(e => new DOMMatrix(e.style.transform).a);"
        "return Math.abs(a - 0.457) < 0.001 && Math.abs(b - 0.443) < 0.001"))
    check("the picture's alternative text names it and the map", "cat.jpg, with a heat map: LeGrad for tabby" in browser.run(
        "return document.querySelector('#picture').getAttribute('aria-label')"))


def test_methods(browser, page):
    seen = [page.pixels()]
    for method, caption in ("raw", "Attention of layer 11"), ("rollout", "Attention rollout"), ("legrad", "LeGrad for tabby"):
        browser.click(f"#method-{method}")
        check(f"{method} is shown", page.caption(caption), page.text("#caption"))
        check(f"{method} changes the heat map", page.pixels() != seen[-1])
        seen.append(page.pixels())
    check("LeGrad looks as it did before", seen[0] == seen[-1])
    check("every method has its own map", len(set(seen)) == 3)


def test_controls(browser, page):
    before, asked = page.pixels(), browser.run(FETCHES)
    page.slide("#opacity", 0)
    clear, colour = page.pixels(), browser.run(COLOUR, "#picture")
    page.slide("#opacity", 100)
    check("opacity 0 and 1 differ", page.pixels() != clear and browser.run(COLOUR, "#picture") > colour + 20, colour)
    page.slide("#opacity", 60)
    check("the same opacity gives the same picture", page.pixels() == before)
    browser.click("#colours input[value=turbo]")
    check("the colour map changes the picture", page.pixels() != before)
    browser.click("#colours input[value=viridis]")
    page.slide("#depth", 1)
    check("fewer layers change LeGrad's map", page.caption("LeGrad for tabby, last layer") and page.pixels() != before)
    page.slide("#depth", 12)
    browser.click("#method-raw")
    page.caption("Attention of layer 11, mean")
    maps = {page.pixels()}
    for layer in 0, 5:
        page.slide("#layer", layer)
        page.caption(f"Attention of layer {layer}")
        maps.add(page.pixels())
    check("layers have maps of their own", len(maps) == 3)
    check("nothing of this asked the server again", browser.run(FETCHES) == asked, asked, browser.run(FETCHES))


def test_heads(browser, page):
    page.slide("#gallery-layer", 11)
    page.caption("Attention of layer 11")
    check("the gallery has a canvas for each head", browser.wait("document.querySelectorAll('#heads canvas').length === 3"))
    check("the heads differ", len({page.pixels(f"#heads li:nth-child({i}) canvas") for i in (1, 2, 3)}) == 3)
    before = page.pixels()
    browser.click("#heads li:nth-child(2) button")
    check("a click on a head shows it", page.caption("Attention of layer 11, head 1") and page.pixels() != before)
    check("the choice of heads follows", browser.run("return document.querySelector('#head').value") == "1")


def test_targets(browser, page):
    browser.click("#predictions li:nth-child(1) button")
    page.caption("LeGrad for tabby")
    before = page.pixels()
    browser.click("#predictions li:nth-child(2) button")
    check("the second class has a map of its own", page.caption("LeGrad for Egyptian cat") and page.pixels() != before)
    browser.run("document.querySelector('#target').value = ''")
    browser.type("#target", "Goldfish")
    browser.press("Enter")
    check("any class can be typed", page.caption("LeGrad for goldfish"), page.text("#caption"))
    browser.run("document.querySelector('#target').value = ''")
    browser.type("#target", "zebra crossing guard")
    browser.press("Enter")
    check("a class that is not there is said", browser.wait("!document.querySelector('#target-problem').hidden") and
          "no class" in page.text("#target-problem"))
    browser.run("document.querySelector('#target').value = ''; document.querySelector('#target').dispatchEvent(new Event('change'))")
    check("no class means the top class again", page.caption("LeGrad for tabby"))


def test_haste(browser, page):
    """Choices that come faster than answers: the last one counts, whatever arrives when."""
    browser.click("#predictions li:nth-child(4) button")
    page.caption("LeGrad for " + page.text("#predictions li:nth-child(4) .label"))
    last = page.pixels()
    browser.click("#clear")
    browser.type("#file", CAT)
    page.caption("LeGrad for tabby")
    browser.run("for (const i of [1, 2, 1, 4, 3]) document.querySelectorAll('#predictions button')[i].click()")
    label = page.text("#predictions li:nth-child(4) .label")
    check("of many quick choices the last is shown", page.caption(f"LeGrad for {label}") and page.pixels() == last)
    browser.run("return new Promise(done => setTimeout(done, 600))")
    check("and stays", page.text("#caption").startswith(f"LeGrad for {label}") and page.pixels() == last)
    browser.click("#predictions li:nth-child(1) button")
    page.caption("LeGrad for tabby")


def test_taking_away(browser, page):
    browser.run("document.querySelector('#command').open = true")
    command = page.text("#curl")
    check("the command names the map", all(part in command for part in (
        "curl --data-binary '@cat.jpg'", "attention=legrad", "target=30", "colormap=viridis", "alpha=0.6")), command)
    with open(CAT, "rb") as file:
        difference = browser.run(COMPARE, "#picture", base64.b64encode(file.read()).decode())
    check("POST /explain draws what the page draws", difference < 2, difference)
    browser.click("#download")
    check("the map is saved", browser.wait("document.querySelector('#status').textContent.startsWith('Saved')"), page.text("#status"))
    browser.click("#measure")
    check("the attention distance is drawn", browser.wait("document.querySelector('#distance img')?.naturalWidth > 0"))


def test_model(browser, page):
    browser.run("const s = document.querySelector('#model'); s.value = 'second'; s.dispatchEvent(new Event('change'))")
    check("another model can be chosen", browser.wait("document.querySelector('#about-title').textContent === 'second'"))
    check("it answers for the same picture", page.caption("LeGrad for tabby"))
    browser.run("const s = document.querySelector('#model'); s.value = 'vit-tiny-64'; s.dispatchEvent(new Event('change'))")
    browser.wait("document.querySelector('#about-title').textContent === 'vit-tiny-64'")
    page.caption("LeGrad for tabby")


def choose_model(browser, name):
    browser.run(f"const s = document.querySelector('#model'); s.value = '{name}'; s.dispatchEvent(new Event('change'))")
    return browser.wait(f"document.querySelector('#about-title').textContent === '{name}'")


def test_architectures(browser, page):
    """Models whose layers differ, and one without attention."""
    choose_model(browser, "swin")
    check("a Swin shows its last layer", page.caption("Attention of layer 4, mean of 4 heads"))
    last = page.pixels()
    page.slide("#layer", 0)
    check("its first layer has fewer heads", page.caption("Attention of layer 0, mean of 2 heads"))
    check("and a map of its own", page.pixels() != last)
    check("the choice of heads goes with the layer", browser.wait("document.querySelector('#head').length === 3"))
    check("the gallery too", browser.wait("document.querySelectorAll('#heads canvas').length === 2"))
    check("its stages are told", "2 of width 16 on 32 × 32" in page.text("#facts"), page.text("#facts"))
    check("what is not defined is not offered", browser.run("return document.querySelector('#distance').closest('figure').hidden"))
    choose_model(browser, "resnet")
    check("a ResNet classifies", browser.wait("document.querySelectorAll('#predictions li').length === 5"))
    check("and offers no map", browser.wait("document.querySelector('#controls').hidden && document.querySelector('#gallery').hidden"))
    choose_model(browser, "vit-tiny-64")
    page.caption("LeGrad for tabby")


def test_live(browser, page):
    check("images served are counted", browser.wait("Number(document.querySelector('#live-images').textContent) >= 5"))
    check("latency is shown", browser.wait("parseFloat(document.querySelector('#live-p50').textContent) > 0"), page.text("#live"))
    check("p95 is not below p50", browser.run(
        "const [a, b] = ['p50', 'p95'].map(p => parseFloat(document.querySelector('#live-' + p).textContent)); return b >= a"))


def test_pictures(browser, page):
    before = page.pixels()
    browser.type("#file", COFFEE)
    check("a second picture is shown", page.caption("LeGrad for espresso") and page.pixels() != before)
    check("a strip offers both", browser.run("return document.querySelectorAll('#strip button').length") == 2)
    browser.click("#strip li:nth-child(1) button")
    check("the first can be chosen again", page.caption("LeGrad for tabby") and page.pixels() == before)
    check("a WebP is pasted", browser.run(PASTE) == "image/webp")
    check("it is converted, and the page says so", browser.wait(
        "document.querySelector('#status').textContent.includes('converted to PNG')"), page.text("#status"))


def test_keyboard(browser, page):
    browser.run("document.activeElement.blur(); scrollTo(0, 0)")
    browser.click("#strip li:nth-child(1) button")
    page.caption("LeGrad for tabby")
    before = page.pixels()
    check("Tab reaches the methods", page.tab_to("document.activeElement.closest('#methods')"), page.focus())
    check("the focus shows", browser.run(
        "return getComputedStyle(document.activeElement.closest('label')).outlineStyle") == "solid")
    browser.press("Right")
    check("an arrow key chooses the next method", page.caption("Attention rollout") and page.pixels() != before)
    check("Tab reaches the opacity", page.tab_to("document.activeElement.id === 'opacity'"), page.focus())
    before = page.pixels()
    browser.press("Left")
    check("an arrow key changes the opacity", page.pixels() != before and page.text("#opacity-value") == "59 %")
    check("Tab reaches the heads", page.tab_to("document.activeElement.closest('#heads')"), page.focus())
    browser.press("Enter")
    check("Enter chooses a head", page.caption("Attention of layer 11, head 0"))
    check("every control has a name", browser.run(
        "return [...document.querySelectorAll('input, select, button')].filter(e => !e.labels?.length && !e.ariaLabel && "
        "!e.textContent.trim()).map(e => e.outerHTML)") == [])


def test_looks(browser, page):
    light = browser.run("return getComputedStyle(document.body).backgroundColor")
    browser.media(scheme="dark")
    dark = browser.run("return getComputedStyle(document.body).backgroundColor")
    level = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (light, dark)]
    check("dark mode is dark, light mode light", level[1] < 120 < 650 < level[0], light, dark)
    browser.size(360, 740, mobile=True, scale=2)
    browser.wait("innerWidth <= 360 && document.querySelector('#picture').offsetWidth < 360", 5)
    check("a phone needs no sideways scrolling", browser.run(
        "return document.documentElement.scrollWidth <= 360 && innerWidth <= 360"), browser.run(
        "return [document.documentElement.scrollWidth, innerWidth, "
        "...[...document.body.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > 361).map(e => e.outerHTML.slice(0, 80))]"))
    check("nothing is cut off there", browser.run(
        "return [...document.querySelectorAll('button, label, dt, dd, select, p, h2, h3')].filter(e => e.offsetParent && "
        "!e.classList.contains('unseen') && e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== 'inline')"
        ".map(e => e.outerHTML.slice(0, 80))") == [])
    browser.media(scheme="light")
    browser.size(1280, 900)


def test_network(browser, page, url):
    origin = urllib.parse.urlsplit(url).netloc
    asked = [urllib.parse.urlsplit(address) for address in browser.requests()]
    away = {a.geturl() for a in asked if a.scheme in ("http", "https", "ws", "wss") and a.netloc != origin}
    check("the page asked something", len(asked) > 5)
    check("nothing goes to another server", not away, away)
    # a browser also writes down every reply that is an error: the WebP's 415 is expected
    messages = [entry for entry in browser.log("browser") if "415" not in entry["message"]]
    check("the console is silent, no rule of the Content-Security-Policy is broken", not messages, messages)


def test_large(browser, page):
    size = browser.run(LARGE)
    check("a picture above the server's limit is dropped", size > 16 << 20, size)
    check("it is reduced, and the page says so", browser.wait(
        "document.querySelector('#status').textContent.includes('too large for the server and reduced')"), page.text("#status"))


def test_errors(browser, page):
    browser.run(DROP, [["broken.jpg", "image/jpeg", "this is no picture"]])
    check("a broken file's error is said in the server's words", browser.wait(
        "document.querySelector('#status').textContent.includes('not a JPEG, PNG or BMP')"), page.text("#status"))
    check("it is said to be an error", browser.run("return document.querySelector('#status').className") == "error")
    check("no old map stays on the page", page.text("#caption") == "" and browser.run("return document.querySelector('#picture').hidden"))
    name = "<img src=x onerror=alert(1)>.jpg"
    browser.run(DROP, [[name, "image/jpeg", "neither is this"]])
    check("a file's name is text, not markup", browser.wait(
        f"document.querySelector('#status').textContent.startsWith({name!r})") and
        browser.run("return document.querySelectorAll('[src=x]').length") == 0)
    browser.click("#strip li:nth-child(1) button")
    check("the page goes on with the other pictures", browser.wait("document.querySelector('#caption').textContent !== ''"))
    browser.click("#clear")
    check("all can be cleared", browser.run("return document.querySelector('#drop').offsetHeight > 200") and
          page.focus() == "pick")


def test_server_gone(browser, page, daemon):
    status = daemon.stop()
    check("vitd ends well", status == 0, status, daemon.log()[-1000:])
    browser.type("#file", CAT)
    check("a server that is gone is said", browser.wait("document.querySelector('#status').textContent.includes('cannot be reached')"))
    check("the live figures are marked as old", browser.wait("document.querySelector('#live').classList.contains('stale')"))


def test_key(browser, page, folder, vitd):
    """A server that wants a key, and keeps its figures from this one."""
    key = "a-key-of-the-test"
    with open(folder + "/keys", "w", encoding="ascii") as file:
        file.write(f"infer {hashlib.sha256(key.encode()).hexdigest()} tester\n")
    with open(folder + "/vitd.json", "w", encoding="utf-8") as file:
        json.dump({"access": {"keys": "keys"}, "models": [{"name": "vit-tiny-64", "path": MODEL}]}, file)
    daemon = Server(folder, "keys", [vitd, "serve", "--port", "0", "--config", folder + "/vitd.json"],
                    r"listening on http://127\.0\.0\.1:(\d+)")
    try:
        browser.open(f"http://127.0.0.1:{daemon.port}/")
        check("a key is asked for", browser.wait("document.querySelector('#entrance').offsetHeight > 0"))
        check("it can be typed at once, and nobody reads along", page.focus() == "key" and
              browser.run("return document.querySelector('#key').type") == "password")
        browser.type("#key", "not-the-key")
        browser.press("Enter")
        check("a wrong one is said to be wrong", browser.wait(
            "document.querySelector('#key-problem').textContent.includes('does not know')"), page.text("#key-problem"))
        browser.type("#key", key)
        browser.press("Enter")
        check("with the right one the page goes on", browser.wait("document.querySelector('#facts').textContent.includes('12 layers')"))
        check("and asks no more", browser.run("return document.querySelector('#entrance').hidden"))
        for plate in "filters", "positions":
            check(f"{plate} are shown with a key", browser.wait(f"document.querySelector('#{plate} img')?.naturalWidth > 0"))
        check("figures that the key is not for are not shown", browser.wait("document.querySelector('#live').hidden"))
        browser.type("#file", CAT)
        check("pictures are classified with a key", page.caption("LeGrad for tabby"), page.text("#status"))
        command = page.text("#curl")
        check("the command takes a key, and does not show this one", '-H "Authorization: Bearer $KEY"' in command and
              key not in command, command)
        asked = daemon.log().count(" /metrics 403 ")
        browser.run("return new Promise(done => setTimeout(done, 2500))")
        check("what is refused is not asked for again", asked == daemon.log().count(" /metrics 403 ") == 1, daemon.log()[-2000:])
        browser.open(f"http://127.0.0.1:{daemon.port}/")
        check("the tab keeps the key", browser.wait("document.querySelector('#facts').textContent.includes('12 layers')") and
              browser.run("return document.querySelector('#entrance').hidden && sessionStorage.length === 1 && !localStorage.length"))
        check("the key is in no address", not any(key in address for address in browser.requests()))
    finally:
        status = daemon.stop()
    check("vitd with keys ends well", status == 0, status, daemon.log()[-1000:])


def test_words(browser, page, folder, vitd):
    """A model with a text tower: its classes are what is typed, and each has a map."""
    if not os.path.exists(CLIP):
        print(f"skipped: there is no {CLIP}")
        return
    daemon = Server(folder, "words", [vitd, "serve", "--port", "0", "--model", f"clip={CLIP}", "--model", MODEL],
                    r"listening on http://127\.0\.0\.1:(\d+)")

    def classify_by(words):
        browser.run("document.querySelector('#words').value = ''")
        browser.type("#words", words)
        browser.click("#reading button")

    try:
        browser.open(f"http://127.0.0.1:{daemon.port}/")
        check("a text tower is told, and words are asked for", browser.wait("document.querySelector('#reading').offsetHeight > 0") and
              "any words" in page.text("#facts") and "reads 77 tokens" in page.text("#facts"), page.text("#facts"))
        browser.type("#file", CAT)
        check("there are words to begin with", page.caption("LeGrad for a photo of"), page.text("#status"))
        classify_by("jump, dog\na frisbee over the water")
        check("the words are the classes", browser.wait("document.querySelectorAll('#predictions li').length === 3") and
              {"jump", "dog", "a frisbee over the water"} == set(browser.run(
                  "return [...document.querySelectorAll('#predictions .label')].map(e => e.textContent)")), page.text("#predictions"))
        check("the best one's map is shown", page.caption("LeGrad for " + page.text("#predictions .label")), page.text("#caption"))
        check("each word has a map", browser.wait("document.querySelectorAll('#maps canvas').length === 3"))
        check("no two are alike", len({page.pixels(f"#maps li:nth-child({i}) canvas") for i in (1, 2, 3)}) == 3)
        asked, seen = browser.run(FETCHES), set()
        for i, word in enumerate(("jump", "dog", "a frisbee over the water"), 1):
            browser.click(f"#maps li:nth-child({i}) button")
            check(f"a click shows the map of {word}", page.caption(f"LeGrad for {word}, all 3 layers"), page.text("#caption"))
            seen.add(page.pixels())
        check("which is its own, and was there already", len(seen) == 3 and browser.run(FETCHES) == asked)
        browser.run("document.querySelector('#command').open = true")
        command = page.text("#curl")
        check("the command names the words", "explain?model=clip&labels=jump%2Cdog%2Ca+frisbee+over+the+water&attention=legrad" in
              command and "target" not in command, command)
        browser.click("#method-raw")
        check("raw attention needs no word", page.caption("Attention of layer 2") and
              browser.run("return document.querySelector('#each').hidden"))
        browser.click("#method-legrad")
        page.caption("LeGrad for")
        classify_by(",".join(f"word {i}" for i in range(17)))
        check("of more words than there can be maps there are none", browser.wait("!document.querySelector('#method-legrad')") and
              page.caption("Attention"), page.text("#caption"))
        check("but classes", browser.wait("document.querySelectorAll('#predictions li').length === 16"))
        classify_by("dog")
        check("a single word has its map", browser.wait("document.querySelectorAll('#predictions li').length === 1") and
              browser.wait("document.querySelector('#method-legrad')"))
        browser.click("#method-legrad")
        check("under its name", page.caption("LeGrad for dog") and
              browser.wait("document.querySelectorAll('#maps canvas').length === 1"), page.text("#caption"))
        classify_by(" ,")
        check("without words the server says what to do", browser.wait(
            "document.querySelector('#status').textContent.includes('has no classes of its own')"), page.text("#status"))
        choose_model(browser, "vit-tiny-64")
        check("a model with classes of its own asks for none", page.caption("LeGrad for tabby") or page.caption("Attention"))
        check("and shows none", browser.run("return document.querySelector('#reading').hidden && document.querySelector('#each').hidden"))
    finally:
        status = daemon.stop()
    check("vitd with words ends well", status == 0, status, daemon.log()[-1000:])


def take_screenshot(browser, page, url, path):
    browser.open(url)
    browser.wait("document.querySelector('#positions img')?.naturalWidth > 0")
    browser.type("#file", CAT)
    page.caption("LeGrad for tabby")
    browser.wait("document.querySelectorAll('#heads canvas').length === 3")
    # as high as the picture, its classes and its heads
    browser.size(1280, browser.run("return Math.round(document.querySelector('#work').getBoundingClientRect().bottom + 20)"))
    browser.run("return new Promise(done => setTimeout(done, 700))")
    browser.screenshot(path)
    browser.size(1280, 900)


def main():
    options = argparse.ArgumentParser()
    options.add_argument("vitd")
    options.add_argument("--screenshot", metavar="FILE.png")
    options = options.parse_args()
    folder = tempfile.mkdtemp(prefix="vitd-web-")
    daemon = browser = None
    try:
        daemon = Server(folder, "vitd", [os.path.abspath(options.vitd), "serve", "--port", "0", "--model", MODEL,
                                         "--model", "second=" + MODEL, "--model", f"swin={GOLDEN}/swin-hf",
                                         "--model", f"resnet={GOLDEN}/resnetv2-timm"], r"listening on http://127\.0\.0\.1:(\d+)")
        url = f"http://127.0.0.1:{daemon.port}/"
        browser = Browser()
        page = Page(browser)
        if options.screenshot:
            take_screenshot(browser, page, url, options.screenshot)
        test_load(browser, page, url)
        for test in (test_classify, test_methods, test_controls, test_heads, test_targets, test_haste, test_taking_away, test_model,
                     test_architectures, test_live, test_pictures, test_keyboard, test_looks):
            test(browser, page)
        test_network(browser, page, url)
        test_large(browser, page)
        test_errors(browser, page)
        test_server_gone(browser, page, daemon)
        test_key(browser, page, folder, os.path.abspath(options.vitd))
        test_words(browser, page, folder, os.path.abspath(options.vitd))
    finally:
        if browser:
            browser.close()
        if daemon:
            daemon.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"the page: {failures} failed" if failures else "the page: all good")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
