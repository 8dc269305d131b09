"""The QR code on the page is read by a reader that is not ours."""

import re

import numpy as np
import pytest
import zxingcpp

from hub import totp
from hub.portal.qr import qr_svg

SCALE = 4


def pixels(svg):
    """The picture as a browser draws it: a light square, and a dark one at each place of the path."""
    [size] = re.findall(r'viewBox="0 0 (\d+) \1"', svg)
    drawn = np.full((int(size), int(size)), 255, dtype=np.uint8)
    for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", svg):
        drawn[int(y), int(x)] = 0
    return drawn.repeat(SCALE, 0).repeat(SCALE, 1)


@pytest.mark.parametrize("account", ["ada@acme.example", f"{'long' * 50}@acme.example", "größe@acme.example"])
def test_a_phone_reads_what_the_app_needs(account):
    uri = totp.provisioning_uri(totp.new_secret(), account=account, issuer="Porten of Acme")
    [found] = zxingcpp.read_barcodes(pixels(qr_svg(uri)))
    assert found.text == uri


def test_it_carries_no_style_no_script_and_no_text():
    svg = qr_svg('otpauth://totp/<script>"x"')
    assert set(re.findall(r"<(\w+)", svg)) == {"svg", "rect", "path"}
    assert "style" not in svg
    assert "script" not in svg
