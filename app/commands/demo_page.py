"""The demo's web page: photos, captions in every language, and what was retrieved for each, in one file.

Text comes from a model and from datastores, so all of it is escaped. The page loads nothing: pictures are
inside, and there is no script.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from app.schemas import CaptionItem, NeighbourItem, SourcedImage
from evaluation.html_document import html_document, jpeg_url, language_names, text_attributes

_LONGEST_SIDE = 640  # pixels of the pictures in the page


@dataclass(frozen=True)
class CaptionedPhoto:
    """`picture` is what was captioned, `item` what came of it, `credit` who took it under which licence."""

    item: SourcedImage
    picture: Image.Image
    credit: str


def demo_page(photos: Sequence[CaptionedPhoto]) -> str:
    """A complete HTML document."""
    return html_document(
        "Paellera: captions in many languages",
        _STYLE,
        "<header><h1>Paellera</h1><p>Photos that come with scikit-image and scikit-learn, captioned by the "
        "built-in model. Each caption opens to those that were retrieved for it, with how near they are to "
        "the photo; the bars say how probable it is that a caption fits its photo. Half is what the model "
        "says of photos unlike those it learnt from: it cannot tell.</p></header>\n"
        f"<main>\n{''.join(map(_photo, photos))}</main>\n",
    )


def _photo(photo: CaptionedPhoto) -> str:
    title = escape(photo.item.source)
    # The first one is open, so that what was retrieved is seen without a click.
    rows = "".join(_caption(caption, number == 0) for number, caption in enumerate(photo.item.captions))
    return (
        f'<article>\n<figure><img src="{jpeg_url(_small(photo.picture))}" alt="The sample photo \'{title}\'">'
        f"<figcaption>{title} · {escape(photo.credit)}</figcaption></figure>\n<dl>\n{rows}</dl>\n</article>\n"
    )


def _caption(caption: CaptionItem, is_open: bool) -> str:
    retrieved = "".join(map(_neighbour, caption.neighbours))
    text = f'<span class="text" {text_attributes(caption.language)}>{escape(caption.text)}</span>'
    if retrieved:
        opened = " open" if is_open else ""
        text = f"<details{opened}><summary>{text}</summary><ul>{retrieved}</ul></details>"
    confidence = _confidence(caption.confidence)
    return f"<div><dt>{language_names(caption.language)}</dt><dd>{text}</dd><dd>{confidence}</dd></div>\n"


def _neighbour(neighbour: NeighbourItem) -> str:
    text = f"<span {text_attributes(neighbour.language)}>{escape(neighbour.text)}</span>"
    return f"<li><b>{neighbour.score:.2f}</b> {text}</li>"


def _confidence(value: float) -> str:
    return f'<meter min="0" max="1" value="{value:.2f}" title="confidence"></meter> {value:.2f}'


def _small(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return small


_STYLE = """
:root { color-scheme: light dark; --ink: #1d1b18; --soft: #6b655c; --line: #e4ded4; --paper: #fbf9f5;
  --card: #fff; --accent: #b4530a; }
@media (prefers-color-scheme: dark) { :root { --ink: #ece7df; --soft: #a39b8f; --line: #38342e;
  --paper: #171512; --card: #201d19; --accent: #f0a15a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 78rem; padding: 2rem 1.25rem 4rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, "Noto Sans", sans-serif; }
h1 { margin: 0; font-size: 2rem; color: var(--accent); }
header p { max-width: 44rem; margin: .25rem 0 2rem; color: var(--soft); }
article { display: grid; grid-template-columns: minmax(15rem, 2fr) 5fr; gap: 1.75rem; margin-bottom: 1.75rem;
  padding: 1.25rem; background: var(--card); border: 1px solid var(--line); border-radius: .75rem; }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border-radius: .5rem; }
figcaption { margin-top: .5rem; font-size: .8rem; color: var(--soft); }
dl { margin: 0; }
dl > div { display: grid; grid-template-columns: 10rem 1fr 8rem; gap: .2rem 1rem; padding: .45rem 0;
  border-bottom: 1px solid var(--line); }
dl > div:last-child { border-bottom: 0; }
dt span, dd:last-child { color: var(--soft); font-size: .85rem; }
dt span { display: block; }
dd { margin: 0; min-width: 0; }
dd:last-child { font-variant-numeric: tabular-nums; white-space: nowrap; text-align: right; }
meter { width: 4.5rem; height: .8rem; }
summary { cursor: pointer; list-style: none; display: block; }
summary::-webkit-details-marker { display: none; }
summary:hover .text, summary:focus-visible .text { text-decoration: underline dotted var(--accent); }
.text { display: block; font-size: 1.05rem; }
ul { margin: .35rem 0 .25rem; padding: 0; list-style: none; font-size: .85rem; color: var(--soft); }
li { display: flex; gap: .6rem; }
li span { flex: 1; }
li b { font-weight: 500; color: var(--accent); font-variant-numeric: tabular-nums; }
@media (max-width: 50rem) { article { grid-template-columns: 1fr; }
  dl > div { grid-template-columns: 1fr auto; } dd:first-of-type { grid-column: 1 / -1; grid-row: 2; } }
"""
