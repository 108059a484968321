#!/usr/bin/env bash
# Makes .venv from the pinned requirements, once: a stamp holds what it was made from.
# PYTHON= names the interpreter. As root it may apt-get what is missing; anybody else is told what to ask for.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022

say() { printf 'setup: %s\n' "$*" >&2; }

usable() { # usable PYTHON: is it 3.11 or later, with venv and ensurepip?
    command -v "$1" >/dev/null 2>&1 &&
        "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

candidates() { # PYTHON= alone; else the one .venv has; else Debian's own, which every user can run; else PATH
    local version
    if [ -n "${PYTHON:-}" ]; then echo "$PYTHON"; return; fi
    sed -n 's/^interpreter //p' .venv/setup.stamp 2>/dev/null || true
    echo /usr/bin/python3
    for version in "" .14 .13 .12 .11; do command -v "python3$version" || true; done
}

find_python() {
    local one
    for one in $(candidates); do
        if usable "$one"; then command -v "$one"; return; fi
    done
    return 1
}

python_or_help() {
    if find_python; then return; fi
    if [ -z "${PYTHON:-}" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "no Python 3.11 with venv found: apt-get install python3 python3-venv"
        apt-get -qq update >/dev/null || true
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y python3 python3-venv >/dev/null || true
        if find_python; then return; fi
    fi
    say "needs Python 3.11 or later with the modules venv and ensurepip; tried:" $(candidates)
    say "ask for the packages python3 and python3-venv, or name one: make setup PYTHON=/path/to/python3"
    return 1
}

stamp() { # what .venv depends on: interpreter and place; then pins, metadata above the tools, and this script
    echo "interpreter $1"
    { "$1" -VV; echo "$PWD"; } | sha256sum | sed 's/^/base /'
    { cat requirements/*.txt tools/setup.sh; sed '/^# --- tools/,$d' pyproject.toml; } | sha256sum
}

same_base() { # may the .venv that is there be kept and brought up to date?
    [ -x .venv/bin/python ] && cmp -s <(head -2 <<<"$1") <(head -2 .venv/setup.stamp 2>/dev/null)
}

main() {
    local python wanted
    mkdir -p .cache
    exec 9>.cache/setup.lock
    if command -v flock >/dev/null; then flock 9; fi # two makes at once: the second finds it done
    python=$(python_or_help)
    wanted=$(stamp "$python")
    if [ "$(cat .venv/setup.stamp 2>/dev/null || true)" = "$wanted" ]; then return; fi
    if same_base "$wanted"; then
        say "bringing .venv up to date"
    else
        say "making .venv with $python ($("$python" -V 2>&1))"
        "$python" -m venv --clear .venv
    fi
    .venv/bin/python -m pip --disable-pip-version-check -qq install -r requirements/dev.txt 9>&-
    .venv/bin/python -m pip --disable-pip-version-check -qq install --no-deps --no-build-isolation -e . 9>&-
    echo "$wanted" >.venv/setup.stamp
    .venv/bin/python -m compileall -q src # daemons start faster; also where writing it is switched off
    say "done: .venv/bin/ramd and .venv/bin/ramctrl"
}

main
