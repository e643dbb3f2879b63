"""Packages as found on disk, plus `reports/`, which ships as `workbench.reports`, and the tutorials. Metadata is in pyproject.toml."""
from setuptools import find_namespace_packages, setup

EXTENSION = "share/jupyter/labextensions/interp-workbench"   # where JupyterLab looks for extensions

setup(packages=find_namespace_packages(include=["workbench*"]) + ["workbench.reports", "workbench.tutorials.notebooks"],
      package_dir={"workbench.reports": "reports", "workbench.tutorials.notebooks": "nbs/tutorials"},
      package_data={"": ["*.js", "*.css", "*.safetensors", "*.json", "*.yaml", "*.md", "*.ipynb", "*.jinja"], "workbench.zoo": ["saes/*/*/*"]},     # their folders have dots in their names, so they are no packages
      data_files=[(EXTENSION, ["labextension/package.json"]), (f"{EXTENSION}/static", ["labextension/static/lab.js"])])
