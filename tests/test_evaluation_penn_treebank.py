"""English captions are cut as the Java program does that the published scores were computed with."""

import shutil
from importlib.util import find_spec

import pytest

from evaluation.penn_treebank import penn_treebank_tokens

# A caption, and below it what that program made of it (pycocoevalcap 1.2).
_PAIRS = r"""
A man's dog runs, and the dogs' owner doesn't care.
    a man 's dog runs and the dogs owner does n't care
Two boys can't and won't stop; they cannot, they're gonna fall!
    two boys ca n't and wo n't stop they can not they 're gon na fall
A girl in a T-shirt (red) jumps over a 3-year-old's sand-castle.
    a girl in a t-shirt -lrb- red -rrb- jumps over a 3-year-old 's sand-castle
Player no. 23 of the U.S. team scores at 7:30 p.m. in St. Louis.
    player no. 23 of the u.s. team scores at 7:30 p.m. in st. louis
"Stop" says the sign, 'Go' says the man - who looks -- angry.
    stop says the sign go says the man who looks angry
The women’s team – in “blue” – isn’t ready…
    the women 's team in blue is n't ready
A sign that reads AT&T, M&M's and R&B; a black & white dog.
    a sign that reads at&t m&m 's and r&b a black & white dog
Mr. Smith and Dr. Jones hold $5.00, 50% of 10,000 and 1/2 of it.
    mr. smith and dr. jones hold $ 5.00 50 % of 10,000 and 1/2 of it
Rock 'n' roll in the '90s, o'clock, y'all come and get 'em, ma'am.
    rock 'n' roll in the '90s o'clock y' all come and get 'em ma'am
What?! A dog!! Really???
    what ?! a dog !! really ???
A man/woman with a his/her and/or sign, 24/7, 4x4.
    a man/woman with a his/her and/or sign 24/7 4x4
He wears #5 ... and number 10.
    he wears # 5 and number 10
A naïve café owner in Zürich and the colour grey.
    a naïve café owner in zürich and the colour grey
jack-o-lanterns and mother-in-law's tongue, semi-circle - shaped
    jack-o-lanterns and mother-in-law 's tongue semi-circle shaped
A man.The dog is here. It's 3.5 km.
    a man.the dog is here it 's 3.5 km
'Tis a dancin' man and the ol' dog, d'you see? lemme gimme gotta wanna
    't is a dancin man and the ol' dog d'you see lem me gim me got ta wan na
Texas A&amp;M player &lt;3
    texas a&m player < 3
A boy in a [blue] {cap} * with ~ signs ^ and _ lines
    a boy in a -lsb- blue -rsb- -lcb- cap -rcb- * with ~ signs ^ and _ lines
See www.example.com or http://example.org/a?b=1 now
    see www.example.com or http://example.org/a?b=1 now
a long sentence without any mark at all about two brown dogs in the snow
    a long sentence without any mark at all about two brown dogs in the snow
The 60's car, the 80's-style hat and a 6' pole, 10ft long, +5 and -3.
    the 60 's car the 80 's style hat and a 6 pole 10ft long +5 and -3
A plan B. Then a boy.
    a plan b then a boy
Doc. and Prof. Lee vs. Corp. Inc. at 5th Ave. in Jan. with lots etc.
    doc and prof. lee vs. corp. inc. at 5th ave. in jan. with lots etc.
"""
_LINES = [line.strip() for line in _PAIRS.strip().splitlines()]
CAPTIONS = dict(zip(_LINES[::2], _LINES[1::2], strict=True))


@pytest.mark.parametrize(("caption", "tokens"), CAPTIONS.items())
def test_as_the_java_program(caption: str, tokens: str) -> None:
    assert penn_treebank_tokens(caption) == tokens.split()


def test_the_table_is_what_the_java_program_says_today() -> None:
    if shutil.which("java") is None or find_spec("pycocoevalcap") is None:
        pytest.skip("needs java and pycocoevalcap (extra dev) to be held against the original")
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    rows = {number: [{"caption": caption}] for number, caption in enumerate(CAPTIONS)}
    said = PTBTokenizer().tokenize(rows)
    assert [said[number][0].split() for number in rows] == [penn_treebank_tokens(text) for text in CAPTIONS]


def test_every_caption_ends_as_if_another_followed() -> None:
    assert penn_treebank_tokens("A shirt with the letter B.")[-1] == "b"
    assert penn_treebank_tokens("") == penn_treebank_tokens(" . !") == []
