"""Benchmarks: measure any OpenAI-compatible endpoint, and this project itself."""
