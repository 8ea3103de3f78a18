"""Which texts are good enough for a datastore: long enough, short enough, in the language they say.

The limits are the user's. A text that is left out is told by a Reject that does not count as unusable, so
--strict lets it pass; a row all of whose texts are left out is left out itself.
"""

from collections.abc import Iterable, Iterator

from datastore_build.build_state import QualityFilters
from datastore_build.sources.language_check import LanguageCheck
from datastore_build.sources.rows import Reject, Row, without

# Written without spaces between words, so that counting these says nothing.
_UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my", "bo", "dz"})

# (which filter, reason)
Fault = tuple[str, str]


def filter_texts(items: Iterable[Row | Reject], filters: QualityFilters) -> Iterator[Row | Reject]:
    """The rows with the texts that pass; Rejects pass through, and those of the filters come before the row.

    Raises DatastoreError if languages are to be checked and cannot be.
    """
    if filters == QualityFilters(min_match=filters.min_match):  # which is for photo_match.py
        yield from items
        return
    check = LanguageCheck() if filters.check_language else None
    for item in items:
        if isinstance(item, Reject):
            yield item
            continue
        passed = []
        faults = []
        for language, text in item.texts:
            fault = _fault(language, text, filters, check)
            if fault is None:
                passed.append((language, text))
            else:
                faults.append(fault)
        yield from without(item, passed, faults)


def _fault(language: str, text: str, filters: QualityFilters, check: LanguageCheck | None) -> Fault | None:
    """What is wrong with a text, None if nothing is."""
    limits = [("characters", len(text), filters.min_characters, filters.max_characters)]
    if language not in _UNSPACED:
        limits.append(("words", len(text.split()), filters.min_words, filters.max_words))
    for unit, count, least, most in limits:
        if least is not None and count < least:
            return "too_short", f"the text in {language} has {count} {unit}, fewer than {least}"
        if most is not None and count > most:
            return "too_long", f"the text in {language} has {count} {unit}, more than {most}"
    other = check.plainly_other(language, text) if check is not None else None
    if other is not None:
        return "other_language", f"the text in {language} is plainly in {other}"
    return None
