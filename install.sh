#!/bin/sh
# Installs the Porten node for one user, without root, and never outside the user's own folders.
# Running it again upgrades what is there (`porten upgrade`). `--dry-run` says what it would do, `--uninstall` takes it away.
#
# The whole script is one function called on its last line, so that a download cut short runs nothing.
set -eu

# A Hub that serves this file puts its own address here, and the program that it hands out.
HUB_URL_DEFAULT=""
PROGRAM_FILE=""
PROGRAM_SHA256=""

usage() {
  cat <<'EOF'
Install the Porten node: run inference on this machine for the Hub you choose.

usage: install.sh [options]

  --hub URL        the Hub to enroll with (default: the one that served this script)
  --from SOURCE    what pip installs: a wheel, a folder with the source, or a requirement
                   (default: the program of the Hub that served this script, else the released package;
                   what it needs comes from pip's index, whose settings and mirrors apply)
  --no-engine      leave the engine's environment for later (porten engines install llama_cpp)
  --no-login       do not enroll now
  --dry-run        print every step, change nothing
  --uninstall      remove the program and its engines; keeps models and identity
  --purge          with --uninstall: remove models, identity and settings too
  --help           this text

PORTEN_JOIN_TOKEN enrolls without a browser. PORTEN_HUB_CA_FILE names a further authority that vouches for the
Hub's certificate. Folders follow XDG_DATA_HOME, XDG_CONFIG_HOME, XDG_STATE_HOME.
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

# A Hub hands out the program that it runs itself: no index needs to have it, and nobody else can put another in its place.
fetch_program() {
  [ -z "$source" ] && [ -n "$PROGRAM_FILE" ] || return 0
  step "Fetching the program of $HUB_URL_DEFAULT"
  if [ "$dry_run" = yes ]; then
    say "    would fetch: $HUB_URL_DEFAULT/install/$PROGRAM_FILE"
    source=./$PROGRAM_FILE
    return 0
  fi
  fetched=$(mktemp -d)
  trap 'rm -rf "$fetched"' EXIT
  source=$fetched/$PROGRAM_FILE
  "$python" - "$HUB_URL_DEFAULT/install/$PROGRAM_FILE" "$source" "$PROGRAM_SHA256" <<'EOF' ||
import hashlib, os, ssl, sys, urllib.request
url, target, wanted = sys.argv[1:]
try:
    context = ssl.create_default_context()
    if os.environ.get("PORTEN_HUB_CA_FILE"):
        context.load_verify_locations(cafile=os.environ["PORTEN_HUB_CA_FILE"])
    with urllib.request.urlopen(url, timeout=60, context=context) as answer:
        data = answer.read()
except (OSError, ValueError) as error:
    sys.exit(f"    {error}")
if hashlib.sha256(data).hexdigest() != wanted:
    sys.exit("    what came is not the program that this script names; the Hub may just have changed its version")
with open(target, "wb") as file:
    file.write(data)
EOF
    fail "$HUB_URL_DEFAULT/install/$PROGRAM_FILE could not be had; it says above why." "Fetch install.sh again and run it."
}

# `porten upgrade` goes on with whoever handed the program out.
note_origin() {
  [ "$dry_run" = no ] || return 0
  if [ -n "${fetched:-}" ]; then
    printf '%s\n' "$HUB_URL_DEFAULT" >"$program/from-hub"
  else
    rm -f "$program/from-hub"
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

# Until `porten upgrade` came, there was one environment, which an upgrade changed under a node that ran from it.
check_older_layout() {
  [ -d "$old" ] || return 0
  for file in "$user_unit" "$agent" "$system_unit"; do
    if [ -f "$file" ] && grep -qF "$old/bin/porten" "$file"; then
      fail "The service ($file) runs the program of the older layout, $old." \
        "End it with: porten service uninstall. Then run this again, and: porten service install"
    fi
  done
  if "$old/bin/porten" status >/dev/null 2>&1; then
    fail "A node runs from the older layout, $old." "Stop it with: porten stop. Then run this again."
  fi
}

remove_older_layout() {
  [ -d "$old" ] || return 0
  step "Removing the older layout, $old"
  run rm -rf "$old"
}

# What works is upgraded by itself; whatever else is there is made anew beside it.
install_or_upgrade() {
  if "$program/current/bin/porten" --version >/dev/null 2>&1; then
    upgraded=yes
    upgrade_program
  else
    upgraded=no
    install_program
    use_program
  fi
}

upgrade_program() {
  step "Upgrading the program in $program"
  case $source in
    '') run "$venv/bin/porten" upgrade ;;
    *.whl | /* | ./* | ../* | .) run "$venv/bin/porten" upgrade --from "$source" ;;
    *) fail "The program is installed already." "Another version: porten upgrade --to VERSION" ;;
  esac || fail "The upgrade did not work; it says above why."
}

# A directory per version; `current` names the one that is used (runtime/versions.py).
install_program() {
  new=$program/versions/installed-$(date -u +%Y%m%dT%H%M%SZ)
  step "Installing the program for $hardware into $new"
  run mkdir -p "$program/versions"
  run chmod 700 "$data"
  run "$python" -m venv "$new"
  say "    fetching and unpacking; this takes a minute or two"
  run "$new/bin/python" -m pip install --quiet --disable-pip-version-check "$(requirement)" || give_up_program
}

# The link is replaced in one step: nobody sees it missing.
use_program() {
  run "$python" -c 'import os, sys; os.symlink(sys.argv[1], sys.argv[2]); os.replace(sys.argv[2], sys.argv[3])' \
    "versions/${new##*/}" "$program/.current.$$" "$program/current"
}

# What this run began is not left half-made.
give_up_program() {
  rm -rf "$new"
  if [ -n "$source" ]; then
    fail "pip could not install $(requirement); it says above why."
  fi
  fail "pip could not install $(requirement); it says above why." \
    "Without a package index that has it, name a wheel or a folder with the source: install.sh --from PATH"
}

link_program() {
  step "Linking $link"
  if [ -e "$link" ] && [ ! -L "$link" ]; then
    fail "$link exists and is not a link of ours." "Move it away and run this again."
  fi
  run mkdir -p "$bin"
  run ln -sfn "$venv/bin/porten" "$link"
}

# Last of all, so that it stands beside the commands that need it.
hint_at_path() {
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

is_enrolled() { [ -e "$data/identity/credential.jwt" ]; }

enroll() {
  if is_enrolled; then
    step "$installed This machine is enrolled already"
    say_how_to_start
    return 0
  fi
  if [ -z "$hub" ]; then
    step "$installed Next: porten login --hub https://your-hub.example"
    return 0
  fi
  if [ "$login" = no ]; then
    step "$installed Next: porten login --hub $hub"
  elif [ -n "${PORTEN_JOIN_TOKEN:-}" ]; then
    step "Enrolling with the join token"
    run "$venv/bin/porten" login --hub "$hub"
  elif [ -t 1 ] && [ -r /dev/tty ]; then
    step "Enrolling with $hub"
    # Piped into sh, standard input is this script; the person is at the terminal.
    run "$venv/bin/porten" login --hub "$hub" </dev/tty
  else
    step "$installed There is no terminal to enroll from; next: porten login --hub $hub"
  fi
}

say_how_to_start() {
  [ "$upgraded" = no ] || return 0
  if "$venv/bin/porten" status >/dev/null 2>&1; then
    say "    the node that runs is still the one from before; restart it: porten stop, then porten run"
    say "    (where a service runs it, restart the service)"
  else
    say "    start it with: porten run"
  fi
}

# A node must not go on without the files it runs from.
stop_node() {
  [ -x "$venv/bin/porten" ] || return 0
  step "Stopping the node, if it runs"
  run "$venv/bin/porten" stop && return 0
  # Without a socket none runs, whatever keeps the program from saying so.
  [ -S "$data/state/porten.sock" ] || return 0
  fail "The node could not be stopped; nothing was removed." \
    "Stop it, or delete $data/state/porten.sock if none runs, and run this again."
}

# The machine would go on starting what is no longer there.
end_service() {
  for file in "$user_unit" "$agent"; do
    [ -f "$file" ] && [ -x "$venv/bin/porten" ] || continue
    step "Ending the service"
    run "$venv/bin/porten" service uninstall ||
      fail "The service could not be ended; nothing was removed." "Delete $file and run this again."
  done
  [ ! -f "$system_unit" ] ||
    say "    The system's own service stays: sudo rm $system_unit ends it for good."
}

uninstall() {
  [ -e "$venv" ] || [ ! -d "$old" ] || venv=$old
  end_service
  stop_node
  step "Removing the program"
  if [ -L "$link" ] && [ "$(readlink "$link")" = "$venv/bin/porten" ]; then
    run rm -f "$link"
  fi
  run rm -rf "$program" "$old" "$data/engines"
  if [ "$purge" = yes ]; then
    purge_data
  else
    say_what_is_kept
  fi
}

purge_data() {
  enrolled=no
  ! is_enrolled || enrolled=yes
  step "Removing models, identity and settings"
  run rm -rf "$data" "$state" "$config"
  [ "$enrolled" = no ] || say "    The Hub still lists this node until somebody revokes it there."
}

say_what_is_kept() {
  kept=""
  [ ! -d "$data/models" ] || kept="models in $data/models"
  ! is_enrolled || kept="${kept:+$kept, }identity in $data/identity"
  [ ! -d "$config" ] || kept="${kept:+$kept, }settings in $config"
  [ -z "$kept" ] || say "    Kept: $kept (--purge removes them)."
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
  program=$data/program old=$data/venv bin=$HOME/.local/bin
  venv=$program/current
  user_unit=${XDG_CONFIG_HOME:-$HOME/.config}/systemd/user/porten.service
  agent=$HOME/Library/LaunchAgents/org.porten.node.plist
  system_unit=/etc/systemd/system/porten.service
  link=$bin/porten
  installed="Installed."
  [ "$dry_run" = no ] || installed="Nothing was changed; that is what an installation would do."

  if [ "$action" = uninstall ]; then
    uninstall
    return 0
  fi
  [ "$purge" = no ] || fail "--purge goes with --uninstall."
  check_machine
  choose_extras
  check_older_layout
  fetch_program
  install_or_upgrade
  note_origin
  link_program
  remove_older_layout
  install_engine
  enroll
  hint_at_path
}

main "$@"
