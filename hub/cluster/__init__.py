"""How several Hub processes share sessions and limits; one process needs only `local`."""
