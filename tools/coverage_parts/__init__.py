"""Parts of tools/coverage.py, which tries the configs of a toolbox."""
