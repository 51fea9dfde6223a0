"""How the pages of a shop's admin look: one layout, and the few pieces its pages are built from.

Plain HTML that works without JavaScript. Text becomes part of a page by `Markup.format`, which escapes it; a piece
that is HTML already is a `Markup`.
"""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import parse_qsl

from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

# Where the navigation leads, below `/{shop}/admin`, and what it is called there.
NAVIGATION: tuple[tuple[str, str], ...] = (
    ("", "Home"),
    ("/orders", "Orders"),
    ("/customers", "Customers"),
    ("/apps", "App"),
)

_STYLE = Markup("""
:root { --ink: #1f2328; --soft: #59636e; --line: #d1d9e0; --ground: #f2f4f6; --card: #fff; --accent: #0a5c49;
  --bad: #a40e26; color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
a { color: var(--accent); }
a:focus-visible, button:focus-visible, input:focus-visible, select:focus-visible {
  outline: 2px solid var(--accent); outline-offset: 2px; }
.top { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; align-items: baseline; padding: .75rem 1.5rem;
  background: #1a1f24; color: #fff; }
.top strong { font-weight: 600; }
.top nav { display: flex; gap: 1rem; }
.top a { color: #d5dde5; text-decoration: none; }
.top a:hover { color: #fff; text-decoration: underline; }
main { max-width: 68rem; margin: 0 auto; padding: 1.5rem; }
main.wide { max-width: none; padding: 0; }
h1 { margin: 0 0 1rem; font-size: 1.4rem; line-height: 1.3; }
h2 { margin: 0 0 .75rem; font-size: 1.05rem; }
section { margin: 0 0 1rem; padding: 1rem 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; overflow-x: auto; }
table { width: 100%; border-collapse: collapse; }
caption { text-align: left; color: var(--soft); padding-bottom: .5rem; }
th, td { padding: .4rem .75rem .4rem 0; text-align: left; vertical-align: top; border-top: 1px solid var(--line); }
thead th { border-top: 0; color: var(--soft); font-weight: 500; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.5rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
form { display: flex; flex-wrap: wrap; gap: .75rem; align-items: end; margin: 0 0 .75rem; }
form.stacked { display: block; }
.fields { display: flex; flex-wrap: wrap; gap: .75rem; align-items: end; margin-bottom: .75rem; }
label { display: inline-flex; flex-direction: column; gap: .2rem; color: var(--soft); font-size: .9rem; }
label.check { flex-direction: row; gap: .4rem; align-items: center; }
input, select { padding: .4rem .5rem; border: 1px solid #8b949e; border-radius: .3rem; font: inherit;
  color: var(--ink); background: #fff; max-width: 100%; }
input.short { width: 6.5rem; }
button { padding: .45rem .9rem; border: 1px solid var(--accent); border-radius: .3rem; font: inherit;
  background: var(--accent); color: #fff; cursor: pointer; }
button.plain { background: #fff; color: var(--accent); }
button.danger { background: #fff; color: var(--bad); border-color: var(--bad); }
.note { color: var(--soft); margin: 0 0 .75rem; }
.problem { border-color: var(--bad); color: var(--bad); }
.badge { display: inline-block; padding: 0 .5rem; border-radius: 1rem; background: #e6eaee; font-size: .85rem;
  white-space: nowrap; }
""")

_PAGE = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · {name}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<header class="top"><strong>{name}</strong><nav aria-label="Shop">{links}</nav></header>
<main{kind}>
{body}
</main>
</body>
</html>
""")
_LINK = Markup('<a href="/{}/admin{}">{}</a>')
_CELL = Markup("<td{}>{}</td>")
_HEAD = Markup('<th scope="col"{}>{}</th>')
_NUMBER = Markup(' class="number"')


def layout(title: str, shop: str, body: Markup, *, wide: bool = False) -> str:
    """A whole page of a shop's admin.

    Args:
        title: what the page is about; it names the tab, and is no heading.
        shop: the shop's domain, which the page's links lead to.
        body: what stands below the navigation.
        wide: leave the whole window to the body, as a frame needs it.
    """
    links = Markup(" ").join(_LINK.format(shop, path, name) for path, name in NAVIGATION)
    kind = Markup(' class="wide"') if wide else ""
    return str(_PAGE.format(title=title, name=shop.partition(".")[0], style=_STYLE, links=links, kind=kind, body=body))


def page(
    title: str, shop: str, body: Markup, *, wide: bool = False, status: HTTPStatus = HTTPStatus.OK
) -> HTMLResponse:
    """The same as a response."""
    return HTMLResponse(layout(title, shop, body, wide=wide), status)


def section(heading: str, *parts: Markup) -> Markup:
    """A card with a heading, by which it is also known to assistive technology."""
    label = Markup('<section aria-label="{0}"><h2>{0}</h2>').format(heading)
    return label + Markup("\n").join(parts) + Markup("</section>")


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Sequence[int] = ()
) -> Markup:
    """A table; `numbers` are the places of columns that hold numbers, and are set to the right."""
    head = Markup().join(_HEAD.format(_NUMBER if i in numbers else "", text) for i, text in enumerate(columns))
    lines = [
        Markup("<tr>{}</tr>").format(
            Markup().join(_CELL.format(_NUMBER if i in numbers else "", cell) for i, cell in enumerate(row))
        )
        for row in rows
    ]
    if not lines:
        lines = [Markup('<tr><td colspan="{}">None.</td></tr>').format(len(columns))]
    whole = Markup("<table><caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table>")
    return whole.format(caption, head, Markup("\n").join(lines))


def facts(pairs: Iterable[tuple[str, object]]) -> Markup:
    """Names and what they stand for, one below the other."""
    inner = Markup("\n").join(Markup("<dt>{}</dt><dd>{}</dd>").format(name, value) for name, value in pairs)
    return Markup("<dl>{}</dl>").format(inner)


def link(path: str, text: object) -> Markup:
    """A link."""
    return Markup('<a href="{}">{}</a>').format(path, text)


def field(label: str, name: str, value: object = "", *, kind: str = "text", **attributes: object) -> Markup:
    """A labelled input; an attribute may end in `_`, as `class_` must, and None leaves it out."""
    given = {"type": kind, "name": name, "value": value, **attributes}
    return Markup("<label>{}<input{}></label>").format(label, _attributes(given))


def check(label: str, name: str, *, checked: bool = False) -> Markup:
    """A labelled checkbox, whose value is `yes`."""
    given = {"type": "checkbox", "name": name, "value": "yes", "checked": "" if checked else None}
    return Markup('<label class="check"><input{}>{}</label>').format(_attributes(given), label)


def choice(label: str, name: str, options: Iterable[tuple[str, str]]) -> Markup:
    """A labelled choice out of (value, text)."""
    inner = Markup().join(Markup('<option value="{}">{}</option>').format(value, text) for value, text in options)
    return Markup('<label>{}<select name="{}">{}</select></label>').format(label, name, inner)


def form(path: str, button: str, *fields: Markup, style: str = "", stacked: bool = False) -> Markup:
    """A form that posts to `path`. `style` is the button's: empty, `plain` or `danger`."""
    kind = Markup(' class="stacked"') if stacked else ""
    inner = Markup("\n").join(fields)
    whole = Markup('<form method="post" action="{}"{}>{}<button class="{}">{}</button></form>')
    return whole.format(path, kind, inner, style, button)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form that was posted, the last of those that have one name."""
    return dict(parse_qsl((await request.body()).decode(errors="replace"), keep_blank_values=True))


def problem(text: str) -> Markup:
    """What went wrong, as a sentence, announced as an alert."""
    sentence = f"{text[:1].upper()}{text[1:].rstrip('.')}."
    return Markup('<section class="problem" role="alert">{}</section>').format(sentence)


def _attributes(given: Mapping[str, object]) -> Markup:
    return Markup().join(
        Markup(' {}="{}"').format(name.removesuffix("_"), escape(value))
        for name, value in given.items()
        if value is not None
    )
