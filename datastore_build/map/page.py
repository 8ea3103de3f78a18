"""The map of a datastore as one HTML file: points on a canvas, their captions, a search, a legend.

The page loads nothing, and its only script is that of map.js, by its hash; captions come from anyone and
are in it as data, which the script shows as text and never as HTML.
"""

import base64
import colorsys
import hashlib
import json
from collections import Counter
from html import escape
from importlib.resources import files

from datastore_build.map.projection import Projection
from retrieval.datastore import Datastore
from retrieval.languages import autonym, display_name

# Told apart best, the first ones by people who see colours differently, too (Okabe and Ito 2008).
_COLOURS = (
    *("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00"),
    *("#56b4e9", "#7b5ea7", "#a0522d", "#5f8f00", "#c0392b"),
)


def map_page(store: Datastore, projection: Projection, title: str) -> str:
    """A complete HTML document."""
    # So that no caption ends the script it stands in; in JSON strings these are the same characters.
    data = json.dumps(_data(store, projection), ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        data = data.replace(character, f"\\u{ord(character):04x}")
    script, style = _part("map.js"), _part("map.css")
    policy = f"default-src 'none'; script-src {_hash_of(script)}; style-src {_hash_of(style)}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}: map of a datastore</title>
<style>{style}</style>
</head>
<body>
<header>
<h1><bdi>{escape(title)}</bdi></h1>
<p>{escape(_summary(store, projection))}</p>
</header>
<main>
<div id="stage">
<canvas id="map" tabindex="0" role="application" aria-label="Map of captions"
 aria-describedby="keys"></canvas>
<div id="tip" dir="auto" hidden></div>
<div id="zoom"><button type="button" id="in" aria-label="Zoom in">+</button>
<button type="button" id="out" aria-label="Zoom out">−</button>
<button type="button" id="all" aria-label="Show everything">⤢</button></div>
</div>
<aside>
<label for="query">Search</label>
<input id="query" type="search" autocomplete="off" placeholder="words of a caption" dir="auto">
<p id="count" role="status"></p>
<ol id="results"></ol>
<section id="chosen" aria-live="polite" aria-label="Chosen entry"></section>
<fieldset><legend>Languages</legend><div id="languages"></div></fieldset>
<p id="keys">On the map: arrow keys go to the next caption, + and − zoom, 0 shows everything, Escape lets go.
With a mouse: drag, turn the wheel.</p>
</aside>
</main>
<noscript><p>This map needs scripts. All of them are in this file.</p></noscript>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


def _summary(store: Datastore, projection: Projection) -> str:
    drawn, entries = len(projection.entries), len(store)
    part = f"{drawn:,} of {entries:,} entries, drawn at random" if drawn < entries else f"{entries:,} entries"
    return (
        f"{part}. Each dot is a text, coloured by its language; the texts of one entry form a ring. What is "
        f"alike lies near each other, as far as two dimensions show it: they hold {projection.explained:.0%} "
        f"of the differences (principal components). Version {store.version}."
    )


def _data(store: Datastore, projection: Projection) -> dict[str, object]:
    """What map.js reads: languages, and [x, y, id, language, text, language, text, …] for each entry."""
    entries, counts = [], Counter[str]()
    drawn = [(number, store.texts(number)) for number in projection.entries.tolist()]
    for _, texts in drawn:
        counts.update(text.language for text in texts)
    order = {language: number for number, (language, _) in enumerate(counts.most_common())}
    for (number, texts), (x, y) in zip(drawn, projection.positions.tolist(), strict=True):
        spoken = [part for text in texts for part in (order[text.language], text.text)]
        entries.append([round(x, 4), round(y, 4), store.entry_id(number), *spoken])
    languages = [
        {
            "code": code,
            "name": display_name(code),
            "own": autonym(code),
            "colour": _colour(number),
            "count": counts[code],
        }
        for code, number in order.items()
    ]
    return {"languages": languages, "entries": entries}


def _colour(number: int) -> str:
    if number < len(_COLOURS):
        return _COLOURS[number]
    hue = number * 0.618034 % 1.0  # the golden ratio: each one falls into the widest gap
    red, green, blue = colorsys.hls_to_rgb(hue, (0.42, 0.58)[number % 2], 0.6)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _part(name: str) -> str:
    return files("datastore_build.map").joinpath(name).read_text(encoding="utf-8")


def _hash_of(content: str) -> str:
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return f"'sha256-{digest}'"
