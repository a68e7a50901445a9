//! Panics of a library as errors, for code that reads bytes from outside.
//!
//! `model::int8` has the same for itself, with the place of the panic: it imports nothing of affectd, and `capture`, which uses this
//! module, is beside `model` and cannot import it.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// Whether this thread is in [`catch`].
    static CATCHES: Cell<bool> = const { Cell::new(false) };
    static MESSAGE: RefCell<String> = const { RefCell::new(String::new()) };
}

static HOOK: Once = Once::new();

/// Runs `work`. If it panics, the error is the panic's message, and nothing is printed.
///
/// The first call puts a panic hook in front of the one that is installed. It passes on all panics outside of `catch`.
pub fn catch<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match CATCHES.get() {
            true => MESSAGE.set(panic.payload_as_str().unwrap_or("no message").to_owned()),
            false => previous(panic),
        }));
    });
    let outer = CATCHES.replace(true);
    // The caller gets an error, so nothing uses what `work` leaves behind.
    let result = catch_unwind(AssertUnwindSafe(work));
    CATCHES.set(outer);
    result.map_err(|_| MESSAGE.take())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        assert_eq!(catch(|| 1), Ok(1));
        assert_eq!(
            catch(|| panic!("index {} of {}", 4, 3)),
            Err::<(), _>("index 4 of 3".into())
        );
        assert_eq!(catch(|| panic!("static")), Err::<(), _>("static".into()));
    }
}
