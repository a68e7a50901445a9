//! Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999): any bytes, written without a zero, so that a zero can end
//! them. Every run of bytes up to a zero is preceded by its length plus one; a run of 254 without a zero by 0xFF.

/// The longest run.
const LONGEST: usize = 254;

/// Appends `bytes` in code, without the zero that ends it.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    loop {
        let run = rest.iter().take(LONGEST).take_while(|b| **b != 0).count();
        out.push(run as u8 + 1);
        out.extend_from_slice(&rest[..run]);
        rest = &rest[run..];
        match (run, rest) {
            // The run ended without a zero: there is none at the end of the bytes, and none after a full run.
            (_, []) => return,
            (LONGEST, _) => {}
            (_, [_zero, after @ ..]) => rest = after,
        }
    }
}

/// The bytes whose code is `code`, without the zero that ended it; `None` if it is not one.
pub fn decode(code: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(code.len());
    let mut rest = code;
    while let [length, after @ ..] = rest {
        let run = usize::from(*length).checked_sub(1)?;
        let (run_bytes, after) = after.split_at_checked(run)?;
        if run_bytes.contains(&0) {
            return None;
        }
        bytes.extend_from_slice(run_bytes);
        rest = after;
        if run < LONGEST && !rest.is_empty() {
            bytes.push(0);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(bytes, &mut out);
        out
    }

    #[test]
    fn short_runs_and_zeros() {
        assert_eq!(code(&[]), [1]);
        assert_eq!(code(&[0]), [1, 1]);
        assert_eq!(code(&[0x11, 0x22, 0x00, 0x33]), [3, 0x11, 0x22, 2, 0x33]);
        assert_eq!(code(&[0x11, 0x00, 0x00]), [2, 0x11, 1, 1]);
    }

    #[test]
    fn long_runs() {
        let full: Vec<u8> = (1..=254).collect();
        let mut expected = vec![255];
        expected.extend(&full);
        assert_eq!(code(&full), expected);
        let with_zero = [&full[..], &[0]].concat();
        assert_eq!(code(&with_zero), [&expected[..], &[1, 1]].concat());
        let longer = [&full[..], &[7]].concat();
        assert_eq!(code(&longer), [&expected[..], &[2, 7]].concat());
    }

    #[test]
    fn what_is_no_code_is_refused() {
        assert_eq!(decode(&[0]), None);
        assert_eq!(decode(&[3, 1]), None);
        assert_eq!(decode(&[3, 1, 0]), None);
    }

    proptest! {
        #[test]
        fn bytes_come_back_and_their_code_has_no_zero(bytes in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..700)) {
            let code = code(&bytes);
            prop_assert!(!code.contains(&0));
            prop_assert!(code.len() <= bytes.len() + 1 + bytes.len() / LONGEST);
            prop_assert_eq!(decode(&code), Some(bytes));
        }
    }
}
