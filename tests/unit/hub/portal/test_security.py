"""Redirects that stay here, and tokens that belong to one session."""

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hub.portal.security import PAGE_HEADERS, csrf_matches, csrf_token, is_token, new_token, safe_next

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
CHARACTERS = "/\\:@?#[] \t\n\r\0\x1f\x7f\x85\u2028\uff0f\u2215é\ud800"
WORDS = (
    "// /// .. . http: https:// javascript: data: evil.example hub.example [::1] %2f %5c %09 nodes ?of=all"
)
PIECES = st.sampled_from([*CHARACTERS, *WORDS.split()])
TARGETS = st.lists(PIECES, max_size=8).map("".join) | st.text(max_size=20)


def leaves(target):
    """Whether a browser that was sent to `target` from a page of ours would go to another host.

    As the URL standard has it: controls and spaces at the ends go, tabs and line ends go everywhere, a
    backslash is a slash; then a scheme or two slashes name another host.
    """
    seen = re.sub(r"[\t\n\r]", "", target.strip("".join(map(chr, range(0x21))))).replace("\\", "/")
    return bool(SCHEME.match(seen)) or seen.startswith("//")


@settings(max_examples=1_000)
@given(TARGETS)
@example("/\t/evil.example")
@example("/\\evil.example")
@example("\x01//evil.example")
@example("//evil.example/@hub.example")
@example("https:evil.example")
def test_sign_in_sends_nobody_elsewhere(target):
    given_back = safe_next(target)
    assert not leaves(given_back)
    assert given_back.startswith("/")
    assert given_back in (target, "/")
    assert not re.search(r"[\x00-\x20\x7f]", given_back)


@given(
    st.lists(st.text("abcXYZ019_-.~%éß", min_size=1, max_size=8), max_size=4),
    st.text("ab=&?%:/@", max_size=9),
)
def test_paths_of_this_site_are_kept(parts, query):
    target = "/" + "/".join(parts) + (f"?{query}" if query else "")
    assert safe_next(target) == target


@pytest.mark.parametrize(
    "target", [None, "", "nodes", "?of=all", "#x", "login", "//", "///x", "/a b", "/x\n"]
)
def test_what_is_no_path_leads_to_the_overview(target):
    assert safe_next(target) == "/"
    assert safe_next(target, "/keys") == "/keys"


def test_a_token_belongs_to_one_session():
    one, other = new_token(), new_token()
    assert csrf_matches(one, csrf_token(one))
    assert not csrf_matches(one, csrf_token(other))
    assert one not in csrf_token(one)


@given(
    st.text(st.characters(codec="utf-8"), max_size=80), st.text(st.characters(codec="latin-1"), max_size=60)
)
def test_nothing_else_is_taken_for_a_token(given_token, cookie):
    assert csrf_matches(cookie, given_token) is (given_token == csrf_token(cookie))


@given(st.integers(0, 63), st.characters(codec="utf-8"))
def test_a_token_with_one_character_changed_is_refused(place, character):
    token = csrf_token("cookie")
    changed = token[:place] + character + token[place + 1 :]
    assert csrf_matches("cookie", changed) is (changed == token)


def test_tokens_are_known_by_their_form():
    tokens = {new_token() for _ in range(200)}
    assert len(tokens) == 200
    assert all(is_token(token) for token in tokens)
    token = tokens.pop()
    for wrong in (
        "",
        token[:-1],
        token + "A",
        token + "\n",
        token[:-1] + "é",
        token[:-1] + ";",
        " " + token[1:],
    ):
        assert not is_token(wrong)


def test_pages_run_nothing_that_is_not_a_file_of_ours():
    policy = dict(part.split(" ", 1) for part in PAGE_HEADERS["content-security-policy"].split("; "))
    assert policy["default-src"] == "'self'"
    assert not {"script-src", "style-src", "script-src-elem", "connect-src"} & set(policy)
    assert (policy["base-uri"], policy["frame-ancestors"], policy["object-src"]) == ("'none'",) * 3
    assert "unsafe" not in PAGE_HEADERS["content-security-policy"]
