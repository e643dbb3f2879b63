"""What the tests stand on: notebooks written on the fly, the real command line, a real Chromium, a real JupyterLab."""
import os, re, shutil, signal, socket, subprocess, sys, time, urllib.request
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[1]
WORKBENCH = (str(Path(sys.executable).parent/"workbench"),)  # the installed command
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync".split()
LAB = ("--no-browser --allow-root --port-retries=0 --IdentityProvider.token= --LabApp.expose_app_in_browser=True "
       "--LabApp.news_url=None --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate").split()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)   # a shell starts what it leaves in the background so, and the children of a test would never hear Ctrl-C
JUPYTER_DIRS = "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR"
RUN_ALL = """async () => {
  const app = window.jupyterapp; await app.restored;
  const panel = app.shell.currentWidget; await panel.context.ready; await panel.sessionContext.ready;
  return await app.commands.execute('notebook:run-all-cells');
}"""


# --- reports ----------------------------------------------------------------------------------------------------------
def notebook(*cells):
    "A notebook from texts (markdown where they start like a heading, else code) and `(code, tag)` pairs."
    made = []
    for cell in cells:
        source, tags = (cell, []) if isinstance(cell, str) else (cell[0], [cell[1]])
        made.append(new_markdown_cell(source) if re.match("#+ ", source) else new_code_cell(source, metadata={"tags": tags} if tags else {}))
    return new_notebook(cells=made, metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "python3"}})


@pytest.fixture
def write_report(tmp_path):
    "Write a report into the test's folder: `write_report(params, *cells, result=...)` -> its path."
    def write(params, *cells, result="{'n': 1}", name="small", title="# Small\n\n> A small report"):
        path = tmp_path/f"{name}.ipynb"
        nbformat.write(notebook(title, (params, "parameters"), *cells, (result, "result")), path)
        return path
    return write


@pytest.fixture
def cli(tmp_path):
    "Run `workbench` in a process of its own, in the test's folder."
    def run(*words, timeout=240, **env):
        return subprocess.run([*WORKBENCH, *map(str, words)], cwd=tmp_path,
                              capture_output=True, text=True, timeout=timeout, env=os.environ | env)
    return run


# --- Chromium ---------------------------------------------------------------------------------------------------------
def chromium() -> str:
    "The browser; without one a newcomer's tests skip, but continuous integration fails."
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found: return found
    reason = "Chromium is not installed (Debian: apt-get install chromium fonts-dejavu-core), so browser tests cannot run"
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    path = chromium()
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        b = p.chromium.launch(executable_path=path, args=FLAGS)
        yield b
        b.close()


LOCAL = "http://127.0.0.1", "ws://127.0.0.1", "data:", "blob:", "file:"


def new_page(browser, **context):
    "A page that notes its errors and every request that leaves the machine, and blocks those."
    ctx = browser.new_context(**{"viewport": {"width": 1400, "height": 1000}, **context})
    page = ctx.new_page()
    page.errors, page.outside = [], []
    page.on("pageerror", lambda e: page.errors.append(str(e)))
    page.on("request", lambda r: None if r.url.startswith(LOCAL) else page.outside.append(r.url))
    page.route(lambda url: not url.startswith(LOCAL), lambda route: route.abort())
    return page


def until(page, said, arg=None, timeout=60):
    "Wait until a JavaScript function answers true. Asked from outside: a page that forbids eval cannot poll itself."
    end = time.monotonic() + timeout
    while not page.evaluate(said, arg):
        assert time.monotonic() < end, f"never true: {said}"
        page.wait_for_timeout(50)


@pytest.fixture
def page(browser):
    page = new_page(browser)
    yield page
    page.context.close()


@pytest.fixture
def offline_page(browser):
    "A page whose browser believes that there is no network at all."
    page = new_page(browser, offline=True)
    yield page
    page.context.close()


# --- JupyterLab -------------------------------------------------------------------------------------------------------
def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Lab:
    "One JupyterLab server over a folder; `open` shows a notebook of it and runs its cells."
    def __init__(self, root: Path):
        self.root, self.page, port = root, None, free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.env = env = os.environ | {k: str(root/".jupyter"/k) for k in JUPYTER_DIRS}
        self.log = open(root/"lab.log", "w")
        self.process = subprocess.Popen([sys.executable, "-m", "jupyterlab", f"--port={port}", f"--ServerApp.root_dir={root}", *LAB],
                                        env=env, cwd=root, stdout=self.log, stderr=self.log)
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"{self.url}/api/status", timeout=1)
                return
            except OSError: time.sleep(.1)
        raise TimeoutError((root/"lab.log").read_text())

    def stop(self):
        self.process.terminate()
        try: self.process.wait(60)
        except subprocess.TimeoutExpired: self.process.kill()
        self.log.close()

    def open(self, name: str, run: bool = True):
        self.page.goto(f"{self.url}/lab/tree/{name}?reset", timeout=120_000)
        self.page.wait_for_function("() => window.jupyterapp?.shell.currentWidget?.content?.widgets?.length", timeout=120_000)
        if run: assert self.page.evaluate(RUN_ALL), "a cell failed"
        return self.page


@pytest.fixture(scope="session")
def lab_server(browser, tmp_path_factory):
    lab = Lab(tmp_path_factory.mktemp("lab"))
    yield lab
    lab.stop()


@pytest.fixture
def lab(lab_server, page):
    lab_server.page = page
    return lab_server
