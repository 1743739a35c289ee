"""Check a site that was built, and look at it: ``python tools/check_site.py SITE SCREENSHOTS``.

Every link and picture within the site has to lead somewhere. Where there is a Chromium, it opens
the landing page and a notebook, and saves screenshots of them.
"""

import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

PAGES = {"landing": "index.html", "notebook": "gallery/tour.html"}

# Pictures that are not there, and how far the page is wider than its window.
BROKEN = "[...document.images].filter(each => !each.naturalWidth).map(each => each.src).join()"
LOADED = "document.readyState == 'complete' && [...document.images].every(each => each.complete)"
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


class Page(HTMLParser):
    """The links of a page, and the places in it that links may name."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.places: set[str] = {""}
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value for name, value in attrs if value}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        wanted = {"a": "href", "img": "src"}.get(tag)
        if wanted in found:
            self.links.add(found[wanted])


def dead_links(site: Path) -> Iterator[str]:
    """Yield the links within a site that lead nowhere."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in sorted(page.links):
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            known = pages[target].places if target in pages else {unquote(address.fragment)}
            if not target.exists() or unquote(address.fragment) not in known:
                yield f"{path.relative_to(site.resolve())}: {link}"


def look(site: Path, target: Path) -> Iterator[str]:
    """Save a screenshot of each page; yield the pictures that are missing."""
    from clusters import Browser

    target.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        for name, page in PAGES.items():
            browser.open((site.resolve() / page).as_uri(), LOADED)
            browser.screenshot(target / f"{name}.png")
            if broken := browser.evaluate(BROKEN):
                yield f"{page}: no picture {broken}"
            if (pixels := browser.evaluate(TOO_WIDE)) > 0:
                yield f"{page}: {pixels} pixels wider than its window"


def main() -> int:
    """Print each fault."""
    from clusters import find_browser

    site, target = map(Path, sys.argv[1:])
    faults = list(dead_links(site))
    if find_browser() is not None:
        faults += look(site, target)
    print("\n".join(faults) or "all links of the site lead somewhere")
    return len(faults)


if __name__ == "__main__":
    sys.exit(main())
