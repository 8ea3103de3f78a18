"""Keeps a language model from gendered words while it writes, and offers it words for anybody instead.

Replacing words in a finished caption breaks its grammar: "Ein Mann" cannot become "Ein Person". So the choice
is made where the model makes it. A token that would complete a gendered word is never taken, however the word
is cut into tokens; and what the model would have given to gendered words goes to the words for anybody that
can stand there, those for children to those for children, shared as the model itself shares between them, at
most `_MOST` times what they had. What the model finds impossible here, such as "Person" behind "Ein", stays
so, and beam search finds "Eine Person"; a few pairs such as "un persona" are refused, because models are not
that sure of them.

Only refusing the gendered words is worse: tried on 40 photos with the first lists (English, German, Spanish,
Chinese), 49 of 67 captions that held one then still named somebody, and 64 if its probability goes to others.

A gendered word is refused when its last letter is written, before it is known whether the word goes on. Words
that begin with one ("Mannschaft") are therefore out of reach where the vocabulary has no token that takes
them past that point: 0.1 % of the words in English captions with the compact bundle's vocabulary, less in its
other languages. Spelling by single bytes is not looked at.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import regex
import torch
from torch import Tensor

from models.neutral.lexicon import Lexicon
from models.neutral.token_texts import TokenTexts

_MOST = 30.0  # times the probability that a word for anybody had; chosen on the compact bundle's captions
_LAST_LETTERS = regex.compile(r"[\p{L}\p{M}]*\Z")


class NeutralWording:
    """What a lexicon means for the tokens of one vocabulary."""

    def __init__(self, tokens: TokenTexts, lexicon: Lexicon) -> None:
        self._lexicon = lexicon
        folded = tokens.folded(lexicon)
        self._texts = folded.texts
        self._longest = max(map(len, lexicon.gendered))
        self._rests = _rests(lexicon)
        missing = frozenset[str]().union(*self._rests.values())
        anywhere, at_start, feminine = [], [], []
        replaced: list[list[int]] = [[] for _ in lexicon.groups]
        anybody: list[list[int]] = [[] for _ in lexicon.groups]
        self._by_beginning: dict[str, list[int]] = defaultdict(list)
        if lexicon.spaces:
            offered = lexicon.feminine.union(*(group.anybody for group in lexicon.groups))
            concerned = folded.with_words(lexicon.gendered | missing, offered, lexicon.gendered)
        else:
            concerned = folded.with_characters(frozenset("".join(lexicon.people)))
        for token in concerned:
            text = self._texts[token]
            begun = folded.begun(token) if lexicon.spaces else ""
            gendered = lexicon.gendered_in(text[len(begun) :])
            if gendered:
                anywhere.append(token)
            elif begun in lexicon.gendered:
                at_start.append(token)
            standing_for = self._standing_for(text)
            if standing_for in lexicon.feminine:
                feminine.append(token)
            for number, group in enumerate(lexicon.groups):
                if gendered and self._begins_word(text) and gendered[0] in group.gendered:
                    replaced[number].append(token)
                elif not gendered and standing_for in group.anybody:
                    anybody[number].append(token)
            for beginning in [begun] if lexicon.spaces else _beginnings(text, self._longest):
                if beginning in missing:
                    self._by_beginning[beginning].append(token)
        self._anywhere, self._at_start, self._feminine = anywhere, at_start, feminine
        self._exchanges = [
            (torch.tensor(old), torch.tensor(new))
            for old, new in zip(replaced, anybody, strict=True)
            if old and new
        ]

    def apply(self, scores: Tensor, ids: Sequence[int]) -> None:
        """Change the log-probabilities (V,) of the token after `ids`, in place."""
        before = self._before(ids)
        if before in self._lexicon.masculine:
            scores[self._feminine] = -math.inf
        for replaced, anybody in self._exchanges:
            replaced, anybody = replaced.to(scores.device), anybody.to(scores.device)
            had = scores[anybody].logsumexp(dim=0)
            gain = torch.logaddexp(had, scores[replaced].logsumexp(dim=0)) - had
            # Nothing to share where none of them is possible at all.
            scores[anybody] += gain.clamp(max=math.log(_MOST)).where(had > -math.inf, 0.0)
        scores[self._refused(before)] = -math.inf

    def _refused(self, before: str) -> list[int]:
        """The tokens that would complete a gendered word behind these letters."""
        if not before:
            return self._anywhere + self._at_start
        refused = list(self._anywhere)
        for length in [len(before)] if self._lexicon.spaces else range(1, len(before) + 1):
            for rest in self._rests.get(before[-length:], ()):
                refused += self._by_beginning.get(rest, ())
        return refused

    def _before(self, ids: Sequence[int]) -> str:
        """The letters of the word that is being written, or, without spaces, all that may belong to it."""
        text = ""
        for token in reversed(ids):
            text = self._texts[token] + text
            last = _LAST_LETTERS.search(text).group()
            if len(last) < len(text) or len(last) > self._longest:
                return str(last)
        return text

    def _begins_word(self, text: str) -> bool:
        return text.startswith(" ") or not self._lexicon.spaces

    def _standing_for(self, text: str) -> str:
        """The word for people that a token is, or, without spaces, ends with; empty if there is none."""
        if not self._lexicon.spaces:
            people = self._lexicon.people_in(text)
            return people[-1] if people and text.endswith(people[-1]) else ""
        return text[1:] if text[:1] == " " else ""


class NeutralRows:
    """The wordings of a batch of prompts; those of None are left to the model."""

    def __init__(self, wordings: Sequence[NeutralWording | None]) -> None:
        self._wordings = wordings

    def apply(self, scores: Tensor, rows: Tensor, ids: Tensor) -> None:
        """Change the log-probabilities of what comes next, in place.

        Args:
            scores: (B, W, V) of B prompts with W sequences each.
            rows: (B,) which prompt of the batch each is.
            ids: (B, W, S) tokens written so far.
        """
        written: list[list[list[int]]] = ids.tolist()
        for b, row in enumerate(rows.tolist()):
            if (wording := self._wordings[row]) is not None:
                for w, own in enumerate(written[b]):
                    wording.apply(scores[b, w], own)


def _rests(lexicon: Lexicon) -> Mapping[str, set[str]]:
    """What is missing, by what is there, of all gendered words."""
    rests: dict[str, set[str]] = defaultdict(set)
    for word in lexicon.gendered:
        for cut in range(1, len(word)):
            rests[word[:cut]].add(word[cut:])
    return rests


def _beginnings(text: str, longest: int) -> Iterable[str]:
    return (text[:length] for length in range(1, min(len(text), longest) + 1))
