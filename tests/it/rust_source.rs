//! Just enough reading of Rust source to know which paths a file names, with the standard library
//! only: comments, strings and characters are dropped, `use` trees are expanded, `super` is resolved.
//!
//! Not a parser: macros are read as plain tokens, so a path that a macro assembles is not seen.

/// A word, a `::`, or one other character, with the line on which it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A path as written, `super` and `self` resolved to `crate::…`, with the line on which it starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) segments: Vec<String>,
    pub(crate) line: usize,
    /// Inside a `#[cfg(test)]` module.
    pub(crate) in_test: bool,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Drops what is not code.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let chars: Vec<char> = source.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut found = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                while i < chars.len() {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 {
                        break;
                    }
                }
            }
            '"' => i = end_of_string(&chars, i),
            'r' | 'b' | 'c' if end_of_prefixed(&chars, i).is_some() => {
                i = end_of_prefixed(&chars, i).unwrap_or(i + 1);
            }
            // A character, unless it is a lifetime or a label.
            '\'' if at(i + 1) == '\\' => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            '\'' if at(i + 2) == '\'' => i += 3,
            ':' if at(i + 1) == ':' => {
                found.push(Token { text: "::".to_owned(), line });
                i += 2;
            }
            c if c.is_alphanumeric() || c == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                found.push(Token { text: chars[start..i].iter().collect(), line });
            }
            c if c.is_whitespace() => i += 1,
            c => {
                found.push(Token { text: c.to_string(), line });
                i += 1;
            }
        }
        i = i.min(chars.len());
        line += chars[start..i].iter().filter(|c| **c == '\n').count();
    }
    found
}

/// The end of the string that opens at `i`.
fn end_of_string(chars: &[char], i: usize) -> usize {
    let mut i = i + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// The end of a raw, byte or C string, or of a byte, that opens at `i`, if one does.
fn end_of_prefixed(chars: &[char], i: usize) -> Option<usize> {
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    if i > 0 && (at(i - 1).is_alphanumeric() || at(i - 1) == '_') {
        return None;
    }
    let mut j = i;
    let mut raw = false;
    while matches!(at(j), 'r' | 'b' | 'c') && j < i + 2 {
        raw |= at(j) == 'r';
        j += 1;
    }
    if !raw {
        return match at(j) {
            '"' => Some(end_of_string(chars, j)),
            '\'' if at(i) == 'b' => {
                let close = if at(j + 1) == '\\' { j + 3 } else { j + 2 };
                (close..chars.len()).find(|k| at(*k) == '\'').map(|k| k + 1)
            }
            _ => None,
        };
    }
    let hashes = (j..).take_while(|k| at(*k) == '#').count();
    if at(j + hashes) != '"' {
        return None;
    }
    let close = |k: usize| at(k) == '"' && (1..=hashes).all(|h| at(k + h) == '#');
    Some((j + hashes + 1..chars.len()).find(|k| close(*k)).map_or(chars.len(), |k| k + 1 + hashes))
}

/// Every path that `source` names. `module` is the file's own: `["repo", "pack"]` for `src/repo/pack.rs`.
pub(crate) fn paths(source: &str, module: &[&str]) -> Vec<Named> {
    let tokens = tokens(source);
    let text = |i: usize| tokens.get(i).map_or("", |t| t.text.as_str());
    let mut here: Vec<String> = module.iter().map(|m| (*m).to_owned()).collect();
    // Where each enclosing inline module opened: brace depth, and whether it is of tests.
    let mut inside: Vec<(usize, bool)> = Vec::new();
    let mut found = Vec::new();
    let (mut i, mut depth) = (0, 0usize);
    let mut test_item = false;
    while i < tokens.len() {
        let in_test = inside.iter().any(|(_, test)| *test);
        if text(i) == "#" && (i..i + 7).map(text).eq(["#", "[", "cfg", "(", "test", ")", "]"]) {
            test_item = true;
            i += 7;
        } else if text(i) == "mod" && is_word(text(i + 1)) && text(i + 2) == "{" {
            here.push(text(i + 1).to_owned());
            inside.push((depth, test_item));
            (depth, i, test_item) = (depth + 1, i + 3, false);
        // `impl Trait + use<'a>` names lifetimes, not a path.
        } else if text(i) == "use" && text(i + 1) != "<" {
            let mut imported = Vec::new();
            let line = tokens[i].line;
            i = use_tree(&tokens, i + 1, &[], &mut imported);
            found.extend(imported.into_iter().map(|path| Named { segments: resolve(path, &here), line, in_test }));
            test_item = false;
        } else if starts_path(&tokens, i) {
            let line = tokens[i].line;
            let mut segments = vec![text(i).to_owned()];
            i += 1;
            while text(i) == "::" && is_word(text(i + 1)) {
                segments.push(text(i + 1).to_owned());
                i += 2;
            }
            found.push(Named { segments: resolve(segments, &here), line, in_test });
        } else {
            match text(i) {
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    if inside.last().is_some_and(|(opened, _)| *opened == depth) {
                        inside.pop();
                        here.pop();
                    }
                }
                ";" => test_item = false,
                _ => {}
            }
            i += 1;
        }
    }
    found
}

/// Whether a path of two or more segments, or a crate after `extern crate`, starts at `i`.
fn starts_path(tokens: &[Token], i: usize) -> bool {
    let text = |i: Option<usize>| i.and_then(|i| tokens.get(i)).map_or("", |t| t.text.as_str());
    let before = text(i.checked_sub(1));
    let leading = before == "::" && !is_word(text(i.checked_sub(2))) && text(i.checked_sub(2)) != ">";
    is_word(text(Some(i)))
        && (before != "::" || leading)
        && (text(Some(i + 1)) == "::" || (before == "crate" && text(i.checked_sub(2)) == "extern"))
}

/// Reads a `use` tree up to its end and adds each leaf's path; returns where it stopped.
fn use_tree(tokens: &[Token], mut i: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let text = |i: usize| tokens.get(i).map_or("", |t| t.text.as_str());
    let mut path = prefix.to_vec();
    while i < tokens.len() {
        match text(i) {
            "{" => {
                i += 1;
                while !matches!(text(i), "}" | ";" | "") {
                    i = use_tree(tokens, i, &path, found);
                    if text(i) == "," {
                        i += 1;
                    }
                }
                return i + 1;
            }
            "," | "}" | ";" => break,
            "as" => {
                i += 2;
                continue;
            }
            "::" => {}
            "self" if !prefix.is_empty() => {}
            segment => path.push(segment.to_owned()),
        }
        i += 1;
    }
    if path.len() > prefix.len() || text(i.saturating_sub(1)) == "self" {
        found.push(path);
    }
    i
}

/// Makes a path absolute that starts with `self` or `super` in the module `here`.
fn resolve(segments: Vec<String>, here: &[String]) -> Vec<String> {
    let supers = segments.iter().take_while(|s| *s == "super").count();
    if supers == 0 && segments.first().is_none_or(|s| s != "self") {
        return segments;
    }
    let mut path = vec!["crate".to_owned()];
    path.extend(here.iter().take(here.len().saturating_sub(supers)).cloned());
    path.extend(segments.into_iter().skip(supers.max(1)));
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(source: &str) -> Vec<String> {
        paths(source, &["repo", "pack"]).into_iter().map(|n| n.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_expanded() {
        assert_eq!(
            named("use crate::{base::{Env, time::{self, Instant}}, chain as c, *}; use {fuser, std::fs};"),
            [
                "crate::base::Env",
                "crate::base::time",
                "crate::base::time::Instant",
                "crate::chain",
                "crate::*",
                "fuser",
                "std::fs",
            ]
        );
    }

    #[test]
    fn relative_paths_are_resolved() {
        assert_eq!(
            named("use super::super::chain::X; mod tests { use super::*; fn f() { super::super::index::g() } }"),
            ["crate::chain::X", "crate::repo::pack::*", "crate::repo::index::g"]
        );
        assert_eq!(named("use self::inner::X;"), ["crate::repo::pack::inner::X"]);
    }

    #[test]
    fn what_is_not_code_is_dropped() {
        let source = r##"
            // fuser::a
            /* fuser::b /* nested fuser::c */ fuser::d */
            let s = "fuser::e \" fuser::f"; let r = r#"fuser::g " fuser::h"#; let b = b"fuser::i";
            let c = ('"', '\'', b'"', '\\'); fn f<'a>(x: &'a str) -> impl Sized + use<'a> {}
            real::path();
        "##;
        assert_eq!(named(source), ["real::path"]);
    }

    #[test]
    fn what_a_type_captures_is_no_import() {
        assert_eq!(named("fn f<'a>() -> impl Sized + use<'a> { let x = 1; let y = a::b(); }"), ["a::b"]);
        assert_eq!(named("use broken::{a; c::d();"), ["broken::a", "c::d"]);
    }

    #[test]
    fn tests_are_told_apart() {
        let found = paths("#[cfg(test)] mod tests { a::b(); } c::d(); #[cfg(test)] use x::y;", &["repo"]);
        let flags: Vec<_> = found.iter().map(|n| (n.segments[0].as_str(), n.in_test)).collect();
        assert_eq!(flags, [("a", true), ("c", false), ("x", false)]);
    }
}
