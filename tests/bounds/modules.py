"""Import every module of the package, and say which ones fail: `python modules.py`."""
import collections, importlib, pkgutil, sys

import workbench


def main() -> int:
    failed = collections.Counter()
    for module in pkgutil.walk_packages(workbench.__path__, "workbench.", onerror=lambda name: None):
        if module.name.endswith("__main__"): continue
        try: importlib.import_module(module.name)
        except Exception as e: failed[f"{type(e).__name__}: {str(e).splitlines()[0]}"] += 1
    for why, n in failed.most_common(): print(f"{n} x {why}")
    print("every module imports" if not failed else f"{sum(failed.values())} modules do not import")
    return int(bool(failed))


if __name__ == "__main__": sys.exit(main())
