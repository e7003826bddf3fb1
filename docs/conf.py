"""The documentation's configuration. ``nox -s docs`` builds the pages; ``nox -s docs -- serve`` also serves them.

The build needs no network. The names that we link to in other projects' documentation are listed by hand, in
``_inventories``, in Sphinx's first inventory format, which is plain text: name, kind, page.
"""

from __future__ import annotations

import re
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.pycode import ModuleAnalyzer

import triores

if TYPE_CHECKING:
    from docutils.nodes import Element, TextElement
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "triores"
copyright = "the triores maintainers"
version = release = triores.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "misuses",
    "pictures",
    "plots",
    "recordings",
]
exclude_patterns = ["_build", "examples", "comparison", "plots"]

# ---- the text

myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

# ---- the reference

default_role = "py:obj"  # in docstrings, a name in single backticks is a link
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True, "special-members": "__await__"}
autosummary_generate = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

nitpicky = True
nitpick_ignore_regex = [
    # Type variables, and names that only exist for type checkers, have nothing to link to.
    (r"py:(class|obj|data)", r"(.*\.)?(T|T_co|K|Ts|T_contra|ItemT|ItemT_co|ResultT|FutureT)(\[.*)?"),
    (r"py:(class|obj|data)", r"(.*\.)?(Fn|Out|Self|TypeIs|Unpack)(\[.*)?"),
    (r"py:(class|obj)", r"(.*\.)?_result\.ResultBase(\[.*)?"),
]

intersphinx_mapping = {
    "python": ("https://docs.python.org/3", str(HERE / "_inventories" / "python.txt")),
    "trio": ("https://trio.readthedocs.io/en/stable", str(HERE / "_inventories" / "trio.txt")),
    "outcome": ("https://outcome.readthedocs.io/en/latest", str(HERE / "_inventories" / "outcome.txt")),
}

# ---- the look

html_theme = "furo"
html_title = f"triores {version}"
html_static_path = ["_static"]
html_css_files = ["triores.css"]
html_logo = html_favicon = "_static/logo.svg"
html_search_scorer = str(HERE / "_extensions" / "search.js")
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": True}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = "div.highlight-python pre, div.highlight-sh pre"  # no button on output
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "github-dark"

BREAKS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[.=(])(?=\w)|(?<=[^\W_]_)(?=[^\W_])")

MODULES: dict[str, str] = {}  # for each name that the package defines, the module that defines it

FULL_NAMES = {  # what the package only imports for type checkers appears in signatures as in the source
    "AbstractAsyncContextManager": "contextlib.AbstractAsyncContextManager",
    "AbstractContextManager": "contextlib.AbstractContextManager",
    "Outcome": "outcome.Outcome",
    "PathLike": "os.PathLike",
    "TrioToken": "trio.lowlevel.TrioToken",
}


def give_full_name(app: Sphinx, env: BuildEnvironment, node: Element, content: TextElement) -> Element | None:
    """Complete a name, so that intersphinx, which comes next, can find it.

    In the summary tables, a method's docstring is outside of its class, but refers to other methods without the class.
    """
    name = node["reftarget"] = FULL_NAMES.get(node["reftarget"], node["reftarget"])
    if not hasattr(triores.ResultBase, name):
        return None
    domain = env.domains.python_domain
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"triores.ResultBase.{name}", node, content)


def mark_tables(_app: Sphinx, doctree: nodes.document) -> None:
    """Mark cells that say yes or no, and tables that are too wide for a phone, for the style sheet."""
    for entry in doctree.findall(nodes.entry):
        entry["classes"] += {"✓": ["yes"], "✗": ["no"]}.get(entry.astext(), [])
    for group in doctree.findall(nodes.tgroup):
        group.parent["classes"].append("wide" if group["cols"] > 4 else "narrow")


def break_names(_app: Sphinx, doctree: nodes.document, _page: str) -> None:
    """Let long names in tables break between their words on a phone: ``TaskFailed`` and ``Exception``."""
    for group in doctree.findall(nodes.tgroup):
        room = 16 if group["cols"] < 4 else 0  # characters that needn't break
        for literal in group.findall(nodes.literal):
            text = literal.astext()
            first, *others = BREAKS.split(text) if len(text) > room else [text]
            literal.clear()
            literal.append(nodes.Text(first))
            for part in others:
                literal.extend([nodes.raw("", "<wbr>", format="html"), nodes.Text(part)])


def show_plain_bases(_app: Sphinx, _name: str, _obj: object, _options: object, bases: list[Any]) -> None:
    """Show a base class without its type variables, and leave out `typing.Generic`."""
    plain = [typing.get_origin(base) or base for base in bases]
    bases[:] = [base for base in plain if base is not typing.Generic]
    if not bases:
        bases.append(object)


def find_source_order() -> None:
    """Tell autodoc the order in which members are defined, and remember which module defines each name.

    autodoc and viewcode look in the module that a class or function claims to be in, which is the public one.
    """
    public = ModuleAnalyzer.for_module("triores")
    public.analyze()
    for path in sorted(Path(triores.__file__).parent.glob("_[a-z]*.py")):
        private = ModuleAnalyzer.for_module(f"triores.{path.stem}")
        private.analyze()
        public.tagorder |= private.tagorder
        MODULES.update(dict.fromkeys(private.tags, private.modname))


def find_source(_app: Sphinx, _module: str, name: str) -> str | None:
    """Return the module that defines a public name, for the link to its source."""
    return MODULES.get(name)


def setup(app: Sphinx) -> None:
    """Connect the handlers of this file."""
    find_source_order()
    app.connect("missing-reference", give_full_name, priority=400)
    app.connect("autodoc-process-bases", show_plain_bases)
    app.connect("doctree-read", mark_tables)
    app.connect("doctree-resolved", break_names)
    app.connect("viewcode-follow-imported", find_source)
