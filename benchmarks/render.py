"""Write the pages of results/*.md from the numbers in results/*.json."""

import json
import sys
from pathlib import Path

from report import markdown

RESULTS = Path(__file__).parent / "results"


def page(file: Path) -> str:
    """Return the page of one result."""
    result = json.loads(file.read_text())
    facts = "\n".join(f"- {fact}" for fact in result["facts"])
    tables = [markdown(found) for found in result["tables"]]
    source = f"Rendered from `{file.name}` by `python benchmarks/render.py`."
    blocks = [f"# {result['title']}", source, *result["remarks"], facts, *tables]
    return "\n\n".join(block for block in blocks if block) + "\n"


def main() -> None:
    """Write each page, or with `--check` return how many are out of date."""
    check = "--check" in sys.argv[1:]
    stale = 0
    for file in sorted(RESULTS.glob("*.json")):
        target = file.with_suffix(".md")
        if target.exists() and target.read_text() == page(file):
            continue
        stale += 1
        if check:
            print(f"{target.name} is out of date", file=sys.stderr)
        else:
            target.write_text(page(file))
    if check:
        sys.exit(stale)


if __name__ == "__main__":
    main()
