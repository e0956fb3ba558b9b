# Sourced by the other scripts: stands in the repository's root, with a Rust toolchain and a C compiler at hand.
#
# On a bare Debian it installs what is missing with apt-get and says so; on a machine that has everything it
# does nothing. It never removes a package and never replaces a toolchain that you chose yourself.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/target/tools/bin:${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

say() { printf '\n==> %s\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

# The oldest Rust that builds this, as Cargo.toml says it: one place for the number.
rust_wanted=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml)

at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }
rust_found() { rustc --version 2>/dev/null | sed 's/^rustc \([0-9.]*\).*/\1/'; }
rust_is_new_enough() { command -v cargo >/dev/null && at_least "$rust_wanted" "$(rust_found)"; }

apt_updated=no
apt_install() {
  command -v apt-get >/dev/null || die "this machine has no apt-get: install $* by hand, then run me again"
  [ "$(id -u)" = 0 ] || die "$* must be installed: run me as root, or run: apt-get install $*"
  say "apt-get install $*"
  if [ "$apt_updated" = no ]; then
    apt-get update -q || die "apt-get update failed: are the package registries reachable?"
    apt_updated=yes
  fi
  # --no-remove: Debian's newer toolchain conflicts with its older one; whoever chose that one decides.
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-remove --no-install-recommends "$@" \
    || die "apt-get could not install $* (see above)"
}
apt_candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9][0-9.]*\).*/\1/p'; }

# Debian 12 and 13 carry a current Rust beside their own old one, kept so for the web browsers:
# the packages whose names end in -web. Later releases have it under the plain names.
install_rust() {
  local have
  have=$(rust_found || true)
  if [ -n "$have" ] && command -v rustup >/dev/null; then
    die "rustc $have is older than $rust_wanted: run 'rustup update stable', then run me again"
  fi
  apt_install ca-certificates
  if at_least "$rust_wanted" "$(apt_candidate rustc-web)"; then
    apt_install rustc-web cargo-web rustfmt-web rust-web-clippy
  elif at_least "$rust_wanted" "$(apt_candidate rustc)"; then
    apt_install rustc cargo rustfmt rust-clippy
  fi
  hash -r
  rust_is_new_enough || die "no Rust >= $rust_wanted in this system's package registry (found: ${have:-none}):" \
    "install it from https://rustup.rs, then run me again"
}

need_rust() {
  rust_is_new_enough || install_rust
  # Some dependencies carry C and C++ (zstd, liburing, librdkafka): compilers and make.
  { command -v cc && command -v c++ && command -v make; } >/dev/null || apt_install build-essential
}

need_rust_checkers() {
  cargo fmt --version >/dev/null 2>&1 && cargo clippy --version >/dev/null 2>&1 && return
  if command -v rustup >/dev/null; then
    say "rustup component add rustfmt clippy"
    rustup component add rustfmt clippy
  else
    install_rust
  fi
}
