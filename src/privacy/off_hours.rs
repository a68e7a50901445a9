//! The hours of the day in which the camera and the microphone stay closed.

use std::fmt;
use std::str::FromStr;

const HOUR: u16 = 60;
const DAY: u16 = 24 * HOUR;

/// Ranges of local time, such as `22:00-07:00, 12:30-13:00`. Empty without any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OffHours(Vec<Range>);

/// In minutes since midnight. The end does not belong to it. A range that ends before it begins crosses midnight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: u16,
    until: u16,
}

impl OffHours {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the devices must be closed at this minute of the day.
    pub fn contains(&self, minute: u16) -> bool {
        self.0.iter().any(|range| range.contains(minute))
    }
}

impl Range {
    fn contains(self, minute: u16) -> bool {
        match self.from < self.until {
            true => (self.from..self.until).contains(&minute),
            false => minute >= self.from || minute < self.until,
        }
    }
}

impl FromStr for OffHours {
    type Err = String;

    fn from_str(text: &str) -> Result<OffHours, String> {
        if text.trim().is_empty() {
            return Ok(OffHours::default());
        }
        text.split(',').map(range).collect::<Result<_, _>>().map(OffHours)
    }
}

fn range(text: &str) -> Result<Range, String> {
    let wrong = || {
        format!(
            "\"{}\" is not a range of hours: write it as 22:00-07:00, several with commas between them",
            text.trim()
        )
    };
    let (from, until) = text.split_once('-').ok_or_else(wrong)?;
    let (from, until) = (minute(from).ok_or_else(wrong)?, minute(until).ok_or_else(wrong)?);
    if from == DAY {
        return Err(wrong());
    }
    if from == until {
        return Err(format!(
            "\"{}\" begins and ends at the same time: write 00:00-24:00 for the whole day",
            text.trim()
        ));
    }
    Ok(Range { from, until })
}

/// `07:05` in minutes since midnight; up to `24:00`.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.trim().split_once(':')?;
    let number = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        let plain = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (hour, minute) = (number(hour, 1..=2)?, number(minute, 2..=2)?);
    let total = hour * HOUR + minute;
    (minute < HOUR && total <= DAY).then_some(total)
}

impl fmt::Display for OffHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, Range { from, until }) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            let [from, until] = [from, until].map(|at| format!("{:02}:{:02}", at / HOUR, at % HOUR));
            write!(f, "{separator}{from}-{until}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn off(text: &str) -> OffHours {
        text.parse().unwrap()
    }

    fn at(hour: u16, minute: u16) -> u16 {
        hour * HOUR + minute
    }

    #[test]
    fn a_range_may_cross_midnight() {
        let night = off("22:00-07:00");
        for (time, closed) in [
            (at(21, 59), false),
            (at(22, 0), true),
            (at(23, 59), true),
            (at(0, 0), true),
            (at(6, 59), true),
            (at(7, 0), false),
            (at(12, 0), false),
        ] {
            assert_eq!(night.contains(time), closed, "{time}");
        }
    }

    #[test]
    fn there_may_be_several_ranges_and_none() {
        let hours = off("8:30-9:00, 12:00-12:30,23:00-24:00");
        assert_eq!(hours.to_string(), "08:30-09:00, 12:00-12:30, 23:00-24:00");
        assert!(hours.contains(at(8, 59)) && hours.contains(at(12, 0)) && hours.contains(at(23, 59)));
        assert!(!hours.contains(at(9, 0)) && !hours.contains(0));
        assert!(off(" ").is_empty() && !off("").contains(0));
        assert!((0..DAY).all(|minute| off("00:00-24:00").contains(minute)));
    }

    #[test]
    fn anything_else_is_an_error_that_shows_the_form() {
        let error = |text: &str| text.parse::<OffHours>().unwrap_err();
        insta::assert_snapshot!(error("22-7"), @r#""22-7" is not a range of hours: write it as 22:00-07:00, several with commas between them"#);
        insta::assert_snapshot!(error("07:00-07:00"), @r#""07:00-07:00" begins and ends at the same time: write 00:00-24:00 for the whole day"#);
        for text in [
            "night",
            "22:00",
            "22:00-",
            "22:60-07:00",
            "24:00-07:00",
            "22:00-24:01",
            "+1:00-2:00",
            "22:00-7:0",
            ",",
        ] {
            assert!(text.parse::<OffHours>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_range_and_its_complement_cover_the_day_once(from in 0..DAY, until in 0..DAY, minute in 0..DAY) {
            prop_assume!(from != until);
            let (one, other) = (Range { from, until }, Range { from: until, until: from });
            prop_assert!(one.contains(minute) != other.contains(minute));
        }

        #[test]
        fn what_is_written_is_read_again(from in 0..DAY, until in 1..=DAY) {
            prop_assume!(from != until);
            let hours = OffHours(vec![Range { from, until }]);
            prop_assert_eq!(hours.to_string().parse(), Ok(hours));
        }
    }
}
