"""What Sphinx is told beyond its settings: docstrings as prose, names that may be broken, links."""

import pathlib
import posixpath
import re
import urllib.parse

START = "README"  # has the project's name as its heading, and stands in the menu as "Start"

LONG = 28  # characters of a word that a cell of a table shows on a phone


def as_prose(app, what, name, obj, options, lines):
    """What a docstring returns is prose, and a star before a word that of Python.

    Napoleon comes before this: it takes words before a colon for a type.
    """
    lines[:] = [re.sub(r"(?<![\w`*\\])\*(?=[\w.])", r"\\*", _without_type(line)) for line in lines]


def _without_type(line):
    return re.sub(r"^(:(?:returns|Yields):) +\*(.+?)\* -- ", r"\1 \2: ", line)


def short_defaults(app, what, name, obj, options, signature, returns):
    """A signature in which a class stands by its name, and no default as Python's `<object>`."""
    if signature is None:
        return None
    signature = re.sub(r"=<class '(?:\w+\.)*(\w+)'>", r"=\1", signature)
    return re.sub(r"=<(?:[^<>]|<[^<>]*>)*>", "=...", signature), returns


def finish(app, pagename, templatename, context, doctree):
    """Changes what is written into a page: its title, its links to the reference, its tables."""
    for neighbour in (context.get("prev"), context.get("next")):
        if neighbour and is_start(pagename, neighbour["link"]):
            neighbour["title"] = "Start"
    if pagename == START:
        context["title"] = "Start"
    if "body" not in context:
        return
    if pagename.startswith("_modules/"):
        known = app.env.domaindata["py"]["objects"]
        context["body"] = with_known_anchors(context["body"], known)
    context["body"] = with_breaks(context["body"])


def is_start(pagename, link):
    """Returns whether a link leads to the page "Start", and not to that of an experiment.

    Args:
      pagename: of the page with the link, from the root of the site.
      link: relative to it.
    """
    return posixpath.normpath(posixpath.join(posixpath.dirname(pagename), link)) == f"{START}.html"


def with_known_anchors(body, known):
    """Returns the page of a module whose links back lead to what the reference has.

    (Sphinx names all of a module as the first of it is named in the reference, be it as
    `snnvit_jax.deploy` or as `snnvit_jax.deployment.Deployed`.)

    Args:
      body: HTML.
      known: names in the reference.
    """

    def lead(match):
        page, name = match.groups()
        parts = name.split(".")
        ends = (".".join(parts[i:]) for i in range(1, len(parts)))
        found = [k for end in ends for k in known if k.endswith(f".{end}")]
        return f'href="{page}#{name if name in known or not found else found[0]}"'

    return re.sub(r'href="([^"#]*\.html)#([\w.]+)"', lead, body)


def with_breaks(body):
    """Returns a page in which long words in the cells of tables may be broken.

    Names between their parts, checksums anywhere.

    Args:
      body: HTML.
    """

    def breakable(cell):
        parts = re.split(r"(<[^>]*>)", cell.group())  # text, tag, text, ...
        parts[::2] = [re.sub(rf"\S{{{LONG},}}", _broken, text) for text in parts[::2]]
        return "".join(parts)

    return re.sub(r"<td\b.*?</td>", breakable, body, flags=re.DOTALL)


def _broken(word):
    parts = re.sub(r"(?<=\w)(?:::|[_/.=])(?=\w)", r"\g<0><wbr>", word.group())
    return re.sub(r"[0-9a-f]{16}(?=[0-9a-f]{16})", r"\g<0><wbr>", parts)


def dead_links(folder):
    """Returns [(page, link)] of the links inside a site that lead nowhere.

    Args:
      folder: of the site.
    """
    anchors, dead = {}, []
    for page in sorted(pathlib.Path(folder).rglob("*.html")):
        for link in re.findall(r'(?:href|src)="([^"]*)"', page.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:", link) and not _leads(page, link, anchors):
                dead.append((str(page.relative_to(folder)), link))
    return dead


def _leads(page, link, anchors):
    """Whether a link of a page leads to a file, and to a place in it if it names one."""
    address, _, place = urllib.parse.unquote(link).partition("#")
    address = address.partition("?")[0]
    target = (page.parent / address).resolve() if address else page
    if not target.exists():
        return False
    if not place or target.suffix != ".html":
        return True
    if target not in anchors:
        anchors[target] = set(re.findall(r'\bid="([^"]+)"', target.read_text(encoding="utf-8")))
    return place in anchors[target]
