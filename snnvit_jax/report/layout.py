"""What every page is made of: one self-contained document that reads on paper and on a phone."""

import base64
import html
import struct

_STYLE = """\
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b2733; background: white; max-width: 52rem;
       margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .3rem; }
p { margin: .3rem 0 .8rem; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(7.4rem, 1fr)); gap: 1rem;
     align-items: end; }
dt { font-size: .8rem; color: #5b6875; }
dd { margin: 0; font-size: 1.25rem; }
table { border-collapse: collapse; margin: .5rem 0 1rem; font-size: .9rem; }
td, th { padding: .2rem 1.2rem .2rem 0; text-align: left; vertical-align: top;
         border-bottom: 1px solid #e6eaee; }
th { font-weight: 600; color: #5b6875; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td:last-child, th:last-child { padding-right: 0; }
.beside { display: flex; flex-wrap: wrap; gap: 1rem 2rem; align-items: flex-start; }
.beside > div { flex: 1 1 22rem; max-width: 29rem; }
.beside h3 { font-size: .95rem; margin: .3rem 0; overflow-wrap: anywhere; }
.scrolled { overflow-x: auto; }
.small { font-size: .8rem; color: #5b6875; }
pre { columns: 20rem; column-gap: 2rem; white-space: pre-wrap; overflow-wrap: anywhere;
      font-size: .75rem; line-height: 1.4; }
@media (max-width: 40rem) {
  table { width: 100%; font-size: .8rem; }
  td, th { padding-right: .5rem; }
  th.n { white-space: normal; }
  .wide { display: none; }
}
@media print {
  @page { margin: 16mm 14mm; }
  body { font-size: 10pt; max-width: none; margin: 0; padding: 0; }
  h2 { break-after: avoid; margin-top: 1.4rem; }
  .figure, tr, dl, p, pre { break-inside: avoid; }
  h2 + p { break-after: avoid; }
  img { max-height: 21cm; max-width: min(100%, 15cm); print-color-adjust: exact; }
  thead { display: table-header-group; }
}
"""
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}</style>
<h1>{title}</h1>
{body}
</html>
"""


def document(title, body):
    """Returns a page.

    Args:
      title: text.
      body: HTML.
    """
    return _PAGE.format(title=html.escape(title), style=_STYLE, body=body)


def section(title, body, kind=""):
    """Returns a section of a page as HTML.

    Args:
      title: HTML.
      body: HTML.
      kind: its class; "figure" keeps it on one sheet of paper.
    """
    kind = f' class="{kind}"' if kind else ""
    return f"<section{kind}><h2>{title}</h2>{body}</section>"


def picture(png, title, narrow=None):
    """Returns a figure as HTML that holds its image.

    Args:
      png: bytes of a PNG file.
      title: what the image shows, HTML.
      narrow: bytes to show on a narrow screen instead; None for the same.

    Raises:
      ValueError: if the bytes are no PNG file.
    """
    source = (
        "" if narrow is None else f'<source media="(max-width: 40rem)" srcset="{_data(narrow)}">'
    )
    return (
        f"<figure><picture>{source}"
        f'<img width="{_width(png)}" alt="{title}" src="{_data(png)}"></picture></figure>'
    )


def _width(png):
    """Width on a screen in pixels: figures of 150 dots an inch at about the size of the text."""
    if not png.startswith(b"\x89PNG\r\n\x1a\n") or len(png) < 20:
        raise ValueError(f"not a PNG file, begins with {png[:8]!r}")
    (pixels,) = struct.unpack(">I", png[16:20])
    return round(0.75 * pixels)


def _data(png):
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
