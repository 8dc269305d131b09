"""What a change means for keys, in a sentence: numbers, and never whose keys they are.

Pure. The counting is `hub.effects`'s.
"""

from hub.effects import Effect, Reach
from hub.portal.presenting import counted


def reach_words(reach: Reach) -> str:
    """Return `3 keys of 2 organisations`."""
    if not reach.keys:
        return "No key"
    return f"{counted(reach.keys, 'key')} of {counted(reach.organisations, 'organisation')}"


def effect_words(effect: Effect, whom: str) -> tuple[str, ...]:
    """Say who may use something from then on, and who may not any more; `whom` is what is used."""
    lines = []
    if effect.gain.keys:
        lines.append(f"{reach_words(effect.gain)} may use {whom} from then on.")
    if effect.lose.keys:
        verb = "uses" if effect.lose.keys == 1 else "use"
        lines.append(f"{reach_words(effect.lose)} no longer {verb} {whom}: it counts at once.")
    return tuple(lines) or (f"For no key it makes a difference whether it may use {whom}.",)
