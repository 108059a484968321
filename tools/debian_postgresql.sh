#!/usr/bin/env bash
# Debian's PostgreSQL 15 beside the embedded 18, for the smoke test of a second major version.
# Never fatal: without it that test is skipped, and this says why.
set -uo pipefail

version=15
say() { printf 'servers: %s\n' "$*"; }

if [ -x "/usr/lib/postgresql/$version/bin/postgres" ]; then
    say "PostgreSQL $version is installed"
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "PostgreSQL $version is not installed; its smoke test is skipped (package postgresql-$version)"
    exit 0
fi

# Without this line the package makes a cluster of its own and starts it on port 5432.
config=/etc/postgresql-common/createcluster.conf
if ! grep -qs '^create_main_cluster' "$config"; then
    mkdir -p "${config%/*}"
    echo 'create_main_cluster = false' >>"$config"
fi
say "apt-get install postgresql-$version"
# The package would ask about the file just written: keep ours.
export DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1
if apt-get -qq update && apt-get -qq install -y --no-install-recommends "postgresql-$version" >/dev/null; then
    say "PostgreSQL $version is installed"
else
    say "could not install PostgreSQL $version; its smoke test is skipped"
fi
exit 0
