"""From what was seen to figures; pure."""
