"""What a page costs in a real Chromium without a network: bytes, CPU seconds until it is painted and quiet, CPU and wall milliseconds of a hover, DOM nodes.

CPU time is that of the main thread of the page's process (`Performance.getMetrics`, ThreadTime), which a busy machine disturbs little. Beside it stands the CPU time of the whole
browser. A page that has used its limit of CPU seconds is given up; the limit is watched from the browser process, because the page would not answer."""
import asyncio
import contextlib
import io
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from PIL import Image                                 # comes with mpld3, by way of matplotlib
from playwright.async_api import async_playwright

FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()
SIZE = dict(width=1400, height=1000)
LIMIT, GESTURES_LIMIT = 120, 30                          # CPU seconds of the page's process until it is painted, and for all its hovers (or other heads) together
PATIENCE = 1200                                       # wall seconds, for a page that waits and works on nothing
HOVERS, TRAILING = 40, .1                             # a hover's CPU includes what it leaves to be done in the next 0.1 s
PAINTED = "async () => { while (!(%s)) await new Promise(r => setTimeout(r, 20)); await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r))) }"
WAIT = """kind => { window.benchDone = new Promise(done => addEventListener(kind, e => requestAnimationFrame(() => {
  const c = new MessageChannel(); c.port1.onmessage = () => done(performance.now() - e.timeStamp); c.port2.postMessage(0) }), { once: true, capture: true })) }"""
HEADS = 8                                             # how many other heads are opened
BOX = "() => { const el = %s; el.scrollIntoView({ block: 'nearest' }); const r = el.getBoundingClientRect(); return [r.left, r.top, r.width, r.height] }"


class GivenUp(Exception): "The page has used up its limit."


def quantile(values, q: float) -> float: return sorted(values)[round(q * (len(values) - 1))]


class Tab:
    "One page in a Chromium of its own, and its costs."
    def __init__(self, browser, context, page): self.browser, self.context, self.page, self.asked, self.errors = browser, context, page, [], []

    @classmethod
    async def open(cls, playwright, served: dict):
        path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if not path: raise SystemExit("Chromium is not installed (Debian: apt-get install chromium fonts-dejavu-core).")
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        context = await browser.new_context(viewport=SIZE, offline=True)
        tab = cls(browser, context, await context.new_page()); tab.page.set_default_timeout(0)
        async def answer(route):
            tab.asked.append(url := route.request.url); copy = served.get(url.rsplit("/", 1)[-1])
            await (route.fulfill(path=copy, content_type="text/javascript", headers={"Access-Control-Allow-Origin": "*"}) if copy else route.abort())
        await tab.page.route(lambda url: not url.startswith(("file:", "data:", "blob:")), answer)
        tab.page.on("pageerror", lambda e: tab.errors.append(str(e)[:200])); tab.page.on("crash", lambda: tab.errors.append("the tab crashed"))
        await tab.page.goto("data:text/html,")                           # the first page pays for the process
        tab.watch = await browser.new_browser_cdp_session()
        return tab

    async def processes(self) -> dict:
        "CPU seconds of every process of the browser so far: {(type, id): seconds}."
        return {(p["type"], p["id"]): p["cpuTime"] for p in (await self.watch.send("SystemInfo.getProcessInfo"))["processInfo"]}

    async def within(self, job, limit: float):
        "The result of `job`, or GivenUp when a page's process has used `limit` CPU seconds since now."
        task, start, wall = asyncio.ensure_future(job), await self.processes(), time.monotonic()
        while not (await asyncio.wait([task], timeout=.5))[0]:
            used = max(s - start.get(p, 0) for p, s in (await self.processes()).items() if p[0] == "renderer")
            why = f"{limit:g} CPU s" if used > limit else "a crash" if "the tab crashed" in self.errors else f"{PATIENCE} s" if time.monotonic() - wall > PATIENCE else ""
            if why:
                task.cancel(); raise GivenUp(why)
        try: return task.result()
        except Exception as error: raise GivenUp("a crash" if "crash" in str(error).lower() else str(error).splitlines()[0][:120]) from error

    async def cpu(self) -> float: return next(m["value"] for m in (await self.session.send("Performance.getMetrics"))["metrics"] if m["name"] == "ThreadTime")

    async def start_counting(self):
        "From here on ThreadTime counts from zero; a new session, because a navigation starts it again."
        self.session = await self.context.new_cdp_session(self.page); await self.session.send("Performance.enable", dict(timeDomain="threadTicks"))

    async def quiet(self, step: float = .15, below: float = .004):
        "Main-thread CPU seconds once three readings in a row found (almost) nothing new, animations included."
        last, still = await self.cpu(), 0
        while still < 3:
            await asyncio.sleep(step); now = await self.cpu(); still, last = still + 1 if now - last < below else 0, now
        return last

    async def paint(self, path: Path, there: str) -> dict:
        "Open the page; CPU seconds of its main thread, and of the whole browser, until it is there and quiet."
        await self.start_counting(); before, wall = await self.processes(), time.monotonic()
        async def painted():
            await self.page.goto(path.as_uri(), wait_until="load"); await self.page.evaluate(PAINTED % there); at = time.monotonic() - wall
            return at, await self.cpu(), await self.quiet()
        at, first, settled = await self.within(painted(), LIMIT)
        browser = sum(s - before.get(p, 0) for p, s in (await self.processes()).items())
        return dict(paint_cpu_s=settled, painted_cpu_s=first, painted_wall_s=at, browser_cpu_s=browser)

    async def point(self, x: float, y: float, kind: str = "mousemove"):
        "Move the pointer, click or double-click there, as the system would report it."
        def send(type, **more): return self.session.send("Input.dispatchMouseEvent", dict(type=type, x=x, y=y, **more))
        await send("mouseMoved")
        for count in range(1, 1 + ["mousemove", "click", "dblclick"].index(kind)):
            for type in ("mousePressed", "mouseReleased"): await send(type, button="left", clickCount=count)

    async def gesture(self, x: float, y: float, kind: str = "mousemove", quiet: bool = False) -> tuple:
        "(CPU ms of the main thread, wall ms from the event to the end of its frame); CPU until the page is quiet, or with what follows in the next TRAILING seconds."
        await self.page.evaluate(WAIT, kind); before = await self.cpu()
        await self.point(x, y, kind)
        wall = await self.page.evaluate("window.benchDone"); await asyncio.sleep(TRAILING)
        return 1e3 * ((await self.quiet() if quiet else await self.cpu()) - before), wall

    async def hovers(self, over: str, part: str, seed: int = 0) -> list:
        "Hovers at random places of an element, as many as fit into the limit."
        left, top, wide, high = await self.page.evaluate(BOX % over); pick, places = random.Random(seed), []
        bottom = min(high, SIZE["height"] - max(top, 0) - 2)
        for _ in range(HOVERS + 2):
            down, across = pick.uniform(.02, .98) * bottom, pick.random()
            places.append((left + (.5 * wide if part == "column" else wide * (.01 + .98 * across * down / high)), max(top, 0) + down))
        done = await self.several(places)
        return done[2:] if len(done) > 4 else done                       # the first two warm up, where hovers are cheap enough

    async def several(self, places: list, **how) -> list:
        "One gesture at each place, until the limit is used up."
        done = []
        async def all_of_them():
            for x, y in places:
                done.append(await self.gesture(x, y, **how))
                if sum(cpu for cpu, _ in done) > 1e3 * GESTURES_LIMIT: return
        with contextlib.suppress(GivenUp): await self.within(all_of_them(), 4 * GESTURES_LIMIT)
        return done

    async def colours(self) -> int:
        "How many colours the page shows: a blank page has one."
        return len(set(pixels(await self.page.screenshot())))


def pixels(png: bytes) -> list:
    "Every 7th pixel of a picture, as 3 bytes."
    raw = Image.open(io.BytesIO(png)).convert("RGB").tobytes()
    return [raw[i:i + 3] for i in range(0, len(raw), 21)]


async def _measure(path: Path, contender) -> dict:
    served = contender.served()
    row = dict(html_bytes=path.stat().st_size, script_bytes=sum(p.stat().st_size for p in served.values()), limit_cpu_s=LIMIT)
    async with async_playwright() as playwright:
        tab = await Tab.open(playwright, served)
        try:
            row |= await tab.paint(path, contender.there)
            row["dom_nodes"] = await tab.page.evaluate("document.querySelectorAll('*').length"); row["colours"] = await tab.colours()
            row["hovers"] = await tab.hovers(contender.over, contender.part)
            await tab.page.evaluate("scrollTo(0, 0)"); places = await tab.page.evaluate(contender.heads)
            row["heads"] = await tab.several(places[1:1 + HEADS], kind=contender.by, quiet=True)
        except GivenUp as why: row["stopped"] = str(why)
        row |= dict(asked=len(tab.asked), page_errors=tab.errors, browser=tab.browser.version)
        await tab.browser.close()
    return row


def measure(html: str, contender) -> dict:
    "Costs of one page in a fresh Chromium: bytes, CPU seconds, hovers [(CPU ms, wall ms)], DOM nodes, how many requests it made, and why it was given up if it was."
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"; path.write_text(html, encoding="utf-8")
        return asyncio.run(_measure(path, contender))
