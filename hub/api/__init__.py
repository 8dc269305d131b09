"""The HTTP surface: thin adapters from requests to the domain and back."""
