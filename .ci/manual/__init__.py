"""The documentation site: notebooks, reference, widgets and reports as pages that need no network."""
