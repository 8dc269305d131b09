"""How a session's browser is named."""

import pytest

from hub.portal.browsers import browser_words

CHROME = "Mozilla/5.0 ({}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 {}Safari/537.36"
IPHONE = "iPhone; CPU iPhone OS 17_5 like Mac OS X"


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox on Linux"),
        (CHROME.format("Windows NT 10.0; Win64; x64", ""), "Chrome on Windows"),
        (CHROME.format("Windows NT 10.0; Win64; x64", "") + " Edg/126.0", "Edge on Windows"),
        (CHROME.format("Linux; Android 14; Pixel 8", "Mobile "), "Chrome on Android"),
        (CHROME.format("X11; CrOS x86_64 14541", ""), "Chrome on ChromeOS"),
        (
            f"Mozilla/5.0 ({IPHONE}) AppleWebKit/605 Version/17.5 Mobile/15E148 Safari/604.1",
            "Safari on an iPhone",
        ),
        (
            f"Mozilla/5.0 ({IPHONE}) AppleWebKit/605 CriOS/126 Mobile/15E148 Safari/604.1",
            "Chrome on an iPhone",
        ),
        (
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605 Version/17.5 Safari/605",
            "Safari on a Mac",
        ),
        ("Mozilla/5.0 (compatible)", "An unknown browser"),
        ("", "An unknown browser"),
        ("python-httpx/0.28", "A program"),
        ("Firefox/", "Firefox"),
        ("<script>" * 5000, "A program"),
    ],
)
def test_a_browser_is_named_in_plain_words(agent, words):
    assert browser_words(agent) == words
    assert len(words) <= 64
