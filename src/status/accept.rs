//! The header `Accept`: which format of the metrics a client wants (RFC 9110, 12.5.1).

use hyper::header::{ACCEPT, HeaderMap};

/// A media type that affectd can send.
struct MediaType {
    kind: &'static str,
    subtype: &'static str,
    version: &'static str,
}

const OPEN_METRICS: MediaType = MediaType {
    kind: "application",
    subtype: "openmetrics-text",
    version: "1.0.0",
};
const PLAIN_TEXT: MediaType = MediaType {
    kind: "text",
    subtype: "plain",
    version: "0.0.4",
};

/// A format of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsFormat {
    OpenMetrics,
    /// The older format of Prometheus.
    PlainText,
}

impl MetricsFormat {
    /// The format with the higher weight. OpenMetrics if both have the same, and if the client accepts neither.
    pub fn of(headers: &HeaderMap) -> MetricsFormat {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let accept = values.collect::<Vec<_>>().join(",");
        match PLAIN_TEXT.weight(&accept) > OPEN_METRICS.weight(&accept) {
            true => MetricsFormat::PlainText,
            false => MetricsFormat::OpenMetrics,
        }
    }
}

impl MediaType {
    /// The weight from 0 to 1 that the most specific range gives to this type; 0 if none includes it.
    fn weight(&self, accept: &str) -> f32 {
        let ranges = accept.split(',').filter_map(|range| self.matches(range));
        let best = ranges.reduce(|best, range| if range.0 > best.0 { range } else { best });
        best.map_or(0.0, |(_, weight)| weight)
    }

    /// How specific `range` is, and its weight. `None` if it does not include this type, or is not valid.
    fn matches(&self, range: &str) -> Option<(u8, f32)> {
        let mut parts = range.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let is = |name: &str, own: &str| name.eq_ignore_ascii_case(own);
        let mut specific = match (kind, subtype) {
            ("*", "*") => 0,
            (kind, "*") if is(kind, self.kind) => 1,
            (kind, subtype) if is(kind, self.kind) && is(subtype, self.subtype) => 2,
            _ => return None,
        };
        let mut weight = 1.0;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            if is(name.trim(), "q") {
                weight = value.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
            } else if is(name.trim(), "version") {
                if value != self.version {
                    return None;
                }
                specific += 1;
            }
        }
        Some((specific, weight))
    }
}

#[cfg(test)]
mod tests {
    use super::MetricsFormat::{OpenMetrics, PlainText};
    use super::*;

    fn format(lines: &[&str]) -> MetricsFormat {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(ACCEPT, line.parse().unwrap());
        }
        MetricsFormat::of(&headers)
    }

    #[test]
    fn the_weights_decide() {
        for (accept, expected) in [
            ("*/*", OpenMetrics),
            ("text/plain", PlainText),
            ("application/openmetrics-text", OpenMetrics),
            ("text/plain, application/openmetrics-text", OpenMetrics),
            ("application/openmetrics-text;q=0.4, text/plain;q=0.5", PlainText),
            ("text/plain;q=0.5, application/openmetrics-text;q=0.6", OpenMetrics),
            ("application/openmetrics-text; q=0, text/plain; q=0.1", PlainText),
            ("text/plain;q=0, */*", OpenMetrics),
            ("text/*;q=0.9, */*;q=0.8", PlainText),
            ("text/*, text/plain;q=0.1, */*;q=0.2", OpenMetrics),
            ("TEXT/Plain ; Q=1.0 , application/*;q=0.9", PlainText),
            // A version that affectd does not have.
            (
                "application/openmetrics-text;version=2.0.0, text/plain;version=0.0.4;q=0.2",
                PlainText,
            ),
            ("application/openmetrics-text;version=\"1.0.0\"", OpenMetrics),
            // Weights that are none.
            ("text/plain;q=7, application/openmetrics-text;q=0.1", OpenMetrics),
            ("text/plain;q=NaN", OpenMetrics),
            ("text/html", OpenMetrics),
            ("", OpenMetrics),
        ] {
            assert_eq!(format(&[accept]), expected, "{accept}");
        }
        assert_eq!(format(&[]), OpenMetrics);
        assert_eq!(
            format(&["application/openmetrics-text;q=0.1", "text/plain;q=0.2"]),
            PlainText
        );
    }

    #[test]
    fn prometheus_gets_what_it_prefers() {
        let accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
                      application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                      application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                      text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(format(&[accept]), OpenMetrics);
        assert_eq!(format(&["text/plain;version=0.0.4;q=0.5,*/*;q=0.1"]), PlainText);
    }
}
