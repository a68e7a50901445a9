//! Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999). The encoded bytes contain no zero, so a zero can end them.
//! Every run of bytes up to a zero is preceded by its length plus one. A run of 254 bytes without a zero is preceded by
//! 0xFF.

/// The longest run, in bytes. Its length plus one still fits into a byte.
const MAX_RUN: u8 = 254;

/// Appends the encoded `bytes`, without the zero that ends them.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    loop {
        let run = (0..MAX_RUN)
            .zip(rest)
            .take_while(|(_, byte)| **byte != 0)
            .fold(0, |_, (k, _)| k + 1);
        out.push(run + 1);
        let (bytes, after) = rest.split_at(run.into());
        out.extend_from_slice(bytes);
        rest = after;
        match (run, rest) {
            // No zero follows the run at the end of the bytes, or after a run of full length.
            (_, []) => return,
            (MAX_RUN, _) => {}
            (_, [_zero, after @ ..]) => rest = after,
        }
    }
}

/// Decodes `code`, given without the zero that ended it; `None` if it is not valid.
pub fn decode(code: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(code.len());
    let mut rest = code;
    while let [length, after @ ..] = rest {
        let run = length.checked_sub(1)?;
        let (run_bytes, after) = after.split_at_checked(run.into())?;
        if run_bytes.contains(&0) {
            return None;
        }
        bytes.extend_from_slice(run_bytes);
        rest = after;
        if run < MAX_RUN && !rest.is_empty() {
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
    fn short_runs_and_zeros_are_encoded() {
        assert_eq!(code(&[]), [1]);
        assert_eq!(code(&[0]), [1, 1]);
        assert_eq!(code(&[0x11, 0x22, 0x00, 0x33]), [3, 0x11, 0x22, 2, 0x33]);
        assert_eq!(code(&[0x11, 0x00, 0x00]), [2, 0x11, 1, 1]);
    }

    #[test]
    fn long_runs_are_split_at_254_bytes() {
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
    fn invalid_codes_are_rejected() {
        assert_eq!(decode(&[0]), None);
        assert_eq!(decode(&[3, 1]), None);
        assert_eq!(decode(&[3, 1, 0]), None);
    }

    proptest! {
        #[test]
        fn decoding_restores_the_bytes_and_codes_contain_no_zero(bytes in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..700)) {
            let code = code(&bytes);
            prop_assert!(!code.contains(&0));
            prop_assert!(code.len() <= bytes.len() + 1 + bytes.len() / usize::from(MAX_RUN));
            prop_assert_eq!(decode(&code), Some(bytes));
        }
    }
}
