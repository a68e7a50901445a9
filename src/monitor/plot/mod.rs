//! The plot of a session, as a file.

mod figure;
mod font;
mod png;
mod svg;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::session::Session;

/// The file that a plot is written to. Its suffix decides the format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlotFile {
    path: PathBuf,
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Svg,
    Png,
}

/// The suffix of the file is neither `.svg` nor `.png`.
#[derive(Debug, thiserror::Error)]
#[error("its suffix names no format of plots: end it with .svg or .png")]
pub struct UnknownFormat;

impl FromStr for PlotFile {
    type Err = UnknownFormat;

    fn from_str(path: &str) -> Result<PlotFile, UnknownFormat> {
        let path = PathBuf::from(path);
        let suffix = path.extension().map(|suffix| suffix.to_ascii_lowercase());
        let format = match suffix.as_ref().and_then(|suffix| suffix.to_str()) {
            Some("svg") => Format::Svg,
            Some("png") => Format::Png,
            _ => return Err(UnknownFormat),
        };
        Ok(PlotFile { path, format })
    }
}

impl PlotFile {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates the file. Fails if there is one already, which may be anything of the user's.
    pub fn create(&self) -> io::Result<File> {
        File::create_new(&self.path)
    }

    /// Writes the plot into the file that [`PlotFile::create`] has made. A session without an estimate leaves none.
    pub fn finish(&self, mut file: File, session: &Session) -> io::Result<()> {
        match session.estimates {
            0 => fs::remove_file(&self.path),
            _ => file.write_all(&self.contents(session)),
        }
    }

    fn contents(&self, session: &Session) -> Vec<u8> {
        let figure = figure::of(session);
        match self.format {
            Format::Svg => svg::write(&figure).into_bytes(),
            Format::Png => png::write(&figure),
        }
    }
}

/// The plot as SVG, for `tests/fuzz`.
#[cfg(any(test, feature = "fuzzing"))]
pub fn svg(session: &Session) -> String {
    svg::write(&figure::of(session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_decides_the_format() {
        let format = |path: &str| path.parse::<PlotFile>().ok().map(|file| file.format);
        assert_eq!(format("a.b/day.svg"), Some(Format::Svg));
        assert_eq!(format("DAY.PNG"), Some(Format::Png));
        assert_eq!(
            [format("day.pdf"), format("day"), format(".svg"), format("")],
            [None; 4]
        );
    }
}
