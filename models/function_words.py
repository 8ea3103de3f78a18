"""Words that want another after them: a caption that is cut does not end with one.

Articles, prepositions, conjunctions, possessives and auxiliaries, in the languages of the compact bundle; of
other languages nothing is known. In Hindi it is the genitive that wants its noun; other postpositions may end
a phrase. In Chinese, which has no spaces, these are the last characters.
"""

_WORDS = {
    "ar": """
        في على من إلى الى عن مع بين تحت فوق أمام خلف وراء بجانب قرب عند حول نحو داخل خارج عبر أو و
        ثم التي الذي الذين أن إن كان كانت قد هو هي هذا هذه ذات ذو بعض كل
    """,
    "cs": """
        v ve na u do z ze s se k ke o od po pod před za nad mezi při pro přes bez kolem vedle podél
        a i nebo ale který která které jak jeho její jejich jeden jedna jedno je jsou má mají
    """,
    "de": """
        der die das den dem des ein eine einen einem einer eines und oder aber in im ins an am ans
        auf aus bei beim mit nach von vom vor zu zum zur über unter neben zwischen hinter durch für
        gegen um ohne entlang während als wie ist sind hat haben wird werden sein seine seinen
        seinem seiner ihr ihre ihren ihrem ihrer dass sehr zwei drei vier
    """,
    "en": """
        a an the and or but of in on at by to from with without into onto over under above below
        behind beside between through across near for around along against inside outside toward
        towards while as that which who whose where is are was were has have had being be its his
        her their two three four very some
    """,
    "es": """
        el la los las un una unos unas y e o u pero de del en con sin a al por para sobre bajo entre
        tras ante desde hacia hasta según durante mientras que cuyo como es son está están ha han su
        sus dos tres cuatro muy
    """,
    "fr": """
        le la les l' un une des du de d' et ou mais à au aux en dans sur sous avec sans par pour
        entre vers chez derrière devant contre pendant que qui dont où comme est sont a ont son sa
        ses leur leurs deux trois quatre très
    """,
    "hi": """
        और या एक का के की कि जो तथा एवं दो तीन चार अपने अपनी अपना उसके उसकी बहुत
    """,
    "pt": """
        o a os as um uma uns umas e ou mas de do da dos das em no na nos nas num numa com sem ao à
        aos às por pelo pela pelos pelas para sobre sob entre ante desde até durante enquanto que
        cujo como é são está estão tem têm seu sua seus suas dois duas três quatro muito
    """,
    "uk": """
        в у на до з із зі від по під над за перед між при про для через без біля крізь навколо поруч
        і й та або але що який яка яке які як його її їх один одна одне є має мають
    """,
    "zh": """
        的 地 和 与 及 或 在 从 向 往 被 把 是 有 一 个 只 位
        条 张 辆 名 群 两 着 正 正在 一个 一只 一位 一条 一张 一辆 一名 一群 一些
        穿着 拿着
    """,
}
_NONE: frozenset[str] = frozenset()


def function_words(language: str) -> frozenset[str]:
    """The words of a language, in lower case; none if the language is not known."""
    return frozenset(_WORDS[language].split()) if language in _WORDS else _NONE
