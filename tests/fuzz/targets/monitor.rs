//! What the monitor makes of a stream: the same however it arrives, and nothing that controls a terminal or breaks the plot.

use affectd::monitor::fuzzing;
use affectd::printable::printable;

use super::chunks::chunks;

pub fn check(data: &[u8]) {
    let pieces = chunks(data);
    let whole = fuzzing::lines([data]);
    assert_eq!(fuzzing::lines(pieces.iter().copied()), whole);
    assert!(whole.len() <= 1 + data.iter().filter(|byte| **byte == b'\n').count());
    assert_eq!(fuzzing::stream(pieces.iter().copied()), fuzzing::stream([data]));

    let (line, plot) = fuzzing::session(data);
    assert!(!printable(&line).contains(char::is_control), "{line:?}");
    assert!(!plot.contains("NaN") && !plot.contains("inf"), "{plot}");
}
