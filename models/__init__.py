"""What a model is: catalog, file formats, memory estimate, disk store, sources and download."""
