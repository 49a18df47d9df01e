#!/usr/bin/env bash
# Installs what building and testing need and this machine lacks. Made for Debian 12; quiet and without any
# effect when nothing is missing, so it may run before every test.
set -euo pipefail

# A probe that succeeds when the package's job can be done, and the package.
needs=(
    "command -v cc                          => gcc libc6-dev"
    "command -v c++                         => g++"
    "python3 -c 'import ensurepip, venv'    => python3-venv"
    "command -v ip                          => iproute2"
    "command -v redis-server                => redis-server"
)

missing=()
for need in "${needs[@]}"; do
    if ! bash -c "${need%%=>*}" >/dev/null 2>&1; then
        read -r -a packages <<<"${need##*=>}"
        missing+=("${packages[@]}")
    fi
done

if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust from https://rustup.rs; rust-toolchain.toml names the version" >&2
    exit 1
fi
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root=()
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    as_root=(sudo -n)
else
    as_root=()
    root_needed=1
fi
if [ -n "${root_needed:-}" ] || ! command -v apt-get >/dev/null; then
    echo "missing for the tests: ${missing[*]} (names as in Debian 12)" >&2
    echo "install them and run this again, or run this as root on Debian" >&2
    exit 1
fi

echo "installing ${missing[*]}" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -q --no-install-recommends "${missing[@]}"
}
if ! { "${as_root[@]}" apt-get update -q && install; } >"$log" 2>&1; then
    cat "$log" >&2
    exit 1
fi
