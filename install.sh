#!/bin/sh
# Installs the Porten node for one user, without root, and never outside the user's own folders.
# Running it again upgrades what is there. `--dry-run` says what it would do, `--uninstall` takes it away.
#
# The whole script is one function called on its last line, so that a download cut short runs nothing.
set -eu

# A Hub that serves this file puts its own address here.
HUB_URL_DEFAULT=""

usage() {
  cat <<'EOF'
Install the Porten node: run inference on this machine for the Hub you choose.

usage: install.sh [options]

  --hub URL        the Hub to enroll with (default: the one that served this script)
  --from SOURCE    what pip installs: a wheel, a folder with the source, or a requirement
                   (default: the released package; pip's own settings and mirrors apply)
  --no-engine      leave the engine's environment for later (porten engines install llama_cpp)
  --no-login       do not enroll now
  --dry-run        print every step, change nothing
  --uninstall      remove the program and its engines; keeps models and identity
  --purge          with --uninstall: remove models, identity and settings too
  --help           this text

PORTEN_JOIN_TOKEN enrolls without a browser. Folders follow XDG_DATA_HOME, XDG_CONFIG_HOME, XDG_STATE_HOME.
EOF
}

say() { printf '%s\n' "$*"; }
step() { printf '\n==> %s\n' "$*"; }
fail() {
  printf 'install.sh: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf '            %s\n' "$2" >&2
  exit 1
}

# Runs a command, or with --dry-run only shows it.
run() {
  if [ "$dry_run" = yes ]; then
    printf '    would run:'
    printf ' %s' "$@"
    printf '\n'
  else
    "$@"
  fi
}

find_python() {
  for candidate in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11 python3; do
    if command -v "$candidate" >/dev/null 2>&1 &&
      "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return 0
    fi
  done
  return 1
}

package_hint() {
  # $1 Debian's name, $2 Fedora's, $3 Alpine's, $4 Homebrew's
  if command -v apt-get >/dev/null 2>&1; then say "sudo apt-get install $1"
  elif command -v dnf >/dev/null 2>&1; then say "sudo dnf install $2"
  elif command -v apk >/dev/null 2>&1; then say "sudo apk add $3"
  elif command -v brew >/dev/null 2>&1; then say "brew install $4"
  else say "install $1 with your package manager"
  fi
}

# Everything that can be missing is asked before anything is written.
check_machine() {
  case $(uname -s) in
    Linux | Darwin) ;;
    *) fail "Porten's node runs on Linux and macOS; this is $(uname -s)." ;;
  esac
  python=$(find_python) ||
    fail "Python 3.11 or newer is needed and was not found." "$(package_hint python3 python3 python3 python@3.12)"
  "$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python lacks the venv module." "$(package_hint python3-venv python3-libs python3 python@3.12)"
  if [ "$(uname -s)" = Linux ] && [ "$engine" = yes ] && ! has_openmp; then
    fail "The llama.cpp engine needs the OpenMP runtime (libgomp.so.1)." "$(package_hint libgomp1 libgomp libgomp libomp)"
  fi
}

has_openmp() {
  "$python" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null
}

has_nvidia() {
  [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null 2>&1
}

choose_extras() {
  extras=node
  if has_nvidia; then
    extras=node,nvidia
    hardware="NVIDIA GPU"
  else
    hardware="CPU"
  fi
}

# `--from` may be a folder or a wheel, where extras are written behind the path, or a requirement.
requirement() {
  case $source in
    '') say "porten[${extras}]" ;;
    *.whl | /* | ./* | ../* | .) say "${source}[${extras}]" ;;
    *) say "$source" ;;
  esac
}

install_program() {
  step "Installing the program for $hardware into $venv"
  if [ -d "$venv" ] && ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    say "    the environment there is incomplete; making it anew"
    run rm -rf "$venv"
  fi
  if [ ! -d "$venv" ]; then
    run mkdir -p "$data"
    run chmod 700 "$data"
    run "$python" -m venv "$venv"
  fi
  run "$venv/bin/python" -m pip install --disable-pip-version-check --upgrade "$(requirement)"
}

link_program() {
  step "Linking $link"
  if [ -e "$link" ] && [ ! -L "$link" ]; then
    fail "$link exists and is not a link of ours." "Move it away and run this again."
  fi
  run mkdir -p "$bin"
  run ln -sf "$venv/bin/porten" "$link"
  case ":$PATH:" in
    *":$bin:"*) ;;
    *) say "    $bin is not in your PATH; add this to your shell's profile:"
       say "    export PATH=\"$bin:\$PATH\"" ;;
  esac
}

install_engine() {
  [ "$engine" = yes ] || return 0
  step "Installing the engine's own environment"
  run "$venv/bin/porten" engines install llama_cpp
}

enroll() {
  if [ -e "$data/identity/credential.jwt" ]; then
    step "This machine is enrolled already"
    say "    start it with: porten run"
    return 0
  fi
  if [ -z "$hub" ]; then
    step "Installed. Next: porten login --hub https://your-hub.example"
    return 0
  fi
  if [ "$login" = no ]; then
    step "Installed. Next: porten login --hub $hub"
  elif [ -n "${PORTEN_JOIN_TOKEN:-}" ]; then
    step "Enrolling with the join token"
    run "$venv/bin/porten" login --hub "$hub"
  elif [ -t 1 ] && [ -r /dev/tty ]; then
    step "Enrolling with $hub"
    # Piped into sh, standard input is this script; the person is at the terminal.
    run "$venv/bin/porten" login --hub "$hub" </dev/tty
  else
    step "Installed. There is no terminal to enroll from; next: porten login --hub $hub"
  fi
}

uninstall() {
  step "Removing the program"
  if [ -L "$link" ] && [ "$(readlink "$link")" = "$venv/bin/porten" ]; then
    run rm -f "$link"
  fi
  run rm -rf "$venv" "$data/engines"
  if [ "$purge" = yes ]; then
    step "Removing models, identity and settings"
    run rm -rf "$data" "$state" "$config"
    say "    The Hub still lists this node until somebody revokes it there."
  else
    say "    Kept: models and identity in $data, settings in $config (--purge removes them)."
  fi
}

# $1 option, $2 number of arguments left
needs_value() { [ "$2" -ge 2 ] || { printf "install.sh: %s needs a value; see install.sh --help\n" "$1" >&2; exit 2; }; }

main() {
  hub=$HUB_URL_DEFAULT source="" engine=yes login=yes dry_run=no action=install purge=no
  while [ $# -gt 0 ]; do
    case $1 in
      --hub) needs_value "$1" $#; hub=$2; shift ;;
      --hub=*) hub=${1#*=} ;;
      --from) needs_value "$1" $#; source=$2; shift ;;
      --from=*) source=${1#*=} ;;
      --no-engine) engine=no ;;
      --no-login) login=no ;;
      --dry-run) dry_run=yes ;;
      --uninstall) action=uninstall ;;
      --purge) purge=yes ;;
      --help | -h) usage; exit 0 ;;
      *) printf 'install.sh: unknown option %s; see install.sh --help\n' "$1" >&2; exit 2 ;;
    esac
    shift
  done
  [ -n "${HOME:-}" ] || fail "HOME is not set." "Run this as the user who will own the node."
  case $hub in
    '' | http://?* | https://?*) ;;
    *) fail "--hub wants a URL such as https://hub.example.org, not '$hub'." ;;
  esac
  data=${XDG_DATA_HOME:-$HOME/.local/share}/porten
  config=${XDG_CONFIG_HOME:-$HOME/.config}/porten
  state=${XDG_STATE_HOME:-$HOME/.local/state}/porten
  venv=$data/venv bin=$HOME/.local/bin
  link=$bin/porten

  if [ "$action" = uninstall ]; then
    uninstall
    return 0
  fi
  [ "$purge" = no ] || fail "--purge goes with --uninstall."
  check_machine
  choose_extras
  install_program
  link_program
  install_engine
  enroll
}

main "$@"
