"""Results as documents and as pages."""
