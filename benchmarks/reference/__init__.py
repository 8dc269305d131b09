"""This project's own figures: how they are made, told and kept."""
