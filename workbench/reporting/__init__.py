"""Reports: parameterised notebooks run into self-contained pages, and the command line."""
