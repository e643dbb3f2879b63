"""Packages as found on disk, plus `reports/`, which ships as `workbench.reports`. Metadata is in pyproject.toml."""
from setuptools import find_namespace_packages, setup

setup(packages=find_namespace_packages(include=["workbench*"]) + ["workbench.reports"],
      package_dir={"workbench.reports": "reports"},
      package_data={"": ["*.js", "*.css", "*.safetensors", "*.json", "*.md", "*.ipynb", "*.jinja"]})
