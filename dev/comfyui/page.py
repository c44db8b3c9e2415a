"""ComfyUI's real page in a real Chromium, as an artist meets it.

    with Server() as server, Page(server) as page:
        page.load_workflow(json.loads(file.read_text()))
        entry = page.run()

While a page is open, playwright's event loop runs in this thread: asyncio.run() is refused until it is closed.
Every object comes out of the page as a JSON string: playwright turns an undefined into a null, which the page
itself then refuses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Error, Playwright, Response, sync_playwright
from playwright.sync_api import Page as Tab

from pack.dev.comfyui.server import Server, checked
from pack.dev.setup.environment import SetupError, chromium_path

READY = """() => window.app?.extensionManager && window.app.graph
    && Object.keys(LiteGraph.registered_node_types).length > 100"""
RUN_COUNT = ".batch-count input"
SETTLED = 1500  # milliseconds after the page is ready in which its extensions and its own start graph come in
# What a first visit would otherwise lay over the graph.
FIRST_VISIT = {
    "Comfy.TutorialCompleted": True,
    "Comfy.UseNewMenu": "Top",
    "Comfy.Notification.ShowVersionUpdates": False,
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Validation.Workflows": True,
}
# Errors without any pack: files that a fresh ComfyUI does not have, the network, the page's own.
EXPECTED_ERRORS = (
    "Failed to load resource",  # a pack's own missing files are noted from the answers instead
    "net::ERR_FAILED",
    "Error loading core workflow templates",
    'Content Security Policy directive: "connect-src',
    "reading 'id')\n    at onChange",  # of the page that ComfyUI 0.3.75 brings, without any pack
    "graph accessed before initialization",  # of later ones
    "Failed to fetch jobs: 404",  # later ones ask for a list of jobs, which ComfyUI has since 0.6
)


class PageError(RuntimeError):
    """The page did not do what was asked; with what it showed instead."""


class _Chromium:
    """The one playwright that a thread may have and its browser, shared by all open pages: started and stopped with
    need. Pages share no cookies, storage or cache of files, but what the browser has compiled: half of an opening."""

    users = 0
    playwright: Playwright | None = None
    browser: Browser | None = None

    @classmethod
    def take(cls) -> Browser:
        if cls.playwright is None:
            cls.playwright = sync_playwright().start()
        cls.users += 1
        if cls.browser is None or not cls.browser.is_connected():
            cls.browser = cls.playwright.chromium.launch(
                executable_path=str(_program()),
                # No sandbox: it needs rights that root in a container has not. No /dev/shm: it may be tiny there.
                args=["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"],
            )
        return cls.browser

    @classmethod
    def give_back(cls) -> None:
        cls.users -= 1
        if cls.users == 0:
            try:
                if cls.browser:
                    cls.browser.close()
            finally:
                cls.playwright.stop()
                cls.playwright = cls.browser = None


def _program() -> Path:
    program = chromium_path()
    if program is None:
        raise SetupError("There is no Chromium: run `python3 dev/setup/environment.py --browser`.")
    return program


@contextmanager
def kept_browser():
    """The browser stays between pages that are opened one after another in this block."""
    with ExitStack() as stack:
        stack.callback(_Chromium.give_back)
        _Chromium.take()
        yield


class Page:
    """One tab with the page of a running server.

    nodes_2: whether nodes are drawn as the page's new ones ("Nodes 2.0") or on the classic canvas; None
        leaves the page's own choice
    settings: further settings of the page
    baseline: console errors to leave out of `errors()`; those of a page without the pack, say
    """

    def __init__(
        self,
        server: Server,
        *,
        nodes_2: bool | None = None,
        settings: dict | None = None,
        baseline: list[str] | tuple[str, ...] = (),
        size: tuple[int, int] = (1600, 1000),
    ):
        self.server = server
        self._settings = FIRST_VISIT | (settings or {})
        if nodes_2 is not None:
            self._settings["Comfy.VueNodes.Enabled"] = nodes_2
        self._baseline = {_first_line(error) for error in baseline}
        self._size = {"width": size[0], "height": size[1]}
        self._errors: list[str] = []
        self._context: BrowserContext | None = None
        self.tab: Tab | None = None  # playwright's page, for what this class has no method for

    def __enter__(self) -> Page:
        self.server.post_settings(self._settings)
        try:
            browser = _Chromium.take()
            self._context = context = browser.new_context(viewport=self._size, service_workers="block", locale="en-US")
            self._close_network(context)
            context.add_init_script("localStorage.setItem('vueNodesBannerDismissed', 'true')")
            self.tab = context.new_page()
            self.tab.on("console", lambda m: self._errors.append(m.text) if m.type == "error" else None)
            self.tab.on("response", self._note_missing)
            self.tab.on("pageerror", lambda error: self._errors.append(f"{error.name}: {error.message}"))
            self.reload()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error) -> None:
        try:
            if self._context:
                self._context.close()
        finally:
            _Chromium.give_back()

    def reload(self) -> None:
        """Open the page anew, for example after a restart of the server. Raises PageError."""
        try:
            self.tab.goto(self.server.url, wait_until="domcontentloaded")
            self.tab.wait_for_function(READY, timeout=120_000)
        except Error as error:
            lines = "\n".join(self._errors[-5:])
            raise PageError(f"ComfyUI's page was not ready within two minutes: {error.message}\n{lines}") from error
        self.tab.wait_for_timeout(SETTLED)

    def errors(self) -> list[str]:
        """The errors on the console and uncaught ones so far, less the expected ones and the baseline's."""
        return [
            error
            for error in self._errors
            if not any(expected in error for expected in EXPECTED_ERRORS) and _first_line(error) not in self._baseline
        ]

    def load_workflow(self, workflow: dict, name: str = "workflow", drawn: int = 500) -> None:
        """Open a workflow as the page saves them (or a prompt in API form) and wait until it is drawn.

        drawn: milliseconds that drawing is given; what is only read from the graph needs none.
        """
        method = "loadGraphData(data, true, true, name)" if "nodes" in workflow else "loadApiJson(data, name)"
        script = f"async ([text, name]) => {{ const data = JSON.parse(text); await app.{method}; }}"
        self.tab.evaluate(script, [json.dumps(workflow), name])
        self.tab.wait_for_timeout(drawn)

    def saved_workflow(self) -> dict:
        """The graph as the page would save it."""
        return json.loads(self.tab.evaluate("() => JSON.stringify(app.graph.serialize())"))

    def api_prompt(self) -> dict:
        """The prompt in API form that the page would queue now."""
        script = "async () => JSON.stringify((await app.graphToPrompt()).output)"
        return json.loads(self.tab.evaluate(script))

    def unknown_nodes(self) -> list[str]:
        """The types of the nodes in the graph that the page does not know: they show as red boxes."""
        script = """() => app.graph.nodes.map(n => n.type).filter(t => !LiteGraph.registered_node_types[t])"""
        return self.tab.evaluate(script)

    def press_run(self) -> None:
        """Click the Run button once."""
        self.tab.get_by_test_id("queue-button").first.click()

    def run(self, timeout: float = 300) -> dict:
        """Click Run, wait for that run to end, and return its history entry.

        Raises PageError when nothing is queued, else what Server.wait() raises.
        """
        before = set(self.server.get("/history"))
        self.press_run()
        end = time.monotonic() + timeout
        idle = 0
        while time.monotonic() < end:
            self.tab.wait_for_timeout(200)  # lets the page's own events through, which a sleep would not
            history = self.server.get("/history")
            new = [entry for prompt_id, entry in history.items() if prompt_id not in before]
            if new:
                self.tab.wait_for_timeout(500)  # until the page has shown the result
                return checked(new[-1])
            queue = self.server.get("/queue")
            idle = 0 if queue["queue_running"] or queue["queue_pending"] else idle + 1
            if idle > 50:
                shown = "; ".join(self.toasts() + self.dialogs()) or "no message"
                raise PageError(f"The page queued nothing when Run was pressed; it shows: {shown}")
        raise PageError(f"The run was not done within {timeout:.0f} s.")

    def set_run_count(self, count: int) -> None:
        """Type a number into the field beside Run."""
        field = self.tab.locator(RUN_COUNT).first
        field.click()
        field.press("ControlOrMeta+a")
        field.press_sequentially(str(count))
        field.press("Tab")

    def wait_until(self, true: Callable[[], bool], timeout: float = 120) -> None:
        """Wait while the page works. Raises PageError when it takes longer than `timeout` seconds."""
        end = time.monotonic() + timeout
        while not true():
            if time.monotonic() > end:
                raise PageError(f"What was waited for did not come within {timeout:.0f} s.")
            self.tab.wait_for_timeout(200)

    def blueprints(self) -> list[tuple[str, str]]:
        """(name, pack) of the subgraph blueprints in the node library."""
        script = """() => {
            const stores = document.querySelector("#vue-app").__vue_app__.config.globalProperties.$pinia._s;
            return stores.get("subgraph").subgraphBlueprints.map(one => [one.display_name, one.python_module]);
        }"""
        return [tuple(one) for one in self.tab.evaluate(script)]

    def search_node(self, name: str) -> None:
        """Double-click the empty middle of the canvas, type a name and take the first node that is found."""
        typing = "() => document.activeElement?.tagName === 'INPUT'"
        for _ in range(5):  # a page that is still at work may miss a click
            self.tab.mouse.dblclick(self._size["width"] / 2, self._size["height"] / 2)
            self.tab.wait_for_timeout(1000)
            if self.tab.evaluate(typing):
                break
        else:
            raise PageError("The search for nodes did not open.")
        self.tab.keyboard.type(name)
        self.tab.wait_for_timeout(1000)
        nodes = "() => app.graph.nodes.length"
        before = self.tab.evaluate(nodes)
        self.tab.keyboard.press("Enter")
        self.wait_until(lambda: self.tab.evaluate(nodes) > before)
        self.tab.wait_for_timeout(500)

    def templates(self, pack: str) -> dict[str, int]:
        """Open the template browser at a pack: its cards, and how many pixels wide each one's picture is."""
        self.tab.evaluate("() => app.extensionManager.command.execute('Comfy.BrowseTemplates')")
        dialog = self.tab.locator('[role="dialog"]:visible')
        dialog.get_by_text(pack, exact=True).first.click()
        self.tab.wait_for_timeout(2500)
        script = """pictures => pictures.map(picture => {
            let card = picture;
            while (!card.innerText?.trim()) card = card.parentElement;
            return [card.innerText.trim().split("\\n")[0], picture.naturalWidth];
        })"""
        pictures, cards = dialog.locator("img"), {}
        for _ in range(5):  # more come at the end of those there are; a picture out of sight may be taken away
            cards |= dict(pictures.evaluate_all(script))
            pictures.last.hover()
            self.tab.mouse.wheel(0, 400)
            self.tab.wait_for_timeout(700)
        return cards

    def toasts(self) -> list[str]:
        """The texts of the messages in the corner."""
        return [text.strip() for text in self.tab.locator(".p-toast-message").all_inner_texts()]

    def dialogs(self) -> list[str]:
        """The texts of the dialogs that are open."""
        return [text.strip() for text in self.tab.locator('[role="dialog"]:visible').all_inner_texts()]

    def video_state(self, timeout: float = 10) -> list[dict]:
        """Every <video> on the page: src, readyState, videoWidth, videoHeight, duration (s), error.

        Waits up to `timeout` seconds for all of them to be playable (readyState 4).
        """
        script = """() => [...document.querySelectorAll("video")].map(v => ({
            src: v.currentSrc || v.querySelector("source")?.src || "", readyState: v.readyState,
            videoWidth: v.videoWidth, videoHeight: v.videoHeight,
            duration: Number.isFinite(v.duration) ? v.duration : null, error: v.error?.message ?? null}))"""
        end = time.monotonic() + timeout
        while True:
            videos = self.tab.evaluate(script)
            if (videos and all(video["readyState"] == 4 for video in videos)) or time.monotonic() > end:
                return videos
            self.tab.wait_for_timeout(200)

    def fit_view(self) -> None:
        """Show the whole graph, as the "." key does."""
        self.tab.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.tab.wait_for_timeout(800)

    def screenshot(self, path: Path) -> Path:
        """Write what is shown to a PNG file and return its path."""
        self.tab.screenshot(path=str(path))
        return Path(path)

    def _note_missing(self, response: Response) -> None:
        """Note what a pack's scripts asked for and did not get; ComfyUI's own gaps on a first visit are usual."""
        if response.status >= 400 and "/extensions/" in response.url:
            self._errors.append(f"{response.status} {response.url.removeprefix(self.server.url)}")

    def _close_network(self, context: BrowserContext) -> None:
        """Refuse whatever is not this machine's: the page asks for news and for its registry of packs."""
        own = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
        context.route(lambda url: not url.startswith(own), lambda route: route.abort())


def convert(workflow: dict, server: Server) -> dict:
    """The prompt in API form that the page itself makes of a saved workflow.

    `workflow.to_prompt()` does the same without a browser; this is what it is compared with.
    """
    with Page(server) as page:
        page.load_workflow(workflow)
        return page.api_prompt()


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else ""
