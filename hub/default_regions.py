"""The regions a new Hub starts with.

Owns the list. It is a beginning, not a rule: ``porten-hub regions add`` extends it, and a code may be as fine
as a rack. Countries stand under a continent's code only where one law covers them, which is what keys ask
for.
"""

from __future__ import annotations

from hub.storage.records import Region

DEFAULT_REGIONS = tuple(
    Region(code, parent, name)
    for code, parent, name in (
        ("eu", None, "European Union"),
        ("eu-at", "eu", "Austria"),
        ("eu-be", "eu", "Belgium"),
        ("eu-de", "eu", "Germany"),
        ("eu-de-fra", "eu-de", "Frankfurt"),
        ("eu-dk", "eu", "Denmark"),
        ("eu-es", "eu", "Spain"),
        ("eu-fi", "eu", "Finland"),
        ("eu-fr", "eu", "France"),
        ("eu-ie", "eu", "Ireland"),
        ("eu-it", "eu", "Italy"),
        ("eu-nl", "eu", "Netherlands"),
        ("eu-pl", "eu", "Poland"),
        ("eu-se", "eu", "Sweden"),
        ("ch", None, "Switzerland"),
        ("no", None, "Norway"),
        ("uk", None, "United Kingdom"),
        ("us", None, "United States"),
        ("us-central", "us", "United States, central"),
        ("us-east", "us", "United States, east"),
        ("us-west", "us", "United States, west"),
        ("ca", None, "Canada"),
        ("au", None, "Australia"),
        ("br", None, "Brazil"),
        ("in", None, "India"),
        ("jp", None, "Japan"),
        ("sg", None, "Singapore"),
    )
)
"""Parents before their children, as storage takes them."""
