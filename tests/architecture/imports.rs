//! The paths in a source file that may lead to another module of the crate.

use crate::tokens::{Token, tokens, without_tests};

/// One source file.
#[derive(Debug, Default)]
pub struct SourceFile {
    /// Paths in `use` declarations and in the code.
    pub paths: Vec<PathUse>,
    /// Paths in `pub use` declarations.
    pub reexports: Vec<PathUse>,
    /// Modules in files of their own that only tests use.
    pub test_files: Vec<String>,
}

/// A path as it is written: `["super", "wire", "Message"]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathUse {
    pub segments: Vec<String>,
    /// The name that an import is known by here.
    pub name: String,
    pub line: usize,
    /// Modules inside the file that it is written in.
    pub inline: Vec<String>,
}

impl SourceFile {
    pub fn parse(source: &str) -> SourceFile {
        let tokens = tokens(source);
        let (tokens, test_files) = without_tests(&tokens);
        let mut file = SourceFile {
            test_files: test_files.into_iter().map(String::from).collect(),
            ..SourceFile::default()
        };
        let mut reader = Reader {
            tokens: &tokens,
            at: 0,
            inline: Vec::new(),
            depth: 0,
        };
        reader.read(&mut file);
        // A name that is re-exported and also used here is an import as well.
        let is_used = |name: &str| tokens.iter().filter(|token| token.text == name).count() > 1;
        let used: Vec<PathUse> = file
            .reexports
            .iter()
            .filter(|path| is_used(&path.name))
            .cloned()
            .collect();
        file.paths.extend(used);
        file
    }
}

struct Reader<'t, 'a> {
    tokens: &'t [Token<'a>],
    at: usize,
    /// The modules inside the file that are open here, each with the depth of its braces.
    inline: Vec<(String, usize)>,
    depth: usize,
}

impl<'a> Reader<'_, 'a> {
    fn text(&self, offset: usize) -> &'a str {
        self.tokens.get(self.at + offset).map_or("", |token| token.text)
    }

    fn read(&mut self, file: &mut SourceFile) {
        while self.at < self.tokens.len() {
            match self.text(0) {
                "{" => self.depth += 1,
                "}" => {
                    self.depth -= 1;
                    self.inline.retain(|(_, depth)| *depth <= self.depth);
                }
                "mod" if self.text(2) == "{" => {
                    self.inline.push((self.text(1).into(), self.depth + 1));
                    self.at += 1;
                }
                // `use<'a>` bounds a type and is not an import.
                "use" if self.text(1) != "<" => {
                    let is_public = self.at > 0 && matches!(self.tokens[self.at - 1].text, "pub" | ")");
                    self.at += 1;
                    let paths = if is_public {
                        &mut file.reexports
                    } else {
                        &mut file.paths
                    };
                    self.use_tree(&mut Vec::new(), paths);
                    continue;
                }
                _ if self.begins_path() => {
                    let path = self.path();
                    file.paths.push(path);
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn begins_path(&self) -> bool {
        let before = |distance: usize| self.at.checked_sub(distance).map_or("", |at| self.tokens[at].text);
        // A path may follow `..`, the operator of ranges, but not a single `.`.
        let is_method = before(1) == "." && before(2) != ".";
        self.tokens[self.at].is_word() && self.text(1) == "::" && before(1) != "::" && !is_method
    }

    fn path(&mut self) -> PathUse {
        let line = self.tokens[self.at].line;
        let mut segments = vec![self.text(0).to_owned()];
        while self.text(1) == "::" && self.tokens.get(self.at + 2).is_some_and(Token::is_word) {
            segments.push(self.text(2).into());
            self.at += 2;
        }
        self.at += 1;
        self.path_use(segments, None, line)
    }

    fn path_use(&self, segments: Vec<String>, alias: Option<&str>, line: usize) -> PathUse {
        let name = alias.unwrap_or(segments.last().map_or("", String::as_str)).to_owned();
        PathUse {
            name,
            segments,
            line,
            inline: self.inline.iter().map(|(name, _)| name.clone()).collect(),
        }
    }

    /// Reads the tree of a `use` declaration. `prefix` is the path before it.
    fn use_tree(&mut self, prefix: &mut Vec<String>, paths: &mut Vec<PathUse>) {
        let outer = prefix.len();
        loop {
            let line = self.tokens.get(self.at).map_or(0, |token| token.line);
            match self.text(0) {
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(0), "}" | "") {
                        self.use_tree(prefix, paths);
                        if self.text(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    break;
                }
                "::" => self.at += 1,
                "*" => {
                    self.at += 1;
                    paths.push(self.path_use(prefix.clone(), Some("*"), line));
                    break;
                }
                word => {
                    self.at += 1;
                    // `use a::{self}` imports `a`.
                    if word != "self" || prefix.is_empty() {
                        prefix.push(word.into());
                    }
                    if self.text(0) == "::" {
                        continue;
                    }
                    let alias = (self.text(0) == "as").then(|| self.text(1));
                    if alias.is_some() {
                        self.at += 2;
                    }
                    paths.push(self.path_use(prefix.clone(), alias, line));
                    break;
                }
            }
        }
        prefix.truncate(outer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[PathUse]) -> Vec<String> {
        paths.iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn groups_globs_and_aliases_are_taken_apart() {
        let file = SourceFile::parse("use crate::a::{self, b::{C, D as E}, f::*};\nuse super::g;");
        assert_eq!(
            paths(&file.paths),
            [
                "crate::a",
                "crate::a::b::C",
                "crate::a::b::D",
                "crate::a::f",
                "super::g"
            ]
        );
        let names: Vec<_> = file.paths.iter().map(|path| path.name.as_str()).collect();
        assert_eq!(names, ["a", "C", "E", "*", "g"]);
        assert_eq!(file.paths[4].line, 2);
    }

    #[test]
    fn paths_without_use_are_found() {
        let file = SourceFile::parse("fn f(x: crate::a::B) -> u8 { crate::c::d::<u8>(x.y); self::e() }");
        assert_eq!(paths(&file.paths), ["crate::a::B", "crate::c::d", "self::e"]);
        let file = SourceFile::parse("const R: Range<u8> = 0..crate::a::N; let s = S { ..crate::b::S::default() };");
        assert_eq!(paths(&file.paths), ["crate::a::N", "crate::b::S::default"]);
    }

    #[test]
    fn reexports_count_as_imports_only_if_the_name_is_used() {
        let file = SourceFile::parse("pub use a::B;\npub(crate) use a::C;\nfn f() -> C { g() }");
        assert_eq!(paths(&file.reexports), ["a::B", "a::C"]);
        assert_eq!(paths(&file.paths), ["a::C"]);
    }

    #[test]
    fn paths_know_the_module_inside_the_file() {
        let file = SourceFile::parse("mod m { fn f() { super::g() } } fn h() { super::i() }");
        assert_eq!(file.paths[0].inline, ["m"]);
        assert!(file.paths[1].inline.is_empty());
    }
}
