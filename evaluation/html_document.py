"""A web page in one file: it loads nothing, its pictures are inside, and no script runs in it.

Texts that come from models, data sets or datastores are for the caller to escape.
"""

import base64
import io
from html import escape

from PIL import Image

from retrieval.languages import autonym, display_name


def html_document(title: str, style: str, body: str) -> str:
    """A complete document. The title is a text, style and body are CSS and HTML."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def language_names(language: str) -> str:
    """HTML: the name of a language in English and, where it is another, in itself."""
    name, own_name = display_name(language), autonym(language)
    if own_name == name:
        return escape(name)
    return f'{escape(name)} <span lang="{escape(language)}">{escape(own_name)}</span>'


def text_attributes(language: str) -> str:
    """HTML attributes of an element with a text in a language."""
    # dir=auto goes by the text's first strong letter: right for Arabic, and for a fallback in another script.
    return f'lang="{escape(language)}" dir="auto"'


def jpeg_url(picture: Image.Image) -> str:
    """An address that holds the picture itself."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return picture_url(buffer.getvalue(), "jpeg")


def picture_url(content: bytes, kind: str) -> str:
    """As `jpeg_url`, of a file whose kind is `png` for instance."""
    return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")
