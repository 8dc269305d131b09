"""The installer with the Hub's address in it."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.api.install import installer, with_hub_url


def test_the_shipped_installer_takes_an_address():
    script = with_hub_url(installer(), "https://hub.example:8420")
    assert "HUB_URL_DEFAULT=https://hub.example:8420\n" in script
    assert 'HUB_URL_DEFAULT=""' not in script


def test_an_installer_without_its_placeholder_is_not_served():
    with pytest.raises(ValueError, match="exactly once"):
        with_hub_url("#!/bin/sh\n", "https://hub.example")


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=30))
def test_the_shell_reads_back_whatever_was_filled_in(url):
    script = with_hub_url('HUB_URL_DEFAULT=""\nprintf %s "$HUB_URL_DEFAULT"', url)
    shown = subprocess.run(["/bin/sh"], input=script.encode(), capture_output=True, check=True, timeout=10)
    assert shown.stdout.decode() == url
