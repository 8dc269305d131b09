"""Adapters to the engines, one module each, independent of each other."""
