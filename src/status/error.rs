//! Why the status page cannot be served.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::named_thread::ThreadRefused;

/// Each text is one line: the thing, the reason, the remedy.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(
        "status.listen: this affectd is built without the status page: build it with the feature \"status\", or set it to off"
    )]
    NotBuilt,
    #[error(
        "status.listen = {listen}: other machines reach this address, so it needs a token: write one into a file (openssl \
         rand -hex 16) and set status.token to its path, or listen on 127.0.0.1"
    )]
    NoToken { listen: SocketAddr },
    #[error(
        "status.preview = image: other machines reach {listen}, and HTTP would show the image to everybody on the way: listen on \
         127.0.0.1 and use a tunnel (ssh -L) or a proxy with TLS, or allow it with status.unencrypted_image = true"
    )]
    UnencryptedImage { listen: SocketAddr },
    #[error("status.token {}: {reason}", .path.display())]
    Token { path: PathBuf, reason: String },
    #[error("status.listen = {listen}: {reason}")]
    Address { listen: SocketAddr, reason: String },
    #[error(transparent)]
    Thread(#[from] ThreadRefused),
}
