# Sourced after prepare.sh: what campaigns came to, one row each, kept in the repository.

ledger=docs/LEDGER.md

# ledger_row "CAMPAIGN | WHAT | VERDICT": adds a row for the commit at hand, marked where files differ from it.
ledger_row() {
  local commit
  if [ ! -f "$ledger" ]; then
    cat >"$ledger" <<'HEAD'
# Ledger

What campaigns came to, one row a run, oldest first; rows are only ever added. A commit with a `+` had
changes that were not committed.

| date | commit | campaign | what | verdict |
| --- | --- | --- | --- | --- |
HEAD
  fi
  commit=$(git rev-parse --short HEAD)
  [ -z "$(git status --porcelain -- . ":!$ledger")" ] || commit+=+
  printf '| %s | %s | %s |\n' "$(date -u +%F)" "$commit" "$1" >>"$ledger"
}
