//! Decides whether a request may be answered: the name in its address, the site it comes from, and its token.

use std::net::IpAddr;

use hyper::StatusCode;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, ORIGIN};

use super::settings::HostName;
use super::token::Token;
use crate::output::HostIdentity;

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Host,
    CrossSite,
    Token,
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::Host => StatusCode::MISDIRECTED_REQUEST,
            Refusal::CrossSite => StatusCode::FORBIDDEN,
            Refusal::Token => StatusCode::UNAUTHORIZED,
        }
    }

    pub fn reason(self) -> &'static str {
        match self {
            Refusal::Host => "this name is not one of affectd's: use the address, or add the name to status.hosts",
            Refusal::CrossSite => "another site must not read or steer affectd: open the page itself",
            Refusal::Token => "wrong or missing token: send the header \"Authorization: Bearer TOKEN\"",
        }
    }
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The empty page, which tells nothing. Other sites may link to it.
    Page,
    /// That affectd lives.
    Life,
    /// All the rest.
    Private,
}

#[derive(Debug)]
pub struct Guard {
    names: Vec<String>,
    token: Option<Token>,
}

impl Guard {
    pub fn new(hosts: &[HostName], token: Option<Token>, host: &HostIdentity) -> Guard {
        let own = host.host_name.to_ascii_lowercase();
        let mut names = vec!["localhost".to_owned()];
        if !own.is_empty() {
            names.push(format!("{own}.local"));
            names.push(own);
        }
        names.extend(hosts.iter().map(|host| host.as_str().to_owned()));
        Guard { names, token }
    }

    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub fn check(&self, headers: &HeaderMap, access: Access) -> Result<(), Refusal> {
        // Checks of health in HTTP/1.0 name no host. Browsers always do.
        if access == Access::Life && !headers.contains_key(HOST) {
            return Ok(());
        }
        let host = header(headers, &HOST).ok_or(Refusal::Host)?;
        if !self.is_own_name(host) {
            return Err(Refusal::Host);
        }
        if is_cross_site(headers, host, access) {
            return Err(Refusal::CrossSite);
        }
        match &self.token {
            Some(token) if access == Access::Private => {
                let presented = header(headers, &AUTHORIZATION).and_then(bearer).unwrap_or_default();
                token.matches(presented.as_bytes()).then_some(()).ok_or(Refusal::Token)
            }
            _ => Ok(()),
        }
    }

    /// An attacker can point a name of theirs at this machine (DNS rebinding), but not an address.
    fn is_own_name(&self, host: &str) -> bool {
        let name = without_port(host).trim_end_matches('.').to_ascii_lowercase();
        let address = name.trim_start_matches('[').trim_end_matches(']');
        address.parse::<IpAddr>().is_ok() || self.names.contains(&name)
    }
}

/// The only value of a header. A header that comes twice may mean different things to different readers.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.ends_with(']') => name,
        _ => host,
    }
}

/// Browsers say where a request comes from. Other programs do not, and act for themselves only.
fn is_cross_site(headers: &HeaderMap, host: &str, access: Access) -> bool {
    let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
    let is_link = access == Access::Page && headers.get("sec-fetch-mode").is_some_and(|mode| mode == "navigate");
    let foreign_site = !matches!(site, None | Some(b"same-origin" | b"none")) && !is_link;
    let foreign_origin = headers.contains_key(ORIGIN)
        && header(headers, &ORIGIN)
            .and_then(|origin| origin.split_once("://"))
            .is_none_or(|(_, origin)| !origin.eq_ignore_ascii_case(host));
    foreign_site || foreign_origin
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(guard: &Guard, access: Access, lines: &[(&'static str, &'static str)]) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        guard.check(&headers, access)
    }

    fn guard() -> Guard {
        let host = HostIdentity {
            host_name: "Kitchen".into(),
            ..HostIdentity::default()
        };
        Guard::new(&[HostName::parse("board.lan").unwrap()], None, &host)
    }

    #[test]
    fn only_own_names_and_addresses_are_answered() {
        let is_own = |host| check(&guard(), Access::Private, &[("host", host)]).is_ok();
        for host in [
            "localhost:8787",
            "LOCALHOST",
            "127.0.0.1:8787",
            "192.168.1.2",
            "[::1]:8787",
            "[fd00::1]",
            "kitchen:8787",
            "kitchen.local.",
            "board.lan:80",
        ] {
            assert!(is_own(host), "{host}");
        }
        for host in [
            "evil.example:8787",
            "localhost.evil.example",
            "kitchen.evil.example",
            "127.0.0.1.evil.example",
            "",
            ":8787",
            "a@127.0.0.1",
        ] {
            assert!(!is_own(host), "{host}");
        }
        let twice = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(check(&guard(), Access::Life, &twice), Err(Refusal::Host));
        assert_eq!(check(&guard(), Access::Private, &[]), Err(Refusal::Host));
        assert_eq!(check(&guard(), Access::Page, &[]), Err(Refusal::Host));
        assert_eq!(check(&guard(), Access::Life, &[]), Ok(()));
    }

    #[test]
    fn other_sites_may_link_to_the_page_and_nothing_else() {
        let host = ("host", "localhost:8787");
        let refused = |access, lines: &[(&'static str, &'static str)]| {
            let lines = [&[host], lines].concat();
            check(&guard(), access, &lines) == Err(Refusal::CrossSite)
        };
        let navigation = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")];
        assert!(!refused(Access::Page, &navigation));
        for access in [Access::Life, Access::Private] {
            assert!(refused(access, &navigation));
        }
        for site in ["cross-site", "same-site", "unknown"] {
            assert!(refused(Access::Page, &[("sec-fetch-site", site)]));
        }
        for origin in ["http://evil.example", "null", "http://localhost:8788", "localhost:8787"] {
            assert!(refused(Access::Private, &[("origin", origin)]), "{origin}");
        }
        let own = [("origin", "http://localhost:8787"), ("sec-fetch-site", "same-origin")];
        assert!(!refused(Access::Private, &own));
        assert!(!refused(Access::Private, &[]));
    }
}
