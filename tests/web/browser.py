"""A browser driven over chromedriver's WebDriver protocol, with nothing but the standard library."""
import base64
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

KEYS = {"Tab": "\ue004", "Enter": "\ue007", "Space": " ", "Right": "\ue014", "Left": "\ue012"}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Server:
    """A child process, its output in a file, ready once `pattern` shows up there; its first group is the port."""

    def __init__(self, folder, name, command, pattern, env=None):
        self.path = os.path.join(folder, name + ".log")
        with open(self.path, "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
        deadline = time.monotonic() + 60
        while not (found := re.search(pattern, self.log())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{name} did not start: {self.log()[-2000:]}")
            time.sleep(0.02)
        self.port = int(found.group(1))

    def log(self):
        with open(self.path, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self):
        """SIGTERM, and after ten seconds SIGKILL, to the process and what it started. Its exit status."""
        for number in signal.SIGTERM, signal.SIGKILL:
            try:
                os.killpg(self.process.pid, number)
            except ProcessLookupError:
                pass
            try:
                self.process.wait(10)
                break
            except subprocess.TimeoutExpired:
                continue
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self.process.returncode


class Browser:
    def __init__(self, width=1280, height=900):
        self.folder = tempfile.mkdtemp(prefix="vitd-web-")
        self.session = self.driver = None
        try:
            env = dict(os.environ, HOME=self.folder, XDG_CONFIG_HOME=self.folder, XDG_CACHE_HOME=self.folder)
            self.driver = Server(self.folder, "chromedriver", ["chromedriver", "--port=0"], r"started successfully on port (\d+)", env)
            arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                         "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
                         "--force-color-profile=srgb", f"--window-size={width},{height}", f"--user-data-dir={self.folder}/profile"]
            chrome = {"args": arguments, "binary": shutil.which("chromium"),
                      "prefs": {"download.default_directory": self.folder}}
            self.session = "/session/" + self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
                "browserName": "chrome", "goog:chromeOptions": chrome,
                "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}}})["sessionId"]
            self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
            self.media(scheme="light")
        except BaseException:
            self.close()
            raise

    def close(self):
        if self.session:
            try:
                self.call("DELETE", self.session)
            except OSError:
                pass
        if self.driver:
            self.driver.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.driver.port, timeout=120)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None)
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value['message']}")
        return value

    def cdp(self, command, **params):
        return self.call("POST", self.session + "/goog/cdp/execute", {"cmd": command, "params": params})

    def open(self, url):
        self.call("POST", self.session + "/url", {"url": url})

    def run(self, script, *arguments):
        """The value of a function body run in the page; a promise is waited for."""
        return self.call("POST", self.session + "/execute/sync", {"script": script, "args": arguments})

    def wait(self, expression, seconds=30):
        """Until the expression is true in the page; its value, or None when it never was."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(f"return {expression}")):
            if time.monotonic() > deadline:
                return None
            time.sleep(0.03)
        return value

    def element(self, selector):
        found = self.call("POST", self.session + "/element", {"using": "css selector", "value": selector})
        return f"{self.session}/element/{found[ELEMENT]}"

    def click(self, selector):
        self.run("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        self.call("POST", self.element(selector) + "/click", {})

    def type(self, selector, text):
        self.call("POST", self.element(selector) + "/value", {"text": text})

    def press(self, name):
        key = KEYS[name]
        self.call("POST", self.session + "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})

    def media(self, **features):
        names = {"scheme": "prefers-color-scheme", "motion": "prefers-reduced-motion"}
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": names[k], "value": v} for k, v in features.items()])

    def size(self, width, height, mobile=False, scale=1):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=mobile)

    def log(self, kind):
        """What was logged since the last call: "browser" (the console), "performance" (the network)."""
        return self.call("POST", self.session + "/se/log", {"type": kind})

    def requests(self):
        """The URLs asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def screenshot(self, path, whole_page=False):
        data = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole_page)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(data))
