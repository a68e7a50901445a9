//! The runtime of a connection.

use tokio::runtime::Runtime;

use super::address::Address;
use crate::output::contract::OutputError;

/// A runtime that runs on the caller's thread. Name servers are asked on another thread.
pub fn runtime(address: &Address) -> Result<Runtime, OutputError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(2)
        .thread_name("mqtt-names")
        .build()
        .map_err(|e| cannot_start(address, &e))
}

pub fn cannot_start(address: &Address, error: &std::io::Error) -> OutputError {
    OutputError::Failed(format!(
        "{address}: cannot start ({error}): end other programs to free threads and file descriptors"
    ))
}
