"""Execute the notebooks of the gallery and keep their outputs: ``python docs/execute.py``.

Names of notebooks may follow. The site executes them at each build, too; the outputs in the
repository are for those that read them there.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

GALLERY = Path(__file__).parent / "gallery"


def execute(path: Path) -> None:
    """Execute a notebook in a directory of its own, and write it with its outputs."""
    book = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as directory:
        client = NotebookClient(book, timeout=120, resources={"metadata": {"path": directory}})
        client.execute()
        text = nbformat.writes(book).replace(f"{directory}/", "")
    book = nbformat.reads(text, as_version=4)
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # times, which differ each time
    book.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    nbformat.write(book, path)


def main() -> None:
    """Execute those that are named, or all."""
    for path in sorted(GALLERY.glob("*.ipynb")):
        if len(sys.argv) == 1 or path.stem in sys.argv[1:]:
            execute(path)
            print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
