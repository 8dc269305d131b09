"""Words to make prompts of: of one token each, by chance, and repeatable.

Pure. Owns the vocabulary and the ways to draw from it; must not know what a request is.
"""

import random
from functools import lru_cache
from typing import Final

# Short everyday words: in the usual byte-pair vocabularies each is one token with the space before it, so
# that a prompt of n words is n tokens, give or take the chat template. The true count is in the report.
WORDS: Final = tuple(
    (  # noqa: SIM905 - a list of 256 literals would be a page of quotes
        "about above after again air all also always and animal another answer any area ask back ball base "
        "bear beat bed been before began best better big bird black blue board boat body book both bottom "
        "box boy bring brought build built bus but call came can car care carry case cat catch center "
        "chair change check child city class clear close cold color come common cook cool corn cost could "
        "count cover cross cry cut dark day deep did dinner do dog door down draw dream dress drive drop "
        "dry each early earth east easy eat edge egg else end even ever every eye face fact fall far farm "
        "fast father feel feet few field fill final find fine fire first fish five floor fly follow food "
        "foot for form found four free fresh friend from front full game garden gave girl give glass go "
        "gold gone good got grass great green ground group grow had half hand happy hard has hat have he "
        "head hear heart heat heavy help here high hill hold home horse hot hour house how ice idea in "
        "inside iron island job join jump just keep kept key kind king knew know lake land large last late "
        "laugh lay lead learn leave left leg less let letter life light like line list little live long "
        "look lost lot love low machine made main make man many map mark may mean meet men might mile milk "
        "mind mine moon more most move much music must name near need never new next"
    ).split()
)
NUMBER_WORDS: Final = 3
"""So many words spell a number below 16 777 216."""


def chance(seed: int, purpose: str, index: int | str) -> random.Random:
    """A source of chance of its own for each purpose and number, so that none disturbs another's."""
    return random.Random(f"{seed}/{purpose}/{index}")  # noqa: S311 - repeatable on purpose


def number_in_words(number: int) -> list[str]:
    """The number in base 256, lowest digit first.

    So neighbours differ in their first word already, which is all that a short prompt has.
    """
    return [WORDS[(number >> (8 * digit)) & 0xFF] for digit in range(NUMBER_WORDS)]


@lru_cache(maxsize=4096)
def block(seed: int, purpose: str, index: int | str, count: int) -> tuple[str, ...]:
    """So many words by chance, the same each time; a longer block begins with the shorter one's words.

    What prompts have in common is asked for again and again, and is kept.
    """
    return tuple(chance(seed, purpose, index).choices(WORDS, k=count))
