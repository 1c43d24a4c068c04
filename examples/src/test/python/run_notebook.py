"""Runs a notebook from its first cell to its last; fails with the first cell that does."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

path = Path(sys.argv[1])
notebook = nbformat.read(path, as_version=4)
assert all(not cell.get("outputs") for cell in notebook.cells), "the notebook is to be committed without outputs"
NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": path.parent}}).execute()
