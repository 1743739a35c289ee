"""How Sphinx builds the site: ``sphinx-build -W --keep-going docs build/site``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

project = "daskstats"
author = "The daskstats developers"
copyright = f"2026, {author}"
version = release = version_of(project)
REPOSITORY = "https://github.com/daskstats/daskstats"

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_drawn"]
templates_path = ["_templates"]
suppress_warnings = ["config.cache"]  # an example of this file, a function, cannot be cached

# Every name in single backquotes is a link if it is one of the reference.
default_role = "autolink"
autodoc_typehints = "none"
autosummary_generate = True
numpydoc_show_class_members = False

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 3
# Notebooks are executed at each build, in files of their own, and an error ends the build.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

html_theme = "pydata_sphinx_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_sidebars = {"index": [], "quickstart": [], "api": [], "comparison": [], "benchmarks": []}
html_theme_options = {
    "github_url": REPOSITORY,
    "header_links_before_dropdown": 7,
    "navbar_persistent": ["search-button"],
    "show_prev_next": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "footer_start": ["copyright"],
    "footer_end": [],
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def lead_to_the_repository(app, name, content):
    """Have links to files outside of the site lead to the repository."""
    outside = "../" * (1 + name.count("/"))
    content[0] = content[0].replace(f"]({outside}", f"]({REPOSITORY}/blob/main/")


def draw_plots(app):
    import plots

    plots.draw_all(HERE.parent / "benchmarks/results", HERE / "_drawn")


def setup(app):
    app.connect("builder-inited", draw_plots)
    app.connect("source-read", lead_to_the_repository)
