//! Which module imports which, and which imports break the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::imports::{PathUse, SourceFile};

/// A module's path in the crate, such as `["output", "mqtt", "tls"]`. That of `lib.rs` is empty.
type Module = Vec<String>;

/// The name of the root module, `lib.rs`, in a list of modules.
const ROOT: &str = "lib";
/// The crate's name in its binary.
const CRATE: &str = "affectd";

/// All source files of the crate.
pub struct Sources {
    modules: BTreeMap<Module, Source>,
    imports: Vec<Import>,
}

struct Source {
    /// The file's name below `src/`.
    name: String,
    file: SourceFile,
}

/// One import of a module by another.
struct Import {
    kind: ImportKind,
    from: Module,
    to: Module,
    /// The path as it is written.
    path: String,
    /// `file:line`.
    place: String,
}

#[derive(PartialEq, Eq)]
enum ImportKind {
    Use,
    /// `pub use` of an item that the module itself does not use. It must not point upwards, but closes no circle: `mod.rs`
    /// re-exports what is in its folder.
    Reexport,
}

/// Modules of one folder that import each other in a circle.
#[derive(Debug)]
pub struct Circle {
    folder: String,
    /// Each imports the next, and the last imports the first.
    modules: Vec<String>,
    /// An example for each of these imports.
    examples: Vec<String>,
}

impl Sources {
    /// `files` are names below `src/` with their text.
    pub fn new<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Sources {
        let mut modules: BTreeMap<Module, Source> = files
            .map(|(name, text)| {
                let file = SourceFile::parse(text);
                (
                    module_of(name),
                    Source {
                        name: name.into(),
                        file,
                    },
                )
            })
            .collect();
        let tests: Vec<Module> = modules
            .iter()
            .flat_map(|(module, source)| source.file.test_files.iter().map(|name| child(module, name)))
            .collect();
        modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
        let mut sources = Sources {
            modules,
            imports: Vec::new(),
        };
        sources.imports = sources.find_imports();
        sources
    }

    fn find_imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (from, source) in &self.modules {
            let uses = source.file.paths.iter().map(|path| (ImportKind::Use, path));
            let reexports = source.file.reexports.iter().map(|path| (ImportKind::Reexport, path));
            for (kind, path) in uses.chain(reexports) {
                if let Some(to) = self.target(from, path)
                    && to != *from
                {
                    imports.push(Import {
                        kind,
                        from: from.clone(),
                        to,
                        path: path.segments.join("::"),
                        place: format!("src/{}:{}", source.name, path.line),
                    });
                }
            }
        }
        imports
    }

    /// Imports of modules in `folder` that lead out of it.
    pub fn outward_imports(&self, folder: &[&str]) -> Vec<String> {
        let is_inside = |module: &Module| {
            module
                .iter()
                .map(String::as_str)
                .take(folder.len())
                .eq(folder.iter().copied())
        };
        let outward = self
            .imports
            .iter()
            .filter(|import| is_inside(&import.from) && !is_inside(&import.to));
        outward
            .map(|import| format!("{}: {}", import.place, import.path))
            .collect()
    }

    /// The module that a path in module `from` leads to; `None` if that is not one of the crate.
    fn target(&self, from: &Module, path: &PathUse) -> Option<Module> {
        let mut base: Module = from.iter().chain(&path.inline).cloned().collect();
        let mut segments = path.segments.iter().map(String::as_str).peekable();
        match segments.peek().copied()? {
            "crate" => {
                base.clear();
                segments.next();
            }
            CRATE if from == &["main"] => {
                base.clear();
                segments.next();
            }
            "self" | "super" => {
                segments.next_if_eq(&"self");
                while segments.next_if_eq(&"super").is_some() {
                    base.pop();
                }
            }
            first if self.modules.contains_key(&child(&base, first)) => {}
            _ => return None,
        }
        Some(self.resolve(base, &segments.collect::<Vec<_>>()))
    }

    /// The module that defines what `segments` name in module `base`.
    fn resolve(&self, mut base: Module, segments: &[&str]) -> Module {
        let mut rest = segments;
        while let Some((first, after)) = rest.split_first() {
            let inner = child(&base, first);
            if !self.modules.contains_key(&inner) {
                break;
            }
            (base, rest) = (inner, after);
        }
        // A module inside a file belongs to the file.
        while !self.modules.contains_key(&base) && !base.is_empty() {
            base.pop();
        }
        let reexported = rest.first().and_then(|name| {
            let reexports = &self.modules.get(&base)?.file.reexports;
            reexports.iter().find(|path| path.name == *name)
        });
        reexported.and_then(|path| self.target(&base, path)).unwrap_or(base)
    }

    pub fn top_level_modules(&self) -> BTreeSet<String> {
        self.modules
            .keys()
            .filter_map(|module| module.first().cloned())
            .collect()
    }

    /// One line for each import that does not point to a lower layer.
    pub fn upward_imports(&self, layers: &[&[&str]]) -> Vec<String> {
        let layer = |module: &str| layers.iter().position(|layer| layer.contains(&module));
        self.imports
            .iter()
            .filter_map(|import| {
                let (from, to) = (top_level(&import.from), top_level(&import.to));
                let reason = match (layer(from), layer(to)) {
                    // `lib.rs` only declares the modules.
                    _ if from == to || from == ROOT => return None,
                    _ if to == ROOT => "items of lib.rs are above all modules".into(),
                    (Some(from), Some(to)) if from > to => return None,
                    (Some(a), Some(b)) if a == b => format!("{from} and {to} are of the same layer"),
                    (Some(_), Some(_)) => format!("{to} is above {from}"),
                    _ => format!("{from} or {to} has no layer"),
                };
                let Import { place, path, .. } = import;
                Some(format!("{place}: imports {path}: {reason}"))
            })
            .collect()
    }

    /// The circles in each folder, between its files and folders. The folder's own `mod.rs` is one of the modules.
    pub fn circles(&self) -> Vec<Circle> {
        let folders: BTreeSet<&[String]> = self
            .modules
            .keys()
            .filter_map(|module| module.split_last().map(|(_, folder)| folder))
            .filter(|folder| !folder.is_empty())
            .collect();
        folders.into_iter().flat_map(|folder| self.circles_in(folder)).collect()
    }

    fn circles_in(&self, folder: &[String]) -> Vec<Circle> {
        let unit = |module: &Module| {
            let inside = module.strip_prefix(folder)?;
            Some(inside.first().map_or("mod", String::as_str).to_owned())
        };
        let mut edges: BTreeMap<String, BTreeMap<String, &Import>> = BTreeMap::new();
        for import in &self.imports {
            if let (Some(from), Some(to)) = (unit(&import.from), unit(&import.to))
                && from != to
                && import.kind == ImportKind::Use
            {
                edges.entry(from).or_default().entry(to).or_insert(import);
            }
        }
        let mut circles = Vec::new();
        let mut in_circle = BTreeSet::new();
        for start in edges.keys() {
            if in_circle.contains(start) {
                continue;
            }
            if let Some(modules) = shortest_circle(&edges, start) {
                in_circle.extend(modules.iter().cloned());
                let next = modules.iter().cycle().skip(1);
                let examples = modules.iter().zip(next).map(|(from, to)| edges[from][to]);
                circles.push(Circle {
                    folder: folder.join("/"),
                    examples: examples
                        .map(|import| format!("{}: imports {}", import.place, import.path))
                        .collect(),
                    modules,
                });
            }
        }
        circles
    }

    /// A line for each top-level module, with what it imports, highest layer first.
    pub fn overview(&self, layers: &[&[&str]]) -> String {
        let mut lines = String::new();
        for module in layers.iter().rev().flat_map(|layer| layer.iter()) {
            let imports: BTreeSet<&str> = self
                .imports
                .iter()
                .filter(|import| top_level(&import.from) == *module)
                .map(|import| top_level(&import.to))
                .filter(|to| to != module)
                .collect();
            let imports = match imports.len() {
                0 => "nothing of ours".into(),
                _ => Vec::from_iter(imports).join(", "),
            };
            lines += &format!("{module:>16} → {imports}\n");
        }
        lines
    }
}

impl fmt::Display for Circle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} → {}", self.folder, self.modules.join(" → "), self.modules[0])?;
        self.examples
            .iter()
            .try_for_each(|example| write!(f, "\n    {example}"))
    }
}

/// The shortest way from `start` back to it.
fn shortest_circle(edges: &BTreeMap<String, BTreeMap<String, &Import>>, start: &String) -> Option<Vec<String>> {
    let mut ways = std::collections::VecDeque::from([vec![start.clone()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for to in edges.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
            if to == start {
                return Some(way);
            }
            if seen.insert(to) {
                ways.push_back(way.iter().chain([to]).cloned().collect());
            }
        }
    }
    None
}

fn top_level(module: &Module) -> &str {
    module.first().map_or(ROOT, String::as_str)
}

fn child(module: &Module, name: &str) -> Module {
    module
        .iter()
        .map(String::as_str)
        .chain([name])
        .map(String::from)
        .collect()
}

/// The module that a file below `src/` holds.
fn module_of(name: &str) -> Module {
    let mut module: Module = name.trim_end_matches(".rs").split('/').map(String::from).collect();
    if module == ["lib"] || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYERS: &[&[&str]] = &[&["low", "leaf"], &["high"], &["main"]];

    fn sources(files: &[(&str, &str)]) -> Sources {
        Sources::new(files.iter().copied())
    }

    fn upward(files: &[(&str, &str)]) -> Vec<String> {
        sources(files).upward_imports(LAYERS)
    }

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        sources(files).circles().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn downward_imports_are_accepted() {
        let found = upward(&[
            ("lib.rs", "pub mod high; pub mod low;"),
            ("low.rs", "use std::fmt; pub struct Low;"),
            ("high.rs", "use crate::low::Low; use serde::{Serialize};"),
            ("main.rs", "use affectd::high; fn main() { affectd::low::f(high::g()) }"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn an_upward_import_is_named_with_its_file_and_line() {
        let high = ("high.rs", "");
        let found = upward(&[high, ("low.rs", "use std::fmt;\nuse crate::{high::High};")]);
        assert_eq!(found, ["src/low.rs:2: imports crate::high::High: high is above low"]);
        let found = upward(&[
            high,
            ("low/mod.rs", ""),
            ("low/deep.rs", "\n\nfn f() { super::super::high::g() }"),
        ]);
        assert_eq!(
            found,
            ["src/low/deep.rs:3: imports super::super::high::g: high is above low"]
        );
    }

    #[test]
    fn upward_reexports_and_paths_through_self_are_found() {
        let high = ("high.rs", "pub struct N;");
        for source in [
            "pub use crate::high::N;",
            "pub use crate::high::*;",
            "use self::super::high::N;",
        ] {
            assert_eq!(upward(&[high, ("low.rs", source)]).len(), 1, "{source}");
        }
    }

    #[test]
    fn modules_of_one_layer_do_not_import_each_other() {
        let found = upward(&[("low.rs", "use crate::leaf;"), ("leaf.rs", "")]);
        assert_eq!(
            found,
            ["src/low.rs:1: imports crate::leaf: low and leaf are of the same layer"]
        );
    }

    #[test]
    fn a_module_without_a_layer_is_named() {
        let found = upward(&[("low.rs", "use crate::new;"), ("new.rs", "")]);
        assert_eq!(found, ["src/low.rs:1: imports crate::new: low or new has no layer"]);
    }

    #[test]
    fn test_code_may_import_upwards() {
        let found = upward(&[
            ("high.rs", ""),
            (
                "low/mod.rs",
                "#[cfg(test)] mod tests; #[cfg(test)] mod more { use crate::high; }",
            ),
            ("low/tests.rs", "use crate::high;"),
        ]);
        assert_eq!(found, [""; 0]);
    }

    #[test]
    fn imports_that_lead_out_of_a_folder_are_named() {
        let sources = sources(&[
            ("low/mod.rs", "mod a; mod b;"),
            ("low/a.rs", "use super::b::B;\nuse crate::leaf::C;"),
            ("low/b.rs", "use std::fmt;"),
            ("leaf.rs", "use crate::low::a;"),
        ]);
        assert_eq!(sources.outward_imports(&["low"]), ["src/low/a.rs:2: crate::leaf::C"]);
    }

    #[test]
    fn a_circle_is_listed_with_its_imports() {
        let found = circles(&[
            ("low/mod.rs", "pub mod a; pub mod b; pub mod c; pub mod d;"),
            ("low/a.rs", "use super::b::B;"),
            ("low/b.rs", "\nfn f() { crate::low::c::g() }"),
            ("low/c.rs", "use super::{a::A};"),
            ("low/d.rs", "use super::a::A;"),
        ]);
        let expected = "low: a → b → c → a\n    src/low/a.rs:1: imports super::b::B\n    \
             src/low/b.rs:2: imports crate::low::c::g\n    src/low/c.rs:1: imports super::a::A";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_folder_and_its_modules_can_form_a_circle() {
        let found = circles(&[
            ("low/mod.rs", "mod a; use a::A; pub struct B;"),
            ("low/a.rs", "use super::B; pub struct A;"),
        ]);
        assert_eq!(
            found,
            ["low: a → mod → a\n    src/low/a.rs:1: imports super::B\n    src/low/mod.rs:1: imports a::A"]
        );
        let found = circles(&[
            ("low/a.rs", "use super::deep::inner::C;"),
            ("low/deep/mod.rs", "pub mod inner;"),
            ("low/deep/inner.rs", "use crate::low::a::A;"),
            ("low/mod.rs", "mod a; mod deep;"),
        ]);
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn an_import_through_a_reexport_is_one_of_the_module_that_defines_it() {
        let found = circles(&[
            ("low/mod.rs", "mod a; mod b; pub use a::A;"),
            ("low/a.rs", "pub struct A;"),
            ("low/b.rs", "use super::A;"),
        ]);
        assert_eq!(found, [""; 0]);
        let found = circles(&[
            ("low/mod.rs", "mod a; mod b; pub use a::A;"),
            ("low/a.rs", "use super::b::B; pub struct A;"),
            ("low/b.rs", "use super::A; pub struct B;"),
        ]);
        assert_eq!(found.len(), 1);
    }
}
