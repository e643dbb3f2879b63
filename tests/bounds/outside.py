"""What a user does with an installed package, in a folder that is no clone: `python outside.py CLONE`, where nothing of CLONE may be imported."""
import json, subprocess, sys
from pathlib import Path


def workbench_says(*words):
    "The JSON document of a command."
    done = subprocess.run([str(Path(sys.executable).parent/"workbench"), *words, "--json"], capture_output=True, text=True)
    assert done.returncode == 0, f"workbench {' '.join(words)}: {done.stdout}{done.stderr}"
    return json.loads(done.stdout)


def main(clone: str) -> None:
    import workbench as wb
    assert not Path(wb.__file__).resolve().is_relative_to((Path(clone)/"workbench").resolve()), f"{wb.__file__} is the clone, not the wheel"
    reports = {r["name"]: r for r in workbench_says("reports")}
    assert "tour" in reports and all(r["minutes"] and r["parameters"] for r in reports.values())
    assert {"micro", "micro-llama"} <= {m["name"] for m in workbench_says("models")} and "--scheduler" in workbench_says("completion", "bash")["script"]
    assert len(workbench_says("tutorial")) >= 8 and Path(workbench_says("tutorial", "1")["notebook"]).is_file()
    run = workbench_says("report", "tour", "-p", "n_heads=1")
    assert run["status"] == "done" and run["result"]["answer"] and (run["git"] or {}).get("commit") is None
    assert "<!doctype html" in Path(run["page"]).read_text("utf-8")[:200].lower()
    lm = wb.load("micro")
    page = wb.widgets.AttentionExplorer(lm, "When Mary and John went to the store, John gave a drink to").to_html("explorer.html")
    text = Path("explorer.html").read_text("utf-8")
    assert len(text) > 20_000 and "src=\"http" not in text, page
    from workbench.features import open_dictionary
    assert open_dictionary("micro/resid_post.2-topk") is not None
    print(f"reports: {len(reports)}; tour: {run['result']['answer']!r} in {run['seconds']} s; widget: {len(text) // 1024} KiB; python {sys.version.split()[0]}")


if __name__ == "__main__": main(sys.argv[1])
