"""The tutorials' notebooks, with solutions. They ship as `workbench.tutorials.notebooks`; `workbench tutorial` writes a student's copy."""
