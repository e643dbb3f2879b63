"""The judges of the tutorials, one module for each. The notebooks are `workbench.tutorials.notebooks`."""
