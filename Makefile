# Every target bootstraps what it needs: a clone and `make demo` is all a newcomer types.
