"""Draws a text as a QR code that a phone reads off the page.

Pure. An SVG inside the page, one path and no style: the pages' policy lets no other picture in, and nothing
is fetched. Knows nothing of what the text is.
"""

import segno

QUIET = 4
"""Modules of white around it, as the standard (ISO/IEC 18004) asks for."""


def qr_svg(text: str) -> str:
    """Return the `<svg>` element; what is read out beside it is the page's."""
    rows = tuple(segno.make(text, error="m", micro=False).matrix)
    size = len(rows) + 2 * QUIET
    dark = "".join(
        f"M{x + QUIET} {y + QUIET}h1v1h-1z"
        for y, row in enumerate(rows)
        for x, module in enumerate(row)
        if module
    )
    return (
        f'<svg class="qr" viewBox="0 0 {size} {size}" role="img" aria-label="QR code of the secret below">'
        f'<rect class="qr-light" width="{size}" height="{size}"/>'
        f'<path class="qr-dark" shape-rendering="crispEdges" d="{dark}"/></svg>'
    )
