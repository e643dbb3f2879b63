"""Reports: parameterised notebooks, run by `workbench report NAME`."""
