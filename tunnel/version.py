"""The one version of the distribution; nodes and Hubs tell it to each other in HELLO and WELCOME."""

__version__ = "0.1.0"
