//! Panics as errors.
//!
//! tract panics on some broken graphs. A file must not end the program, and the reason must reach the user who gave it.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;

use tract_onnx::prelude::TractResult;

/// A panic, with its message and its place in the source. It is shown as its message only, because the place says nothing to a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Panicked {
    /// The source file and the line. Of a dependency's file, the path starts with the dependency's name and version.
    pub place: String,
    pub message: String,
}

impl Panicked {
    fn of(panic: &PanicHookInfo) -> Panicked {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let place = panic.location().map(|at| {
            // Cargo keeps the sources of dependencies in a folder of the user's home.
            let file = at
                .file()
                .rsplit_once("index.crates.io-")
                .map_or(at.file(), |(_, file)| file);
            let file = match file.starts_with("src/") {
                true => file,
                false => file.split_once('/').map_or(file, |(_, file)| file),
            };
            format!("{file}:{}", at.line())
        });
        Panicked {
            place: place.unwrap_or_default(),
            message: text.unwrap_or_else(|| "no message".into()),
        }
    }
}

thread_local! {
    /// Whether this thread is in [`catch`].
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    /// The panic that [`catch`] is about to return.
    static PANIC: RefCell<Option<Panicked>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Runs `work`. If it panics, the error is a [`Panicked`], and nothing is printed.
///
/// The first call puts a panic hook in front of the one that is installed. It passes on all panics outside of `catch`.
pub fn catch<R>(work: impl FnOnce() -> TractResult<R>) -> TractResult<R> {
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match CATCHES.get() {
            true => PANIC.set(Some(Panicked::of(panic))),
            false => previous(panic),
        }));
    });
    let outer = CATCHES.replace(true);
    // The caller gets an error, so nothing uses what `work` leaves behind.
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHES.set(outer);
    result.unwrap_or_else(|_| {
        let unknown = || Panicked {
            place: "an unknown place".into(),
            message: "no message".into(),
        };
        Err(PANIC.take().unwrap_or_else(unknown).into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_message_and_place() {
        let line = line!() + 1;
        let error = catch(|| -> TractResult<()> { panic!("index {} of {}", 4, 3) }).unwrap_err();
        let Panicked { place, message } = error.downcast().unwrap();
        assert_eq!(message, "index 4 of 3");
        assert_eq!(place, format!("src/model/int8/panics.rs:{line}"));
        assert_eq!(catch(|| Ok(1)).unwrap(), 1);
    }
}
