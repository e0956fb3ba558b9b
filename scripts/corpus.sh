# Sourced after prepare.sh: real text that is always there, and the proof that it came back.

# make_corpus FILE [PASSES]: the sources of our locked dependencies, all text files of them, one line of FILE a record:
# `path:number:text`. The path will be the key; path and number make every line unlike every other, so that a line
# lost, repeated or out of order shows. With PASSES the same text follows again under other keys (`2/path`, …).
make_corpus() {
  local file=$1 passes=${2:-1} vendor=target/corpus/vendor stamp
  stamp="$(sha256sum Cargo.lock | cut -c1-16) $passes"
  if [ -s "$file" ] && [ "$(cat "$file.stamp" 2>/dev/null)" = "$stamp" ]; then
    return
  fi
  rm -rf "$vendor" "$file" "$file.stamp"
  mkdir -p "$(dirname "$file")"
  cargo vendor --locked --quiet --versioned-dirs "$vendor" >/dev/null
  local pass
  for ((pass = 1; pass <= passes; pass++)); do
    # -I leaves out what is not text; a run of grep over files without a line is no fault (xargs reports it as 123).
    (cd "$vendor" && find . -type f ! -name '*:*' ! -name .cargo-checksum.json -print0 | LC_ALL=C sort -z \
      | LC_ALL=C xargs -0 grep -InH '' || [ $? = 123 ]) | LC_ALL=C sed "s|^\./|$pass/|" >>"$file"
  done
  echo "$stamp" >"$file.stamp"
}

# check_read_back CORPUS READ: READ holds the records as `key:number:text`, in the order they were consumed. Within each
# key the numbers must run 1, 2, 3, …; a number already seen is a record that was sent again after a lost
# acknowledgement, which may be until producers are idempotent: counted, and left out. What then remains, brought
# together by key (a stable sort: the order within a key stays), must be the corpus, byte for byte.
# Sets repeated, corpus_hash, read_hash; ends the script if anything is lost, altered or out of order.
check_read_back() {
  local corpus=$1 read=$2 counts=$2.counts sorting=(env LC_ALL=C sort --stable -t: -k1,1 --temporary-directory=target)
  corpus_hash=$("${sorting[@]}" "$corpus" | sha256sum | cut -c1-64)
  read_hash=$(LC_ALL=C awk -v counts="$counts" '
    {
      colon = index($0, ":"); key = substr($0, 1, colon - 1); number = substr($0, colon + 1, 20) + 0
      if (number == last[key] + 1) { last[key] = number; print }
      else if (number <= last[key]) repeated++
      else if (missing++ < 5) print "not in order: " key ": " number " after " last[key] + 0 >"/dev/stderr"
    }
    END { print repeated + 0, missing + 0 >counts }' "$read" | "${sorting[@]}" | sha256sum | cut -c1-64)
  local missing
  read -r repeated missing <"$counts"
  [ "$missing" = 0 ] || die "$missing lines stand where an earlier one of their key is missing"
  [ "$corpus_hash" = "$read_hash" ] || die "what came back is not what went in: sha256 $read_hash, not $corpus_hash"
}
