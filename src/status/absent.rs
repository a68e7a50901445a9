//! Takes the place of the page in a build without it.

use super::context::StatusContext;
use super::error::StatusError;
use super::settings::StatusSettings;
use crate::output::HostIdentity;

/// No page.
pub struct PreparedPage;

impl PreparedPage {
    /// Fails if a page is configured.
    pub fn new(
        settings: Option<&StatusSettings>,
        _: &HostIdentity,
        _: Option<&StatusPage>,
    ) -> Result<PreparedPage, StatusError> {
        settings.map_or(Ok(PreparedPage), |_| Err(StatusError::NotBuilt))
    }

    pub fn is_unchanged(&self) -> bool {
        true
    }

    /// Fails if a page is configured.
    pub fn check(_: &StatusSettings, _: &HostIdentity) -> Result<String, StatusError> {
        Err(StatusError::NotBuilt)
    }
}

/// No page.
pub struct StatusPage;

impl StatusPage {
    pub fn start(_: PreparedPage, _: StatusContext) -> Result<StatusPage, StatusError> {
        Ok(StatusPage)
    }

    pub fn change(&mut self, _: PreparedPage) -> Result<(), StatusError> {
        Ok(())
    }
}
