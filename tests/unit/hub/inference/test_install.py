"""The installer with what it is to know of its Hub in it."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.api.install import filled_in, installer

VALUES = {
    "HUB_URL_DEFAULT": "https://hub.example:8420",
    "PROGRAM_FILE": "porten-1-py3-none-any.whl",
    "PROGRAM_SHA256": "ab",
}


def test_the_shipped_installer_takes_what_it_is_to_know():
    script = filled_in(installer(), VALUES)
    for name, value in VALUES.items():
        assert f"\n{name}={value}\n" in script
        assert f'{name}=""' not in script


@pytest.mark.parametrize("name", VALUES)
def test_an_installer_without_a_place_for_it_is_not_served(name):
    script = installer().replace(f'\n{name}=""\n', "\n")
    with pytest.raises(ValueError, match="exactly once"):
        filled_in(script, VALUES)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=30))
def test_the_shell_reads_back_whatever_was_filled_in(url):
    script = filled_in('HUB_URL_DEFAULT=""\nprintf %s "$HUB_URL_DEFAULT"', {"HUB_URL_DEFAULT": url})
    shown = subprocess.run(["/bin/sh"], input=script.encode(), capture_output=True, check=True, timeout=10)
    assert shown.stdout.decode() == url
