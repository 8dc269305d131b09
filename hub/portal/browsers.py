"""What a browser calls itself, in plain words, so that people tell their sessions apart.

Pure. The header itself is not kept: it says more than anybody needs to know. Knows nothing of sessions.
"""

_BROWSERS = (  # the first that is found: most of them also say they are those below
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Vivaldi/", "Vivaldi"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("iPhone", "an iPhone"),
    ("iPad", "an iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "a Mac"),
    ("Linux", "Linux"),
)


def browser_words(agent: str) -> str:
    """Name a browser and its system by the User-Agent header it sent: a guess, since it may say anything."""
    browser = next((name for mark, name in _BROWSERS if mark in agent), None)
    system = next((name for mark, name in _SYSTEMS if mark in agent), None)
    if browser is None:
        return "A program" if agent and "Mozilla/" not in agent else "An unknown browser"
    return f"{browser} on {system}" if system else browser
