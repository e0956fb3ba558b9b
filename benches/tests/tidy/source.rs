//! A Rust file seen through a rule's eyes: comments and literals blanked, test code told apart.

use std::ops::Range;

/// One Rust file. `code` and `text` have the same lines, so a line found in one is the line of the other.
pub struct RustSource {
    pub path: String,
    pub text: String,
    /// The text with comments, strings and characters blanked: what is left is what the compiler acts on.
    pub code: String,
    /// `code` with everything under `#[cfg(test)]` blanked as well; empty where the file itself is a test.
    pub shipped: String,
}

impl RustSource {
    pub fn new(path: &str, text: &str) -> Self {
        let code = blank_comments_and_literals(text);
        let shipped = if is_test(path) { String::new() } else { blank_test_items(&code) };
        Self { path: path.to_owned(), text: text.to_owned(), code, shipped }
    }

    /// The top directory: `storage` for `storage/src/log.rs`.
    pub fn room(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    /// Whether the whole file is built for tests, measurements or examples only.
    pub fn is_test(&self) -> bool {
        is_test(&self.path)
    }

    /// Whether it is a program of its own around a library: the one that starts a simulated world stands outside it.
    pub fn is_program(&self) -> bool {
        self.path.contains("/src/bin/") || self.path.ends_with("/src/main.rs")
    }

    /// How many lines the file has without its test items.
    pub fn shipped_lines(&self) -> usize {
        if self.is_test() {
            return 0;
        }
        let of_tests: usize = test_items(&self.code).map(|item| self.text[item].lines().count()).sum();
        self.text.lines().count() - of_tests
    }
}

fn is_test(path: &str) -> bool {
    let of_those = |directory| path.contains(directory);
    path.ends_with("/tests.rs") || ["/tests/", "/benches/", "/examples/"].into_iter().any(of_those)
}

/// Lines (from 1) of `code` in which `word` stands as a whole identifier.
pub fn lines_with_word<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.lines().enumerate().filter(move |(_, line)| has_word(line, word)).map(|(index, _)| index + 1)
}

pub fn has_word(line: &str, word: &str) -> bool {
    let is_part = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(at, _)| {
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

/// Replaces every byte that is not a line end by a space, in `out`, over `range`.
fn blank(out: &mut [u8], range: Range<usize>) {
    out[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
}

fn blank_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => line_end(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !continues_identifier(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => at,
            },
            b'\'' => character_end(bytes, at).unwrap_or(at),
            _ => at,
        };
        blank(&mut out, at..end);
        at = end.max(at + 1);
    }
    String::from_utf8(out).expect("whole literals and comments are blanked, so no character is cut")
}

/// Whether the byte before `at` is part of the same identifier; the `b` and `c` of `br"…"` and `cr"…"` do not count.
fn continues_identifier(bytes: &[u8], at: usize) -> bool {
    let part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    match at.checked_sub(1).map(|before| bytes[before]) {
        Some(b'b' | b'c') => at >= 2 && part(&bytes[at - 2]),
        Some(byte) => part(&byte),
        None => false,
    }
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| at + length)
}

fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut depth, mut at) = (0_usize, at);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], r: usize) -> Option<usize> {
    let hashes = bytes[r + 1..].iter().take_while(|byte| **byte == b'#').count();
    let quote = r + 1 + hashes;
    if bytes.get(quote) != Some(&b'"') {
        return None;
    }
    let closing = format!("\"{}", "#".repeat(hashes));
    let body = &bytes[quote + 1..];
    let length = body.windows(closing.len()).position(|window| window == closing.as_bytes());
    Some(length.map_or(bytes.len(), |length| quote + 1 + length + closing.len()))
}

/// A character literal, not a lifetime: `'x'`, `'\n'`, `'\u{7f}'`.
fn character_end(bytes: &[u8], quote: usize) -> Option<usize> {
    let rest = std::str::from_utf8(&bytes[quote + 1..]).ok()?;
    let first = rest.chars().next()?;
    let body = if first == '\\' { 1 + rest[1..].chars().next()?.len_utf8() } else { first.len_utf8() };
    let closing = if rest.starts_with("\\u") { rest.find('\'')? } else { body };
    let closing = if rest.starts_with("\\x") { rest.find('\'')? } else { closing };
    (rest.as_bytes().get(closing) == Some(&b'\'')).then_some(quote + 1 + closing + 1)
}

fn blank_test_items(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    test_items(code).for_each(|item| blank(&mut out, item));
    String::from_utf8(out).expect("whole items are blanked")
}

/// Where `#[cfg(test)]` stands, up to the end of its block, or to the `;` of an item without one.
fn test_items(code: &str) -> impl Iterator<Item = Range<usize>> {
    const MARK: &str = "#[cfg(test)]";
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + code[from..].find(MARK)?;
        from = item_end(code.as_bytes(), start + MARK.len());
        Some(start..from)
    })
}

fn item_end(code: &[u8], from: usize) -> usize {
    let mut depth = 0_usize;
    for (at, byte) in code.iter().enumerate().skip(from) {
        match byte {
            b';' if depth == 0 => return at + 1,
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        RustSource::new("room/src/file.rs", text).code
    }

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let text = "let a = \"unsafe \\\" unsafe\"; // unsafe\n/* unsafe /* nested */ unsafe */ let b = 'u';\nlet c;";
        let code = code(text);
        assert!(!code.contains("unsafe"), "{code}");
        assert_eq!(code.len(), text.len());
        assert_eq!(code.lines().count(), 3);
        assert!(code.contains("let b =") && code.ends_with("let c;"));
    }

    #[test]
    fn raw_strings_end_where_they_end() {
        for text in
            ["r\"unsafe\" + x", "r#\"a \" unsafe\"# + x", "br##\"unsafe \"# \"## + x", "b\"unsafe\" + x"]
        {
            let code = code(text);
            assert!(!code.contains("unsafe") && code.ends_with("+ x"), "{text}: {code}");
        }
        assert!(code("for r in unsafe_r { bar\"s\" }").contains("unsafe_r"));
    }

    #[test]
    fn lifetimes_are_not_characters() {
        let code =
            code("fn f<'a>(x: &'a str) -> &'a str { unsafe { g('\\'', '\"', '\\u{7f}', '\\x7f') } } // '");
        assert!(code.contains("unsafe { g("), "{code}");
        assert!(!code.contains("7f"), "{code}");
    }

    #[test]
    fn test_items_are_not_shipped() {
        let text = "fn a() {}\n#[cfg(test)]\nuse x;\nfn b() {}\n\
             #[cfg(test)]\nmod tests {\n    fn c() { {} }\n}\nfn d() {}\n";
        let source = RustSource::new("room/src/file.rs", text);
        for kept in ["fn a", "fn b", "fn d"] {
            assert!(source.shipped.contains(kept), "{kept}: {}", source.shipped);
        }
        assert!(!source.shipped.contains("fn c") && !source.shipped.contains("use x"), "{}", source.shipped);
        assert_eq!(source.shipped_lines(), 3);
        assert_eq!(RustSource::new("room/tests/story.rs", text).shipped, "");
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe {", "unsafe"));
        assert!(!has_word("#![deny(unsafe_code)]", "unsafe"));
        assert_eq!(lines_with_word("a\nb a\nab\n", "a").collect::<Vec<_>>(), [1, 2]);
    }
}
