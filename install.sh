#!/bin/sh
# Installs the Porten node for one user, without root.
set -eu
