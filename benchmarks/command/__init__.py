"""What the commands share: options and their reading, the terminal, progress."""
