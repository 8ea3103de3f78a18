"""A caption evaluation as one web page: tables, plots, and the best and worst captions with their photos.

All text comes from models, data sets and datastores, so all of it is escaped. The page loads nothing:
pictures are inside, and there is no script. A text's own direction is kept: Arabic runs from right to left.
"""

import unicodedata
from collections.abc import Sequence
from html import escape

from evaluation.caption_examples import Example, LanguageExamples
from evaluation.html_document import (
    html_document,
    jpeg_url,
    language_names,
    picture_url,
    text_attributes,
)
from evaluation.references import Photo, open_photo
from evaluation.report import Report, ReportTable

_LONGEST_SIDE = 320  # pixels of a photo in the page


def caption_page(report: Report, picture: bytes, examples: Sequence[LanguageExamples]) -> str:
    """A complete HTML document.

    Args:
        picture: the plots, a PNG.

    Raises:
        InvalidImageError: the photo of an example is missing or cannot be decoded.
    """
    facts = "".join(f"<li>{_fact(fact)}</li>" for fact in report.facts)
    shown = "".join(_language(own) for own in examples if own.best)
    heading = "<h2>Best and worst captions</h2>\n" if shown else ""
    return html_document(
        report.title,
        _STYLE,
        f"<main>\n<h1>{escape(report.title)}</h1>\n<ul class=facts>{facts}</ul>\n"
        f'<img class=plot src="{picture_url(picture, "png")}" '
        'alt="CIDEr-D by language, and by the number of retrieved captions; the tables have the numbers">\n'
        f"{''.join(map(_table, report.tables))}{heading}{shown}</main>\n",
    )


def _fact(fact: str) -> str:
    """Between backquotes, as in Markdown, is code."""
    parts = escape(fact).split("`")
    return "".join(f"<code>{part}</code>" if number % 2 else part for number, part in enumerate(parts))


def _table(table: ReportTable) -> str:
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in table.header)
    rows = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>\n"
        for row in table.rows
    )
    return (
        f"<h2>{escape(table.title)}</h2>\n<div class=wide><table><thead><tr>{head}</tr></thead>\n"
        f"<tbody>{rows}</tbody></table></div>\n"
    )


def _language(own: LanguageExamples) -> str:
    lists = "".join(
        f"<h4>{title}</h4>\n{''.join(_example(example) for example in examples)}"
        for title, examples in (("Best", own.best), ("Worst", own.worst))
        if examples
    )
    return (
        f'<section id="{escape(own.language)}"><h3>{language_names(own.language)}</h3>\n{lists}</section>\n'
    )


def _example(example: Example) -> str:
    references = "".join(f"<li>{_text(text, example.language)}</li>" for text in example.references)
    neighbours = "".join(
        f"<li><b>{neighbour.score:.2f}</b> {_text(neighbour.text, neighbour.language)}</li>"
        for neighbour in example.neighbours
    )
    retrieved = ""
    if neighbours:
        retrieved = f"<h5>Retrieved</h5><ul dir={_direction(example.neighbours[0].text)}>{neighbours}</ul>"
    return (
        f"<article><figure>{_photo(example)}<figcaption>{escape(example.image_id)}</figcaption></figure>"
        f"<div><p class=caption {text_attributes(example.language)}>{escape(example.text)}</p>"
        f"<p class=score>CIDEr-D {example.cider_d:.1f}</p>"
        f"<h5>References</h5><ul dir={_direction(example.references[0])}>{references}</ul>"
        f"{retrieved}</div></article>\n"
    )


def _photo(example: Example) -> str:
    picture = open_photo(Photo(example.image_id, example.photo))
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    width, height = picture.size
    return (
        f'<img src="{jpeg_url(picture)}" width={width} height={height} '
        f'alt="photo {escape(example.image_id)}">'
    )


def _direction(text: str) -> str:
    """Of a list whose first text this is: where its bullets stand."""
    strong = (unicodedata.bidirectional(character) for character in text)
    return "rtl" if next((kind for kind in strong if kind in ("L", "R", "AL")), "L") != "L" else "ltr"


def _text(text: str, language: str) -> str:
    return f"<bdi {text_attributes(language)}>{escape(text)}</bdi>"


_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; }
main { max-width: 72rem; margin: auto; padding: 1rem; }
h2 { margin-top: 2.5rem; } h3 { border-bottom: 1px solid #8888; } h5 { margin: .6rem 0 0; }
.facts { overflow-wrap: anywhere; } .plot { max-width: 100%; background: white; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .25rem .7rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #8884; }
th:first-child { text-align: left; }
article { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0 1.5rem; }
article > div { flex: 1; min-width: 18rem; }
figure { margin: 0; } figcaption { font-size: .8rem; opacity: .7; }
article img { max-width: 100%; height: auto; border-radius: 6px; }
.caption { font-size: 1.15rem; font-weight: 600; margin: 0; }
.score { margin: 0; opacity: .8; }
ul { margin: 0; padding-inline-start: 1.2rem; } bdi { display: block; } li > b + bdi { display: inline; }
"""
