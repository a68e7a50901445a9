//! Panics as errors, so that each ends affectd with the exit code of a bug and with one line that says where to report it.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use super::error::CommandError;

/// Logs panics of all threads as one line each, with their place in the source.
pub fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        log::error!("thread {} {panic}", thread.name().unwrap_or("without a name"));
    }));
}

/// Runs a command. A panic on this thread, or on one that it waits for, is an error.
pub fn catch<T>(command: impl FnOnce() -> Result<T, CommandError>) -> Result<T, CommandError> {
    panic::catch_unwind(AssertUnwindSafe(command)).unwrap_or_else(|panic| Err(CommandError::Panicked(reason(&*panic))))
}

fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_that_says_where_to_report_it() {
        let on_this_thread = || panic!("index {} of {}", 4, 3);
        let error = catch::<()>(on_this_thread).unwrap_err().to_string();
        insta::assert_snapshot!(error, @"panicked (index 4 of 3): this is a bug in affectd: please report it as an issue in affectd's repository, with the log above");
        let on_another_thread = || {
            thread::scope(|scope| {
                scope
                    .spawn(|| panic!("loader"))
                    .join()
                    .unwrap_or_else(|e| panic::resume_unwind(e))
            });
            Ok(())
        };
        assert!(matches!(catch(on_another_thread), Err(CommandError::Panicked(why)) if why == "loader"));
        assert!(catch(|| Ok(())).is_ok());
    }
}
