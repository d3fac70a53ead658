"""Uses the page as a person would, through the WebDriver protocol (W3C), and looks at what it shows.

usage: page.py URL-OF-VITD URL-OF-CHROMEDRIVER FOLDER [SCREENSHOT.png]
"""
import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request

PAGE, DRIVER, FOLDER = sys.argv[1:4]
SCREENSHOT = sys.argv[4] if len(sys.argv) > 4 else ""
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
TAB, RIGHT = "\ue004", "\ue014"
failures = 0


class Browser:
    def __init__(self):
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu",
                     "--window-size=1280,1000", "--user-data-dir=" + os.path.join(FOLDER, "profile")]
        answer = self.send("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}}, session=False)
        self.session = "/session/" + answer["sessionId"]

    def send(self, method, path, body=None, session=True):
        request = urllib.request.Request(DRIVER + (self.session if session else "") + path, method=method,
                                         data=json.dumps(body or {}).encode() if method == "POST" else None,
                                         headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(path + ": " + error.read().decode()[:600]) from error

    def open(self, url):
        self.send("POST", "/url", {"url": url})

    def script(self, text, *arguments):
        return self.send("POST", "/execute/sync", {"script": text, "args": list(arguments)})

    def find(self, selector):
        return "/element/" + self.send("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        self.send("POST", self.find(selector) + "/click")

    def type(self, selector, text):
        self.send("POST", self.find(selector) + "/value", {"text": text})

    def keys(self, *keys):
        actions = []
        for key in keys:
            actions += [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        self.send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def devtools(self, command, **parameters):
        return self.send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def log(self, kind):
        return self.send("POST", "/se/log", {"type": kind})

    def screenshot(self, path):
        with open(path, "wb") as file:
            file.write(base64.b64decode(self.send("GET", "/screenshot")))

    def quit(self):
        self.send("DELETE", "")


def check(what, good, detail=""):
    global failures
    failures += not good
    print(("ok      " if good else "NOT OK  ") + what + ("" if good else ": " + str(detail)), flush=True)


def wait(what, condition, seconds=20):
    """Checks that the condition comes true; returns its value."""
    end = time.monotonic() + seconds
    value = condition()
    while not value and time.monotonic() < end:
        time.sleep(0.05)
        value = condition()
    check(what, value, "not within %d s; status: %r" % (seconds, text("#status")))
    return value


def text(selector):
    return browser.script("const e = document.querySelector(arguments[0]); return e ? e.innerText.trim() : ''", selector)


def visible(selector):
    return browser.script("const e = document.querySelector(arguments[0]);"
                          "return Boolean(e && e.getClientRects().length)", selector)


def pixels():
    """A number for what the big picture shows; 0 when it shows nothing."""
    return browser.script("""
        const c = document.getElementById('picture');
        if (!c.getClientRects().length || !c.width) return 0;
        const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        let hash = 7;
        for (let i = 0; i < data.length; i++) hash = (hash * 31 + data[i]) | 0;
        return hash || 1""")


def settled():
    """The picture's number once it no longer changes."""
    before = pixels()
    while True:
        time.sleep(0.3)
        now = pixels()
        if now == before:
            return now
        before = now


def choose_method(name):
    browser.script("document.querySelector('#methods input[value=' + arguments[0] + ']').click()", name)


def set_range(selector, value):
    browser.script("const e = document.querySelector(arguments[0]); e.value = arguments[1];"
                   "e.dispatchEvent(new Event('input', {bubbles: true}));"
                   "e.dispatchEvent(new Event('change', {bubbles: true}))", selector, value)


def no_sideways_scroll():
    return browser.script("return document.documentElement.scrollWidth <= window.innerWidth")


def upload(*paths):
    browser.type("#file", "\n".join(os.path.abspath(path) for path in paths))


def classify():
    check("an empty page invites a picture", visible("#drop") and not visible("#picture"))
    upload("config/samples/cat.jpg")
    wait("the top class is tabby", lambda: "tabby" in text("#predictions li:first-child").lower())
    check("five classes are shown", browser.script("return document.querySelectorAll('#predictions li').length") == 5)
    wait("there is a picture with a heatmap", pixels)


def methods():
    seen = {"legrad": settled()}
    for method in ("raw", "rollout", "legrad"):
        choose_method(method)
        if method == "legrad":
            wait("legrad again is what it was", lambda: pixels() == seen["legrad"])
        else:
            wait(method + " changes the heatmap", lambda: pixels() not in (0, *seen.values()))
            seen[method] = settled()


def controls():
    choose_method("legrad")
    here = settled()
    set_range("#opacity", 0)
    wait("opacity 0 shows another picture than before", lambda: pixels() not in (0, here))
    set_range("#opacity", 60)
    wait("opacity 60 brings it back", lambda: pixels() == here)
    browser.script("document.querySelector('#colours input[value=turbo]').click()")
    wait("turbo changes the colours", lambda: pixels() not in (0, here))
    browser.script("document.querySelector('#colours input[value=viridis]').click()")
    wait("viridis brings them back", lambda: pixels() == here)
    browser.click("#predictions li:nth-child(3) button")
    wait("the third class has a map of its own", lambda: pixels() not in (0, here))
    browser.click("#predictions li:nth-child(1) button")
    wait("the first class has its own again", lambda: pixels() == here)
    choose_method("raw")
    mean = settled()
    browser.script("const e = document.getElementById('head'); e.value = '1';"
                   "e.dispatchEvent(new Event('change', {bubbles: true}))")
    wait("one head looks elsewhere than the mean", lambda: pixels() not in (0, mean))
    one = settled()
    set_range("#layer", 2)
    wait("another layer looks elsewhere", lambda: pixels() not in (0, one))
    check("the gallery has a picture for each head",
          browser.script("return document.querySelectorAll('#heads canvas').length") == 3)


def keyboard():
    choose_method("legrad")
    here = settled()
    browser.script("document.activeElement.blur(); document.querySelector('#predictions button').focus()")
    for _ in range(30):
        if browser.script("return Boolean(document.activeElement.closest('#methods'))"):
            break
        browser.keys(TAB)
    check("the methods can be reached by Tab", browser.script("return Boolean(document.activeElement.closest('#methods'))"))
    browser.keys(RIGHT)
    wait("an arrow key changes the method and the map", lambda: pixels() not in (0, here))


def inside():
    choose_method("legrad")
    wait("filters and positions are shown", lambda: browser.script(
        "return ['filters', 'positions'].every(id => { const i = document.querySelector('#' + id + ' img');"
        "return i && i.complete && i.naturalWidth > 100 })"))
    browser.click("#measure")
    wait("attention distances are plotted",
         lambda: browser.script("const i = document.querySelector('#distance img'); return i && i.naturalWidth > 100"))
    wait("live figures come from the daemon", lambda: text("#live-images").strip(" –") not in ("", "0"))


def errors():
    broken = os.path.join(FOLDER, "broken.jpg")
    with open(broken, "wb") as file:
        file.write(b"\xff\xd8\xff\xe0 this is no picture")
    upload(broken)
    wait("a broken file is explained in words", lambda: "JPEG" in text("#status") or "decode" in text("#status").lower())
    browser.click("#clear")
    wait("start over empties the page", lambda: visible("#drop"))


def sizes_and_colours():
    upload("config/samples/cat.jpg", "config/samples/coffee.jpg")
    wait("two pictures make a strip of two",
         lambda: browser.script("return document.querySelectorAll('#strip li').length") == 2)
    wait("a picture of the strip is shown", pixels)
    check("nothing sticks out sideways at 1280 pixels", no_sideways_scroll())
    browser.devtools("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    time.sleep(0.3)
    check("nothing sticks out sideways at 360 pixels", no_sideways_scroll())
    browser.devtools("Emulation.clearDeviceMetricsOverride")
    background = "return getComputedStyle(document.body).backgroundColor"
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    light = browser.script(background)
    browser.devtools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    check("dark mode is dark", browser.script(background) != light)
    browser.devtools("Emulation.setEmulatedMedia", features=[])


def quiet():
    """What the browser itself complained of, and whom the page talked to."""
    expected = ("415", "422", "willReadFrequently")  # the broken picture, and this test's reading of the canvas
    bad = [entry["message"] for entry in browser.log("browser")
           if entry["level"] in ("SEVERE", "WARNING") and not any(code in entry["message"] for code in expected)]
    check("no errors and no violations of the content security policy in the console", not bad, bad)
    urls = [json.loads(entry["message"])["message"] for entry in browser.log("performance")]
    urls = [m["params"]["request"]["url"] for m in urls if m["method"] == "Network.requestWillBeSent"]
    urls = [url for url in urls if not url.startswith("chrome://")]  # the browser's own first tab
    foreign = [url for url in urls if not url.startswith((PAGE, "blob:" + PAGE, "data:"))]
    check("all %d requests went to the daemon" % len(urls), urls and not foreign, foreign)


browser = Browser()
try:
    browser.open(PAGE)
    for step in (classify, methods, controls, keyboard, inside, errors, sizes_and_colours, quiet):
        step()
    if SCREENSHOT:
        browser.open(PAGE)
        upload("config/samples/cat.jpg")
        wait("there is something to take a picture of", pixels)
        settled()
        browser.screenshot(SCREENSHOT)
finally:
    browser.quit()
print("web: all well" if failures == 0 else "web: %d checks failed" % failures)
sys.exit(failures != 0)
