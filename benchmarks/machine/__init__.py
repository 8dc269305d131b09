"""The machine that is measured on: processes, their processor time, versions."""
